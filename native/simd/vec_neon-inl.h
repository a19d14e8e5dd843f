// Sixteen lanes as four q registers. The interface is that of vec_scalar-inl.h; max and min are written as
// comparisons because the FMAX instruction treats NaN and signed zeros differently.
#pragma once

#include <arm_neon.h>

#include "kernels/types.h"
#include "simd/target.h"

namespace rskip::RSKIP_ISA {

struct Vec {
  float32x4_t v[4];
};
struct Bits {
  int32x4_t v[4];
};
struct Mask {
  uint32x4_t v[4];
};

// 6 pixels x 4 registers of sums + 4 of weights + 1 broadcast = 29 of 32.
inline constexpr int kTilePixels = 6;
inline constexpr int kTileBlocks = RSKIP_TILE_BLOCKS;
inline constexpr int kGemmRows = kTilePixels, kGemmBlocks = kTileBlocks;
// Output pixels of a depthwise tile, and column blocks of a matrix-vector tile.
inline constexpr int kDepthwisePixels = 4;
inline constexpr int kGemvBlocks = 4;

#define RSKIP_EACH_QUARTER(R, expression)               \
  R r;                                                  \
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {         \
    r.v[i] = (expression);                              \
  }                                                     \
  return r;

template <class V = Vec>
RSKIP_INLINE V splat(float x) {
  RSKIP_EACH_QUARTER(V, vdupq_n_f32(x))
}
template <class V = Vec>
RSKIP_INLINE V load(const float* p) {
  RSKIP_EACH_QUARTER(V, vld1q_f32(p + 4 * i))
}
RSKIP_INLINE Vec load_bfloat16(const uint16_t* p) {
  RSKIP_EACH_QUARTER(Vec, vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p + 4 * i)), 16)))
}
RSKIP_INLINE Bits load_words(const int32_t* p) { RSKIP_EACH_QUARTER(Bits, vld1q_s32(p + 4 * i)) }
template <int J>
RSKIP_INLINE Bits byte_on_top(Bits a) {
  const int32x4_t top = vdupq_n_s32(static_cast<int32_t>(0xff000000));
  RSKIP_EACH_QUARTER(Bits, vandq_s32(vshlq_n_s32(a.v[i], 24 - 8 * J), top))
}
RSKIP_INLINE void store(float* p, Vec a) {
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.v[i]);
}
template <class V = Vec>
RSKIP_INLINE V load_first(const float* p, int n) {
  float lanes[kLanes] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return load<V>(lanes);
}
RSKIP_INLINE void store_first(float* p, Vec a, int n) {
  float lanes[kLanes];
  store(lanes, a);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
RSKIP_INLINE Vec keep_first(Vec a, int n) {
  float lanes[kLanes];
  store(lanes, a);
  return load_first(lanes, n);
}
RSKIP_INLINE Vec fma(Vec a, Vec b, Vec c) { RSKIP_EACH_QUARTER(Vec, vfmaq_f32(c.v[i], a.v[i], b.v[i])) }
template <int N>
RSKIP_INLINE void add_products(Vec (&sum)[N], const float* x, const Vec (&factor)[N]) {
  const Vec a = splat(*x);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) sum[n] = fma(a, factor[n], sum[n]);
}
RSKIP_INLINE Vec load_part_once(const float* p) { return load(p); }

RSKIP_INLINE Vec operator+(Vec a, Vec b) { RSKIP_EACH_QUARTER(Vec, vaddq_f32(a.v[i], b.v[i])) }
RSKIP_INLINE Vec operator-(Vec a, Vec b) { RSKIP_EACH_QUARTER(Vec, vsubq_f32(a.v[i], b.v[i])) }
RSKIP_INLINE Vec operator*(Vec a, Vec b) { RSKIP_EACH_QUARTER(Vec, vmulq_f32(a.v[i], b.v[i])) }
RSKIP_INLINE Vec operator/(Vec a, Vec b) { RSKIP_EACH_QUARTER(Vec, vdivq_f32(a.v[i], b.v[i])) }
RSKIP_INLINE Vec sqrt(Vec a) { RSKIP_EACH_QUARTER(Vec, vsqrtq_f32(a.v[i])) }
template <int kGroup, int kLane>
RSKIP_INLINE Vec spread(Vec a) {
  constexpr int kEach = kGroup / 4;
  RSKIP_EACH_QUARTER(Vec, vdupq_laneq_f32(a.v[i / kEach * kEach + kLane / 4], kLane % 4))
}
RSKIP_INLINE Vec max(Vec a, Vec b) {
  RSKIP_EACH_QUARTER(Vec, vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]))
}
RSKIP_INLINE Vec min(Vec a, Vec b) {
  RSKIP_EACH_QUARTER(Vec, vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]))
}
RSKIP_INLINE Mask less(Vec a, Vec b) { RSKIP_EACH_QUARTER(Mask, vcltq_f32(a.v[i], b.v[i])) }
RSKIP_INLINE Mask is_nan(Vec a) { RSKIP_EACH_QUARTER(Mask, vmvnq_u32(vceqq_f32(a.v[i], a.v[i]))) }
RSKIP_INLINE Vec select(Mask mask, Vec yes, Vec no) {
  RSKIP_EACH_QUARTER(Vec, vbslq_f32(mask.v[i], yes.v[i], no.v[i]))
}
RSKIP_INLINE Bits bits(Vec a) { RSKIP_EACH_QUARTER(Bits, vreinterpretq_s32_f32(a.v[i])) }
RSKIP_INLINE Vec from_bits(Bits a) { RSKIP_EACH_QUARTER(Vec, vreinterpretq_f32_s32(a.v[i])) }
RSKIP_INLINE Vec to_float(Bits a) { RSKIP_EACH_QUARTER(Vec, vcvtq_f32_s32(a.v[i])) }
RSKIP_INLINE Bits add_bits(Bits a, int32_t b) { RSKIP_EACH_QUARTER(Bits, vaddq_s32(a.v[i], vdupq_n_s32(b))) }
RSKIP_INLINE Bits sub_bits(Bits a, Bits b) { RSKIP_EACH_QUARTER(Bits, vsubq_s32(a.v[i], b.v[i])) }
RSKIP_INLINE Bits and_bits(Bits a, int32_t b) { RSKIP_EACH_QUARTER(Bits, vandq_s32(a.v[i], vdupq_n_s32(b))) }
RSKIP_INLINE Bits or_bits(Bits a, Bits b) { RSKIP_EACH_QUARTER(Bits, vorrq_s32(a.v[i], b.v[i])) }
template <int K>
RSKIP_INLINE Bits shift_left(Bits a) {
  RSKIP_EACH_QUARTER(Bits, vshlq_n_s32(a.v[i], K))
}
template <int K>
RSKIP_INLINE Bits shift_right(Bits a) {
  RSKIP_EACH_QUARTER(Bits, vshrq_n_s32(a.v[i], K))
}

template <int kHalf>
RSKIP_INLINE Vec fold(Vec a) {
  if constexpr (kHalf == 8) return {{a.v[2], a.v[3], a.v[2], a.v[3]}};
  if constexpr (kHalf == 4) return {{a.v[1], a.v[1], a.v[1], a.v[1]}};
  const float32x4_t swapped = kHalf == 2 ? vextq_f32(a.v[0], a.v[0], 2) : vrev64q_f32(a.v[0]);
  return {{swapped, swapped, swapped, swapped}};
}
RSKIP_INLINE void transpose(Vec (&rows)[kLanes]) {
  Vec out[kLanes];
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
    RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) {
      const float32x4x2_t low = vzipq_f32(rows[4 * i].v[j], rows[4 * i + 2].v[j]);
      const float32x4x2_t high = vzipq_f32(rows[4 * i + 1].v[j], rows[4 * i + 3].v[j]);
      const float32x4x2_t first = vzipq_f32(low.val[0], high.val[0]), second = vzipq_f32(low.val[1], high.val[1]);
      out[4 * j].v[i] = first.val[0];
      out[4 * j + 1].v[i] = first.val[1];
      out[4 * j + 2].v[i] = second.val[0];
      out[4 * j + 3].v[i] = second.val[1];
    }
  }
  RSKIP_UNROLL(16) for (int i = 0; i < kLanes; ++i) rows[i] = out[i];
}

}  // namespace rskip::RSKIP_ISA

#include "simd/whole_part-inl.h"
