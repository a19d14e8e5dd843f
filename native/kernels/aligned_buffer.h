// Grow-only memory at cache-line alignment.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rskip {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  ~AlignedBuffer() { free_memory(); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

  // At least `bytes` bytes; the contents are lost when it grows, and freed first. Throws std::bad_alloc and is empty then.
  void reserve(size_t bytes) {
    if (bytes <= bytes_) return;
    free_memory();
    const size_t alignment = bytes >= kHugePage ? kHugePage : kAlignment;
    void* fresh = ::operator new(bytes, std::align_val_t(alignment));
#if defined(__linux__)
    // Best effort: fewer TLB misses on large arenas.
    if (alignment == kHugePage) ::madvise(fresh, bytes, MADV_HUGEPAGE);
#endif
    data_ = static_cast<std::byte*>(fresh);
    bytes_ = bytes;
  }
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;
  void free_memory() {
    if (data_ == nullptr) return;
    ::operator delete(data_, std::align_val_t(bytes_ >= kHugePage ? kHugePage : kAlignment));
    data_ = nullptr;
    bytes_ = 0;
  }
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace rskip
