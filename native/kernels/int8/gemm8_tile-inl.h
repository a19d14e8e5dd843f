// The tiles of matrix products on 8-bit numbers.
#pragma once

#include "kernels/int8/tile8-inl.h"

namespace rskip::RSKIP_ISA {

// A product of matrices, or a tile of it.
struct GemmTile8 {
  const uint8_t* a = nullptr;
  ptrdiff_t a_row = 0;
  const int8_t* w = nullptr;
  ptrdiff_t w_block = 0;
  const int32_t* bias = nullptr;
  const float* scale = nullptr;
  const float* shift = nullptr;
  bool rounds_product = false;
  const int32_t* weight_zero = nullptr;  // null: 0
  const int32_t* row_sums = nullptr;     // where there are weight_zero
  uint8_t* y = nullptr;                  // null: y_float
  float* y_float = nullptr;
  int steps = 0, n = 0, columns = 0;  // columns: real ones of the tile's blocks
  const Rounding* rounding = nullptr;
  const Epilogue* epilogue = nullptr;
  const RowAddition8* additions = nullptr;  // what is added is that of the tile
  int addition_count = 0;
  int product_steps = 0;         // where the processor multiplies matrices: most steps of one product
  mutable int configured = 0;  // as configure_matrices() keeps it
};
using GemmTileFn8 = void (*)(const GemmTile8&);

// Stores rounded numbers of a block, of which only the last of a tile may have fewer than 16 columns.
RSKIP_INLINE void store_block8(uint8_t* y, Bits bytes, bool last, int lanes) {
  if (!last || lanes >= kLanes) return store_bytes(y, bytes);
  uint8_t row[kLanes];
  store_bytes(row, bytes);
  std::copy_n(row, lanes, y);
}

// Adds rows of bytes to the rounded numbers [rows][blocks] of a tile, and stores them: by way of memory, as it would be long in
// dozens of tiles.
[[gnu::noinline]] inline void add_rows8(const Bits* value, int rows, int blocks, const GemmTile8& t) {
  const int lanes = t.columns - (blocks - 1) * kLanes;
  for (ptrdiff_t p = 0; p < rows; ++p) {
    for (int n = 0; n < blocks; ++n) {
      Bits bytes = *value++;
      int32_t zero = t.rounding->zero;
      for (int i = 0; i < t.addition_count; ++i) {
        const RowAddition8& addition = t.additions[i];
        const Vec own_scale = splat(addition.sum.scale), other_scale = splat(addition.sum.residual_scale);
        const Bits addend = load_bytes(addition.addend + p * addition.row + n * kLanes);
        const Vec own = to_float(bytes), other = to_float(add_bits(addend, -addition.sum.residual_zero));
        const Vec sum = addition.sum.residual_first ? fma(other, other_scale, own * own_scale)
                                                    : fma(own, own_scale, other * other_scale);
        bytes = round_to_bits(Clamp8(addition.sum.rounding)(sum));
        zero = addition.sum.rounding.zero;
      }
      store_block8(t.y + p * t.n + n * kLanes, add_bits(bytes, zero), n + 1 == blocks, lanes);
    }
  }
}

// The same for a block of floats.
RSKIP_INLINE void store_row8(float* y, Vec value, bool last, int lanes) {
  store_first(y, value, last ? std::min(kLanes, lanes) : kLanes);
}

// Activates numbers [rows][blocks][16] of a tile, and stores them: all at once, since one alone takes as long as its latency.
[[gnu::noinline]] inline void activate_rows8(float* value, int rows, int blocks, const GemmTile8& t) {
  const int lanes = t.columns - (blocks - 1) * kLanes;
  RSKIP_BASE::unary_span(value, value, static_cast<size_t>(rows * blocks) * kLanes, t.epilogue->act);
  for (ptrdiff_t p = 0; p < rows; ++p) {
    for (int n = 0; n < blocks; ++n, value += kLanes) {
      store_row8(t.y_float + p * t.n + n * kLanes, load(value), n + 1 == blocks, lanes);
    }
  }
}

// What becomes of the sums of a tile.
template <int P, int N>
RSKIP_INLINE void gemm_finish8(Bits (&acc)[P][N], const GemmTile8& t) {
  if (t.weight_zero != nullptr) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      const Bits zero = load_bits(t.weight_zero + n * kLanes);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][n] = sub_bits(acc[p][n], mul_bits(zero, t.row_sums[p]));
    }
  }
  const int lanes = t.columns - (N - 1) * kLanes;
  if (t.y == nullptr) {
    const Vec low = splat(t.epilogue->low), high = splat(t.epilogue->high);
    Vec value[P][N];
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      const int count = n + 1 < N ? kLanes : std::min(kLanes, lanes);
      const Vec scale = load(t.scale + n * kLanes);
      const Vec shift = t.shift == nullptr ? splat(0) : load_first(t.shift + n * kLanes, count);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
        const Vec sum = to_float(acc[p][n]);
        Vec each = sum * scale;
        if (t.shift != nullptr) each = t.rounds_product ? each + shift : fma(sum, scale, shift);
        value[p][n] = min(high, max(low, each));
      }
    }
    if (!t.epilogue->clamp_only) {
      alignas(64) float values[P * N * kLanes];
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
        RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) store(values + (p * N + n) * kLanes, value[p][n]);
      }
      return activate_rows8(values, P, N, t);
    }
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
        store_row8(t.y_float + static_cast<ptrdiff_t>(p) * t.n + n * kLanes, value[p][n], n + 1 == N, lanes);
      }
    }
    return;
  }
  const Clamp8 clamp(*t.rounding);
  Bits value[P][N];
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      value[p][n] = round_to_bits(clamp(to_float(acc[p][n]) * load(t.scale + n * kLanes)));
    }
  }
  if (t.addition_count > 0) {
    // A copy, or the compiler would keep them in memory in any case.
    Bits rounded[P][N];
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) rounded[p][n] = value[p][n];
    }
    return add_rows8(rounded[0], P, N, t);
  }
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      uint8_t* y = t.y + static_cast<ptrdiff_t>(p) * t.n + n * kLanes;
      store_block8(y, add_bits(value[p][n], t.rounding->zero), n + 1 == N, lanes);
    }
  }
}

// P rows of A by N blocks of columns.
template <int P, int N>
[[gnu::noinline]] void gemm_tile8(const GemmTile8& t) {
  Bits acc[P][N];
  tile_bias8(acc, t.bias);
  Walk walk;
  walk.inner = walk.inner_last = t.steps;
  tile_sum8<P, N, 0>(acc, t.a, t.a_row, t.w, t.w_block, walk);
  gemm_finish8(acc, t);
}

template <int kRows>
struct GemmTiles8 {
  GemmTileFn8 fn[kRows];
};
// Where the processor multiplies matrices, more rows go there: three don't pay for the setup, and their weights, which are read once,
// are better asked for early.
inline constexpr int kGemmRows8 = RSKIP_MATRIX ? 3 : std::min(kTilePixels8, 8);
template <int N, int... P>
constexpr GemmTiles8<kGemmRows8> gemm_row8(std::integer_sequence<int, P...>) {
  return {{gemm_tile8<P + 1, N>...}};
}
inline constexpr GemmTiles8<kGemmRows8> kGemmTiles8[] = {
    gemm_row8<1>(std::make_integer_sequence<int, kGemmRows8>()),
#if RSKIP_TILE_BLOCKS >= 2
    gemm_row8<2>(std::make_integer_sequence<int, kGemmRows8>()),
#endif
};

// Blocks of columns begin to end of all m rows of `whole`, with the tiles of one or two blocks.
template <int kRows, int kBlocks>
void each_gemm_tile8(const GemmTiles8<kRows> (&tiles)[kBlocks], const GemmTile8& whole, int m, ptrdiff_t begin, ptrdiff_t end) {
  const Split rows(m, kRows), columns(static_cast<int>(end - begin), kBlocks);
  GemmTile8 t = whole;
  RowAddition8 additions[kMaxAdditions8];
  t.additions = additions;
  for (int c = 0; c < columns.chunks; ++c) {
    const ptrdiff_t block = begin + columns.begin(c), column = block * kLanes;
    t.w = whole.w + block * t.w_block;
    t.bias = whole.bias + column;
    t.scale = whole.scale + column;
    t.weight_zero = whole.weight_zero == nullptr ? nullptr : whole.weight_zero + column;
    t.shift = whole.shift == nullptr ? nullptr : whole.shift + column;
    t.columns = t.n - static_cast<int>(column);
    for (int i = 0; i < rows.chunks; ++i) {
      // Down and up in turns, so that most tiles are as high as the one before.
      const int r = c % 2 == 0 ? i : rows.chunks - 1 - i;
      const ptrdiff_t row = rows.begin(r), at = row * t.n + column;
      t.a = whole.a + row * t.a_row;
      t.row_sums = whole.row_sums == nullptr ? nullptr : whole.row_sums + row;
      t.y = whole.y == nullptr ? nullptr : whole.y + at;
      t.y_float = whole.y_float == nullptr ? nullptr : whole.y_float + at;
      for (int a = 0; a < t.addition_count; ++a) {
        additions[a] = whole.additions[a];
        additions[a].addend += row * additions[a].row + column;
      }
      tiles[columns.size(c) - 1].fn[rows.size(r) - 1](t);
    }
  }
}

}  // namespace rskip::RSKIP_ISA
