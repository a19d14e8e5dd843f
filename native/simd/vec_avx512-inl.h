// Sixteen lanes as one zmm register. The interface is that of vec_scalar-inl.h.
#pragma once

#include <immintrin.h>

#include "kernels/types.h"
#include "simd/target.h"

namespace rskip::RSKIP_ISA {

struct Vec {
  __m512 v;
};
struct Bits {
  __m512i v;
};
struct Mask {
  __mmask16 v;
};

// 14 pixels x 2 registers of sums + 2 of weights + up to 2 broadcasts = 32 of 32.
inline constexpr int kTilePixels = 14;
inline constexpr int kTileBlocks = RSKIP_TILE_BLOCKS;
// Of a matrix product, whose rows lie far apart: 6 rows x 4 registers of sums + 4 of weights + 1 broadcast = 29 of 32.
inline constexpr int kGemmRows = 6, kGemmBlocks = 4;
// Output pixels of a depthwise tile, and column blocks of a matrix-vector tile: more would be more streams of weights
// than the cache has ways, as they often lie whole pages apart.
inline constexpr int kDepthwisePixels = 8;
inline constexpr int kGemvBlocks = 4;

template <class V = Vec>
RSKIP_INLINE V splat(float x) {
  return {_mm512_set1_ps(x)};
}
template <class V = Vec>
RSKIP_INLINE V load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
RSKIP_INLINE Vec load_bfloat16(const uint16_t* p) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
}
RSKIP_INLINE Bits load_words(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
template <int J>
RSKIP_INLINE Bits byte_on_top(Bits a) {
  if constexpr (J == 0) return {_mm512_slli_epi32(a.v, 24)};
  if constexpr (J == 3) return {_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int32_t>(0xff000000)))};
  constexpr int kWord = (J << 24) | 0x808080, kNext = 0x04000000;
  return {_mm512_shuffle_epi8(a.v, _mm512_set4_epi32(kWord + 3 * kNext, kWord + 2 * kNext, kWord + kNext, kWord))};
}
RSKIP_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
RSKIP_INLINE __mmask16 first_of_16(int n) { return static_cast<__mmask16>((1u << n) - 1); }
template <class V = Vec>
RSKIP_INLINE V load_first(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(first_of_16(n), p)};
}
RSKIP_INLINE void store_first(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, first_of_16(n), a.v); }
RSKIP_INLINE Vec keep_first(Vec a, int n) { return {_mm512_maskz_mov_ps(first_of_16(n), a.v)}; }
RSKIP_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// sum[n] += *x * factor[n], of that pixel of a tile. Both forms are written as instructions that overwrite the sum: the compiler would
// choose a form itself, and move sums from register to register.
template <int N>
RSKIP_INLINE void add_products(Vec (&sum)[N], const float* x, const Vec (&factor)[N], int pixel = 0) {
#ifdef RSKIP_BROADCAST_FROM_MEMORY
  // Every multiplication broadcasts its operand from memory. On Zen 4, which runs 512 bits in two halves, a broadcast
  // into a register costs small networks an eighth of their time.
  constexpr bool kAlways = true, kOddPixels = true;
#else
  // One broadcast into a register serves all n: processors that begin two multiplications per cycle have no more ports for loads than
  // that. But it is one more instruction, so that every second pixel of a tile with two factors does without.
  constexpr bool kAlways = N == 1, kOddPixels = N == 2;
#endif
  if (kAlways || (kOddPixels && pixel % 2 == 1)) {
    RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
      __asm__("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum[n].v) : "m"(*x), "v"(factor[n].v));
    }
    return;
  }
  const Vec a = splat(*x);
  RSKIP_UNROLL(4) for (int n = 0; n < N; ++n) {
    __asm__("vfmadd231ps %1, %2, %0" : "+v"(sum[n].v) : "v"(factor[n].v), "v"(a.v));
  }
}

#ifdef RSKIP_BROADCAST_FROM_MEMORY
// The same where only the first eight lanes of the last factor are in use; the others of its sum become zero. Zen 4 takes half as long
// for 256 bits.
template <int N>
RSKIP_INLINE void add_half_products(Vec (&sum)[N], const float* x, const Vec (&factor)[N]) {
  RSKIP_UNROLL(4) for (int n = 0; n + 1 < N; ++n) {
    __asm__("vfmadd231ps %1%{1to16%}, %2, %0" : "+v"(sum[n].v) : "m"(*x), "v"(factor[n].v));
  }
  Vec& last = sum[N - 1];
#ifdef __clang__
  // Clang has no 256-bit names for the upper registers in assembly, but knows that the instruction clears the upper half.
  const __m256 product = _mm256_fmadd_ps(_mm256_set1_ps(*x), _mm512_castps512_ps256(factor[N - 1].v), _mm512_castps512_ps256(last.v));
  last.v = _mm512_zextps256_ps512(product);
#else
  __asm__("vfmadd231ps %1%{1to8%}, %t2, %t0" : "+v"(last.v) : "m"(*x), "v"(factor[N - 1].v));
#endif
}
#endif

// For what several instructions use: the compiler would have each of them load it.
RSKIP_INLINE Vec load_part_once(const float* p) {
  Vec a = load(p);
#if defined(__GNUC__)
  __asm__("" : "+v"(a.v));
#endif
  return a;
}

RSKIP_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
RSKIP_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
RSKIP_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
RSKIP_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
RSKIP_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
RSKIP_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
RSKIP_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
RSKIP_INLINE Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
RSKIP_INLINE Mask is_nan(Vec a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
RSKIP_INLINE Vec select(Mask mask, Vec yes, Vec no) { return {_mm512_mask_blend_ps(mask.v, no.v, yes.v)}; }
RSKIP_INLINE Bits bits(Vec a) { return {_mm512_castps_si512(a.v)}; }
RSKIP_INLINE Vec from_bits(Bits a) { return {_mm512_castsi512_ps(a.v)}; }
RSKIP_INLINE Vec select_by_sign(Vec x, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x.v)), b.v, a.v)};
}
template <int kGroup, int kLane>
RSKIP_INLINE Vec spread(Vec a) {
  if constexpr (kGroup == 4) return {_mm512_permute_ps(a.v, kLane * 0x55)};
  constexpr int kSecond = kLane + 8;
  return {_mm512_permutexvar_ps(_mm512_set_epi32(kSecond, kSecond, kSecond, kSecond, kSecond, kSecond, kSecond, kSecond, kLane, kLane, kLane,
                                                 kLane, kLane, kLane, kLane, kLane),
                                a.v)};
}
RSKIP_INLINE Vec times_power_of_two(Vec p, Vec n, Vec) { return {_mm512_scalef_ps(p.v, n.v)}; }
RSKIP_INLINE Vec times_small_power(Vec p, Vec n, Vec) { return {_mm512_scalef_ps(p.v, n.v)}; }
RSKIP_INLINE Vec to_float(Bits a) { return {_mm512_cvtepi32_ps(a.v)}; }
RSKIP_INLINE Bits add_bits(Bits a, int32_t b) { return {_mm512_add_epi32(a.v, _mm512_set1_epi32(b))}; }
RSKIP_INLINE Bits sub_bits(Bits a, Bits b) { return {_mm512_sub_epi32(a.v, b.v)}; }
RSKIP_INLINE Bits and_bits(Bits a, int32_t b) { return {_mm512_and_si512(a.v, _mm512_set1_epi32(b))}; }
RSKIP_INLINE Bits or_bits(Bits a, Bits b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int K>
RSKIP_INLINE Bits shift_left(Bits a) {
  return {_mm512_slli_epi32(a.v, K)};
}
template <int K>
RSKIP_INLINE Bits shift_right(Bits a) {
  return {_mm512_srai_epi32(a.v, K)};
}

template <int kHalf>
RSKIP_INLINE Vec fold(Vec a) {
  if constexpr (kHalf == 8) return {_mm512_shuffle_f32x4(a.v, a.v, 0x4e)};
  if constexpr (kHalf == 4) return {_mm512_shuffle_f32x4(a.v, a.v, 0xb1)};
  return {_mm512_permute_ps(a.v, kHalf == 2 ? 0x4e : 0xb1)};
}
RSKIP_INLINE void transpose(Vec (&rows)[kLanes]) {
  // Within quarters of four lanes, then the quarters.
  __m512 quad[kLanes];
  RSKIP_UNROLL(4) for (int i = 0; i < kLanes; i += 4) {
    const __m512 low01 = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    const __m512 high01 = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
    const __m512 low23 = _mm512_unpacklo_ps(rows[i + 2].v, rows[i + 3].v);
    const __m512 high23 = _mm512_unpackhi_ps(rows[i + 2].v, rows[i + 3].v);
    quad[i] = _mm512_shuffle_ps(low01, low23, 0x44);
    quad[i + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
    quad[i + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
    quad[i + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
  }
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
    const __m512 low = _mm512_shuffle_f32x4(quad[i], quad[i + 4], 0x44);
    const __m512 high = _mm512_shuffle_f32x4(quad[i], quad[i + 4], 0xee);
    const __m512 low2 = _mm512_shuffle_f32x4(quad[i + 8], quad[i + 12], 0x44);
    const __m512 high2 = _mm512_shuffle_f32x4(quad[i + 8], quad[i + 12], 0xee);
    rows[i] = {_mm512_shuffle_f32x4(low, low2, 0x88)};
    rows[i + 4] = {_mm512_shuffle_f32x4(low, low2, 0xdd)};
    rows[i + 8] = {_mm512_shuffle_f32x4(high, high2, 0x88)};
    rows[i + 12] = {_mm512_shuffle_f32x4(high, high2, 0xdd)};
  }
}

}  // namespace rskip::RSKIP_ISA

#include "simd/whole_part-inl.h"
