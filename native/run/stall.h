// Points where tests hold a thread up, to bring about orders of events that are rare otherwise. Costs nothing unless
// RSKIP_TEST_HOOKS is defined.
#pragma once

#include <atomic>

namespace rskip {

enum class StallPoint {
  kPublished,   // the leader has published a layer and not begun its own part
  kJoined,      // a helper has a seat and has not reserved scratch memory
  kTakesPart,   // a part was found free and is about to be taken
  kPartDone,    // a part was computed and is about to be reported
  kCallsHelp,   // the leader has counted its helpers and is about to call more
};

#if defined(RSKIP_TEST_HOOKS)
inline std::atomic<void (*)(StallPoint)> stall_hook{nullptr};
inline void stall(StallPoint point) {
  if (const auto hook = stall_hook.load(std::memory_order_relaxed)) hook(point);
}
#else
inline void stall(StallPoint) {}
#endif

}  // namespace rskip
