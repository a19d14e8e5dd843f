#include "ops/gemm_operators.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "ops/ops.h"
#include "ops/rows.h"
#include "program/check_step.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_gemm(const StepCheck& c) {
  c.counts(4, 1);
  c.all_float();
  const Ints &a = c.in(0).shape, &b = c.in(1).shape, &y = c.out().shape;
  c.require(a.size() >= 2 && b.size() == 2, "bad ranks");
  const int64_t k = c.step.trans_b ? b[1] : b[0], n = c.step.trans_b ? b[0] : b[1];
  c.require(a.back() == k, "the matrices don't fit");
  Ints shape = a;
  shape.back() = n;
  c.require(y == shape, "the matrices don't fit");
  if (c.optional(2)) c.shape_is(c.in(2), {n});
  if (c.optional(3)) c.shape_is(c.in(3), y);
}

void check_matmul(const StepCheck& c) {
  c.counts(2, 1);
  c.all_float();
  c.matmul_shapes(false);
}

// A product with a constant matrix.
bool lower_product(Lowering& plan, const Step& step, bool trans_b) {
  const Value &a = plan.value(step.inputs[0]), &b = plan.value(step.inputs[1]);
  if (!plan.is_constant(step.inputs[1]) || b.shape.size() != 2) return false;
  const auto fits = [](int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max(); };
  const int64_t k = a.shape.back(), n = plan.value(step.outputs[0]).shape.back();
  if (!fits(k) || !fits(n) || a.elements == 0 || !fits(a.elements / k)) return false;
  draft_gemm(plan, step, {static_cast<int>(a.elements / k), static_cast<int>(k), static_cast<int>(n), trans_b});
  return true;
}

bool lower_gemm(Lowering& plan, const Step& step) {
  if (step.inputs[2] && !plan.is_constant(step.inputs[2])) return false;
  return lower_product(plan, step, step.trans_b);
}

bool lower_products(Lowering& plan, const Step& step) {
  const Ints &a = plan.value(step.inputs[0]).shape, &b = plan.value(step.inputs[1]).shape;
  const Value& y = plan.value(step.outputs[0]);
  const auto fits = [](int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max() - kLanes; };
  const int64_t m = y.shape[y.shape.size() - 2], n = y.shape.back(), k = a.back();
  if (!fits(m) || !fits(n) || !fits(k) || y.elements == 0 || y.elements / (m * n) > kMaxProducts) return false;
  ProductsOperands operands{static_cast<int>(m), static_cast<int>(k), static_cast<int>(n),
                            product_offsets(a, b, y.shape)};
  const NodeId left = plan.request(step.inputs[0], Form::kDense), right = plan.request(step.inputs[1], Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {left, right}, .write = to, .make = [=](const Emitter& e) {
                  return make_products(e.table(), e.place(left), e.place(right), e.place(to), operands);
                }});
  return true;
}

bool lower_matmul(Lowering& plan, const Step& step) {
  return lower_product(plan, step, false) || lower_products(plan, step);
}

void compute_gemm(const DenseStep& d) {
  ops::gemm(d.x[0], d.x[1], d.x[2], d.x[3], d.step.trans_b, d.step.act, *d.y, d.poll);
}

void compute_matmul(const DenseStep& d) { ops::matmul(d.x[0], d.x[1], *d.y, d.poll); }

}  // namespace

std::vector<int64_t> product_offsets(const Ints& a, const Ints& b, const Ints& y) {
  const auto leading = [](const Ints& shape) { return Ints(shape.begin(), shape.end() - 2); };
  const auto matrix = [](const Ints& shape) { return shape[shape.size() - 1] * shape[shape.size() - 2]; };
  const Ints batch = leading(y);
  const std::array<Ints, 3> strides{ops::broadcast_strides(leading(a), batch),
                                    ops::broadcast_strides(leading(b), batch), ops::dense_strides(batch)};
  std::vector<int64_t> offsets;
  Poll poll;
  ops::for_each_row<3>(batch, strides, poll, [&](const auto& at, int64_t length, const auto& steps) {
    for (int64_t i = 0; i < length; ++i) {
      offsets.push_back((at[0] + i * steps[0]) * matrix(a));
      offsets.push_back((at[1] + i * steps[1]) * matrix(b));
      offsets.push_back((at[2] + i * steps[2]) * matrix(y));
    }
  });
  return offsets;
}

void draft_gemm(Lowering& plan, const Step& step, const GemmShape& shape) {
  const auto operand = [&](size_t i) { return i < step.inputs.size() ? step.inputs[i] : ValueId(); };
  const ValueId b = operand(1), c = operand(2), residual = operand(3);
  const Precision precision = plan.precision;
  const bool in_float = precision == Precision::kFloat32, single_row = in_float && shape.m == 1;
  const auto packed = plan.pack<PackedGemm>(
      {plan.constant_key(b), plan.constant_key(c), kPackedGemm, shape.k, shape.n, shape.trans_b, single_row,
       static_cast<int64_t>(precision)},
      {b, c},
      [=](const ConstantReader& read) {
        if (!in_float) return pack_gemm16(shape.k, shape.n, read.of<float>(b), shape.trans_b, read.of<float>(c), precision);
        return pack_gemm(shape.k, shape.n, read.of<float>(b), shape.trans_b, read.of<float>(c), single_row);
      });
  const NodeId from = plan.request(step.inputs[0], Form::kDense);
  const NodeId add = residual ? plan.request(residual, Form::kDense) : NodeId();
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  Draft draft{.reads = {from}, .write = to};
  if (add) {
    draft.reads.push_back(add);
    draft.in_place.push_back(add);
  }
  draft.make = [=, act = step.act](const Emitter& e) {
    GemmOperands o;
    o.gemm = *packed;
    o.a = e.place(from);
    o.y = e.place(to);
    o.has_residual = static_cast<bool>(add);
    if (o.has_residual) o.residual = e.place(add);
    o.m = shape.m;
    o.k = shape.k;
    o.n = shape.n;
    o.act = act;
    o.precision = precision;
    return make_gemm(e.table(), std::move(o));
  };
  plan.compute(std::move(draft));
}

const OperatorRules operators::gemm = {check_gemm, lower_gemm, compute_gemm};
const OperatorRules operators::matmul = {check_matmul, lower_matmul, compute_matmul};

}  // namespace rskip
