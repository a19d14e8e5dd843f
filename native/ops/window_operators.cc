// Operators that slide a window over an image. Which algorithm computes a step depends on the program alone, never on the
// instruction set, the number of threads or the data, so that every machine computes the same bits.
#include <optional>
#include <utility>

#include "ops/gemm_operators.h"
#include "ops/ops.h"
#include "ops/lower_quantized_operators.h"
#include "plan/window2d.h"
#include "plan/lowering.h"
#include "program/check_step.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_conv(const StepCheck& c) {
  c.counts(4, 1);
  c.all_float();
  c.conv_shapes();
  if (c.optional(2)) c.shape_is(c.in(2), {c.in(1).shape[0]});
  if (c.optional(3)) c.shape_is(c.in(3), c.out().shape);
}

bool lower_conv(Lowering& plan, const Step& step) {
  const ValueId x_id = step.inputs[0], weight = step.inputs[1], bias = step.inputs[2], residual = step.inputs[3];
  Image x, y;
  const std::optional<Window2d> window = as_2d(step.window);
  if (!plan.as_images(step, &x, &y) || !window) return false;
  if (!plan.is_constant(weight) || (bias && !plan.is_constant(bias))) return false;
  const bool pointwise = window->kernel_h == 1 && window->kernel_w == 1 && step.group == 1 && is_empty(window->pad);
  if (pointwise && x.pixels() == 1 && y.pixels() == 1) {
    draft_gemm(plan, step, {x.n, x.c, y.c, true});
    return true;
  }
  const ConvShape shape = conv_shape(x, y, *window, static_cast<int>(step.group));
  const ConvAlgorithm algorithm = choose_conv_algorithm(shape, plan.precision);
  const Halo halo = conv_input_halo(shape, algorithm);

  // Weights are packed alike for every height and width, so that all compiled shapes of a model share them.
  const auto packed = plan.pack<PackedConv>(
      {plan.constant_key(weight), plan.constant_key(bias), kPackedConv, static_cast<int64_t>(algorithm), x.c, y.c,
       shape.kernel_h, shape.kernel_w, shape.groups},
      {weight, bias}, [=](const ConstantReader& read) {
        return pack_conv(shape, algorithm, read.of<float>(weight), read.of<float>(bias));
      });

  const bool planar = reads_planar(algorithm);
  const NodeId from = planar ? plan.request_planar(x_id, halo) : plan.request_blocked(x_id, halo);
  const NodeId add = residual ? plan.request_blocked(residual) : NodeId();
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  Draft draft{.reads = {from}, .write = to};
  if (add) {
    draft.reads.push_back(add);
    draft.in_place.push_back(add);
  }
  const int64_t work = saturating_product({y.c, y.pixels(), x.c / step.group, shape.kernel_h, shape.kernel_w});
  const auto operands = [=, act = step.act](const Emitter& e, int n) {
    ConvOperands o;
    o.conv = rebind_conv(**packed, shape);
    o.packed = *packed;
    o.planar = planar;
    if (planar) {
      o.x_planar = e.planar(from, n);
    } else {
      o.x = e.blocked(from, n);
    }
    o.x_pairs = e.has_pairs(from);
    o.y = e.blocked(to, n);
    o.y_pairs = e.has_pairs(to);
    o.has_residual = static_cast<bool>(add);
    if (o.has_residual) o.residual = e.blocked(add, n);
    o.act = act;
    o.multiply_adds = work;
    return o;
  };
  draft.make = [=](const Emitter& e) {
    return for_images(y.n, [&](int n) { return make_conv(e.table(), operands(e, n)); });
  };
  draft.conv = std::make_shared<ConvDraft>(ConvDraft{shape, algorithm, static_cast<bool>(add), step.act, y.n, operands, nullptr});
  plan.compute(std::move(draft));
  return true;
}

void compute_conv(const DenseStep& d) {
  ops::conv(d.x[0], d.x[1], d.x[2], d.x[3], d.step.window, d.step.group, d.step.act, *d.y, d.poll);
}

void check_pool(const StepCheck& c) {
  const size_t outputs = c.step.outputs.size();
  c.require(outputs == 1 || (outputs == 2 && c.step.max), "wrong number of outputs");
  c.counts(1, outputs);
  if (c.step.max && is_byte(c.in(0).dtype)) c.require(c.out().dtype == c.in(0).dtype, "types differ");
  else c.all_float();
  c.window(c.in(0), c.out(), false);
  c.require(c.in(0).shape[1] == c.out().shape[1], "channels differ");
  if (outputs == 2) {
    c.require(c.out(1).dtype == DType::kInt64, "the indices are not int64");
    c.shape_is(c.out(1), c.out().shape);
  }
}

bool lower_pool(Lowering& plan, const Step& step) {
  if (is_byte(plan.value(step.inputs[0]).dtype)) return lower_pool8(plan, step);
  Image x, y;
  const std::optional<Window2d> window = as_2d(step.window);
  if (step.outputs.size() != 1 || !plan.as_images(step, &x, &y) || !window) return false;
  // `ops::pool` is faster, because blocks of one channel are mostly empty.
  if (!step.max && x.c == 1 && step.window.kernel.back() == 1) return false;
  PoolArgs args = pool_window(*window);
  args.max = step.max;
  args.count_include_pad = step.count_include_pad;
  const NodeId from = plan.request_blocked(step.inputs[0]);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return for_images(
                      y.n, [&](int n) { return make_pool(e.table(), e.blocked(from, n), e.blocked(to, n), args); });
                }});
  return true;
}

void compute_pool(const DenseStep& d) {
  static const TensorView kNoIndices;
  const TensorView& indices = d.step.outputs.size() == 2 ? d.y[1] : kNoIndices;
  ops::pool(d.x[0], d.step.window, d.step.max, d.step.count_include_pad, d.step.column_major, *d.y, indices, d.poll);
}

}  // namespace

const OperatorRules operators::conv = {check_conv, lower_conv, compute_conv};
const OperatorRules operators::pool = {check_pool, lower_pool, compute_pool};

}  // namespace rskip
