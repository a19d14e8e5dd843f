// Products of small matrices of 8-bit numbers or of bfloat16 with AMX: eight registers of up to 16 rows of 64 bytes. GCC's intrinsics take
// only literal numbers of registers, and don't say which memory they read.
#pragma once

#include <cstring>

namespace rskip::RSKIP_ISA {

// The rows of sums that one register holds; a row is a vector.
inline constexpr int kMatrixRows = 16;
// Those of a tile, in two halves.
inline constexpr int kMatrixTileRows = 2 * kMatrixRows;
// Most steps of k, of four numbers or a pair of bfloat16 each, that one product sums.
inline constexpr int kMatrixSteps = 16;
// Registers: sums of two halves of the rows by two blocks of columns, rows of unsigned numbers of both halves, and signed numbers
// of both blocks. So many sums keep the unit busy, whose products take three times as long as it takes to begin one.
inline constexpr int kSumRegister = 0, kRowRegister = 4, kFactorRegister = 6;

// Makes the registers fit products of so many rows of each half and `steps` steps, which takes as long as several products, and
// clears them; nothing where they do already. `configured` begins as 0 and is kept between calls.
RSKIP_INLINE void configure_matrices(int first_rows, int second_rows, int steps, int& configured) {
  const int wanted = first_rows | second_rows << 8 | steps << 16;
  if (configured == wanted) return;
  configured = wanted;
  struct alignas(64) {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  const auto shape = [&](int matrix, int rows, int bytes) {
    config.rows[matrix] = static_cast<uint8_t>(rows);
    config.row_bytes[matrix] = static_cast<uint16_t>(bytes);
  };
  const int rows[] = {first_rows, second_rows};
  for (int half = 0; half < 2 && rows[half] > 0; ++half) {
    for (int block = 0; block < 2; ++block) shape(kSumRegister + 2 * half + block, rows[half], 64);
    shape(kRowRegister + half, rows[half], 4 * steps);
  }
  for (int block = 0; block < 2; ++block) shape(kFactorRegister + block, steps, 64);
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}
RSKIP_INLINE void release_matrices() { __asm__ volatile("tilerelease"); }
template <int kRegister>
RSKIP_INLINE void load_matrix(const void* p, ptrdiff_t row_bytes) {
  __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kRegister), "r"(p), "r"(row_bytes) : "memory");
}
template <int kRegister>
RSKIP_INLINE void store_matrix(void* p, ptrdiff_t row_bytes) {
  __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kRegister), "r"(p), "r"(row_bytes) : "memory");
}
template <bool kPairs, int kHalf, int kBlock>
RSKIP_INLINE void add_matrix_product() {
  constexpr int sum = kSumRegister + 2 * kHalf + kBlock, row = kRowRegister + kHalf, factor = kFactorRegister + kBlock;
  if constexpr (kPairs) {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(row), "i"(factor));
  } else {
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(row), "i"(factor));
  }
}

// One product of N blocks of columns: kHalves halves of the rows at x and x + half, and factors as load_factors() reads them; of pairs of
// bfloat16 or of bytes. Distances are in bytes.
template <bool kPairs, int kHalves, int N>
RSKIP_INLINE void add_matrix_products(const void* rows, ptrdiff_t half, ptrdiff_t stride, const void* factors, ptrdiff_t w_block) {
  const char *x = static_cast<const char*>(rows), *w = static_cast<const char*>(factors);
  load_matrix<kFactorRegister>(w, 64);
  load_matrix<kRowRegister>(x, stride);
  add_matrix_product<kPairs, 0, 0>();
  if constexpr (N == 2) {
    load_matrix<kFactorRegister + 1>(w + w_block, 64);
    add_matrix_product<kPairs, 0, 1>();
  }
  if constexpr (kHalves == 2) {
    load_matrix<kRowRegister + 1>(x + half, stride);
    add_matrix_product<kPairs, 1, 0>();
    if constexpr (N == 2) add_matrix_product<kPairs, 1, 1>();
  }
}
// Sums of N blocks; rows that are 0 bytes apart are one row for all.
template <int kHalves, int N>
RSKIP_INLINE void load_sums(const void* first, ptrdiff_t row_bytes) {
  const char* p = static_cast<const char*>(first);
  load_matrix<kSumRegister>(p, row_bytes);
  if constexpr (N == 2) load_matrix<kSumRegister + 1>(p + 64, row_bytes);
  if constexpr (kHalves == 1) return;
  p += kMatrixRows * row_bytes;
  load_matrix<kSumRegister + 2>(p, row_bytes);
  if constexpr (N == 2) load_matrix<kSumRegister + 3>(p + 64, row_bytes);
}
// Rows of N vectors; the second half's begin after so many.
template <int kHalves, int N>
RSKIP_INLINE void store_sums(void* rows, int first_rows = kMatrixRows) {
  constexpr ptrdiff_t kVector = 64;
  char* p = static_cast<char*>(rows);
  store_matrix<kSumRegister>(p, N * kVector);
  if constexpr (N == 2) store_matrix<kSumRegister + 1>(p + kVector, N * kVector);
  if constexpr (kHalves == 1) return;
  p += first_rows * N * kVector;
  store_matrix<kSumRegister + 2>(p, N * kVector);
  if constexpr (N == 2) store_matrix<kSumRegister + 3>(p + kVector, N * kVector);
}

// Sixty-four channels of a row of pixels side by side, from kBlocks blocks, which are `block` bytes apart; only `real` of them,
// and zeros up to `stored`.
template <int kBlocks>
RSKIP_INLINE void gather_channels(const uint8_t* x, ptrdiff_t x_pixel, ptrdiff_t block, uint8_t* y, ptrdiff_t y_pixel, int pixels,
                                  int real, int stored) {
  const auto first = [](int n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; };
  const __mmask64 keep = first(real), write = first(stored);
  const auto sixteen = [&](int b) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + b * block)); };
  for (; pixels > 0; --pixels, x += x_pixel, y += y_pixel) {
    __m512i all = _mm512_zextsi128_si512(sixteen(0));
    if constexpr (kBlocks > 1) all = _mm512_inserti32x4(all, sixteen(1), 1);
    if constexpr (kBlocks > 2) all = _mm512_inserti32x4(all, sixteen(2), 2);
    if constexpr (kBlocks > 3) all = _mm512_inserti32x4(all, sixteen(3), 3);
    _mm512_mask_storeu_epi8(y, write, _mm512_maskz_mov_epi8(keep, all));
  }
}

}  // namespace rskip::RSKIP_ISA
