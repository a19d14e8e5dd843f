#include <algorithm>
#include <utility>

#include "plan/emitter.h"
#include "plan/passes.h"
#include "plan/rounded.h"
#include "plan/simple_instruction.h"

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
      work = saturating_add(work, step->shareable_work());
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

class Emission {
 public:
  Emission(const DraftGraph& graph, const Placement& placement, const KernelTable& table, int64_t memory_limit)
      : graph_(graph), placement_(placement), emitter_(graph, placement, table), memory_limit_(memory_limit) {}

  std::unique_ptr<Plan> run(const Program& program) {
    plan_->whole = program.whole;
    const auto plan_port = [&](const Port& port) {
      const Value& value = program.value(port.value);
      return PlanPort{value.bytes(), port.batched, value.dtype};
    };
    for (const Port& port : program.inputs) plan_->inputs.push_back(plan_port(port));
    for (const Port& port : program.outputs) plan_->outputs.push_back(plan_port(port));
    plan_->arena_bytes = static_cast<size_t>(placement_.arena_bytes);
    for (const Block& block : program.blocks) {
      PlanBlock& out = plan_->blocks.emplace_back();
      out.gate = block.gate;
      out.has_gate = block.has_gate;
      out.skippable = block.skippable;
    }
    plan_->exits.resize(program.exits.size());
    for (const Draft& draft : graph_.drafts) emit(draft, program);
    plan_->shared_outputs = first_shared_ < 0 ? next() : first_shared_;
    code_of_draft_.add(next());
    set_targets(program);
    find_live();
    find_join();
    mark_rounded(program, *plan_);
    return std::move(plan_);
  }

 private:
  int32_t next() const { return static_cast<int32_t>(plan_->code.size()); }
  PlanBlock& block(BlockId id) { return plan_->blocks[static_cast<size_t>(id.number())]; }
  PlanExit& exit(ExitId id) { return plan_->exits[static_cast<size_t>(id.number())]; }

  void emit(const Draft& draft, const Program& program) {
    code_of_draft_.add(next());
    if (draft.shared_output && first_shared_ < 0) first_shared_ = next();
    Code code;
    code.kind = draft.kind;
    if (draft.block) code.block = draft.block.number();
    if (draft.exit) code.exit = draft.exit.number();
    if (draft.kind != Code::Kind::kRun) {
      if (draft.condition) code.condition = emitter_.place(draft.condition);
      if (draft.kind == Code::Kind::kDecide) block(draft.block).score = code.condition;
      if (draft.kind == Code::Kind::kExit) exit(draft.exit).score = code.condition;
      plan_->code.push_back(code);
      return;
    }
    InstructionPtr instruction = make(draft);
    if (!instruction) return;
    see_scratch(draft, static_cast<int64_t>(instruction->scratch_bytes()));
    if (draft.on_skip) {
      block(draft.block).on_skip.push_back(std::move(instruction));
      return;
    }
    if (draft.exit) {
      exit(draft.exit).on_taken.push_back(std::move(instruction));
      return;
    }
    code.work = instruction->shareable_work();
    code.cost = code.work > 0 ? code.work : cost_of_moves(draft, program);
    plan_->cost = saturating_add(plan_->cost, code.cost);
    code.value = graph_.nodes[draft.write].value;
    code.instruction = instruction.get();
    plan_->instructions.push_back(std::move(instruction));
    plan_->code.push_back(code);
  }

  int64_t cost_of_moves(const Draft& draft, const Program& program) const {
    int64_t bytes = 0;
    const auto count = [&](NodeId id) {
      const ValueId value = graph_.nodes[id].value;
      if (value) bytes = saturating_add(bytes, static_cast<int64_t>(program.value(value).bytes()));
    };
    for (NodeId read : draft.reads) count(read);
    count(draft.write);
    return bytes / static_cast<int64_t>(sizeof(float)) * kMoveWork;
  }

  InstructionPtr make(const Draft& draft) const {
    InstructionPtr instruction = draft.make ? draft.make(emitter_) : nullptr;
    if (!instruction || !graph_.nodes[draft.write].arena) return instruction;
    for (NodeId read : draft.reads) {
      if (emitter_.same_memory(read, draft.write)) return instruction;  // in place: halo and tail are zero already
    }
    const Node& node = graph_.nodes[draft.write];
    const NodeClass& c = placement_.of(draft.write);
    if (node.form == Form::kBlocked || node.form == Form::kPlanar) {
      const ImageLayout layout = emitter_.layout(draft.write);
      if (layout.image.pixels() * layout.unit != layout.plane_stride) {
        instruction->halo_fills.push_back({c.place, layout, node.halo_byte});
      }
    } else if (node.form == Form::kDense && c.zero_tail) {
      const size_t tail = (kLanes - node.bytes / sizeof(float) % kLanes) % kLanes * sizeof(float);
      if (tail > 0) instruction->tail_fills.push_back({c.place.plus(static_cast<int64_t>(node.bytes)), tail});
    }
    return instruction;
  }

  void see_scratch(const Draft& draft, int64_t bytes) {
    Largest largest = placement_.largest;
    largest.see(graph_.nodes[draft.write].value, bytes);
    require_memory(saturating_add(placement_.arena_bytes, bytes), memory_limit_, largest);
    plan_->scratch_bytes = std::max(plan_->scratch_bytes, static_cast<size_t>(bytes));
  }

  // Where jumps lead, now that all code has its position.
  void set_targets(const Program& program) {
    for (DraftId id : graph_.drafts.ids()) {
      const Draft& draft = graph_.drafts[id];
      if (draft.kind != Code::Kind::kBranch && draft.kind != Code::Kind::kJump) continue;
      plan_->code[static_cast<size_t>(code_of_draft_[id])].target = code_of_step(draft.target_step);
    }
    for (size_t b = 0; b < program.blocks.size(); ++b) {
      plan_->blocks[b].body = code_of_draft_[graph_.draft_of_body[BlockId(b)]];
      plan_->blocks[b].end = code_of_step(program.blocks[b].end);
    }
  }
  // What exits leave in the arena for the code behind them.
  void find_live() {
    for (DraftId id : graph_.drafts.ids()) {
      if (graph_.drafts[id].kind != Code::Kind::kExit) continue;
      PlanExit& out = exit(graph_.drafts[id].exit);
      out.next = code_of_draft_[id] + 1;
      DraftId end = id;  // the last draft of what is done when it is taken
      for (DraftId at : graph_.drafts.ids()) {
        if (graph_.drafts[at].exit == graph_.drafts[id].exit) end = std::max(end, at);
      }
      for (NodeId node : graph_.nodes.ids()) {
        const NodeClass& c = placement_.classes[node];
        if (c.bytes > 0 && c.first <= id && c.last > end) out.live.push_back({c.place.offset, c.bytes});
      }
    }
  }

  // Below this share of the work, items that wait for each other don't pay.
  static constexpr int64_t kLeastJointShare = 25;

  void find_join() {
    Plan& plan = *plan_;
    int64_t gain = 0;
    for (const Code& code : plan.code) {
      if (code.kind == Code::Kind::kRun) gain = saturating_add(gain, code.instruction->joint_gain());
    }
    if (gain == 0 || gain < plan.cost / kLeastJointShare) return;
    for (Code& code : plan.code) {
      if (code.kind != Code::Kind::kRun || code.instruction->joint_gain() == 0) continue;
      code.joint = true;
      plan.joint_scratch_bytes = std::max(plan.joint_scratch_bytes, code.instruction->joint_scratch_bytes());
      if (plan.join < 0) plan.join = static_cast<int32_t>(&code - plan.code.data());
    }
    // Not inside of what an item may jump over.
    for (int32_t at = plan.join; at-- > 0;) {
      if (end_of_jump(plan.code[static_cast<size_t>(at)]) > plan.join) plan.join = at;
    }
    DraftId draft;
    for (DraftId at : graph_.drafts.ids()) {
      if (code_of_draft_[at] == plan.join) draft = at;
    }
    for (NodeId node : graph_.nodes.ids()) {
      const NodeClass& c = placement_.classes[node];
      if (c.bytes == 0 || c.last < draft) continue;
      plan.joined_bytes = std::max(plan.joined_bytes, static_cast<size_t>(c.place.offset) + c.bytes);
      if (c.first < draft) plan.join_live.push_back({c.place.offset, c.bytes});
    }
  }

  int32_t end_of_jump(const Code& code) const {
    switch (code.kind) {
      case Code::Kind::kBranch:
      case Code::Kind::kJump: return code.target;
      case Code::Kind::kEnter:
      case Code::Kind::kDecide: return plan_->blocks[static_cast<size_t>(code.block)].end;
      default: return 0;
    }
  }

  int32_t code_of_step(size_t step) const { return code_of_draft_[graph_.draft_of_step[step]]; }

  const DraftGraph& graph_;
  const Placement& placement_;
  const Emitter emitter_;
  const int64_t memory_limit_;
  std::unique_ptr<Plan> plan_ = std::make_unique<Plan>();
  Table<DraftId, int32_t> code_of_draft_;  // and of the end
  int32_t first_shared_ = -1;
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

ImageLayout layout_of(const Node& node, const Halo& halo) {
  switch (node.form) {
    case Form::kBlocked: return blocked_layout(node.image, halo, node.element);
    case Form::kPlanar: return planar_layout(node.image, halo, node.element);
    default: return dense_layout(node.image, node.element);
  }
}

Place Emitter::place(NodeId id) const {
  const Node& node = graph_.nodes[id];
  return node.arena ? placement_.of(id).place : node.fixed;
}

ImageLayout Emitter::layout(NodeId id) const {
  const Node& node = graph_.nodes[id];
  return layout_of(node, node.arena ? placement_.of(id).halo : Halo{});
}

Place Emitter::place_of_image(NodeId id, const ImageLayout& l, int n) const {
  return place(id).plus((l.image_elements() * n + l.origin) * l.element);
}

std::unique_ptr<Plan> emit(const Program& program, DraftGraph graph, const Placement& placement,
                           const KernelTable& table, int64_t memory_limit) {
  std::unique_ptr<Plan> plan = Emission(graph, placement, table, memory_limit).run(program);
  plan->views = std::move(graph.views);
  plan->kept = std::move(graph.kept);
  return plan;
}

}  // namespace rskip
