// How many threads this process may keep busy, and how much memory it may use.
#pragma once

#include <cstdint>

#include <string>

namespace rskip {

// CPUs in the process's affinity mask, cut to the CPU quota of its control group (v1 or v2, at any level above it);
// at least 1. Never the number of CPUs of the host.
int cpu_budget();

// The quota alone, in CPUs; 0 when there is none. `root` is prefixed to /proc and /sys (for tests).
double cgroup_cpu_quota(const std::string& root);

// Bytes of physical memory, cut to the limit of its control group (v1 or v2, at any level above it).
int64_t memory_budget();

// The limit alone, in bytes; 0 when there is none.
int64_t cgroup_memory_limit(const std::string& root);

}  // namespace rskip
