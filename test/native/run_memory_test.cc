// The memory of runs: how many items are under way within a limit, and when memory is given back.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "program_writer.h"
#include "run/worker_pool.h"
#include "run/workspaces.h"

namespace rskip::test {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kForever = 1h;

// Takes a workspace, allocates what it needs, and frees what is to go.
std::unique_ptr<Workspaces::Pooled> begin(Workspaces& workspaces, const WorkspaceNeed& need) {
  auto workspace = workspaces.take(need);
  workspace->prepare();
  workspace->arena.reserve(need.arena);
  workspace->scratch.reserve(need.scratch);
  return workspace;
}

void use(Workspaces& workspaces, const WorkspaceNeed& need) { workspaces.put_back(begin(workspaces, need)); }

TEST(Workspaces, CountWhatIsInUse) {
  Workspaces workspaces(3, {.item = 300, .items = 250}, kForever);
  EXPECT_TRUE(workspaces.fits_item({1000, 0})) << "the first item always fits";
  auto first = begin(workspaces, {100, 20});
  EXPECT_EQ(workspaces.bytes(), 120);
  EXPECT_TRUE(workspaces.fits_item({100, 30}));
  EXPECT_FALSE(workspaces.fits_item({100, 31}));
  EXPECT_TRUE(workspaces.fits_helper({0, 180}));
  EXPECT_FALSE(workspaces.fits_helper({0, 181}));
  workspaces.put_back(std::move(first));
  EXPECT_EQ(workspaces.bytes(), 120) << "it is kept for the next item";
  use(workspaces, {100, 20});
  EXPECT_EQ(workspaces.bytes(), 120);
}

TEST(Workspaces, FreeUnusedMemoryRatherThanExceedTheLimit) {
  Workspaces workspaces(3, {.item = 250, .items = 250}, kForever);
  auto first = begin(workspaces, {100, 0}), second = begin(workspaces, {0, 100});
  workspaces.put_back(std::move(first));
  workspaces.put_back(std::move(second));
  EXPECT_EQ(workspaces.bytes(), 200);
  auto large = begin(workspaces, {200, 0});
  EXPECT_EQ(large->scratch.bytes(), 0u) << "its own, that it doesn't need";
  EXPECT_EQ(workspaces.bytes(), 200);
  workspaces.put_back(std::move(large));
  EXPECT_EQ(workspaces.bytes(), 200);
}

TEST(Workspaces, GiveBackWhatNobodyHasUsedForAWhile) {
  Workspaces workspaces(2, {}, 1ms);
  EXPECT_FALSE(workspaces.expiry());
  use(workspaces, {100, 50});
  ASSERT_TRUE(workspaces.expiry());
  std::this_thread::sleep_until(*workspaces.expiry());
  auto expired = workspaces.take_expired();
  ASSERT_NE(expired, nullptr);
  EXPECT_EQ(workspaces.bytes(), 0);
  expired->prepare();
  EXPECT_EQ(expired->arena.bytes() + expired->scratch.bytes(), 0u);
  workspaces.put_back(std::move(expired));
  EXPECT_EQ(workspaces.take_expired(), nullptr);
  EXPECT_FALSE(workspaces.expiry());
}

TEST(Workspaces, ShrinkInSteadyUse) {
  Workspaces workspaces(1, {}, 1ms);
  use(workspaces, {1000, 50});
  for (int i = 0; i < 2; ++i) {
    std::this_thread::sleep_for(2ms);
    use(workspaces, {10, 50});
  }
  std::this_thread::sleep_for(2ms);
  auto workspace = begin(workspaces, {10, 50});
  EXPECT_EQ(workspace->arena.bytes(), 10u);
  EXPECT_EQ(workspace->scratch.bytes(), 50u);
  workspaces.put_back(std::move(workspace));
}

TEST(Workspaces, KeepTheirMemoryWhileSomeItemsNeedIt) {
  Workspaces workspaces(1, {}, kForever);
  use(workspaces, {1000, 0});
  for (int i = 0; i < 3; ++i) use(workspaces, {10, 0});
  EXPECT_EQ(workspaces.bytes(), 1000);
}

// Units of so many bytes; counts how many are under way.
class MemoryJob final : public Job {
 public:
  MemoryJob(int64_t units, size_t bytes, std::atomic<int64_t>& now, std::atomic<int64_t>& most)
      : Job(units, 8, 0, bytes), bytes_(bytes), now_(now), most_(most) {}
  void run_unit(int64_t, Workspace& workspace, Team&) noexcept override {
    workspace.arena.reserve(bytes_);
    const int64_t now = now_ += static_cast<int64_t>(workspace.arena.bytes());
    for (int64_t seen = most_; seen < now && !most_.compare_exchange_weak(seen, now);) {
    }
    std::this_thread::sleep_for(200us);
    now_ -= static_cast<int64_t>(workspace.arena.bytes());
    ++units;
  }
  void finished() noexcept override { done.set_value(); }
  std::atomic<int> units{0};
  std::promise<void> done;

 private:
  const size_t bytes_;
  std::atomic<int64_t>&now_, &most_;
};

TEST(WorkerPoolMemory, StaysWithinTheLimitWhateverRuns) {
  constexpr int64_t kLimit = 1000;
  std::atomic<int64_t> now{0}, most{0};
  WorkerPool pool(4, 4, {kLimit, kLimit}, kForever);
  std::vector<std::shared_ptr<MemoryJob>> jobs;
  // The large ones take their turn among the small ones.
  for (size_t bytes : {300u, 1000u, 10u, 600u, 300u}) {
    jobs.push_back(std::make_shared<MemoryJob>(20, bytes, now, most));
    pool.submit(jobs.back());
  }
  const auto here = std::make_shared<MemoryJob>(20, 400u, now, most);
  pool.run_here(here);
  EXPECT_EQ(here->units, 20);
  for (const auto& job : jobs) {
    job->done.get_future().wait();
    EXPECT_EQ(job->units, 20);
  }
  EXPECT_LE(most, kLimit);
  EXPECT_GE(most, 600) << "two at a time fit";
  EXPECT_LE(pool.memory(), kLimit);
}

TEST(WorkerPoolMemory, TheCallerWaitsForMemoryThatARunOfTheOnlyWorkerHas) {
  std::atomic<int64_t> now{0}, most{0};
  WorkerPool pool(1, 1, {100, 100}, kForever);
  for (int i = 0; i < 20; ++i) {
    const auto there = std::make_shared<MemoryJob>(3, 100u, now, most);
    const auto here = std::make_shared<MemoryJob>(3, 60u, now, most);
    pool.submit(there);
    pool.run_here(here);
    there->done.get_future().wait();
  }
  EXPECT_LE(most, 100);
}

// The limit leaves room for `items` at a time; 0 for none. Returns the outputs of a batch of eight.
std::vector<std::vector<char>> run_batch(int64_t items, int64_t* memory) {
  const TestNetwork network(3, 20, 33);
  Engine measure({.threads = 1});
  const auto measured = measure.compile(network.writer.words(), network.writer.constants());
  const int64_t need = static_cast<int64_t>(measured->plan().arena_bytes + measured->plan().scratch_bytes);
  Engine engine({.threads = 4, .memory_limit = items * need, .keep_memory = kForever});
  const auto program = engine.compile(network.writer.words(), network.writer.constants());
  TestRun run(program->plan(), 8, BlockMode::kRun);
  std::promise<RunResult> done;
  program->run(run.request, [&](const RunResult& result) { done.set_value(result); });
  EXPECT_FALSE(done.get_future().get().error);
  EXPECT_FALSE(program->run_here(run.request).error);
  *memory = engine.memory();
  if (items > 0) {
    EXPECT_LE(*memory, items * need);
  }
  return run.outputs;
}

TEST(Runs, OfABatchStayWithinTheMemoryLimit) {
  int64_t unlimited = 0, one = 0, two = 0;
  const auto expected = run_batch(0, &unlimited);
  EXPECT_EQ(run_batch(1, &one), expected);
  EXPECT_EQ(run_batch(2, &two), expected);
  EXPECT_GT(one, 0);
}

TEST(Runs, GiveTheirMemoryBackWhenNothingRuns) {
  const TestNetwork network(3, 20, 33);
  for (bool here : {false, true}) {
    Engine engine({.threads = 2, .keep_memory = 1ms});
    const auto program = engine.compile(network.writer.words(), network.writer.constants());
    TestRun run(program->plan(), 4, BlockMode::kRun);
    std::promise<void> done;
    if (here) {
      program->run_here(run.request);
    } else {
      program->run(run.request, [&](const RunResult&) { done.set_value(); });
      done.get_future().wait();
    }
    while (engine.memory() > 0) std::this_thread::sleep_for(1ms);  // ends in a timeout if it stays
    EXPECT_FALSE(program->run_here(run.request).error);
  }
}

}  // namespace
}  // namespace rskip::test
