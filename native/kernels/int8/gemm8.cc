// Packing of matrices of 8-bit numbers.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "kernels/convolution/conv_rules.h"
#include "kernels/int8/pack8.h"

namespace rskip {
namespace {

// Packs four rows of n numbers for a step of k, from `out` on, where blocks of columns lie `block_size` apart, and adds them to `sums`.
void pack_four_rows(const std::array<const int8_t*, 4>& rows, int n, int8_t* out, size_t block_size, int32_t* sums) {
  const int8_t *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3];
  for (int first = 0; first < n; first += kLanes, out += block_size) {
    const int count = std::min(kLanes, n - first);
    for (int lane = 0; lane < count; ++lane) {
      const int j = first + lane;
      const int8_t column[4] = {r0[j], r1[j], r2[j], r3[j]};
      const uint32_t sum = static_cast<uint32_t>(column[0] + column[1] + column[2] + column[3]);
      sums[j] = static_cast<int32_t>(static_cast<uint32_t>(sums[j]) + sum);
      std::memcpy(out + lane * 4, column, sizeof column);
    }
  }
}

}  // namespace

std::shared_ptr<const PackedGemm8> pack_gemm8(int k, int n, const int8_t* b, bool trans_b, const int32_t* bias,
                                              const float* scale, int scales, int input_zero, const int8_t* weight_zero,
                                              int weight_zeros) {
  auto packed = std::make_shared<PackedGemm8>();
  packed->k = k;
  packed->n = n;
  const auto zero_of = [&](int j) { return weight_zeros == 0 ? 0 : int32_t{weight_zero[weight_zeros == 1 ? 0 : j]}; };
  const auto sum_of_zeros = [&](int j) {
    return static_cast<int32_t>(static_cast<uint32_t>(k) * static_cast<uint32_t>(zero_of(j)));
  };
  packed->columns = Aligned<int32_t>(static_cast<size_t>(whole_blocks(n)));
  packed->columns.zero();
  int32_t* const columns = packed->columns.data();
  const size_t block_size = static_cast<size_t>(packed->steps()) * 4 * kLanes;
  packed->weights = Aligned<int8_t>(packed->blocks() * block_size);
  packed->weights.zero();
  int8_t* const weights = packed->weights.data();
  // In the order in which the numbers lie in memory.
  if (trans_b) {
    for (int j = 0; j < n; ++j) {
      const int8_t* const from = b + static_cast<size_t>(j) * k;
      int8_t* const out = weights + j / kLanes * block_size + j % kLanes * 4;
      columns[j] = sum_of(from, k, 1);
      for (int i = 0; i < k; ++i) out[static_cast<size_t>(i / 4) * 4 * kLanes + i % 4] = from[i];
    }
  } else {
    const std::vector<int8_t> none(static_cast<size_t>(n));
    for (int i = 0; i < k; i += 4) {
      const auto row = [&](int r) { return i + r < k ? b + static_cast<size_t>(i + r) * n : none.data(); };
      pack_four_rows({row(0), row(1), row(2), row(3)}, n, weights + static_cast<size_t>(i) * kLanes, block_size, columns);
    }
  }
  packed->bias = packed_bias8(n, bias, input_zero, [&](int j) { return columns[j]; }, sum_of_zeros);
  if (std::any_of(weight_zero, weight_zero + weight_zeros, [](int8_t zero) { return zero != 0; })) {
    packed->weight_zero = Aligned<int32_t>(static_cast<size_t>(whole_blocks(n)));
    packed->weight_zero.zero();
  }
  for (int j = 0; j < n; ++j) {
    columns[j] = static_cast<int32_t>(static_cast<uint32_t>(columns[j]) - static_cast<uint32_t>(sum_of_zeros(j)));
    if (packed->weight_zero.size() > 0) packed->weight_zero.data()[j] = zero_of(j);
  }
  packed->scale = packed_scale8(n, scale, scales);
  return packed;
}

size_t gemm8_packed_bytes(const PackedGemm8& gemm) {
  return gemm.weights.bytes() + gemm.bias.bytes() + gemm.scale.bytes() +
         gemm.columns.bytes() + gemm.weight_zero.bytes();
}

size_t products8_scratch_bytes(int m, int k, int n) {
  const size_t row = static_cast<size_t>((k + 3) / 4) * 4, columns = static_cast<size_t>(whole_blocks(n));
  // What is packed, each column's first number, scale and zero point; the rows, padded, and their sums.
  return columns * row + 3 * columns * sizeof(int32_t) + static_cast<size_t>(m) * (sizeof(int32_t) + row);
}

size_t gemm8_scratch_bytes(const PackedGemm8& gemm, int m, bool at_run_time) {
  size_t bytes = gemm.k % 4 == 0 ? 0 : static_cast<size_t>(gemm.steps()) * 4 * m;
  if (gemm.weight_zero.size() > 0) bytes += static_cast<size_t>(m) * sizeof(int32_t);
  if (at_run_time) bytes += 2 * static_cast<size_t>(whole_blocks(gemm.n)) * sizeof(int32_t);
  return bytes;
}

}  // namespace rskip
