#include "run/workspaces.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace rskip {

Workspaces::Workspaces(int count, MemoryLimits limits, std::chrono::milliseconds keep) : limits_(limits), keep_(keep) {
  for (int i = 0; i < count; ++i) {
    unused_.push_back(std::make_unique<Pooled>());
    unused_.back()->discarded_.reserve(16);
  }
}

void Workspaces::discard(Pooled& from, const WorkspaceNeed& need, Pooled& by) {
  const auto move = [&](AlignedBuffer& buffer, size_t most) {
    if (buffer.bytes() <= most) return;
    AlignedBuffer freed = std::move(buffer);
    if (by.discarded_.size() < by.discarded_.capacity()) by.discarded_.push_back(std::move(freed));
  };
  move(from.arena, need.arena);
  move(from.scratch, need.scratch);
}

std::unique_ptr<Workspaces::Pooled> Workspaces::take(const WorkspaceNeed& need) {
  assert(!unused_.empty());
  std::unique_ptr<Pooled> taken = std::move(unused_.back());
  unused_.pop_back();
  Pooled& w = *taken;
  idle_ -= held(w);
  w.needed_ = {std::max(w.needed_.arena, need.arena), std::max(w.needed_.scratch, need.scratch)};
  const auto promise = [&] {
    return total({std::max(w.arena.bytes(), need.arena), std::max(w.scratch.bytes(), need.scratch)});
  };
  if (const Clock::time_point now = Clock::now(); now - w.since_ >= keep_) {
    discard(w, w.needed_, w);
    w.needed_ = need;
    w.since_ = now;
  }
  if (used_ + promise() > limits_.items) discard(w, need, w);
  if (used_ + promise() + idle_ > limits_.items) {
    for (const std::unique_ptr<Pooled>& other : unused_) discard(*other, {}, w);
    idle_ = 0;
  }
  w.promised_ = promise();
  used_ += w.promised_;
  return taken;
}

void Workspaces::put_back(std::unique_ptr<Pooled> workspace) {
  used_ -= std::exchange(workspace->promised_, 0);
  idle_ += held(*workspace);
  workspace->used_ = Clock::now();
  unused_.insert(held(*workspace) > 0 ? unused_.end() : unused_.begin(), std::move(workspace));
}

std::optional<Workspaces::Clock::time_point> Workspaces::expiry() const {
  std::optional<Clock::time_point> first;
  for (const std::unique_ptr<Pooled>& w : unused_) {
    if (held(*w) > 0 && (!first || w->used_ + keep_ < *first)) first = w->used_ + keep_;
  }
  return first;
}

std::unique_ptr<Workspaces::Pooled> Workspaces::take_expired() {
  const Clock::time_point now = Clock::now();
  const auto at = std::ranges::find_if(
      unused_, [&](const std::unique_ptr<Pooled>& w) { return held(*w) > 0 && now - w->used_ >= keep_; });
  if (at == unused_.end()) return nullptr;
  std::unique_ptr<Pooled> expired = std::move(*at);
  unused_.erase(at);
  idle_ -= held(*expired);
  discard(*expired, {}, *expired);
  return expired;
}

}  // namespace rskip
