// Convolution and matrix product of bfloat16, with sums of floats. They are those on floats with a pair in the place of a float,
// once the input has been rounded: by each worker, of the rows that it needs, a second-level cache full at a time. Tiles is one of
// Tiles16, Tiles16Apart and Tiles16Amx (tiles16*-inl.h):
//   kPrecision                  what weights are packed for
//   interleave(v)               (kBfloat16Amx) v[i / 4][4 * (i % 4) + c] = v[c][i]
//   run(...)                    is conv_tiles_run<Tiles>(...), of the input as pairs
//   multiply(p, begin, end)     computes groups of a product's columns
#pragma once

#include "kernels/bfloat16/pack16.h"
#include "kernels/convolution/conv_rules.h"
#include "kernels/convolution/conv_tiles-inl.h"

namespace rskip::RSKIP_ISA {

// The input of output rows [0, rows), which begins at x0, as `window` describes it. `pairs`: x is a map of pairs.
inline void fill_window(const BlockedView& x, bool pairs, const float* x0, const PairWindow& window, int rows, float* to) {
  for (int b = 0; b < window.blocks; ++b) {
    const float* first = x0 + (pairs ? b : 2 * b) * x.block_stride;
    const bool has_second = 2 * b + 1 < x.blocks();
    for (int row = 0; row < window.rows(rows); ++row, first += window.step_h * x.row_stride) {
      const float* at = first;
      const ptrdiff_t step = static_cast<ptrdiff_t>(window.step_w) * kLanes;
      if (pairs) {
        for (int i = 0; i < window.width; ++i, at += step, to += kLanes) store(to, load(at));
        continue;
      }
      for (int i = 0; i < window.width; ++i, at += step, to += kLanes) {
        store(to, to_pairs(load(at), has_second ? load(at + x.block_stride) : splat(0)));
      }
    }
  }
}

// From `column` on, 32 columns of a row of so many.
RSKIP_INLINE Vec pairs_of_columns(const float* row, int column, int columns) {
  const int rest = std::max(0, columns - column);
  const Vec first = rest >= kLanes ? load(row + column) : load_first(row + column, rest);
  return to_pairs(first, rest >= kPairLanes ? load(row + column + kLanes)
                                            : load_first(row + column + kLanes, std::max(0, rest - kLanes)));
}

// The same of planar input.
inline void fill_window(const PlanarView& x, const float* x0, int columns, const PairWindow& window, int rows, float* to) {
  for (int c = 0; c < window.blocks; ++c) {
    const float* at = x0 + c * x.plane_stride;
    for (int row = 0; row < window.rows(rows); ++row, at += x.row_stride) {
      for (int i = 0; i < kPair * window.width; i += kPairLanes, to += kLanes) store(to, pairs_of_columns(at, i, columns));
    }
  }
}

// The same in the order of AMX.
template <class Tiles>
void fill_stem(const PlanarView& x, const float* x0, int columns, const PairWindow& window, int rows, float* to) {
  for (int row = 0; row < window.rows(rows); ++row, x0 += x.row_stride) {
    for (int i = 0; i < kPair * window.width; i += kPairLanes) {
      Vec v[kStemChannels];
      RSKIP_UNROLL(4) for (int c = 0; c < kStemChannels; ++c) {
        v[c] = c < x.channels ? pairs_of_columns(x0 + c * x.plane_stride, i, columns) : splat(0);
      }
      Tiles::interleave(v);
      RSKIP_UNROLL(4) for (int c = 0; c < kStemChannels; ++c, to += kLanes) store(to, v[c]);
    }
  }
}

// Where block `b` of a convolution's output channels begins; in a map of pairs it has half of each vector.
inline float* output_block(const ConvArgs& args, int b) {
  if (!args.y_pairs) return args.y.data + b * args.y.block_stride;
  return args.y.data + b / kPair * args.y.block_stride + b % kPair * (kLanes / kPair);
}

// `args` for some rows of the output.
struct RowsOfOutput {
  ConvArgs args;
  RowsOfOutput(const ConvArgs& all, int row, int count) : args(all) {
    args.rows = count;
    args.y.data += row * all.y.row_stride;
    if (all.residual == nullptr) return;
    residual_ = *all.residual;
    residual_.data += row * residual_.row_stride;
    args.residual = &residual_;
  }
  RowsOfOutput(const RowsOfOutput&) = delete;

 private:
  BlockedView residual_;
};

// Of a map of pairs, which tiles read where it lies.
template <class Tiles>
void conv_pairs(const ConvArgs& args, const Share<int>& rows, int part, int parts) {
  if (rows.begin == rows.end) return;
  const ConvShape& s = args.conv->shape;
  const BlockedView& x = args.x;
  const int count = rows.end - rows.begin;
  const RowsOfOutput to(args, rows.begin, count);
  Walk walk;
  walk.n1 = s.kernel_h;
  walk.n2 = s.kernel_w;
  walk.s0 = x.block_stride;
  walk.s1 = s.dilation_h * x.row_stride;
  walk.s2 = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
  walk.inner = kLanes;
  const bool flat = s.kernel_h == 1 && s.kernel_w == 1 && x.width == s.out_width && dense(x);
  const ConvRows pixels = flat ? ConvRows{1, count * s.out_width, 0, kLanes, true}
                               : ConvRows{count, s.out_width, s.stride_h * x.row_stride, ptrdiff_t{s.stride_w} * kLanes, false};
  const ptrdiff_t row = static_cast<ptrdiff_t>(rows.begin) * s.stride_h - s.pad.top;
  const float* x0 = x.data + row * x.row_stride - ptrdiff_t{s.pad.left} * kLanes;
  Tiles::run(to.args, x0, x.block_stride, pixels, walk, part, parts);
}

// Workers share rows where the weights, which each of them then reads, are no more than input and output; otherwise, each
// rounds all of the input.
template <class Tiles>
void conv16_by(const ConvArgs& args, int part, int parts) {
  const PackedConv& conv = *args.conv;
  const ConvShape& s = conv.shape;
  const bool planar = reads_planar(conv.algorithm);
  constexpr bool kAmx = Tiles::kPrecision == Precision::kBfloat16Amx;
  const PairWindow window(s, conv.algorithm);
  float* const pairs = static_cast<float*>(args.scratch);
  Share<int> rows{0, rows_of(args)};
  const int64_t input = planar ? args.x_planar.plane_stride * s.in_channels : args.x.block_stride * args.x.blocks();
  const int64_t maps = input + args.y.block_stride * args.y.blocks();
  if (static_cast<int64_t>(conv.weights.size()) <= maps && shares_evenly(rows.end, parts)) {
    rows = share_of(rows.end, part, parts);
    part = 0;
    parts = 1;
  }
  // 1x1 convolutions with a stride gather their pixels, so that tiles are whole.
  if constexpr (kAmx) {
    if (args.x_pairs && window.step_h == 1 && window.step_w == 1) return conv_pairs<Tiles>(args, rows, part, parts);
  }
  const int band = window.band(s.out_height);
  const bool flat = !planar && s.kernel_h == 1 && s.kernel_w == 1;
  for (int row = rows.begin; row < rows.end; row += band) {
    const int count = std::min(band, rows.end - row);
    const ptrdiff_t first = static_cast<ptrdiff_t>(row) * s.stride_h - s.pad.top;
    if (planar) {
      const float* x0 = args.x_planar.data + first * args.x_planar.row_stride - s.pad.left;
      const int columns = s.pad.left + s.in_width + window_halo(s).right;
      if constexpr (kAmx) {
        fill_stem<Tiles>(args.x_planar, x0, columns, window, count, pairs);
      } else {
        fill_window(args.x_planar, x0, columns, window, count, pairs);
      }
    } else {
      const float* x0 = args.x.data + first * args.x.row_stride - static_cast<ptrdiff_t>(s.pad.left) * kLanes;
      fill_window(args.x, args.x_pairs, x0, window, count, pairs);
    }
    const RowsOfOutput to(args, row, count);
    const ptrdiff_t block = window.rows(count) * window.row_floats;
    Walk walk;
    walk.n1 = s.kernel_h;
    walk.s0 = block;
    walk.s1 = s.dilation_h * window.row_floats;
    ptrdiff_t pixel = kLanes;
    if (planar && kAmx) {
      const StemRow stem(s.kernel_w);
      walk.n2 = stem.products;
      walk.s2 = walk.inner = stem.steps;
      pixel = kStemChannels;
    } else if (planar) {
      walk.inner = (s.kernel_w + 1) / kPair;
      pixel = 1;
    } else {
      walk.n2 = s.kernel_w;
      walk.s2 = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
      walk.inner = kLanes;
    }
    const ConvRows pixels = flat ? ConvRows{1, count * s.out_width, 0, kLanes, true}
                                 : ConvRows{count, s.out_width, window.stride_h * window.row_floats, window.stride_w * pixel, false};
    Tiles::run(to.args, pairs, block, pixels, walk, part, parts);
  }
}

// The first 32 of `count` floats as pairs; zeros where there are fewer.
RSKIP_INLINE Vec pairs_at(const float* x, int count) {
  const int rest = count - kLanes;
  const Vec first = rest >= 0 ? load(x) : load_first(x, count);
  return to_pairs(first, rest >= kLanes ? load(x + kLanes) : load_first(x + kLanes, std::max(rest, 0)));
}

// Rows of k floats, `stride` apart, as pairs: [block of pairs][row][16].
inline void fill_rows(const float* x, ptrdiff_t stride, int rows, int k, float* to) {
  for (int row = 0; row < rows; ++row, x += stride) {
    float* at = to + row * kLanes;
    for (int i = 0; i < k; i += kPairLanes, at += rows * kLanes) store(at, pairs_at(x + i, k - i));
  }
}

// compute(out) for a tile of a matrix product whose last block has columns of its own only for `lanes`: by way of whole blocks.
template <int kRows, class Compute>
void by_whole_blocks(const TileOutput& to, int rows, int blocks, int lanes, const Compute& compute) {
  alignas(64) float y[kTileBlocks * kRows * kLanes];
  TileOutput out = to;
  out.y = y;
  out.pixel = kLanes;
  out.y_block = kRows * kLanes;
  out.residual = to.residual == nullptr ? nullptr : y;
  out.residual_block = out.y_block;
  const auto each = [&](const auto& copy) {
    for (int row = 0; row < rows; ++row) {
      for (int b = 0; b < blocks; ++b) {
        const int count = b + 1 == blocks ? lanes : kLanes;
        copy(y + b * out.y_block + row * kLanes, row * to.pixel + b * kLanes, count);
      }
    }
  };
  if (to.residual != nullptr) {
    each([&](float* at, ptrdiff_t from, int count) { store(at, load_first(to.residual + from, count)); });
  }
  compute(out);
  each([&](const float* at, ptrdiff_t offset, int count) { store_first(to.y + offset, load(at), count); });
}

alignas(64) inline constexpr float kNoBias[kTileBlocks * kLanes] = {};
struct PairsProduct {
  const float* rows;  // as fill_rows makes them
  int m, k, n;
  const float* weights;  // [block of 16 columns][pair along k][16]
  const float* bias = nullptr;
  const float* residual = nullptr;  // strides are those of y
  float* y;
  ptrdiff_t y_stride;
  const Epilogue* epilogue;

  int groups() const { return (channel_blocks(n) + kTileBlocks - 1) / kTileBlocks; }
  Walk walk(int packed_pairs) const {
    Walk walk;
    walk.n0 = pair_blocks(k);
    walk.s0 = static_cast<ptrdiff_t>(m) * kLanes;
    walk.inner = kLanes;
    walk.inner_last = packed_pairs - (walk.n0 - 1) * kLanes;
    return walk;
  }
  const float* bias_of(int block) const { return bias == nullptr ? kNoBias : bias + block * kLanes; }
  // Of rows from `row` on and columns of the blocks from `block` on.
  TileOutput output(int row, int block) const {
    const ptrdiff_t at = row * y_stride + block * kLanes;
    TileOutput out;
    out.y = y + at;
    out.residual = residual == nullptr ? nullptr : residual + at;
    out.y_block = out.residual_block = kLanes;
    out.pixel = y_stride;
    return out;
  }
  // y = act(y) where that is more than a clamp.
  void activate(float* first, int count, int columns) const {
    if (epilogue->clamp_only) return;
    for (; count > 0; --count, first += y_stride) {
      RSKIP_BASE::unary_span(first, first, static_cast<size_t>(columns), epilogue->act);
    }
  }
};

// Groups [begin, end) of the columns' blocks.
template <class Tiles>
void multiply_pairs(const PairsProduct& p, int begin, int end) {
  const int pairs_of_row = packed_pairs(p.k, Tiles::kPrecision);
  const Walk walk = p.walk(pairs_of_row);
  ConvTile t;
  t.stride = kLanes;
  t.walk = &walk;
  t.epilogue = p.epilogue;
  t.w_block = static_cast<ptrdiff_t>(pairs_of_row) * kLanes;
  const Split tiles(p.m, Tiles::pixels(kLanes));
  for (int group = begin; group < end; ++group) {
    const int b = group * kTileBlocks, blocks = std::min(kTileBlocks, channel_blocks(p.n) - b);
    const int lanes = std::min(kLanes, p.n - (b + blocks - 1) * kLanes);
    const auto fns = Tiles::tiles(blocks, lanes);
    t.w = p.weights + b * t.w_block;
    t.bias = p.bias_of(b);
    for (int tile = 0; tile < tiles.chunks; ++tile) {
      const int count = tiles.size(tile);
      const auto compute = [&](const TileOutput& out) {
        t.out = out;
        fns[count - 1](t);
      };
      t.x = p.rows + tiles.begin(tile) * kLanes;
      const TileOutput out = p.output(tiles.begin(tile), b);
      lanes == kLanes ? compute(out) : by_whole_blocks<Tiles::kPixels>(out, count, blocks, lanes, compute);
      p.activate(out.y, count, (blocks - 1) * kLanes + lanes);
    }
  }
}

// What tiles that are summed in registers have in common.
template <class Tiles>
struct RegisterTiles16 : FloatTiles {
  template <class... Args>
  static void run(Args&&... args) {
    conv_tiles_run<Tiles>(std::forward<Args>(args)...);
  }
  static void multiply(const PairsProduct& p, int begin, int end) { multiply_pairs<Tiles>(p, begin, end); }
};

// Shares are runs of whole column blocks.
template <class Tiles>
void gemm16_by(const GemmArgs& args, int part, int parts) {
  const PackedGemm& g = *args.gemm;
  const Epilogue epilogue = epilogue_of(args.act);
  float* const pairs = static_cast<float*>(args.scratch);
  PairsProduct p;
  p.rows = pairs;
  p.k = g.k;
  p.n = g.n;
  p.weights = g.weights.data();
  p.bias = g.bias.data();
  p.y_stride = g.n;
  p.epilogue = &epilogue;
  const auto [begin, end] = share_of(p.groups(), part, parts);
  if (begin == end || args.m == 0) return;
  const Split panels(args.m, gemm16_rows(g.k, args.m));
  for (int panel = 0; panel < panels.chunks; ++panel) {
    const ptrdiff_t first = panels.begin(panel);
    p.m = panels.size(panel);
    fill_rows(args.a + first * g.k, g.k, p.m, g.k, pairs);
    p.y = args.y + first * g.n;
    p.residual = args.residual == nullptr ? nullptr : args.residual + first * g.n;
    Tiles::multiply(p, begin, end);
  }
}

}  // namespace rskip::RSKIP_ISA
