#include "run/executor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <vector>

#include "program/geometry.h"
#include "run/gate.h"
#include "run/item_state.h"
#include "run/pool_policy.h"

namespace rskip {
namespace {

// Parts times slices of an instruction. A kernel's products of rows and shares stay far below 2^63.
constexpr int64_t kMaxSlices = 4096;

// An instruction for one item, or a joint one for several. Every member of the team cuts its part of a long one into slices,
// and polls between them.
class Execution {
 public:
  Execution(const Code& code, std::span<Frame* const> frames) : code_(code), frames_(frames) {}

  void run(Workspace& workspace, Team& team) {
    const int64_t work = saturating_mul(code_.work, static_cast<int64_t>(frames_.size()));
    const int parts = work >= kShareWork ? team.call() : 1;
    slices_ = static_cast<int>(std::min(work / (kSliceWork * parts) + 1, kMaxSlices / parts));
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
    Frame& frame = *frames_[0];
    for (int slice = 0; slice < slices_; ++slice) {
      if (slice > 0 && frame.cancellation.requested()) return cut_short_.store(true, std::memory_order_relaxed);
      const int at = part * slices_ + slice, all = parts * slices_;
      if (frames_.size() > 1) code_.instruction->run_joint(frames_, workspace, at, all);
      else code_.instruction->run(frame, workspace, at, all);
    }
  }

  const Code& code_;
  const std::span<Frame* const> frames_;
  int slices_ = 1;
  std::atomic<bool> cut_short_{false};
};

double microseconds_now() {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The instruction of code `at`, where all of `runs` are. Those that run it at once take equal shares of its time.
void run_code(const Plan& plan, int32_t at, std::span<ItemRun* const> runs, std::span<Frame* const> frames, Workspace& workspace,
              Team& team) {
  const Code& code = plan.code[static_cast<size_t>(at)];
  frames[0]->cancellation.check();
  const bool timed = runs[0]->item.times != nullptr;
  const double begin = timed ? microseconds_now() : 0;
  Execution(code, frames).run(workspace, team);
  const double each = timed ? (microseconds_now() - begin) / static_cast<double>(runs.size()) : 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    ItemRun& run = *runs[i];
    if (timed) run.item.times[2 * at] = begin + each * static_cast<double>(i);
    if (timed) run.item.times[2 * at + 1] = begin + each * static_cast<double>(i + 1);
    ++run.executed.instructions;
    run.executed.cost += code.cost;
    ++run.at;
  }
}

void begin(const Plan& plan, ItemRun& run) {
  const ItemContext& item = run.item;
  std::fill_n(item.outcomes, plan.decisions(), uint8_t{0});
  std::fill_n(item.scores, plan.decisions(), std::numeric_limits<float>::quiet_NaN());
  run.end = item.shared_outputs ? static_cast<int32_t>(plan.code.size()) : plan.shared_outputs;
  run.at = item.state != nullptr ? resume(plan, *run.frame, item) : 0;
}

// Goes on to code `end`, or to joint code if `joins`.
void walk(const Plan& plan, ItemRun& run, int32_t end, bool joins, Workspace& workspace, Team& team) {
  Frame& frame = *run.frame;
  const ItemContext& item = run.item;
  Executed& executed = run.executed;
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
  for (int32_t& at = run.at; at < end;) {
    const Code& code = plan.code[static_cast<size_t>(at)];
    switch (code.kind) {
      case Code::Kind::kRun: {
        if (joins && code.joint) return;
        ItemRun* const alone[] = {&run};
        run_code(plan, at, alone, {&run.frame, 1}, workspace, team);
        break;
      }
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
        float score = score_at(exit.score);
        if (exit.rounded && worst_rounded(plan, run) != Numbers::kFinite) score = std::numeric_limits<float>::quiet_NaN();
        item.scores[decision] = score;
        ++at;
        if (!exit_taken(score, item.thresholds[decision])) break;
        if (item.state != nullptr) keep_state(plan, frame, item, code.exit);
        item.outcomes[decision] = 1;
        run.left = true;
        for (const InstructionPtr& instruction : exit.on_taken) {
          instruction->run(frame, workspace, 0, 1);
          ++executed.instructions;
        }
        at = run.end;
        return;
      }
    }
  }
}

// From the arena in which one item after the other comes to `join`.
void move_to_own_arena(const Plan& plan, ItemRun& run) {
  const uintptr_t own = reinterpret_cast<uintptr_t>(run.arena);
  for (const ArenaSpan& span : plan.join_live) {
    const Place place = Place::in_arena(span.offset);
    std::memcpy(run.arena + span.offset, run.frame->at<char>(place), span.bytes);
  }
  run.frame->bases[static_cast<size_t>(Base::kArena)] = own;
}

}  // namespace

Numbers worst_rounded(const Plan& plan, ItemRun& run) {
  if (run.rounded) return *run.rounded;
  Numbers worst = Numbers::kFinite;
  for (size_t i = 0; i < plan.inputs.size(); ++i) {
    const PlanPort& port = plan.inputs[i];
    if (port.rounded) worst = std::max(worst, worst_of(run.frame->at<float>(Place::at_port(i)), port.item_bytes / sizeof(float)));
  }
  run.rounded = worst;
  return worst;
}

void execute(const Plan& plan, std::span<ItemRun> runs, Workspace& workspace, Team& team) {
  if (runs.size() == 1) {
    begin(plan, runs[0]);
    return walk(plan, runs[0], runs[0].end, false, workspace, team);
  }
  for (ItemRun& run : runs) {
    begin(plan, run);
    walk(plan, run, std::min(plan.join, run.end), false, workspace, team);
    if (run.at < run.end) move_to_own_arena(plan, run);
  }
  // Items that skip a block or end don't wait at joint code inside of it or behind it: the first joint code that any item
  // waits at has all that will come there.
  std::vector<ItemRun*> waiting;
  std::vector<Frame*> frames;
  do {
    waiting.clear();
    frames.clear();
    for (ItemRun& run : runs) {
      walk(plan, run, run.end, true, workspace, team);
      if (run.at >= run.end) continue;
      if (!waiting.empty() && run.at < waiting[0]->at) waiting.clear(), frames.clear();
      if (!waiting.empty() && run.at > waiting[0]->at) continue;
      waiting.push_back(&run);
      frames.push_back(run.frame);
    }
    if (!waiting.empty()) run_code(plan, waiting[0]->at, waiting, frames, workspace, team);
  } while (!waiting.empty());
}

}  // namespace rskip
