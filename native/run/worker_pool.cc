#include "run/worker_pool.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "kernels/fp_mode.h"
#include "run/spin.h"
#include "run/time_slice.h"

namespace rskip {
namespace {

// Where others are awake, sleeping until they unlock takes longer than what they do.
void relock(std::unique_lock<std::mutex>& lock) {
  if (!spin(kSpinForMutex, [&] { return lock.try_lock(); })) lock.lock();
}

}  // namespace

WorkerPool::WorkerPool(int threads, int cores, MemoryLimits limits, std::chrono::milliseconds keep)
    : policy_(threads, cores), workspaces_(threads + 1, limits, keep) {
  active_teams_.reserve(static_cast<size_t>(threads) + 1);  // workers and a caller of run_here() take no memory
  try {
    for (int i = 0; i < threads; ++i) {
      auto worker = std::make_unique<Worker>();
      teams_.push_back(std::unique_ptr<Team>(new Team(*this)));
      worker->team = teams_.back().get();
      workers_.push_back(std::move(worker));
    }
    for (auto& worker : workers_) worker->thread = std::thread([this, self = worker.get()] { main(*self); });
  } catch (...) {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) {
      if (worker->thread.joinable()) worker->thread.join();
    }
    throw;
  }
}

WorkerPool::~WorkerPool() {
  cancel_all();
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker->thread.join();
}

void WorkerPool::cancel_all() {
  std::lock_guard lock(mutex_);
  for (Job* job : running_) job->cancel();
}

// Jobs and units.

void WorkerPool::update_pending() {
  int pending = 0;
  for (const std::shared_ptr<Job>& job : queue_) {
    if (job->workers_ >= job->max_workers_) continue;
    if (!workspaces_.fits_item(job->leader_)) break;
    ++pending;
  }
  policy_.set_pending(pending);
}

void WorkerPool::enqueue(std::shared_ptr<Job> job) {
  running_.reserve(running_.size() + 1);  // all or nothing
  Job* const added = job.get();
  queue_.push_back(std::move(job));
  running_.push_back(added);
  update_pending();
}

void WorkerPool::submit(std::shared_ptr<Job> job) {
  if (job->units_ == 0) return job->finished();
  const int64_t units = job->units_;
  int64_t sleepers = 0;
  {
    std::lock_guard lock(mutex_);
    enqueue(std::move(job));
    sleepers = call_workers(std::min<int64_t>(units, policy_.may_begin()));
  }
  notify(sleepers);
}

// The first job in the queue that may have another worker gives one unit and goes to the end of the queue.
bool WorkerPool::take_unit(Unit& unit, const Job* only) {
  if (only == nullptr && policy_.may_begin() == 0) return false;
  for (auto at = queue_.begin(); at != queue_.end(); ++at) {
    Job& job = **at;
    // The caller of run_here() adds to max_workers.
    if (only == nullptr ? job.workers_ >= job.max_workers_ : &job != only) continue;
    if (!workspaces_.fits_item(job.leader_)) {
      memory_is_short_ = true;
      return false;
    }
    unit = {*at, job.next_++};
    std::rotate(at, at + 1, queue_.end());
    if (job.next_ == job.units_) queue_.pop_back();
    update_pending();
    return true;
  }
  return false;
}

template <class Body>
void WorkerPool::work_for(Job& job, const Body& body) {
  policy_.thread_begins();
  ++job.workers_;
  assert(job.workers_ <= job.max_workers_);
  body();
  --job.workers_;
  policy_.thread_ends();
  update_pending();
}

template <class Body>
void WorkerPool::with_workspace(const WorkspaceNeed& need, Lock& lock, const Body& body) {
  std::unique_ptr<Workspaces::Pooled> workspace = workspaces_.take(need);
  update_pending();
  lock.unlock();
  workspace->prepare();
  body(*workspace);
  relock(lock);
  workspaces_.put_back(std::move(workspace));
  if (!memory_is_short_) return;
  update_pending();
  const int workers = policy_.workers_for_pending();
  memory_is_short_ = workers == 0 && !queue_.empty();
  notify(call_workers(workers));
  caller_.notify_all();
}

void WorkerPool::execute(const Unit& unit, Team& team, Lock& lock) {
  Job& job = *unit.job;
  team.open(job.helper_.scratch, policy_.max_helpers());
  active_teams_.push_back({&team, unit.job});
  with_workspace(job.leader_, lock, [&](Workspace& workspace) { job.run_unit(unit.index, workspace, team); });
  team.close();
  std::erase_if(active_teams_, [&](const ActiveTeam& active) { return active.team == &team; });
  ++job.ended_;
  assert(job.ended_ <= job.next_);
  if (job.ended_ < job.units_) return;
  std::erase(running_, &job);
  lock.unlock();
  job.finished();
  lock.lock();
  job.finished_ = true;
  caller_.notify_all();
}

// Helpers.

WorkerPool::ActiveTeam* WorkerPool::team_that_wants_help() {
  if (policy_.may_begin() == 0) {
    // Leaders call again later.
    for (ActiveTeam& active : active_teams_) active.team->set_called(0);
    return nullptr;
  }
  for (ActiveTeam& active : active_teams_) {
    const Team& team = *active.team;
    if (team.called_.load(std::memory_order_relaxed) == 0 || !team.has_room()) continue;
    const Job& job = *active.job;
    if (job.workers_ < job.max_workers_ && workspaces_.fits_helper(job.helper_)) return &active;
  }
  return nullptr;
}

int WorkerPool::call_helpers(Team& team) {
  Lock lock(mutex_);
  // Helpers may have joined since the leader counted them.
  const int helpers = team.helpers_.load(std::memory_order_relaxed);
  const int most = team.max_helpers_.load(std::memory_order_relaxed);
  const int more = std::min(policy_.may_begin(), most - helpers);
  const int64_t sleepers = call_workers(team.set_called(more));
  lock.unlock();
  notify(sleepers);
  return helpers + more;
}

void WorkerPool::help(Team& team, Job& job, Lock& lock) {
  const int seat = team.join();
  with_workspace(job.helper_, lock, [&](Workspace& workspace) { team.help(workspace, seat); });
  team.leave(seat);
}

// Background jobs.

void WorkerPool::submit_background(std::shared_ptr<BackgroundJob> job) {
  int64_t sleepers = 0;
  {
    std::lock_guard lock(mutex_);
    background_.push_back({std::move(job), std::chrono::steady_clock::now() + kBackgroundWait});
    sleepers = call_workers(1);
  }
  notify(sleepers);
}

bool WorkerPool::background_is_due() const {
  return !background_.empty() && std::chrono::steady_clock::now() >= background_.front().due;
}

void WorkerPool::step_background(Lock& lock) {
  std::list<Background> taken;
  taken.splice(taken.begin(), background_, background_.begin());
  std::shared_ptr<BackgroundJob>& job = taken.front().job;
  // The worker is back soon: until then it counts as spinning, so that nobody is woken in its place.
  const uint32_t calls = calls_.load(std::memory_order_relaxed);
  ++spinning_;
  lock.unlock();
  const bool more = job->step();
  if (!more) job.reset();
  relock(lock);
  if (calls == calls_.load(std::memory_order_relaxed)) --spinning_;
  if (more) background_.splice(background_.begin(), taken);
}

// Workers, awake and asleep.

int64_t WorkerPool::call_workers(int64_t n) {
  if (n <= 0) return 0;
  calls_.fetch_add(1, std::memory_order_release);
  return std::max<int64_t>(0, n - std::exchange(spinning_, 0));
}

void WorkerPool::notify(int64_t n) {
  for (; n > 0; --n) wake_.notify_one();
}

bool WorkerPool::spin_for_call(Lock& lock) {
  const uint32_t calls = calls_.load(std::memory_order_relaxed);
  const auto called = [&] { return calls_.load(std::memory_order_acquire) != calls; };
  ++spinning_;
  lock.unlock();
  spin(kSpinForUnit, called);
  relock(lock);
  if (called()) return true;
  --spinning_;
  return false;
}

void WorkerPool::sleep(Lock& lock) {
  ++sleeping_;
  if (const auto expiry = workspaces_.expiry()) {
    ++keepers_;
    wake_.wait_until(lock, *expiry);
    --keepers_;
  } else {
    wake_.wait(lock);
  }
  --sleeping_;
  while (std::unique_ptr<Workspaces::Pooled> expired = workspaces_.take_expired()) {
    lock.unlock();
    expired->prepare();
    lock.lock();
    workspaces_.put_back(std::move(expired));
  }
}

bool WorkerPool::work(Worker& self, std::shared_ptr<Job>& job, Lock& lock) {
  if (background_is_due()) {
    step_background(lock);
  } else if (Unit unit; take_unit(unit, nullptr)) {
    job = unit.job;
    work_for(*job, [&] { execute(unit, *self.team, lock); });
  } else if (const ActiveTeam* active = team_that_wants_help()) {
    job = active->job;
    work_for(*job, [&, team = active->team] { help(*team, *job, lock); });
  } else if (!background_.empty()) {
    step_background(lock);
  } else {
    return false;
  }
  return true;
}

void WorkerPool::main(Worker& self) {
  ask_for_time_slice(kWorkerSliceNs);
  const FpModeScope fp_mode;
  Lock lock(mutex_);
  for (bool may_spin = false;;) {
    if (std::shared_ptr<Job> job; work(self, job, lock)) {
      may_spin = true;
      if (job == nullptr) continue;
      // Its destructor must not run with the mutex held.
      lock.unlock();
      job.reset();
      lock.lock();
    } else if (stopping_) {
      return;
    } else if (may_spin && policy_.may_spin(sleeping_)) {
      may_spin = spin_for_call(lock);
    } else {
      sleep(lock);
      may_spin = false;
    }
  }
}

// The calling thread.

void WorkerPool::expect_caller(bool expected) {
  Lock lock(mutex_);
  if (policy_.caller_is_expected() == expected) return;
  policy_.expect_caller(expected);
  const int64_t sleepers = expected ? 0 : call_workers(policy_.workers_for_pending());
  lock.unlock();
  notify(sleepers);
}

void WorkerPool::run_here(const std::shared_ptr<Job>& job) {
  if (job->units_ == 0) return job->finished();
  const FpModeScope fp_mode;
  Lock lock(mutex_);
  if (caller_teams_.empty()) {
    teams_.push_back(std::unique_ptr<Team>(new Team(*this)));
    caller_teams_.push_back(teams_.back().get());
  }
  Team& team = *caller_teams_.back();
  caller_teams_.pop_back();
  const bool counted = policy_.caller_is_expected();
  if (!counted) policy_.thread_begins();
  enqueue(job);
  notify(call_workers(std::min<int64_t>(job->units_ - 1, job->max_workers_)));
  while (job->next_ < job->units_) {
    if (Unit unit; take_unit(unit, job.get())) execute(unit, team, lock);
    else caller_.wait(lock);
  }
  // Workers may still be at other units: help where layers come quickly, then sleep.
  for (const ActiveTeam& active : active_teams_) {
    if (active.job != job || !active.team->has_room() || !workspaces_.fits_helper(job->helper_)) continue;
    help(*active.team, *job, lock);
    break;
  }
  if (!counted) {
    policy_.thread_ends();
    notify(call_workers(policy_.workers_for_pending()));
  }
  caller_.wait(lock, [&] { return job->finished_; });
  caller_teams_.push_back(&team);
  // Workers that fell asleep when there was nothing to give back don't know of this memory.
  if (keepers_ == 0 && sleeping_ > 0) wake_.notify_one();
}

int64_t WorkerPool::memory() {
  std::lock_guard lock(mutex_);
  return workspaces_.bytes();
}

}  // namespace rskip
