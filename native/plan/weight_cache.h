// Packed weights of one engine: held once, however many compiled shapes and concurrent runs use them. An entry
// lives as long as a plan that uses it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "kernels/table.h"

namespace rskip {

class WeightCache {
 public:
  // Ids of the constants that went in, then everything else that decides the bytes.
  using Key = std::vector<int64_t>;

  // What `make` gives, or what it gave to somebody who still holds it. Thread-safe; `make` runs without the lock.
  template <class T>
  std::shared_ptr<const T> get(const Key& key, const std::function<std::shared_ptr<const T>()>& make) {
    if (auto found = find(key)) return std::static_pointer_cast<const T>(found);
    std::shared_ptr<const T> made = make();
    return std::static_pointer_cast<const T>(insert(key, made));
  }
  bool holds(const Key& key) { return find(key) != nullptr; }
  // Entries in use.
  size_t size();

 private:
  std::shared_ptr<const void> find(const Key& key);
  // The entry that was first, if another thread was faster.
  std::shared_ptr<const void> insert(const Key& key, std::shared_ptr<const void> made);

  static constexpr size_t kFewEntries = 64;

  std::mutex mutex_;
  // Entries that nothing uses any more go when there are so many entries: at most half of them, so that insertion stays cheap.
  size_t sweep_at_ = kFewEntries;
  std::map<Key, std::weak_ptr<const void>> entries_;
};

}  // namespace rskip
