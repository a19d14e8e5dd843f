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
  bool suit(const Lowering& plan) const {
    if (!is_bytes(plan, x) || !plan.is_constant(w) || plan.value(w).dtype != DType::kInt8 || !scale) return false;
    return (!bias || plan.is_constant(bias)) && (!w_zero || plan.is_constant(w_zero));
  }
  // Whether scale and zero point of x are known before any run.
  bool bound(const Lowering& plan) const {
    return plan.is_constant(scale) && (!x_zero || plan.is_constant(x_zero));
  }
  // What decides the packed bytes, with `more` behind.
  WeightCache::Key key(const Lowering& plan, WeightCache::Key more) const {
    for (ValueId id : {w_zero, x_zero, scale, bias, w}) {
      more.insert(more.begin(), plan.is_constant(id) ? plan.constant_key(id) : -1);
    }
    return more;
  }
};

// What the kernels of matrix products take besides the two matrices.
class Product8 {
 public:
  Product8(Lowering& plan, const Step& step)
      : in(step),
        to_float(plan.value(step.outputs[0]).dtype == DType::kFloat32),
        scales(scales_of(plan, in.scale)),
        weight_zeros(in.w_zero ? scales_of(plan, in.w_zero) : 0),
        rounding_(rounding_of(step.requant)),
        act_(step.act),
        is_conv_(step.op == Op::kQconv) {
    const bool shifted = in.bias && plan.value(in.bias).dtype == DType::kFloat32;
    if (!shifted) start = in.bias;
    if (plan.is_constant(in.scale)) fixed_scale = in.scale;
    const bool has_zero = in.x_zero && !plan.is_constant(in.x_zero);
    if (!has_zero) zero = plan.scalar<uint8_t>(in.x_zero);
    if (!fixed_scale) factor_ = plan.request(in.scale, Form::kDense);
    if (has_zero) centre_ = plan.request(in.x_zero, Form::kDense);
    if (shifted) shift_ = plan.request(in.bias, Form::kDense);
  }

  Draft draft(NodeId from, NodeId to) const {
    Draft draft{.reads = {from}, .write = to};
    for (NodeId more : {shift_, factor_, centre_}) {
      if (more) draft.reads.push_back(more);
    }
    return draft;
  }
  GemmOperands8 operands(const Emitter& e) const {
    GemmOperands8 o;
    o.to_float = to_float;
    o.has_shift = static_cast<bool>(shift_);
    if (o.has_shift) o.shift = e.place(shift_);
    o.rounds_product = is_conv_;
    o.has_scale = static_cast<bool>(factor_);
    if (o.has_scale) o.scale = e.place(factor_);
    o.scales = scales;
    o.has_zero = static_cast<bool>(centre_);
    if (o.has_zero) o.zero = e.place(centre_);
    o.rounding = rounding_;
    o.act = act_;
    return o;
  }

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
