// What is kept of an item that an exit stopped, so that a later, deeper run of it goes on behind that exit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "run/executor.h"

namespace rskip {

// Bytes of a state, whichever exit it is of; 0 for a plan without exits. Bytes of zero are no state.
size_t state_bytes(const Plan& plan);

// Called when the exit has been decided: keeps the record of the item so far, the policy that led here, and what later code reads of
// the arena.
void keep_state(const Plan& plan, const Frame& frame, const ItemContext& item, int32_t exit);

// The code from which the item goes on, with the record and the arena as if it had run up to there. 0, the beginning, where there is no state,
// or where this run's policy leads elsewhere, or to an earlier end.
int32_t resume(const Plan& plan, const Frame& frame, const ItemContext& item);

}  // namespace rskip
