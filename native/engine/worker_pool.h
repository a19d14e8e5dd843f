// The engine's own threads. Jobs are lists of units (the items of a batch); a worker takes one unit at a time,
// turn by turn from all jobs under way, so that concurrent runs share the workers fairly. Whoever executes a unit
// leads a Team: workers without a unit of their own join it and take shares of single layers.
//
// A worker with nothing else to do takes a step of a background job, which may be in between two runs.
//
// Nobody spins when idle: workers sleep on a condition variable. But waking up takes as long as some layers of a small
// network. So a helper first spins for a while between two layers of the unit that it helps with, and a worker that has
// just led a unit first looks out for more, as long as a core is left for whoever brings it.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/team.h"

namespace rskip {

class Job {
 public:
  // At most `max_workers` of the pool's threads work on it at a time. `scratch_bytes` is what a helper needs.
  Job(int64_t units, int max_workers, size_t scratch_bytes)
      : units_(units), max_workers_(max_workers), scratch_bytes_(scratch_bytes) {}
  virtual ~Job() = default;
  virtual void run_unit(int64_t unit, Workspace& workspace, Team& team) noexcept = 0;
  // Called once, on the thread that ends the last unit, after it; never with the pool's lock held.
  virtual void finished() noexcept {}
  // Asks units under way to end early. May be called from any thread.
  virtual void cancel() noexcept {}

 private:
  friend class WorkerPool;
  // All changed with the pool's mutex held.
  const int64_t units_;
  int64_t next_ = 0, ended_ = 0;
  bool over_ = false;  // finished() has returned
  const int max_workers_;
  int active_ = 0;
  const size_t scratch_bytes_;
};

// Work of low priority, done in steps of some microseconds each, one after another.
class BackgroundJob {
 public:
  virtual ~BackgroundJob() = default;
  // On a worker's thread. True when there is more to do.
  virtual bool step() noexcept = 0;
};

class WorkerPool {
 public:
  // `cores` is how many of them the process may use.
  WorkerPool(int threads, int cores);
  // Cancels all jobs and waits until they have ended and the threads are gone.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()); }
  // Returns at once.
  void submit(std::shared_ptr<Job> job);
  // The calling thread takes part and returns when the job has ended. max_workers should leave room for it. One at a
  // time.
  void run_here(const std::shared_ptr<Job>& job, Workspace& workspace);
  // Whether the calling thread is going to come to run_here(), maybe again and again: workers leave it a core until it
  // is no longer expected.
  void expect_caller(bool comes);
  // Returns at once. The job goes first once it has waited for some milliseconds, and is done before the pool ends.
  void submit_background(std::shared_ptr<BackgroundJob> job);
  // Asks all jobs under way to end early; returns at once.
  void cancel_all();

 private:
  friend class Team;
  struct Worker {
    Team* team = nullptr;
    std::thread thread;
  };
  struct Taken {
    std::shared_ptr<Job> job;
    int64_t unit = 0;
  };
  struct Background {
    std::shared_ptr<BackgroundJob> job;
    std::chrono::steady_clock::time_point due;
  };
  struct Leading {
    Team* team;
    std::shared_ptr<Job> job;
  };
  void main(Worker& self);
  // A worker's work for a job, work(workspace). Called with the lock held, which it may give up in between.
  template <class Work>
  void employ(Job& job, const Work& work);
  // Called with the lock held; gives it up in between and takes it again.
  void execute(Taken& taken, Workspace& workspace, Team& team, std::unique_lock<std::mutex>& lock);
  // Likewise.
  void help(Team& team, Workspace& workspace, std::unique_lock<std::mutex>& lock);
  void step_background(std::unique_lock<std::mutex>& lock);
  bool background_is_due() const;
  // `only` restricts it to one job; else it may be any, unless enough threads are busy.
  bool take(Taken& taken, const Job* only);
  Leading* team_that_wants_help();
  void enqueue(std::shared_ptr<Job> job);
  void leave(Job& job);
  void update_pending();
  // How many workers without anything to do may have something: with them, no more threads are busy than the pool has.
  int spare() const { return std::max(0, threads() - busy_.load(std::memory_order_relaxed)); }
  // There are units that a worker could take, or more threads are busy than the pool has.
  bool wants_helpers_back() const {
    return pending_.load(std::memory_order_relaxed) > 0 || busy_.load(std::memory_order_relaxed) > threads();
  }
  // With the lock held, after saying what there is to do: tells those who look out, and returns how many of `n` workers
  // are still to be woken, best without the lock.
  int64_t call_workers(int64_t n);
  // With the lock held, when fewer threads are busy than before.
  int64_t call_for_pending();
  void wake(int64_t n);
  // Whether the caller, who has nothing to do, may spin all the same.
  bool may_look_out() const { return threads() - sleeping_ < cores_; }
  // Called with the lock held, which it gives up in between: true after a call, false after some tens of microseconds
  // without one.
  bool look_out(std::unique_lock<std::mutex>& lock);

  const int cores_;
  std::mutex mutex_;
  std::condition_variable wake_;            // workers
  std::condition_variable job_ended_;       // callers of run_here()
  std::deque<std::shared_ptr<Job>> queue_;  // jobs with units to take
  std::vector<Job*> running_;               // jobs not ended
  std::vector<Leading> leading_;
  std::deque<Background> background_;
  std::vector<std::unique_ptr<Team>> teams_;
  std::vector<Team*> free_teams_;
  // As many as workers. The one used last comes first: it is in a cache, maybe of a core that another worker has now.
  std::vector<std::unique_ptr<Workspace>> workspaces_;
  int sleeping_ = 0, looking_out_ = 0;  // workers; those called no longer count as looking out
  bool stopping_ = false;
  bool caller_expected_ = false;
  // Threads that execute a unit or help, and the caller of run_here(), also when it is only expected.
  std::atomic<int> busy_{0};
  std::atomic<uint32_t> calls_{0};  // of call_workers()
  std::atomic<int> pending_{0};  // units that a worker could take now
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace rskip
