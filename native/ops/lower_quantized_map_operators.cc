// Lowering of integer steps that take every element or window of a map alike.
#include <limits>
#include <optional>
#include <utility>

#include "ops/lower_quantized_operators.h"
#include "plan/window2d.h"

namespace rskip {
namespace {

// Sixteen of them are a pixel, so that kernels on maps serve.
bool whole_pixels(int64_t elements) {
  return elements > 0 && elements % kLanes == 0 && elements <= std::numeric_limits<int>::max();
}

BinaryArgs8 binary_args(const Step& step) {
  BinaryArgs8 args;
  args.kind = step.binary;
  args.zero_a = step.terms[0].zero;
  args.zero_b = step.terms[1].zero;
  args.factor_a = step.terms[0].factor;
  args.factor_b = step.terms[1].factor;
  args.rounding = rounding_of(step.requant);
  return args;
}

// One operand has the result's shape and is blocked, the first one of a sum; the other has one number for each channel of each image.
bool lower_channels8(Lowering& plan, const Step& step) {
  Image x, narrow;
  ValueId a = step.inputs[0], b = step.inputs[1];
  BinaryArgs8 args = binary_args(step);
  if (step.binary == BinaryKind::kMul && plan.value(a).shape != plan.value(step.outputs[0]).shape) {
    std::swap(a, b);
    std::swap(args.zero_a, args.zero_b);
  }
  if (plan.value(a).shape != plan.value(step.outputs[0]).shape) return false;
  if (!as_image(plan.value(a), &x, kBytes) || !as_image(plan.value(b), &narrow, kBytes)) return false;
  if (!plan.blocked_at_home(a) || plan.is_constant(b)) return false;
  if (plan.value(b).shape.size() != plan.value(a).shape.size() || !(narrow == Image{x.n, x.c, 1, 1})) return false;
  const NodeId left = plan.request(a, Form::kBlocked), right = plan.request(b, Form::kBlocked);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  Draft draft{.reads = {left, right}, .write = to, .in_place = {left}};
  args.by_channel = true;
  draft.make = [=](const Emitter& e) {
    return for_images(x.n, [&](int n) {
      return make_binary8(e.table(), e.blocked8(left, n), e.blocked8(right, n), e.blocked8(to, n), args);
    });
  };
  plan.compute(std::move(draft));
  return true;
}

// Dense operands of the result's shape, of which one may be a row for all of the result's.
bool lower_rows8(Lowering& plan, const Step& step) {
  const Value& y = plan.value(step.outputs[0]);
  const bool one[2] = {plan.value(step.inputs[0]).shape != y.shape, plan.value(step.inputs[1]).shape != y.shape};
  const int64_t n = one[0] || one[1] ? y.shape.back() : y.elements;
  if ((one[0] && one[1]) || !whole_pixels(y.elements) || !whole_pixels(n)) return false;
  for (size_t i = 0; i < 2; ++i) {
    const Value& x = plan.value(step.inputs[i]);
    if (one[i] && !(x.elements == n && x.shape.back() == n)) return false;
  }
  const NodeId left = plan.request(step.inputs[0], Form::kDense), right = plan.request(step.inputs[1], Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  Draft draft{.reads = {left, right}, .write = to, .in_place = {left, right}, .elementwise = true};
  draft.make = [=, rows = y.elements / n, one_left = one[0], one_right = one[1], args = binary_args(step)](const Emitter& e) {
    return make_binary8(e.table(), dense_rows8(e.place(left), rows, n, one_left),
                        dense_rows8(e.place(right), rows, n, one_right), dense_rows8(e.place(to), rows, n), args);
  };
  if (step.binary == BinaryKind::kAdd) {
    draft.add8 = std::make_shared<AddDraft8>(
        AddDraft8{{step.terms[0], step.terms[1]}, {one[0], one[1]}, rounding_of(step.requant)});
  }
  plan.compute(std::move(draft));
  return true;
}

}  // namespace

bool lower_qbinary(Lowering& plan, const Step& step) {
  const ValueId a = step.inputs[0], b = step.inputs[1];
  const Value& y = plan.value(step.outputs[0]);
  if (!is_bytes(plan, a) || !is_bytes(plan, b) || y.dtype != kBytes) return false;
  const bool same = plan.value(a).shape == y.shape && plan.value(b).shape == y.shape;
  const bool blocked = same && (plan.blocked_at_home(a) || plan.blocked_at_home(b));
  if (!blocked && lower_rows8(plan, step)) return true;
  if (!same) return lower_channels8(plan, step);
  if (!blocked) return false;
  const NodeId left = plan.request(a, Form::kBlocked), right = plan.request(b, Form::kBlocked);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  Draft draft{.reads = {left, right}, .write = to, .in_place = {left, right}, .elementwise = true};
  draft.make = [=, args = binary_args(step), images = plan.image(to).n](const Emitter& e) {
    return for_images(images, [&](int i) {
      return make_binary8(e.table(), e.blocked8(left, i), e.blocked8(right, i), e.blocked8(to, i), args);
    });
  };
  if (step.binary == BinaryKind::kAdd) {
    draft.add8 =
        std::make_shared<AddDraft8>(AddDraft8{{step.terms[0], step.terms[1]}, {}, rounding_of(step.requant)});
  }
  plan.compute(std::move(draft));
  return true;
}

bool lower_qglobal_pool(Lowering& plan, const Step& step) {
  const ValueId x_id = step.inputs[0], y_id = step.outputs[0];
  const DType out = plan.value(y_id).dtype;
  Image x;
  if (!plan.blocked_at_home(x_id) || !as_image(plan.value(x_id), &x, kBytes)) return false;
  if (out != kBytes && out != DType::kFloat32) return false;
  const bool to_float = out == DType::kFloat32;
  const NodeId from = plan.request(x_id, Form::kBlocked);
  const NodeId to = plan.target(y_id, Form::kDense);
  GlobalPoolArgs8 args;
  args.zero = step.terms[0].zero;
  args.factor = step.terms[0].factor;
  args.rounding = rounding_of(step.requant);
  const int64_t item = x.c * static_cast<int64_t>(dtype_size(out));
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return for_images(x.n, [&](int n) {
                    return make_global_pool8(e.table(), e.blocked8(from, n), e.place(to).plus(n * item), to_float, args);
                  });
                }});
  return true;
}

bool lower_qpool(Lowering& plan, const Step& step) {
  Image x, y;
  const std::optional<Window2d> window = as_2d(step.window);
  const ValueId x_id = step.inputs[0], y_id = step.outputs[0];
  if (!plan.blocked_at_home(x_id) || !window) return false;
  if (!as_image(plan.value(x_id), &x, kBytes) || !as_image(plan.value(y_id), &y, DType::kFloat32)) return false;
  SumPoolArgs8 args;
  args.window = pool_window(*window);
  args.zero = step.terms[0].zero;
  args.factor = step.terms[0].factor;
  args.squares = step.squares;
  const NodeId from = plan.request(x_id, Form::kBlocked);
  const NodeId to = plan.target(y_id, Form::kBlocked);
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return for_images(
                      y.n, [&](int n) { return make_sum_pool8(e.table(), e.blocked8(from, n), e.blocked(to, n), args); });
                }});
  return true;
}

bool lower_lookup(Lowering& plan, const Step& step) {
  const ValueId x = step.inputs[0];
  const Value& y = plan.value(step.outputs[0]);
  if (!is_bytes(plan, x) || y.dtype != kBytes) return false;
  const bool blocked = plan.blocked_at_home(x);
  if (!blocked && !whole_pixels(y.elements)) return false;
  const Form form = blocked ? Form::kBlocked : Form::kDense;
  const NodeId from = plan.request(x, form), table = plan.request(step.inputs[1], Form::kDense);
  const NodeId to = plan.target(step.outputs[0], form);
  Draft draft{.reads = {from, table}, .write = to, .in_place = {from}};
  draft.make = [=, images = plan.image(to).n, n = y.elements](const Emitter& e) {
    if (!blocked) return make_lookup8(e.table(), dense_span8(e.place(from), n), e.place(table), dense_span8(e.place(to), n));
    return for_images(
        images, [&](int i) { return make_lookup8(e.table(), e.blocked8(from, i), e.place(table), e.blocked8(to, i)); });
  };
  plan.compute(std::move(draft));
  return true;
}

bool lower_pool8(Lowering& plan, const Step& step) {
  Image x, y;
  const std::optional<Window2d> window = as_2d(step.window);
  if (step.outputs.size() != 1 || !plan.as_images(step, &x, &y, kBytes) || !window) return false;
  PoolArgs8 args;
  args.window = pool_window(*window);
  const NodeId from = plan.request(step.inputs[0], Form::kBlocked);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return for_images(
                      y.n, [&](int n) { return make_pool8(e.table(), e.blocked8(from, n), e.blocked8(to, n), args); });
                }});
  return true;
}

}  // namespace rskip
