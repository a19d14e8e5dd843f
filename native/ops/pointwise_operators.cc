// Operators that compute every element by itself.
#include <algorithm>
#include <array>
#include <utility>

#include "ops/ops.h"
#include "ops/rows.h"
#include "plan/lowering.h"
#include "program/check_step.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_affine(const StepCheck& c) {
  c.counts(3, 1);
  c.all_float();
  c.require(c.in(0).shape.size() >= 2, "bad rank");
  c.shape_is(c.in(1), {c.in(0).shape[1]});
  c.shape_is(c.in(2), {c.in(0).shape[1]});
  c.shape_is(c.out(), c.in(0).shape);
}

// Over the channels of a map where it lies in blocks, otherwise of a dense tensor.
bool lower_affine(Lowering& plan, const Step& step) {
  const bool constants = plan.is_constant(step.inputs[1]) && plan.is_constant(step.inputs[2]);
  if (!plan.blocked_at_home(step.inputs[0]) || !constants) {
    std::array<NodeId, 3> operands;
    for (size_t i = 0; i < 3; ++i) operands[i] = plan.request(step.inputs[i], Form::kDense);
    const auto [from, scale, shift] = operands;
    const NodeId to = plan.target(step.outputs[0], Form::kDense);
    const ops::Split s = ops::split_at(plan.value(step.inputs[0]).shape, 1);
    Draft draft{.reads = {from, scale, shift}, .write = to, .in_place = {from}};
    draft.make = [=, x = from, a = scale, b = shift, act = step.act](const Emitter& e) {
      return make_affine_dense(e.table(), e.place(x), e.place(a), e.place(b), e.place(to), {s.outer, s.length, s.inner},
                               act);
    };
    plan.compute(std::move(draft));
    return true;
  }
  const NodeId from = plan.request_blocked(step.inputs[0]);
  const Image x = plan.image(from);
  const NodeId scale = plan.constant_channels(step.inputs[1], x.c), shift = plan.constant_channels(step.inputs[2], x.c);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  plan.compute({.reads = {from}, .write = to, .in_place = {from}, .make = [=, act = step.act](const Emitter& e) {
                  return for_images(x.n, [&](int n) {
                    return make_affine(e.table(), e.blocked(from, n), e.place(scale), e.place(shift), e.blocked(to, n),
                                       act);
                  });
                }});
  return true;
}

void check_unary(const StepCheck& c) {
  c.counts(1, 1);
  c.all_float();
  c.shape_is(c.out(), c.in(0).shape);
}

bool lower_unary(Lowering& plan, const Step& step) {
  const Form form = plan.blocked_at_home(step.inputs[0]) ? Form::kBlocked : Form::kDense;
  const NodeId from = plan.request(step.inputs[0], form);
  const NodeId to = plan.target(step.outputs[0], form);
  plan.compute({.reads = {from}, .write = to, .in_place = {from}, .make = plan.make_activation(from, to, step.act)});
  return true;
}

void compute_unary(const DenseStep& d) { ops::unary(d.x[0], d.step.act, *d.y, d.poll); }

void check_binary(const StepCheck& c) {
  c.counts(2, 1);
  c.require(c.in(0).dtype == c.in(1).dtype && c.in(0).dtype == c.out().dtype, "types differ");
  c.require(c.out().dtype != DType::kBool, "arithmetic on bool");
  c.require(c.out().dtype == DType::kFloat32 || c.step.act.kind == ActivationKind::kNone, "an activation on integers");
  c.broadcasts();
}

// One operand has the result's shape and is blocked; the other has one element per channel (of all images or of each),
// or one in all.
bool lower_binary_channel(Lowering& plan, const Step& step, size_t wide) {
  const ValueId wide_id = step.inputs[wide], narrow_id = step.inputs[1 - wide];
  const Value &y = plan.value(step.outputs[0]), &narrow = plan.value(narrow_id);
  Ints shape(y.shape.size() - narrow.shape.size(), 1);
  shape.insert(shape.end(), narrow.shape.begin(), narrow.shape.end());
  if (std::any_of(shape.begin() + 2, shape.end(), [](int64_t d) { return d != 1; })) return false;
  const bool each = shape[0] != 1;
  if (each && (shape[1] != y.shape[1] || plan.is_constant(narrow_id))) return false;

  const NodeId from = plan.request_blocked(wide_id);
  const Image image = plan.image(from);
  const NodeId vector = plan.request_channels(narrow_id, image.c, each ? image.n : 1);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  const int64_t stride = each ? whole_blocks(image.c) * static_cast<int64_t>(sizeof(float)) : 0;
  Draft draft{.reads = {from, vector}, .write = to, .in_place = {from}};
  draft.make = [=, kind = step.binary, act = step.act, reversed = wide == 1](const Emitter& e) {
    return for_images(image.n, [&](int n) {
      return make_binary_channel(e.table(), kind, e.blocked(from, n), e.place(vector).plus(n * stride), reversed,
                                 e.blocked(to, n), act);
    });
  };
  plan.compute(std::move(draft));
  return true;
}

// Dense operands that are broadcast.
bool lower_binary_rows(Lowering& plan, const Step& step) {
  const Ints &a = plan.value(step.inputs[0]).shape, &b = plan.value(step.inputs[1]).shape;
  const Ints& y = plan.value(step.outputs[0]).shape;
  ops::Rows<3> rows(y, {ops::dense_strides(y), ops::broadcast_strides(a, y), ops::broadcast_strides(b, y)});
  const NodeId left = plan.request(step.inputs[0], Form::kDense), right = plan.request(step.inputs[1], Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  Draft draft{.reads = {left, right}, .write = to};
  if (a == y) draft.in_place = {left};
  else if (b == y) draft.in_place = {right};
  draft.make = [=, kind = step.binary, act = step.act, rows = std::move(rows)](const Emitter& e) {
    return make_binary_rows(e.table(), kind, e.place(left), e.place(right), e.place(to), rows, act);
  };
  plan.compute(std::move(draft));
  return true;
}

bool lower_binary(Lowering& plan, const Step& step) {
  const ValueId a_id = step.inputs[0], b_id = step.inputs[1];
  const Value &a = plan.value(a_id), &b = plan.value(b_id), &y = plan.value(step.outputs[0]);
  if (y.dtype != DType::kFloat32 || step.binary > BinaryKind::kMax) return false;
  if (a.shape != y.shape || b.shape != y.shape) {
    const size_t wide = a.shape == y.shape ? 0 : 1;
    const ValueId wide_id = step.inputs[wide];
    const bool blocked = plan.value(wide_id).shape == y.shape && plan.blocked_at_home(wide_id);
    return (blocked && lower_binary_channel(plan, step, wide)) || lower_binary_rows(plan, step);
  }
  const bool any_blocked = plan.blocked_at_home(a_id) || plan.blocked_at_home(b_id);
  const Form form = any_blocked ? Form::kBlocked : Form::kDense;
  const auto operand = [&](ValueId id) { return any_blocked ? plan.request_blocked(id) : plan.request(id, form); };
  const NodeId left = operand(a_id), right = operand(b_id);
  const NodeId to = plan.target(step.outputs[0], form);
  Draft draft{.reads = {left, right}, .write = to, .in_place = {left, right}, .elementwise = true};
  const Image image = plan.image(to);
  draft.make = [=, kind = step.binary, act = step.act, n = y.elements](const Emitter& e) -> InstructionPtr {
    if (form == Form::kDense) {
      return make_binary_span(e.table(), kind, e.place(left), e.place(right), e.place(to), n, act);
    }
    return for_images(image.n, [&](int i) {
      return make_binary(e.table(), kind, e.blocked(left, i), e.blocked(right, i), e.blocked(to, i), act);
    });
  };
  plan.compute(std::move(draft));
  return true;
}

void compute_binary(const DenseStep& d) { ops::binary(d.step.binary, d.x[0], d.x[1], d.step.act, *d.y, d.poll); }

void check_compare(const StepCheck& c) {
  c.counts(2, 1);
  c.require(c.in(0).dtype == c.in(1).dtype && c.out().dtype == DType::kBool, "types differ");
  c.broadcasts();
}

void compute_compare(const DenseStep& d) { ops::compare(d.step.compare, d.x[0], d.x[1], *d.y, d.poll); }

void check_logical(const StepCheck& c) {
  c.counts(c.step.logical == ops::LogicalKind::kNot ? 1 : 2, 1);
  for (size_t i = 0; i < c.step.inputs.size(); ++i) c.require(c.in(i).dtype == DType::kBool, "an input is not bool");
  c.require(c.out().dtype == DType::kBool, "the output is not bool");
  c.broadcasts();
}

void compute_logical(const DenseStep& d) {
  const size_t second = d.step.logical == ops::LogicalKind::kNot ? 0 : 1;
  ops::logical(d.step.logical, d.x[0], d.x[second], *d.y, d.poll);
}

void check_where(const StepCheck& c) {
  c.counts(3, 1);
  c.require(c.in(0).dtype == DType::kBool, "the condition is not bool");
  c.require(c.in(1).dtype == c.out().dtype && c.in(2).dtype == c.out().dtype, "types differ");
  c.broadcasts();
}

void compute_where(const DenseStep& d) { ops::where(d.x[0], d.x[1], d.x[2], *d.y, d.poll); }

void check_cast(const StepCheck& c) {
  c.counts(1, 1);
  c.shape_is(c.out(), c.in(0).shape);
}

void compute_cast(const DenseStep& d) { ops::cast(d.x[0], *d.y, d.poll); }

}  // namespace

const OperatorRules operators::affine = {check_affine, lower_affine};
const OperatorRules operators::unary = {check_unary, lower_unary, compute_unary};
const OperatorRules operators::binary = {check_binary, lower_binary, compute_binary};
const OperatorRules operators::compare = {check_compare, nullptr, compute_compare};
const OperatorRules operators::logical = {check_logical, nullptr, compute_logical};
const OperatorRules operators::where = {check_where, nullptr, compute_where};
const OperatorRules operators::cast = {check_cast, nullptr, compute_cast};

}  // namespace rskip
