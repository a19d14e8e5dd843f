#include "run/executor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>

#include "run/gate.h"
#include "run/item_state.h"
#include "run/pool_policy.h"

namespace rskip {
namespace {

// Parts times slices of an instruction. A kernel's products of rows and shares stay far below 2^63.
constexpr int64_t kMaxSlices = 4096;

// An instruction for one item. Every member of the team cuts its part of a long one into slices, and polls between them.
class Execution {
 public:
  Execution(const Code& code, Frame& frame) : code_(code), frame_(frame) {}

  void run(Workspace& workspace, Team& team) {
    const int parts = code_.work >= kShareWork ? team.call() : 1;
    slices_ = static_cast<int>(std::min(code_.work / (kSliceWork * parts) + 1, kMaxSlices / parts));
    if (parts > 1) {
      team.split(run_part, this, workspace, parts);
    } else {
      run_slices(workspace, 0, 1);
    }
    if (cut_short_.load(std::memory_order_relaxed)) throw Cancelled();
  }

 private:
  static void run_part(void* self, Workspace& workspace, int part, int parts) {
    static_cast<Execution*>(self)->run_slices(workspace, part, parts);
  }

  void run_slices(Workspace& workspace, int part, int parts) {
    for (int slice = 0; slice < slices_; ++slice) {
      if (slice > 0 && frame_.cancellation.requested()) return cut_short_.store(true, std::memory_order_relaxed);
      code_.instruction->run(frame_, workspace, part * slices_ + slice, parts * slices_);
    }
  }

  const Code& code_;
  Frame& frame_;
  int slices_ = 1;
  std::atomic<bool> cut_short_{false};
};

double microseconds_now() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Executed execute_item(const Plan& plan, Frame& frame, const ItemContext& item, Workspace& workspace, Team& team) {
  std::fill_n(item.outcomes, plan.decisions(), uint8_t{0});
  std::fill_n(item.scores, plan.decisions(), std::numeric_limits<float>::quiet_NaN());
  Executed executed;
  // Whatever the processor made of a NaN, the record has one.
  const auto score_at = [&](Place place) {
    const float score = *frame.at<float>(place);
    return score == score ? score : std::numeric_limits<float>::quiet_NaN();
  };
  // A block is skipped here: what follows is all that happens instead of its body.
  const auto skip = [&](const PlanBlock& block) {
    for (const InstructionPtr& instruction : block.on_skip) {
      instruction->run(frame, workspace, 0, 1);
      ++executed.instructions;
    }
    return block.end;
  };
  const int32_t end = item.shared_outputs ? static_cast<int32_t>(plan.code.size()) : plan.shared_outputs;
  for (int32_t at = item.state != nullptr ? resume(plan, frame, item) : 0; at < end;) {
    const Code& code = plan.code[static_cast<size_t>(at)];
    switch (code.kind) {
      case Code::Kind::kRun:
        frame.cancellation.check();
        if (item.times != nullptr) item.times[2 * at] = microseconds_now();
        Execution(code, frame).run(workspace, team);
        if (item.times != nullptr) item.times[2 * at + 1] = microseconds_now();
        ++executed.instructions;
        executed.cost += code.cost;
        ++at;
        break;
      case Code::Kind::kBranch: at = *frame.at<uint8_t>(code.condition) != 0 ? at + 1 : code.target; break;
      case Code::Kind::kJump: at = code.target; break;
      case Code::Kind::kEnter: {
        const PlanBlock& block = plan.blocks[static_cast<size_t>(code.block)];
        const BlockMode mode = item.modes[code.block];
        if (mode == BlockMode::kSkip) {
          at = skip(block);
        } else if (mode == BlockMode::kGate) {
          ++at;
        } else {
          item.outcomes[code.block] = 1;
          at = block.body;
        }
        break;
      }
      case Code::Kind::kDecide: {
        const PlanBlock& block = plan.blocks[static_cast<size_t>(code.block)];
        const float score = score_at(block.score);
        item.scores[code.block] = score == score ? score : std::numeric_limits<float>::quiet_NaN();
        const bool runs = gate_runs(block.gate.compare, score, item.thresholds[code.block]);
        item.outcomes[code.block] = runs ? 1 : 0;
        at = runs ? block.body : skip(block);
        break;
      }
      // An exit is decided here.
      case Code::Kind::kExit: {
        const PlanExit& exit = plan.exits[static_cast<size_t>(code.exit)];
        const size_t decision = plan.blocks.size() + static_cast<size_t>(code.exit);
        const float score = score_at(exit.score);
        item.scores[decision] = score;
        ++at;
        if (!exit_taken(score, item.thresholds[decision])) break;
        if (item.state != nullptr) keep_state(plan, frame, item, code.exit);
        item.outcomes[decision] = 1;
        for (const InstructionPtr& instruction : exit.on_taken) {
          instruction->run(frame, workspace, 0, 1);
          ++executed.instructions;
        }
        return executed;
      }
    }
  }
  return executed;
}

}  // namespace rskip
