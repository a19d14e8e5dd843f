// Matrix products: k in one order, so results don't depend on m, tiles or threads. Long sums are made of several chains: the
// error of one chain grows with the root of its length.
#pragma once

#include <array>
#include <type_traits>
#include <utility>

#include "kernels/matrix/pack.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

struct GemmTile {
  const float* a;
  const float* w;                    // [block][k][16]
  const uint16_t* halves = nullptr;  // instead of w: bfloat16
  const int32_t* words = nullptr;    // or whole numbers in bytes, times the scale of their k, or of rows that are multiplied by it
  const float* scales = nullptr;
  const float* bias;
  float* y;
  const float* residual;  // strides are those of y
  ptrdiff_t a_stride, y_stride;
  int k, columns;   // columns: real ones of the tile's blocks
  bool fetches;     // whether no other tile has just read the weights
  ptrdiff_t ahead;  // of w: weights that a later tile reads
  const Epilogue* epilogue;
};
using GemmTileFn = void (*)(const GemmTile&);
// Most products in one chain of multiply-adds.
inline constexpr int kGemmChain = 4096;

RSKIP_INLINE void weights_of(const GemmTile& t, const float*& w) { w = t.w; }
RSKIP_INLINE void weights_of(const GemmTile& t, const uint16_t*& w) { w = t.halves; }
RSKIP_INLINE void weights_of(const GemmTile& t, const int32_t*& w) { w = t.words; }

// acc += x * weights for byte J of N words.
template <int J, bool kScaled, int N>
RSKIP_INLINE void step_of_bytes(Vec (&acc)[1][N], const float* x, const int32_t* w, ptrdiff_t w_block, const float* scales) {
#if defined(__GNUC__)
  // The compiler would keep words from step to step, even where there are too few registers for them beside the sums.
  if constexpr (2 * N > kTilePixels * kTileBlocks) __asm__ volatile("" : "+r"(w));
#endif
  // One after the other: all weights together would take too many, too.
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
    Vec weight[1] = {to_float(byte_on_top<J>(load_words(w + n * w_block)))}, sum[1] = {acc[0][n]};
    if constexpr (kScaled) weight[0] = weight[0] * splat(scales[J]);
    add_products(sum, x + J, weight);
    acc[0][n] = sum[0];
  }
}

// As tile_sum, for one row by weights that are whole numbers times a scale, which is exactly what they are as floats.
template <bool kScaled, int N>
RSKIP_INLINE void tile_sum_of_bytes(Vec (&acc)[1][N], const float* x, const int32_t* w, ptrdiff_t w_block, const float* scales,
                                    int k) {
  for (; k > 0; k -= kWordBytes, x += kWordBytes, scales += kScaled ? kWordBytes : 0, w += kLanes) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) __builtin_prefetch(w + n * w_block + kPrefetch / 2, 0, 2);
    step_of_bytes<0, kScaled>(acc, x, w, w_block, scales);
    if (k > 1) step_of_bytes<1, kScaled>(acc, x, w, w_block, scales);
    if (k > 2) step_of_bytes<2, kScaled>(acc, x, w, w_block, scales);
    if (k > 3) step_of_bytes<3, kScaled>(acc, x, w, w_block, scales);
  }
}

// x times the scales, if that is exact, as it is but for very small and very large numbers. Then the products of these by whole numbers
// are those of x by weights.
inline bool scale_exactly(const float* x, const float* scales, int k, float* to) {
  bool exact = true;
  for (int i = 0; i < k; ++i) {
    to[i] = x[i] * scales[i];
    constexpr uint32_t kOne = 0x3f800000;
    const float back = std::bit_cast<float>(2 * kOne - std::bit_cast<uint32_t>(scales[i]));
    exact &= to[i] * back == x[i];
  }
  return exact;
}

template <int P, int N>
RSKIP_INLINE void tile_zero(Vec (&acc)[P][N]) {
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = splat(0);
  }
}

// Between the first words of a block, and those of its k.
constexpr ptrdiff_t word_offset(int k) { return static_cast<ptrdiff_t>(k + kWordBytes - 1) / kWordBytes * kLanes; }

// The chain of products that begins with k = first.
template <int P, int N, bool kFetch, class W>
RSKIP_INLINE void gemm_chain(Vec (&acc)[P][N], const GemmTile& t, int first) {
  const int length = std::min(kGemmChain, t.k - first);
  const W* w;
  weights_of(t, w);
  if constexpr (std::is_same_v<W, int32_t>) {
    w += word_offset(first);
    if (t.scales == nullptr) tile_sum_of_bytes<false>(acc, t.a + first, w, word_offset(t.k), nullptr, length);
    else tile_sum_of_bytes<true>(acc, t.a + first, w, word_offset(t.k), t.scales + first, length);
  } else {
    w += static_cast<ptrdiff_t>(first) * kLanes;
    const ptrdiff_t w_block = static_cast<ptrdiff_t>(t.k) * kLanes;
    Walk walk;
    walk.inner = walk.inner_last = length;
    tile_sum<P, N, 0, kFetch>(acc, t.a + first, t.a_stride, w, w_block, walk, kFetch ? kPrefetch : t.ahead);
  }
}

// P rows of A by N blocks of columns, of which only the last may have fewer than 16.
template <int P, int N, class W>
[[gnu::noinline]] void gemm_tile(const GemmTile& t) {
  Vec acc[P][N];
  if (t.bias != nullptr) tile_bias(acc, t.bias);
  else tile_zero(acc);
  // The chains so far are in memory, where they leave the registers to the next one.
  float chains[P * N * kLanes];
  for (int first = 0;; tile_zero(acc)) {
    if (P == 1 || t.fetches) gemm_chain<P, N, true, W>(acc, t, first);
    else gemm_chain<P, N, false, W>(acc, t, first);
    if (first > 0) {
      RSKIP_UNROLL(32) for (int i = 0; i < P * N; ++i) acc[i / N][i % N] = load(chains + i * kLanes) + acc[i / N][i % N];
    }
    first += kGemmChain;
    if (first >= t.k) break;
    RSKIP_UNROLL(32) for (int i = 0; i < P * N; ++i) store(chains + i * kLanes, acc[i / N][i % N]);
  }
  // A copy, or the compiler would read it again after every store.
  const GemmTile to = t;
  const Epilogue epilogue = *t.epilogue;
  const Vec low = splat(epilogue.low), high = splat(epilogue.high);
  const int lanes = to.columns - (N - 1) * kLanes;
  if (to.residual != nullptr) {
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      const float* residual = to.residual + p * to.y_stride;
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n, residual += kLanes) {
        acc[p][n] = acc[p][n] + (n + 1 < N || lanes >= kLanes ? load(residual) : load_first(residual, lanes));
      }
    }
  }
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    float* y = to.y + p * to.y_stride;
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n, y += kLanes) {
      const Vec value = min(high, max(low, acc[p][n]));
      if (n + 1 < N || lanes >= kLanes) store(y, value);
      else store_first(y, value, lanes);
    }
  }
  if (epilogue.clamp_only) return;
  for (int p = 0; p < P; ++p) {
    float* const y = to.y + p * to.y_stride;
    RSKIP_BASE::unary_span(y, y, static_cast<size_t>(std::min(N * kLanes, to.columns)), epilogue.act);
  }
}

// Tiles of so many blocks by 1, 2, ... rows.
template <int kRows>
struct GemmTiles {
  GemmTileFn fn[kRows];
};
template <int N, class W, int... P>
constexpr GemmTiles<sizeof...(P)> gemm_tiles(std::integer_sequence<int, P...>) {
  return {{gemm_tile<P + 1, N, W>...}};
}
template <int kRows, class W, int... N>
constexpr std::array<GemmTiles<kRows>, sizeof...(N)> gemm_tile_table(std::integer_sequence<int, N...>) {
  return {{gemm_tiles<N + 1, W>(std::make_integer_sequence<int, kRows>())...}};
}
inline constexpr auto kGemmTiles = gemm_tile_table<kGemmRows, float>(std::make_integer_sequence<int, kGemmBlocks>());
// One row of A: many blocks at once, or the latency of the multiply-adds would show.
template <class W>
inline constexpr auto kGemvTiles = gemm_tile_table<1, W>(std::make_integer_sequence<int, kGemvBlocks>());

// m rows by the blocks of `whole`, whose `columns` are all of theirs.
inline void multiply_tiles(const GemmTile& whole, int m) {
  const Split rows(m, kGemmRows);
  const Split columns(channel_blocks(whole.columns), m == 1 ? kGemvBlocks : kGemmBlocks);
  GemmTile t = whole;
  for (int c = 0; c < columns.chunks; ++c) {
    const ptrdiff_t first = static_cast<ptrdiff_t>(columns.begin(c)) * kLanes;
    const int n = columns.size(c);
    if (whole.words != nullptr) t.words = whole.words + columns.begin(c) * word_offset(t.k);
    else if (whole.halves != nullptr) t.halves = whole.halves + first * t.k;
    else t.w = whole.w + first * t.k;
    t.bias = whole.bias == nullptr ? nullptr : whole.bias + first;
    t.columns = whole.columns - static_cast<int>(first);
    for (int r = 0; r < rows.chunks; ++r) {
      const ptrdiff_t row = rows.begin(r);
      t.a = whole.a + row * t.a_stride;
      t.y = whole.y + row * t.y_stride + first;
      t.residual = whole.residual == nullptr ? nullptr : whole.residual + row * t.y_stride + first;
      // The last tiles fetch a block each of the next columns.
      const int block = std::max(0, n - (rows.chunks - r));
      t.ahead = static_cast<ptrdiff_t>(n + block) * kLanes * t.k;
      t.fetches = r == 0;
      if (m > 1) kGemmTiles[n - 1].fn[rows.size(r) - 1](t);
      else if (t.words != nullptr) kGemvTiles<int32_t>[n - 1].fn[0](t);
      else if (t.halves != nullptr) kGemvTiles<uint16_t>[n - 1].fn[0](t);
      else kGemvTiles<float>[n - 1].fn[0](t);
    }
  }
}

// Shares are runs of whole column blocks.
inline void gemm(const GemmArgs& args, int part, int parts) {
  const PackedGemm& g = *args.gemm;
  const Epilogue epilogue = epilogue_of(args.act);
  const auto [begin, end] = share_of(g.blocks(), part, parts);
  if (begin == end || args.m == 0) return;
  const ptrdiff_t first = static_cast<ptrdiff_t>(begin) * kLanes;
  GemmTile t;
  t.a = args.a;
  if (g.words.size() > 0) {
    t.words = g.words.data() + begin * word_offset(g.k);
    float* const scaled = static_cast<float*>(args.scratch);
    if (scale_exactly(args.a, g.scales.data(), g.k, scaled)) t.a = scaled;
    else t.scales = g.scales.data();
  } else if (g.halves.size() > 0) t.halves = g.halves.data() + first * g.k;
  else t.w = g.weights.data() + first * g.k;
  t.bias = g.bias.data() + first;
  t.y = args.y + first;
  t.residual = args.residual == nullptr ? nullptr : args.residual + first;
  t.a_stride = t.k = g.k;
  t.y_stride = g.n;
  t.columns = std::min(g.n, end * kLanes) - static_cast<int>(first);
  t.epilogue = &epilogue;
  multiply_tiles(t, args.m);
}

// [ceil(n / 16)][k][16] of the matrix whose element (i, j) is at b[i * row + j * column]; zeros beyond its last column.
inline void pack_columns(const float* b, int k, int n, ptrdiff_t row, ptrdiff_t column, float* to) {
  for (int first = 0; first < n; first += kLanes, b += kLanes * column) {
    const int lanes = std::min(kLanes, n - first);
    int i = 0;
    if (column == 1) {
      if (lanes == kLanes) {
        for (; i < k; ++i, to += kLanes) store(to, load(b + i * row));
      }
      for (; i < k; ++i, to += kLanes) store(to, load_first(b + i * row, lanes));
      continue;
    }
    for (; row == 1 && lanes == kLanes && i + kLanes <= k; i += kLanes) {
      Vec rows[kLanes];
      RSKIP_UNROLL(16) for (int j = 0; j < kLanes; ++j) rows[j] = load(b + i + j * column);
      transpose(rows);
      RSKIP_UNROLL(16) for (int j = 0; j < kLanes; ++j, to += kLanes) store(to, rows[j]);
    }
    for (; i < k; ++i, to += kLanes) {
      for (int lane = 0; lane < lanes; ++lane) to[lane] = b[i * row + lane * column];
      for (int lane = lanes; lane < kLanes; ++lane) to[lane] = 0;
    }
  }
}

// Shares are panels of columns, of all products one after the other.
inline void products(const ProductsArgs& args, int part, int parts) {
  const Epilogue epilogue = epilogue_of({});
  constexpr int kPanel = kProductColumns;
  const int panels = (args.n + kPanel - 1) / kPanel;
  const auto [begin, end] = share_of(args.count * panels, part, parts);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t which = unit / panels, first = unit % panels * kPanel;
    GemmTile t;
    t.columns = static_cast<int>(std::min<int64_t>(kPanel, args.n - first));
    pack_columns(args.b + args.offsets[3 * which + 1] + first * args.b_column, args.k, t.columns, args.b_row,
                 args.b_column, args.scratch);
    t.a = args.a + args.offsets[3 * which];
    t.w = args.scratch;
    t.bias = t.residual = nullptr;
    t.y = args.y + args.offsets[3 * which + 2] + first;
    t.a_stride = t.k = args.k;
    t.y_stride = args.n;
    t.epilogue = &epilogue;
    multiply_tiles(t, args.m);
  }
}

}  // namespace rskip::RSKIP_ISA
