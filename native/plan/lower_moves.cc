// Steps that only move elements.
#include <algorithm>
#include <limits>
#include <utility>

#include "plan/lowering.h"

namespace rskip {

// Along channels, where every input but the last fills whole blocks.
bool PlanBuilder::lower_concat(const Step& step) {
  Image y;
  if (step.axis != 1 || !as_image(value(step.outputs[0]), &y)) return false;
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    if (!blocked_at_home(step.inputs[i])) return false;
    if (i + 1 < step.inputs.size() && value(step.inputs[i]).shape[1] % kLanes != 0) return false;
  }
  Draft draft;
  for (int32_t id : step.inputs) draft.reads.push_back(request_blocked(id));
  draft.write = target(step.outputs[0], Form::kBlocked);
  draft.make = [=, from = draft.reads, to = draft.write](const PlanBuilder& p) {
    std::vector<InstructionPtr> copies;
    for (int n = 0; n < y.n; ++n) {
      BlockedOperand part = p.blocked(to, n);
      for (NodeId node : from) {
        const BlockedOperand x = p.blocked(node, n);
        part.view.channels = x.view.channels;
        copies.push_back(make_copy_blocked(x, part));
        part.place = part.place.plus(part.view.block_stride * x.view.blocks() * static_cast<int64_t>(sizeof(float)));
      }
    }
    return make_sequence(std::move(copies));
  };
  add_compute(std::move(draft));
  return true;
}

// Of rows and columns alone, forwards.
bool PlanBuilder::lower_slice(const Step& step) {
  Image x, y;
  if (!blocked_at_home(step.inputs[0]) || !as_image(value(step.inputs[0]), &x) ||
      !as_image(value(step.outputs[0]), &y)) {
    return false;
  }
  const size_t rank = step.starts.size();
  if (rank < 3 || x.n != y.n || x.c != y.c) return false;
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
  draft_move(step, move);
  return true;
}

// With zeros, on all sides but the batch; nothing is cut off.
bool PlanBuilder::lower_pad(const Step& step) {
  Image x, y;
  if (!blocked_at_home(step.inputs[0]) || !as_image(value(step.inputs[0]), &x) ||
      !as_image(value(step.outputs[0]), &y)) {
    return false;
  }
  const size_t rank = value(step.inputs[0]).shape.size();
  if (rank < 3 || step.pad_mode != ops::PadMode::kConstant || step.value != 0 || x.n != y.n) return false;
  if (std::any_of(step.pads.begin(), step.pads.end(), [](int64_t p) { return p < 0; })) return false;
  BlockedMove move;
  move.rows = x.h;
  move.columns = x.w;
  move.channels = static_cast<int>(step.pads[1]);
  move.left = static_cast<int>(step.pads[rank - 1]);
  if (rank == 4) move.top = static_cast<int>(step.pads[2]);
  draft_move(step, move);
  return true;
}

void PlanBuilder::draft_move(const Step& step, const BlockedMove& move) {
  const NodeId from = request_blocked(step.inputs[0]);
  const NodeId to = target(step.outputs[0], Form::kBlocked);
  add_compute({.reads = {from},
               .write = to,
               .make = [=, images = nodes_[static_cast<size_t>(to)].image.n](const PlanBuilder& b) {
                 return for_images(
                     images, [&](int n) { return make_move_blocked(b.blocked(from, n), b.blocked(to, n), move); });
               }});
}

// A view of the same memory, unless either value is written again, by another step or by skipping a block: the other
// would change with it.
bool PlanBuilder::lower_reshape(const Step& step) {
  const int32_t x_id = step.inputs[0], y_id = step.outputs[0];
  Image x, y;
  const bool same_image = as_image(value(x_id), &x) && as_image(value(y_id), &y) && x == y;
  const Form form = same_image && blocked_at_home(x_id) ? Form::kBlocked : Form::kDense;
  const NodeId from = request(x_id, form);
  if (writers_[static_cast<size_t>(x_id)] > 1 || writers_[static_cast<size_t>(y_id)] > 1 ||
      written_by_skip_[static_cast<size_t>(y_id)]) {
    const NodeId dense = request(x_id, Form::kDense);
    const NodeId to = target(y_id, Form::kDense);
    add_compute({.reads = {dense}, .write = to, .make = [=, bytes = value(x_id).bytes()](const PlanBuilder& p) {
                   return make_copy(p.place(dense), p.place(to), bytes);
                 }});
    return true;
  }
  const Node source = nodes_[static_cast<size_t>(from)];
  const NodeId view = source.arena ? add_node(y_id, form) : add_fixed(y_id, form, source.fixed);
  home_[static_cast<size_t>(y_id)] = view;
  if (source.arena) join(view, from);
  add_draft({.reads = {from}, .write = view});
  return true;
}

}  // namespace rskip
