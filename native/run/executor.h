// Walks items through a plan.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "plan/plan.h"
#include "plan/rounded.h"
#include "run/team.h"

namespace rskip {

// Values are part of the ABI: BlockMode of lib/backends/backend.ts.
enum class BlockMode : uint8_t { kRun = 0, kSkip = 1, kGate = 2 };

// The policy and the record of one item: arrays of an entry for each of the plan's decisions, blocks before exits.
struct ItemContext {
  const BlockMode* modes = nullptr;
  const float* thresholds = nullptr;
  uint8_t* outcomes = nullptr;  // 1: the block ran, or the exit was taken
  float* scores = nullptr;      // NaN: none was computed
  double* times = nullptr;      // of a run that is profiled: begin and end of each code that ran, in microseconds
  bool shared_outputs = false;  // whether this item writes the outputs that all items share
  char* state = nullptr;        // see item_state.h: where the item goes on, and what is kept of it if an exit stops it; null for neither
};

// Multiply-adds after which an instruction polls: some milliseconds with SIMD, less than a second without.
inline constexpr int64_t kSliceWork = int64_t{1} << 29;

struct Executed {
  uint64_t instructions = 0;
  int64_t cost = 0;  // of their code
};

struct ItemRun {
  Frame* frame = nullptr;
  ItemContext item;
  char* arena = nullptr;  // joined_bytes of the plan, for one of several items
  Executed executed{};    // what skipped blocks do is no part of it
  int32_t at = 0, end = 0;  // code
  std::optional<Numbers> rounded{};  // the worst in inputs that 8 bits round, once it is known
  bool left = false;  // at an exit
};

// Looks once.
Numbers worst_rounded(const Plan& plan, ItemRun& run);

// Walks one item through the plan, or several as `join` of the plan says, which has one then; their frames have the workspace's arena.
// Polls the cancellation of frames before every instruction and inside long ones. Throws Cancelled, and what operators throw.
void execute(const Plan& plan, std::span<ItemRun> runs, Workspace& workspace, Team& team);

}  // namespace rskip
