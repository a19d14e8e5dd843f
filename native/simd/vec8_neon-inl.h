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
RSKIP_INLINE Bits round_to_bits(Vec a) { RSKIP_EACH_QUARTER(Bits, vcvtnq_s32_f32(a.v[i])) }

}  // namespace rskip::RSKIP_ISA
