// Winograd's minimal filtering (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016): the
// plan and the transformed weights.
#include <algorithm>
#include <vector>

#include "kernels/pack.h"

namespace rskip {
namespace {

// Finite interpolation points of F(m, 3); infinity is the last. Those of F(4, 3) lie closer together than the
// usual 0, +-1, +-2, which makes the result about four times as exact at no cost; their powers and products are
// exact in float.
std::vector<double> finite_points(int m) {
  if (m == 2) return {0, 1, -1};
  return {0, 0.6875, -0.6875, 1.5, -1.5};
}

// Rows of G: (1, p, p^2) / prod(p - q) over the other finite points q; (0, 0, 1) for infinity.
std::vector<double> filter_matrix(int m) {
  const std::vector<double> points = finite_points(m);
  std::vector<double> g;
  for (double p : points) {
    double divisor = 1;
    for (double q : points) {
      if (q != p) divisor *= p - q;
    }
    for (double power : {1.0, p, p * p}) g.push_back(power / divisor);
  }
  for (double x : {0.0, 0.0, 1.0}) g.push_back(x);
  return g;
}

}  // namespace

WinogradPlan::WinogradPlan(const ConvShape& s, ConvAlgorithm algorithm) {
  m = algorithm == ConvAlgorithm::kWinograd2 ? 2 : 4;
  points = (m + 2) * (m + 2);
  tile_rows = (s.out_height + m - 1) / m;
  tile_columns = (s.out_width + m - 1) / m;
  // The transformed chunk should fit a second-level cache of 1 MB beside the products of two output blocks.
  const int64_t bytes_per_tile = static_cast<int64_t>(points) * s.in_channels * sizeof(float);
  const int most = static_cast<int>(std::clamp<int64_t>((600 << 10) / bytes_per_tile, 14, 64));
  const int chunks = (tiles() + most - 1) / most;
  chunk = (tiles() + chunks - 1) / chunks;
}

void pack_winograd(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const int alpha = packed.algorithm == ConvAlgorithm::kWinograd2 ? 4 : 6;
  const std::vector<double> g = filter_matrix(alpha - 2);
  const int blocks = (s.out_channels + kLanes - 1) / kLanes;
  const size_t point_size = static_cast<size_t>(s.in_channels) * kLanes;
  const size_t block_size = point_size * alpha * alpha;
  packed.weights = AlignedFloats(block_size * blocks);
  for (int b = 0; b < blocks; ++b) packed.blocks.push_back({0, 0, 0, b * block_size});
  for (int out = 0; out < s.out_channels; ++out) {
    float* to_block = packed.weights.data() + packed.blocks[out / kLanes].offset + out % kLanes;
    for (int in = 0; in < s.in_channels; ++in) {
      const float* w = weight + (static_cast<size_t>(out) * s.in_channels + in) * 9;
      double half[6][3];
      for (int i = 0; i < alpha; ++i) {
        for (int j = 0; j < 3; ++j) half[i][j] = g[3 * i] * w[j] + g[3 * i + 1] * w[3 + j] + g[3 * i + 2] * w[6 + j];
      }
      float* to = to_block + static_cast<size_t>(in) * kLanes;
      for (int i = 0; i < alpha; ++i) {
        for (int j = 0; j < alpha; ++j, to += point_size) {
          *to = static_cast<float>(half[i][0] * g[3 * j] + half[i][1] * g[3 * j + 1] + half[i][2] * g[3 * j + 2]);
        }
      }
    }
  }
}

size_t conv_scratch_bytes(const PackedConv& conv) {
  if (!is_winograd(conv.algorithm)) return 0;
  const WinogradPlan plan(conv.shape, conv.algorithm);
  const ptrdiff_t in_blocks = (conv.shape.in_channels + kLanes - 1) / kLanes;
  const ptrdiff_t input = winograd_point_stride(in_blocks * plan.chunk * kLanes);
  const ptrdiff_t product = winograd_point_stride(static_cast<ptrdiff_t>(kWinogradBlocks) * plan.chunk * kLanes);
  return static_cast<size_t>(plan.points * (input + product)) * sizeof(float);
}

}  // namespace rskip
