// Tiles of products of bfloat16 where the processor multiplies matrices: up to 32 pixels by two blocks of output channels, whose sums
// are stored, and finished as those in registers are.
#pragma once

#include "kernels/bfloat16/pack16.h"
#include "kernels/convolution/conv_tiles-inl.h"
#include "simd/matrix_amx-inl.h"

namespace rskip::RSKIP_ISA {

// Of each thread, as configure_matrices() keeps it.
inline thread_local int configured16 = 0;

// Rows of 16 * N sums; fewer than P where they are the last.
template <int P, int N>
RSKIP_INLINE void finish_rows16(const Vec* sums, const TileOutput& out, const Epilogue& epilogue) {
  Vec acc[P][N];
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = sums[p * N + n];
  }
  tile_store(acc, out, epilogue);
}

template <int kHalves, int N>
RSKIP_INLINE void sum_tile16(const ConvTile& t, Vec* sums) {
  const Walk& walk = *t.walk;
  const ptrdiff_t stride = t.stride * ptrdiff_t{sizeof(float)}, w_block = t.w_block * ptrdiff_t{sizeof(float)};
  load_sums<kHalves, N>(t.bias, 0);
  const float* w = t.w;
  const ptrdiff_t step = static_cast<ptrdiff_t>(walk.inner_last) * kLanes;
  for (int i0 = 0; i0 < walk.n0; ++i0) {
    const float* x1 = t.x + i0 * walk.s0;
    for (int i1 = 0; i1 < walk.n1; ++i1, x1 += walk.s1) {
      const float* x2 = x1;
      for (int i2 = 0; i2 < walk.n2; ++i2, x2 += walk.s2, w += step) {
        add_matrix_products<true, kHalves, N>(x2, kMatrixRows * stride, stride, w, w_block);
      }
    }
  }
  store_sums<kHalves, N>(sums);
}

template <int N>
[[gnu::noinline]] void conv_tile16_amx(const ConvTile& t, int pixels) {
  Vec sums[kMatrixTileRows * N];
  const int first = std::min(pixels, kMatrixRows);
  configure_matrices(first, pixels - first, t.walk->inner_last, configured16);
  pixels > kMatrixRows ? sum_tile16<2, N>(t, sums) : sum_tile16<1, N>(t, sums);
  TileOutput out = t.out;
  const Vec* from = sums;
  const auto advance = [&](int rows) {
    from += rows * N;
    out.y += rows * out.pixel;
    if (out.residual != nullptr) out.residual += rows * out.pixel;
  };
  for (; pixels >= 4; pixels -= 4, advance(4)) finish_rows16<4, N>(from, out, *t.epilogue);
  for (; pixels > 0; --pixels, advance(1)) finish_rows16<1, N>(from, out, *t.epilogue);
}

struct TileAmx {
  void (*fn)(const ConvTile&, int);
  int pixels;
  void operator()(const ConvTile& t) const { fn(t, pixels); }
};
struct TilesAmx {
  void (*fn)(const ConvTile&, int);
  TileAmx operator[](int last) const { return {fn, last + 1}; }
};
struct Tiles16Amx : FloatTiles {
  static constexpr Precision kPrecision = Precision::kBfloat16Amx;
  static constexpr int kPixels = kMatrixTileRows;
  static constexpr int pixels(ptrdiff_t) { return kPixels; }
  static TilesAmx tiles(int n, int) { return {n == 2 ? conv_tile16_amx<2> : conv_tile16_amx<1>}; }
  static void begin() { configured16 = 0; }
  static void end() { release_matrices(); }
};

}  // namespace rskip::RSKIP_ISA
