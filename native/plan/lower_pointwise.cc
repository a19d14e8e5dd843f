// Steps that compute every element by itself.
#include <algorithm>
#include <utility>

#include "plan/lowering.h"

namespace rskip {

bool PlanBuilder::lower_affine(const Step& step) {
  if (!blocked_at_home(step.inputs[0]) || !is_constant(step.inputs[1]) || !is_constant(step.inputs[2])) return false;
  const NodeId from = request_blocked(step.inputs[0]);
  const Image x = nodes_[static_cast<size_t>(from)].image;
  const NodeId scale = constant_channels(step.inputs[1], x.c), shift = constant_channels(step.inputs[2], x.c);
  const NodeId to = target(step.outputs[0], Form::kBlocked);
  add_compute({.reads = {from}, .write = to, .in_place = {from}, .make = [=, act = step.act](const PlanBuilder& b) {
                 return for_images(x.n, [&](int n) {
                   return make_affine(b.table(), b.blocked(from, n), b.place(scale), b.place(shift), b.blocked(to, n),
                                      act);
                 });
               }});
  return true;
}

bool PlanBuilder::lower_unary(const Step& step) {
  const Form form = blocked_at_home(step.inputs[0]) ? Form::kBlocked : Form::kDense;
  const NodeId from = request(step.inputs[0], form);
  const NodeId to = target(step.outputs[0], form);
  add_compute({.reads = {from}, .write = to, .in_place = {from}, .make = make_activation(from, to, step.act)});
  return true;
}

MakeFn PlanBuilder::make_activation(NodeId from, NodeId to, const Activation& act) const {
  const Node node = nodes_[static_cast<size_t>(from)];
  if (node.form == Form::kBlocked) {
    return [=](const PlanBuilder& b) {
      return for_images(node.image.n,
                        [&](int n) { return make_unary(b.table(), b.blocked(from, n), b.blocked(to, n), act); });
    };
  }
  return [=, n = value(node.value).elements](const PlanBuilder& b) {
    return make_unary_span(b.table(), b.place(from), b.place(to), n, act);
  };
}

bool PlanBuilder::lower_binary(const Step& step) {
  const Value &a = value(step.inputs[0]), &b = value(step.inputs[1]), &y = value(step.outputs[0]);
  if (y.dtype != DType::kFloat32) return false;
  const bool any_blocked = blocked_at_home(step.inputs[0]) || blocked_at_home(step.inputs[1]);
  if (a.shape != y.shape || b.shape != y.shape) {
    const int wide = a.shape == y.shape ? 0 : 1;
    return value(step.inputs[static_cast<size_t>(wide)]).shape == y.shape &&
           blocked_at_home(step.inputs[static_cast<size_t>(wide)]) && lower_binary_channel(step, wide);
  }
  const Form form = any_blocked ? Form::kBlocked : Form::kDense;
  const auto operand = [&](int32_t id) { return any_blocked ? request_blocked(id) : request(id, form); };
  const NodeId left = operand(step.inputs[0]), right = operand(step.inputs[1]);
  const NodeId to = target(step.outputs[0], form);
  Draft draft{.reads = {left, right}, .write = to, .in_place = {left, right}, .elementwise = true};
  const Image image = nodes_[static_cast<size_t>(to)].image;
  draft.make = [=, kind = step.binary, act = step.act, n = y.elements](const PlanBuilder& p) -> InstructionPtr {
    if (form == Form::kDense) {
      return make_binary_span(p.table(), kind, p.place(left), p.place(right), p.place(to), n, act);
    }
    return for_images(image.n, [&](int i) {
      return make_binary(p.table(), kind, p.blocked(left, i), p.blocked(right, i), p.blocked(to, i), act);
    });
  };
  add_compute(std::move(draft));
  return true;
}

// One operand has the result's shape and is blocked; the other has one element per channel (of all images or of each),
// or one in all.
bool PlanBuilder::lower_binary_channel(const Step& step, int wide) {
  const int32_t wide_id = step.inputs[static_cast<size_t>(wide)],
                narrow_id = step.inputs[static_cast<size_t>(1 - wide)];
  const Value &y = value(step.outputs[0]), &narrow = value(narrow_id);
  Ints shape(y.shape.size() - narrow.shape.size(), 1);
  shape.insert(shape.end(), narrow.shape.begin(), narrow.shape.end());
  if (std::any_of(shape.begin() + 2, shape.end(), [](int64_t d) { return d != 1; })) return false;
  if (shape[0] != 1 && (shape[1] != y.shape[1] || is_constant(narrow_id))) return false;

  const Image image = nodes_[static_cast<size_t>(home(wide_id))].image;
  const NodeId from = request_blocked(wide_id);
  const bool each = shape[0] != 1;
  const NodeId vector = request_channels(narrow_id, image.c, each ? image.n : 1);
  const NodeId to = target(step.outputs[0], Form::kBlocked);
  Draft draft{.reads = {from, vector}, .write = to, .in_place = {from}};
  draft.make = [=, kind = step.binary, act = step.act, reversed = wide == 1](const PlanBuilder& p) {
    return for_images(image.n, [&](int n) {
      const int64_t skip =
          each ? static_cast<int64_t>(n) * whole_blocks(image.c) * static_cast<int64_t>(sizeof(float)) : 0;
      return make_binary_channel(p.table(), kind, p.blocked(from, n), p.place(vector).plus(skip), reversed,
                                 p.blocked(to, n), act);
    });
  };
  add_compute(std::move(draft));
  return true;
}

}  // namespace rskip
