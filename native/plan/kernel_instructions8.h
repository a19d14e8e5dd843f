// Instructions that call the kernels on 8-bit numbers.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/int8/table8.h"
#include "plan/kernel_instructions.h"

namespace rskip {

struct ConvOperands8 {
  std::shared_ptr<const PackedConv8> conv;
  std::shared_ptr<const PackedConv8> packed;  // as in ConvOperands
  bool planar = false;
  BlockedOperand8 x;
  PlanarOperand8 x_planar;
  uint8_t x_zero = 0;
  BlockedOperand8 y;
  bool has_residual = false;
  BlockedOperand8 residual;
  Rounding rounding;
  Addition8 addition;
  int64_t multiply_adds = 0;
};
InstructionPtr make_conv8(const KernelTable& table, ConvOperands8 operands);
// As for floats.
InstructionPtr make_fused_convs(const KernelTable& table, ConvOperands8 first, ConvOperands8 second,
                                std::optional<ConvOperands8> third);

struct AddedRows8 {
  Place addend;
  ptrdiff_t row = 0;
  Addition8 sum;
};
struct GemmOperands8 {
  std::shared_ptr<const PackedGemm8> gemm;
  Place a, y;
  bool to_float = false;
  bool has_shift = false;
  Place shift;
  bool rounds_product = false;  // before shift is added
  // Those known at run time only.
  bool has_scale = false, has_zero = false;
  Place scale, zero;
  int scales = 1;
  int m = 0, k = 0, n = 0;
  Rounding rounding;
  std::vector<AddedRows8> additions;  // at most kMaxAdditions8
  Activation act;
  bool at_run_time() const { return has_scale || has_zero; }
};
// What the operands say, but for gemm, a, m, y and scratch, of the columns from `first` on.
GemmArgs8 gemm_args(const Frame& frame, const GemmOperands8& operands, ptrdiff_t first = 0);
InstructionPtr make_gemm8(const KernelTable& table, GemmOperands8 operands);
// `fixed` carries all but pointers and `count`, which are replaced; `offsets` are those of a, b and y, for each product.
InstructionPtr make_products8(const KernelTable& table, Place a, Place b, Place y, const ProductsArgs8& fixed,
                              std::vector<int64_t> offsets);

// Convolution by im2col (conv_im2col8.cc). weight is (M, C/groups, kh, kw); as pack_gemm8().
struct PackedIm2col8;
std::shared_ptr<const PackedIm2col8> pack_im2col8(const ConvShape& shape, const int8_t* weight, const int32_t* bias,
                                                  const float* scale, int scales, int input_zero, const int8_t* weight_zero,
                                                  int weight_zeros);
struct Im2colOperands8 {
  std::shared_ptr<const PackedIm2col8> conv;
  ConvShape shape;
  GemmOperands8 product;  // without matrices and their places
  BlockedOperand8 x;
  BlockedOperand8 y;  // or, product.to_float:
  BlockedOperand y_float;
  uint8_t zero = 0;  // of x, where it is known
  int64_t multiply_adds = 0;
};
InstructionPtr make_im2col8(const KernelTable& table, Im2colOperands8 operands);

// Depthwise convolution with floats as its results (conv_depthwise8.cc). Weights and zero points as for pack_conv8().
struct DepthwiseOperands8 {
  std::shared_ptr<const PackedConv> conv;
  GemmOperands8 product;  // without matrices and their places; has_scale, to_float and rounds_product
  BlockedOperand8 x;
  BlockedOperand y;
  uint8_t zero = 0;  // of x, where it is known
  int64_t multiply_adds = 0;
};
// Whether floats hold its sums.
bool depthwise8_is_exact(const ConvShape& shape);
std::shared_ptr<const PackedConv> pack_depthwise8(const ConvShape& shape, const int8_t* weight, const int8_t* weight_zero,
                                                  int weight_zeros);
InstructionPtr make_depthwise8(const KernelTable& table, DepthwiseOperands8 operands);

// `args` carries all but views and pointers, which are replaced.
InstructionPtr make_pool8(const KernelTable& table, BlockedOperand8 x, BlockedOperand8 y, const PoolArgs8& args);
InstructionPtr make_global_pool8(const KernelTable& table, BlockedOperand8 x, Place y, bool to_float,
                                 const GlobalPoolArgs8& args);
InstructionPtr make_sum_pool8(const KernelTable& table, BlockedOperand8 x, BlockedOperand y, const SumPoolArgs8& args);
InstructionPtr make_binary8(const KernelTable& table, BlockedOperand8 a, BlockedOperand8 b, BlockedOperand8 y,
                            const BinaryArgs8& args);
InstructionPtr make_lookup8(const KernelTable& table, BlockedOperand8 x, Place lookup, BlockedOperand8 y);
InstructionPtr make_quantize8(const KernelTable& table, Place x, Place y, int64_t n, float scale, int32_t zero);
InstructionPtr make_quantize8(const KernelTable& table, BlockedOperand x, BlockedOperand8 y, float scale, int32_t zero);
InstructionPtr make_dynamic_quantize8(const KernelTable& table, Place x, Place y, Place scale, Place zero, int64_t n);
InstructionPtr make_dynamic_quantize8(const KernelTable& table, BlockedOperand x, BlockedOperand8 y, Place scale, Place zero);
InstructionPtr make_dequantize8(const KernelTable& table, Place x, Place y, int64_t n, float scale, int32_t zero);
InstructionPtr make_planar_to_blocked8(const KernelTable& table, PlanarOperand8 x, BlockedOperand8 y);
InstructionPtr make_blocked_to_planar8(const KernelTable& table, BlockedOperand8 x, PlanarOperand8 y);

// A dense span of n bytes, a multiple of sixteen, as a map of one row: for what treats every element alike.
BlockedOperand8 dense_span8(Place place, int64_t n);
// The same of some dense rows of n bytes each, or of one for all of them.
BlockedOperand8 dense_rows8(Place place, int64_t rows, int64_t n, bool one_for_all = false);

}  // namespace rskip
