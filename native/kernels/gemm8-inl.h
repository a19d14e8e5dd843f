// Matrix product on 8-bit numbers with packed B.
#pragma once

#include <cstring>

#include "kernels/tile8-inl.h"

namespace rskip::RSKIP_ISA {

struct GemmTile8 {
  const uint8_t* a;
  ptrdiff_t a_row;
  const int8_t* w;
  ptrdiff_t w_block;
  const int32_t* bias;
  const float* scale;
  const float* shift;
  const int32_t* weight_zero;  // null: 0
  const int32_t* row_sums;     // of the tile's rows, where there are weight_zero
  uint8_t* y;  // null: y_float
  float* y_float;
  int steps, n, columns;  // columns: real ones of the tile's blocks
  const Rounding* rounding;
  const Epilogue* epilogue;
};
using GemmTileFn8 = void (*)(const GemmTile8&);

// P rows of A by N blocks of columns.
template <int P, int N>
[[gnu::noinline]] void gemm_tile8(const GemmTile8& t) {
  Bits acc[P][N];
  tile_bias8(acc, t.bias);
  Walk walk;
  walk.inner = walk.inner_last = t.steps;
  tile_sum8<P, N, 0>(acc, t.a, t.a_row, t.w, t.w_block, walk);
  if (t.weight_zero != nullptr) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      const Bits zero = load_bits(t.weight_zero + n * kLanes);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][n] = sub_bits(acc[p][n], mul_bits(zero, t.row_sums[p]));
    }
  }
  const Clamp8 clamp(*t.rounding);
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(p) * t.n + n * kLanes;
      const int lanes = std::min(kLanes, t.columns - n * kLanes);
      const Vec sum = to_float(acc[p][n]), scale = load(t.scale + n * kLanes);
      if (t.y == nullptr) {
        const Vec value = t.shift == nullptr ? sum * scale : fma(sum, scale, load_first(t.shift + n * kLanes, lanes));
        store_first(t.y_float + at, finish(value, *t.epilogue), lanes);
        continue;
      }
      const Bits rounded = add_bits(round_to_bits(clamp(sum * scale)), t.rounding->zero);
      if (lanes == kLanes) {
        store_bytes(t.y + at, rounded);
      } else {
        uint8_t row[kLanes];
        store_bytes(row, rounded);
        std::copy_n(row, lanes, t.y + at);
      }
    }
  }
}

inline constexpr int kGemmRows8 = std::min(kTilePixels8, 8);
struct GemmRow8 {
  GemmTileFn8 fn[kGemmRows8];
};
template <int N, int... P>
constexpr GemmRow8 gemm_row8(std::integer_sequence<int, P...>) {
  return {{gemm_tile8<P + 1, N>...}};
}
inline constexpr GemmRow8 kGemmTiles8[] = {
    gemm_row8<1>(std::make_integer_sequence<int, kGemmRows8>()),
#if RSKIP_TILE_BLOCKS >= 2
    gemm_row8<2>(std::make_integer_sequence<int, kGemmRows8>()),
#endif
};

// Hands out scratch memory.
class Scratch8 {
 public:
  explicit Scratch8(void* memory) : at_(static_cast<uint8_t*>(memory)) {}
  template <class T>
  T* take(ptrdiff_t count) {
    T* taken = reinterpret_cast<T*>(at_);
    at_ += count * static_cast<ptrdiff_t>(sizeof(T));
    return taken;
  }

 private:
  uint8_t* at_;
};

// Scales and first numbers of the sums of blocks begin to end, with a scale and a zero point that weren't known before; those
// of other blocks are left as they are.
inline void bind_gemm8(const GemmArgs8& args, ptrdiff_t begin, ptrdiff_t end, int32_t* bias, float* scale) {
  const PackedGemm8& g = *args.gemm;
  const int zero = args.zero == nullptr ? 0 : -static_cast<int>(*args.zero);
  for (ptrdiff_t j = begin * kLanes; j < end * kLanes; j += kLanes) {
    store_bits(bias + j, add_bits(load_bits(bias_of(g.bias) + j), mul_bits(load_bits(g.columns.data() + j), zero)));
    const int lanes = std::min<int>(kLanes, g.n - static_cast<int>(j));
    const float* own = args.scale == nullptr ? g.scale.data() + j : args.scale + j;
    store(scale + j, args.scale != nullptr && args.scales == 1 ? splat(*args.scale) : load_first(own, lanes));
  }
}

// Shares are runs of whole column blocks.
inline void gemm8(const GemmArgs8& args, int part, int parts) {
  const PackedGemm8& g = *args.gemm;
  const Epilogue epilogue = epilogue_of(args.act);
  const auto [begin, end] = share_of(g.blocks(), part, parts);
  if (begin == end || args.m == 0) return;
  GemmTile8 t;
  t.a_row = static_cast<ptrdiff_t>(g.steps()) * kQuad;
  const uint8_t* a = args.a;
  Scratch8 scratch(args.scratch);
  const int32_t* bias = bias_of(g.bias);
  const float* scale = g.scale.data();
  if (args.scale != nullptr || args.zero != nullptr) {
    int32_t* own_bias = scratch.take<int32_t>(whole_blocks(g.n));
    float* own_scale = scratch.take<float>(whole_blocks(g.n));
    bind_gemm8(args, begin, end, own_bias, own_scale);
    bias = own_bias;
    scale = own_scale;
  }
  int32_t* row_sums = nullptr;
  if (g.weight_zero.size() > 0) {
    row_sums = scratch.take<int32_t>(args.m);
    for (ptrdiff_t row = 0; row < args.m; ++row) {
      int32_t sum = 0;
      for (ptrdiff_t i = 0; i < g.k; ++i) sum += args.a[row * g.k + i];
      row_sums[row] = sum;
    }
  }
  if (t.a_row != g.k) {
    uint8_t* padded = scratch.take<uint8_t>(args.m * t.a_row);
    for (ptrdiff_t row = 0; row < args.m; ++row) {
      std::memcpy(padded + row * t.a_row, args.a + row * g.k, static_cast<size_t>(g.k));
      std::memset(padded + row * t.a_row + g.k, 0, static_cast<size_t>(t.a_row - g.k));
    }
    a = padded;
  }
  const Split rows(args.m, kGemmRows8), columns(end - begin, kTileBlocks);
  t.w_block = static_cast<ptrdiff_t>(g.steps()) * kFactorBytes;
  t.steps = g.steps();
  t.n = g.n;
  t.rounding = &args.rounding;
  t.epilogue = &epilogue;
  for (int c = 0; c < columns.chunks; ++c) {
    const ptrdiff_t block = begin + columns.begin(c);
    const int n = columns.size(c);
    t.w = g.weights.data() + block * t.w_block;
    t.bias = bias + block * kLanes;
    t.scale = scale + block * kLanes;
    t.weight_zero = row_sums == nullptr ? nullptr : g.weight_zero.data() + block * kLanes;
    t.shift = args.shift == nullptr ? nullptr : args.shift + block * kLanes;
    t.columns = g.n - static_cast<int>(block) * kLanes;
    for (int r = 0; r < rows.chunks; ++r) {
      const ptrdiff_t row = rows.begin(r), at = row * g.n + block * kLanes;
      t.a = a + row * t.a_row;
      t.row_sums = row_sums == nullptr ? nullptr : row_sums + row;
      t.y = args.y == nullptr ? nullptr : args.y + at;
      t.y_float = args.y_float == nullptr ? nullptr : args.y_float + at;
      kGemmTiles8[n - 1].fn[rows.size(r) - 1](t);
    }
  }
}

}  // namespace rskip::RSKIP_ISA
