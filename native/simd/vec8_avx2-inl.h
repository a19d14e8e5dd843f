// 8-bit numbers with AVX2. The interface is that of vec8_scalar-inl.h.
#pragma once

#include "simd/shorts_x86-inl.h"
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

RSKIP_INLINE Half8 half_factors(__m256i v) {
#if RSKIP_DOT
  return {v};
#else
  return {_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
#endif
}
RSKIP_INLINE __m256i load_half(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
RSKIP_INLINE Factors load_factors(const int8_t* p) { return {half_factors(load_half(p)), half_factors(load_half(p + 32))}; }
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
struct PairFactors {
  __m256i lo, hi;
};
RSKIP_INLINE PairFactors load_pair_factors(const int16_t* p) { return {load_half(p), load_half(p + 16)}; }
RSKIP_INLINE __m256i add_pair_dot(__m256i sum, __m256i pair, __m256i factor) {
#if RSKIP_DOT
  return _mm256_dpwssd_avx_epi32(sum, pair, factor);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pair, factor));
#endif
}
template <int N>
RSKIP_INLINE void add_pair_dots(Bits (&sum)[N], const int16_t* x, const PairFactors (&factor)[N]) {
  int32_t two;
  __builtin_memcpy(&two, x, sizeof two);
  const __m256i pair = _mm256_set1_epi32(two);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
    sum[n] = {add_pair_dot(sum[n].lo, pair, factor[n].lo), add_pair_dot(sum[n].hi, pair, factor[n].hi)};
  }
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
RSKIP_INLINE void store_pairs(uint8_t* p, Bits a) {
  const __m256i words = _mm256_set1_epi32(0xffff);
  const __m256i pairs = _mm256_packus_epi32(_mm256_and_si256(a.lo, words), _mm256_and_si256(a.hi, words));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(pairs, 0xd8));
}
RSKIP_INLINE void store_triples(uint8_t* p, Bits a) {
  const __m256i front = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  const __m256i words = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7);
  const auto packed = [&](__m256i half) { return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(half, front), words); };
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed(a.lo));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 24), packed(a.hi));
}
RSKIP_INLINE Bits round_to_bits(Vec a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
RSKIP_INLINE Vec round_even(Vec a) { return {_mm256_round_ps(a.lo, 8), _mm256_round_ps(a.hi, 8)}; }

using PixelFactors = Half8;
RSKIP_INLINE __m256i twice(const void* p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
RSKIP_INLINE PixelFactors load_pixel_factors(const int8_t* p) { return half_factors(twice(p)); }
RSKIP_INLINE Bits add_dot(Bits sum, const Quads& x, const PixelFactors& factor) {
  return {add_half_dot(sum.lo, x.lo, factor), add_half_dot(sum.hi, x.hi, factor)};
}
RSKIP_INLINE Bits load_for_pixels(const int32_t* p) { return {twice(p), twice(p)}; }
RSKIP_INLINE Vec load_for_pixels(const float* p) {
  const __m256 both = _mm256_castsi256_ps(twice(p));
  return {both, both};
}
template <Half8 Quads::*kHalf>
RSKIP_INLINE void interleave_two_pixels(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                                        Quads (&quarters)[4]) {
  const __m256i va = load_half(a), vb = load_half(b), vc = load_half(c), vd = load_half(d);
  const __m256i low_ab = _mm256_unpacklo_epi8(va, vb), high_ab = _mm256_unpackhi_epi8(va, vb);
  const __m256i low_cd = _mm256_unpacklo_epi8(vc, vd), high_cd = _mm256_unpackhi_epi8(vc, vd);
  quarters[0].*kHalf = half_quads(_mm256_unpacklo_epi16(low_ab, low_cd));
  quarters[1].*kHalf = half_quads(_mm256_unpackhi_epi16(low_ab, low_cd));
  quarters[2].*kHalf = half_quads(_mm256_unpacklo_epi16(high_ab, high_cd));
  quarters[3].*kHalf = half_quads(_mm256_unpackhi_epi16(high_ab, high_cd));
}
RSKIP_INLINE void interleave_pixels(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                                    Quads (&quarters)[4]) {
  interleave_two_pixels<&Quads::lo>(a, b, c, d, quarters);
  interleave_two_pixels<&Quads::hi>(a + 32, b + 32, c + 32, d + 32, quarters);
}
// One of the two pixels of each: the second of the first and the first of the second, or both first or both second ones.
template <int kWhich>
RSKIP_INLINE Half8 one_of_each(Half8 first, Half8 second) {
#if RSKIP_DOT
  return {_mm256_permute2x128_si256(first.v, second.v, kWhich)};
#else
  return {_mm256_permute2x128_si256(first.even, second.even, kWhich), _mm256_permute2x128_si256(first.odd, second.odd, kWhich)};
#endif
}
inline constexpr int kInnerOnes = 0x21, kFirstOnes = 0x20, kSecondOnes = 0x31;
template <int K>
RSKIP_INLINE Quads pixels_from(const Quads& first, const Quads& second) {
  if constexpr (K == 0) return first;
  if constexpr (K == 1) return {one_of_each<kInnerOnes>(first.lo, first.hi), one_of_each<kInnerOnes>(first.hi, second.lo)};
  if constexpr (K == 2) return {first.hi, second.lo};
  if constexpr (K == 3) return {one_of_each<kInnerOnes>(first.hi, second.lo), one_of_each<kInnerOnes>(second.lo, second.hi)};
  return second;
}
template <int kOdd>
RSKIP_INLINE Quads every_second(const Quads& first, const Quads& second) {
  constexpr int kWhich = kOdd ? kSecondOnes : kFirstOnes;
  return {one_of_each<kWhich>(first.lo, first.hi), one_of_each<kWhich>(second.lo, second.hi)};
}
// Numbers saturate as they become narrower. A NaN, or what is too small for an integer, becomes the least integer.
struct Rounder8 {
  __m256 high;
  __m256i zero, least;
  RSKIP_INLINE Rounder8(float low, float most, int32_t centre)
      : high(_mm256_set1_ps(most)),
        zero(_mm256_set1_epi16(static_cast<int16_t>(centre))),
        least(_mm256_set1_epi8(static_cast<int8_t>(static_cast<int32_t>(low) + centre))) {}
  RSKIP_INLINE Bits round(Vec value) const {
    return {_mm256_cvtps_epi32(_mm256_min_ps(high, value.lo)), _mm256_cvtps_epi32(_mm256_min_ps(high, value.hi))};
  }
  RSKIP_INLINE __m256i narrow(__m256i a, __m256i b, __m256i c, __m256i d) const {
    const __m256i low = _mm256_add_epi16(_mm256_packs_epi32(a, b), zero);
    return _mm256_max_epu8(_mm256_packus_epi16(low, _mm256_add_epi16(_mm256_packs_epi32(c, d), zero)), least);
  }
  RSKIP_INLINE void store_rows(uint8_t* y, const Bits (&pixel)[4]) const {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    RSKIP_UNROLL(2) for (int p = 0; p < 4; p += 2) {
      const __m256i two = narrow(pixel[p].lo, pixel[p].hi, pixel[p + 1].lo, pixel[p + 1].hi);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + p * kLanes), _mm256_permutevar8x32_epi32(two, order));
    }
  }
  RSKIP_INLINE void store_pixels(uint8_t* y, const Bits (&q)[4]) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), narrow(q[0].lo, q[1].lo, q[2].lo, q[3].lo));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + 32), narrow(q[0].hi, q[1].hi, q[2].hi, q[3].hi));
  }
};
inline void look_up(const uint8_t* table, const uint8_t* x, uint8_t* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace rskip::RSKIP_ISA
