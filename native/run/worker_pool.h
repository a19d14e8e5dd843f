// The engine's own threads. Jobs are lists of units (the items of a batch). A worker takes one unit at a time, in turn
// from all jobs under way, so that concurrent runs share the workers fairly. The thread that executes a unit leads a Team:
// workers without a unit join it and take shares of single layers. Workers with nothing else to do take steps of
// background jobs.
//
// This is the mechanism: who waits, who is woken, who works on what. Its numbers are decisions of PoolPolicy.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "run/pool_policy.h"
#include "run/team.h"
#include "run/workspaces.h"

namespace rskip {

class Job {
 public:
  // At most `max_workers` of the pool's threads work on it at a time. A helper needs `scratch_bytes`, a leader also
  // `arena_bytes`.
  Job(int64_t units, int max_workers, size_t scratch_bytes, size_t arena_bytes = 0)
      : units_(units), max_workers_(max_workers), leader_{arena_bytes, scratch_bytes}, helper_{0, scratch_bytes} {}
  virtual ~Job() = default;
  virtual void run_unit(int64_t unit, Workspace& workspace, Team& team) noexcept = 0;
  // Called once, after the last unit, on the thread that executed it and without the pool's mutex.
  virtual void finished() noexcept {}
  // Asks units under way to end early. May be called from any thread.
  virtual void cancel() noexcept {}

 private:
  friend class WorkerPool;
  // Changed with the pool's mutex held: ended_ <= next_ <= units_.
  const int64_t units_;
  int64_t next_ = 0, ended_ = 0;
  bool finished_ = false;  // finished() has returned
  const int max_workers_;
  int workers_ = 0;  // at work on it, leaders and helpers; at most max_workers_
  const WorkspaceNeed leader_, helper_;
};

// Work of low priority, in steps of some microseconds each, one after another.
class BackgroundJob {
 public:
  virtual ~BackgroundJob() = default;
  // On a worker's thread. True when there is more to do.
  virtual bool step() noexcept = 0;
};

class WorkerPool {
 public:
  // `cores`: how many the process may use. Fewer units are under way than threads could take if they would need more
  // memory than the limits allow; the threads then help. Memory that nobody needs is given back after `keep`.
  WorkerPool(int threads, int cores, MemoryLimits limits = {}, std::chrono::milliseconds keep = kKeepMemory);
  // Cancels all jobs and waits until they have ended and the threads are gone.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int threads() const { return policy_.threads(); }
  // Returns at once.
  void submit(std::shared_ptr<Job> job);
  // The calling thread executes units too; returns when the job has ended. `max_workers` should leave room for the
  // caller. One call at a time.
  void run_here(const std::shared_ptr<Job>& job);
  // Whether run_here() will be called soon, maybe again and again: workers leave the caller a core while it is expected.
  void expect_caller(bool expected);
  // Returns at once. The job precedes units once it has waited for some milliseconds, and is done before the pool ends.
  void submit_background(std::shared_ptr<BackgroundJob> job);
  // Asks all jobs under way to end early; returns at once.
  void cancel_all();
  // Bytes that the threads' workspaces hold.
  int64_t memory();

 private:
  friend class Team;
  using Lock = std::unique_lock<std::mutex>;
  struct Worker {
    Team* team = nullptr;
    std::thread thread;
  };
  struct Unit {
    std::shared_ptr<Job> job;
    int64_t index = 0;
  };
  struct Background {
    std::shared_ptr<BackgroundJob> job;
    std::chrono::steady_clock::time_point due;
  };
  struct ActiveTeam {
    Team* team;
    std::shared_ptr<Job> job;
  };

  const PoolPolicy& policy() const { return policy_; }
  // For a leader, without the mutex: calls workers to its team. Returns how many helpers are there or on their way.
  int call_helpers(Team& team);

  // All below are called with the mutex held. Those that take `lock` release it in between.

  void main(Worker& self);
  // One thing to do for an idle worker, if there is any. `job` gets what it worked on.
  bool work(Worker& self, std::shared_ptr<Job>& job, Lock& lock);
  // Calls body() as one of the job's workers.
  template <class Body>
  void work_for(Job& job, const Body& body);
  // Calls body(workspace), without the mutex.
  template <class Body>
  void with_workspace(const WorkspaceNeed& need, Lock& lock, const Body& body);
  void execute(const Unit& unit, Team& team, Lock& lock);
  void help(Team& team, Job& job, Lock& lock);
  void step_background(Lock& lock);
  bool background_is_due() const;
  // The next unit of any job that may have another worker, or of `only`. None while it doesn't fit in memory: later ones
  // wait, too, so that its turn comes.
  bool take_unit(Unit& unit, const Job* only);
  ActiveTeam* team_that_wants_help();
  void enqueue(std::shared_ptr<Job> job);
  void update_pending();

  // Calls n workers: those that spin notice it by themselves. Returns how many are to be woken by notify(), best without
  // the mutex.
  int64_t call_workers(int64_t n);
  void notify(int64_t n);
  // True after a call, false when none came for a while.
  bool spin_for_call(Lock& lock);
  // Until a call, or until there is memory to give back, which it does.
  void sleep(Lock& lock);

  PoolPolicy policy_;
  std::mutex mutex_;
  std::condition_variable wake_;            // workers
  std::condition_variable caller_;          // a caller of run_here(), for the end of its job or for memory
  std::deque<std::shared_ptr<Job>> queue_;  // jobs with units to take
  std::vector<Job*> running_;               // jobs with units that have not ended
  std::vector<ActiveTeam> active_teams_;    // one for each unit under way
  std::list<Background> background_;
  std::vector<std::unique_ptr<Team>> teams_;
  std::vector<Team*> caller_teams_;  // that no caller of run_here() uses
  Workspaces workspaces_;         // one for each worker and one for a caller
  bool memory_is_short_ = false;  // a unit has been put off
  int keepers_ = 0;               // workers asleep that will wake up to give back memory
  int sleeping_ = 0, spinning_ = 0;  // workers; those called no longer count as spinning
  bool stopping_ = false;
  std::atomic<uint32_t> calls_{0};  // of call_workers()
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace rskip
