#include "ops/lower_quantized_product_operators.h"

#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "ops/gemm_operators.h"

namespace rskip {
namespace {

// A matrix product that has `additions` already.
std::shared_ptr<const ProductDraft8> addable(int32_t zero, int additions,
                                             std::function<GemmOperands8(const Emitter&)> operands) {
  const auto add = [=](const Addition8& sum, NodeId residual, bool one_row, NodeId to) -> AddedDraft8 {
    if (additions == kMaxAdditions8) return {};
    const auto with = [=](const Emitter& e) {
      GemmOperands8 o = operands(e);
      o.y = e.place(to);
      o.additions.push_back({e.place(residual), one_row ? 0 : o.n, sum});
      return o;
    };
    return {[=](const Emitter& e) { return make_gemm8(e.table(), with(e)); }, addable(sum.rounding.zero, additions + 1, with)};
  };
  return std::make_shared<ProductDraft8>(ProductDraft8{zero, add});
}

}  // namespace

bool ProductInputs::suit(const Lowering& plan) const {
  if (!is_bytes(plan, x) || !plan.is_constant(w) || plan.value(w).dtype != DType::kInt8 || !scale) return false;
  return (!bias || plan.is_constant(bias)) && (!w_zero || plan.is_constant(w_zero));
}

WeightCache::Key ProductInputs::key(const Lowering& plan, WeightCache::Key more) const {
  for (ValueId id : {w_zero, x_zero, scale, bias, w}) {
    more.insert(more.begin(), plan.is_constant(id) ? plan.constant_key(id) : -1);
  }
  return more;
}

Product8::Product8(Lowering& plan, const Step& step)
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

Draft Product8::draft(NodeId from, NodeId to) const {
  Draft draft{.reads = {from}, .write = to};
  for (NodeId more : {shift_, factor_, centre_}) {
    if (more) draft.reads.push_back(more);
  }
  return draft;
}

GemmOperands8 Product8::operands(const Emitter& e) const {
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

void draft_gemm8(Lowering& plan, const Step& step, const GemmShape8& shape) {
  const NodeId from = plan.request(step.inputs[0], Form::kDense);
  const Product8 product(plan, step);
  const ProductInputs& in = product.in;
  const auto packed = plan.pack<PackedGemm8>(
      in.key(plan, {kPackedGemm8, shape.k, shape.n, shape.trans_b, product.to_float}),
      {in.w, product.fixed_scale, product.start, in.w_zero}, [=](const ConstantReader& read) {
        return pack_gemm8(shape.k, shape.n, read.of<int8_t>(product.in.w), shape.trans_b, read.of<int32_t>(product.start),
                          read.of<float>(product.fixed_scale), product.scales, product.zero,
                          read.of<int8_t>(product.in.w_zero), product.weight_zeros);
      });
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  Draft draft = product.draft(from, to);
  const auto operands = [=](const Emitter& e) {
    GemmOperands8 o = product.operands(e);
    o.gemm = *packed;
    o.a = e.place(from);
    o.y = e.place(to);
    o.m = shape.m;
    o.k = shape.k;
    o.n = shape.n;
    return o;
  };
  draft.make = [=](const Emitter& e) { return make_gemm8(e.table(), operands(e)); };
  if (!product.to_float && shape.n % kLanes == 0) draft.product8 = addable(step.requant.zero, 0, operands);
  plan.compute(std::move(draft));
}

namespace {

// Products of activations.
bool lower_products8(Lowering& plan, const Step& step) {
  const ProductInputs in(step);
  const Value &a = plan.value(in.x), &b = plan.value(in.w), &y = plan.value(step.outputs[0]);
  if (plan.is_constant(in.w) || a.dtype != kBytes || b.dtype != kBytes || y.dtype != kBytes || in.bias) return false;
  if (!in.scale || !in.bound(plan) || scales_of(plan, in.scale) != 1) return false;
  if (in.w_zero && !(plan.is_constant(in.w_zero) && scales_of(plan, in.w_zero) == 1)) return false;
  const auto fits = [](int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max() / 4; };
  const int64_t m = y.shape[y.shape.size() - 2], n = y.shape.back(), k = a.shape.back();
  if (!fits(m) || !fits(n) || !fits(k) || y.elements == 0 || y.elements / (m * n) > kMaxProducts) return false;
  ProductsArgs8 args;
  args.m = static_cast<int>(m);
  args.k = static_cast<int>(k);
  args.n = static_cast<int>(n);
  args.trans_b = step.trans_b;
  args.zero_a = plan.scalar<uint8_t>(in.x_zero);
  args.zero_b = plan.scalar<uint8_t>(in.w_zero);
  args.scale = plan.scalar<float>(in.scale);
  args.rounding = rounding_of(step.requant);
  const NodeId left = plan.request(in.x, Form::kDense), right = plan.request(in.w, Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {left, right}, .write = to,
                .make = [=, offsets = product_offsets(a.shape, b.shape, y.shape)](const Emitter& e) {
                  return make_products8(e.table(), e.place(left), e.place(right), e.place(to), args, offsets);
                }});
  return true;
}

}  // namespace

bool lower_qmatmul(Lowering& plan, const Step& step) {
  if (lower_products8(plan, step)) return true;
  const ProductInputs in(step);
  const Value &a = plan.value(in.x), &y = plan.value(step.outputs[0]);
  if (!in.suit(plan) || plan.value(in.w).shape.size() != 2) return false;
  if (y.dtype != DType::kFloat32 && !(y.dtype == kBytes && in.bound(plan))) return false;
  const auto fits = [](int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max() / 4; };
  const int64_t k = a.shape.back(), n = y.shape.back();
  if (!fits(k) || !fits(n) || a.elements == 0 || !fits(a.elements / k)) return false;
  draft_gemm8(plan, step, {static_cast<int>(a.elements / k), static_cast<int>(k), static_cast<int>(n), step.trans_b});
  return true;
}

}  // namespace rskip
