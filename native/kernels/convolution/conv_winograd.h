// Winograd convolution: what its rules and its kernels share.
#pragma once

#include "kernels/matrix/pack.h"

namespace rskip {

// How a Winograd convolution F(m x m, 3x3) is cut up: tiles of m x m outputs, a few at a time. All of it
// follows from the shape.
struct WinogradPlan {
  int m = 0;
  int points = 0;  // (m + 2)^2
  int tile_rows = 0, tile_columns = 0;
  int chunk = 0;  // tiles that are transformed and multiplied together
  WinogradPlan(const ConvShape& shape, ConvAlgorithm algorithm);
  int tiles() const { return tile_rows * tile_columns; }
};
// Floats between the points of a transformed map of `floats` each: spread over the sets of the cache.
inline ptrdiff_t winograd_point_stride(ptrdiff_t floats) { return floats / kLanes % 2 == 0 ? floats + kLanes : floats; }
// Output blocks that are multiplied before their transform.
inline constexpr int kWinogradBlocks = 2;
// Interpolation points of F(4, 3) are 0, +-a, +-b and infinity. These lie closer together than the usual 1 and 2,
// which makes the result about four times as exact at no cost; their powers and products are exact in float.
// F(2, 3) has 0, +-1 and infinity.
inline constexpr float kWinogradPointA = 0.6875f, kWinogradPointB = 1.5f;

}  // namespace rskip
