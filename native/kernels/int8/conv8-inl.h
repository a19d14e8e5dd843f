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

// Of planar input, a stride of 2 is that of most stems; without dot products, its addresses are the least of a tile's work.
using Strides8 = std::conditional_t<RSKIP_DOT, Strides<2, kLanes, 2 * kLanes>, Strides<kLanes, 2 * kLanes>>;

template <int P, int N>
[[gnu::noinline]] void conv_tile8(const ConvTile8& t) {
  Bits acc[P][N];
  tile_bias8(acc, t.bias);
  Strides8::each<P>(t.stride, [&](auto stride) __attribute__((always_inline)) {
    tile_sum8<P, N, stride()>(acc, t.x, t.stride, t.w, t.w_block, *t.walk);
  });
  tile_store8(acc, t.out, t.scale, *t.epilogue);
}

struct ConvTileRow8 {
  ConvTileFn8 fn[kTilePixels8];
};
template <int N, int... P>
constexpr ConvTileRow8 conv_tile_row8(std::integer_sequence<int, P...>) {
  return {{conv_tile8<P + 1, N>...}};
}
inline constexpr ConvTileRow8 kConvTiles8[] = {
    conv_tile_row8<1>(std::make_integer_sequence<int, kTilePixels8>()),
#if RSKIP_TILE_BLOCKS >= 2
    conv_tile_row8<2>(std::make_integer_sequence<int, kTilePixels8>()),
#endif
};

struct Tiles8 {
  using Args = ConvArgs8;
  using Element = uint8_t;
  using Tile = ConvTile8;
  using TileFn = ConvTileFn8;
  static constexpr int pixels(ptrdiff_t stride) { return Strides8::pixels(stride, kTilePixels8); }
  static constexpr int kPixels = kTilePixels8;
  static constexpr int kStep = kQuad;
  static constexpr bool kTapsFirst = true;
  static uint8_t* output_block(const ConvArgs8& args, int b, TileTarget<uint8_t>&) { return args.y.data + b * args.y.block_stride; }
  // Whether rows of taps in the halo change no sum: those of the whole map, whose halo then holds zeros.
  static bool leaves_rows_out(const ConvArgs8& args) {
    const PackedConv8& conv = *args.conv;
    return !kSignedProducts && args.rows == 0 && conv.input_zero == 0 && conv.algorithm == ConvAlgorithm::kDirect &&
           conv.shape.kernel_h > 1;
  }
  static Epilogue8 epilogue_of(const ConvArgs8& args) { return {args.rounding, args.addition}; }
  static void set_block(ConvTile8& t, const PackedConv8& conv, int b) {
    t.bias = bias_of(conv.bias) + b * kLanes;
    t.scale = conv.scale.data() + b * kLanes;
  }
  static const TileFn* tiles(int n, int) { return kConvTiles8[n - 1].fn; }
};

}  // namespace rskip::RSKIP_ISA
