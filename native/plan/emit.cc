#include "plan/lowering.h"

#include <algorithm>
#include <string>
#include <utility>

#include "plan/parallel.h"
#include "program/error.h"

namespace rskip {
namespace {

// Instructions on disjoint memory, shared out one by one.
class Sequence final : public Instruction {
 public:
  explicit Sequence(std::vector<InstructionPtr> steps) : steps_(std::move(steps)) {}
  int64_t shareable_work() const override {
    int64_t work = 0;
    for (const InstructionPtr& step : steps_) {
      if (step->shareable_work() == 0) return 0;
      work += step->shareable_work();
    }
    return work;
  }
  size_t scratch_bytes() const override {
    size_t bytes = 0;
    for (const InstructionPtr& step : steps_) bytes = std::max(bytes, step->scratch_bytes());
    return bytes;
  }

 private:
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    for (const InstructionPtr& step : steps_) step->run(frame, workspace, part, parts);
  }
  const std::vector<InstructionPtr> steps_;
};

}  // namespace

InstructionPtr make_sequence(std::vector<InstructionPtr> steps) {
  return steps.size() == 1 ? std::move(steps[0]) : std::make_unique<Sequence>(std::move(steps));
}

InstructionPtr for_images(int images, const std::function<InstructionPtr(int)>& make) {
  std::vector<InstructionPtr> steps;
  for (int n = 0; n < images; ++n) steps.push_back(make(n));
  return make_sequence(std::move(steps));
}

PlanBuilder::PlanBuilder(const Program& program, std::span<const ConstantData> constants, const PlanContext& context)
    : program_(program), constants_(constants), context_(context), plan_(std::make_unique<Plan>()) {}

std::unique_ptr<const Plan> PlanBuilder::build() {
  plan_->whole = program_.whole;
  home_.assign(program_.values.size(), kNone);
  writers_.assign(program_.values.size(), 0);
  for (const Step& step : program_.steps) {
    for (int32_t id : step.outputs) ++writers_[static_cast<size_t>(id)];
  }
  written_by_skip_.assign(program_.values.size(), false);
  for (const Block& block : program_.blocks) {
    if (block.skippable) written_by_skip_[static_cast<size_t>(block.output)] = true;
  }
  for (size_t i = 0; i < program_.inputs.size(); ++i) {
    const Port& port = program_.inputs[i];
    home_[static_cast<size_t>(port.value)] =
        add_fixed(port.value, Form::kDense, {kFirstPortBase + static_cast<int32_t>(i), 0});
    plan_->inputs.push_back({value(port.value).bytes(), port.batched});
  }
  for (const Port& port : program_.outputs) plan_->outputs.push_back({value(port.value).bytes(), port.batched});

  lower_all();
  fuse_convs();
  // The largest first, so that no worker is left with one at the end.
  std::stable_sort(packing_.begin(), packing_.end(),
                   [](const Packing& a, const Packing& b) { return a.elements > b.elements; });
  parallel_for(context_.threads, static_cast<int64_t>(packing_.size()),
               [&](int64_t i) { packing_[static_cast<size_t>(i)].pack(); });
  find_uses();
  update_blocks_in_place();
  update_in_place();
  assign_places();
  make_code();
  return std::move(plan_);
}

void PlanBuilder::lower_all() {
  const int32_t steps = static_cast<int32_t>(program_.steps.size());
  const int32_t blocks = static_cast<int32_t>(program_.blocks.size());
  draft_of_body_.assign(program_.blocks.size(), 0);
  int32_t ending = 0, entering = 0, deciding = 0;
  for (int32_t s = 0; s <= steps; ++s) {
    // Blocks of no steps begin and end here; the others end before the next begins.
    for (;;) {
      if (ending < entering && ending < deciding && program_.blocks[static_cast<size_t>(ending)].end == s) {
        lower_skip(ending++);
      } else if (deciding < entering && program_.blocks[static_cast<size_t>(deciding)].first == s) {
        if (draft_of_step_.size() == static_cast<size_t>(s)) arrive(s);
        decide_block(deciding++);
      } else if (entering < blocks && entering == ending &&
                 program_.blocks[static_cast<size_t>(entering)].gate_first == s) {
        if (draft_of_step_.size() == static_cast<size_t>(s)) arrive(s);
        enter_block(entering++);
      } else {
        break;
      }
    }
    if (draft_of_step_.size() == static_cast<size_t>(s)) arrive(s);
    if (s == steps) break;
    const Step& step = program_.steps[static_cast<size_t>(s)];
    if (step.op == Op::kBranch || step.op == Op::kJump) {
      Draft draft{.kind = step.op == Op::kBranch ? Code::Kind::kBranch : Code::Kind::kJump};
      if (step.op == Op::kBranch) {
        draft.condition = request(step.inputs[0], Form::kDense);
        draft.reads.push_back(draft.condition);
      }
      draft.target_step = step.target;
      add_edge(step.target);
      add_draft(std::move(draft));
    } else {
      lower(step);
    }
  }
  for (size_t port = 0; port < program_.outputs.size(); ++port) {
    if (program_.outputs[port].batched) lower_output(port);
  }
  lowering_shared_outputs_ = true;
  for (size_t port = 0; port < program_.outputs.size(); ++port) {
    if (!program_.outputs[port].batched) lower_output(port);
  }
}

void PlanBuilder::arrive(int32_t step) {
  draft_of_step_.push_back(drafts_.size());
  drop_conversions(step);
}

void PlanBuilder::enter_block(int32_t index) {
  const Block& block = program_.blocks[static_cast<size_t>(index)];
  add_edge(block.first);
  add_edge(block.end);
  add_draft({.kind = Code::Kind::kEnter, .block = index});
}

void PlanBuilder::decide_block(int32_t index) {
  const Block& block = program_.blocks[static_cast<size_t>(index)];
  if (block.has_gate) {
    const NodeId score = request(block.gate.score, Form::kDense);
    add_edge(block.end);
    add_draft({.kind = Code::Kind::kDecide, .reads = {score}, .condition = score, .block = index});
    drop_conversions(block.first);  // a block that always runs comes straight from its entry
  }
  draft_of_body_[static_cast<size_t>(index)] = drafts_.size();
}

void PlanBuilder::lower_skip(int32_t index) {
  const Block& block = program_.blocks[static_cast<size_t>(index)];
  if (!block.skippable) return;
  const NodeId output = home(block.output);
  draft_conversion(home(block.input), output, index);
  if (block.skip_activation.kind == ActivationKind::kNone) return;
  add_draft({.reads = {output},
             .write = output,
             .make = make_activation(output, output, block.skip_activation),
             .block = index,
             .on_skip = true});
}

void PlanBuilder::lower_output(size_t port) {
  const int32_t id = program_.outputs[port].value;
  const Place place{kFirstPortBase + static_cast<int32_t>(program_.inputs.size() + port), 0};
  draft_conversion(home(id), add_fixed(id, Form::kDense, place));
}

InstructionPtr PlanBuilder::make_instruction(const Draft& draft) const {
  InstructionPtr instruction = draft.make ? draft.make(*this) : nullptr;
  if (!instruction || !nodes_[static_cast<size_t>(draft.write)].arena) return instruction;
  const NodeId written = root(draft.write);
  for (NodeId read : draft.reads) {
    if (root(read) == written) return instruction;  // in place: halo and tail are zero already
  }
  const Node& node = nodes_[static_cast<size_t>(draft.write)];
  const NodeClass& c = classes_[static_cast<size_t>(written)];
  if (node.form == Form::kBlocked || node.form == Form::kPlanar) {
    const ImageLayout l = layout(draft.write);
    const int64_t interior = static_cast<int64_t>(l.image.w) * l.image.h * l.unit;
    if (interior != l.plane_stride) instruction->halo_fills.push_back({c.place, l});
  } else if (node.form == Form::kDense && c.zero_tail) {
    const size_t tail = (kLanes - node.bytes / sizeof(float) % kLanes) % kLanes * sizeof(float);
    if (tail > 0) instruction->tail_fills.push_back({c.place.plus(static_cast<int64_t>(node.bytes)), tail});
  }
  return instruction;
}

void PlanBuilder::make_code() {
  const size_t block_count = program_.blocks.size();
  plan_->blocks.resize(block_count);
  for (size_t b = 0; b < block_count; ++b) {
    const Block& block = program_.blocks[b];
    PlanBlock& out = plan_->blocks[b];
    out.gate = block.gate;
    out.has_gate = block.has_gate;
    out.skippable = block.skippable;
  }
  std::vector<int32_t> code_of_draft;
  int32_t shared = -1;
  for (const Draft& draft : drafts_) {
    code_of_draft.push_back(static_cast<int32_t>(plan_->code.size()));
    if (draft.shared_output && shared < 0) shared = code_of_draft.back();
    Code code;
    code.kind = draft.kind;
    code.block = draft.block;
    if (draft.kind != Code::Kind::kRun) {
      if (draft.condition != kNone) code.condition = place(draft.condition);
      if (draft.kind == Code::Kind::kDecide) plan_->blocks[static_cast<size_t>(draft.block)].score = code.condition;
      plan_->code.push_back(code);
      continue;
    }
    InstructionPtr instruction = make_instruction(draft);
    if (!instruction) continue;
    const int64_t scratch = static_cast<int64_t>(instruction->scratch_bytes());
    note_size(nodes_[static_cast<size_t>(draft.write)].value, scratch);
    require_memory(saturating_add(static_cast<int64_t>(plan_->arena_bytes), scratch));
    plan_->scratch_bytes = std::max(plan_->scratch_bytes, static_cast<size_t>(scratch));
    if (draft.on_skip) {
      plan_->blocks[static_cast<size_t>(draft.block)].on_skip.push_back(std::move(instruction));
      continue;
    }
    code.work = instruction->shareable_work();
    code.instruction = instruction.get();
    plan_->instructions.push_back(std::move(instruction));
    plan_->code.push_back(code);
  }
  const int32_t end = static_cast<int32_t>(plan_->code.size());
  plan_->shared_outputs = shared < 0 ? end : shared;
  code_of_draft.push_back(end);
  for (size_t d = 0; d < drafts_.size(); ++d) {
    const Draft& draft = drafts_[d];
    if (draft.kind != Code::Kind::kBranch && draft.kind != Code::Kind::kJump) continue;
    const size_t target = draft_of_step_[static_cast<size_t>(draft.target_step)];
    plan_->code[static_cast<size_t>(code_of_draft[d])].target = code_of_draft[target];
  }
  for (size_t b = 0; b < block_count; ++b) {
    plan_->blocks[b].body = code_of_draft[draft_of_body_[b]];
    plan_->blocks[b].end = code_of_draft[draft_of_step_[static_cast<size_t>(program_.blocks[b].end)]];
  }
}

Frame Plan::make_frame() const {
  Frame frame;
  frame.bases.assign(kFirstPortBase + inputs.size() + outputs.size(), 0);
  frame.views = views;
  return frame;
}

std::unique_ptr<const Plan> make_plan(const Program& program, std::span<const ConstantData> constants,
                                      const PlanContext& context) {
  return PlanBuilder(program, constants, context).build();
}

}  // namespace rskip
