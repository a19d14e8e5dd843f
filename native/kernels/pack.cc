#include "kernels/pack.h"

#include <algorithm>
#include <bit>

#include "kernels/conv_rules.h"

#if defined(__linux__)
#include <mutex>

#include <sys/mman.h>
#endif

// A sanitizer finds reads beyond the end of weights only if each lie in an allocation of their own.
#if defined(__has_feature)
#define RSKIP_HAS_FEATURE(name) __has_feature(name)
#else
#define RSKIP_HAS_FEATURE(name) 0
#endif
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !RSKIP_HAS_FEATURE(address_sanitizer)
#define RSKIP_SLABS
#endif

namespace rskip {
namespace {

std::shared_ptr<std::byte> allocate(size_t bytes, size_t alignment) {
  const std::align_val_t align{alignment};
  return {static_cast<std::byte*>(::operator new(bytes, align)), [=](std::byte* p) { ::operator delete(p, align); }};
}

#if defined(RSKIP_SLABS)
// Weights lie one after the other in huge pages: those of one layer would fill hundreds of small pages, and looking up their
// addresses takes about as long as reading them. A slab lives as long as any weights in it; pages never written take no memory.
class Slabs {
 public:
  std::shared_ptr<void> take(size_t bytes) {
    std::lock_guard lock(mutex_);
    std::shared_ptr<std::byte> slab = last_.lock();
    if (slab == nullptr || bytes > size_ - used_) {
      size_ = std::max(kSlab, (bytes + kHugePage - 1) / kHugePage * kHugePage);
      last_ = slab = allocate(size_, kHugePage);
      used_ = 0;
      // A hint: refusal changes nothing.
      madvise(slab.get(), size_, MADV_HUGEPAGE);
    }
    std::byte* at = slab.get() + used_;
    used_ += (bytes + 63) / 64 * 64;
    return {slab, at};
  }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20, kSlab = 8 * kHugePage;
  std::mutex mutex_;
  std::weak_ptr<std::byte> last_;
  size_t size_ = 0, used_ = 0;
};
#endif

}  // namespace

std::shared_ptr<void> aligned_bytes(size_t bytes) {
#if defined(RSKIP_SLABS)
  static Slabs slabs;
  return slabs.take(bytes);
#else
  return allocate(bytes, 64);
#endif
}

std::shared_ptr<const PackedGemm> pack_gemm(int k, int n, const float* b, bool trans_b, const float* c,
                                            bool single_row) {
  auto packed = std::make_shared<PackedGemm>();
  packed->k = k;
  packed->n = n;
  packed->bias = AlignedFloats(static_cast<size_t>(packed->blocks()) * kLanes);
  packed->bias.zero();
  if (c != nullptr) std::copy_n(c, n, packed->bias.data());
  const size_t row = trans_b ? 1 : n;
  const size_t column = trans_b ? k : 1;
  const auto fill = [&](auto& weights, auto stored) {
    const size_t size = static_cast<size_t>(k) * kLanes;
    weights = std::decay_t<decltype(weights)>(packed->blocks() * size);
    weights.zero_from((packed->blocks() - 1) * size);
    for (int block = 0; block < packed->blocks(); ++block) {
      auto* out = weights.data() + block * size;
      for (int i = 0; i < k; ++i, out += kLanes) {
        each_lane(block, n, [&](int j, int lane) { out[lane] = stored(b[i * row + j * column]); });
      }
    }
  };
  const auto low = [](float x) { return (std::bit_cast<uint32_t>(x) & 0xffff) != 0; };
  const auto high = [](float x) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); };
  if (single_row && std::none_of(b, b + static_cast<size_t>(k) * n, low)) fill(packed->halves, high);
  else fill(packed->weights, [](float x) { return x; });
  return packed;
}

size_t gemm_packed_bytes(const PackedGemm& gemm) {
  return gemm.weights.bytes() + gemm.halves.bytes() + gemm.bias.bytes();
}

int64_t attention_scratch_bytes(const AttentionShape& s) {
  const int64_t floats = int64_t{whole_blocks(s.keys)} * (int64_t{s.depth} + kQueryRows) +
                         int64_t{whole_blocks(s.value_depth)} * s.keys + int64_t{kQueryRows} * s.depth;
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace rskip
