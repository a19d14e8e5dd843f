// 8-bit numbers as plain ones: the fallback, and the definition of what every other file of this name must compute.
#pragma once

#include <algorithm>

#include "simd/vec_scalar-inl.h"

namespace rskip::RSKIP_ISA {

using Bits = LaneBits<kLanes>;

// The pixels of a tile of convolution.
inline constexpr int kTilePixels8 = 4;

// 8-bit numbers: four of them in each 32-bit lane, those of a lane in the order of their addresses. `Factors` are signed
// and ready to be multiplied by many `Quads`, which are unsigned.
struct Factors {
  int8_t v[kLanes][4];
};
struct Quads {
  uint8_t v[kLanes][4];
};
// Whether products take 128 less for every unsigned number: instructions that multiply signed numbers alone. Sums then
// begin with what makes up for it.
inline constexpr bool kSignedProducts = false;

inline Factors load_factors(const int8_t* p) {
  Factors r;
  for (auto& lane : r.v) {
    for (int8_t& x : lane) x = *p++;
  }
  return r;
}
// Lane c holds number c of each of four rows.
inline Quads interleave(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d) {
  Quads r;
  for (int i = 0; i < kLanes; ++i) {
    r.v[i][0] = a[i];
    r.v[i][1] = b[i];
    r.v[i][2] = c[i];
    r.v[i][3] = d[i];
  }
  return r;
}
// sum + the sum of each lane's four products. Sums wrap.
inline Bits add_dot(Bits sum, const Quads& x, const Factors& factor) {
  for (int i = 0; i < kLanes; ++i) {
    int32_t dot = 0;
    for (int j = 0; j < 4; ++j) dot += x.v[i][j] * factor.v[i][j];
    sum.v[i] = wrap(static_cast<uint32_t>(sum.v[i]) + static_cast<uint32_t>(dot));
  }
  return sum;
}
// The same for each n, with the four numbers at x in every lane, as the inner loops write it.
template <int N>
void add_dots(Bits (&sum)[N], const uint8_t* x, const Factors (&factor)[N]) {
  Quads quads;
  for (auto& lane : quads.v) std::copy_n(x, 4, lane);
  for (int n = 0; n < N; ++n) sum[n] = add_dot(sum[n], quads, factor[n]);
}
inline Bits add_bits(Bits a, Bits b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = wrap(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i]));
  return a;
}
// Products wrap.
inline Bits mul_bits(Bits a, int32_t b) {
  for (int32_t& lane : a.v) lane = wrap(static_cast<uint32_t>(lane) * static_cast<uint32_t>(b));
  return a;
}
// Sixteen numbers as they are.
struct Sixteen {
  uint8_t v[kLanes];
};
inline Sixteen load_sixteen(const uint8_t* p) {
  Sixteen r;
  std::copy_n(p, kLanes, r.v);
  return r;
}
inline void store_sixteen(uint8_t* p, const Sixteen& a) { std::copy_n(a.v, kLanes, p); }
inline Sixteen max(Sixteen a, const Sixteen& b) {
  for (int i = 0; i < kLanes; ++i) a.v[i] = std::max(a.v[i], b.v[i]);
  return a;
}
inline Bits load_bits(const int32_t* p) {
  Bits r;
  for (int32_t& lane : r.v) lane = *p++;
  return r;
}
inline void store_bits(int32_t* p, Bits a) {
  for (int32_t lane : a.v) *p++ = lane;
}
inline Bits load_bytes(const uint8_t* p) {
  Bits r;
  for (int32_t& lane : r.v) lane = *p++;
  return r;
}
// The low bytes.
inline void store_bytes(uint8_t* p, Bits a) {
  for (int32_t lane : a.v) *p++ = static_cast<uint8_t>(lane);
}
// To the nearest integer, of two equally near to the even one; |a| is below 2^22.
inline Bits round_to_bits(Vec a) {
  Bits r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = std::bit_cast<int32_t>(a.v[i] + 12582912.0f) - 0x4b400000;
  return r;
}

}  // namespace rskip::RSKIP_ISA
