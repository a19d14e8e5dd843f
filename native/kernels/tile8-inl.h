// The microkernel of convolution and matrix product on 8-bit numbers: P pixels x N blocks of 16 output channels, summed in
// 32-bit integers, four steps of k at a time. Integer sums are exact, so their order doesn't matter; what follows them is in
// one order on every instruction set.
#pragma once

#include "kernels/pack8.h"
#include "kernels/tile-inl.h"

namespace rskip::RSKIP_ISA {

inline constexpr int kQuad = 4;                      // numbers that one step takes
inline constexpr int kFactorBytes = kQuad * kLanes;  // weights of a step

// Of the arrays that hold one vector of first numbers for each kind of product: that of this instruction set.
RSKIP_INLINE const int32_t* bias_of(const Aligned<int32_t>& bias) {
  return bias.data() + (kSignedProducts ? bias.size() / 2 : 0);
}

template <int P, int N, int kStride>
RSKIP_INLINE void tile_step8(Bits (&acc)[P][N], const uint8_t* x, ptrdiff_t stride, const int8_t* w, ptrdiff_t w_block) {
  Factors factor[N];
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
    factor[n] = load_factors(w + n * w_block);
    __builtin_prefetch(w + n * w_block + 64 * kFactorBytes, 0, 2);  // as kPrefetch
  }
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) add_dots(acc[p], x + p * pixel_stride<kStride>(stride), factor);
}

// acc += x * w. As tile_sum; `inner` counts steps.
template <int P, int N, int kStride>
RSKIP_INLINE void tile_sum8(Bits (&acc)[P][N], const uint8_t* x, ptrdiff_t stride, const int8_t* w, ptrdiff_t w_block,
                            const Walk& walk) {
  for (int i0 = 0; i0 < walk.n0; ++i0, x += walk.s0) {
    const int inner = i0 + 1 == walk.n0 ? walk.inner_last : walk.inner;
    const uint8_t* x1 = x;
    for (int i1 = 0; i1 < walk.n1; ++i1, x1 += walk.s1) {
      const uint8_t* x2 = x1;
      for (int i2 = 0; i2 < walk.n2; ++i2, x2 += walk.s2) {
        const uint8_t* xi = x2;
        for (int i = inner; i > 0; --i, xi += kQuad, w += kFactorBytes) {
          tile_step8<P, N, kStride>(acc, xi, stride, w, w_block);
        }
      }
    }
  }
}

template <int P, int N>
RSKIP_INLINE void tile_bias8(Bits (&acc)[P][N], const int32_t* bias) {
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = load_bits(bias + n * kLanes);
  }
}

// The integers that a value is rounded to, less their zero point.
struct Clamp8 {
  Vec low, high;
  explicit Clamp8(const Rounding& rounding) : low(splat(rounding.low)), high(splat(rounding.high)) {}
  RSKIP_INLINE Vec operator()(Vec value) const { return min(high, max(value, low)); }
};

struct Epilogue8 {
  Rounding rounding;
  Addition8 addition;
};

template <int P, int N>
RSKIP_INLINE void tile_store8(const Bits (&acc)[P][N], const TileTarget<uint8_t> out, const float* scale,
                              const Epilogue8& epilogue) {
  const Clamp8 clamp(epilogue.rounding);
  Vec factor[N];
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) factor[n] = load(scale + n * kLanes);
  if (out.residual == nullptr) {
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      uint8_t* y = out.y + (out.y_offset != nullptr ? out.y_offset[p] : p * kLanes);
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
        const Vec value = clamp(to_float(acc[p][n]) * factor[n]);
        store_bytes(y + n * out.y_block, add_bits(round_to_bits(value), epilogue.rounding.zero));
      }
    }
    return;
  }
  const Addition8& addition = epilogue.addition;
  const Clamp8 sum_clamp(addition.rounding);
  const Vec own_scale = splat(addition.scale), residual_scale = splat(addition.residual_scale);
  for (int p = 0; p < P; ++p) {
    uint8_t* y = out.y + (out.y_offset != nullptr ? out.y_offset[p] : p * kLanes);
    const uint8_t* residual = out.residual + (out.residual_offset != nullptr ? out.residual_offset[p] : p * kLanes);
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      const Vec own = to_float(round_to_bits(clamp(to_float(acc[p][n]) * factor[n])));
      const Vec other = to_float(add_bits(load_bytes(residual + n * out.residual_block), -addition.residual_zero));
      const Vec sum = addition.residual_first ? fma(other, residual_scale, own * own_scale)
                                              : fma(own, own_scale, other * residual_scale);
      store_bytes(y + n * out.y_block, add_bits(round_to_bits(sum_clamp(sum)), addition.rounding.zero));
    }
  }
}

}  // namespace rskip::RSKIP_ISA
