// 8-bit numbers with AVX-512. The interface is that of vec8_scalar-inl.h.
#pragma once

#include "simd/shorts_x86-inl.h"
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

RSKIP_INLINE Factors factors_of(__m512i v) {
#if RSKIP_DOT
  return {v};
#else
  return {_mm512_srai_epi16(_mm512_slli_epi16(v, 8), 8), _mm512_srai_epi16(v, 8)};
#endif
}
RSKIP_INLINE Factors load_factors(const int8_t* p) { return factors_of(_mm512_loadu_si512(p)); }
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
// Two 16-bit numbers in each lane.
struct PairFactors {
  __m512i v;
};
RSKIP_INLINE PairFactors load_pair_factors(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
// sum + the sum of each lane's products with the two numbers at x, for each n.
template <int N>
RSKIP_INLINE void add_pair_dots(Bits (&sum)[N], const int16_t* x, const PairFactors (&factor)[N]) {
  int32_t two;
  __builtin_memcpy(&two, x, sizeof two);
  const __m512i pair = _mm512_set1_epi32(two);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
#if RSKIP_DOT
    sum[n] = {_mm512_dpwssd_epi32(sum[n].v, factor[n].v, pair)};
#else
    sum[n] = {_mm512_add_epi32(sum[n].v, _mm512_madd_epi16(factor[n].v, pair))};
#endif
  }
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
RSKIP_INLINE void store_pairs(uint8_t* p, Bits a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a.v));
}
RSKIP_INLINE void store_triples(uint8_t* p, Bits a) {
  const __m512i front = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  const __m512i words = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(words, _mm512_shuffle_epi8(a.v, front)));
}
RSKIP_INLINE Bits round_to_bits(Vec a) { return {_mm512_cvtps_epi32(a.v)}; }
RSKIP_INLINE Vec round_even(Vec a) { return {_mm512_roundscale_ps(a.v, 0)}; }

using PixelFactors = Factors;
RSKIP_INLINE __m512i four_times(const void* p) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}
RSKIP_INLINE PixelFactors load_pixel_factors(const int8_t* p) { return factors_of(four_times(p)); }
RSKIP_INLINE Bits load_for_pixels(const int32_t* p) { return {four_times(p)}; }
RSKIP_INLINE Vec load_for_pixels(const float* p) { return {_mm512_castsi512_ps(four_times(p))}; }
RSKIP_INLINE void interleave_pixels(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                                    Quads (&quarters)[4]) {
  const __m512i va = _mm512_loadu_si512(a), vb = _mm512_loadu_si512(b), vc = _mm512_loadu_si512(c), vd = _mm512_loadu_si512(d);
  const __m512i low_ab = _mm512_unpacklo_epi8(va, vb), high_ab = _mm512_unpackhi_epi8(va, vb);
  const __m512i low_cd = _mm512_unpacklo_epi8(vc, vd), high_cd = _mm512_unpackhi_epi8(vc, vd);
  quarters[0] = quads_of(_mm512_unpacklo_epi16(low_ab, low_cd));
  quarters[1] = quads_of(_mm512_unpackhi_epi16(low_ab, low_cd));
  quarters[2] = quads_of(_mm512_unpacklo_epi16(high_ab, high_cd));
  quarters[3] = quads_of(_mm512_unpackhi_epi16(high_ab, high_cd));
}
template <int K>
RSKIP_INLINE __m512i pixels_from(__m512i first, __m512i second) {
  if constexpr (K == 0) return first;
  if constexpr (K == 4) return second;
  return _mm512_alignr_epi64(second, first, 2 * K % 8);
}
template <int kOdd>
RSKIP_INLINE __m512i every_second(__m512i first, __m512i second) {
  return _mm512_shuffle_i64x2(first, second, kOdd ? 0xdd : 0x88);
}
template <int K>
RSKIP_INLINE Quads pixels_from(const Quads& first, const Quads& second) {
#if RSKIP_DOT
  return {pixels_from<K>(first.v, second.v)};
#else
  return {pixels_from<K>(first.even, second.even), pixels_from<K>(first.odd, second.odd)};
#endif
}
template <int kOdd>
RSKIP_INLINE Quads every_second(const Quads& first, const Quads& second) {
#if RSKIP_DOT
  return {every_second<kOdd>(first.v, second.v)};
#else
  return {every_second<kOdd>(first.even, second.even), every_second<kOdd>(first.odd, second.odd)};
#endif
}
// Numbers saturate as they become narrower. A NaN, or what is too small for an integer, becomes the least integer.
struct Rounder8 {
  __m512 high;
  __m512i zero, least;
  RSKIP_INLINE Rounder8(float low, float most, int32_t centre)
      : high(_mm512_set1_ps(most)),
        zero(_mm512_set1_epi16(static_cast<int16_t>(centre))),
        least(_mm512_set1_epi8(static_cast<int8_t>(static_cast<int32_t>(low) + centre))) {}
  RSKIP_INLINE Bits round(Vec value) const { return {_mm512_cvtps_epi32(_mm512_min_ps(high, value.v))}; }
  RSKIP_INLINE __m512i narrow(const Bits (&v)[4]) const {
    const __m512i low = _mm512_add_epi16(_mm512_packs_epi32(v[0].v, v[1].v), zero);
    const __m512i high_half = _mm512_add_epi16(_mm512_packs_epi32(v[2].v, v[3].v), zero);
    return _mm512_max_epu8(_mm512_packus_epi16(low, high_half), least);
  }
  RSKIP_INLINE void store_rows(uint8_t* y, const Bits (&pixel)[4]) const {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(y, _mm512_permutexvar_epi32(order, narrow(pixel)));
  }
  RSKIP_INLINE void store_pixels(uint8_t* y, const Bits (&quarter)[4]) const { _mm512_storeu_si512(y, narrow(quarter)); }
};
// Two of the table's numbers are a 16-bit one.
RSKIP_INLINE __m512i look_up_even(const __m512i (&table)[4], __m512i bytes) {
  const __m512i pair = _mm512_srli_epi16(bytes, 1);
  const __m512i low = _mm512_permutex2var_epi16(table[0], pair, table[1]);
  const __m512i high = _mm512_permutex2var_epi16(table[2], pair, table[3]);
  const __m512i both = _mm512_mask_blend_epi16(_mm512_test_epi16_mask(bytes, _mm512_set1_epi16(0x80)), low, high);
  const __m512i shift = _mm512_slli_epi16(_mm512_and_si512(bytes, _mm512_set1_epi16(1)), 3);
  return _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi16(0xff));
}
RSKIP_INLINE void look_up(const uint8_t* numbers, const uint8_t* x, uint8_t* y, ptrdiff_t n) {
  __m512i table[4];
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) table[i] = _mm512_loadu_si512(numbers + 64 * i);
  for (ptrdiff_t i = 0; i < n; i += 64) {
    const __mmask64 mask = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    const __m512i bytes = _mm512_maskz_loadu_epi8(mask, x + i);
    const __m512i even = look_up_even(table, _mm512_and_si512(bytes, _mm512_set1_epi16(0xff)));
    const __m512i odd = look_up_even(table, _mm512_srli_epi16(bytes, 8));
    _mm512_mask_storeu_epi8(y + i, mask, _mm512_or_si512(even, _mm512_slli_epi16(odd, 8)));
  }
}

}  // namespace rskip::RSKIP_ISA
