#include "engine/cpu_budget.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace rskip {
namespace {

int affinity() {
#if defined(__linux__)
  // Grows until the kernel's mask fits: hosts with more than 1024 CPUs exist.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    const int count = ok ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (ok) return std::max(count, 1);
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void tighten(double& quota, double limit) {
  if (limit > 0 && (quota == 0 || limit < quota)) quota = limit;
}

// "max 100000" or "150000 100000".
double read_v2(const std::string& file) {
  std::ifstream in(file);
  std::string limit;
  double period = 0;
  if (!(in >> limit >> period) || limit == "max" || period <= 0) return 0;
  return std::strtod(limit.c_str(), nullptr) / period;
}

double read_v1(const std::string& folder) {
  std::ifstream quota_in(folder + "/cpu.cfs_quota_us"), period_in(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_in >> quota) || !(period_in >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

// Every group from `path` up to the root may hold a limit. In a container the path may name a group that is not
// mounted inside; the root that is mounted is then the container's own.
template <class ReadLimit>
void walk_up(const std::string& mount, std::string path, double& quota, ReadLimit read) {
  for (;;) {
    tighten(quota, read(mount + path));
    if (path.empty() || path == "/") break;
    path.resize(path.rfind('/'));
  }
}

}  // namespace

double cgroup_cpu_quota(const std::string& root) {
  double quota = 0;
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // id:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) {
      walk_up(root + "/sys/fs/cgroup", path, quota, [](const std::string& g) { return read_v2(g + "/cpu.max"); });
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name != "cpu") continue;
      walk_up(root + "/sys/fs/cgroup/cpu", path, quota, read_v1);
      walk_up(root + "/sys/fs/cgroup/" + controllers, path, quota, read_v1);
    }
  }
  return quota;
}

int cpu_budget() {
  const int cpus = affinity();
  const double quota = cgroup_cpu_quota("");
  return quota > 0 ? std::clamp(static_cast<int>(std::floor(quota)), 1, cpus) : cpus;
}

}  // namespace rskip
