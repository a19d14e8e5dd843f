// Winograd's minimal filtering (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016): the
// plan and the transformed weights.
#include <algorithm>

#include "kernels/convolution/conv_rules.h"
#include "kernels/convolution/conv_winograd.h"

namespace rskip {
namespace {

// One value for each of the 16 output channels of a block.
struct Lanes {
  double v[kLanes];
};

// Applies G, the filter transform: row p is (1, p, p^2) / prod(p - q) over the other finite points q, and
// (0, 0, 1) for infinity. Points come in pairs +-p, whose rows share their even and odd parts.
void transform_filter(int m, const Lanes& g0, const Lanes& g1, const Lanes& g2, Lanes* out) {
  const auto pair = [&](double p, double scale, Lanes& plus, Lanes& minus) {
    for (int i = 0; i < kLanes; ++i) {
      const double even = scale * (g0.v[i] + p * p * g2.v[i]);
      const double odd = scale * p * g1.v[i];
      plus.v[i] = even + odd;
      minus.v[i] = even - odd;
    }
  };
  if (m == 2) {
    for (int i = 0; i < kLanes; ++i) out[0].v[i] = -g0.v[i];
    pair(1, 0.5, out[1], out[2]);
    out[3] = g2;
    return;
  }
  constexpr double a = kWinogradPointA, b = kWinogradPointB, aa = a * a, bb = b * b;
  for (int i = 0; i < kLanes; ++i) out[0].v[i] = g0.v[i] / (aa * bb);
  pair(a, 1 / (2 * aa * (aa - bb)), out[1], out[2]);
  pair(b, 1 / (2 * bb * (bb - aa)), out[3], out[4]);
  out[5] = g2;
}

constexpr ConvAlgorithm algorithm_of(int m) { return m == 2 ? ConvAlgorithm::kWinograd2 : ConvAlgorithm::kWinograd4; }

// F(4x4) does the least work, but on small maps few tiles share its weights, which are four times those of direct
// convolution.
template <int M>
bool applies(const ConvShape& s) {
  return winograd_applies(s) && s.in_channels >= kLanes && s.out_channels >= kLanes &&
         std::min(s.out_height, s.out_width) >= 2 * M;
}

// Whole tiles are read, also where the output ends inside one.
template <int M>
Halo input_halo(const ConvShape& s) {
  const WinogradPlan plan(s, algorithm_of(M));
  return {s.pad.top, s.pad.left, std::max(0, plan.tile_rows * M + 2 - s.pad.top - s.in_height),
          std::max(0, plan.tile_columns * M + 2 - s.pad.left - s.in_width)};
}

template <int M>
size_t scratch_bytes(const ConvShape& s) {
  const WinogradPlan plan(s, algorithm_of(M));
  const ptrdiff_t input = winograd_point_stride(ptrdiff_t{channel_blocks(s.in_channels)} * plan.chunk * kLanes);
  const ptrdiff_t product = winograd_point_stride(ptrdiff_t{kWinogradBlocks} * plan.chunk * kLanes);
  return static_cast<size_t>(plan.points * (input + product)) * sizeof(float);
}

// U = G g G^T for every pair of channels, computed in double.
void pack(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const int m = packed.algorithm == ConvAlgorithm::kWinograd2 ? 2 : 4;
  const int alpha = m + 2;
  const int blocks = channel_blocks(s.out_channels);
  const size_t point_size = static_cast<size_t>(s.in_channels) * kLanes;
  const size_t block_size = point_size * alpha * alpha;
  packed.weights = AlignedFloats(block_size * blocks);
  for (int b = 0; b < blocks; ++b) {
    packed.blocks.push_back({0, 0, 0, b * block_size});
    const int lanes = std::min(kLanes, s.out_channels - b * kLanes);
    for (int in = 0; in < s.in_channels; ++in) {
      Lanes g[3][3] = {};
      for (int lane = 0; lane < lanes; ++lane) {
        const float* w = weight + (static_cast<size_t>(b * kLanes + lane) * s.in_channels + in) * 9;
        for (int i = 0; i < 9; ++i) g[i / 3][i % 3].v[lane] = w[i];
      }
      Lanes columns[3][6], row[6];
      for (int j = 0; j < 3; ++j) transform_filter(m, g[0][j], g[1][j], g[2][j], columns[j]);
      float* to = packed.weights.data() + b * block_size + static_cast<size_t>(in) * kLanes;
      for (int i = 0; i < alpha; ++i) {
        transform_filter(m, columns[0][i], columns[1][i], columns[2][i], row);
        for (int j = 0; j < alpha; ++j, to += point_size) {
          for (int lane = 0; lane < kLanes; ++lane) to[lane] = static_cast<float>(row[j].v[lane]);
        }
      }
    }
  }
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

bool winograd_applies(const ConvShape& s) {
  return s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 &&
         s.dilation_w == 1 && s.groups == 1;
}

const ConvRules kWinograd2Rules = {applies<2>, input_halo<2>, scratch_bytes<2>, pack};
const ConvRules kWinograd4Rules = {applies<4>, input_halo<4>, scratch_bytes<4>, pack};

}  // namespace rskip
