#include "kernels/pack.h"

#include <algorithm>

#include "kernels/conv_rules.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rskip {

std::shared_ptr<void> aligned_bytes(size_t bytes) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const bool huge = bytes >= 2 * kHugePage;
  const std::align_val_t alignment{huge ? kHugePage : 64};
  std::shared_ptr<void> data(::operator new(bytes, alignment), [=](void* p) { ::operator delete(p, alignment); });
#if defined(__linux__)
  // A hint: fewer page faults while packing, fewer TLB misses later. Refusal changes nothing.
  if (huge) madvise(data.get(), bytes, MADV_HUGEPAGE);
#endif
  return data;
}

std::shared_ptr<const PackedGemm> pack_gemm(int k, int n, const float* b, bool trans_b, const float* c) {
  auto packed = std::make_shared<PackedGemm>();
  packed->k = k;
  packed->n = n;
  packed->weights = AlignedFloats(static_cast<size_t>(packed->blocks()) * k * kLanes);
  packed->weights.zero_from(static_cast<size_t>(packed->blocks() - 1) * k * kLanes);
  packed->bias = AlignedFloats(static_cast<size_t>(packed->blocks()) * kLanes);
  packed->bias.zero();
  if (c != nullptr) std::copy_n(c, n, packed->bias.data());
  const size_t row = trans_b ? 1 : n;
  const size_t column = trans_b ? k : 1;
  for (int block = 0; block < packed->blocks(); ++block) {
    float* out = packed->weights.data() + static_cast<size_t>(block) * k * kLanes;
    for (int i = 0; i < k; ++i, out += kLanes) {
      each_lane(block, n, [&](int j, int lane) { out[lane] = b[i * row + j * column]; });
    }
  }
  return packed;
}

size_t gemm_packed_bytes(const PackedGemm& gemm) {
  return (gemm.weights.size() + gemm.bias.size()) * sizeof(float);
}

int64_t attention_scratch_bytes(const AttentionShape& s) {
  const int64_t floats = int64_t{whole_blocks(s.keys)} * (int64_t{s.depth} + kQueryRows) +
                         int64_t{whole_blocks(s.value_depth)} * s.keys + int64_t{kQueryRows} * s.depth;
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace rskip
