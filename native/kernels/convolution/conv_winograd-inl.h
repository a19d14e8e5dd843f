// Winograd convolution F(2x2, 3x3) and F(4x4, 3x3) (Lavin and Gray, 2016). For a chunk of tiles: transform the
// inputs, multiply per point over the input channels, and transform back two output blocks at a time, where
// bias, residual and activation are applied. Every step has one order, as everywhere.
#pragma once

#include "kernels/convolution/conv_winograd.h"
#include "kernels/convolution/conv_winograd_tile-inl.h"

namespace rskip::RSKIP_ISA {

// The one-dimensional transforms B^T and A^T.
template <int M>
struct WinogradMath;

template <>
struct WinogradMath<2> {
  RSKIP_INLINE static void input(const Vec (&d)[4], Vec (&v)[4]) {
    v[0] = d[2] - d[0];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  RSKIP_INLINE static void output(const Vec (&p)[4], Vec (&y)[2]) {
    y[0] = p[0] + (p[1] + p[2]);
    y[1] = (p[1] - p[2]) + p[3];
  }
};

template <>
struct WinogradMath<4> {
  static constexpr float a = kWinogradPointA, b = kWinogradPointB;
  RSKIP_INLINE static void input(const Vec (&d)[6], Vec (&v)[6]) {
    const Vec minus_aa = splat(-a * a), minus_bb = splat(-b * b);
    const Vec minus_sum = splat(-(a * a + b * b)), product = splat(a * a * b * b);
    const Vec even_a = fma(minus_bb, d[2], d[4]), odd_a = fma(minus_bb, d[1], d[3]);
    const Vec even_b = fma(minus_aa, d[2], d[4]), odd_b = fma(minus_aa, d[1], d[3]);
    v[0] = fma(product, d[0], fma(minus_sum, d[2], d[4]));
    v[1] = fma(splat(a), odd_a, even_a);
    v[2] = fma(splat(-a), odd_a, even_a);
    v[3] = fma(splat(b), odd_b, even_b);
    v[4] = fma(splat(-b), odd_b, even_b);
    v[5] = fma(product, d[1], fma(minus_sum, d[3], d[5]));
  }
  RSKIP_INLINE static void output(const Vec (&p)[6], Vec (&y)[4]) {
    const Vec sum_a = p[1] + p[2], difference_a = p[1] - p[2];
    const Vec sum_b = p[3] + p[4], difference_b = p[3] - p[4];
    y[0] = (p[0] + sum_a) + sum_b;
    y[1] = fma(splat(b), difference_b, splat(a) * difference_a);
    y[2] = fma(splat(b * b), sum_b, splat(a * a) * sum_a);
    y[3] = fma(splat(b * b * b), difference_b, fma(splat(a * a * a), difference_a, p[5]));
  }
};

// Rows [kFirst, kFirst + kRows) of V = B^T d B of one tile of 16 channels; the first point goes to v, the others to
// multiples of `stride` after it. Returns the place of the row that follows.
template <int M, int kFirst, int kRows>
RSKIP_INLINE float* winograd_input_rows(const float* x, ptrdiff_t x_row, float* v, ptrdiff_t stride) {
  constexpr int A = M + 2;
  Vec rows[kRows][A];
  RSKIP_UNROLL(6) for (int j = 0; j < A; ++j) {
    Vec d[A], t[A];
    RSKIP_UNROLL(6) for (int i = 0; i < A; ++i) d[i] = load(x + i * x_row + j * kLanes);
    WinogradMath<M>::input(d, t);
    RSKIP_UNROLL(6) for (int i = 0; i < kRows; ++i) rows[i][j] = t[kFirst + i];
  }
  RSKIP_UNROLL(6) for (int i = 0; i < kRows; ++i) {
    Vec t[A];
    WinogradMath<M>::input(rows[i], t);
    RSKIP_UNROLL(6) for (int j = 0; j < A; ++j) store(v + j * stride, t[j]);
    v = opaque(v + A * stride);
  }
  return v;
}

// All of V: point p goes to v + p * stride. A few rows at a time, or it would need more registers than there are;
// loading inputs again costs less. Rows that are taken together share parts.
template <int M>
[[gnu::noinline]] void winograd_input(const float* x, ptrdiff_t x_row, float* v, ptrdiff_t stride) {
  if constexpr (M == 2) {
    winograd_input_rows<M, 0, 4>(x, x_row, v, stride);
  } else {
    v = winograd_input_rows<M, 0, 1>(x, x_row, v, stride);
    v = winograd_input_rows<M, 1, 2>(opaque(x), x_row, v, stride);
    v = winograd_input_rows<M, 3, 2>(opaque(x), x_row, v, stride);
    winograd_input_rows<M, 5, 1>(opaque(x), x_row, v, stride);
  }
}

// The part of the output that one tile owns.
struct WinogradTarget {
  const float* bias;
  float* y;
  ptrdiff_t y_row;
  const float* residual;
  ptrdiff_t residual_row;
  int rows, columns;  // fewer than M at the lower and right edge
};

// Y = A^T m A of one tile of 16 channels, then y = Y + bias + residual, clamped if that is the activation. Arguments are copied, or the compiler
// would read them again after every store. Not inlined: all four versions in one loop would run out of registers.
template <int M, bool kWhole, bool kResidual>
[[gnu::noinline]] void winograd_output(const float* product, ptrdiff_t stride, const WinogradTarget& t,
                                       const Epilogue& epilogue) {
  constexpr int A = M + 2;
  const Vec bias = load(t.bias), low = splat(epilogue.low), high = splat(epilogue.high);
  const bool clips = epilogue.high < std::numeric_limits<float>::infinity();
  float* y_line = t.y;
  const float* residual = t.residual;
  const ptrdiff_t y_row = t.y_row, residual_row = t.residual_row;
  const int height = t.rows, width = t.columns;
  Vec half[M][A];
  RSKIP_UNROLL(6) for (int j = 0; j < A; ++j) {
    Vec p[A], y[M];
    const float* const column = opaque(product + j * stride);
    RSKIP_UNROLL(6) for (int i = 0; i < A; ++i) p[i] = load(column + i * A * stride);
    WinogradMath<M>::output(p, y);
    RSKIP_UNROLL(4) for (int i = 0; i < M; ++i) half[i][j] = y[i];
  }
  RSKIP_UNROLL(4) for (int i = 0; i < M; ++i, y_line += y_row, residual += residual_row) {
    Vec y[M];
    WinogradMath<M>::output(half[i], y);
    if (!kWhole && i >= height) break;
    RSKIP_UNROLL(4) for (int j = 0; j < M; ++j) {
      if (!kWhole && j >= width) break;
      Vec sum = y[j] + bias;
      if (kResidual) sum = sum + load(residual + j * kLanes);
      sum = max(low, sum);
      if (clips) sum = min(high, sum);
      store(y_line + j * kLanes, sum);
    }
  }
}

template <int M>
void winograd_output(const float* product, ptrdiff_t stride, const WinogradTarget& t, const Epilogue& epilogue) {
  const bool whole = t.rows == M && t.columns == M;
  if (t.residual == nullptr) {
    (whole ? winograd_output<M, true, false> : winograd_output<M, false, false>)(product, stride, t, epilogue);
  } else {
    (whole ? winograd_output<M, true, true> : winograd_output<M, false, true>)(product, stride, t, epilogue);
  }
}

// One worker's share of a convolution.
template <int M>
struct WinogradRun {
  static constexpr int kPoints = (M + 2) * (M + 2);
  const ConvArgs& args;
  const WinogradPlan& plan;
  const Epilogue& epilogue;
  int in_blocks = 0;
  int count = 0;  // tiles of the present chunk
  ptrdiff_t v_stride = 0, product_stride = 0;
  float* v = nullptr;
  float* product = nullptr;

  void chunk(int first_tile, int tiles, int first_block, int end_block) {
    count = tiles;
    v_stride = winograd_point_stride(static_cast<ptrdiff_t>(in_blocks) * count * kLanes);
    product_stride = winograd_point_stride(static_cast<ptrdiff_t>(kWinogradBlocks) * count * kLanes);
    v = static_cast<float*>(args.scratch);
    product = v + kPoints * v_stride;
    // A tile of 16 channels is read before its products are stored: they may take its place.
    if (kTileBlocks == 2 && args.conv->shape.in_channels == kLanes && end_block - first_block == 1) {
      product = v;
      product_stride = v_stride;
    }
    transform_input(first_tile);
    for (int block = first_block; block < end_block; block += kWinogradBlocks) {
      const int n = std::min(kWinogradBlocks, end_block - block);
      multiply(block, n);
      for (int i = 0; i < n; ++i) transform_output(first_tile, block + i, product + i * count * kLanes);
    }
  }

  void transform_input(int first_tile) {
    const ConvShape& s = args.conv->shape;
    const BlockedView& x = args.x;
    for (int block = 0; block < in_blocks; ++block) {
      const float* base = x.data + block * x.block_stride - s.pad.top * x.row_stride - s.pad.left * kLanes;
      int row = first_tile / plan.tile_columns;
      int column = first_tile % plan.tile_columns;
      for (int t = 0; t < count; ++t) {
        winograd_input<M>(base + row * M * x.row_stride + column * M * kLanes, x.row_stride,
                          v + (block * count + t) * kLanes, v_stride);
        if (++column == plan.tile_columns) {
          column = 0;
          ++row;
        }
      }
    }
  }

  void multiply(int block, int n) {
    const PackedConv& conv = *args.conv;
    const ptrdiff_t point_size = static_cast<ptrdiff_t>(conv.shape.in_channels) * kLanes;
    WinogradTile t;
    t.v_block = static_cast<ptrdiff_t>(count) * kLanes;
    t.channels = conv.shape.in_channels;
    t.chain = winograd_chain(t.channels);
    t.product_block = static_cast<ptrdiff_t>(count) * kLanes;
    t.w_block = kPoints * point_size;
    const bool sixteen = t.channels == kLanes;
    const bool two_chains = kWinogradTwoChains && t.channels == 2 * t.chain && t.chain % kLanes == 0;
    const int blocks_at_once = sixteen || two_chains ? 1 : kTileBlocks;
    const Split pixels(count, kTilePixels);
    for (int point = 0; point < kPoints; ++point) {
      for (int i = 0; i < n; i += blocks_at_once) {
        const WinogradTileFn* fns = kWinogradTiles[std::min(blocks_at_once, n - i) - 1].fn;
        if (sixteen) fns = kWinogradTiles16.data();
        if (two_chains) fns = kWinogradTilesTwoChains.data();
        t.w = conv.weights.data() + conv.blocks[block + i].offset + point * point_size;
        for (int c = 0; c < pixels.chunks; ++c) {
          t.v = v + point * v_stride + pixels.begin(c) * kLanes;
          t.product = product + point * product_stride + i * t.product_block + pixels.begin(c) * kLanes;
          fns[pixels.size(c) - 1](t);
        }
      }
    }
  }

  void transform_output(int first_tile, int block, const float* from) {
    const BlockedView& y = args.y;
    int row = first_tile / plan.tile_columns * M;
    int column = first_tile % plan.tile_columns * M;
    WinogradTarget target;
    target.bias = args.conv->bias.data() + block * kLanes;
    target.y_row = y.row_stride;
    target.residual = nullptr;
    target.residual_row = args.residual == nullptr ? 0 : args.residual->row_stride;
    for (int t = 0; t < count; ++t) {
      target.y = y.data + block * y.block_stride + row * y.row_stride + column * kLanes;
      if (args.residual != nullptr) {
        target.residual = args.residual->data + block * args.residual->block_stride +
                          row * target.residual_row + column * kLanes;
      }
      target.rows = std::min(M, y.height - row);
      target.columns = std::min(M, y.width - column);
      winograd_output<M>(from + t * kLanes, product_stride, target, epilogue);
      if (!epilogue.clamp_only) {
        for (int i = 0; i < target.rows; ++i) {
          const int64_t first = int64_t{row + i} * y.width + column;
          activate_pixels(y, block, 1, first, first + target.columns, epilogue.act);
        }
      }
      column += M;
      if (column >= y.width) {
        column = 0;
        row += M;
      }
    }
  }
};

// Whether workers share the output channels, each transforming all inputs, rather than the tiles, each reading all
// weights. Weights that don't stay in a second-level cache are read once for every chunk of tiles anyway; with fewer
// chunks than workers, sharing tiles would have them read more often.
inline bool winograd_by_channels(const WinogradPlan& plan, const AlignedFloats& weights, int pairs, int parts) {
  if (plan.tiles() < 8 * parts) return true;
  constexpr size_t kFits = (256 << 10) / sizeof(float);
  return pairs >= parts && plan.tiles() < plan.chunk * parts && weights.size() > kFits;
}

template <int M>
void conv_winograd(const ConvArgs& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  const WinogradPlan plan(s, args.conv->algorithm);
  const Epilogue epilogue = epilogue_of(args.act);
  WinogradRun<M> run{args, plan, epilogue};
  run.in_blocks = channel_blocks(s.in_channels);
  const int blocks = args.y.blocks();
  // In whole pairs, so that tiles of two blocks stay whole.
  const int pairs = (blocks + kWinogradBlocks - 1) / kWinogradBlocks;
  int first_tile = 0, end_tile = plan.tiles(), first_block = 0, end_block = blocks;
  if (!winograd_by_channels(plan, args.conv->weights, pairs, parts)) {
    first_tile = static_cast<int>(part_begin(plan.tiles(), part, parts));
    end_tile = static_cast<int>(part_begin(plan.tiles(), part + 1, parts));
  } else {
    first_block = static_cast<int>(part_begin(pairs, part, parts)) * kWinogradBlocks;
    end_block = std::min(blocks, static_cast<int>(part_begin(pairs, part + 1, parts)) * kWinogradBlocks);
    if (first_block == end_block) return;
  }
  if (first_tile == end_tile) return;
  const Split chunks(end_tile - first_tile, plan.chunk);
  for (int c = 0; c < chunks.chunks; ++c) {
    run.chunk(first_tile + chunks.begin(c), chunks.size(c), first_block, end_block);
  }
}

}  // namespace rskip::RSKIP_ISA
