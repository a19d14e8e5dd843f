// Products of bfloat16 where the processor multiplies matrices: tiles of up to 32 pixels, or rows of a matrix, by two blocks of columns.
// Their sums are stored, and finished as those in registers are while the next tile is multiplied.
#pragma once

#include "kernels/bfloat16/kernels16-inl.h"
#include "simd/matrix_amx-inl.h"

namespace rskip::RSKIP_ISA {

// What a tile reads: two halves of so many rows, and weights. Distances are in floats.
struct MatrixTile16 {
  const float *x[2];
  int rows[2];
  ptrdiff_t stride;  // between rows
  const float* w;
  ptrdiff_t w_block;
  ptrdiff_t ahead = 0;  // of w: weights that are prefetched, or 0 for none
  const float* bias;
};
// Rows that follow each other, as tiles of one size, for which the registers are configured once. The last one may overlap the one
// before.
struct NeighbouringRows {
  int64_t rows, count;
  int size;
  explicit NeighbouringRows(int64_t rows)
      : rows(rows), count((rows + kMatrixTileRows - 1) / kMatrixTileRows), size(static_cast<int>((rows + count - 1) / count)) {}
  int64_t begin(int64_t i) const { return std::min(i * size, rows - size); }
  // Of a tile, the first row that the one before doesn't have.
  int own(int64_t i) const { return static_cast<int>(i * size - begin(i)); }
  MatrixTile16 tile(int64_t i, const float* x, ptrdiff_t stride) const {
    MatrixTile16 t;
    t.stride = stride;
    t.rows[0] = size <= kMatrixRows ? size : (size + 1) / 2;
    t.rows[1] = size - t.rows[0];
    t.x[0] = x + begin(i) * stride;
    t.x[1] = t.x[0] + t.rows[0] * stride;
    return t;
  }
};

template <int N>
RSKIP_INLINE void fetch_weights(const float* w, ptrdiff_t w_block) {
  for (int i = 0; i < kMatrixSteps; ++i) {
    RSKIP_UNROLL(2) for (int n = 0; n < N; ++n) __builtin_prefetch(w + i * kLanes + n * w_block, 0, 2);
  }
}

template <int kHalves, int N>
[[gnu::noinline]] void sum_tile16(const MatrixTile16& t, const Walk& walk) {
  constexpr ptrdiff_t kFloat = sizeof(float);
  const ptrdiff_t stride = t.stride * kFloat, half = (t.x[1] - t.x[0]) * kFloat, w_block = t.w_block * kFloat;
  load_sums<kHalves, N>(t.bias, 0);
  const float* w = t.w;
  // If there are several blocks of pairs, all of them are whole.
  const ptrdiff_t step = static_cast<ptrdiff_t>(walk.inner_last) * kLanes;
  for (int i0 = 0; i0 < walk.n0; ++i0) {
    const float* x1 = t.x[0] + i0 * walk.s0;
    for (int i1 = 0; i1 < walk.n1; ++i1, x1 += walk.s1) {
      const float* x2 = x1;
      for (int i2 = 0; i2 < walk.n2; ++i2, x2 += walk.s2, w += step) {
        add_matrix_products<true, kHalves, N>(x2, half, stride, w, w_block);
        if (t.ahead != 0) fetch_weights<N>(w + t.ahead, t.w_block);
      }
    }
  }
}

template <int P, int N, bool kPairs>
RSKIP_INLINE void finish_some16(const Vec* sums, const TileOutput& to, const Epilogue& epilogue) {
  Vec acc[P][N];
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = sums[p * N + n];
  }
  if constexpr (kPairs) {
    tile_finish(acc, to, epilogue);
    float* y = to.y;
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p, y += kLanes) store(y, to_pairs(acc[p][0], N == 2 ? acc[p][N - 1] : splat(0)));
  } else {
    tile_store(acc, to, epilogue);
  }
}
// kPairs: into a map of pairs.
template <int N, bool kPairs = false>
RSKIP_INLINE void finish_rows16(const Vec* sums, int rows, TileOutput to, const Epilogue& epilogue) {
  constexpr int kRows = 4;
  const auto advance = [&](int count) __attribute__((always_inline)) {
    sums += count * N;
    to.y += count * to.pixel;
    if (to.residual != nullptr) to.residual += count * to.pixel;
  };
  for (; rows >= kRows; rows -= kRows, advance(kRows)) finish_some16<kRows, N, kPairs>(sums, to, epilogue);
  for (; rows > 0; --rows, advance(1)) finish_some16<1, N, kPairs>(sums, to, epilogue);
}

// For each i in [begin, end), tile(i) says what the i-th tile of a group reads, and finish(i, sums) takes its sums. `next` is the distance
// to the next group's weights, or 0 if there is none.
template <int N, class TileOf, class Finish>
RSKIP_INLINE void each_tile16(int64_t begin, int64_t end, ptrdiff_t next, const Walk& walk, int& configured, const TileOf& tile,
                              const Finish& finish) {
  constexpr ptrdiff_t kOwnAhead = 128 * kLanes;
  Vec sums[kMatrixTileRows * N];
  for (int64_t i = begin; i < end; ++i) {
    MatrixTile16 t = tile(i);
    // The first tile reads the group's weights into the cache; the second prefetches those of the next group.
    t.ahead = i == begin ? kOwnAhead : i == begin + 1 ? next : 0;
    configure_matrices(t.rows[0], t.rows[1], walk.inner_last, configured);
    t.rows[1] > 0 ? sum_tile16<2, N>(t, walk) : sum_tile16<1, N>(t, walk);
    if (i > begin) finish(i - 1, sums);
    t.rows[1] > 0 ? store_sums<2, N>(sums, t.rows[0]) : store_sums<1, N>(sums);
  }
  if (begin < end) finish(end - 1, sums);
}

// The pixels of a band of rows, tile by tile. If the distance between rows is a whole number of pixels and the gaps are small, tiles run
// through rows and gaps alike; otherwise the two halves of a tile belong to two rows.
class PixelTiles16 {
 public:
  PixelTiles16(const ConvRows& rows, int height, int width)
      : rows_(rows),
        height_(height),
        width_(width),
        pitch_(rows.flat ? width : static_cast<int>(rows.x_row / rows.pixel)),
        positions_(int64_t{height - 1} * pitch_ + width) {
    runs_ = rows.flat || (rows.x_row % rows.pixel == 0 && 4 * (pitch_ - width) <= width + 4);
    columns_ = (width + kMatrixRows - 1) / kMatrixRows;
  }
  int64_t count() const { return runs_ ? positions_.count : int64_t{(height_ + 1) / 2} * columns_; }
  MatrixTile16 operator()(int64_t i, const float* x) const {
    if (runs_) return positions_.tile(i, x, rows_.pixel);
    MatrixTile16 t;
    t.stride = rows_.pixel;
    const Split columns(width_, kMatrixRows);
    const int row = static_cast<int>(i / columns_) * 2, chunk = static_cast<int>(i % columns_);
    t.x[0] = x + row * rows_.x_row + columns.begin(chunk) * rows_.pixel;
    t.x[1] = t.x[0] + rows_.x_row;
    t.rows[0] = columns.size(chunk);
    t.rows[1] = row + 1 < height_ ? t.rows[0] : 0;
    return t;
  }
  // fn(first row of the tile's sums, row, column, pixels) for each run of pixels in a row.
  template <class F>
  RSKIP_INLINE void each_run(int64_t i, const F& fn) const {
    if (!runs_) {
      const Split columns(width_, kMatrixRows);
      const int row = static_cast<int>(i / columns_) * 2, chunk = static_cast<int>(i % columns_);
      for (int half = 0; half < 2 && row + half < height_; ++half) {
        fn(half * columns.size(chunk), row + half, columns.begin(chunk), columns.size(chunk));
      }
      return;
    }
    const int64_t begin = positions_.begin(i), end = begin + positions_.size, first = begin + positions_.own(i);
    int row = static_cast<int>(first / pitch_), column = static_cast<int>(first % pitch_);
    for (int64_t at = first; at < end; at += pitch_ - column, column = 0, ++row) {
      const int pixels = static_cast<int>(std::min<int64_t>(width_ - column, end - at));
      if (pixels > 0) fn(static_cast<int>(at - begin), row, column, pixels);
    }
  }

 private:
  ConvRows rows_;
  int height_, width_, pitch_;
  NeighbouringRows positions_;
  int columns_;
  bool runs_;
};

struct Tiles16Amx : FloatTiles {
  static constexpr Precision kPrecision = Precision::kBfloat16Amx;

  RSKIP_INLINE static void interleave(Vec (&v)[kStemChannels]) {
    // Of each quarter of four lanes one pixel after the other, then the quarters.
    const __m512 low01 = _mm512_unpacklo_ps(v[0].v, v[1].v), high01 = _mm512_unpackhi_ps(v[0].v, v[1].v);
    const __m512 low23 = _mm512_unpacklo_ps(v[2].v, v[3].v), high23 = _mm512_unpackhi_ps(v[2].v, v[3].v);
    const __m512 quad[] = {_mm512_shuffle_ps(low01, low23, 0x44), _mm512_shuffle_ps(low01, low23, 0xee),
                           _mm512_shuffle_ps(high01, high23, 0x44), _mm512_shuffle_ps(high01, high23, 0xee)};
    const __m512 a = _mm512_shuffle_f32x4(quad[0], quad[1], 0x44), b = _mm512_shuffle_f32x4(quad[2], quad[3], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(quad[0], quad[1], 0xee), d = _mm512_shuffle_f32x4(quad[2], quad[3], 0xee);
    v[0] = {_mm512_shuffle_f32x4(a, b, 0x88)};
    v[1] = {_mm512_shuffle_f32x4(a, b, 0xdd)};
    v[2] = {_mm512_shuffle_f32x4(c, d, 0x88)};
    v[3] = {_mm512_shuffle_f32x4(c, d, 0xdd)};
  }

  static void run(const ConvArgs& args, const float* x, ptrdiff_t, const ConvRows& rows, Walk walk, int part, int parts) {
    const PackedConv& conv = *args.conv;
    const BlockedView& y = args.y;
    const Epilogue epilogue = epilogue_of(args);
    const PixelTiles16 tiles(rows, rows_of(args), y.width);
    const int blocks = static_cast<int>(conv.blocks.size());
    const ConvOrder order(args, tiles.count(), (blocks + kTileBlocks - 1) / kTileBlocks, part, parts);
    walk.n0 = conv.blocks[0].blocks;
    walk.inner_last = conv.blocks[0].last_channels;
    int configured = 0;
    for (int64_t unit = order.begin; unit < order.end;) {
      const ConvOrder::Run run = order.at(unit);
      const int64_t end = std::min(run.end, run.begin + order.end - unit);
      unit += end - run.begin;
      const int b = run.group * kTileBlocks, n = std::min(kTileBlocks, blocks - b);
      const auto offset = [&](int block) { return static_cast<ptrdiff_t>(conv.blocks[block].offset - conv.blocks[b].offset); };
      const auto tile = [&](int64_t i) {
        MatrixTile16 t = tiles(i, x);
        t.w = conv.weights.data() + conv.blocks[b].offset;
        t.w_block = n == 1 ? 0 : offset(b + 1);
        t.bias = conv.bias.data() + b * kLanes;
        return t;
      };
      const auto finish = [&](auto count) {
        return [&, count](int64_t i, const Vec* sums) {
          tiles.each_run(i, [&](int first, int row, int column, int pixels) {
            TileOutput to;
            to.y = RSKIP_ISA::output_block(args, b) + row * y.row_stride + column * kLanes;
            to.y_block = y.block_stride;
            if (args.residual != nullptr) {
              const BlockedView& r = *args.residual;
              to.residual = r.data + b * r.block_stride + row * r.row_stride + column * kLanes;
              to.residual_block = r.block_stride;
            }
            const Vec* own = sums + first * count();
            args.y_pairs ? finish_rows16<count(), true>(own, pixels, to, epilogue) : finish_rows16<count()>(own, pixels, to, epilogue);
            const int64_t pixel = int64_t{row} * y.width + column;
            if (!epilogue.clamp_only) activate_pixels(y, b, count(), pixel, pixel + pixels, epilogue.act);
          });
        };
      };
      const ptrdiff_t next = b + n < blocks ? offset(b + n) : 0;
      const auto each = [&](auto count) {
        each_tile16<count()>(run.begin, end, next, walk, configured, tile, finish(count));
      };
      n == 2 ? each(std::integral_constant<int, 2>()) : each(std::integral_constant<int, 1>());
    }
    release_matrices();
  }

  static void multiply(const PairsProduct& p, int begin, int end) {
    const Walk walk = p.walk(packed_pairs(p.k, kPrecision));
    const ptrdiff_t w_block = static_cast<ptrdiff_t>(packed_pairs(p.k, kPrecision)) * kLanes;
    const int64_t tiles = (p.m + kMatrixTileRows - 1) / kMatrixTileRows;
    int configured = 0;
    for (int group = begin; group < end; ++group) {
      const int b = group * kTileBlocks, n = std::min(kTileBlocks, channel_blocks(p.n) - b);
      const int lanes = std::min(kLanes, p.n - (b + n - 1) * kLanes);
      const auto tile = [&](int64_t i) {
        const int first = static_cast<int>(i) * kMatrixTileRows, count = std::min(kMatrixTileRows, p.m - first);
        MatrixTile16 t;
        t.stride = kLanes;
        t.x[0] = p.rows + static_cast<ptrdiff_t>(first) * kLanes;
        t.x[1] = t.x[0] + kMatrixRows * kLanes;
        t.rows[0] = std::min(count, kMatrixRows);
        t.rows[1] = count - t.rows[0];
        t.w = p.weights + b * w_block;
        t.w_block = w_block;
        t.bias = p.bias_of(b);
        return t;
      };
      const auto finish = [&](auto count) {
        return [&, count](int64_t i, const Vec* sums) {
          const int first = static_cast<int>(i) * kMatrixTileRows, rows = std::min(kMatrixTileRows, p.m - first);
          const TileOutput out = p.output(first, b);
          const auto whole = [&](const TileOutput& to) { finish_rows16<count()>(sums, rows, to, *p.epilogue); };
          lanes == kLanes ? whole(out) : by_whole_blocks<kMatrixTileRows>(out, rows, count(), lanes, whole);
          p.activate(out.y, rows, (count() - 1) * kLanes + lanes);
        };
      };
      const auto each = [&](auto count) {
        each_tile16<count()>(0, tiles, group + 1 < end ? n * w_block : 0, walk, configured, tile, finish(count));
      };
      n == 2 ? each(std::integral_constant<int, 2>()) : each(std::integral_constant<int, 1>());
    }
    release_matrices();
  }
};

}  // namespace rskip::RSKIP_ISA
