// Products of small matrices of 8-bit numbers with AMX: eight registers of up to 16 rows of 64 bytes. GCC's intrinsics take
// only literal numbers of registers, and don't say which memory they read.
#pragma once

#include <cstring>

#include "simd/vec8_avx512-inl.h"

namespace rskip::RSKIP_ISA {

// The rows of sums that one register holds; a row is a vector.
inline constexpr int kMatrixRows = 16;
// Most steps of k, of four numbers each, that one product sums.
inline constexpr int kMatrixSteps = 16;
// Registers: sums of two blocks of columns, rows of unsigned numbers, and signed numbers for both blocks.
inline constexpr int kSumRegister = 0, kRowRegister = 2, kFactorRegister = 3;

// Makes the registers fit products of `rows` rows and `steps` steps, which takes as long as several products, and clears
// them; nothing where they do already. `configured` begins as 0 and is kept between calls.
RSKIP_INLINE void configure_matrices(int rows, int steps, int& configured) {
  const int wanted = rows | steps << 8;
  if (configured == wanted) return;
  configured = wanted;
  struct alignas(64) {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int block = 0; block < 2; ++block) {
    config.rows[kSumRegister + block] = static_cast<uint8_t>(rows);
    config.row_bytes[kSumRegister + block] = 64;
    config.rows[kFactorRegister + block] = static_cast<uint8_t>(steps);
    config.row_bytes[kFactorRegister + block] = 64;
  }
  config.rows[kRowRegister] = static_cast<uint8_t>(rows);
  config.row_bytes[kRowRegister] = static_cast<uint16_t>(4 * steps);
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
template <int kBlock>
RSKIP_INLINE void add_matrix_product() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSumRegister + kBlock), "i"(kRowRegister), "i"(kFactorRegister + kBlock));
}

// One step of N blocks of columns: rows at x, and factors as load_factors() reads them.
template <int N>
RSKIP_INLINE void add_matrix_products(const uint8_t* x, ptrdiff_t stride, const int8_t* w, ptrdiff_t w_block) {
  load_matrix<kRowRegister>(x, stride);
  load_matrix<kFactorRegister>(w, 64);
  add_matrix_product<0>();
  if constexpr (N == 2) {
    load_matrix<kFactorRegister + 1>(w + w_block, 64);
    add_matrix_product<1>();
  }
}
// Sums of N blocks; rows that are 0 bytes apart are one row for all.
template <int N>
RSKIP_INLINE void load_sums(const void* first, ptrdiff_t row_bytes) {
  load_matrix<kSumRegister>(first, row_bytes);
  if constexpr (N == 2) load_matrix<kSumRegister + 1>(static_cast<const char*>(first) + 64, row_bytes);
}
// Rows of N vectors.
template <int N>
RSKIP_INLINE void store_sums(Bits* rows) {
  store_matrix<kSumRegister>(rows, N * sizeof *rows);
  if constexpr (N == 2) store_matrix<kSumRegister + 1>(rows + 1, N * sizeof *rows);
}

}  // namespace rskip::RSKIP_ISA
