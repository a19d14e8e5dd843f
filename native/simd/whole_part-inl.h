// Parts of vectors where one register holds a whole vector, or there are enough for several. Included behind such a vector
// type; vec_avx2-inl.h has real parts.
#pragma once

namespace rskip::RSKIP_ISA {

// What is worked on at a time.
using Part = Vec;
inline constexpr int kParts = 1, kPartLanes = kLanes / kParts;
RSKIP_INLINE Part load_part(const float* p) { return load(p); }
RSKIP_INLINE Part fma_part(Part a, Part b, Part c) { return fma(a, b, c); }
RSKIP_INLINE Vec from_parts(const Part (&part)[kParts]) { return part[0]; }

}  // namespace rskip::RSKIP_ISA
