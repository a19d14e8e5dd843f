// Sixteen 16-bit integers, which wrap, with AVX2.
#pragma once

namespace rskip::RSKIP_ISA {

struct Shorts {
  __m256i v;
};
RSKIP_INLINE Shorts operator+(Shorts a, Shorts b) { return {_mm256_add_epi16(a.v, b.v)}; }
RSKIP_INLINE Shorts operator-(Shorts a, Shorts b) { return {_mm256_sub_epi16(a.v, b.v)}; }
RSKIP_INLINE Shorts operator<<(Shorts a, int count) { return {_mm256_slli_epi16(a.v, count)}; }
RSKIP_INLINE Shorts load_shorts(const uint8_t* p) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
RSKIP_INLINE void store_shorts(int16_t* p, Shorts a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }

}  // namespace rskip::RSKIP_ISA
