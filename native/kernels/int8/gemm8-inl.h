// Matrix product on 8-bit numbers with packed B, and of two matrices that are known at run time only.
#pragma once

#include <cstring>

#include "kernels/int8/gemm8_tile-inl.h"
#if RSKIP_MATRIX
#include "kernels/int8/matrix8-inl.h"
#endif

namespace rskip::RSKIP_ISA {

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

// Blocks of columns begin to end of all m rows of a product.
inline void multiply8(const GemmTile8& whole, int m, ptrdiff_t begin, ptrdiff_t end) {
#if RSKIP_MATRIX
  if (m > kGemmRows8) {
    GemmTile8 t = whole;
    t.product_steps = product_steps(t.steps);
    each_gemm_tile8(kMatrixGemmTiles8, t, m, begin, end);
    return release_matrices();
  }
#endif
  each_gemm_tile8(kGemmTiles8, whole, m, begin, end);
}

// The same rows with zeros behind them, up to whole steps.
inline const uint8_t* padded_rows8(const uint8_t* a, int m, int k, ptrdiff_t a_row, Scratch8& scratch) {
  if (a_row == k) return a;
  uint8_t* padded = scratch.take<uint8_t>(m * a_row);
  for (ptrdiff_t row = 0; row < m; ++row) {
    std::memcpy(padded + row * a_row, a + row * k, static_cast<size_t>(k));
    std::memset(padded + row * a_row + k, 0, static_cast<size_t>(a_row - k));
  }
  return padded;
}

inline void row_sums8(const uint8_t* a, int m, int k, int32_t* sums) {
  for (ptrdiff_t row = 0; row < m; ++row, a += k) {
    Bits lanes = bits(splat(0.0f));
    int i = 0;
    for (; i + kLanes <= k; i += kLanes) lanes = add_bits(lanes, load_bytes(a + i));
    int32_t lane[kLanes];
    store_bits(lane, lanes);
    uint32_t sum = 0;
    for (int32_t each : lane) sum += static_cast<uint32_t>(each);
    for (; i < k; ++i) sum += a[i];
    sums[row] = static_cast<int32_t>(sum);
  }
}

// Shares are runs of whole column blocks.
inline void gemm8(const GemmArgs8& args, int part, int parts) {
  const PackedGemm8& g = *args.gemm;
  const Epilogue epilogue = epilogue_of(args.act);
  const auto [begin, end] = share_of(g.blocks(), part, parts);
  if (begin == end || args.m == 0) return;
  Scratch8 scratch(args.scratch);
  GemmTile8 t;
  t.bias = bias_of(g.bias);
  t.scale = g.scale.data();
  if (args.scale != nullptr || args.zero != nullptr) {
    int32_t* own_bias = scratch.take<int32_t>(whole_blocks(g.n));
    float* own_scale = scratch.take<float>(whole_blocks(g.n));
    bind_gemm8(args, begin, end, own_bias, own_scale);
    t.bias = own_bias;
    t.scale = own_scale;
  }
  if (g.weight_zero.size() > 0) {
    int32_t* row_sums = scratch.take<int32_t>(args.m);
    row_sums8(args.a, args.m, g.k, row_sums);
    t.row_sums = row_sums;
    t.weight_zero = g.weight_zero.data();
  }
  t.a_row = static_cast<ptrdiff_t>(g.steps()) * kQuad;
  t.a = padded_rows8(args.a, args.m, g.k, t.a_row, scratch);
  t.w = g.weights.data();
  t.w_block = static_cast<ptrdiff_t>(g.steps()) * kFactorBytes;
  t.steps = g.steps();
  t.n = g.n;
  t.shift = args.shift;
  t.rounds_product = args.rounds_product;
  t.y = args.y;
  t.y_float = args.y_float;
  t.rounding = &args.rounding;
  t.epilogue = &epilogue;
  t.additions = args.additions;
  t.addition_count = args.addition_count;
  multiply8(t, args.m, begin, end);
}

// Packs a block of columns as PackedGemm8 has it, less 128.
inline void pack_columns8(const ProductsArgs8& args, const uint8_t* b, ptrdiff_t block, int8_t* to) {
  const ptrdiff_t first = block * kLanes, row = args.trans_b ? 1 : args.n, column = args.trans_b ? args.k : 1;
  const int lanes = std::min<int>(kLanes, args.n - static_cast<int>(first));
  for (int k = 0; k < args.k; k += kQuad, to += kFactorBytes) {
    const uint8_t* from = b + k * row + first * column;
    const int numbers = std::min(kQuad, args.k - k);
    if (lanes < kLanes || numbers < kQuad) {
      std::memset(to, 0, kFactorBytes);
      for (int lane = 0; lane < lanes; ++lane) {
        for (int i = 0; i < numbers; ++i) {
          to[lane * kQuad + i] = static_cast<int8_t>(from[i * row + lane * column] ^ 0x80);
        }
      }
      continue;
    }
    uint32_t quads[kLanes];
    if (args.trans_b) {
      for (int lane = 0; lane < kLanes; ++lane) std::memcpy(quads + lane, from + lane * column, kQuad);
    } else {
      const uint8_t *f1 = from + row, *f2 = f1 + row, *f3 = f2 + row;
      for (int lane = 0; lane < kLanes; ++lane) {
        quads[lane] = from[lane] | static_cast<uint32_t>(f1[lane]) << 8 | static_cast<uint32_t>(f2[lane]) << 16 |
                      static_cast<uint32_t>(f3[lane]) << 24;
      }
    }
    for (uint32_t& quad : quads) quad ^= 0x80808080u;
    std::memcpy(to, quads, kFactorBytes);
  }
}

// Shares are runs of whole column blocks of each product.
inline void products8(const ProductsArgs8& args, int part, int parts) {
  // Signed products take 128 less.
  static constexpr uint8_t kOnes[kQuad] = {kSignedProducts ? 129 : 1, kSignedProducts ? 129 : 1, kSignedProducts ? 129 : 1,
                                           kSignedProducts ? 129 : 1};
  const ptrdiff_t columns = whole_blocks(args.n);
  const auto [begin, end] = share_of(channel_blocks(args.n), part, parts);
  if (begin == end || args.m == 0) return;
  const int32_t zero_b = args.zero_b - 128;
  const uint32_t zeros = static_cast<uint32_t>(args.zero_a * zero_b) * static_cast<uint32_t>(args.k);
  const Epilogue epilogue = epilogue_of({});
  GemmTile8 t;
  t.steps = (args.k + kQuad - 1) / kQuad;
  t.a_row = static_cast<ptrdiff_t>(t.steps) * kQuad;
  t.w_block = static_cast<ptrdiff_t>(t.steps) * kFactorBytes;
  t.n = args.n;
  t.rounding = &args.rounding;
  t.epilogue = &epilogue;
  Scratch8 scratch(args.scratch);
  int8_t* const packed = scratch.take<int8_t>(columns * t.a_row);
  int32_t* const bias = scratch.take<int32_t>(columns);
  float* const scale = scratch.take<float>(columns);
  int32_t* const weight_zero = scratch.take<int32_t>(columns);
  int32_t* const row_sums = scratch.take<int32_t>(args.m);
  std::fill_n(scale, columns, args.scale);
  std::fill_n(weight_zero, columns, zero_b);
  t.w = packed;
  t.bias = bias;
  t.scale = scale;
  t.weight_zero = weight_zero;
  t.row_sums = row_sums;
  for (int64_t i = 0; i < args.count; ++i) {
    const int64_t* offset = args.offsets + 3 * i;
    const uint8_t* a = args.a + offset[0];
    for (ptrdiff_t block = begin; block < end; ++block) {
      int8_t* const to = packed + block * t.w_block;
      pack_columns8(args, args.b + offset[1], block, to);
      // The first number of each sum: -zero_a * (the column's sum - k * zero_b).
      Bits sum[1] = {bits(splat(0.0f))};
      for (int step = 0; step < t.steps; ++step) {
        const Factors factors[1] = {load_factors(to + step * kFactorBytes)};
        add_dots(sum, kOnes, factors);
      }
      const Bits first = mul_bits(sum[0], (kSignedProducts ? 128 : 0) - args.zero_a);
      store_bits(bias + block * kLanes, add_bits(first, static_cast<int32_t>(zeros)));
    }
    row_sums8(a, args.m, args.k, row_sums);
    Scratch8 behind = scratch;
    t.a = padded_rows8(a, args.m, args.k, t.a_row, behind);
    t.y = args.y + offset[2];
    multiply8(t, args.m, begin, end);
  }
}

}  // namespace rskip::RSKIP_ISA
