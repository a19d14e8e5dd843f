// Teams under pressure: many more threads than cores, helpers held up at the worst moment, jobs of all kinds at once.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "program_writer.h"
#include "run/stall.h"
#include "run/time_slice.h"
#include "run/worker_pool.h"

namespace rskip::test {
namespace {

using namespace std::chrono_literals;

bool wait_for(std::chrono::milliseconds limit, const std::function<bool()>& ready) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (!ready()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Units that each share some layers. Every share of every layer must be computed once, by a thread with enough scratch.
class Layers final : public Job {
 public:
  Layers(int64_t units, int layers, int workers, size_t scratch)
      : Job(units, workers, scratch), layers_(layers), scratch_(scratch) {}

  void run_unit(int64_t, Workspace& workspace, Team& team) noexcept override {
    workspace.scratch.reserve(scratch_);
    for (int i = 0; i < layers_; ++i) {
      Layer layer{*this};
      const int parts = team.call();
      if (parts < 1 || parts > Team::kSeats) {
        ++wrong;
        continue;
      }
      team.split(compute, &layer, workspace, parts);
      if (layer.computed != (uint64_t{1} << parts) - 1) ++wrong;
    }
  }
  void finished() noexcept override { over = true; }

  std::atomic<int> wrong{0};
  std::atomic<bool> over{false};

 private:
  struct Layer {
    Layers& job;
    std::atomic<uint64_t> computed{0};
  };
  static void compute(void* task, Workspace& workspace, int part, int parts) {
    Layer& layer = *static_cast<Layer*>(task);
    if (parts > 1 && workspace.scratch.bytes() < layer.job.scratch_) ++layer.job.wrong;
    // Written, so that ThreadSanitizer sees who shares it.
    if (layer.job.scratch_ > 0) workspace.scratch.data()[layer.job.scratch_ - 1] = std::byte{1};
    const uint64_t bit = uint64_t{1} << part;
    if ((layer.computed.fetch_or(bit) & bit) != 0) ++layer.job.wrong;
  }
  const int layers_;
  const size_t scratch_;
};

class Steps final : public BackgroundJob {
 public:
  explicit Steps(std::atomic<int>& done) : done_(done) {}
  bool step() noexcept override {
    ++done_;
    return --left_ > 0;
  }

 private:
  int left_ = 3;
  std::atomic<int>& done_;
};

class StallScope {
 public:
  explicit StallScope(void (*hook)(StallPoint)) { stall_hook = hook; }
  ~StallScope() { stall_hook = nullptr; }
};

// Runs of three units by the caller and of two units by workers, as sessions make them.
void alternate(WorkerPool& pool, int runs) {
  for (int i = 0; i < runs; ++i) {
    const auto here = std::make_shared<Layers>(3, 2, pool.threads() - 1, 64);
    pool.run_here(here);
    ASSERT_EQ(here->wrong, 0);
    const auto there = std::make_shared<Layers>(2, 2, pool.threads(), 64);
    pool.submit(there);
    ASSERT_TRUE(wait_for(60s, [&] { return there->over.load(); }));
    ASSERT_EQ(there->wrong, 0);
  }
}

class Threads : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(TwoTo256, Threads, testing::Values(2, 3, 8, 31, 32, 33, 40, 64, 128, 256));

TEST_P(Threads, ShareLayersOnTwoCores) {
  WorkerPool pool(GetParam(), 2);
  alternate(pool, 1000);
}

// The caller of run_here() helps a worker whose team is full but for helpers that were called and are on their way.
TEST_P(Threads, CountTheCallerWhoHelps) {
  static thread_local int calls;
  const StallScope scope([](StallPoint point) {
    if (point == StallPoint::kCallsHelp && ++calls % 4 == 0) std::this_thread::sleep_for(50us);
  });
  WorkerPool pool(GetParam(), 2);
  alternate(pool, 200);
}

// A helper that is held up between checking its scratch memory and taking a part finds another unit, which needs more.
TEST(Team, LateHelpersTakeNoPartThatNeedsMoreScratch) {
  static std::atomic<bool> armed, held, released;
  static thread_local bool leads;
  class Unit final : public Job {
   public:
    Unit(size_t scratch, bool first) : Job(1, 1, scratch), scratch_(scratch), first_(first) {}
    void run_unit(int64_t, Workspace& workspace, Team& team) noexcept override {
      leads = true;
      workspace.scratch.reserve(scratch_);
      if (first_) {
        wait_for(10s, [&] {
          team.split(part, this, workspace, team.call());
          return held.load();
        });
      } else {
        team.split(part, this, workspace, 4);
      }
      leads = false;
    }
    std::atomic<int> short_of_memory{0};

   private:
    static void part(void* task, Workspace& workspace, int part, int) {
      Unit& unit = *static_cast<Unit*>(task);
      if (workspace.scratch.bytes() < unit.scratch_) ++unit.short_of_memory;
      if (part != 0) return;
      if (unit.first_) {
        wait_for(100ms, [] { return held.load(); });
      } else {
        released = true;
        wait_for(20ms, [&] { return unit.short_of_memory > 0; });
      }
    }
    const size_t scratch_;
    const bool first_;
  };
  const StallScope scope([](StallPoint point) {
    if (point != StallPoint::kTakesPart || leads || !armed.exchange(false)) return;
    held = true;
    wait_for(10s, [] { return released.load(); });
  });
  int helped = 0;
  for (int round = 0; round < 10; ++round) {
    armed = true;
    held = released = false;
    WorkerPool pool(2, 2);
    pool.run_here(std::make_shared<Unit>(64, true));
    helped += held ? 1 : 0;
    const auto second = std::make_shared<Unit>(1 << 20, false);
    pool.run_here(second);
    EXPECT_EQ(second->short_of_memory, 0);
  }
  EXPECT_GT(helped, 0);
}

// Jobs of all kinds at once.
void stress(int threads, std::atomic<int>& steps) {
  WorkerPool pool(threads, 2);
  std::vector<std::shared_ptr<Layers>> jobs;
  for (int i = 0; i < 100; ++i) {
    jobs.push_back(std::make_shared<Layers>(1 + i % 4, 6, threads, 64u << i % 8));
    pool.submit(jobs.back());
    if (i % 5 == 0) pool.expect_caller(i % 2 == 0);
    if (i % 4 == 0) pool.submit_background(std::make_shared<Steps>(steps));
    if (i % 3 != 0) continue;
    jobs.push_back(std::make_shared<Layers>(1 + i % 3, 6, threads - 1, 64u << i % 7));
    pool.run_here(jobs.back());
  }
  pool.expect_caller(false);
  for (const auto& job : jobs) {
    ASSERT_TRUE(wait_for(60s, [&] { return job->over.load(); }));
    EXPECT_EQ(job->wrong, 0);
  }
}

TEST(Team, SurvivesStallsAnywhere) {
  static std::atomic<uint32_t> count;
  const StallScope scope([](StallPoint) {
    const uint32_t n = count.fetch_add(1, std::memory_order_relaxed) * 2654435761u >> 22;
    if (n < 8) std::this_thread::sleep_for(std::chrono::microseconds(100 * n));
    else if (n < 64) std::this_thread::yield();
  });
  for (int threads : {2, 5, 40}) {
    std::atomic<int> steps{0};
    stress(threads, steps);
    EXPECT_EQ(steps, 75);
  }
}

TEST(WorkerPool, GivesWayToThreadsThatWakeUp) {
  const int64_t own = time_slice_ns();
  if (own == 0) GTEST_SKIP() << "this system has no time slices to ask for";
  class Slice final : public Job {
   public:
    Slice() : Job(1, 1, 0) {}
    void run_unit(int64_t, Workspace&, Team&) noexcept override { ns = time_slice_ns(); }
    void finished() noexcept override { over = true; }
    int64_t ns = 0;
    std::atomic<bool> over{false};
  };
  const auto job = std::make_shared<Slice>();
  {
    WorkerPool pool(2, 2);
    pool.submit(job);
    ASSERT_TRUE(wait_for(60s, [&] { return job->over.load(); }));
  }
  EXPECT_EQ(job->ns, kWorkerSliceNs);
  EXPECT_GT(job->ns, own);
  EXPECT_EQ(time_slice_ns(), own);
}

}  // namespace
}  // namespace rskip::test
