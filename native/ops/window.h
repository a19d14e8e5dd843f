// Spatial geometry of convolutions and pools, with 1 to 3 axes written as 3 (depth, height, width).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "ops/ops.h"

namespace rskip::ops {

// b > 0.
inline int64_t ceil_div(int64_t a, int64_t b) { return a > 0 ? (a + b - 1) / b : -((-a) / b); }

struct Range {
  int64_t first, last;  // one past the last
};

struct Axis {
  int64_t input = 1, output = 1, kernel = 1, stride = 1, dilation = 1, pad_begin = 0, pad_end = 0;

  int64_t start(int64_t at) const { return at * stride - pad_begin; }
  // Taps of the window at output position `at` that are inside [0, length).
  Range taps(int64_t at, int64_t length) const {
    const int64_t first = start(at) < 0 ? ceil_div(-start(at), dilation) : 0;
    return {first, std::min(kernel, ceil_div(length - start(at), dilation))};
  }
  Range taps_inside(int64_t at) const { return taps(at, input); }
  // Output positions for which tap `k` is inside the input.
  Range positions_inside(int64_t k) const {
    const int64_t shift = k * dilation - pad_begin;
    return {shift < 0 ? ceil_div(-shift, stride) : 0, std::min(output, ceil_div(input - shift, stride))};
  }
  // Cells that the window at `at` counts: those inside the input, or inside the padded input.
  int64_t cells(int64_t at, bool padded) const {
    const Range r = padded ? Range{0, taps(at, input + pad_end).last} : taps_inside(at);
    return std::max<int64_t>(0, r.last - r.first);
  }
};

using Geometry = std::array<Axis, 3>;

// Shapes are (N, C, spatial...); `kernel` has spatial axes only.
inline Geometry geometry(const Ints& x, const Ints& y, const Ints& kernel, const Window& win) {
  Geometry g;
  const size_t axes = kernel.size();
  for (size_t i = 0; i < axes; ++i) {
    g[3 - axes + i] = {x[2 + i],         y[2 + i],    kernel[i],          win.strides[i],
                       win.dilations[i], win.pads[i], win.pads[axes + i]};
  }
  return g;
}

}  // namespace rskip::ops
