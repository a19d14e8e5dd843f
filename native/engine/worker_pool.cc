#include "engine/worker_pool.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/fp_mode.h"
#include "engine/spin.h"

namespace rskip {
namespace {

// The end of a run has to reach the caller, who then prepares the next.
constexpr std::chrono::microseconds kLookOut{200};
// The lock is held for less than that, unless whoever holds it lost its core.
constexpr std::chrono::microseconds kLocked{5};
// Background jobs go first after that.
constexpr std::chrono::milliseconds kBackgroundWaits{5};

// Where others are awake, sleeping until they unlock takes longer than what they do.
void take_again(std::unique_lock<std::mutex>& lock) {
  if (!spin(kLocked, [&] { return lock.try_lock(); })) lock.lock();
}

}  // namespace

WorkerPool::WorkerPool(int threads, int cores) : cores_(cores) {
  try {
    for (int i = 0; i < threads; ++i) {
      auto worker = std::make_unique<Worker>();
      teams_.push_back(std::unique_ptr<Team>(new Team(*this)));
      worker->team = teams_.back().get();
      workspaces_.push_back(std::make_unique<Workspace>());
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

void WorkerPool::update_pending() {
  int pending = 0;
  for (const auto& job : queue_) pending += job->active_ < job->max_workers_ ? 1 : 0;
  pending_.store(pending, std::memory_order_relaxed);
}

void WorkerPool::enqueue(std::shared_ptr<Job> job) {
  running_.push_back(job.get());
  queue_.push_back(std::move(job));
  update_pending();
}

void WorkerPool::submit(std::shared_ptr<Job> job) {
  if (job->units_ == 0) return job->finished();
  const int64_t wanted = std::min<int64_t>(job->units_, threads());
  int64_t sleepers = 0;
  {
    std::lock_guard lock(mutex_);
    enqueue(std::move(job));
    sleepers = call_workers(std::min<int64_t>(wanted, spare()));
  }
  wake(sleepers);
}

void WorkerPool::submit_background(std::shared_ptr<BackgroundJob> job) {
  int64_t sleepers = 0;
  {
    std::lock_guard lock(mutex_);
    background_.push_back({std::move(job), std::chrono::steady_clock::now() + kBackgroundWaits});
    sleepers = call_workers(1);
  }
  wake(sleepers);
}

bool WorkerPool::background_is_due() const {
  return !background_.empty() && std::chrono::steady_clock::now() >= background_.front().due;
}

void WorkerPool::step_background(std::unique_lock<std::mutex>& lock) {
  Background background = std::move(background_.front());
  background_.pop_front();
  // It is back soon: nobody needs to be woken in its place.
  const uint32_t calls = calls_.load(std::memory_order_relaxed);
  ++looking_out_;
  lock.unlock();
  const bool more = background.job->step();
  if (!more) background.job.reset();
  take_again(lock);
  if (calls == calls_.load(std::memory_order_relaxed)) --looking_out_;
  if (more) background_.push_front(std::move(background));
}

// The first job in the queue that may have another worker gives one unit and goes to the end of the queue.
bool WorkerPool::take(Taken& taken, const Job* only) {
  if (only == nullptr && spare() == 0) return false;
  for (auto at = queue_.begin(); at != queue_.end(); ++at) {
    std::shared_ptr<Job> job = *at;
    // The caller of run_here() comes on top of max_workers.
    if (only == nullptr ? job->active_ >= job->max_workers_ : job.get() != only) continue;
    if (only == nullptr) ++job->active_;
    queue_.erase(at);
    taken = {job, job->next_++};
    if (job->next_ < job->units_) queue_.push_back(std::move(job));
    update_pending();
    return true;
  }
  return false;
}

WorkerPool::Leading* WorkerPool::team_that_wants_help() {
  const bool may_help = spare() > 0;
  for (Leading& leading : leading_) {
    // Later it asks anew.
    if (!may_help) leading.team->asked_.store(0, std::memory_order_relaxed);
    if (leading.team->asked_.load(std::memory_order_relaxed) == 0 || !leading.team->has_room()) continue;
    if (leading.job->active_ < leading.job->max_workers_) return &leading;
  }
  return nullptr;
}

void WorkerPool::leave(Job& job) {
  --job.active_;
  update_pending();
}

template <class Work>
void WorkerPool::employ(Job& job, const Work& work) {
  busy_.fetch_add(1, std::memory_order_relaxed);
  std::unique_ptr<Workspace> workspace = std::move(workspaces_.back());
  workspaces_.pop_back();
  work(*workspace);
  workspaces_.push_back(std::move(workspace));
  busy_.fetch_sub(1, std::memory_order_relaxed);
  leave(job);
}

void WorkerPool::execute(Taken& taken, Workspace& workspace, Team& team, std::unique_lock<std::mutex>& lock) {
  Job& job = *taken.job;
  team.open(job.scratch_bytes_, threads() - 1);
  leading_.push_back({&team, taken.job});
  lock.unlock();
  job.run_unit(taken.unit, workspace, team);
  take_again(lock);
  team.close();
  std::erase_if(leading_, [&](const Leading& l) { return l.team == &team; });
  if (++job.ended_ < job.units_) return;
  std::erase(running_, &job);
  lock.unlock();
  job.finished();
  lock.lock();
  job.over_ = true;
  job_ended_.notify_all();
}

void WorkerPool::help(Team& team, Workspace& workspace, std::unique_lock<std::mutex>& lock) {
  const int seat = team.join();
  lock.unlock();
  team.help(workspace, seat);
  take_again(lock);
  team.leave(seat);
}

int64_t WorkerPool::call_workers(int64_t n) {
  if (n <= 0) return 0;
  calls_.fetch_add(1, std::memory_order_release);
  return std::max<int64_t>(0, n - std::exchange(looking_out_, 0));
}

int64_t WorkerPool::call_for_pending() {
  return call_workers(std::min(pending_.load(std::memory_order_relaxed), spare()));
}

void WorkerPool::wake(int64_t n) {
  for (; n > 0; --n) wake_.notify_one();
}

bool WorkerPool::look_out(std::unique_lock<std::mutex>& lock) {
  const uint32_t calls = calls_.load(std::memory_order_relaxed);
  const auto called = [&] { return calls_.load(std::memory_order_acquire) != calls; };
  ++looking_out_;
  lock.unlock();
  spin(kLookOut, called);
  take_again(lock);
  if (called()) return true;
  --looking_out_;
  return false;
}

void WorkerPool::main(Worker& self) {
  const FpModeScope fp_mode;
  std::unique_lock lock(mutex_);
  for (bool busy = false;;) {
    std::shared_ptr<Job> keep;  // outlives the lock below: a job's destructor must not run under it
    if (Taken taken; background_is_due()) {
      step_background(lock);
      busy = true;
    } else if (take(taken, nullptr)) {
      keep = taken.job;
      employ(*keep, [&](Workspace& workspace) { execute(taken, workspace, *self.team, lock); });
      busy = true;
    } else if (Leading* leading = team_that_wants_help()) {
      keep = leading->job;
      ++keep->active_;
      employ(*keep, [&](Workspace& workspace) { help(*leading->team, workspace, lock); });
      busy = true;
    } else if (!background_.empty()) {
      step_background(lock);
      busy = true;
    } else if (stopping_) {
      return;
    } else {
      if (busy && may_look_out()) {
        busy = look_out(lock);
      } else {
        ++sleeping_;
        wake_.wait(lock);
        --sleeping_;
        busy = false;
      }
    }
    if (keep) {
      lock.unlock();
      keep.reset();
      lock.lock();
    }
  }
}

void WorkerPool::expect_caller(bool comes) {
  std::unique_lock lock(mutex_);
  if (caller_expected_ == comes) return;
  caller_expected_ = comes;
  busy_.fetch_add(comes ? 1 : -1, std::memory_order_relaxed);
  const int64_t sleepers = comes ? 0 : call_for_pending();
  lock.unlock();
  wake(sleepers);
}

void WorkerPool::run_here(const std::shared_ptr<Job>& job, Workspace& workspace) {
  if (job->units_ == 0) return job->finished();
  const FpModeScope fp_mode;
  std::unique_lock lock(mutex_);
  if (free_teams_.empty()) {
    teams_.push_back(std::unique_ptr<Team>(new Team(*this)));
    free_teams_.push_back(teams_.back().get());
  }
  Team& team = *free_teams_.back();
  free_teams_.pop_back();
  const bool expected = caller_expected_;
  if (!expected) busy_.fetch_add(1, std::memory_order_relaxed);
  enqueue(job);
  wake(call_workers(std::min<int64_t>(job->units_ - 1, job->max_workers_)));
  for (Taken taken; take(taken, job.get());) execute(taken, workspace, team, lock);
  // Workers may still be at other units: lend a hand where layers come quickly, then sleep.
  for (const Leading& leading : leading_) {
    if (leading.job != job || !leading.team->has_room()) continue;
    help(*leading.team, workspace, lock);
    break;
  }
  if (!expected) {
    busy_.fetch_sub(1, std::memory_order_relaxed);
    wake(call_for_pending());
  }
  job_ended_.wait(lock, [&] { return job->over_; });
  free_teams_.push_back(&team);
}

}  // namespace rskip
