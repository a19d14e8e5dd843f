// Tiles of products of bfloat16 whose sums take one pair after the other, as VDPBF16PS does.
#pragma once

#include "kernels/bfloat16/kernels16-inl.h"

namespace rskip::RSKIP_ISA {

// A stride that is known at compile time is that of 1x1 convolutions and matrix products, and only where they are fast.
using Strides16 = std::conditional_t<(kTileBlocks > 1), Strides<kLanes>, Strides<>>;

template <int P, int N>
[[gnu::noinline]] void conv_tile16(const ConvTile& t) {
  Vec acc[P][N];
  tile_bias(acc, t.bias);
  const uint32_t mode = begin_sums(acc);
  Strides16::each<P>(t.stride, [&](auto stride) __attribute__((always_inline)) {
    tile_sum<P, N, stride()>(acc, t.x, t.stride, reinterpret_cast<const Pair*>(t.w), t.w_block, *t.walk,
                             FetchOwn{t.ahead});
  });
  end_sums(acc, mode);
  tile_store(acc, t.out, *t.epilogue);
}

template <int N, int... P>
constexpr ConvTileRow conv_tile_row16(std::integer_sequence<int, P...>) {
  return {{conv_tile16<P + 1, N>...}};
}
inline constexpr int kTilePixels16 = Strides16::pixels(kLanes, kTilePixels);
inline constexpr ConvTileRow kConvTiles16[] = {
    conv_tile_row16<1>(std::make_integer_sequence<int, kTilePixels16>()),
#if RSKIP_TILE_BLOCKS >= 2
    conv_tile_row16<2>(std::make_integer_sequence<int, kTilePixels16>()),
#endif
};

struct Tiles16 : RegisterTiles16<Tiles16> {
  static constexpr Precision kPrecision = Precision::kBfloat16;
  static constexpr int pixels(ptrdiff_t stride) { return Strides16::pixels(stride, kTilePixels); }
  static const TileFn* tiles(int n, int) { return kConvTiles16[n - 1].fn; }
};

}  // namespace rskip::RSKIP_ISA
