#include "engine/executor.h"

#include <algorithm>
#include <limits>

#include "engine/error.h"
#include "engine/gate.h"

namespace rskip {
namespace {

void run_part(const void* instruction, void* frame, Workspace& workspace, int part, int parts) {
  static_cast<const Instruction*>(instruction)->run(*static_cast<Frame*>(frame), workspace, part, parts);
}

}  // namespace

uint64_t execute_item(const Plan& plan, Frame& frame, const ItemContext& item, Workspace& workspace, Team& team) {
  std::fill_n(item.ran, plan.blocks.size(), uint8_t{0});
  std::fill_n(item.scores, plan.blocks.size(), std::numeric_limits<float>::quiet_NaN());
  uint64_t executed = 0;
  const auto skip = [&](const PlanBlock& block) {
    for (const InstructionPtr& instruction : block.on_skip) {
      instruction->run(frame, workspace, 0, 1);
      ++executed;
    }
    return block.end;
  };
  const int32_t end = item.shared_outputs ? static_cast<int32_t>(plan.code.size()) : plan.shared_outputs;
  for (int32_t at = 0; at < end;) {
    const Code& code = plan.code[static_cast<size_t>(at)];
    switch (code.kind) {
      case Code::Kind::kRun:
        if (item.stopped->load(std::memory_order_relaxed) || abort_requested(item.abort_flag)) {
          throw EngineError(ErrorCode::kAborted, "The run was aborted.");
        }
        if (const int parts = code.shareable ? team.call() : 1; parts > 1) {
          team.split(run_part, code.instruction, &frame, workspace, parts);
        } else {
          code.instruction->run(frame, workspace, 0, 1);
        }
        ++executed;
        ++at;
        break;
      case Code::Kind::kBranch: at = *frame.at<uint8_t>(code.condition) != 0 ? at + 1 : code.target; break;
      case Code::Kind::kJump: at = code.target; break;
      case Code::Kind::kEnter: {
        const PlanBlock& block = plan.blocks[static_cast<size_t>(code.block)];
        const BlockMode mode = static_cast<BlockMode>(item.modes[code.block]);
        if (mode == BlockMode::kSkip) {
          at = skip(block);
        } else if (mode == BlockMode::kGate) {
          ++at;
        } else {
          item.ran[code.block] = 1;
          at = block.body;
        }
        break;
      }
      case Code::Kind::kDecide: {
        const PlanBlock& block = plan.blocks[static_cast<size_t>(code.block)];
        const float score = *frame.at<float>(block.score);
        item.scores[code.block] = score;
        const bool runs = gate_runs(block.gate.compare, score, item.thresholds[code.block]);
        item.ran[code.block] = runs ? 1 : 0;
        at = runs ? block.body : skip(block);
        break;
      }
    }
  }
  return executed;
}

}  // namespace rskip
