// 8-bit numbers with AVX2. The interface is that of vec8_scalar-inl.h.
#pragma once

#include "simd/vec_avx2-inl.h"

namespace rskip::RSKIP_ISA {

// The pixels of a tile of convolution.
inline constexpr int kTilePixels8 = RSKIP_DOT ? 6 : 4;

// Without dot products: the even and the odd bytes as 16-bit numbers, whose products and their sums by pairs are exact.
struct Half8 {
#if RSKIP_DOT
  __m256i v;
#else
  __m256i even, odd;
#endif
};
struct Factors {
  Half8 lo, hi;
};
struct Quads {
  Half8 lo, hi;
};
inline constexpr bool kSignedProducts = false;

RSKIP_INLINE Half8 half_factors(const int8_t* p) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
#if RSKIP_DOT
  return {v};
#else
  return {_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
#endif
}
RSKIP_INLINE Factors load_factors(const int8_t* p) { return {half_factors(p), half_factors(p + 32)}; }
RSKIP_INLINE Half8 half_quads(__m256i v) {
#if RSKIP_DOT
  return {v};
#else
  return {_mm256_and_si256(v, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(v, 8)};
#endif
}
RSKIP_INLINE __m256i widened(const uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
RSKIP_INLINE Half8 half_interleave(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
  const __m256i low = _mm256_or_si256(widened(a), _mm256_slli_epi32(widened(b), 8));
  const __m256i high = _mm256_or_si256(_mm256_slli_epi32(widened(c), 16), _mm256_slli_epi32(widened(d), 24));
  return half_quads(_mm256_or_si256(low, high));
}
RSKIP_INLINE Quads interleave(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
  return {half_interleave(a, b, c, d), half_interleave(a + 8, b + 8, c + 8, d + 8)};
}
RSKIP_INLINE __m256i add_half_dot(__m256i sum, Half8 x, Half8 factor) {
#if RSKIP_DOT
  return _mm256_dpbusd_avx_epi32(sum, x.v, factor.v);
#else
  const __m256i even = _mm256_madd_epi16(x.even, factor.even);
  return _mm256_add_epi32(_mm256_add_epi32(sum, even), _mm256_madd_epi16(x.odd, factor.odd));
#endif
}
RSKIP_INLINE Bits add_dot(Bits sum, const Quads& x, const Factors& factor) {
  return {add_half_dot(sum.lo, x.lo, factor.lo), add_half_dot(sum.hi, x.hi, factor.hi)};
}
template <int N>
RSKIP_INLINE void add_dots(Bits (&sum)[N], const uint8_t* x, const Factors (&factor)[N]) {
  int32_t four;
  __builtin_memcpy(&four, x, sizeof four);
  const Half8 quads = half_quads(_mm256_set1_epi32(four));
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) sum[n] = add_dot(sum[n], {quads, quads}, factor[n]);
}
RSKIP_INLINE Bits add_bits(Bits a, Bits b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
RSKIP_INLINE Bits mul_bits(Bits a, int32_t b) {
  const __m256i factor = _mm256_set1_epi32(b);
  return {_mm256_mullo_epi32(a.lo, factor), _mm256_mullo_epi32(a.hi, factor)};
}
struct Sixteen {
  __m128i v;
};
RSKIP_INLINE Sixteen load_sixteen(const uint8_t* p) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))}; }
RSKIP_INLINE void store_sixteen(uint8_t* p, Sixteen a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), a.v); }
RSKIP_INLINE Sixteen max(Sixteen a, Sixteen b) { return {_mm_max_epu8(a.v, b.v)}; }
RSKIP_INLINE Bits load_bits(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
RSKIP_INLINE void store_bits(int32_t* p, Bits a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
}
RSKIP_INLINE Bits load_bytes(const uint8_t* p) { return {widened(p), widened(p + 8)}; }
RSKIP_INLINE void store_bytes(uint8_t* p, Bits a) {
  // The low byte of every lane to the front of its half of the register, then the halves together.
  const __m256i front = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                         -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i lo = _mm256_shuffle_epi8(a.lo, front), hi = _mm256_shuffle_epi8(a.hi, front);
  const __m128i low = _mm_or_si128(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
  const __m128i high = _mm_or_si128(_mm256_castsi256_si128(hi), _mm256_extracti128_si256(hi, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi64(low, high));
}
RSKIP_INLINE Bits round_to_bits(Vec a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }

}  // namespace rskip::RSKIP_ISA
