#include "program/check_program.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "program/words.h"

namespace rskip {
namespace {

bool is_jump(const Step& step) { return step.op == Op::kBranch || step.op == Op::kJump; }

// Where the steps, and the program's outputs, use a value.
struct Uses {
  size_t first = SIZE_MAX, last = 0;  // steps that read or write it
  size_t writers = 0, last_writer = 0;
  bool output = false;
};

class ProgramCheck {
 public:
  explicit ProgramCheck(const Program& program) : program_(program), uses_(program.values.size()) {
    for (size_t s = 0; s < program.steps.size(); ++s) {
      for (ValueId v : program.steps[s].inputs) {
        if (v) use(v, s);
      }
      for (ValueId v : program.steps[s].outputs) {
        use(v, s);
        ++uses_[v].writers;
        uses_[v].last_writer = s;
      }
    }
    for (const Port& port : program.outputs) uses_[port.value].output = true;
  }

  void run() const {
    jumps();
    order();
    for (const Block& b : program_.blocks) block(b);
    for (const Exit& e : program_.exits) exit(e);
  }

 private:
  void use(ValueId v, size_t step) {
    uses_[v].first = std::min(uses_[v].first, step);
    uses_[v].last = std::max(uses_[v].last, step);
  }

  // Jumps lead forwards, and none enters or leaves the middle of a block or of its gate.
  void jumps() const {
    for (size_t s = 0; s < program_.steps.size(); ++s) {
      const Step& step = program_.steps[s];
      if (!is_jump(step)) continue;
      if (step.target <= s) fail_program("a jump goes backwards");
      // Blocks are in order and disjoint: those that the jump can touch lie together.
      auto b = std::partition_point(program_.blocks.begin(), program_.blocks.end(),
                                    [&](const Block& block) { return block.end <= s; });
      for (; b != program_.blocks.end() && b->gate_first < step.target; ++b) {
        const auto crosses = [&](size_t first, size_t end) {
          const bool from_inside = s >= first && s < end;
          const bool to_inside = step.target > first && step.target < end;
          return (from_inside && step.target > end) || (!from_inside && to_inside);
        };
        if (crosses(b->gate_first, b->end) || crosses(b->gate_first, b->first) || crosses(b->first, b->end)) {
          fail_program("a jump crosses the border of a block");
        }
        // A jump to a block's own start from outside is fine; from its gate it would avoid the decision.
        if (s >= b->gate_first && s < b->first && step.target > b->first) fail_program("a jump leaves a gate");
      }
      for (const Exit& e : program_.exits) {
        const bool from_inside = s >= e.first && s < e.end;
        if (from_inside ? step.target > e.end : step.target > e.first && step.target < e.end) {
          fail_program("a jump crosses the border of an exit");
        }
      }
    }
  }

  // On every path, a value that is read has been written before, is an input, or is a constant.
  void order() const {
    Table<ValueId, bool> fixed(program_.values.size());
    for (ValueId v : program_.values.ids()) fixed[v] = static_cast<bool>(program_.values[v].constant);
    for (const Port& port : program_.inputs) {
      if (fixed[port.value]) fail_program("an input is a constant or is listed twice");
      fixed[port.value] = true;
    }
    Table<ValueId, bool> ready = fixed;
    const auto join = [&](const Table<ValueId, bool>& other) {
      for (ValueId v : ready.ids()) ready[v] = ready[v] && other[v];
    };
    std::map<size_t, Table<ValueId, bool>> arriving;  // what is ready after jumps, at their targets
    bool falls_through = true;                        // from the step before
    auto block = program_.blocks.begin();
    auto exit = program_.exits.begin();
    for (size_t s = 0; s <= program_.steps.size(); ++s) {
      if (const auto jump = arriving.find(s); jump != arriving.end()) {
        if (falls_through) {
          join(jump->second);
        } else {
          ready = std::move(jump->second);
        }
        arriving.erase(jump);
        falls_through = true;
      }
      for (; exit != program_.exits.end() && exit->end == s; ++exit) {
        if (!ready[exit->score]) fail_program("an exit's score isn't there yet");
        for (ValueId answer : exit->answers) {
          if (!ready[answer]) fail_program("an exit's answer isn't there yet");
        }
      }
      for (; block != program_.blocks.end() && block->first == s; ++block) {
        if (!ready[block->input]) fail_program("a block's input isn't there yet");
        if (block->has_gate && !ready[block->gate.score]) fail_program("a gate's score isn't there yet");
      }
      if (s == program_.steps.size()) break;
      const Step& step = program_.steps[s];
      const auto fail_step = [&](const char* what) { fail_program("step " + std::to_string(s) + " " + what); };
      for (ValueId v : step.inputs) {
        if (v && !ready[v]) fail_step("reads a value too early");
      }
      for (ValueId v : step.outputs) {
        if (fixed[v]) fail_step("writes a constant or an input");
        if (std::find(step.inputs.begin(), step.inputs.end(), v) != step.inputs.end()) fail_step("reads what it writes");
        ready[v] = true;
      }
      if (!is_jump(step)) continue;
      if (const auto [there, first] = arriving.try_emplace(step.target, ready); !first) {
        for (ValueId v : ready.ids()) there->second[v] = there->second[v] && ready[v];
      }
      falls_through = step.op == Op::kBranch;
    }
    for (const Port& port : program_.outputs) {
      if (!ready[port.value]) fail_program("an output is never written");
    }
  }

  // What is written in steps that may be left out is used nowhere else, but for `leaves`.
  void contained(size_t first, size_t end, ValueId leaves, const char* what) const {
    for (size_t s = first; s < end; ++s) {
      for (ValueId v : program_.steps[s].outputs) {
        const Uses& uses = uses_[v];
        if (v != leaves && (uses.output || uses.first < first || uses.last >= end)) {
          fail_program(std::string("a value leaves ") + what);
        }
      }
    }
  }

  void block(const Block& b) const {
    if (b.has_gate) {
      const Value& score = program_.value(b.gate.score);
      if (score.dtype != DType::kFloat32 || score.elements != 1) fail_program("a gate's score is not one float32");
      if (!b.skippable) fail_program("a gated block is not skippable");
    }
    if (b.gate_first < b.first) {
      if (!b.has_gate) fail_program("a block has gate steps but no gate");
      // Not even the score: a block that the policy forces to run or to skip never evaluates its gate.
      contained(b.gate_first, b.first, {}, "the steps of a gate");
    }
    if (!b.skippable) return;
    const Value &in = program_.value(b.input), &out = program_.value(b.output);
    if (b.first == b.end) fail_program("a skippable block is empty");
    if (in.dtype != out.dtype || in.shape != out.shape) {
      fail_program("the two ends of a skippable block differ in shape");
    }
    if (in.dtype != DType::kFloat32 && b.skip_activation.kind != ActivationKind::kNone) {
      fail_program("an activation on a block that is not float32");
    }
    if (b.skip_table) {
      const Value& table = program_.value(b.skip_table);
      if (!is_byte(in.dtype) || table.dtype != in.dtype || table.shape != Ints{256} || !table.constant) {
        fail_program("the table of a block is no constant of 256 bytes, or the block has none");
      }
    }
    const Step& last = program_.steps[b.end - 1];
    if (last.outputs.size() != 1 || last.outputs[0] != b.output) {
      fail_program("a block's last step doesn't write its output");
    }
    if (uses_[b.output].writers != 1) fail_program("a block's output is written elsewhere");
    if (uses_[b.input].writers > 0 && uses_[b.input].last_writer >= b.gate_first) {
      fail_program("a block's input is written after its start");
    }
    contained(b.first, b.end, b.output, "a skippable block");
  }

  void exit(const Exit& e) const {
    for (const Block& b : program_.blocks) {
      if (e.first < b.end && e.end > b.gate_first) fail_program("an exit lies in a block");
    }
    const Value& score = program_.value(e.score);
    if (score.dtype != DType::kFloat32 || score.elements != 1) fail_program("an exit's score is not one float32");
    for (size_t i = 0; i < e.answers.size(); ++i) {
      const Port& port = program_.outputs[i];
      const Value &answer = program_.value(e.answers[i]), &output = program_.value(port.value);
      if (!port.batched && !program_.whole) fail_program("an exit answers for all items");
      if (answer.dtype != output.dtype || answer.shape != output.shape) {
        fail_program("an exit's answer differs from the output in type or shape");
      }
    }
  }

  const Program& program_;
  Table<ValueId, Uses> uses_;
};

}  // namespace

void check_program(const Program& program) { ProgramCheck(program).run(); }

}  // namespace rskip
