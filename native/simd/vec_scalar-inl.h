// Lanes as plain floats: the fallback, and the definition of what every other vector type must compute.
//
// All vector types share this interface. max(a, b) is a > b ? a : b and min(a, b) is a < b ? a : b, so a NaN
// in b is returned and a NaN in a is not. Loads and stores need no alignment. Bits is the same lanes as
// 32-bit integers, with wrapping arithmetic.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>

#include "kernels/types.h"
#include "simd/target.h"

namespace rskip::RSKIP_ISA {

template <int N>
struct Lanes {
  float v[N];
};
template <int N>
struct LaneBits {
  int32_t v[N];
};
template <int N>
struct LaneMask {
  bool v[N];
};

using Vec = Lanes<kLanes>;
// The largest register tile of a convolution: pixels x blocks of 16 output channels.
inline constexpr int kTilePixels = 4;
inline constexpr int kTileBlocks = RSKIP_TILE_BLOCKS;
inline constexpr int kGemmRows = kTilePixels, kGemmBlocks = kTileBlocks;
// Output pixels of a depthwise tile, and column blocks of a matrix-vector tile.
inline constexpr int kDepthwisePixels = 4;
inline constexpr int kGemvBlocks = 4;

#define RSKIP_EACH_LANE(R, expression)  \
  R r;                                  \
  for (int i = 0; i < N; ++i) {         \
    r.v[i] = (expression);              \
  }                                     \
  return r;

template <class V = Vec>
V splat(float x) {
  V r;
  for (float& lane : r.v) lane = x;
  return r;
}
template <class V = Vec>
V load(const float* p) {
  V r;
  for (float& lane : r.v) lane = *p++;
  return r;
}
inline Vec load_bfloat16(const uint16_t* p) {
  Vec r;
  for (float& lane : r.v) lane = std::bit_cast<float>(static_cast<uint32_t>(*p++) << 16);
  return r;
}
inline LaneBits<kLanes> load_words(const int32_t* p) {
  LaneBits<kLanes> r;
  for (int32_t& lane : r.v) lane = *p++;
  return r;
}
// Byte J of every word, the lowest is 0, as the highest byte of a word that has zeros below it.
template <int J>
LaneBits<kLanes> byte_on_top(LaneBits<kLanes> a) {
  for (int32_t& lane : a.v) lane = static_cast<int32_t>(static_cast<uint32_t>(lane) << (24 - 8 * J) & 0xff000000);
  return a;
}
template <int N>
void store(float* p, Lanes<N> a) {
  for (float lane : a.v) *p++ = lane;
}
template <class V = Vec>
V load_first(const float* p, int n) {
  V r = splat<V>(0);
  for (int i = 0; i < n; ++i) r.v[i] = p[i];
  return r;
}
template <int N>
void store_first(float* p, Lanes<N> a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
template <int N>
Lanes<N> keep_first(Lanes<N> a, int n) {
  RSKIP_EACH_LANE(Lanes<N>, i < n ? a.v[i] : 0.0f)
}
template <int N>
Lanes<N> fma(Lanes<N> a, Lanes<N> b, Lanes<N> c) {
  RSKIP_EACH_LANE(Lanes<N>, std::fma(a.v[i], b.v[i], c.v[i]))
}
// sum[n] = fma(*x, factor[n], sum[n]), as the inner loops write it.
template <int N>
void add_products(Vec (&sum)[N], const float* x, const Vec (&factor)[N]) {
  for (int n = 0; n < N; ++n) sum[n] = fma(splat(*x), factor[n], sum[n]);
}
RSKIP_INLINE Vec load_part_once(const float* p) { return load(p); }

template <int N>
Lanes<N> operator+(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i] + b.v[i])
}
template <int N>
Lanes<N> operator-(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i] - b.v[i])
}
template <int N>
Lanes<N> operator*(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i] * b.v[i])
}
template <int N>
Lanes<N> operator/(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i] / b.v[i])
}
template <int N>
Lanes<N> sqrt(Lanes<N> a) {
  RSKIP_EACH_LANE(Lanes<N>, std::sqrt(a.v[i]))
}
// To each lane, lane kLane of the kGroup lanes that it is among.
template <int kGroup, int kLane, int N>
Lanes<N> spread(Lanes<N> a) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i / kGroup * kGroup + kLane])
}
template <int N>
Lanes<N> max(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
}
template <int N>
Lanes<N> min(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
}
template <int N>
LaneMask<N> less(Lanes<N> a, Lanes<N> b) {
  RSKIP_EACH_LANE(LaneMask<N>, a.v[i] < b.v[i])
}
template <int N>
LaneMask<N> is_nan(Lanes<N> a) {
  RSKIP_EACH_LANE(LaneMask<N>, a.v[i] != a.v[i])
}
template <int N>
Lanes<N> select(LaneMask<N> mask, Lanes<N> yes, Lanes<N> no) {
  RSKIP_EACH_LANE(Lanes<N>, mask.v[i] ? yes.v[i] : no.v[i])
}
template <int N>
LaneBits<N> bits(Lanes<N> a) {
  RSKIP_EACH_LANE(LaneBits<N>, std::bit_cast<int32_t>(a.v[i]))
}
template <int N>
Lanes<N> from_bits(LaneBits<N> a) {
  RSKIP_EACH_LANE(Lanes<N>, std::bit_cast<float>(a.v[i]))
}
// Exact for |a| < 2^24.
template <int N>
Lanes<N> to_float(LaneBits<N> a) {
  RSKIP_EACH_LANE(Lanes<N>, static_cast<float>(a.v[i]))
}
inline int32_t wrap(uint32_t x) { return std::bit_cast<int32_t>(x); }
template <int N>
LaneBits<N> add_bits(LaneBits<N> a, int32_t b) {
  RSKIP_EACH_LANE(LaneBits<N>, wrap(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b)))
}
template <int N>
LaneBits<N> sub_bits(LaneBits<N> a, LaneBits<N> b) {
  RSKIP_EACH_LANE(LaneBits<N>, wrap(static_cast<uint32_t>(a.v[i]) - static_cast<uint32_t>(b.v[i])))
}
template <int N>
LaneBits<N> and_bits(LaneBits<N> a, int32_t b) {
  RSKIP_EACH_LANE(LaneBits<N>, a.v[i] & b)
}
template <int N>
LaneBits<N> or_bits(LaneBits<N> a, LaneBits<N> b) {
  RSKIP_EACH_LANE(LaneBits<N>, a.v[i] | b.v[i])
}
template <int K, int N>
LaneBits<N> shift_left(LaneBits<N> a) {
  RSKIP_EACH_LANE(LaneBits<N>, wrap(static_cast<uint32_t>(a.v[i]) << K))
}
// Arithmetic: the sign is kept.
template <int K, int N>
LaneBits<N> shift_right(LaneBits<N> a) {
  RSKIP_EACH_LANE(LaneBits<N>, a.v[i] >> K)
}
// Lane i is that of i + kHalf for i < kHalf; the others hold anything.
template <int kHalf, int N>
Lanes<N> fold(Lanes<N> a) {
  RSKIP_EACH_LANE(Lanes<N>, a.v[i < kHalf ? i + kHalf : i])
}
// rows[i] holds lane i of each row.
inline void transpose(Vec (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) std::swap(rows[i].v[j], rows[j].v[i]);
  }
}
#undef RSKIP_EACH_LANE

}  // namespace rskip::RSKIP_ISA

#include "simd/whole_part-inl.h"
