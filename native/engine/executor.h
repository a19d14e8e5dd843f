// Walks one item through a plan.
#pragma once

#include <atomic>
#include <cstdint>

#include "engine/plan.h"
#include "engine/worker_pool.h"

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
  // Polled before every instruction; either may ask for an early end.
  const std::atomic<bool>* stopped = nullptr;
  const int32_t* abort_flag = nullptr;
};

inline bool abort_requested(const int32_t* flag) {
  // JavaScript writes it without ceremony; one aligned word can't tear, and seeing it late does no harm.
  return flag != nullptr && *static_cast<const volatile int32_t*>(flag) != 0;
}

// Returns how many instructions ran: those of skipped blocks are not among them. Throws EngineError(kAborted) when
// asked to stop, and what operators throw.
uint64_t execute_item(const Plan& plan, Frame& frame, const ItemContext& item, Workspace& workspace, Team& team);

}  // namespace rskip
