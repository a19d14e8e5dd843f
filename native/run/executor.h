// Walks one item through a plan.
#pragma once

#include <cstdint>

#include "plan/plan.h"
#include "run/worker_pool.h"

namespace rskip {

// Values are part of the ABI: BlockMode of lib/backends/backend.ts.
enum class BlockMode : uint8_t { kRun = 0, kSkip = 1, kGate = 2 };

// What one item is told and what it reports; rows of `blocks` entries.
struct ItemContext {
  const uint8_t* modes = nullptr;
  const float* thresholds = nullptr;
  uint8_t* ran = nullptr;
  float* scores = nullptr;
  bool shared_outputs = false;  // this item also writes the outputs that all items share
};

// Returns how many instructions ran: those of skipped blocks are not among them. Polls the frame's cancellation before
// every instruction and inside long ones. Throws EngineError(kAborted) when asked to stop, and what operators throw.
uint64_t execute_item(const Plan& plan, Frame& frame, const ItemContext& item, Workspace& workspace, Team& team);

}  // namespace rskip
