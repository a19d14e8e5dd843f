#include "engine/worker_pool.h"

#include <algorithm>

#include "engine/fp_mode.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace rskip {
namespace {

// About 30 us of waiting on current CPUs: longer than small layers that are not split, shorter than a time slice.
constexpr int kSpins = 1500;
// Twice that between runs: their end has to reach the caller, who then prepares the next.
constexpr int kLookOutSpins = 3000;

inline void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

constexpr uint64_t pack(uint32_t epoch, uint32_t parts) {
  return (static_cast<uint64_t>(epoch) << 32) | (static_cast<uint64_t>(parts) << 16);
}
constexpr uint32_t epoch_of(uint64_t work) { return static_cast<uint32_t>(work >> 32); }
constexpr uint32_t parts_of(uint64_t work) { return static_cast<uint32_t>(work >> 16) & 0xffff; }
constexpr uint32_t next_of(uint64_t work) { return static_cast<uint32_t>(work) & 0xffff; }

}  // namespace

bool Team::claim_and_run(Workspace& workspace) {
  uint64_t work = work_.load(std::memory_order_acquire);
  while (next_of(work) < parts_of(work)) {
    if (!work_.compare_exchange_weak(work, work + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    const uint32_t parts = parts_of(work);
    fn_(context_, workspace, static_cast<int>(next_of(work)), static_cast<int>(parts));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == parts) done_.notify_one();
    return true;
  }
  return false;
}

void Team::split(PartFn fn, const void* context, Workspace& leader) {
  const int helpers = helpers_.load(std::memory_order_relaxed);
  if (helpers == 0) return fn(context, leader, 0, 1);
  const uint32_t parts = static_cast<uint32_t>(helpers) + 1;
  fn_ = fn;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  work_.store(pack(epoch_of(work_.load(std::memory_order_relaxed)) + 1, parts), std::memory_order_release);
  while (claim_and_run(leader)) {
  }
  for (int i = 0; i < kSpins; ++i) {
    if (done_.load(std::memory_order_acquire) == parts) return;
    relax();
  }
  for (uint32_t done = done_.load(std::memory_order_acquire); done != parts;
       done = done_.load(std::memory_order_acquire)) {
    done_.wait(done, std::memory_order_acquire);
  }
}

bool Team::has_company() {
  const int helpers = helpers_.load(std::memory_order_relaxed);
  if (helpers < max_helpers_.load(std::memory_order_relaxed) && pool_.idle_.load(std::memory_order_relaxed) > 0) {
    std::lock_guard lock(pool_.mutex_);
    const int more = std::min(max_helpers_.load(std::memory_order_relaxed) - helpers, pool_.idle_.load());
    if (wanted_ < more) {
      wanted_ = more;
      for (int i = 0; i < more; ++i) pool_.call_worker();
    }
  }
  return helpers > 0;
}

void Team::help(Workspace& workspace) {
  try {
    workspace.scratch.reserve(scratch_bytes_.load(std::memory_order_acquire));
  } catch (const std::bad_alloc&) {
    return;  // the leader does all parts itself
  }
  helpers_.fetch_add(1, std::memory_order_acq_rel);
  for (int idle = 0; idle < kSpins; ++idle) {
    if (claim_and_run(workspace)) idle = 0;
    if (!open_.load(std::memory_order_acquire) || pool_.pending_.load(std::memory_order_relaxed) > 0) break;
    relax();
  }
  helpers_.fetch_sub(1, std::memory_order_acq_rel);
}

void Team::open(size_t scratch_bytes, int max_helpers) {
  scratch_bytes_.store(scratch_bytes, std::memory_order_release);
  max_helpers_.store(max_helpers, std::memory_order_relaxed);
  wanted_ = 0;
  open_.store(true, std::memory_order_release);
}

void Team::close() {
  open_.store(false, std::memory_order_release);
  wanted_ = 0;
}

WorkerPool::WorkerPool(int threads, int cores) : may_look_out_(cores > 1) {
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

void WorkerPool::update_pending() {
  int pending = 0;
  for (const Entry& entry : queue_) pending += entry.job->active_ < entry.job->max_workers_ ? 1 : 0;
  pending_.store(pending, std::memory_order_relaxed);
}

void WorkerPool::enqueue(Job* job, std::shared_ptr<Job> keep) {
  running_.push_back(job);
  queue_.push_back({job, std::move(keep)});
  update_pending();
}

void WorkerPool::submit(std::shared_ptr<Job> job) {
  if (job->units_ == 0) return job->finished();
  const int64_t wanted = std::min<int64_t>(job->units_, threads());
  {
    std::lock_guard lock(mutex_);
    Job* raw = job.get();
    enqueue(raw, std::move(job));
  }
  for (int64_t i = 0; i < wanted; ++i) call_worker();
}

// The first job in the queue that may have another worker gives one unit and goes to the end of the queue.
bool WorkerPool::take(Taken& taken, const Job* only) {
  for (auto at = queue_.begin(); at != queue_.end(); ++at) {
    Job* job = at->job;
    // The caller of run_here() comes on top of max_workers.
    if (only == nullptr ? job->active_ >= job->max_workers_ : job != only) continue;
    if (only == nullptr) ++job->active_;
    taken = {job, at->keep, job->next_++};
    Entry entry = std::move(*at);
    queue_.erase(at);
    if (job->next_ < job->units_) queue_.push_back(std::move(entry));
    update_pending();
    return true;
  }
  return false;
}

WorkerPool::Leading* WorkerPool::team_that_wants_help() {
  for (Leading& leading : leading_) {
    if (leading.team->wanted_ > 0 && leading.job->active_ < leading.job->max_workers_) return &leading;
  }
  return nullptr;
}

void WorkerPool::leave(Job& job) {
  --job.active_;
  update_pending();
  job_ended_.notify_all();
}

void WorkerPool::execute(Taken& taken, Workspace& workspace, Team& team, std::unique_lock<std::mutex>& lock) {
  Job& job = *taken.job;
  team.open(job.scratch_bytes_, threads() - 1);
  leading_.push_back({&team, &job, taken.keep});
  lock.unlock();
  job.run_unit(taken.unit, workspace, team);
  lock.lock();
  team.close();
  std::erase_if(leading_, [&](const Leading& l) { return l.team == &team; });
  if (++job.ended_ < job.units_) return;
  std::erase(running_, &job);
  lock.unlock();
  job.finished();
  lock.lock();
}

void WorkerPool::call_worker() {
  calls_.fetch_add(1, std::memory_order_release);
  wake_.notify_one();
}

void WorkerPool::look_out(std::unique_lock<std::mutex>& lock) {
  const uint32_t calls = calls_.load(std::memory_order_relaxed);
  lock.unlock();
  for (int i = 0; i < kLookOutSpins && calls_.load(std::memory_order_acquire) == calls; ++i) relax();
  lock.lock();
}

void WorkerPool::main(Worker& self) {
  const FpModeScope fp_mode;
  std::unique_lock lock(mutex_);
  for (bool busy = false;;) {
    std::shared_ptr<Job> keep;  // outlives the lock below: a job's destructor must not run under it
    if (Taken taken; take(taken, nullptr)) {
      keep = taken.keep;
      execute(taken, self.workspace, *self.team, lock);
      leave(*taken.job);
      busy = true;
    } else if (stopping_) {
      return;
    } else if (Leading* leading = team_that_wants_help()) {
      Job& job = *leading->job;
      keep = leading->keep;
      --leading->team->wanted_;
      ++job.active_;
      Team& team = *leading->team;
      lock.unlock();
      team.help(self.workspace);
      lock.lock();
      leave(job);
      busy = true;
    } else {
      idle_.fetch_add(1);
      if (busy && may_look_out_) {
        look_out(lock);
      } else {
        wake_.wait(lock);
      }
      busy = false;
      idle_.fetch_sub(1);
    }
    if (keep) {
      lock.unlock();
      keep.reset();
      lock.lock();
    }
  }
}

void WorkerPool::run_here(Job& job, Workspace& workspace) {
  if (job.units_ == 0) return job.finished();
  const FpModeScope fp_mode;
  std::unique_lock lock(mutex_);
  if (free_teams_.empty()) {
    teams_.push_back(std::unique_ptr<Team>(new Team(*this)));
    free_teams_.push_back(teams_.back().get());
  }
  Team& team = *free_teams_.back();
  free_teams_.pop_back();
  enqueue(&job, nullptr);
  const int64_t wanted = std::min<int64_t>(job.units_ - 1, job.max_workers_);
  for (int64_t i = 0; i < wanted; ++i) call_worker();
  for (Taken taken; take(taken, &job);) execute(taken, workspace, team, lock);
  // Workers may still be at other units: lend a hand where layers come quickly, then sleep.
  for (const Leading& leading : leading_) {
    if (leading.job != &job) continue;
    Team& other = *leading.team;
    lock.unlock();
    other.help(workspace);
    lock.lock();
    break;
  }
  job_ended_.wait(lock, [&] { return job.ended_ == job.units_ && job.active_ == 0; });
  free_teams_.push_back(&team);
}

}  // namespace rskip
