// Images to planes of floats, with integers alone until the last step.
#pragma once

#include <algorithm>

#include "kernels/int8/tile8-inl.h"

namespace rskip::RSKIP_ISA {

// 16 rows of 16 bytes, as columns.
[[gnu::noinline]] inline void transpose_bytes(const uint8_t* const (&row)[kLanes], uint8_t* y, ptrdiff_t stride, int rows) {
  Vec v[kLanes];
  RSKIP_UNROLL(16) for (int i = 0; i < kLanes; ++i) v[i] = from_bits(load_bytes(row[i]));
  transpose(v);
  for (int i = 0; i < rows; ++i) store_bytes(y + i * stride, bits(v[i]));
}

// The value of each lane: products of bytes, the j-th `stride` bytes behind x, and of factors.
RSKIP_INLINE Bits weigh_bytes(const uint8_t* x, ptrdiff_t stride, const int32_t* factors, int each) {
  Bits sum = add_bits(bits(splat(0.0f)), 1 << (kDrawBits - 1));
  for (int j = 0; j < each; ++j) sum = add_bits(sum, mul_bits(load_bytes(x + j * stride), factors[j]));
  return round_to_bits(min(splat(255.0f), max(splat(0.0f), to_float(shift_right<kDrawBits>(sum)))));
}

// Resizes up to 16 rows of the image, from `first` of those that are needed on. They go to `narrow`, [channels, rows, width].
inline void draw_columns(const DrawArgs8& a, int first, uint8_t* narrow) {
  const DrawAxis8& columns = a.columns;
  const int rows = std::min(kLanes, a.rows.length() - first);
  const int64_t bytes = int64_t{columns.length()} * a.channels, width = a.narrow_width();
  const uint8_t* row[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const int64_t y = a.rows.begin() + first + std::min(i, rows - 1);
    row[i] = a.pixels + (y * a.width + columns.begin()) * a.channels;
  }
  uint8_t* const before = a.scratch;
  uint8_t* const after = before + a.row_bytes() * kLanes;
  int64_t at = 0;
  for (; at + kLanes <= bytes; at += kLanes) {
    const uint8_t* part[kLanes];
    for (int i = 0; i < kLanes; ++i) part[i] = row[i] + at;
    transpose_bytes(part, before + at * kLanes, kLanes, kLanes);
  }
  if (at < bytes) {
    // Nothing lies behind the last row.
    uint8_t ends[kLanes][kLanes] = {};
    const uint8_t* part[kLanes];
    for (int i = 0; i < kLanes; ++i) part[i] = std::copy(row[i] + at, row[i] + bytes, ends[i]) - (bytes - at);
    transpose_bytes(part, before + at * kLanes, kLanes, kLanes);
  }
  const ptrdiff_t pixel = static_cast<ptrdiff_t>(a.channels) * kLanes;
  for (int c = 0; c < a.channels; ++c) {
    for (int x = 0; x < columns.count; ++x) {
      const uint8_t* from = before + (columns.firsts[x] - columns.begin()) * pixel + c * kLanes;
      store_bytes(after + static_cast<ptrdiff_t>(x) * kLanes,
                  weigh_bytes(from, pixel, columns.factors + static_cast<ptrdiff_t>(x) * columns.each, columns.each));
    }
    uint8_t* const to = narrow + (static_cast<int64_t>(c) * a.rows.length() + first) * width;
    for (int64_t x = 0; x < width; x += kLanes) {
      const uint8_t* part[kLanes];
      for (int i = 0; i < kLanes; ++i) part[i] = after + (x + i) * kLanes;
      transpose_bytes(part, to + x, width, rows);
    }
  }
}

inline void draw8(const DrawArgs8& a) {
  const int64_t width = a.narrow_width();
  uint8_t* const narrow = a.scratch + (a.row_bytes() + width) * kLanes;
  // Lanes behind the last column are computed, and never used.
  std::fill_n(a.scratch, (a.row_bytes() + width) * kLanes, uint8_t{0});
  for (int first = 0; first < a.rows.length(); first += kLanes) draw_columns(a, first, narrow);
  for (int p = 0; p < a.planes; ++p) {
    const float* const table = a.tables + p * 256;
    const uint8_t* const channel = narrow + static_cast<int64_t>(a.sources[p]) * a.rows.length() * width;
    for (int y = 0; y < a.rows.count; ++y) {
      const uint8_t* const from = channel + (a.rows.firsts[y] - a.rows.begin()) * width;
      const int32_t* const factors = a.rows.factors + static_cast<ptrdiff_t>(y) * a.rows.each;
      float* to = a.output + (static_cast<int64_t>(p) * a.plane_height + a.top + y) * a.plane_width + a.left;
      int32_t value[kLanes];
      int x = 0;
      for (; x + kLanes <= a.columns.count; x += kLanes, to += kLanes) {
        store_bits(value, weigh_bytes(from + x, width, factors, a.rows.each));
        RSKIP_UNROLL(16) for (int i = 0; i < kLanes; ++i) to[i] = table[value[i]];
      }
      if (x == a.columns.count) continue;
      store_bits(value, weigh_bytes(from + x, width, factors, a.rows.each));
      for (int i = 0; x + i < a.columns.count; ++i) to[i] = table[value[i]];
    }
  }
}

}  // namespace rskip::RSKIP_ISA
