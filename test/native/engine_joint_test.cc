// Items of a batch that multiply by large matrices together: each gets the bits and the decisions that it has alone.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <set>

#include "program_writer.h"

namespace rskip::test {
namespace {

constexpr int32_t kRows = 3, kWidth = 260;  // as few rows, and as many weights, as make products joint
constexpr int32_t kBlocks = 3, kProducts = 2 * kBlocks + 1;

// Gated residual blocks of two products, an exit before the first and one behind each, and a product. The first joint product is
// inside of a block that may be skipped, behind a convolution whose result is read later.
ProgramWriter dense_network(bool exits) {
  ProgramWriter w;
  Random random(5);
  const Words shape = {1, kRows, kWidth};
  const auto product = [&](int32_t x, int32_t residual, const Activation& act) {
    const int32_t weight = w.constant({kWidth, kWidth}, random.reals(kWidth * kWidth, 0.1f));
    const int32_t bias = w.constant({kWidth}, random.reals(kWidth));
    Words attributes = {1};
    for (int32_t word : act_words(act)) attributes.push_back(word);
    return w.step(Op::kGemm, {x, weight, bias, residual}, shape, attributes);
  };
  const auto score_of = [&](int32_t x) {
    const int32_t spread = w.step(Op::kReshape, {x}, {1, 1, kRows * kWidth});
    return w.step(Op::kGlobalPool, {spread}, {1, 1}, {1});
  };
  const int32_t map = w.conv(w.input({1, kRows, kWidth, 1}), kRows, 3, random, -1, kRelu);
  int32_t x = w.step(Op::kReshape, {map}, shape);
  for (int32_t b = 0; b < kBlocks; ++b) {
    if (exits) {
      const int32_t first = w.steps();
      const int32_t answer = w.step(Op::kUnary, {x}, shape, act_words({ActivationKind::kTanh, 0, 0}));
      w.exit(first, score_of(answer), {answer});
    }
    const int32_t gate_first = w.steps();
    const int32_t score = score_of(x);
    const int32_t first = w.steps();
    const int32_t y = product(product(x, -1, kRelu), x, kRelu);
    w.block(true, gate_first, first, x, y, score);
    x = y;
  }
  const int32_t added = w.step(Op::kReshape, {map}, shape);
  w.output(w.step(Op::kBinary, {product(x, -1, {}), added}, shape, {0, 0, 0, 0}));
  return w;
}

std::unique_ptr<CompiledProgram> compile(Engine& engine, const ProgramWriter& w) {
  return engine.compile(w.words(), w.constants());
}

// Everything that a run says of `item`.
std::vector<char> record_of(const TestRun& run, size_t items, size_t item) {
  std::vector<char> record;
  const auto append = [&](const void* data, size_t bytes) {
    const char* const first = static_cast<const char*>(data) + item * (bytes / items);
    record.insert(record.end(), first, first + bytes / items);
  };
  for (const auto& output : run.outputs) append(output.data(), output.size());
  append(run.outcomes.data(), run.outcomes.size());
  append(run.scores.data(), run.scores.size() * sizeof(float));
  return record;
}

std::vector<std::vector<char>> run_together(CompiledProgram& program, size_t items, BlockMode mode, float threshold) {
  TestRun run(program.plan(), static_cast<int64_t>(items), mode, threshold);
  EXPECT_FALSE(program.run_here(std::move(run.request)).error);
  std::vector<std::vector<char>> records;
  for (size_t i = 0; i < items; ++i) records.push_back(record_of(run, items, i));
  return records;
}

std::vector<std::vector<char>> run_alone(CompiledProgram& program, size_t items, BlockMode mode, float threshold) {
  const TestRun all(program.plan(), static_cast<int64_t>(items), mode, threshold);
  std::vector<std::vector<char>> records;
  for (size_t i = 0; i < items; ++i) {
    TestRun run(program.plan(), 1, mode, threshold);
    const size_t bytes = run.inputs[0].size();
    std::memcpy(run.inputs[0].data(), all.inputs[0].data() + i * bytes, bytes);
    EXPECT_FALSE(program.run_here(std::move(run.request)).error);
    records.push_back(record_of(run, 1, 0));
  }
  return records;
}

// Between the scores of items, so that they part.
float median_score(CompiledProgram& program, size_t items) {
  TestRun run(program.plan(), static_cast<int64_t>(items), BlockMode::kGate, std::numeric_limits<float>::infinity());
  EXPECT_FALSE(program.run_here(std::move(run.request)).error);
  std::vector<float> scores;
  for (size_t i = 0; i < items; ++i) scores.push_back(run.scores[i * program.plan().decisions()]);
  std::nth_element(scores.begin(), scores.begin() + static_cast<ptrdiff_t>(items / 2), scores.end());
  return scores[items / 2];
}

TEST(Joint, HasTheBitsAndDecisionsOfItemsAlone) {
  constexpr size_t kItems = 9;
  for (const bool exits : {false, true}) {
    const ProgramWriter w = dense_network(exits);
    Engine scalar({.threads = 1, .table = table_for(Isa::kScalar)});
    const auto oracle = compile(scalar, w);
    ASSERT_GE(oracle->plan().join, 0);
    const float threshold = median_score(*oracle, kItems);
    for (const BlockMode mode : {BlockMode::kRun, BlockMode::kSkip, BlockMode::kGate}) {
      const auto expected = run_alone(*oracle, kItems, mode, threshold);
      EXPECT_EQ(std::set(expected.begin(), expected.end()).size(), kItems);
      for (const KernelTable* table : available_tables()) {
        for (const int threads : {1, 2, 3}) {
          Engine engine({.threads = threads, .table = table});
          EXPECT_EQ(run_together(*compile(engine, w), kItems, mode, threshold), expected)
              << table->name << ", threads " << threads << ", mode " << static_cast<int>(mode) << ", exits " << exits;
        }
      }
    }
  }
}

std::atomic<int> gemm_calls{0};

const KernelTable& counting_table() {
  static const KernelTable table = [] {
    KernelTable t = *table_for(Isa::kScalar);
    t.gemm = [](const GemmArgs& args, int part, int parts) {
      ++gemm_calls;
      table_for(Isa::kScalar)->gemm(args, part, parts);
    };
    return t;
  }();
  return table;
}

int calls_of(CompiledProgram& program, size_t items, BlockMode mode, float threshold = 0) {
  gemm_calls = 0;
  run_together(program, items, mode, threshold);
  return gemm_calls;
}

TEST(Joint, CallsAKernelOnceForAllItemsThatArrive) {
  Engine engine({.threads = 1, .table = &counting_table()});
  const auto program = compile(engine, dense_network(false));
  EXPECT_EQ(calls_of(*program, 1, BlockMode::kRun), kProducts);
  EXPECT_EQ(calls_of(*program, 8, BlockMode::kRun), kProducts);
  EXPECT_EQ(calls_of(*program, 9, BlockMode::kRun), 2 * kProducts) << "two groups";
  EXPECT_EQ(calls_of(*program, 8, BlockMode::kSkip), 1);
  const float threshold = median_score(*program, 8);
  const int some = calls_of(*program, 8, BlockMode::kGate, threshold);
  EXPECT_EQ(some, kProducts) << "items that skip a block don't keep the others apart";
}

TEST(Joint, CountsTheWorkOfEachItem) {
  Engine engine({.threads = 1});
  const auto program = compile(engine, dense_network(false));
  const auto result_of = [&](int64_t items) {
    TestRun run(program->plan(), items, BlockMode::kRun);
    return program->run_here(std::move(run.request));
  };
  const RunResult one = result_of(1), many = result_of(11);
  EXPECT_EQ(many.instructions, 11 * one.instructions);
  EXPECT_EQ(many.cost, 11 * one.cost);
}

TEST(Joint, StaysWithinTheMemoryLimit) {
  const ProgramWriter w = dense_network(false);
  int64_t alone = 0;
  {
    Engine engine({.threads = 1});
    run_together(*compile(engine, w), 1, BlockMode::kRun, 0);
    alone = engine.memory();
  }
  std::set<int> calls;
  for (const int64_t limit : {alone, 2 * alone, 4 * alone, 16 * alone}) {
    Engine engine({.threads = 1, .table = &counting_table(), .memory_limit = limit});
    const auto program = compile(engine, w);
    calls.insert(calls_of(*program, 8, BlockMode::kRun));
    EXPECT_LE(engine.memory(), limit);
  }
  EXPECT_EQ(*calls.begin(), kProducts) << "where memory allows it, all together";
  EXPECT_EQ(*calls.rbegin(), 8 * kProducts) << "where it is for one item only, one after the other";
}

TEST(Joint, EndsWhenAsked) {
  Engine engine({.threads = 1});
  const auto program = compile(engine, dense_network(false));
  TestRun run(program->plan(), 8, BlockMode::kRun);
  const int32_t stop = 1;
  run.request.abort_flag = &stop;
  const RunResult result = program->run_here(std::move(run.request));
  ASSERT_TRUE(result.error);
  EXPECT_EQ(result.error->code(), ErrorCode::kAborted);
}

TEST(Joint, TimesOfAProfileFollowEachOther) {
  Engine engine({.threads = 1});
  const auto program = compile(engine, dense_network(false));
  TestRun run(program->plan(), 4, BlockMode::kRun);
  const size_t codes = program->plan().code.size();
  std::vector<double> times(4 * 2 * codes, -1);
  run.request.times = times;
  EXPECT_FALSE(program->run_here(std::move(run.request)).error);
  for (size_t c = 0; c < codes; ++c) {
    if (!program->plan().code[c].joint) continue;
    for (size_t i = 0; i < 4; ++i) {
      const double* const at = &times[2 * (i * codes + c)];
      EXPECT_LE(at[0], at[1]);
      if (i > 0) {
        EXPECT_GE(at[0], times[2 * ((i - 1) * codes + c) + 1]);
      }
    }
  }
}

}  // namespace
}  // namespace rskip::test
