// The walk over a program: what runs in which order, and where control flow goes.
#include <algorithm>
#include <iterator>
#include <utility>

#include "plan/dense_instruction.h"
#include "plan/lowering.h"
#include "plan/passes.h"
#include "program/operator.h"

namespace rskip {

DraftGraph lower(const Program& program, std::span<const ConstantData> constants, WeightCache& weights, Precision precision,
                 Isa isa) {
  return Lowering(program, constants, weights, precision, isa).run();
}

DraftGraph Lowering::run() {
  const size_t steps = program_.steps.size();
  graph_.draft_of_body = Table<BlockId, DraftId>(program_.blocks.size());
  BlockId ending(0), entering(0), deciding(0);
  size_t exits = 0;
  const BlockId none(program_.blocks.size());
  const auto next = [](BlockId id) { return BlockId(static_cast<size_t>(id.number()) + 1); };
  const auto arrive_once = [&](size_t step) {
    if (graph_.draft_of_step.size() == step) arrive(step);
  };
  for (size_t s = 0; s <= steps; ++s) {
    // Blocks of no steps begin and end here; the others end before the next begins.
    for (;;) {
      if (ending < entering && ending < deciding && block(ending).end == s) {
        lower_skip(ending);
        ending = next(ending);
      } else if (deciding < entering && block(deciding).first == s) {
        arrive_once(s);
        decide_block(deciding);
        deciding = next(deciding);
      } else if (exits < program_.exits.size() && entering == ending && program_.exits[exits].end == s) {
        arrive_once(s);
        lower_exit(ExitId(exits++));
      } else if (entering < none && entering == ending && block(entering).gate_first == s) {
        arrive_once(s);
        enter_block(entering);
        entering = next(entering);
      } else {
        break;
      }
    }
    arrive_once(s);
    if (s < steps) lower_step(program_.steps[s]);
  }
  // Batched outputs first: the rest is for the first item only.
  for (const bool batched : {true, false}) {
    shared_outputs_ = !batched;
    for (size_t port = 0; port < program_.outputs.size(); ++port) {
      if (program_.outputs[port].batched == batched) lower_output(port, program_.outputs[port].value);
    }
  }
  return std::move(graph_);
}

void Lowering::lower_step(const Step& step) {
  if (step.op == Op::kBranch || step.op == Op::kJump) return lower_jump(step);
  layer_ = step.outputs[0];
  const OperatorRules& rules = *operator_of(step.op).rules;
  if (rules.lower == nullptr || !rules.lower(*this, step)) lower_dense(step);
}

void Lowering::lower_dense(const Step& step) {
  std::vector<NodeId> operands;
  for (ValueId id : step.inputs) operands.push_back(id ? request(id, Form::kDense) : NodeId());
  for (ValueId id : step.outputs) operands.push_back(target(id, Form::kDense));
  compute(dense_draft(step, operands));
}

// `operands`: the dense nodes of the step's inputs, none for absent ones, then of its outputs.
Draft Lowering::dense_draft(const Step& step, const std::vector<NodeId>& operands) {
  Draft draft;
  const auto outputs = operands.begin() + static_cast<ptrdiff_t>(step.inputs.size());
  std::copy_if(operands.begin(), outputs, std::back_inserter(draft.reads), [](NodeId node) { return static_cast<bool>(node); });
  draft.write = *outputs;
  draft.more_writes.assign(outputs + 1, operands.end());
  const size_t first_view = graph_.views.size();
  for (const auto* ids : {&step.inputs, &step.outputs}) {
    for (ValueId id : *ids) {
      graph_.views.push_back(id ? TensorView{value(id).dtype, value(id).shape, nullptr} : TensorView{});
    }
  }
  draft.make = [=](const Emitter& e) {
    std::vector<Place> places;
    for (NodeId node : operands) places.push_back(node ? e.place(node) : Place{});
    return make_dense(step, std::move(places), first_view);
  };
  return draft;
}

void Lowering::lower_jump(const Step& step) {
  Draft draft{.kind = step.op == Op::kBranch ? Code::Kind::kBranch : Code::Kind::kJump};
  if (step.op == Op::kBranch) {
    draft.condition = request(step.inputs[0], Form::kDense);
    draft.reads.push_back(draft.condition);
  }
  draft.target_step = step.target;
  edges_.emplace(step.target, graph_.drafts.next());
  add(std::move(draft));
}

// Where jumps to a step land. A conversion that a jump may bypass isn't available to later steps.
void Lowering::arrive(size_t step) {
  graph_.draft_of_step.push_back(graph_.drafts.next());
  drop_conversions(step);
}

void Lowering::drop_conversions(size_t step) {
  const auto [begin, end] = edges_.equal_range(step);
  for (auto edge = begin; edge != end; ++edge) {
    std::erase_if(conversions_, [&](const auto& entry) { return entry.second.draft >= edge->second; });
  }
}

void Lowering::enter_block(BlockId id) {
  edges_.emplace(block(id).first, graph_.drafts.next());
  edges_.emplace(block(id).end, graph_.drafts.next());
  add({.kind = Code::Kind::kEnter, .block = id});
}

void Lowering::decide_block(BlockId id) {
  if (block(id).has_gate) {
    const NodeId score = request(block(id).gate.score, Form::kDense);
    edges_.emplace(block(id).end, graph_.drafts.next());
    add({.kind = Code::Kind::kDecide, .reads = {score}, .condition = score, .block = id});
    drop_conversions(block(id).first);  // a block that always runs arrives straight from its entry
  }
  graph_.draft_of_body[id] = graph_.drafts.next();
}

void Lowering::lower_skip(BlockId id) {
  if (!block(id).skippable) return;
  const NodeId input = home(block(id).input), output = home(block(id).output);
  graph_.skippable.push_back({id, input, output});
  convert(input, output, id);
  if (block(id).skip_table) {
    // In place: every element is read before it is written.
    const ValueId table = block(id).skip_table;
    if (blocked_at_home(block(id).output)) {
      const NodeId entries = request(table, Form::kDense);
      return add({.reads = {output, entries},
                  .write = output,
                  .make =
                      [=, images = image(output).n](const Emitter& e) {
                        return for_images(images, [&](int n) {
                          return make_lookup8(e.table(), e.blocked8(output, n), e.place(entries), e.blocked8(output, n));
                        });
                      },
                  .block = id,
                  .on_skip = true});
    }
    Step step;
    step.op = Op::kLookup;
    step.inputs = {block(id).output, table};
    step.outputs = {block(id).output};
    Draft draft = dense_draft(step, {output, request(table, Form::kDense), output});
    draft.block = id;
    draft.on_skip = true;
    return add(std::move(draft));
  }
  if (block(id).skip_activation.kind == ActivationKind::kNone) return;
  add({.reads = {output},
       .write = output,
       .make = make_activation(output, output, block(id).skip_activation),
       .block = id,
       .on_skip = true});
}

void Lowering::lower_exit(ExitId id) {
  const Exit& exit = program_.exits[static_cast<size_t>(id.number())];
  const NodeId score = request(exit.score, Form::kDense);
  add({.kind = Code::Kind::kExit, .reads = {score}, .condition = score, .exit = id});
  taken_exit_ = id;
  for (size_t port = 0; port < exit.answers.size(); ++port) lower_output(port, exit.answers[port]);
  taken_exit_ = {};
}

void Lowering::lower_output(size_t port, ValueId answer) {
  const Place place = Place::at_port(program_.inputs.size() + port);
  convert(home(answer), add_fixed(answer, Form::kDense, place));
}

}  // namespace rskip
