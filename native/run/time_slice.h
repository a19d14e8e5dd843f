// How long the scheduler lets a thread run before it lets another have the core.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rskip {

// Longer than the slices of other threads, some milliseconds.
inline constexpr int64_t kWorkerSliceNs = 10'000'000;

#if defined(__linux__) && defined(SYS_sched_setattr) && defined(SYS_sched_getattr)

// `struct sched_attr` in its first version, sched_setattr(2). C libraries before glibc 2.41 don't declare it.
struct SchedulingAttributes {
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0, deadline = 0, period = 0;
};

// The calling thread's slice; 0 if it is unknown, as before Linux 6.12.
inline int64_t time_slice_ns() {
  SchedulingAttributes attributes;
  const bool known = syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0u) == 0 && attributes.policy == 0;
  return known ? static_cast<int64_t>(attributes.runtime) : 0;
}

// Of two threads with the same share of the processor, the one with the shorter slice runs first. A worker that asks for a
// long slice gives way at once to a thread that wakes up, such as an event loop, which otherwise waits some milliseconds
// for a core. Needs no privilege; where it fails, nothing changes.
inline void ask_for_time_slice(int64_t nanoseconds) {
  SchedulingAttributes attributes;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0u) != 0) return;
  constexpr uint32_t kNormalPolicy = 0;
  if (attributes.policy != kNormalPolicy || attributes.runtime == 0) return;
  attributes.runtime = static_cast<uint64_t>(nanoseconds);
  syscall(SYS_sched_setattr, 0, &attributes, 0u);
}

#else

inline int64_t time_slice_ns() { return 0; }
inline void ask_for_time_slice(int64_t) {}

#endif

}  // namespace rskip
