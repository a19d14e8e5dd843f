// 8-bit numbers with AVX-512. The interface is that of vec8_scalar-inl.h.
#pragma once

#include "simd/vec_avx512-inl.h"

namespace rskip::RSKIP_ISA {

// The pixels of a tile of convolution.
inline constexpr int kTilePixels8 = RSKIP_DOT ? 14 : 12;

// Without dot products: the even and the odd bytes as 16-bit numbers, whose products and their sums by pairs are exact.
#if RSKIP_DOT
struct Factors {
  __m512i v;
};
struct Quads {
  __m512i v;
};
#else
struct Factors {
  __m512i even, odd;
};
struct Quads {
  __m512i even, odd;
};
#endif
inline constexpr bool kSignedProducts = false;

RSKIP_INLINE Factors load_factors(const int8_t* p) {
  const __m512i v = _mm512_loadu_si512(p);
#if RSKIP_DOT
  return {v};
#else
  return {_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)};
#endif
}
RSKIP_INLINE Quads quads_of(__m512i v) {
#if RSKIP_DOT
  return {v};
#else
  return {_mm512_and_si512(v, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(v, 8)};
#endif
}
RSKIP_INLINE __m512i widened(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
RSKIP_INLINE Quads interleave(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
  const __m512i low = _mm512_or_si512(widened(a), _mm512_slli_epi32(widened(b), 8));
  const __m512i high = _mm512_or_si512(_mm512_slli_epi32(widened(c), 16), _mm512_slli_epi32(widened(d), 24));
  return quads_of(_mm512_or_si512(low, high));
}
RSKIP_INLINE Bits add_dot(Bits sum, const Quads& x, const Factors& factor) {
#if RSKIP_DOT
  return {_mm512_dpbusd_epi32(sum.v, x.v, factor.v)};
#else
  const __m512i even = _mm512_madd_epi16(x.even, factor.even);
  return {_mm512_add_epi32(_mm512_add_epi32(sum.v, even), _mm512_madd_epi16(x.odd, factor.odd))};
#endif
}
RSKIP_INLINE Quads splat_quads(const uint8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, sizeof four);
  return quads_of(_mm512_set1_epi32(four));
}
template <int N>
RSKIP_INLINE void add_dots(Bits (&sum)[N], const uint8_t* x, const Factors (&factor)[N]) {
  const Quads quads = splat_quads(x);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) sum[n] = add_dot(sum[n], quads, factor[n]);
}
RSKIP_INLINE Bits add_bits(Bits a, Bits b) { return {_mm512_add_epi32(a.v, b.v)}; }
RSKIP_INLINE Bits mul_bits(Bits a, int32_t b) { return {_mm512_mullo_epi32(a.v, _mm512_set1_epi32(b))}; }
struct Sixteen {
  __m128i v;
};
RSKIP_INLINE Sixteen load_sixteen(const uint8_t* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
RSKIP_INLINE void store_sixteen(uint8_t* p, Sixteen a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a.v); }
RSKIP_INLINE Sixteen max(Sixteen a, Sixteen b) { return {_mm_max_epu8(a.v, b.v)}; }
RSKIP_INLINE Bits load_bits(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
RSKIP_INLINE void store_bits(int32_t* p, Bits a) { _mm512_storeu_si512(p, a.v); }
RSKIP_INLINE Bits load_bytes(const uint8_t* p) { return {widened(p)}; }
RSKIP_INLINE void store_bytes(uint8_t* p, Bits a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
RSKIP_INLINE Bits round_to_bits(Vec a) { return {_mm512_cvtps_epi32(a.v)}; }

}  // namespace rskip::RSKIP_ISA
