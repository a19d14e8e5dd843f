// Convolution as an implicit matrix product, tile by tile: what kDirect and kPlanar share, on floats and on 8-bit numbers.
#pragma once

#include <type_traits>
#include <utility>

#include "kernels/matrix/pack.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

struct ConvTile {
  const float* x;
  ptrdiff_t stride;
  const float* w;
  ptrdiff_t w_block;
  ptrdiff_t ahead = FetchOwn::kAhead;  // of w: weights that are asked for, in floats
  const float* bias;
  const Walk* walk;
  TileOutput out;
  const Epilogue* epilogue;
};
using ConvTileFn = void (*)(const ConvTile&);

// Strides of pixels that are worth addresses known at compile time.
template <int... k>
struct Strides {
  static constexpr bool known(ptrdiff_t stride) { return ((stride == k) || ...); }
  // Pixels of a tile: fewer where their stride isn't known, so that the addon stays small.
  static constexpr int pixels(ptrdiff_t stride, int most) { return known(stride) ? most : std::min(7, most); }
  // sum(stride) for a tile of P pixels, with a constant, or 0 if it isn't known. All sums share what comes before and behind them.
  template <int P, class Sum>
  RSKIP_INLINE static void each(ptrdiff_t stride, const Sum& sum) {
    const bool done = ((stride == k && (sum(std::integral_constant<int, k>()), true)) || ...);
    if constexpr (P <= pixels(0, P)) {
      if (!done) sum(std::integral_constant<int, 0>());
    }
  }
};
template <int k>
struct OneStride {
  template <int P, class Sum>
  RSKIP_INLINE static void each(ptrdiff_t, const Sum& sum) {
    sum(std::integral_constant<int, k>());
  }
};
// On planar and on blocked input.
using FloatStrides = Strides<1, 2, kLanes, 2 * kLanes>;

// kHalf: of the last block, only the first eight channels are in use.
template <int P, int N, class S, bool kHalf = false>
[[gnu::noinline]] void conv_tile(const ConvTile& t) {
  Vec acc[P][N];
  tile_bias(acc, t.bias);
  S::template each<P>(t.stride, [&](auto stride) __attribute__((always_inline)) {
    tile_sum<P, N, stride(), kHalf>(acc, t.x, t.stride, t.w, t.w_block, *t.walk, FetchOwn{t.ahead});
  });
  tile_store(acc, t.out, *t.epilogue);
}

struct ConvTileRow {
  ConvTileFn fn[kTilePixels];
};
template <int N, class S, int... P>
constexpr ConvTileRow conv_tile_row(std::integer_sequence<int, P...>) {
  return {{conv_tile<P + 1, N, S>...}};
}
template <class S>
inline constexpr ConvTileRow kConvTiles[] = {
    conv_tile_row<1, S>(std::make_integer_sequence<int, kTilePixels>()),
#if RSKIP_TILE_BLOCKS >= 2
    conv_tile_row<2, S>(std::make_integer_sequence<int, kTilePixels>()),
#endif
};

// Rows of pixels as the tiles see them. A 1x1 convolution between maps without halo is one long row.
struct ConvRows {
  int rows, width;
  ptrdiff_t x_row, pixel;  // floats between rows and pixels of x under neighbouring outputs
  bool flat;
};

inline bool read_same_channels(const ConvBlock& a, const ConvBlock& b) {
  return a.first_block == b.first_block && a.blocks == b.blocks && a.last_channels == b.last_channels;
}

// Whether output blocks (0, 1), (2, 3), ... can share a tile.
inline bool blocks_pair_up(const std::vector<ConvBlock>& blocks) {
  for (size_t b = 1; b < blocks.size(); b += 2) {
    if (!read_same_channels(blocks[b - 1], blocks[b])) return false;
  }
  return kTileBlocks == 2;
}

// The order of one share of a convolution's tiles: in chunks, and within each chunk all groups of output blocks. A
// chunk is the whole share unless the map's input is too large for a second-level cache and the weights are not.
//
// Workers share the tiles where the weights, which each of them then reads, are no more than input and output, which
// then stay in the cache of one core from layer to layer; otherwise the groups.
struct ConvOrder {
  int64_t first_tile = 0, tiles, groups, chunk, begin, end;  // of the share; begin and end in units: a tile of a group
  template <class Args>
  ConvOrder(const Args& args, int64_t all_tiles, int64_t groups, int part, int parts)
      : tiles(all_tiles), groups(groups), chunk(all_tiles) {
    const ConvShape& s = args.conv->shape;
    const bool planar = reads_planar(args.conv->algorithm);
    const int64_t whole = planar ? args.x_planar.plane_stride * s.in_channels : args.x.block_stride * args.x.blocks();
    const int64_t input = whole * rows_of(args) / s.out_height;
    const int64_t weights = static_cast<int64_t>(args.conv->weights.size());
    constexpr int64_t kMax = (256 << 10) / sizeof(*args.y.data);
    if (!planar && s.groups == 1 && groups > 1 && input > 2 * kMax && weights <= 2 * kMax) {
      chunk = std::max<int64_t>(8, all_tiles * kMax / input);
    }
    const int64_t output = static_cast<int64_t>(args.y.block_stride) * args.y.blocks();
    if (s.groups == 1 && weights <= input + output && shares_evenly(all_tiles, parts)) {
      first_tile = part_begin(all_tiles, part, parts);
      tiles = part_begin(all_tiles, part + 1, parts) - first_tile;
      chunk = std::min(chunk, tiles);
      part = 0;
      parts = 1;
    }
    begin = part_begin(tiles * groups, part, parts);
    end = part_begin(tiles * groups, part + 1, parts);
  }
  // The run of tiles of one group that starts at `unit`.
  struct Run {
    int group;
    int64_t begin, end;
  };
  Run at(int64_t unit) const {
    const int64_t first = unit / (chunk * groups) * chunk;
    const int64_t size = std::min(chunk, tiles - first);
    const int64_t rest = unit - first * groups;
    return {static_cast<int>(rest / size), first_tile + first + rest % size, first_tile + first + size};
  }
};

// The types and tiles of convolutions on floats; Tiles8 in conv8-inl.h are those on 8-bit numbers.
struct FloatTiles {
  using Args = ConvArgs;
  using Element = float;
  using Tile = ConvTile;
  using TileFn = ConvTileFn;
  static constexpr int kPixels = kTilePixels;  // at most
  static constexpr int pixels(ptrdiff_t stride) { return FloatStrides::pixels(stride, kTilePixels); }
  static constexpr int kStep = 1;  // elements of the input that one step of k takes
  static constexpr bool kTapsFirst = false;  // whether kDirect reads all blocks of a tap before the next tap
  static bool leaves_rows_out(const ConvArgs&) { return false; }
  static Epilogue epilogue_of(const ConvArgs& args) { return RSKIP_ISA::epilogue_of(args.act); }
  static void set_block(ConvTile& t, const PackedConv& conv, int b) { t.bias = conv.bias.data() + b * kLanes; }
  static float* output_block(const ConvArgs& args, int b, TileOutput&) { return args.y.data + b * args.y.block_stride; }
  // For n blocks, of the last of which `lanes` are in use.
  static const TileFn* tiles(int n, int) { return kConvTiles<FloatStrides>[n - 1].fn; }
};

// The taps of windows along one axis, of which the first begins at `first` and the last `reach` behind it, that are inside
// [0, size) for any of them.
inline Share<int> taps_inside(int64_t first, int64_t reach, int kernel, int64_t dilation, int64_t size) {
  const int64_t before = -(first + reach);
  const int64_t begin = before <= 0 ? 0 : (before + dilation - 1) / dilation;
  const int64_t end = first >= size ? 0 : std::min<int64_t>(kernel, (size - 1 - first) / dilation + 1);
  return begin < end ? Share<int>{static_cast<int>(begin), static_cast<int>(end)} : Share<int>{0, 0};
}

// Of a tile of a dilated convolution, whose halo is wide, the taps that are in the halo are left out.
inline void leave_taps_out(const ConvShape& s, int row, int column, int pixels, Walk& walk, ConvTile& t) {
  const auto [top, bottom] =
      taps_inside(int64_t{row} * s.stride_h - s.pad.top, 0, s.kernel_h, s.dilation_h, s.in_height);
  const auto [left, right] = taps_inside(int64_t{column} * s.stride_w - s.pad.left, int64_t{pixels - 1} * s.stride_w,
                                         s.kernel_w, s.dilation_w, s.in_width);
  walk.n1 = bottom - top;
  walk.n2 = right - left;
  walk.between = s.kernel_w - walk.n2;
  walk.before = top * s.kernel_w + left;
  walk.behind = s.kernel_h * s.kernel_w - walk.before - walk.n1 * s.kernel_w;
  t.x += top * walk.s1 + left * walk.s2;
}

// The same of rows of taps alone, where each of `tap` weights is read before the next tap: they are the outer loop then.
template <class Tile>
void leave_rows_out(const ConvShape& s, int row, ptrdiff_t tap, Walk& walk, Tile& t) {
  const auto [top, bottom] = taps_inside(int64_t{row} * s.stride_h - s.pad.top, 0, s.kernel_h, s.dilation_h, s.in_height);
  walk.n0 = bottom - top;
  t.x += top * walk.s0;
  t.w += top * s.kernel_w * tap;
}

// Fewer floats of weights than this are asked for while those of the group of blocks before are in use: a second-level cache holds both.
inline constexpr ptrdiff_t kMostAhead = (256 << 10) / sizeof(float);

// Runs part of the tiles of a convolution whose taps start at x0 for output (0, 0). Strides are in elements.
template <class Tiles>
void conv_tiles_run(const typename Tiles::Args& args, const typename Tiles::Element* x0, ptrdiff_t x_block,
                    ConvRows rows, Walk walk, int part, int parts) {
  using Element = typename Tiles::Element;
  const auto& conv = *args.conv;
  const Blocked<Element>& y = args.y;
  const auto epilogue = Tiles::epilogue_of(args);
  if (rows.flat && !(dense(y) && (args.residual == nullptr || dense(*args.residual)))) {
    rows = {rows_of(args), y.width, y.width * rows.pixel, rows.pixel, false};
  }
  // Products with a halo of zeros change no sum of floats.
  constexpr bool kFloats = std::is_base_of_v<FloatTiles, Tiles>;
  walk.leaves_out = kFloats && !rows.flat && conv.algorithm == ConvAlgorithm::kDirect &&
                          (conv.shape.dilation_h > 1 || conv.shape.dilation_w > 1);
  const bool leaves_rows_out = Tiles::leaves_rows_out(args) && !rows.flat;
  // A tile of a whole row would need all taps; one of half a row leaves one out at least.
  const bool halves = walk.leaves_out && 2 * conv.shape.dilation_w >= rows.width;
  const int most = Tiles::pixels(rows.pixel);
  const Split columns(rows.width, halves ? std::min(most, (rows.width + 1) / 2) : most);
  const int blocks = static_cast<int>(conv.blocks.size());
  const int group_blocks = blocks_pair_up(conv.blocks) ? 2 : 1;
  const ConvOrder order(args, static_cast<int64_t>(rows.rows) * columns.chunks,
                        (blocks + group_blocks - 1) / group_blocks, part, parts);

  typename Tiles::Tile t;
  t.stride = rows.pixel;
  t.walk = &walk;
  t.epilogue = &epilogue;
  t.out.y_block = y.block_stride;
  t.out.residual_block = args.residual == nullptr ? 0 : args.residual->block_stride;
  for (int64_t unit = order.begin; unit < order.end;) {
    const ConvOrder::Run run = order.at(unit);
    const int64_t tile_end = std::min(run.end, run.begin + order.end - unit);
    unit += tile_end - run.begin;
    const int b = run.group * group_blocks;
    const int n = std::min(group_blocks, blocks - b);
    const ConvBlock& block = conv.blocks[b];
    if (conv.algorithm != ConvAlgorithm::kPlanar) {
      (Tiles::kTapsFirst ? walk.n2 : walk.n0) = block.blocks;
      walk.inner_last = (block.last_channels + Tiles::kStep - 1) / Tiles::kStep;
    }
    const auto* const w = conv.weights.data() + block.offset;
    t.w = w;
    t.w_block = n == 1 ? 0 : static_cast<ptrdiff_t>(conv.blocks[b + 1].offset - block.offset);
    Tiles::set_block(t, conv, b);
    const auto fns = Tiles::tiles(n, std::min(kLanes, y.channels - (b + n - 1) * kLanes));
    // The second tile finds its weights in the cache, and asks for those of the next group.
    [[maybe_unused]] const ptrdiff_t next = b + n < blocks ? conv.blocks[b + n].offset - block.offset : 0;
    if constexpr (kFloats) t.ahead = FetchOwn::kAhead;
    const Element* x = x0 + block.first_block * x_block;
    Element* y_base = Tiles::output_block(args, b, t.out);
    const Element* residual_base = args.residual == nullptr ? nullptr : args.residual->data + b * t.out.residual_block;
    [[maybe_unused]] int64_t raw = 0;  // the first pixel that waits for its activation
    for (int64_t tile = run.begin; tile < tile_end; ++tile) {
      const int row = static_cast<int>(tile / columns.chunks);
      const int chunk = static_cast<int>(tile % columns.chunks);
      const int column = columns.begin(chunk);
      const int pixels = columns.size(chunk);
      t.x = x + row * rows.x_row + column * rows.pixel;
      if constexpr (kFloats) {
        if (walk.leaves_out) leave_taps_out(conv.shape, row, column, pixels, walk, t);
      } else if (leaves_rows_out) {
        t.w = w;
        const int steps = (walk.n2 - 1) * walk.inner + walk.inner_last;
        leave_rows_out(conv.shape, row, ptrdiff_t{steps} * Tiles::kStep * kLanes, walk, t);
      }
      t.out.y = y_base + row * y.row_stride + column * kLanes;
      if (residual_base != nullptr) t.out.residual = residual_base + row * args.residual->row_stride + column * kLanes;
      fns[pixels - 1](t);
      if constexpr (kFloats) {
        t.ahead = tile == run.begin && next > 0 && next < kMostAhead ? next : FetchOwn::kAhead;
        const int64_t stored = int64_t{row} * rows.width + column;
        if (tile == run.begin) raw = stored;
        if (epilogue.clamp_only || (stored + pixels < raw + kActivatedPixels && tile + 1 < tile_end)) continue;
        activate_pixels(y, b, n, raw, stored + pixels, epilogue.act);
        raw = stored + pixels;
      }
    }
  }
}

}  // namespace rskip::RSKIP_ISA
