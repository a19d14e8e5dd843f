#include "plan/weight_cache.h"

#include <utility>

namespace rskip {

std::shared_ptr<const void> WeightCache::find(const Key& key) {
  std::lock_guard lock(mutex_);
  const auto at = entries_.find(key);
  return at == entries_.end() ? nullptr : at->second.lock();
}

std::shared_ptr<const void> WeightCache::insert(const Key& key, std::shared_ptr<const void> made) {
  std::lock_guard lock(mutex_);
  if (entries_.size() >= sweep_at_) {
    std::erase_if(entries_, [](const auto& entry) { return entry.second.expired(); });
    sweep_at_ = 2 * entries_.size() + kFewEntries;
  }
  std::weak_ptr<const void>& slot = entries_[key];
  if (auto first = slot.lock()) return first;
  slot = made;
  return made;
}

size_t WeightCache::size() {
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const auto& entry) { return entry.second.expired(); });
  return entries_.size();
}

}  // namespace rskip
