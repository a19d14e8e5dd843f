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
    __builtin_prefetch(w + n * w_block + 64 * kFactorBytes, 0, 2);  // as FetchOwn
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

// `count` pixels of rows, from pixel `first` of a tile on, to where they belong, but not those with a negative offset.
[[gnu::noinline]] inline void scatter_rows(const uint8_t* rows, uint8_t* y, const ptrdiff_t* offset, int first, int count) {
  for (int i = 0; i < count; ++i) {
    const ptrdiff_t at = offset != nullptr ? offset[first + i] : (first + i) * kLanes;
    if (at >= 0) store_sixteen(y + at, load_sixteen(rows + i * kLanes));
  }
}

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
  scatter_rows(rows, y, offset, first, count);
}

// Stores P pixels, four at a time. The last four overlap those before where P isn't a multiple of four.
template <int P, int kFirst = 0>
RSKIP_INLINE void store_values(const Rounder8& rounder, const Bits (&value)[P], uint8_t* y) {
  if constexpr (kFirst < P) {
    constexpr int kAt = std::max(0, std::min(kFirst, P - 4)), kCount = std::min(4, P), kLast = kAt + kCount - 1;
    const Bits four[4] = {value[kAt], value[std::min(kAt + 1, kLast)], value[std::min(kAt + 2, kLast)], value[kLast]};
    store_four(rounder, four, y, nullptr, kAt, kCount);
    store_values<P, kFirst + 4>(rounder, value, y);
  }
}

// The sums of P pixels of a block, which lie kStep vectors apart, rounded, and their residuals, which are the first operand if
// kFirst. Pixels behind the `count` first are that of the last of them.
template <bool kFirst, int kStep, int P>
RSKIP_INLINE void add_residuals(Bits (&value)[P], const Bits* sum, const uint8_t* residual, const ptrdiff_t* offset, int count,
                                Vec factor, const Epilogue8& epilogue, const Rounder8& rounder) {
  const Addition8& addition = epilogue.addition;
  const Clamp8 clamp(epilogue.rounding);
  const Vec own_scale = splat(addition.scale), residual_scale = splat(addition.residual_scale);
  RSKIP_UNROLL(16) for (int i = 0; i < P; ++i) {
    const int p = std::min(i, count - 1);
    const ptrdiff_t at = offset == nullptr ? p * kLanes : std::max<ptrdiff_t>(0, offset[p]);
    const Vec own = round_even(clamp(to_float(sum[p * kStep]) * factor));
    const Vec other = to_float(add_bits(load_bytes(residual + at), -addition.residual_zero));
    value[i] = rounder.round(kFirst ? fma(other, residual_scale, own * own_scale) : fma(own, own_scale, other * residual_scale));
  }
}
// A result may lie in its residual's place: those of a block are all read before any result is stored.
template <bool kFirst, int P>
[[gnu::noinline]] void add_tile8(const Bits* sum, int blocks, const TileTarget<uint8_t>& out, const float* scale,
                                 const Epilogue8& epilogue) {
  const Rounder8 rounder = rounder_of(epilogue.addition.rounding);
  for (int n = 0; n < blocks; ++n) {
    Bits value[P];
    add_residuals<kFirst, 1>(value, sum + n * P, out.residual + n * out.residual_block, nullptr, P,
                             load(scale + n * kLanes), epilogue, rounder);
    store_values(rounder, value, out.y + n * out.y_block);
  }
}

// With a residual, the sums go through memory: what follows them then would be long in dozens of tiles. It gets a copy of them, or
// the compiler would keep them in memory in any case.
template <int P, int N>
RSKIP_INLINE void tile_store8(const Bits (&acc)[P][N], const TileTarget<uint8_t> out, const float* scale,
                              const Epilogue8& epilogue) {
  if (out.residual != nullptr) {
    Bits sums[N][P];
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) sums[n][p] = acc[p][n];
    }
    return epilogue.addition.residual_first ? add_tile8<true, P>(sums[0], N, out, scale, epilogue)
                                            : add_tile8<false, P>(sums[0], N, out, scale, epilogue);
  }
  const Rounder8 rounder = rounder_of(epilogue.rounding);
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
    const Vec factor = load(scale + n * kLanes);
    Bits value[P];
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) value[p] = rounder.round(to_float(acc[p][n]) * factor);
    store_values(rounder, value, out.y + n * out.y_block);
  }
}

}  // namespace rskip::RSKIP_ISA
