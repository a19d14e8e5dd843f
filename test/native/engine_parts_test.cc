// The parts of the engine one by one: memory plan, layouts, CPU budget, worker pool.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "kernels/aligned_buffer.h"
#include "plan/fill.h"
#include "plan/memory_plan.h"
#include "plan/parallel.h"
#include "program_writer.h"
#include "run/cpu_budget.h"
#include "run/worker_pool.h"

namespace rskip::test {
namespace {

TEST(MemoryPlan, NeverSharesBytesOfOverlappingLives) {
  Random random(11);
  for (int round = 0; round < 200; ++round) {
    std::vector<Lifetime> lives(1 + random.below(60));
    int64_t total = 0;
    for (Lifetime& life : lives) {
      // Few steps, or so many that they are searched by time.
      life.first = static_cast<int32_t>(random.below(round % 2 == 0 ? 40 : 1500));
      life.last = life.first + static_cast<int32_t>(random.below(round % 4 < 2 ? 12 : 700));
      life.bytes = random.below(5) == 0 ? 0 : random.below(5000);
      total += (life.bytes + 63) / 64 * 64;
    }
    const MemoryPlan plan = plan_memory(lives);
    EXPECT_LE(plan.bytes, total);
    for (size_t i = 0; i < lives.size(); ++i) {
      EXPECT_EQ(plan.offsets[i] % kArenaAlignment, 0);
      EXPECT_LE(plan.offsets[i] + lives[i].bytes, plan.bytes);
      for (size_t j = 0; j < i; ++j) {
        const bool together = lives[i].first <= lives[j].last && lives[j].first <= lives[i].last;
        const bool overlap =
            plan.offsets[i] < plan.offsets[j] + lives[j].bytes && plan.offsets[j] < plan.offsets[i] + lives[i].bytes;
        EXPECT_FALSE(together && overlap && lives[i].bytes > 0 && lives[j].bytes > 0);
      }
    }
  }
}

TEST(MemoryPlan, ReusesWhatIsFree) {
  // A chain of layers: two buffers are enough.
  std::vector<Lifetime> chain;
  for (int32_t i = 0; i < 1000; ++i) chain.push_back({i, i + 1, 1024});
  EXPECT_EQ(plan_memory(chain).bytes, 2048);
}

TEST(HaloFill, ClearsEverythingButTheInterior) {
  for (int unit : {1, kLanes}) {
    const Image image{2, 20, 3, 5};
    const Halo halo{1, 2, 0, 3};
    const ImageLayout layout = unit == 1 ? planar_layout(image, halo) : blocked_layout(image, halo);
    AlignedBuffer memory;
    memory.reserve(static_cast<size_t>(layout.bytes()));
    const size_t floats = static_cast<size_t>(layout.bytes()) / sizeof(float);
    float* data = reinterpret_cast<float*>(memory.data());
    for (int parts : {1, 2, 5}) {
      std::fill_n(data, floats, 1.0f);
      Frame frame;
      frame.bases = {0, reinterpret_cast<uintptr_t>(memory.data())};
      for (int part = 0; part < parts; ++part) HaloFill{Place::in_arena(0), layout}.run(frame, part, parts);
      size_t ones = 0;
      for (size_t i = 0; i < floats; ++i) ones += data[i] == 1.0f;
      EXPECT_EQ(ones, static_cast<size_t>(image.n * layout.planes * image.h * image.w * unit));
      const float* corner = data + layout.origin;
      EXPECT_EQ(corner[0], 1.0f);
      EXPECT_EQ(corner[-1], 0.0f);
      EXPECT_EQ(corner[(image.h - 1) * layout.row_stride + image.w * unit - 1], 1.0f);
      EXPECT_EQ(corner[(image.h - 1) * layout.row_stride + image.w * unit], 0.0f);
    }
  }
}

class CgroupTest : public testing::Test {
 protected:
  CgroupTest() : root_(std::filesystem::temp_directory_path() / ("rskip_cgroup_" + std::to_string(::getpid()))) {}
  ~CgroupTest() override { std::filesystem::remove_all(root_); }
  void write(const std::string& file, const std::string& text) {
    const std::filesystem::path path = root_ / file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  double quota() const { return cgroup_cpu_quota(root_.string()); }
  int64_t memory() const { return cgroup_memory_limit(root_.string()); }
  const std::filesystem::path root_;
};

TEST_F(CgroupTest, NoneWithoutFiles) { EXPECT_EQ(quota(), 0); }

TEST_F(CgroupTest, TakesTheTightestLevelOfVersion2) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), 0);
  write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
  EXPECT_DOUBLE_EQ(quota(), 2.5);
  write("sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(quota(), 1.5);
}

TEST_F(CgroupTest, SeesTheContainersOwnRoot) {
  write("proc/self/cgroup", "0::/not/mounted/here\n");
  write("sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(quota(), 4);
}

TEST_F(CgroupTest, ReadsVersion1) {
  write("proc/self/cgroup", "7:memory:/m\n4:cpu,cpuacct:/docker/x\n");
  write("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "-1\n");
  write("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(), 0);
  write("sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us", "300000\n");
  EXPECT_DOUBLE_EQ(quota(), 3);
}

TEST_F(CgroupTest, TakesTheTightestMemoryLimit) {
  EXPECT_EQ(memory(), 0);
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/memory.max", "max\n");
  EXPECT_EQ(memory(), 0);
  write("sys/fs/cgroup/a/memory.max", "1073741824\n");
  write("sys/fs/cgroup/memory.max", "2147483648\n");
  EXPECT_EQ(memory(), 1 << 30);
}

TEST_F(CgroupTest, ReadsMemoryLimitsOfVersion1) {
  write("proc/self/cgroup", "7:memory:/m\n4:cpu,cpuacct:/docker/x\n");
  write("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(memory(), 0);
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
  EXPECT_EQ(memory(), 512 << 20);
}

TEST_F(CgroupTest, IgnoresNonsense) {
  write("proc/self/cgroup", "no colons\n0::/x\n");
  write("sys/fs/cgroup/x/cpu.max", "many cpus\n");
  write("sys/fs/cgroup/x/memory.max", "plenty\n");
  EXPECT_EQ(quota(), 0);
  EXPECT_EQ(memory(), 0);
}

TEST(MemoryBudget, IsThatOfAMachine) { EXPECT_GE(memory_budget(), 1 << 28); }

TEST(CpuBudget, IsAtLeastOne) { EXPECT_GE(cpu_budget(), 1); }

TEST(ParallelFor, RunsEveryIndexOnce) {
  for (int threads : {1, 2, 5}) {
    std::vector<std::atomic<int>> seen(1000);
    parallel_for(threads, 1000, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
    for (const auto& count : seen) EXPECT_EQ(count, 1);
    parallel_for(threads, 0, [](int64_t) { FAIL(); });
  }
}

TEST(ParallelFor, UsesAllThreads) {
  // Each call waits until both have begun.
  std::atomic<int> begun{0};
  parallel_for(2, 2, [&](int64_t) {
    ++begun;
    while (begun < 2) std::this_thread::yield();
  });
  EXPECT_EQ(begun, 2);
}

TEST(ParallelFor, RethrowsTheFirstException) {
  for (int threads : {1, 4}) {
    EXPECT_THROW(parallel_for(threads, 100,
                              [](int64_t i) {
                                if (i == 50) throw std::runtime_error("no");
                              }),
                 std::runtime_error);
  }
}

// One unit whose leader shares many small pieces of work.
class SharingJob final : public Job {
 public:
  SharingJob(int rounds, int workers) : Job(1, workers, 64), rounds_(rounds) {}
  void run_unit(int64_t, Workspace& workspace, Team& team) noexcept override {
    for (int i = 0; i < rounds_; ++i) {
      covered = 0;
      team.split(
          [](void* self, Workspace&, int part, int parts) {
            auto* job = static_cast<SharingJob*>(self);
            for (int share = part * 60 / parts; share < (part + 1) * 60 / parts; ++share) ++job->covered;
            if (parts > 1) ++job->shared;
          },
          this, workspace, team.call());
      if (covered != 60) ++wrong;
    }
  }
  std::atomic<int> covered{0}, shared{0};
  int wrong = 0;

 private:
  const int rounds_;
};

TEST(WorkerPool, SharesTheWorkOfALeader) {
  WorkerPool pool(4, 2);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto job = std::make_shared<SharingJob>(2000, 3);
    pool.run_here(job);
    EXPECT_EQ(job->wrong, 0);
  }
}

// Layers that take longer than helpers spin would otherwise never find any.
TEST(WorkerPool, HelpersFindTheLayerUnderWay) {
  class Wait final : public Job {
   public:
    Wait() : Job(1, 1, 0) {}
    // A helper that waited in vain for a leader who lost the core has left again: it is called anew.
    void run_unit(int64_t, Workspace& workspace, Team& team) noexcept override {
      leader_ = std::this_thread::get_id();
      while (other == std::thread::id() && now() < end_) {
        begun_ = 0;
        patience_ = now() + std::chrono::milliseconds(200);
        team.split(
            [](void* self, Workspace&, int, int) {
              auto* job = static_cast<Wait*>(self);
              if (std::this_thread::get_id() != job->leader_) job->other = std::this_thread::get_id();
              ++job->begun_;
              while (job->begun_ < 2 && now() < job->patience_) std::this_thread::yield();
            },
            this, workspace, team.call());
      }
    }
    std::thread::id other;

   private:
    using Time = std::chrono::steady_clock::time_point;
    static Time now() { return std::chrono::steady_clock::now(); }
    std::thread::id leader_;
    std::atomic<int> begun_{0};
    Time patience_;
    const Time end_ = now() + std::chrono::seconds(60);
  };
  WorkerPool pool(2, 2);
  const auto job = std::make_shared<Wait>();
  pool.run_here(job);
  EXPECT_NE(job->other, std::thread::id());
}

// A calling thread that is going to execute units itself takes the place of a worker.
TEST(WorkerPool, LeavesACoreToTheCallerWhoIsExpected) {
  class Count final : public Job {
   public:
    explicit Count(int64_t units) : Job(units, 4, 0) {}
    void run_unit(int64_t, Workspace&, Team&) noexcept override {
      most = std::max<int>(most, ++now_);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      --now_;
    }
    void finished() noexcept override { over = true; }
    std::atomic<int> most{0};
    std::atomic<bool> over{false};

   private:
    std::atomic<int> now_{0};
  };
  WorkerPool pool(3, 3);
  const auto run = [&] {
    const auto job = std::make_shared<Count>(40);
    pool.submit(job);
    return job;
  };
  const auto wait_for = [](const Count& job) {
    while (!job.over) std::this_thread::yield();
  };
  pool.expect_caller(true);
  pool.expect_caller(true);
  const auto beside = run();
  const auto here = std::make_shared<Count>(1);
  pool.run_here(here);
  EXPECT_TRUE(here->over);
  wait_for(*beside);
  EXPECT_LE(beside->most, 2);
  const auto left = run();
  pool.expect_caller(false);
  wait_for(*left);
  const auto free = run();
  wait_for(*free);
  EXPECT_EQ(std::max<int>(left->most, free->most), 3);
}

// Counts its steps, some of which are left when it is handed over.
class Steps final : public BackgroundJob {
 public:
  Steps(int left, std::atomic<int>& done) : left_(left), done_(done) {}
  bool step() noexcept override {
    ++done_;
    return --left_ > 0;
  }

 private:
  int left_;
  std::atomic<int>& done_;
};

TEST(WorkerPool, EndsBackgroundJobsBeforeItEnds) {
  std::atomic<int> done{0};
  {
    WorkerPool pool(2, 2);
    for (int i = 0; i < 40; ++i) pool.submit_background(std::make_shared<Steps>(1 + i, done));
  }
  EXPECT_EQ(done, 40 * 41 / 2);
}

TEST(WorkerPool, BusyWorkersDoBackgroundJobsAfterAWhile) {
  // Units until the background job is done, or for a minute.
  class Busy final : public Job {
   public:
    explicit Busy(const std::atomic<int>& done) : Job(200'000, 2, 0), done_(done) {}
    void run_unit(int64_t, Workspace&, Team&) noexcept override {
      if (done_ == 3) return;
      if (std::chrono::steady_clock::now() < end_) std::this_thread::sleep_for(std::chrono::microseconds(300));
      ++waited;
    }
    std::atomic<int> waited{0};

   private:
    const std::atomic<int>& done_;
    const std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  };
  std::atomic<int> done{0};
  const auto job = std::make_shared<Busy>(done);
  {
    WorkerPool pool(2, 2);
    pool.submit(job);
    pool.submit_background(std::make_shared<Steps>(3, done));
    while (done < 3) std::this_thread::yield();
    pool.cancel_all();
  }
  EXPECT_EQ(done, 3);
  EXPECT_LT(job->waited, 200'000);
}

TEST(WorkerPool, LeavesNobodyBehindWhenItEnds) {
  class Count final : public Job {
   public:
    Count(std::atomic<int>& units, std::atomic<int>& ends) : Job(50, 2, 0), units_(units), ends_(ends) {}
    void run_unit(int64_t, Workspace&, Team&) noexcept override { ++units_; }
    void finished() noexcept override { ++ends_; }

   private:
    std::atomic<int>&units_, &ends_;
  };
  std::atomic<int> units{0}, ends{0};
  {
    WorkerPool pool(2, 2);
    for (int i = 0; i < 30; ++i) pool.submit(std::make_shared<Count>(units, ends));
  }
  EXPECT_EQ(ends, 30);
  EXPECT_EQ(units, 30 * 50);
}

}  // namespace
}  // namespace rskip::test
