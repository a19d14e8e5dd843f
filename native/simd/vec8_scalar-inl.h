// 8-bit numbers as plain ones: the fallback, and the definition of what every other file of this name must compute.
#pragma once

#include <algorithm>
#include <cstring>

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
// The low 16 bits.
inline void store_pairs(uint8_t* p, Bits a) {
  for (int32_t lane : a.v) {
    *p++ = static_cast<uint8_t>(lane);
    *p++ = static_cast<uint8_t>(lane >> 8);
  }
}
// The low 24 bits; up to 16 more bytes may be written behind them.
inline void store_triples(uint8_t* p, Bits a) {
  for (int32_t lane : a.v) {
    std::memcpy(p, &lane, sizeof lane);
    p += 3;
  }
}
// To the nearest integer, of two equally near to the even one; |a| is below 2^22.
inline Bits round_to_bits(Vec a) {
  Bits r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = std::bit_cast<int32_t>(a.v[i] + 12582912.0f) - 0x4b400000;
  return r;
}
// The same as a float; the sign of a zero may differ.
inline Vec round_even(const Vec& a) { return to_float(round_to_bits(a)); }

// Four pixels that lie side by side, of sixteen channels each, as four vectors: lane 4 p + i of vector j is channel 4 j + i
// of pixel p.

// Factors of four channels, as load_factors() reads them.
struct PixelFactors {
  int8_t v[4][4];
};
inline PixelFactors load_pixel_factors(const int8_t* p) {
  PixelFactors r;
  std::copy_n(p, sizeof r.v, r.v[0]);
  return r;
}
inline Bits add_dot(Bits sum, const Quads& x, const PixelFactors& factor) {
  Factors all;
  for (int i = 0; i < kLanes; ++i) std::copy_n(factor.v[i % 4], 4, all.v[i]);
  return add_dot(sum, x, all);
}
// Numbers of four channels.
inline Bits load_for_pixels(const int32_t* p) {
  Bits r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = p[i % 4];
  return r;
}
inline Vec load_for_pixels(const float* p) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = p[i % 4];
  return r;
}
// Four pixels of each of four rows.
inline void interleave_pixels(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d, Quads (&quarters)[4]) {
  for (int j = 0; j < 4; ++j) {
    for (int i = 0; i < kLanes; ++i) {
      const int at = i / 4 * kLanes + 4 * j + i % 4;
      quarters[j].v[i][0] = a[at];
      quarters[j].v[i][1] = b[at];
      quarters[j].v[i][2] = c[at];
      quarters[j].v[i][3] = d[at];
    }
  }
}
// Those from the K-th on of eight pixels.
template <int K>
Quads pixels_from(const Quads& first, const Quads& second) {
  Quads r;
  for (int i = 0; i < kLanes; ++i) {
    const int from = i + 4 * K;
    std::copy_n(from < kLanes ? first.v[from] : second.v[from - kLanes], 4, r.v[i]);
  }
  return r;
}
// Every second of eight pixels, from the first or, if kOdd, the second on.
template <int kOdd>
Quads every_second(const Quads& first, const Quads& second) {
  Quads r;
  for (int i = 0; i < kLanes; ++i) {
    const int from = i / 4 * 8 + 4 * kOdd + i % 4;
    std::copy_n(from < kLanes ? first.v[from] : second.v[from - kLanes], 4, r.v[i]);
  }
  return r;
}
// Rounds values as Rounding says, and stores those of four pixels that lie side by side. round() leaves out the zero point, and
// it may leave it to what stores the numbers to raise them to the least.
struct Rounder8 {
  Vec low, high;
  int32_t zero;
  Rounder8(float least, float most, int32_t centre) : low(splat(least)), high(splat(most)), zero(centre) {}
  Bits round(Vec value) const { return round_to_bits(min(high, max(value, low))); }
  // A vector has the channels of one pixel.
  void store_rows(uint8_t* y, const Bits (&pixel)[4]) const {
    for (int p = 0; p < 4; ++p) store_bytes(y + p * kLanes, add_bits(pixel[p], zero));
  }
  // Vectors as above.
  void store_pixels(uint8_t* y, const Bits (&quarter)[4]) const {
    for (int i = 0; i < 4 * kLanes; ++i) y[i] = static_cast<uint8_t>(quarter[i % kLanes / 4].v[i / kLanes * 4 + i % 4] + zero);
  }
};
// y = table[x] of 256 numbers, n times.
inline void look_up(const uint8_t* table, const uint8_t* x, uint8_t* y, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

}  // namespace rskip::RSKIP_ISA
