// Matrix product with packed B: k in one order, so results don't depend on m, tiles or threads.
#pragma once

#include <utility>

#include "kernels/pack.h"
#include "kernels/tile-inl.h"

namespace rskip::RSKIP_ISA {

struct GemmTile {
  const float* a;
  const float* w;
  const float* bias;
  float* y;
  const float* residual;
  int k, n, columns;  // columns: real ones of the tile's blocks
  const Epilogue* epilogue;
};
using GemmTileFn = void (*)(const GemmTile&);

// P rows of A by N blocks of columns.
template <int P, int N>
[[gnu::noinline]] void gemm_tile(const GemmTile& t) {
  Vec acc[P][N];
  tile_bias(acc, t.bias);
  Walk walk;
  walk.inner = walk.inner_last = t.k;
  tile_sum<P, N, 0>(acc, t.a, t.k, t.w, static_cast<ptrdiff_t>(t.k) * kLanes, walk);
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(p) * t.n + n * kLanes;
      const int lanes = std::min(kLanes, t.columns - n * kLanes);
      Vec sum = acc[p][n];
      if (t.residual != nullptr) sum = sum + load_first(t.residual + at, lanes);
      store_first(t.y + at, finish(sum, *t.epilogue), lanes);
    }
  }
}

// One row of A: many blocks at once, or the latency of the multiply-adds would show.
struct GemvRow {
  GemmTileFn fn[kGemvBlocks];
};
template <int... N>
constexpr GemvRow gemv_row(std::integer_sequence<int, N...>) {
  return {{gemm_tile<1, N + 1>...}};
}
inline constexpr GemvRow kGemvTiles = gemv_row(std::make_integer_sequence<int, kGemvBlocks>());

inline constexpr int kGemmRows = kTilePixels < 6 ? kTilePixels : 6;
struct GemmRow {
  GemmTileFn fn[kGemmRows];
};
template <int N, int... P>
constexpr GemmRow gemm_row(std::integer_sequence<int, P...>) {
  return {{gemm_tile<P + 1, N>...}};
}
inline constexpr GemmRow kGemmTiles[] = {
    gemm_row<1>(std::make_integer_sequence<int, kGemmRows>()),
#if RSKIP_TILE_BLOCKS >= 2
    gemm_row<2>(std::make_integer_sequence<int, kGemmRows>()),
#endif
};

// Shares are runs of whole column blocks.
inline void gemm(const GemmArgs& args, int part, int parts) {
  const PackedGemm& g = *args.gemm;
  const Epilogue epilogue = epilogue_of(args.act);
  const auto [begin, end] = share_of(g.blocks(), part, parts);
  if (begin == end || args.m == 0) return;
  const Split rows(args.m, kGemmRows);
  const Split columns(end - begin, args.m == 1 ? kGemvBlocks : kTileBlocks);
  GemmTile t;
  t.k = g.k;
  t.n = g.n;
  t.epilogue = &epilogue;
  for (int c = 0; c < columns.chunks; ++c) {
    const int block = begin + columns.begin(c);
    const int n = columns.size(c);
    t.w = g.weights.data() + static_cast<ptrdiff_t>(block) * g.k * kLanes;
    t.bias = g.bias.data() + static_cast<ptrdiff_t>(block) * kLanes;
    t.columns = g.n - block * kLanes;
    for (int r = 0; r < rows.chunks; ++r) {
      const ptrdiff_t row = rows.begin(r);
      const ptrdiff_t at = row * g.n + static_cast<ptrdiff_t>(block) * kLanes;
      t.a = args.a + row * g.k;
      t.y = args.y + at;
      t.residual = args.residual == nullptr ? nullptr : args.residual + at;
      (args.m == 1 ? kGemvTiles.fn[n - 1] : kGemmTiles[n - 1].fn[rows.size(r) - 1])(t);
    }
  }
}

}  // namespace rskip::RSKIP_ISA
