// Packing of matrices of 8-bit numbers.
#include "kernels/conv_rules.h"
#include "kernels/pack8.h"

namespace rskip {

std::shared_ptr<const PackedGemm8> pack_gemm8(int k, int n, const int8_t* b, bool trans_b, const int32_t* bias,
                                              const float* scale, int scales, int input_zero) {
  auto packed = std::make_shared<PackedGemm8>();
  packed->k = k;
  packed->n = n;
  const size_t row = trans_b ? 1 : n, column = trans_b ? k : 1;
  packed->bias = packed_bias8(n, bias, input_zero, [&](int j) { return sum_of(b + j * column, k, row); });
  packed->scale = packed_scale8(n, scale, scales);
  const size_t block_size = static_cast<size_t>(packed->steps()) * 4 * kLanes;
  packed->weights = Aligned<int8_t>(packed->blocks() * block_size);
  packed->weights.zero();
  for (int block = 0; block < packed->blocks(); ++block) {
    int8_t* out = packed->weights.data() + block * block_size;
    for (int i = 0; i < k; ++i) {
      int8_t* group = out + static_cast<size_t>(i / 4) * 4 * kLanes + i % 4;
      each_lane(block, n, [&](int j, int lane) { group[lane * 4] = b[i * row + j * column]; });
    }
  }
  return packed;
}

size_t gemm8_packed_bytes(const PackedGemm8& gemm) { return gemm.weights.bytes() + gemm.bias.bytes() + gemm.scale.bytes(); }

size_t gemm8_scratch_bytes(const PackedGemm8& gemm, int m) {
  return gemm.k % 4 == 0 ? 0 : static_cast<size_t>(gemm.steps()) * 4 * m;
}

}  // namespace rskip
