// Pairs of bfloat16 beside vec_avx2-inl.h, as two multiply-adds each. The interface is that of pairs_scalar-inl.h.
#pragma once

#include "kernels/bfloat16/pack16.h"

namespace rskip::RSKIP_ISA {

struct Pair {
  float bits;
};
struct Pairs {
  __m256 lo, hi;
};
RSKIP_INLINE Pairs load_weights(const Pair* w) {
  return {_mm256_loadu_ps(&w->bits), _mm256_loadu_ps(&w->bits + 8)};
}

RSKIP_INLINE __m256 first_of_pairs(__m256 pairs) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}
RSKIP_INLINE __m256 second_of_pairs(__m256 pairs) {
  return _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000))));
}
template <int N>
RSKIP_INLINE void add_products(Vec (&sum)[N], const float* x, const Pairs (&factor)[N]) {
  const __m256 pair = _mm256_set1_ps(*x);
  const __m256 first = first_of_pairs(pair), second = second_of_pairs(pair);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
    sum[n].lo = _mm256_fmadd_ps(second, second_of_pairs(factor[n].lo), sum[n].lo);
    sum[n].hi = _mm256_fmadd_ps(second, second_of_pairs(factor[n].hi), sum[n].hi);
  }
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
    sum[n].lo = _mm256_fmadd_ps(first, first_of_pairs(factor[n].lo), sum[n].lo);
    sum[n].hi = _mm256_fmadd_ps(first, first_of_pairs(factor[n].hi), sum[n].hi);
  }
}

template <int N>
RSKIP_INLINE void add_products_apart(Vec (&first)[N], Vec (&second)[N], const float* x, const Pairs (&factor)[N]) {
  const __m256 pair = _mm256_set1_ps(*x);
  const __m256 a = first_of_pairs(pair), b = second_of_pairs(pair);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
    first[n].lo = _mm256_fmadd_ps(a, first_of_pairs(factor[n].lo), first[n].lo);
    first[n].hi = _mm256_fmadd_ps(a, first_of_pairs(factor[n].hi), first[n].hi);
    second[n].lo = _mm256_fmadd_ps(b, second_of_pairs(factor[n].lo), second[n].lo);
    second[n].hi = _mm256_fmadd_ps(b, second_of_pairs(factor[n].hi), second[n].hi);
  }
}
// Between begin_sums() and end_sums().
RSKIP_INLINE Vec add_flushed(Vec a, Vec b) { return a + b; }

// Eight numbers as bfloat16, in the upper halves. As round_to_bfloat16().
RSKIP_INLINE __m256i round_eight(__m256 x) {
  const __m256i u = _mm256_castps_si256(x), magnitude = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  const __m256i is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), magnitude);
  const __m256i nan = _mm256_or_si256(u, _mm256_set1_epi32(0x00400000));
  const __m256i zero = _mm256_and_si256(u, _mm256_set1_epi32(static_cast<int>(0x80000000)));
  return _mm256_blendv_epi8(_mm256_blendv_epi8(rounded, nan, is_nan), zero, is_tiny);
}
// Lanes 8..15 of the numbers a and b: their pairs.
RSKIP_INLINE __m256 pairs_of_sixteen(__m256 a, __m256 b) {
  // Packs within halves of 128 bits: the quarters are put in order behind it.
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(round_eight(a), 16), _mm256_srli_epi32(round_eight(b), 16));
  return _mm256_castsi256_ps(_mm256_permute4x64_epi64(packed, 0xd8));
}
RSKIP_INLINE Vec to_pairs(Vec first, Vec second) {
  return {pairs_of_sixteen(first.lo, first.hi), pairs_of_sixteen(second.lo, second.hi)};
}

// Denormal operands and results are zeros between these two. The compiler must not move sums across them.
template <int P, int N>
RSKIP_INLINE void hold(Vec (&sum)[P][N]) {
#if defined(__GNUC__)
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) __asm__ volatile("" : "+x"(sum[p][n].lo), "+x"(sum[p][n].hi) : : "memory");
  }
#endif
}
template <int P, int N>
RSKIP_INLINE uint32_t begin_sums(Vec (&sum)[P][N]) {
  constexpr uint32_t kFlush = 0x8040;  // FTZ and DAZ
  const uint32_t mode = _mm_getcsr();
  _mm_setcsr(mode | kFlush);
  hold(sum);
  return mode;
}
template <int P, int N>
RSKIP_INLINE void end_sums(Vec (&sum)[P][N], uint32_t mode) {
  hold(sum);
  _mm_setcsr(mode);
  hold(sum);
}

}  // namespace rskip::RSKIP_ISA
