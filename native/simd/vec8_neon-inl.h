// 8-bit numbers with NEON. The interface is that of vec8_scalar-inl.h.
#pragma once

#include "simd/vec_neon-inl.h"

namespace rskip::RSKIP_ISA {

// The pixels of a tile of convolution.
inline constexpr int kTilePixels8 = RSKIP_DOT ? 6 : 4;

// There are only products of signed by signed numbers.
struct Factors {
  int8x16_t v[4];
};
struct Quads {
  int8x16_t v[4];
};
inline constexpr bool kSignedProducts = true;

RSKIP_INLINE Factors load_factors(const int8_t* p) { RSKIP_EACH_QUARTER(Factors, vld1q_s8(p + 16 * i)) }
// 128 less.
RSKIP_INLINE int8x16_t made_signed(uint8x16_t a) { return vreinterpretq_s8_u8(veorq_u8(a, vdupq_n_u8(0x80))); }
RSKIP_INLINE Quads interleave(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
  const uint8x16x2_t first = vzipq_u8(vld1q_u8(a), vld1q_u8(b)), second = vzipq_u8(vld1q_u8(c), vld1q_u8(d));
  Quads r;
  RSKIP_UNROLL(2) for (int i = 0; i < 2; ++i) {
    const uint16x8x2_t quads = vzipq_u16(vreinterpretq_u16_u8(first.val[i]), vreinterpretq_u16_u8(second.val[i]));
    r.v[2 * i] = made_signed(vreinterpretq_u8_u16(quads.val[0]));
    r.v[2 * i + 1] = made_signed(vreinterpretq_u8_u16(quads.val[1]));
  }
  return r;
}
RSKIP_INLINE int32x4_t add_quarter_dot(int32x4_t sum, int8x16_t x, int8x16_t factor) {
#if RSKIP_DOT
  return vdotq_s32(sum, x, factor);
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(factor)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(x, factor));
  return vaddq_s32(sum, vpaddq_s32(low, high));
#endif
}
RSKIP_INLINE Bits add_dot(Bits sum, const Quads& x, const Factors& factor) {
  RSKIP_EACH_QUARTER(Bits, add_quarter_dot(sum.v[i], x.v[i], factor.v[i]))
}
template <int N>
RSKIP_INLINE void add_dots(Bits (&sum)[N], const uint8_t* x, const Factors (&factor)[N]) {
  uint32_t four;
  __builtin_memcpy(&four, x, sizeof four);
  const int8x16_t quad = made_signed(vreinterpretq_u8_u32(vdupq_n_u32(four)));
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) sum[n] = add_dot(sum[n], {{quad, quad, quad, quad}}, factor[n]);
}
RSKIP_INLINE Bits add_bits(Bits a, Bits b) { RSKIP_EACH_QUARTER(Bits, vaddq_s32(a.v[i], b.v[i])) }
RSKIP_INLINE Bits mul_bits(Bits a, int32_t b) { RSKIP_EACH_QUARTER(Bits, vmulq_n_s32(a.v[i], b)) }
struct Sixteen {
  uint8x16_t v;
};
RSKIP_INLINE Sixteen load_sixteen(const uint8_t* p) { return {vld1q_u8(p)}; }
RSKIP_INLINE void store_sixteen(uint8_t* p, Sixteen a) { vst1q_u8(p, a.v); }
RSKIP_INLINE Sixteen max(Sixteen a, Sixteen b) { return {vmaxq_u8(a.v, b.v)}; }
RSKIP_INLINE Bits load_bits(const int32_t* p) { RSKIP_EACH_QUARTER(Bits, vld1q_s32(p + 4 * i)) }
RSKIP_INLINE void store_bits(int32_t* p, Bits a) {
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) vst1q_s32(p + 4 * i, a.v[i]);
}
RSKIP_INLINE Bits load_bytes(const uint8_t* p) {
  const uint8x16_t bytes = vld1q_u8(p);
  const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_high_u16(low)),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_high_u16(high))}};
}
RSKIP_INLINE void store_bytes(uint8_t* p, Bits a) {
  const auto words = [](int32x4_t low, int32x4_t high) {
    return vuzp1q_u16(vreinterpretq_u16_s32(low), vreinterpretq_u16_s32(high));
  };
  const uint16x8_t low = words(a.v[0], a.v[1]), high = words(a.v[2], a.v[3]);
  vst1q_u8(p, vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)));
}
RSKIP_INLINE void store_pairs(uint8_t* p, Bits a) {
  RSKIP_UNROLL(2) for (int i = 0; i < 2; ++i) {
    const uint16x8_t words = vuzp1q_u16(vreinterpretq_u16_s32(a.v[2 * i]), vreinterpretq_u16_s32(a.v[2 * i + 1]));
    vst1q_u8(p + 16 * i, vreinterpretq_u8_u16(words));
  }
}
RSKIP_INLINE void store_triples(uint8_t* p, Bits a) {
  constexpr uint8_t kFront[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 255, 255, 255, 255};
  const uint8x16_t front = vld1q_u8(kFront);
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) vst1q_u8(p + 12 * i, vqtbl1q_u8(vreinterpretq_u8_s32(a.v[i]), front));
}
RSKIP_INLINE Bits round_to_bits(Vec a) { RSKIP_EACH_QUARTER(Bits, vcvtnq_s32_f32(a.v[i])) }
RSKIP_INLINE Vec round_even(Vec a) { RSKIP_EACH_QUARTER(Vec, vrndnq_f32(a.v[i])) }

struct PixelFactors {
  int8x16_t v;
};
RSKIP_INLINE PixelFactors load_pixel_factors(const int8_t* p) { return {vld1q_s8(p)}; }
RSKIP_INLINE Bits add_dot(Bits sum, const Quads& x, const PixelFactors& factor) {
  RSKIP_EACH_QUARTER(Bits, add_quarter_dot(sum.v[i], x.v[i], factor.v))
}
RSKIP_INLINE Bits load_for_pixels(const int32_t* p) { RSKIP_EACH_QUARTER(Bits, vld1q_s32(p)) }
RSKIP_INLINE Vec load_for_pixels(const float* p) { RSKIP_EACH_QUARTER(Vec, vld1q_f32(p)) }
RSKIP_INLINE void interleave_pixels(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                                    Quads (&quarters)[4]) {
  RSKIP_UNROLL(4) for (int p = 0; p < 4; ++p) {
    const Quads pixel = interleave(a + p * kLanes, b + p * kLanes, c + p * kLanes, d + p * kLanes);
    RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) quarters[j].v[p] = pixel.v[j];
  }
}
template <int K>
RSKIP_INLINE Quads pixels_from(const Quads& first, const Quads& second) {
  RSKIP_EACH_QUARTER(Quads, i + K < 4 ? first.v[(i + K) % 4] : second.v[(i + K) % 4])
}
template <int kOdd>
RSKIP_INLINE Quads every_second(const Quads& first, const Quads& second) {
  RSKIP_EACH_QUARTER(Quads, i < 2 ? first.v[2 * i % 4 + kOdd] : second.v[2 * i % 4 + kOdd])
}
struct Rounder8 {
  Vec low, high;
  int32_t zero;
  RSKIP_INLINE Rounder8(float least, float most, int32_t centre) : low(splat(least)), high(splat(most)), zero(centre) {}
  RSKIP_INLINE Bits round(Vec value) const { return round_to_bits(min(high, max(value, low))); }
  RSKIP_INLINE void store_rows(uint8_t* y, const Bits (&pixel)[4]) const {
    RSKIP_UNROLL(4) for (int p = 0; p < 4; ++p) store_bytes(y + p * kLanes, add_bits(pixel[p], zero));
  }
  RSKIP_INLINE void store_pixels(uint8_t* y, const Bits (&q)[4]) const {
    RSKIP_UNROLL(4) for (int p = 0; p < 4; ++p) {
      store_bytes(y + p * kLanes, add_bits(Bits{{q[0].v[p], q[1].v[p], q[2].v[p], q[3].v[p]}}, zero));
    }
  }
};
// A register looks up 64 numbers; for others it leaves what is there.
RSKIP_INLINE void look_up(const uint8_t* table, const uint8_t* x, uint8_t* y, ptrdiff_t n) {
  uint8x16x4_t quarters[4];
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) quarters[i] = vld1q_u8_x4(table + 64 * i);
  for (ptrdiff_t i = 0; i < n; i += kLanes) {
    const uint8x16_t bytes = vld1q_u8(x + i);
    uint8x16_t found = vqtbl4q_u8(quarters[0], bytes);
    RSKIP_UNROLL(4) for (int j = 1; j < 4; ++j) {
      found = vqtbx4q_u8(found, quarters[j], vsubq_u8(bytes, vdupq_n_u8(static_cast<uint8_t>(64 * j))));
    }
    vst1q_u8(y + i, found);
  }
}

}  // namespace rskip::RSKIP_ISA
