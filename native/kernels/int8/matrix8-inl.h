// Matrix products on 8-bit numbers where the processor multiplies matrices: up to 32 rows x N blocks of 16 columns. Integer sums are
// exact, and what follows them is that of the other microkernels.
#pragma once

#include "kernels/int8/gemm8_tile-inl.h"

namespace rskip::RSKIP_ISA {

// Steps of one product, of `all` steps. It takes fewer than it could if all products then have the same number, and there are hardly more
// of them: a shorter last product needs registers of another shape, and changing the shape takes as long as several products.
inline int product_steps(int all) {
  const int fewest = (all + kMatrixSteps - 1) / kMatrixSteps;
  for (int products = fewest; products <= fewest + fewest / 4 + 1; ++products) {
    if (all % products == 0) return all / products;
  }
  return kMatrixSteps;
}

// As gemm_tile8 for so many rows, which are finished by fours and one by one: code for every number of rows would take 300 KB.
template <int kHalves, int N>
[[gnu::noinline]] void gemm_rows8_matrix(const GemmTile8& t, int rows) {
  Bits acc[kHalves * kMatrixRows][N];
  const void* sums = t.bias;
  ptrdiff_t sum_row = 0;
  const uint8_t* a = t.a;
  const int8_t* w = t.w;
  const int first_rows = std::min(rows, kMatrixRows);
  for (int left = t.steps; left > 0;) {
    const int steps = std::min(left, t.product_steps);
    configure_matrices(first_rows, rows - first_rows, steps, t.configured);
    load_sums<kHalves, N>(sums, sum_row);
    for (; left >= steps; left -= steps, a += steps * kQuad, w += steps * kFactorBytes) {
      add_matrix_products<false, kHalves, N>(a, kMatrixRows * t.a_row, t.a_row, w, t.w_block);
    }
    store_sums<kHalves, N>(acc[0]);
    sums = acc;
    sum_row = sizeof acc[0];
  }
  GemmTile8 rest = t;
  RowAddition8 additions[kMaxAdditions8];
  std::copy_n(t.additions, t.addition_count, additions);
  rest.additions = additions;
  // Activations of the whole tile are computed at once.
  const bool activates = t.y == nullptr && !t.epilogue->clamp_only;
  alignas(64) float values[kHalves * kMatrixRows][N * kLanes];
  Epilogue clamping = *t.epilogue;
  if (activates) {
    if (t.columns < N * kLanes) std::fill_n(values[0], rows * N * kLanes, 0.0f);
    clamping.clamp_only = true;
    rest.epilogue = &clamping;
    rest.y_float = values[0];
    rest.n = N * kLanes;
  }
  const auto finish = [&]<int P>(Bits (&sums)[P][N]) {
    gemm_finish8(sums, rest);
    if (rest.row_sums != nullptr) rest.row_sums += P;
    if (rest.y != nullptr) rest.y += P * rest.n;
    if (rest.y_float != nullptr) rest.y_float += P * rest.n;
    for (int i = 0; i < t.addition_count; ++i) additions[i].addend += P * additions[i].row;
  };
  int p = 0;
  for (; p + 4 <= rows; p += 4) finish(*reinterpret_cast<Bits(*)[4][N]>(acc[p]));
  for (; p < rows; ++p) finish(*reinterpret_cast<Bits(*)[1][N]>(acc[p]));
  if (activates) activate_rows8(values[0], rows, N, t);
}
template <int P, int N>
void gemm_tile8_matrix(const GemmTile8& t) {
  gemm_rows8_matrix<(P > kMatrixRows ? 2 : 1), N>(t, P);
}

template <int N, int... P>
constexpr GemmTiles8<kMatrixTileRows> matrix_gemm_row8(std::integer_sequence<int, P...>) {
  return {{gemm_tile8_matrix<P + 1, N>...}};
}
inline constexpr GemmTiles8<kMatrixTileRows> kMatrixGemmTiles8[] = {
    matrix_gemm_row8<1>(std::make_integer_sequence<int, kMatrixTileRows>()),
    matrix_gemm_row8<2>(std::make_integer_sequence<int, kMatrixTileRows>()),
};

// As dot_burst, of products of the largest matrices: each sums so many steps of four products in the lanes of its rows.
inline void matrix_burst(int rounds, int32_t* y, int* chains) {
  alignas(64) static constexpr int8_t kOperand[kMatrixRows * kFactorBytes] = {};
  int configured = 0;
  configure_matrices(kMatrixRows, kMatrixRows, kMatrixSteps, configured);
  load_matrix<kRowRegister>(kOperand, kFactorBytes);
  load_matrix<kRowRegister + 1>(kOperand, kFactorBytes);
  load_matrix<kFactorRegister>(kOperand, kFactorBytes);
  load_matrix<kFactorRegister + 1>(kOperand, kFactorBytes);
  for (int round = 0; round < rounds; ++round) {
    add_matrix_product<false, 0, 0>();
    add_matrix_product<false, 0, 1>();
    add_matrix_product<false, 1, 0>();
    add_matrix_product<false, 1, 1>();
  }
  Bits sums[kMatrixTileRows][2];
  store_sums<2, 2>(&sums[0][0]);
  release_matrices();
  store_bits(y, sums[0][0]);
  *chains = 2 * kMatrixTileRows * kMatrixSteps;
}

}  // namespace rskip::RSKIP_ISA
