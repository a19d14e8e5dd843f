// The microkernel of convolution and matrix product on 8-bit numbers: P pixels x N blocks of 16 output channels, summed in
// 32-bit integers, four steps of k at a time. Integer sums are exact, so their order doesn't matter; what follows them is in
// one order on every instruction set.
#pragma once

#include "kernels/int8/pack8.h"
#include "kernels/matrix/tile-inl.h"

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

// acc += x * w. As tile_sum, but `inner` counts steps, and those of the last of n2 are inner_last.
template <int P, int N, int kStride>
RSKIP_INLINE void tile_sum8(Bits (&acc)[P][N], const uint8_t* x, ptrdiff_t stride, const int8_t* w, ptrdiff_t w_block,
                            const Walk& walk) {
  for (int i0 = 0; i0 < walk.n0; ++i0, x += walk.s0) {
    const uint8_t* x1 = x;
    for (int i1 = 0; i1 < walk.n1; ++i1, x1 += walk.s1) {
      const uint8_t* x2 = x1;
      for (int i2 = 0; i2 < walk.n2; ++i2, x2 += walk.s2) {
        const int inner = i2 + 1 == walk.n2 ? walk.inner_last : walk.inner;
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

RSKIP_INLINE Rounder8 rounder_of(const Rounding& rounding) { return {rounding.low, rounding.high, rounding.zero}; }

// Stores `count` of four pixels from pixel `first` of a tile on, but not those with a negative offset.
RSKIP_INLINE void store_four(const Rounder8& rounder, const Bits (&value)[4], uint8_t* y, const ptrdiff_t* offset, int first,
                             int count) {
  if (offset == nullptr && count == 4) return rounder.store_rows(y + first * kLanes, value);
  if (offset != nullptr && count == 4 && offset[first] >= 0) {
    bool together = true;
    for (int i = 1; i < 4; ++i) together &= offset[first + i] == offset[first] + i * kLanes;
    if (together) return rounder.store_rows(y + offset[first], value);
  }
  uint8_t rows[4 * kLanes];
  rounder.store_rows(rows, value);
  for (int i = 0; i < count; ++i) {
    const ptrdiff_t at = offset != nullptr ? offset[first + i] : (first + i) * kLanes;
    if (at >= 0) store_sixteen(y + at, load_sixteen(rows + i * kLanes));
  }
}

// As finish_four, with a residual: out of line, since it would be inlined into dozens of tiles.
template <int N>
[[gnu::noinline]] void add_four(const Bits (&sum)[4][N], int first, int count, const TileTarget<uint8_t>& out,
                             const Vec (&factor)[N], const Epilogue8& epilogue) {
  const Addition8& addition = epilogue.addition;
  const Clamp8 clamp(epilogue.rounding);
  const Rounder8 rounder = rounder_of(addition.rounding);
  const Vec own_scale = splat(addition.scale), residual_scale = splat(addition.residual_scale);
  Bits value[4];
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
      const int p = std::min(first + i, first + count - 1);
      const ptrdiff_t at = out.residual_offset != nullptr ? std::max<ptrdiff_t>(0, out.residual_offset[p]) : p * kLanes;
      const uint8_t* residual = out.residual + at;
      const Vec own = to_float(round_to_bits(clamp(to_float(sum[i][n]) * factor[n])));
      const Vec other = to_float(add_bits(load_bytes(residual + n * out.residual_block), -addition.residual_zero));
      value[i] = rounder.round(addition.residual_first ? fma(other, residual_scale, own * own_scale)
                                                       : fma(own, own_scale, other * residual_scale));
    }
    store_four(rounder, value, out.y + n * out.y_block, out.y_offset, first, count);
  }
}

// Rounds and stores the sums of four pixels, which are those of a tile from pixel `first` on; `count` of them are there.
template <int N>
RSKIP_INLINE void finish_four(const Bits (&sum)[4][N], int first, int count, const TileTarget<uint8_t>& out,
                              const Vec (&factor)[N], const Epilogue8& epilogue) {
  if (out.residual != nullptr) {
    add_four(sum, first, count, out, factor, epilogue);
    return;
  }
  const Rounder8 rounder = rounder_of(epilogue.rounding);
  Bits value[4];
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) value[i] = rounder.round(to_float(sum[i][n]) * factor[n]);
    store_four(rounder, value, out.y + n * out.y_block, out.y_offset, first, count);
  }
}

template <int kFirst, int P, int N>
RSKIP_INLINE void finish_from(const Bits (&acc)[P][N], const TileTarget<uint8_t>& out, const Vec (&factor)[N],
                              const Epilogue8& epilogue) {
  if constexpr (kFirst < P) {
    constexpr int kCount = std::min(4, P - kFirst);
    Bits sum[4][N];
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) sum[i][n] = acc[kFirst + std::min(i, kCount - 1)][n];
    }
    finish_four(sum, kFirst, kCount, out, factor, epilogue);
    finish_from<kFirst + 4>(acc, out, factor, epilogue);
  }
}
template <int P, int N>
RSKIP_INLINE void tile_store8(const Bits (&acc)[P][N], const TileTarget<uint8_t> out, const float* scale,
                              const Epilogue8& epilogue) {
  Vec factor[N];
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) factor[n] = load(scale + n * kLanes);
  finish_from<0>(acc, out, factor, epilogue);
}

}  // namespace rskip::RSKIP_ISA
