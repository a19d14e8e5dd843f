// Packing of matrices of 8-bit numbers.
#include <algorithm>

#include "kernels/convolution/conv_rules.h"
#include "kernels/int8/pack8.h"

namespace rskip {

std::shared_ptr<const PackedGemm8> pack_gemm8(int k, int n, const int8_t* b, bool trans_b, const int32_t* bias,
                                              const float* scale, int scales, int input_zero, const int8_t* weight_zero,
                                              int weight_zeros) {
  auto packed = std::make_shared<PackedGemm8>();
  packed->k = k;
  packed->n = n;
  const size_t row = trans_b ? 1 : n, column = trans_b ? k : 1;
  const auto zero_of = [&](int j) { return weight_zeros == 0 ? 0 : int32_t{weight_zero[weight_zeros == 1 ? 0 : j]}; };
  const auto sum_of_zeros = [&](int j) {
    return static_cast<int32_t>(static_cast<uint32_t>(k) * static_cast<uint32_t>(zero_of(j)));
  };
  packed->columns = Aligned<int32_t>(static_cast<size_t>(whole_blocks(n)));
  packed->columns.zero();
  int32_t* const columns = packed->columns.data();
  // In the order in which the numbers lie in memory.
  if (trans_b) {
    for (int j = 0; j < n; ++j) columns[j] = sum_of(b + j * column, k, row);
  } else {
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < n; ++j) {
        columns[j] = static_cast<int32_t>(static_cast<uint32_t>(columns[j]) + static_cast<uint32_t>(b[i * row + j]));
      }
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
  const size_t block_size = static_cast<size_t>(packed->steps()) * 4 * kLanes;
  packed->weights = Aligned<int8_t>(packed->blocks() * block_size);
  packed->weights.zero();
  for (int block = 0; block < packed->blocks(); ++block) {
    int8_t* out = packed->weights.data() + block * block_size;
    const auto put = [&](int i, int j, int lane) {
      out[static_cast<size_t>(i / 4) * 4 * kLanes + lane * 4 + i % 4] = b[i * row + j * column];
    };
    if (trans_b) {
      each_lane(block, n, [&](int j, int lane) {
        for (int i = 0; i < k; ++i) put(i, j, lane);
      });
    } else {
      for (int i = 0; i < k; ++i) each_lane(block, n, [&](int j, int lane) { put(i, j, lane); });
    }
  }
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
