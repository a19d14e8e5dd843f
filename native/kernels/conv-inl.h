// Direct convolution: kDirect on blocked input and kPlanar on planar input, both as an implicit matrix
// product. k runs over (input block, kh, kw, channel) for kDirect and (channel, kh, kw) for kPlanar.
#pragma once

#include <utility>

#include "kernels/pack.h"
#include "kernels/tile-inl.h"

namespace rskip::RSKIP_ISA {

struct ConvTile {
  const float* x;
  ptrdiff_t stride;
  const float* w;
  ptrdiff_t w_block;
  const float* bias;
  const Walk* walk;
  TileOutput out;
  const Epilogue* epilogue;
};
using ConvTileFn = void (*)(const ConvTile&);

template <int P, int N, int kStride>
[[gnu::noinline]] void conv_tile(const ConvTile& t) {
  Vec acc[P][N];
  tile_bias(acc, t.bias);
  tile_sum<P, N, kStride>(acc, t.x, t.stride, t.w, t.w_block, *t.walk);
  tile_store(acc, t.out, *t.epilogue);
}

struct ConvTileRow {
  ConvTileFn fn[kTilePixels];
};
template <int N, int kStride, int... P>
constexpr ConvTileRow conv_tile_row(std::integer_sequence<int, P...>) {
  return {{conv_tile<P + 1, N, kStride>...}};
}
template <int kStride>
inline constexpr ConvTileRow kConvTiles[] = {
    conv_tile_row<1, kStride>(std::make_integer_sequence<int, kTilePixels>()),
#if RSKIP_TILE_BLOCKS >= 2
    conv_tile_row<2, kStride>(std::make_integer_sequence<int, kTilePixels>()),
#endif
};

// Tiles of n blocks. Stride 1 on blocked input is worth addresses known at compile time.
inline const ConvTileFn* conv_tiles(int n, ptrdiff_t stride) {
  return stride == kLanes ? kConvTiles<kLanes>[n - 1].fn : kConvTiles<0>[n - 1].fn;
}

// Rows of pixels as the tiles see them. A 1x1 convolution without halo is one long row.
struct ConvRows {
  int rows, width;
  ptrdiff_t x_row, pixel;  // floats between rows and pixels of x under neighbouring outputs
  bool flat;
};

inline bool dense(const BlockedView& v) { return v.row_stride == static_cast<ptrdiff_t>(v.width) * kLanes; }

// Offsets of `count` pixels from pixel `first` of the view's flattened interior, all from (0, 0).
inline void flat_offsets(const BlockedView& v, int first, int count, ptrdiff_t* offset) {
  int h = first / v.width;
  int w = first % v.width;
  for (int p = 0; p < count; ++p) {
    offset[p] = h * v.row_stride + w * kLanes;
    if (++w == v.width) {
      w = 0;
      ++h;
    }
  }
}

// Runs part of the tiles of a convolution whose taps start at x0 for output (0, 0).
inline void conv_tiles_run(const ConvArgs& args, const float* x0, ptrdiff_t x_block, const ConvRows& rows, Walk walk,
                           int part, int parts) {
  const PackedConv& conv = *args.conv;
  const BlockedView& y = args.y;
  const Epilogue epilogue = epilogue_of(args.act);
  const Split columns(rows.width, kTilePixels);
  const int64_t tiles = static_cast<int64_t>(rows.rows) * columns.chunks;
  const int blocks = static_cast<int>(conv.blocks.size());
  const bool planar = conv.algorithm == ConvAlgorithm::kPlanar;
  const bool scattered = rows.flat && !(dense(y) && (args.residual == nullptr || dense(*args.residual)));
  ptrdiff_t y_offset[kTilePixels];
  ptrdiff_t residual_offset[kTilePixels];

  const int64_t begin = part_begin(tiles * blocks, part, parts);
  const int64_t end = part_begin(tiles * blocks, part + 1, parts);
  for (int64_t unit = begin; unit < end;) {
    const int b = static_cast<int>(unit / tiles);
    const ConvBlock& block = conv.blocks[b];
    int64_t tile = unit % tiles;
    // Two blocks at a time where both are wanted whole and read the same channels.
    int n = 1;
    if (kTileBlocks > 1 && tile == 0 && unit + 2 * tiles <= end) {
      const ConvBlock& next = conv.blocks[b + 1];
      if (next.first_block == block.first_block && next.blocks == block.blocks &&
          next.last_channels == block.last_channels) {
        n = 2;
      }
    }
    const int64_t tile_end = std::min(tiles, tile + end - unit);
    unit += n * (tile_end - tile);

    if (!planar) {
      walk.n0 = block.blocks;
      walk.inner_last = block.last_channels;
    }
    ConvTile t;
    t.stride = rows.pixel;
    t.w = conv.weights.data() + block.offset;
    t.w_block = n == 1 ? 0 : static_cast<ptrdiff_t>(conv.blocks[b + 1].offset - block.offset);
    t.bias = conv.bias.data() + b * kLanes;
    t.walk = &walk;
    t.epilogue = &epilogue;
    t.out.y_block = y.block_stride;
    t.out.residual_block = args.residual == nullptr ? 0 : args.residual->block_stride;
    t.out.last_lanes = std::min(kLanes, y.channels - (b + n - 1) * kLanes);
    const ConvTileFn* fns = conv_tiles(n, rows.pixel);
    const float* x = x0 + block.first_block * x_block;
    float* y_base = y.data + b * y.block_stride;
    const float* residual_base = args.residual == nullptr ? nullptr : args.residual->data + b * t.out.residual_block;
    for (; tile < tile_end; ++tile) {
      const int row = static_cast<int>(tile / columns.chunks);
      const int chunk = static_cast<int>(tile % columns.chunks);
      const int column = columns.begin(chunk);
      const int pixels = columns.size(chunk);
      t.x = x + row * rows.x_row + column * rows.pixel;
      if (scattered) {
        t.out.y = y_base;
        t.out.residual = residual_base;
        flat_offsets(y, column, pixels, y_offset);
        t.out.y_offset = y_offset;
        if (args.residual != nullptr) {
          flat_offsets(*args.residual, column, pixels, residual_offset);
          t.out.residual_offset = residual_offset;
        }
      } else {
        t.out.y = y_base + row * y.row_stride + column * kLanes;
        if (residual_base != nullptr) {
          t.out.residual = residual_base + row * args.residual->row_stride + column * kLanes;
        }
      }
      fns[pixels - 1](t);
    }
  }
}

inline void conv_direct(const ConvArgs& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  const BlockedView& x = args.x;
  Walk walk;
  walk.n1 = s.kernel_h;
  walk.n2 = s.kernel_w;
  walk.s0 = x.block_stride;
  walk.s1 = s.dilation_h * x.row_stride;
  walk.s2 = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
  walk.inner = kLanes;
  ConvRows rows{s.out_height, s.out_width, s.stride_h * x.row_stride, static_cast<ptrdiff_t>(s.stride_w) * kLanes, false};
  const bool pointwise = s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1;
  if (pointwise && s.out_height == s.in_height && s.out_width == s.in_width && s.pad.top == 0 && s.pad.left == 0 &&
      dense(x)) {
    rows = {1, s.out_height * s.out_width, 0, kLanes, true};
  }
  const float* x0 = x.data - s.pad.top * x.row_stride - static_cast<ptrdiff_t>(s.pad.left) * kLanes;
  conv_tiles_run(args, x0, x.block_stride, rows, walk, part, parts);
}

inline void conv_planar(const ConvArgs& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  const PlanarView& x = args.x_planar;
  Walk walk;
  walk.n0 = s.in_channels;
  walk.n1 = s.kernel_h;
  walk.s0 = x.plane_stride;
  walk.s1 = s.dilation_h * x.row_stride;
  if (s.dilation_w == 1) {
    walk.inner = walk.inner_last = s.kernel_w;
  } else {
    walk.n2 = s.kernel_w;
    walk.s2 = s.dilation_w;
  }
  const ConvRows rows{s.out_height, s.out_width, s.stride_h * x.row_stride, s.stride_w, false};
  const float* x0 = x.data - s.pad.top * x.row_stride - s.pad.left;
  conv_tiles_run(args, x0, 0, rows, walk, part, parts);
}

}  // namespace rskip::RSKIP_ISA
