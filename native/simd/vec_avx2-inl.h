// Sixteen lanes as two ymm registers. The interface is that of vec_scalar-inl.h.
#pragma once

#include <immintrin.h>

#include "kernels/types.h"
#include "simd/target.h"

namespace rskip::RSKIP_ISA {

struct Vec {
  __m256 lo, hi;
};
struct Bits {
  __m256i lo, hi;
};
struct Mask {
  __m256 lo, hi;
};

// 6 pixels x 2 registers of sums + 2 of weights + 1 broadcast = 15 of 16.
inline constexpr int kTilePixels = 6;
inline constexpr int kTileBlocks = RSKIP_TILE_BLOCKS;
inline constexpr int kGemmRows = kTilePixels, kGemmBlocks = kTileBlocks;
// Output pixels of a depthwise tile, and column blocks of a matrix-vector tile.
inline constexpr int kDepthwisePixels = 8;
inline constexpr int kGemvBlocks = 4;

template <class V = Vec>
RSKIP_INLINE V splat(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
template <class V = Vec>
RSKIP_INLINE V load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
RSKIP_INLINE __m256 widen_8(const uint16_t* p) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}
RSKIP_INLINE Vec load_bfloat16(const uint16_t* p) { return {widen_8(p), widen_8(p + 8)}; }
RSKIP_INLINE Bits load_words(const int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
}
template <int J>
RSKIP_INLINE __m256i byte_on_top_8(__m256i a) {
  if constexpr (J == 0) return _mm256_slli_epi32(a, 24);
  if constexpr (J == 3) return _mm256_and_si256(a, _mm256_set1_epi32(static_cast<int32_t>(0xff000000)));
  constexpr int kWord = (J << 24) | 0x808080, kNext = 0x04000000;
  const __m128i words = _mm_set_epi32(kWord + 3 * kNext, kWord + 2 * kNext, kWord + kNext, kWord);
  return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(words));
}
template <int J>
RSKIP_INLINE Bits byte_on_top(Bits a) {
  return {byte_on_top_8<J>(a.lo), byte_on_top_8<J>(a.hi)};
}
RSKIP_INLINE void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
// All ones in the first n of 8 lanes; n may be outside [0, 8].
RSKIP_INLINE __m256i first_of_8(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
template <class V = Vec>
RSKIP_INLINE V load_first(const float* p, int n) {
  return {_mm256_maskload_ps(p, first_of_8(n)), _mm256_maskload_ps(p + 8, first_of_8(n - 8))};
}
RSKIP_INLINE void store_first(float* p, Vec a, int n) {
  _mm256_maskstore_ps(p, first_of_8(n), a.lo);
  _mm256_maskstore_ps(p + 8, first_of_8(n - 8), a.hi);
}
RSKIP_INLINE Vec keep_first(Vec a, int n) {
  return {_mm256_and_ps(a.lo, _mm256_castsi256_ps(first_of_8(n))),
          _mm256_and_ps(a.hi, _mm256_castsi256_ps(first_of_8(n - 8)))};
}
RSKIP_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// sum[n] += *x * factor[n]. Written as the instruction that overwrites the sum: the compiler otherwise mixes the three
// forms, moves the twelve sums of a tile from register to register, and runs out of the sixteen that there are.
template <int N>
RSKIP_INLINE void add_products(Vec (&sum)[N], const float* x, const Vec (&factor)[N]) {
  const Vec a = splat(*x);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
#if defined(__GNUC__)
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(sum[n].lo) : "x"(factor[n].lo), "x"(a.lo));
    __asm__("vfmadd231ps %1, %2, %0" : "+x"(sum[n].hi) : "x"(factor[n].hi), "x"(a.hi));
#else
    sum[n] = fma(a, factor[n], sum[n]);
#endif
  }
}

// What one register holds of a vector.
using Part = __m256;
inline constexpr int kParts = 2, kPartLanes = kLanes / kParts;
RSKIP_INLINE Part load_part(const float* p) { return _mm256_loadu_ps(p); }
// For what several instructions use: the compiler would have each of them load it.
RSKIP_INLINE Part load_part_once(const float* p) {
  Part a = load_part(p);
#if defined(__GNUC__)
  __asm__("" : "+x"(a));
#endif
  return a;
}
RSKIP_INLINE Part fma_part(Part a, Part b, Part c) { return _mm256_fmadd_ps(a, b, c); }
RSKIP_INLINE Vec from_parts(const Part (&part)[kParts]) { return {part[0], part[1]}; }

RSKIP_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
RSKIP_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
RSKIP_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
RSKIP_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
RSKIP_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
RSKIP_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
RSKIP_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
RSKIP_INLINE Mask less(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
RSKIP_INLINE Mask is_nan(Vec a) {
  return {_mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q), _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q)};
}
RSKIP_INLINE Vec select(Mask mask, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, mask.lo), _mm256_blendv_ps(no.hi, yes.hi, mask.hi)};
}
RSKIP_INLINE Bits bits(Vec a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
RSKIP_INLINE Vec from_bits(Bits a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
template <int kGroup, int kLane>
RSKIP_INLINE Vec spread(Vec a) {
  if constexpr (kGroup == 4) return {_mm256_permute_ps(a.lo, kLane * 0x55), _mm256_permute_ps(a.hi, kLane * 0x55)};
  const __m256i lane = _mm256_set1_epi32(kLane);
  return {_mm256_permutevar8x32_ps(a.lo, lane), _mm256_permutevar8x32_ps(a.hi, lane)};
}
RSKIP_INLINE Vec select_by_sign(Vec x, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lo, a.lo, x.lo), _mm256_blendv_ps(b.hi, a.hi, x.hi)};
}
RSKIP_INLINE Vec to_float(Bits a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
RSKIP_INLINE Bits add_bits(Bits a, int32_t b) {
  return {_mm256_add_epi32(a.lo, _mm256_set1_epi32(b)), _mm256_add_epi32(a.hi, _mm256_set1_epi32(b))};
}
RSKIP_INLINE Bits sub_bits(Bits a, Bits b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
RSKIP_INLINE Bits and_bits(Bits a, int32_t b) {
  return {_mm256_and_si256(a.lo, _mm256_set1_epi32(b)), _mm256_and_si256(a.hi, _mm256_set1_epi32(b))};
}
RSKIP_INLINE Bits or_bits(Bits a, Bits b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
template <int K>
RSKIP_INLINE Bits shift_left(Bits a) {
  return {_mm256_slli_epi32(a.lo, K), _mm256_slli_epi32(a.hi, K)};
}
template <int K>
RSKIP_INLINE Bits shift_right(Bits a) {
  return {_mm256_srai_epi32(a.lo, K), _mm256_srai_epi32(a.hi, K)};
}
template <int kHalf>
RSKIP_INLINE Vec fold(Vec a) {
  if constexpr (kHalf == 8) return {a.hi, a.hi};
  const __m256 swapped = kHalf == 4 ? _mm256_permute2f128_ps(a.lo, a.lo, 0x01)
                                    : _mm256_permute_ps(a.lo, kHalf == 2 ? 0x4e : 0xb1);
  return {swapped, swapped};
}
// Eight rows of eight lanes.
RSKIP_INLINE void transpose_eight(__m256 (&row)[8]) {
  __m256 quad[8];
  RSKIP_UNROLL(2) for (int i = 0; i < 8; i += 4) {
    const __m256 low01 = _mm256_unpacklo_ps(row[i], row[i + 1]), high01 = _mm256_unpackhi_ps(row[i], row[i + 1]);
    const __m256 low23 = _mm256_unpacklo_ps(row[i + 2], row[i + 3]), high23 = _mm256_unpackhi_ps(row[i + 2], row[i + 3]);
    quad[i] = _mm256_shuffle_ps(low01, low23, 0x44);
    quad[i + 1] = _mm256_shuffle_ps(low01, low23, 0xee);
    quad[i + 2] = _mm256_shuffle_ps(high01, high23, 0x44);
    quad[i + 3] = _mm256_shuffle_ps(high01, high23, 0xee);
  }
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
    row[i] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
    row[i + 4] = _mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
  }
}
RSKIP_INLINE void transpose(Vec (&rows)[kLanes]) {
  __m256 part[2][2][8];
  RSKIP_UNROLL(16) for (int i = 0; i < kLanes; ++i) {
    part[i / 8][0][i % 8] = rows[i].lo;
    part[i / 8][1][i % 8] = rows[i].hi;
  }
  RSKIP_UNROLL(2) for (int i = 0; i < 2; ++i) {
    RSKIP_UNROLL(2) for (int j = 0; j < 2; ++j) transpose_eight(part[i][j]);
  }
  RSKIP_UNROLL(16) for (int i = 0; i < kLanes; ++i) rows[i] = {part[0][i / 8][i % 8], part[1][i / 8][i % 8]};
}

}  // namespace rskip::RSKIP_ISA
