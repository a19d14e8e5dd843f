// The microkernels on 8-bit numbers where the processor multiplies matrices: up to 16 pixels or rows x N blocks of 16 columns.
// Integer sums are exact, and what follows them is that of the other microkernels.
#pragma once

#include "kernels/conv8-inl.h"
#include "kernels/gemm8_tile-inl.h"

namespace rskip::RSKIP_ISA {

struct MatrixConvTile8 : ConvTile8 {
  mutable int configured = 0;
};
using MatrixConvTileFn8 = void (*)(const MatrixConvTile8&);

// The pixels under a row of the window lie side by side, so a step takes all of them.
template <int P, int N>
[[gnu::noinline]] void conv_tile8_matrix(const MatrixConvTile8& t) {
  const Walk walk = *t.walk;
  const int steps = walk.n2 * walk.inner;
  configure_matrices(P, steps, t.configured);
  load_sums<N>(t.bias, 0);
  const uint8_t* x = t.x;
  const int8_t* w = t.w;
  for (int i0 = 0; i0 < walk.n0; ++i0, x += walk.s0) {
    const uint8_t* row = x;
    for (int i1 = 0; i1 < walk.n1; ++i1, row += walk.s1, w += steps * kFactorBytes) {
      add_matrix_products<N>(row, t.stride, w, t.w_block);
    }
  }
  Bits acc[P][N];
  store_sums<N>(&acc[0][0]);
  tile_store8(acc, t.out, t.scale, *t.epilogue);
}

struct MatrixConvTileRow8 {
  MatrixConvTileFn8 fn[kMatrixRows];
};
template <int N, int... P>
constexpr MatrixConvTileRow8 matrix_conv_tile_row8(std::integer_sequence<int, P...>) {
  return {{conv_tile8_matrix<P + 1, N>...}};
}
inline constexpr MatrixConvTileRow8 kMatrixConvTiles8[] = {
    matrix_conv_tile_row8<1>(std::make_integer_sequence<int, kMatrixRows>()),
    matrix_conv_tile_row8<2>(std::make_integer_sequence<int, kMatrixRows>()),
};

struct MatrixTiles8 : Tiles8 {
  using Tile = MatrixConvTile8;
  using TileFn = MatrixConvTileFn8;
  static constexpr int kPixels = kMatrixRows;
  static const TileFn* tiles(int n, ptrdiff_t) { return kMatrixConvTiles8[n - 1].fn; }
};

// Whether conv_direct() can use these tiles.
inline bool matrices_suit(const ConvShape& s) {
  return s.groups == 1 && s.in_channels % kLanes == 0 && s.kernel_w * (kLanes / kQuad) <= kMatrixSteps &&
         (s.kernel_w == 1 || s.dilation_w == 1);
}

// As gemm_tile8 for so many rows. Each is finished by itself: code for every number of rows would take 300 KB.
template <int N>
[[gnu::noinline]] void gemm_rows8_matrix(const GemmTile8& t, int rows) {
  Bits acc[kMatrixRows][1][N];
  const void* sums = t.bias;
  ptrdiff_t sum_row = 0;
  const uint8_t* a = t.a;
  const int8_t* w = t.w;
  for (int left = t.steps; left > 0;) {
    const int steps = std::min(left, kMatrixSteps);
    configure_matrices(rows, steps, t.configured);
    load_sums<N>(sums, sum_row);
    for (; left >= steps; left -= steps, a += steps * kQuad, w += steps * kFactorBytes) {
      add_matrix_products<N>(a, t.a_row, w, t.w_block);
    }
    store_sums<N>(&acc[0][0][0]);
    sums = acc;
    sum_row = sizeof acc[0];
  }
  GemmTile8 row = t;
  RowAddition8 additions[kMostAdditions8];
  std::copy_n(t.additions, t.addition_count, additions);
  row.additions = additions;
  for (int p = 0; p < rows; ++p) {
    gemm_finish8(acc[p], row);
    if (row.row_sums != nullptr) ++row.row_sums;
    if (row.y != nullptr) row.y += t.n;
    if (row.y_float != nullptr) row.y_float += t.n;
    for (int i = 0; i < t.addition_count; ++i) additions[i].addend += additions[i].row;
  }
}
template <int P, int N>
void gemm_tile8_matrix(const GemmTile8& t) {
  gemm_rows8_matrix<N>(t, P);
}

template <int N, int... P>
constexpr GemmTiles8<kMatrixRows> matrix_gemm_row8(std::integer_sequence<int, P...>) {
  return {{gemm_tile8_matrix<P + 1, N>...}};
}
inline constexpr GemmTiles8<kMatrixRows> kMatrixGemmTiles8[] = {
    matrix_gemm_row8<1>(std::make_integer_sequence<int, kMatrixRows>()),
    matrix_gemm_row8<2>(std::make_integer_sequence<int, kMatrixRows>()),
};

// As dot_burst, of products of the largest matrices: each sums so many steps of four products in the lanes of its rows.
inline void matrix_burst(int rounds, int32_t* y, int* chains) {
  alignas(64) static constexpr int8_t kOperand[kMatrixRows * kFactorBytes] = {};
  int configured = 0;
  configure_matrices(kMatrixRows, kMatrixSteps, configured);
  load_matrix<kRowRegister>(kOperand, kFactorBytes);
  load_matrix<kFactorRegister>(kOperand, kFactorBytes);
  load_matrix<kFactorRegister + 1>(kOperand, kFactorBytes);
  for (int round = 0; round < rounds; ++round) {
    add_matrix_product<0>();
    add_matrix_product<1>();
  }
  Bits sums[kMatrixRows][2];
  store_sums<2>(&sums[0][0]);
  release_matrices();
  store_bits(y, sums[0][0]);
  *chains = 2 * kMatrixRows * kMatrixSteps;
}

}  // namespace rskip::RSKIP_ISA
