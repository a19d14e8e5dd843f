// Operators that only move elements.
#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "ops/ops.h"
#include "plan/lowering.h"
#include "program/check_step.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_transpose(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype == c.out().dtype, "types differ");
  const Ints &x = c.in(0).shape, &perm = c.step.perm;
  c.require(perm.size() == x.size() && c.out().shape.size() == x.size(), "bad rank");
  std::vector<bool> seen(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t p = static_cast<size_t>(perm[i]);
    c.require(perm[i] >= 0 && p < x.size() && !seen[p], "bad permutation");
    seen[p] = true;
    c.require(c.out().shape[i] == x[p], "a shape doesn't fit");
  }
}

void compute_transpose(const DenseStep& d) { ops::transpose(d.x[0], d.step.perm, *d.y, d.poll); }

void check_pad(const StepCheck& c) {
  c.counts(2, 1);
  c.require(c.in(0).dtype == c.out().dtype, "types differ");
  if (const Value* value = c.optional(1)) {
    c.require(value->dtype == c.out().dtype && value->elements == 1, "the pad value is no element of its type");
  }
  const Ints &x = c.in(0).shape, &y = c.out().shape, &pads = c.step.pads;
  c.require(pads.size() == 2 * x.size() && y.size() == x.size(), "bad rank");
  for (size_t d = 0; d < x.size(); ++d) {
    const int64_t begin = pads[d], end = pads[x.size() + d];
    c.require(y[d] == x[d] + begin + end, "a shape doesn't fit");
    if (c.step.pad_mode == ops::PadMode::kConstant || y[d] == 0) continue;
    // What is mirrored or repeated is what the crop leaves.
    const int64_t kept = x[d] + std::min<int64_t>(begin, 0) + std::min<int64_t>(end, 0);
    c.require(kept >= 1, "nothing is left to pad with");
    if (c.step.pad_mode == ops::PadMode::kReflect) {
      c.require(begin < kept && end < kept, "a reflecting pad is longer than the input");
    }
  }
}

// What maps hold: floats or bytes.
DType image_type(const Lowering& plan, const Step& step) {
  return plan.value(step.inputs[0]).dtype == DType::kUint8 ? DType::kUint8 : DType::kFloat32;
}

// Whether a step moves a blocked map to a map.
bool moves_images(const Lowering& plan, const Step& step, Image* x, Image* y) {
  const DType dtype = image_type(plan, step);
  return plan.blocked_at_home(step.inputs[0]) && plan.as_images(step, x, y, dtype) && x->n == y->n;
}
bool draft_move(Lowering& plan, const Step& step, const BlockedMove& move) {
  const NodeId x = plan.request(step.inputs[0], Form::kBlocked);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  const bool bytes = image_type(plan, step) == DType::kUint8;
  const auto make = [=, images = plan.image(to).n](NodeId from, const BlockedMove& moved) -> MakeFn {
    return [=](const Emitter& e) {
      return for_images(images, [&](int n) {
        return bytes ? make_move_blocked(e.blocked8(from, n), e.blocked8(to, n), moved)
                     : make_move_blocked(e.blocked(from, n), e.blocked(to, n), moved);
      });
    };
  };
  plan.compute({.reads = {x}, .write = to, .make = make(x, move), .move = std::make_shared<MoveDraft>(move, make)});
  return true;
}

// With zeros, or any byte, on all sides but the batch; nothing is cut off.
bool lower_pad(Lowering& plan, const Step& step) {
  Image x, y;
  const ValueId value = step.inputs[1];
  if (!moves_images(plan, step, &x, &y)) return false;
  const size_t rank = step.pads.size() / 2;
  if (rank < 3 || step.pad_mode != ops::PadMode::kConstant) return false;
  if (value && !(plan.is_constant(value) && plan.value(value).dtype == DType::kUint8)) return false;
  if (std::any_of(step.pads.begin(), step.pads.end(), [](int64_t p) { return p < 0; })) return false;
  BlockedMove move;
  move.fills = true;
  move.fill = plan.scalar<uint8_t>(value);
  move.rows = x.h;
  move.columns = x.w;
  move.channels = static_cast<int>(step.pads[1]);
  move.left = static_cast<int>(step.pads[rank - 1]);
  if (rank == 4) move.top = static_cast<int>(step.pads[2]);
  return draft_move(plan, step, move);
}

void compute_pad(const DenseStep& d) {
  ops::pad(d.x[0], d.x[1], d.step.pads, d.step.pad_mode, *d.y, d.poll);
}

void check_slice(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype == c.out().dtype, "types differ");
  const Ints &x = c.in(0).shape, &y = c.out().shape, &starts = c.step.starts, &steps = c.step.steps;
  c.require(starts.size() == x.size() && steps.size() == x.size() && y.size() == x.size(), "bad rank");
  for (size_t d = 0; d < x.size(); ++d) {
    if (y[d] == 0) continue;
    // |step| < 2^31 and y[d] < 2^31, so the product fits.
    const int64_t last = starts[d] + (y[d] - 1) * steps[d];
    c.require(starts[d] >= 0 && starts[d] < x[d] && last >= 0 && last < x[d], "a slice leaves its input");
  }
}

// Of rows and columns alone, forwards.
bool lower_slice(Lowering& plan, const Step& step) {
  Image x, y;
  if (!moves_images(plan, step, &x, &y)) return false;
  const size_t rank = step.starts.size();
  if (rank < 3 || x.c != y.c) return false;
  if (std::any_of(step.steps.begin(), step.steps.end(),
                  [](int64_t s) { return s < 1 || s > std::numeric_limits<int>::max(); }))
    return false;
  BlockedMove move;
  move.first_column = static_cast<int>(step.starts[rank - 1]);
  move.column_step = static_cast<int>(step.steps[rank - 1]);
  if (rank == 4) {
    move.first_row = static_cast<int>(step.starts[2]);
    move.row_step = static_cast<int>(step.steps[2]);
  }
  move.rows = y.h;
  move.columns = y.w;
  return draft_move(plan, step, move);
}

void compute_slice(const DenseStep& d) { ops::slice(d.x[0], d.step.starts, d.step.steps, *d.y, d.poll); }

void check_concat(const StepCheck& c) {
  c.require(!c.step.inputs.empty(), "no inputs");
  c.counts(c.step.inputs.size(), 1);
  const Ints& y = c.out().shape;
  c.axis_in(y.size());
  const size_t axis = static_cast<size_t>(c.step.axis);
  int64_t sum = 0;
  for (size_t i = 0; i < c.step.inputs.size(); ++i) {
    Ints shape = c.in(i).shape;
    c.require(c.in(i).dtype == c.out().dtype && shape.size() == y.size(), "inputs differ");
    sum += shape[axis];
    shape[axis] = y[axis];
    c.shape_is(c.out(), shape);
  }
  c.require(sum == y[axis], "the extents don't add up");
}

// Copies maps to one block after the other of `to`.
template <class Operand>
InstructionPtr make_concat(const std::vector<Operand>& from, Operand to) {
  std::vector<InstructionPtr> copies;
  for (const Operand& x : from) {
    to.view.channels = x.view.channels;
    copies.push_back(make_copy_blocked(x, to));
    to.place = to.place.plus(to.view.block_stride * x.view.blocks() * static_cast<int64_t>(sizeof *to.view.data));
  }
  return make_sequence(std::move(copies));
}

// Along channels, where every input but the last fills whole blocks.
bool lower_concat(Lowering& plan, const Step& step) {
  Image y;
  const DType dtype = image_type(plan, step);
  if (step.axis != 1 || !as_image(plan.value(step.outputs[0]), &y, dtype)) return false;
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    if (!plan.blocked_at_home(step.inputs[i])) return false;
    if (i + 1 < step.inputs.size() && plan.value(step.inputs[i]).shape[1] % kLanes != 0) return false;
  }
  Draft draft;
  for (ValueId id : step.inputs) draft.reads.push_back(plan.request(id, Form::kBlocked));
  draft.write = plan.target(step.outputs[0], Form::kBlocked);
  draft.make = [=, bytes = dtype == DType::kUint8, from = draft.reads, to = draft.write](const Emitter& e) {
    return for_images(y.n, [&](int n) {
      if (!bytes) {
        std::vector<BlockedOperand> maps;
        for (NodeId node : from) maps.push_back(e.blocked(node, n));
        return make_concat(maps, e.blocked(to, n));
      }
      std::vector<BlockedOperand8> maps;
      for (NodeId node : from) maps.push_back(e.blocked8(node, n));
      return make_concat(maps, e.blocked8(to, n));
    });
  };
  plan.compute(std::move(draft));
  return true;
}

void compute_concat(const DenseStep& d) {
  ops::concat({d.x, d.x + d.step.inputs.size()}, d.step.axis, *d.y, d.poll);
}

void check_reshape(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype == c.out().dtype && c.in(0).elements == c.out().elements, "the elements differ");
}

// A view of the same memory, unless either value is written again, by another step or by skipping a block: the other
// would change with it.
bool lower_reshape(Lowering& plan, const Step& step) {
  const ValueId x_id = step.inputs[0], y_id = step.outputs[0];
  if (plan.writers(x_id) > 1 || plan.writers(y_id) > 1 || plan.written_by_skip(y_id)) {
    const NodeId from = plan.request(x_id, Form::kDense);
    const NodeId to = plan.target(y_id, Form::kDense);
    plan.compute({.reads = {from}, .write = to, .make = [=, bytes = plan.value(x_id).bytes()](const Emitter& e) {
                    return make_copy(e.place(from), e.place(to), bytes);
                  }});
    return true;
  }
  Image x, y;
  const bool same_image = plan.as_images(step, &x, &y) && x == y;
  plan.view(y_id, plan.request(x_id, same_image && plan.blocked_at_home(x_id) ? Form::kBlocked : Form::kDense));
  return true;
}

void check_expand(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype == c.out().dtype, "types differ");
  c.broadcasts(false);
}

void compute_expand(const DenseStep& d) { ops::expand(d.x[0], *d.y, d.poll); }

}  // namespace

const OperatorRules operators::transpose = {check_transpose, nullptr, compute_transpose};
const OperatorRules operators::pad = {check_pad, lower_pad, compute_pad};
const OperatorRules operators::slice = {check_slice, lower_slice, compute_slice};
const OperatorRules operators::concat = {check_concat, lower_concat, compute_concat};
const OperatorRules operators::reshape = {check_reshape, lower_reshape};
const OperatorRules operators::expand = {check_expand, nullptr, compute_expand};

}  // namespace rskip
