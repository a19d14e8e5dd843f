// Nothing in the words of a program is trusted.
#include <gtest/gtest.h>

#include <functional>

#include "program/error.h"
#include "program_writer.h"

namespace rskip::test {
namespace {

Program decode(const ProgramWriter& w) { return decode_program(w.words(), w.constants()); }

void expect_rejected(const std::function<void(ProgramWriter&)>& write) {
  ProgramWriter w;
  write(w);
  try {
    decode(w);
    ADD_FAILURE() << "the program was accepted";
  } catch (const EngineError& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInternal) << error.what();
  }
}

TEST(DecodeProgram, KeepsWhatTheWordsSay) {
  const TestNetwork network(2);
  const Program program = decode(network.writer);
  EXPECT_EQ(program.blocks.size(), 2u);
  EXPECT_EQ(program.steps.size(), static_cast<size_t>(network.writer.steps()));
  EXPECT_TRUE(program.blocks[1].skippable);
  EXPECT_TRUE(program.blocks[1].has_gate);
  EXPECT_EQ(program.steps[0].op, Op::kConv);
  EXPECT_EQ(program.steps[0].act.kind, ActivationKind::kRelu);
  EXPECT_EQ(program.steps[0].window.kernel, (Ints{3, 3}));
  EXPECT_EQ(program.value(program.inputs[0].value).shape, (Ints{1, 3, 9, 9}));
}

TEST(DecodeProgram, RejectsEveryPrefixAndAnythingMore) {
  const TestNetwork network(1);
  const Words words = network.writer.words();
  for (size_t n = 0; n < words.size(); ++n) {
    EXPECT_THROW(decode_program({words.data(), n}, network.writer.constants()), EngineError) << n;
  }
  Words more = words;
  more.push_back(0);
  EXPECT_THROW(decode_program(more, network.writer.constants()), EngineError);
}

TEST(DecodeProgram, RejectsConstantsOfAnotherLength) {
  const TestNetwork network(1);
  std::vector<ConstantData> constants = network.writer.constants();
  constants[0].bytes -= sizeof(float);
  EXPECT_THROW(decode_program(network.writer.words(), constants), EngineError);
  EXPECT_THROW(decode_program(network.writer.words(), {constants.data(), 1}), EngineError);
}

TEST(DecodeProgram, RejectsValuesThatOverflow) {
  expect_rejected([](ProgramWriter& w) { w.input({1 << 30, 1 << 30, 1 << 30}); });
  expect_rejected([](ProgramWriter& w) { w.input({-1}); });
  expect_rejected([](ProgramWriter& w) { w.input(Words(17, 1)); });
}

TEST(DecodeProgram, RejectsValuesThatAreNotThere) {
  expect_rejected([](ProgramWriter& w) {  // read before it is written
    const int32_t x = w.value({2});
    w.step(Op::kUnary, {x}, {2}, act_words(kRelu));
  });
  expect_rejected([](ProgramWriter& w) { w.output(w.value({2})); });
  expect_rejected([](ProgramWriter& w) {  // an input is written
    const int32_t x = w.input({2});
    const int32_t y = w.step(Op::kUnary, {x}, {2}, act_words(kRelu));
    w.push(Op::kUnary, {y}, {x}, act_words(kRelu));
  });
  expect_rejected([](ProgramWriter& w) {  // a step reads what it writes
    const int32_t y = w.step(Op::kUnary, {w.input({2})}, {2}, act_words(kRelu));
    w.push(Op::kUnary, {y}, {y}, act_words(kRelu));
  });
  expect_rejected([](ProgramWriter& w) { w.step(Op::kUnary, {99}, {2}, act_words(kRelu)); });
}

TEST(DecodeProgram, RejectsShapesThatDoNotFit) {
  const auto conv = [](Words x, Words weight, Words y, Words geometry) {
    expect_rejected([=](ProgramWriter& w) {
      size_t size = 1;
      for (int32_t d : weight) size *= static_cast<size_t>(d);
      const int32_t weights = w.constant(weight, std::vector<float>(size));
      Words attributes = {geometry[0], 0, 0, 0, 2};
      attributes.insert(attributes.end(), geometry.begin() + 1, geometry.end());
      w.step(Op::kConv, {w.input(x), weights, -1, -1}, y, attributes);
    });
  };
  //                                                group, strides, pads, dilations
  conv({1, 3, 8, 8}, {4, 3, 3, 3}, {1, 4, 8, 8}, {1, 1, 1, 0, 0, 0, 0, 1, 1});    // y is too large
  conv({1, 3, 8, 8}, {4, 2, 3, 3}, {1, 4, 6, 6}, {1, 1, 1, 0, 0, 0, 0, 1, 1});    // channels
  conv({1, 4, 8, 8}, {4, 2, 3, 3}, {1, 4, 6, 6}, {3, 1, 1, 0, 0, 0, 0, 1, 1});    // groups
  conv({1, 3, 8, 8}, {4, 3, 3, 3}, {1, 4, 6, 6}, {1, 0, 1, 0, 0, 0, 0, 1, 1});    // stride 0
  conv({1, 3, 8, 8}, {4, 3, 3, 3}, {1, 4, 4, 6}, {1, 1, 1, -1, 0, -1, 0, 1, 1});  // negative pads
  expect_rejected([](ProgramWriter& w) { w.step(Op::kReshape, {w.input({6})}, {7}); });
  expect_rejected([](ProgramWriter& w) { w.step(Op::kTranspose, {w.input({2, 3})}, {2, 3}, {2, 0, 0}); });
  expect_rejected([](ProgramWriter& w) { w.step(Op::kSlice, {w.input({5})}, {3}, {1, 0, 3}); });
  expect_rejected([](ProgramWriter& w) { w.step(Op::kConcat, {w.input({2}), w.input({2})}, {5}, {0}); });
  expect_rejected([](ProgramWriter& w) { w.step(Op::kSoftmax, {w.input({2})}, {2}, {1, 0}); });
  expect_rejected([](ProgramWriter& w) {  // larger than what broadcasts to it
    w.step(Op::kBinary, {w.input({2, 1}), w.input({1})}, {2, 3}, {0, 0, 0, 0});
  });
  expect_rejected([](ProgramWriter& w) {
    w.step(Op::kGemm, {w.input({1, 4}), w.input({5, 3}), -1, -1}, {1, 3}, {0, 0, 0, 0});
  });
}

TEST(DecodeProgram, RejectsValuesThatOnlyOneBranchWrites) {
  // `both`: the other branch writes the value too. `between`: steps between the branches and the read.
  const auto branches = [](bool both) {
    return [=](ProgramWriter& w) {
      const int32_t x = w.input({2}), condition = w.input({1}, DType::kBool), y = w.value({2});
      w.push(Op::kBranch, {condition}, {}, {3});
      w.push(Op::kUnary, {x}, {y}, act_words(kRelu));
      w.push(Op::kJump, {}, {}, {4});
      w.push(Op::kUnary, {x}, {both ? y : w.value({2})}, act_words({}));
      w.output(w.step(Op::kUnary, {y}, {2}, act_words({})));
    };
  };
  ProgramWriter good;
  branches(true)(good);
  EXPECT_NO_THROW(decode(good));
  expect_rejected(branches(false));
  expect_rejected([](ProgramWriter& w) {  // a branch that may be left out, and no other
    const int32_t x = w.input({2}), condition = w.input({1}, DType::kBool);
    w.push(Op::kBranch, {condition}, {}, {2});
    w.output(w.step(Op::kUnary, {x}, {2}, act_words(kRelu)));
  });
}

TEST(DecodeProgram, RejectsJumps) {
  const auto jump = [](int32_t target) {
    expect_rejected([=](ProgramWriter& w) {
      const int32_t x = w.step(Op::kUnary, {w.input({2})}, {2}, act_words(kRelu));
      w.push(Op::kJump, {}, {}, {target});
      w.step(Op::kUnary, {x}, {2}, act_words(kRelu));
    });
  };
  jump(0);  // backwards
  jump(1);  // on the spot
  jump(4);  // past the end
}

// Writes a block of two steps whose parts may be moved.
void two_steps(ProgramWriter& w, bool leak, int32_t jump_before, int32_t jump_inside) {
  const int32_t x = w.step(Op::kUnary, {w.input({2})}, {2}, act_words(kRelu));
  if (jump_before >= 0) w.push(Op::kJump, {}, {}, {jump_before});
  const int32_t first = w.steps();
  const int32_t t = w.step(Op::kUnary, {x}, {2}, act_words(kRelu));
  if (jump_inside >= 0) w.push(Op::kJump, {}, {}, {jump_inside});
  const int32_t y = w.step(Op::kBinary, {x, t}, {2}, {0, 0, 0, 0});
  w.block(true, first, first, x, y);
  w.output(leak ? t : y);
}

TEST(DecodeProgram, RejectsBlocksThatCannotBeSkipped) {
  ProgramWriter good;
  two_steps(good, false, 2, 4);
  EXPECT_NO_THROW(decode(good));
  expect_rejected([](ProgramWriter& w) { two_steps(w, true, -1, -1); });  // a value of the body is read outside
  expect_rejected([](ProgramWriter& w) { two_steps(w, false, 3, -1); });  // a jump into the body
  expect_rejected([](ProgramWriter& w) {                                  // a jump out of it
    two_steps(w, false, -1, 5);
    w.push(Op::kJump, {}, {}, {5});
    w.push(Op::kJump, {}, {}, {6});
  });
  expect_rejected([](ProgramWriter& w) {  // ends of different shape
    const int32_t x = w.input({2});
    const int32_t first = w.steps();
    w.block(true, first, first, x, w.step(Op::kReshape, {x}, {2, 1}));
  });
  expect_rejected([](ProgramWriter& w) {  // a score of two elements
    const int32_t x = w.input({2});
    const int32_t first = w.steps();
    w.block(true, first, first, x, w.step(Op::kUnary, {x}, {2}, act_words(kRelu)), x);
  });
  expect_rejected([](ProgramWriter& w) {  // a score that is there only when the gate is asked
    const int32_t x = w.input({1});
    const int32_t score = w.step(Op::kUnary, {x}, {1}, act_words(kRelu));
    const int32_t first = w.steps();
    w.block(true, 0, first, x, w.step(Op::kUnary, {x}, {1}, act_words(kRelu)), score);
    w.output(score);
  });
}

TEST(DecodeProgram, RejectsExitsThatDoNotFit) {
  const auto relu = [](ProgramWriter& w, int32_t x) { return w.step(Op::kUnary, {x}, {1}, act_words(kRelu)); };
  const auto whole = [&](const auto& add) {
    ProgramWriter w;
    const int32_t x = w.input({1});
    const int32_t score = relu(w, x);
    add(w, score);
    w.output(relu(w, score));
    return w;
  };
  EXPECT_NO_THROW(decode(whole([](ProgramWriter& w, int32_t score) { w.exit(0, score, {score}); })));
  EXPECT_THROW(decode(whole([](ProgramWriter& w, int32_t score) { w.exit(1, score + 1, {score}); })), EngineError);
  EXPECT_THROW(decode(whole([](ProgramWriter& w, int32_t score) { w.exit(1, score, {score + 1}); })), EngineError);
  EXPECT_THROW(decode(whole([&](ProgramWriter& w, int32_t score) {
                 const int32_t two = w.step(Op::kExpand, {score}, {2});
                 w.exit(1, score, {two});
               })),
               EngineError);
  EXPECT_THROW(decode(whole([&](ProgramWriter& w, int32_t score) {
                 const int32_t two = w.step(Op::kExpand, {score}, {2});
                 w.exit(1, two, {score});
               })),
               EngineError);
  EXPECT_THROW(decode(whole([&](ProgramWriter& w, int32_t score) {  // within a block
                 const int32_t inner = relu(w, score);
                 w.exit(1, score, {score});
                 w.block(true, 1, 1, score, relu(w, inner));
               })),
               EngineError);
  EXPECT_THROW(decode(whole([&](ProgramWriter& w, int32_t score) {  // for all items at once
                 w.output(relu(w, score), false);
                 w.exit(2, score, {score, score});
               })),
               EngineError);
}

// Changed words are rejected or give a program that runs within its buffers (the sanitizers watch).
TEST(DecodeProgram, SurvivesChangedWords) {
  Engine engine({.threads = 1, .table = table_for(Isa::kScalar)});
  ProgramWriter w = TestNetwork(2, 5, 4, 1, true).writer;
  const Words good = w.words();
  Random random(5);
  int accepted = 0;
  for (int round = 0; round < 30000; ++round) {
    Words words = good;
    for (uint32_t n = 1 + random.below(3); n > 0; --n) {
      int32_t& word = words[random.below(static_cast<uint32_t>(words.size()))];
      switch (random.below(4)) {
        case 0: word = static_cast<int32_t>(random.next()); break;
        case 1: word = static_cast<int32_t>(random.below(32)) - 2; break;
        case 2: word += static_cast<int32_t>(random.below(3)) - 1; break;
        default: word = words[random.below(static_cast<uint32_t>(words.size()))];
      }
    }
    std::unique_ptr<CompiledProgram> program;
    try {
      const Program decoded = decode_program(words, w.constants());
      int64_t elements = 0;
      for (const Value& value : decoded.values) elements += value.elements;
      if (elements > 1'000'000) continue;
      program = engine.compile(words, w.constants());
    } catch (const EngineError&) {
      continue;
    }
    if (program->plan().arena_bytes > (size_t{1} << 26)) continue;
    ++accepted;
    TestRun run(program->plan(), 1, BlockMode::kRun);
    for (size_t b = 0; b < program->plan().blocks.size(); ++b) {
      if (program->plan().blocks[b].has_gate) run.request.modes[b] = BlockMode::kGate;
    }
    const RunResult result = program->run_here(std::move(run.request));
    EXPECT_FALSE(result.error && result.error->code() == ErrorCode::kInternal) << result.error->what();
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace rskip::test
