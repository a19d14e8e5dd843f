// Quantised products with constant weights: what convolutions and matrix products have in common.
#pragma once

#include <cstdint>

#include "ops/lower_quantized_operators.h"
#include "plan/lowering.h"

namespace rskip {

inline int scales_of(const Lowering& plan, ValueId scale) { return static_cast<int>(plan.value(scale).elements); }

// The operands of qconv and qmatmul.
struct ProductInputs {
  ValueId x, w, bias, scale, x_zero, w_zero;
  explicit ProductInputs(const Step& step)
      : x(step.inputs[0]),
        w(step.inputs[1]),
        bias(step.inputs[2]),
        scale(step.inputs[3]),
        x_zero(step.inputs[4]),
        w_zero(step.inputs[5]) {}

  // Whether kernels can compute it: unsigned inputs, constant signed weights, a scale.
  bool suit(const Lowering& plan) const;
  // Whether scale and zero point of x are known before any run.
  bool bound(const Lowering& plan) const {
    return plan.is_constant(scale) && (!x_zero || plan.is_constant(x_zero));
  }
  // What decides the packed bytes, with `more` behind.
  WeightCache::Key key(const Lowering& plan, WeightCache::Key more) const;
};

// What the kernels of matrix products take besides the two matrices.
class Product8 {
 public:
  Product8(Lowering& plan, const Step& step);

  Draft draft(NodeId from, NodeId to) const;
  GemmOperands8 operands(const Emitter& e) const;

  const ProductInputs in;
  const bool to_float;
  const int scales, weight_zeros;
  ValueId start, fixed_scale;  // the bias in integers, and the scale, where they are constants
  uint8_t zero = 0;            // of the input; 0 where it is known at run time only

 private:
  const Rounding rounding_;
  const Activation act_;
  const bool is_conv_;
  NodeId factor_, centre_, shift_;
};

struct GemmShape8 {
  int m = 0, k = 0, n = 0;
  bool trans_b = false;
};

// Drafts the product of input 0 and the constant weights of `step`, a convolution of single pixels or a product.
void draft_gemm8(Lowering& plan, const Step& step, const GemmShape8& shape);

}  // namespace rskip
