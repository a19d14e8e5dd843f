#include "kernels/matrix/pack.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/bfloat16/pack16.h"
#include "kernels/convolution/conv_rules.h"

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

namespace {

// The highest byte of a word, as a number, is so many times itself.
constexpr float kHighestByte = 1 << 24;

// The least power of two of which no float of `count`, `stride` apart, is more than 127 times; 1 for zeros, 0 for what isn't finite
// and where a word's scale would be denormal.
float scale_of(const float* x, int count, size_t stride) {
  float most = 0;
  for (int i = 0; i < count; ++i) {
    if (!std::isfinite(x[i * stride])) return 0;
    most = std::max(most, std::abs(x[i * stride]));
  }
  if (most == 0) return 1;
  int exponent;
  const float fraction = std::frexp(most, &exponent);
  const float scale = std::ldexp(1.0f, exponent - (fraction * 128 <= 127 ? 7 : 6));
  return std::isnormal(scale / kHighestByte) ? scale : 0;
}

// -0 is not: times a number, it may leave another zero than 0 does.
bool is_whole(float x) { return x == std::nearbyint(x) && !(x == 0 && std::signbit(x)); }

// PackedGemm::scales; none if the numbers of a row of b are not whole multiples of one.
AlignedFloats scales_of(const float* b, int k, int n, size_t row, size_t column) {
  AlignedFloats scales(k);
  for (int i = 0; i < k; ++i) {
    const float scale = scale_of(b + i * row, n, column);
    scales.data()[i] = scale / kHighestByte;
    for (int j = 0; j < n; ++j) {
      if (scale == 0 || !is_whole(b[i * row + j * column] / scale)) return {};
    }
  }
  return scales;
}

// Blocks of 16 columns.
constexpr int kBlocksAtOnce = 8;

}  // namespace

AlignedFloats padded_bias(int channels, const float* bias) {
  AlignedFloats padded(static_cast<size_t>(whole_blocks(channels)));
  padded.zero();
  if (bias != nullptr) std::copy_n(bias, channels, padded.data());
  return padded;
}

std::shared_ptr<const PackedGemm> pack_gemm(int k, int n, const float* b, bool trans_b, const float* c,
                                            bool single_row) {
  auto packed = std::make_shared<PackedGemm>();
  packed->k = k;
  packed->n = n;
  packed->bias = padded_bias(n, c);
  const size_t row = trans_b ? 1 : n;
  const size_t column = trans_b ? k : 1;
  // `add` puts a weight into a number that holds `each` neighbours along k.
  const auto fill = [&](auto& weights, int each, auto add) {
    const size_t size = static_cast<size_t>((k + each - 1) / each) * kLanes;
    weights = std::decay_t<decltype(weights)>(packed->blocks() * size);
    weights.zero_from(each > 1 ? 0 : (packed->blocks() - 1) * size);
    // Blocks that lie side by side in a row of b are read together.
    const int group = trans_b ? 1 : kBlocksAtOnce;
    for (int first = 0; first < packed->blocks(); first += group) {
      const int end = std::min(first + group, packed->blocks());
      for (int i = 0; i < k; ++i) {
        for (int block = first; block < end; ++block) {
          auto* out = weights.data() + block * size + static_cast<size_t>(i / each) * kLanes;
          each_lane(block, n, [&](int j, int lane) { add(out[lane], b[i * row + j * column], i); });
        }
      }
    }
  };
  const auto low = [](float x) { return (std::bit_cast<uint32_t>(x) & 0xffff) != 0; };
  const auto high = [](uint16_t& to, float x, int) { to = static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16); };
  const auto whole = [&](int32_t& to, float x, int i) {
    const auto number = static_cast<uint8_t>(static_cast<int8_t>(x / (packed->scales.data()[i] * kHighestByte)));
    to = static_cast<int32_t>(static_cast<uint32_t>(to) | uint32_t{number} << (8 * (i % kWordBytes)));
  };
  const bool short_floats = single_row && std::none_of(b, b + static_cast<size_t>(k) * n, low);
  if (short_floats) packed->scales = scales_of(b, k, n, row, column);
  if (packed->scales.size() > 0) fill(packed->words, kWordBytes, whole);
  else if (short_floats) fill(packed->halves, 1, high);
  else fill(packed->weights, 1, [](float& to, float x, int) { to = x; });
  return packed;
}

std::shared_ptr<const PackedGemm> pack_gemm16(int k, int n, const float* b, bool trans_b, const float* c,
                                              Precision precision) {
  auto packed = std::make_shared<PackedGemm>();
  packed->k = k;
  packed->n = n;
  packed->bias = padded_bias(n, c);
  const size_t row = trans_b ? 1 : n, column = trans_b ? k : 1;
  const size_t real = static_cast<size_t>(k + 1) / kPair * kLanes;
  const size_t size = static_cast<size_t>(packed_pairs(k, precision)) * kLanes;
  packed->weights = AlignedFloats(packed->blocks() * size);
  packed->weights.zero_from((packed->blocks() - 1) * size);
  for (int block = 0; block < packed->blocks(); ++block) {
    float* out = packed->weights.data() + block * size;
    std::fill(out + real, out + size, 0.0f);
    for (int i = 0; i < k; i += kPair, out += kLanes) {
      each_lane(block, n, [&](int j, int lane) {
        const float* at = b + i * row + j * column;
        out[lane] = pair_of(at[0], i + 1 < k ? at[row] : 0);
      });
    }
  }
  return packed;
}

size_t gemm_packed_bytes(const PackedGemm& gemm) {
  return gemm.weights.bytes() + gemm.halves.bytes() + gemm.words.bytes() + gemm.scales.bytes() + gemm.bias.bytes();
}

size_t gemm_scratch_bytes(const PackedGemm& gemm) { return gemm.scales.bytes(); }

int64_t attention_scratch_bytes(const AttentionShape& s) {
  const int64_t floats = int64_t{whole_blocks(s.keys)} * (int64_t{s.depth} + kQueryRows) +
                         int64_t{whole_blocks(s.value_depth)} * s.keys + int64_t{kQueryRows} * s.depth;
  return floats * static_cast<int64_t>(sizeof(float));
}

}  // namespace rskip
