// Convolution on 8-bit numbers: kDirect and kPlanar.
#pragma once

#include "kernels/convolution/conv_direct-inl.h"
#include "kernels/convolution/conv_planar-inl.h"
#include "kernels/int8/tile8-inl.h"

namespace rskip::RSKIP_ISA {

struct ConvTile8 {
  const uint8_t* x;
  ptrdiff_t stride;
  const int8_t* w;
  ptrdiff_t w_block;
  const int32_t* bias;
  const float* scale;
  const Walk* walk;
  TileTarget<uint8_t> out;
  const Epilogue8* epilogue;
};
using ConvTileFn8 = void (*)(const ConvTile8&);

template <int P, int N, int kStride>
[[gnu::noinline]] void conv_tile8(const ConvTile8& t) {
  Bits acc[P][N];
  tile_bias8(acc, t.bias);
  tile_sum8<P, N, kStride>(acc, t.x, t.stride, t.w, t.w_block, *t.walk);
  tile_store8(acc, t.out, t.scale, *t.epilogue);
}

struct ConvTileRow8 {
  ConvTileFn8 fn[kTilePixels8];
};
template <int N, int kStride, int... P>
constexpr ConvTileRow8 conv_tile_row8(std::integer_sequence<int, P...>) {
  return {{conv_tile8<P + 1, N, kStride>...}};
}
template <int kStride>
inline constexpr ConvTileRow8 kConvTiles8[] = {
    conv_tile_row8<1, kStride>(std::make_integer_sequence<int, kTilePixels8>()),
#if RSKIP_TILE_BLOCKS >= 2
    conv_tile_row8<2, kStride>(std::make_integer_sequence<int, kTilePixels8>()),
#endif
};

struct Tiles8 {
  using Args = ConvArgs8;
  using Element = uint8_t;
  using Tile = ConvTile8;
  using TileFn = ConvTileFn8;
  static constexpr int pixels(ptrdiff_t) { return kPixels; }
  static constexpr int kPixels = kTilePixels8;
  static constexpr int kStep = kQuad;
  static constexpr bool kTapsFirst = true;
  static Epilogue8 epilogue_of(const ConvArgs8& args) { return {args.rounding, args.addition}; }
  static void set_block(ConvTile8& t, const PackedConv8& conv, int b) {
    t.bias = bias_of(conv.bias) + b * kLanes;
    t.scale = conv.scale.data() + b * kLanes;
  }
  static const TileFn* tiles(int n, ptrdiff_t stride) {
    switch (stride) {
      case kLanes:
        return kConvTiles8<kLanes>[n - 1].fn;
      case 2 * kLanes:
        return kConvTiles8<2 * kLanes>[n - 1].fn;
      default:
        return kConvTiles8<0>[n - 1].fn;
    }
  }
};

}  // namespace rskip::RSKIP_ISA
