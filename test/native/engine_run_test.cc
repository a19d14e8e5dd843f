// Skipping, gates, in-place updates, and equal bits for any number of threads.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

#include "program_writer.h"
#include "run/gate.h"
#include "run/item_state.h"

namespace rskip::test {
namespace {

std::atomic<int> kernel_calls{0};

// The kernel of the scalar table, counted.
template <auto Member>
struct Counted;
template <class... Args, void (*KernelTable::*Member)(Args...)>
struct Counted<Member> {
  static void call(Args... args) {
    ++kernel_calls;
    (table_for(Isa::kScalar)->*Member)(args...);
  }
};

const KernelTable& counting_table() {
  static const KernelTable table = [] {
    KernelTable t = *table_for(Isa::kScalar);
#define RS_KERNEL(name, ...) t.name = Counted<&KernelTable::name>::call;
#define RS_KERNEL8 RS_KERNEL
#define RS_KERNEL16 RS_KERNEL
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16
    return t;
  }();
  return table;
}

std::unique_ptr<CompiledProgram> compile(Engine& engine, const ProgramWriter& writer) {
  return engine.compile(writer.words(), writer.constants());
}

int calls_of(CompiledProgram& program, BlockMode mode, float threshold = 0, uint64_t* instructions = nullptr) {
  TestRun run(program.plan(), 1, mode, threshold);
  kernel_calls = 0;
  const RunResult result = program.run_here(std::move(run.request));
  EXPECT_FALSE(result.error);
  if (instructions) *instructions = result.instructions;
  return kernel_calls;
}

// Expand, depthwise, project, twice; values that are outputs, too, have to exist in whole.
std::vector<std::vector<char>> run_inverted_residuals(const std::vector<int>& outputs, int threads, uint64_t* instructions) {
  Random random(11);
  ProgramWriter w;
  std::vector<int32_t> values = {w.input({1, 16, 96, 96})};
  for (int i = 0; i < 2; ++i) {
    values.push_back(w.conv(values.back(), 48, 1, random, -1, kRelu));
    values.push_back(w.conv(values.back(), 48, 3, random, -1, kRelu, 48));
    values.push_back(w.conv(values.back(), 20, 1, random));
  }
  for (int index : outputs) w.output(values[static_cast<size_t>(index)]);
  Engine engine({.threads = threads});
  const auto program = compile(engine, w);
  TestRun run(program->plan(), 2, BlockMode::kRun);
  const RunResult result = program->run_here(std::move(run.request));
  EXPECT_FALSE(result.error);
  *instructions = result.instructions;
  return run.outputs;
}

TEST(Fusing, JoinsConvolutionsWhoseResultsNobodyElseReads) {
  uint64_t fused = 0, partly = 0, apart = 0, shared = 0;
  const auto expected = run_inverted_residuals({6}, 1, &fused);
  // Outputs are converted: one instruction more for each, and item.
  EXPECT_EQ(run_inverted_residuals({6, 2}, 1, &partly)[0], expected[0]);
  EXPECT_EQ(run_inverted_residuals({6, 1, 4}, 1, &apart)[0], expected[0]);
  EXPECT_EQ(run_inverted_residuals({6}, 3, &shared)[0], expected[0]);
  EXPECT_EQ(partly, fused + 2 * (1 + 1));
  EXPECT_EQ(apart, fused + 2 * (2 + 4));
  EXPECT_EQ(shared, fused);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Skipping, RunsNoKernelOfASkippedBlock) {
  Engine engine({.threads = 1, .table = &counting_table()});
  const TestNetwork none(0), ten(10);
  const auto without = compile(engine, none.writer), with = compile(engine, ten.writer);
  const int outside = calls_of(*without, BlockMode::kRun);
  ASSERT_GT(outside, 0);
  EXPECT_EQ(calls_of(*with, BlockMode::kSkip), outside);
  EXPECT_EQ(calls_of(*with, BlockMode::kRun), outside + 10 * 2);               // two convolutions each
  EXPECT_EQ(calls_of(*with, BlockMode::kGate, -kInfinity), outside + 10 * 4);  // and a pool and a product
  EXPECT_EQ(calls_of(*with, BlockMode::kGate, kInfinity), outside + 10 * 2);   // the gate alone
}

TEST(Skipping, CostsNothingOfThePath) {
  Engine engine({.threads = 1});
  const TestNetwork none(0), ten(10);
  const auto without = compile(engine, none.writer), with = compile(engine, ten.writer);
  const auto cost_of = [](CompiledProgram& program, BlockMode mode) {
    TestRun run(program.plan(), 3, mode);
    return program.run_here(std::move(run.request)).cost / 3;
  };
  EXPECT_EQ(cost_of(*without, BlockMode::kRun), without->plan().cost);
  EXPECT_EQ(cost_of(*with, BlockMode::kSkip), without->plan().cost);
  constexpr int64_t kConvolutions = 10 * 2 * (20 * 20 * 9) * (9 * 9);
  EXPECT_EQ(cost_of(*with, BlockMode::kRun), without->plan().cost + kConvolutions);
  EXPECT_GT(with->plan().cost, without->plan().cost + kConvolutions);  // and gates
}

TEST(Skipping, IsNoWorkAtAllWhereTheStreamIsUpdatedInPlace) {
  Engine engine({.threads = 1});
  const TestNetwork none(0), ten(10);
  const auto without = compile(engine, none.writer), with = compile(engine, ten.writer);
  uint64_t expected = 0, instructions = 0;
  calls_of(*without, BlockMode::kRun, 0, &expected);
  calls_of(*with, BlockMode::kSkip, 0, &instructions);
  EXPECT_EQ(instructions, expected);
  for (const PlanBlock& block : with->plan().blocks) EXPECT_TRUE(block.on_skip.empty());
  // One stream, one hidden map: no more memory for ten blocks than for one.
  const TestNetwork one(1);
  EXPECT_EQ(with->plan().arena_bytes, compile(engine, one.writer)->plan().arena_bytes);
}

// What was made of the first content is left alone, and not taken for the second.
TEST(Rewriting, GivesLaterStepsTheNewContent) {
  ProgramWriter w;
  const Words shape = {1, 2, 3, 2};
  const int32_t x = w.input(shape), v = w.value(shape);
  const int32_t weight = w.constant({2, 2, 1, 1}, {1, 0, 0, 1});
  const auto conv = [&] { return w.step(Op::kConv, {v, weight, -1, v}, shape, {1, 0, 0, 0, 2, 1, 1, 0, 0, 0, 0, 1, 1}); };
  w.push(Op::kReshape, {x}, {v});
  w.output(w.step(Op::kReshape, {v}, {12}));
  w.output(conv());
  w.push(Op::kBinary, {x, x}, {v}, {0, 0, 0, 0});
  w.output(conv());
  Engine engine({.threads = 1});
  const auto program = compile(engine, w);
  TestRun run(program->plan(), 1, BlockMode::kRun);
  EXPECT_FALSE(program->run_here(std::move(run.request)).error);
  float in[12], out[12];
  std::memcpy(in, run.inputs[0].data(), sizeof(in));
  for (size_t i = 0; i < 3; ++i) {
    std::memcpy(out, run.outputs[i].data(), sizeof(out));
    for (int e = 0; e < 12; ++e) EXPECT_EQ(out[e], static_cast<float>(1 << i) * in[e]) << "output " << i;
  }
}

// The copy of a skipped block must not go into the memory of what its last step, a reshape, read.
TEST(Skipping, LeavesTheSourceOfAReshapeAlone) {
  ProgramWriter w;
  const int32_t x = w.input({4});
  const int32_t twice = w.step(Op::kBinary, {x, x}, {4}, {0, 0, 0, 0});
  const int32_t first = w.steps();
  const int32_t y = w.step(Op::kReshape, {twice}, {4});
  w.block(true, first, first, x, y);
  w.output(y);
  w.output(twice);
  Engine engine({.threads = 1});
  const auto program = compile(engine, w);
  for (BlockMode mode : {BlockMode::kRun, BlockMode::kSkip}) {
    TestRun run(program->plan(), 1, mode);
    float in[4], out[2][4];
    std::memcpy(in, run.inputs[0].data(), sizeof(in));
    EXPECT_FALSE(program->run_here(std::move(run.request)).error);
    for (size_t i = 0; i < 2; ++i) std::memcpy(out[i], run.outputs[i].data(), sizeof(in));
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(out[0][i], mode == BlockMode::kRun ? 2 * in[i] : in[i]);
      EXPECT_EQ(out[1][i], 2 * in[i]);
    }
  }
}

TEST(Skipping, CopiesTheStreamWhereItIsReadLater) {
  Engine engine({.threads = 1});
  Random random(3);
  ProgramWriter w;
  const int32_t x = w.conv(w.input({1, 3, 6, 6}), 18, 3, random);
  const int32_t first = w.steps();
  const int32_t y = w.conv(x, 18, 3, random, x);
  w.block(true, first, first, x, y, -1, kRelu);
  w.output(w.step(Op::kBinary, {x, y}, {1, 18, 6, 6}, {0, 0, 0, 0}));
  w.output(y);
  w.output(x);
  const auto program = compile(engine, w);
  EXPECT_EQ(program->plan().blocks[0].on_skip.size(), 2u);  // a copy and the activation
  TestRun run(program->plan(), 1, BlockMode::kSkip);
  ASSERT_FALSE(program->run_here(std::move(run.request)).error);
  const float* sum = reinterpret_cast<const float*>(run.outputs[0].data());
  const float* after = reinterpret_cast<const float*>(run.outputs[1].data());
  const float* before = reinterpret_cast<const float*>(run.outputs[2].data());
  int negative = 0;
  for (int i = 0; i < 18 * 36; ++i) {
    negative += before[i] < 0;
    ASSERT_EQ(after[i], std::max(before[i], 0.0f)) << i;
    ASSERT_EQ(sum[i], before[i] + after[i]) << i;
  }
  EXPECT_GT(negative, 0);
}

TEST(Gates, DecideByScoreAndThreshold) {
  Engine engine({.threads = 1});
  const TestNetwork network(1);
  const auto program = compile(engine, network.writer);
  TestRun asked(program->plan(), 1, BlockMode::kGate);
  ASSERT_FALSE(program->run_here(std::move(asked.request)).error);
  const float score = asked.scores[0];
  EXPECT_EQ(asked.outcomes[0], score > 0 ? 1 : 0);
  TestRun at(program->plan(), 1, BlockMode::kGate, score);
  ASSERT_FALSE(program->run_here(std::move(at.request)).error);
  EXPECT_EQ(at.outcomes[0], 0);  // not greater than itself
  TestRun below(program->plan(), 1, BlockMode::kGate, std::nextafter(score, -kInfinity));
  ASSERT_FALSE(program->run_here(std::move(below.request)).error);
  EXPECT_EQ(below.outcomes[0], 1);
  TestRun always(program->plan(), 1, BlockMode::kRun);
  ASSERT_FALSE(program->run_here(std::move(always.request)).error);
  EXPECT_EQ(always.outcomes[0], 1);
  EXPECT_TRUE(std::isnan(always.scores[0]));
}

TEST(Gates, RunTheBlockWhenTheScoreIsNoNumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (auto compare : {ops::CompareKind::kGt, ops::CompareKind::kGe, ops::CompareKind::kLt, ops::CompareKind::kLe}) {
    EXPECT_TRUE(gate_runs(compare, nan, 0));
  }
  EXPECT_FALSE(gate_runs(ops::CompareKind::kGt, 1, 1));
  EXPECT_TRUE(gate_runs(ops::CompareKind::kGe, 1, 1));
  EXPECT_FALSE(gate_runs(ops::CompareKind::kLt, 1, 1));
  EXPECT_TRUE(gate_runs(ops::CompareKind::kLe, 1, 1));
}

// Runs with a threshold for each exit, all blocks running.
std::unique_ptr<TestRun> run_with_exits(CompiledProgram& program, int64_t items, const std::vector<float>& thresholds) {
  auto run = std::make_unique<TestRun>(program.plan(), items, BlockMode::kRun);
  const size_t blocks = program.plan().blocks.size();
  std::copy(thresholds.begin(), thresholds.end(), run->request.thresholds.begin() + static_cast<ptrdiff_t>(blocks));
  const RunResult result = program.run_here(run->request);
  EXPECT_FALSE(result.error) << result.error->what();
  return run;
}

TEST(Exits, EndTheItemWithTheirAnswer) {
  Engine engine({.threads = 1});
  const auto program = compile(engine, TestNetwork(2, 20, 9, 1, true).writer);
  const size_t blocks = 2, exits = 3;
  const auto full = run_with_exits(*program, 1, std::vector<float>(exits, kInfinity));
  for (size_t e = 0; e < exits; ++e) {
    const float score = full->scores[blocks + e];
    EXPECT_EQ(full->outcomes[blocks + e], 0);
    std::vector<float> thresholds(exits, kInfinity);
    thresholds[e] = score;
    const auto left = run_with_exits(*program, 1, thresholds);
    EXPECT_EQ(left->outcomes[blocks + e], 1);
    // The score is the answer's largest element.
    const float* answer = reinterpret_cast<const float*>(left->outputs[0].data());
    EXPECT_EQ(*std::max_element(answer, answer + 10), score);
    EXPECT_NE(left->outputs, full->outputs);
    for (size_t b = 0; b < blocks; ++b) EXPECT_EQ(left->outcomes[b], b < e ? 1 : 0);
    for (size_t later = e + 1; later < exits; ++later) EXPECT_TRUE(std::isnan(left->scores[blocks + later]));
    thresholds[e] = std::nextafter(score, kInfinity);
    const auto stayed = run_with_exits(*program, 1, thresholds);
    EXPECT_EQ(stayed->outcomes[blocks + e], 0);
    EXPECT_EQ(stayed->outputs, full->outputs);
  }
}

TEST(Exits, AreTakenByEachItemAlone) {
  const TestNetwork network(3, 20, 9, 1, true);
  Engine engine({.threads = 3});
  const auto program = compile(engine, network.writer);
  const auto full = run_with_exits(*program, 8, std::vector<float>(4, kInfinity));
  std::vector<float> scores;
  for (size_t item = 0; item < 8; ++item) scores.push_back(full->scores[item * 7 + 4]);
  std::vector<float> thresholds(4, kInfinity);
  std::nth_element(scores.begin(), scores.begin() + 4, scores.end());
  thresholds[1] = scores[4];
  const auto run = run_with_exits(*program, 8, thresholds);
  int left = 0;
  for (size_t item = 0; item < 8; ++item) {
    const bool taken = full->scores[item * 7 + 4] >= scores[4];
    left += taken;
    EXPECT_EQ(run->outcomes[item * 7 + 4], taken);
    EXPECT_EQ(run->outcomes[item * 7 + 2], !taken);
    const bool same = std::equal(run->outputs[0].begin() + static_cast<ptrdiff_t>(item) * 40,
                                 run->outputs[0].begin() + static_cast<ptrdiff_t>(item + 1) * 40,
                                 full->outputs[0].begin() + static_cast<ptrdiff_t>(item) * 40);
    EXPECT_EQ(same, !taken);
  }
  EXPECT_EQ(left, 4);
}

TEST(Exits, LetItemsGoOnWhereTheyStopped) {
  Engine engine({.threads = 2});
  const auto program = compile(engine, TestNetwork(3, 20, 9, 1, true).writer);
  const int64_t items = 3;
  const size_t exits = 4, blocks = program->plan().blocks.size(), bytes = state_bytes(program->plan());
  std::vector<std::vector<char>> states(items, std::vector<char>(bytes));
  const auto run = [&](size_t exit, bool with_states) {
    auto run = std::make_unique<TestRun>(program->plan(), items, BlockMode::kRun, kInfinity);
    if (exit < exits) run->request.thresholds[blocks + exit] = -kInfinity;
    if (with_states) {
      for (std::vector<char>& state : states) run->request.states.push_back({state.data(), state.size()});
    }
    const RunResult result = program->run_here(run->request);
    EXPECT_FALSE(result.error) << result.error->what();
    return std::pair(std::move(run), result.instructions);
  };
  // To the exit before the first block, by one in the middle, to the end; then back, which begins again.
  for (const size_t exit : {size_t{0}, size_t{2}, exits, size_t{1}}) {
    const auto [straight, all] = run(exit, false);
    const auto [resumed, done] = run(exit, true);
    EXPECT_EQ(resumed->outputs, straight->outputs) << exit;
    EXPECT_EQ(resumed->outcomes, straight->outcomes) << exit;
    EXPECT_EQ(std::memcmp(resumed->scores.data(), straight->scores.data(), straight->scores.size() * sizeof(float)), 0);
    if (exit >= 2) EXPECT_LT(done, all) << exit;
    else EXPECT_EQ(done, all) << exit;
  }
  TestRun short_state(program->plan(), items, BlockMode::kRun);
  for (std::vector<char>& state : states) short_state.request.states.push_back({state.data(), state.size() - 1});
  EXPECT_THROW(program->run_here(short_state.request), EngineError);
}

TEST(Exits, AreNotTakenWhenTheScoreIsNoNumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(exit_taken(nan, -kInfinity));
  EXPECT_TRUE(exit_taken(1, 1));
}

// Large enough for layers to be shared among workers.
TEST(Threads, GiveTheSameBits) {
  const TestNetwork network(4, 48, 33);
  std::vector<std::vector<char>> expected;
  std::vector<float> scores;
  for (const KernelTable* table : available_tables()) {
    for (int threads : {1, 2, 4}) {
      Engine engine({.threads = threads, .table = table});
      const auto program = compile(engine, network.writer);
      for (int repeat = 0; repeat < 3; ++repeat) {
        TestRun run(program->plan(), 1, BlockMode::kGate, 0);
        ASSERT_FALSE(program->run_here(std::move(run.request)).error);
        if (expected.empty()) {
          expected = run.outputs;
          scores = run.scores;
        }
        EXPECT_EQ(run.outputs, expected) << table->name << " " << threads;
        EXPECT_EQ(std::memcmp(run.scores.data(), scores.data(), scores.size() * sizeof(float)), 0);
      }
    }
  }
}

TEST(Threads, ServeManyRunsAtOnce) {
  Engine engine({.threads = 3});
  const TestNetwork network(3);
  const auto program = compile(engine, network.writer);
  TestRun alone(program->plan(), 4, BlockMode::kGate);
  ASSERT_FALSE(program->run_here(std::move(alone.request)).error);
  std::vector<std::unique_ptr<TestRun>> runs;
  std::mutex mutex;
  std::condition_variable changed;
  int done = 0;
  for (int i = 0; i < 50; ++i) {
    runs.push_back(std::make_unique<TestRun>(program->plan(), 4, BlockMode::kGate));
    program->run(std::move(runs.back()->request), [&](const RunResult& result) {
      EXPECT_FALSE(result.error);
      std::lock_guard lock(mutex);
      ++done;
      changed.notify_one();
    });
  }
  TestRun meanwhile(program->plan(), 4, BlockMode::kGate);
  ASSERT_FALSE(program->run_here(std::move(meanwhile.request)).error);
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return done == 50; });
  for (const auto& run : runs) EXPECT_EQ(run->outputs, alone.outputs);
  EXPECT_EQ(meanwhile.outputs, alone.outputs);
}

TEST(Runs, EndEarlyWhenAskedTo) {
  Engine engine({.threads = 2});
  const TestNetwork network(3);
  const auto program = compile(engine, network.writer);
  const int32_t flag = 1;
  TestRun run(program->plan(), 100, BlockMode::kRun);
  run.request.abort_flag = &flag;
  const RunResult result = program->run_here(std::move(run.request));
  ASSERT_TRUE(result.error);
  EXPECT_EQ(result.error->code(), ErrorCode::kAborted);
  EXPECT_EQ(result.instructions, 0u);
}

// A program of one step can only hear it within the step.
TEST(Runs, EndEarlyInTheMiddleOfALongKernel) {
  static std::atomic<int32_t> flag;
  static std::atomic<int> calls;
  KernelTable table = *table_for(Isa::kScalar);
  table.conv = [](const ConvArgs&, int, int) {
    ++calls;
    flag = 1;
  };
  Random random(5);
  ProgramWriter w;
  w.output(w.conv(w.input({1, 256, 128, 128}), 256, 3, random));
  for (int threads : {1, 3}) {
    Engine engine({.threads = threads, .table = &table});
    const auto program = compile(engine, w);
    flag = 0;
    calls = 0;
    TestRun run(program->plan(), 1, BlockMode::kRun);
    run.request.abort_flag = reinterpret_cast<const int32_t*>(&flag);
    const RunResult result = program->run_here(std::move(run.request));
    ASSERT_TRUE(result.error);
    EXPECT_EQ(result.error->code(), ErrorCode::kAborted);
    EXPECT_LE(calls, threads);
  }
}

TEST(Runs, EndEarlyInTheMiddleOfALongLoop) {
  ProgramWriter w;
  const int32_t n = 2048;
  const int32_t x = w.input({n, n});
  w.output(w.step(Op::kMatmul, {x, x}, {n, n}));
  Engine engine({.threads = 1});
  const auto program = compile(engine, w);
  std::atomic<int32_t> flag{0};
  TestRun run(program->plan(), 1, BlockMode::kRun);
  run.request.abort_flag = reinterpret_cast<const int32_t*>(&flag);
  std::thread aborter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    flag = 1;
  });
  const RunResult result = program->run_here(std::move(run.request));
  aborter.join();
  ASSERT_TRUE(result.error);
  EXPECT_EQ(result.error->code(), ErrorCode::kAborted);
}

TEST(Runs, RefuseToResampleFromOutsideTheInput) {
  for (const int32_t place : {-1, 3, 4}) {
    ProgramWriter w;
    const int32_t x = w.input({1, 4, 5});
    const int32_t places = w.constant<int32_t>({1, 2}, {0, place}, DType::kInt32);
    w.output(w.step(Op::kResample, {x, places, w.constant({1, 2}, {1, 1})}, {1, 1, 5}, {1}));
    Engine engine({.threads = 1});
    const auto program = compile(engine, w);
    TestRun run(program->plan(), 1, BlockMode::kRun);
    const RunResult result = program->run_here(std::move(run.request));
    if (place == 3) {
      EXPECT_FALSE(result.error);
      continue;
    }
    ASSERT_TRUE(result.error);
    EXPECT_EQ(result.error->code(), ErrorCode::kInvalidArgument);
  }
}

// Cutting a long step into slices moves no bit.
TEST(Runs, GiveTheSameBitsInSlices) {
  Random random(6);
  ProgramWriter w;
  w.output(w.conv(w.input({1, 80, 170, 170}), 80, 3, random));
  std::vector<std::vector<char>> expected;
  for (int threads : {1, 2}) {
    Engine engine({.threads = threads});
    const auto program = compile(engine, w);
    int64_t most = 0;
    for (const Code& code : program->plan().code) most = std::max(most, code.work);
    EXPECT_GT(most, 2 * kSliceWork);
    TestRun run(program->plan(), 1, BlockMode::kRun);
    ASSERT_FALSE(program->run_here(std::move(run.request)).error);
    if (expected.empty()) {
      // In whole.
      Frame frame = program->plan().make_frame();
      AlignedBuffer arena, output;
      Workspace workspace;
      arena.reserve(program->plan().arena_bytes);
      output.reserve(run.outputs[0].size());
      workspace.scratch.reserve(program->plan().scratch_bytes);
      frame.bases = {0, reinterpret_cast<uintptr_t>(arena.data()), reinterpret_cast<uintptr_t>(run.inputs[0].data()),
                     reinterpret_cast<uintptr_t>(output.data())};
      for (const Code& code : program->plan().code) code.instruction->run(frame, workspace, 0, 1);
      expected.emplace_back(run.outputs[0].size());
      std::memcpy(expected[0].data(), output.data(), expected[0].size());
    }
    EXPECT_EQ(run.outputs, expected) << threads;
  }
}

TEST(Runs, AreCancelledWhenTheEngineGoes) {
  std::atomic<int> ended{0}, cancelled{0};
  std::vector<std::unique_ptr<TestRun>> runs;
  std::unique_ptr<CompiledProgram> program;
  {
    Engine engine({.threads = 2});
    const TestNetwork network(20, 64, 33);
    program = compile(engine, network.writer);
    for (int i = 0; i < 20; ++i) {
      runs.push_back(std::make_unique<TestRun>(program->plan(), 20, BlockMode::kRun));
      program->run(std::move(runs.back()->request), [&](const RunResult& result) {
        ++ended;
        if (result.error && result.error->code() == ErrorCode::kAborted) ++cancelled;
      });
    }
  }
  EXPECT_EQ(ended, 20);
  EXPECT_GT(cancelled, 0);
}

TEST(Runs, CheckTheirBuffers) {
  Engine engine({.threads = 1});
  const TestNetwork network(2);
  const auto program = compile(engine, network.writer);
  const auto rejects = [&](const std::function<void(RunRequest&)>& change) {
    TestRun run(program->plan(), 2, BlockMode::kGate);
    change(run.request);
    try {
      program->run_here(std::move(run.request));
      ADD_FAILURE() << "the request was accepted";
    } catch (const EngineError& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    }
  };
  rejects([](RunRequest& r) { r.items = 0; });
  rejects([](RunRequest& r) { r.items = 3; });
  rejects([](RunRequest& r) { r.items = std::numeric_limits<int64_t>::max(); });
  rejects([](RunRequest& r) { r.inputs.clear(); });
  rejects([](RunRequest& r) { r.inputs[0].bytes -= 4; });
  rejects([](RunRequest& r) { r.inputs[0] = {}; });
  rejects([](RunRequest& r) { r.outputs[0].bytes += 4; });
  rejects([](RunRequest& r) { r.modes.pop_back(); });
  rejects([](RunRequest& r) { r.modes[1] = BlockMode{3}; });
  rejects([](RunRequest& r) { r.thresholds.push_back(0); });
  rejects([](RunRequest& r) { r.outcomes = r.outcomes.subspan(1); });
  rejects([](RunRequest& r) { r.scores = {}; });
}

TEST(Weights, AreEnoughWhileTheyAreHeld) {
  Engine engine({.threads = 1});
  const TestNetwork network(2);
  std::vector<ConstantData> without(network.writer.constants().begin(), network.writer.constants().end());
  for (ConstantData& constant : without) constant = {constant.id, constant.dtype, nullptr, 0};
  const auto recompile = [&] { return engine.compile(network.writer.words(), without); };
  EXPECT_THROW(recompile(), EngineError);
  auto program = compile(engine, network.writer);
  const size_t held = engine.cached_weights();
  auto second = recompile();
  EXPECT_EQ(engine.cached_weights(), held);
  program.reset();
  EXPECT_NO_THROW(recompile());
  second.reset();
  EXPECT_THROW(recompile(), EngineError);
}

#if !defined(_WIN32)
TEST(Weights, AreReadFromTheirFile) {
  const TestNetwork network(2);
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  std::vector<ConstantData> placed;
  int64_t end = 3;  // offsets needn't be aligned
  std::fseek(file, static_cast<long>(end), SEEK_SET);
  for (const ConstantData& constant : network.writer.constants()) {
    std::fwrite(constant.data, 1, constant.bytes, file);
    placed.push_back({constant.id, constant.dtype, nullptr, 0, fileno(file), end});
    end += static_cast<int64_t>(constant.bytes);
  }
  std::fflush(file);

  Engine engine({.threads = 1}), other({.threads = 1});
  const auto read = engine.compile(network.writer.words(), placed);
  const auto given = compile(other, network.writer);
  TestRun a(read->plan(), 2, BlockMode::kGate), b(given->plan(), 2, BlockMode::kGate);
  ASSERT_FALSE(read->run_here(std::move(a.request)).error);
  ASSERT_FALSE(given->run_here(std::move(b.request)).error);
  EXPECT_EQ(a.outputs, b.outputs);

  Engine third({.threads = 1});
  for (ConstantData& constant : placed) constant.offset += end;
  EXPECT_THROW(third.compile(network.writer.words(), placed), EngineError);
  std::fclose(file);
}
#endif

TEST(Weights, AreSharedByProgramsAndGoWithThem) {
  Engine engine({.threads = 1});
  const TestNetwork network(2);
  const auto program = compile(engine, network.writer);
  const size_t held = engine.cached_weights();
  EXPECT_GT(held, 0u);
  {
    const auto second = compile(engine, network.writer);
    EXPECT_EQ(engine.cached_weights(), held);
  }
  EXPECT_EQ(engine.cached_weights(), held);
  // Another height and width with the same constants.
  const TestNetwork larger(2, 20, 15);
  const auto third = engine.compile(larger.writer.words(), network.writer.constants());
  EXPECT_EQ(engine.cached_weights(), held);
  // A program of the same shapes with constants of its own.
  const auto fourth = compile(engine, TestNetwork(2).writer);
  EXPECT_EQ(engine.cached_weights(), 2 * held);

  // Sharing doesn't change a bit.
  TestRun shared(third->plan(), 2, BlockMode::kGate), fresh(third->plan(), 2, BlockMode::kGate);
  ASSERT_FALSE(third->run_here(std::move(shared.request)).error);
  Engine other({.threads = 1});
  ASSERT_FALSE(compile(other, larger.writer)->run_here(std::move(fresh.request)).error);
  EXPECT_EQ(shared.outputs, fresh.outputs);
}

}  // namespace
}  // namespace rskip::test
