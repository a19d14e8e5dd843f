// Convolution of groups of four or eight channels: each channel of a group is spread to the lanes of that group, so that no product is one
// with a zero between groups. Sums are in the order of kDirect.
#pragma once

#include <utility>

#include "kernels/convolution/conv_depthwise-inl.h"

namespace rskip::RSKIP_ISA {

template <int kGroup, int... kLane>
RSKIP_INLINE Vec add_group(Vec sum, Vec x, const Vec (&weight)[kGroup], std::integer_sequence<int, kLane...>) {
  ((sum = fma(spread<kGroup, kLane>(x), weight[kLane], sum)), ...);
  return sum;
}

template <int P, int kGroup>
[[gnu::noinline]] void grouped_tile(const DepthwiseTile& t) {
  Vec acc[P][1];
  tile_bias(acc, t.bias);
  const ptrdiff_t between = static_cast<ptrdiff_t>(t.kernel_h) * t.kernel_w * kLanes;  // weights of a group's channels
  const float* w = t.w;
  for (int kh = 0; kh < t.kernel_h; ++kh) {
    const float* x = t.x + kh * t.x_row;
    for (int kw = 0; kw < t.kernel_w; ++kw, x += t.x_column, w += kLanes) {
      Vec weight[kGroup];
      RSKIP_UNROLL(8) for (int j = 0; j < kGroup; ++j) weight[j] = load(w + j * between);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
        acc[p][0] = add_group(acc[p][0], load(x + p * t.pixel), weight, std::make_integer_sequence<int, kGroup>());
      }
    }
  }
  tile_store(acc, t.out, *t.epilogue);
}

// As many sums as keep the multipliers busy: more would only make the addon larger.
inline constexpr int kGroupedPixels = kTilePixels >= 8 ? 4 : kTilePixels / 2;

template <int kGroup, int... P>
constexpr DepthwiseRow grouped_row(std::integer_sequence<int, P...>) {
  return {{grouped_tile<P + 1, kGroup>...}};
}
template <int kGroup>
inline constexpr DepthwiseRow kGroupedTiles = grouped_row<kGroup>(std::make_integer_sequence<int, kGroupedPixels>());

inline void conv_grouped(const ConvArgs& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  conv_by_blocks(args, s.in_channels / s.groups == 4 ? kGroupedTiles<4>.fn : kGroupedTiles<8>.fn, kGroupedPixels, part, parts);
}

}  // namespace rskip::RSKIP_ISA
