#include "run/cpu_budget.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
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

void tighten(double& limit, double other) {
  if (other > 0 && (limit == 0 || other < limit)) limit = other;
}

// "max 100000" or "150000 100000".
double cpu_quota_v2(const std::string& file) {
  std::ifstream in(file);
  std::string limit;
  double period = 0;
  if (!(in >> limit >> period) || limit == "max" || period <= 0) return 0;
  return std::strtod(limit.c_str(), nullptr) / period;
}

double cpu_quota_v1(const std::string& folder) {
  std::ifstream quota_in(folder + "/cpu.cfs_quota_us"), period_in(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_in >> quota) || !(period_in >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

// A number alone; "max" is none, and version 1 has huge ones for none.
double read_bytes(const std::string& file) {
  std::ifstream in(file);
  double bytes = 0;
  return in >> bytes && bytes < 0x1p62 ? bytes : 0;
}

// Every group from `path` up to the root may hold a limit. In a container the path may name a group that is not
// mounted inside; the root that is mounted is then the container's own.
template <class ReadLimit>
void walk_up(const std::string& mount, std::string path, double& limit, ReadLimit read) {
  for (;;) {
    tighten(limit, read(mount + path));
    if (path.empty() || path == "/") break;
    path.resize(path.rfind('/'));
  }
}

// The tightest limit that a controller sets for this process; 0 when there is none. Both readers get a group's folder.
template <class ReadV1, class ReadV2>
double cgroup_limit(const std::string& root, const std::string& controller, ReadV1 read_v1, ReadV2 read_v2) {
  double limit = 0;
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // id:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
    if (controllers.empty()) {
      walk_up(root + "/sys/fs/cgroup", path, limit, read_v2);
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name != controller) continue;
      walk_up(root + "/sys/fs/cgroup/" + controller, path, limit, read_v1);
      walk_up(root + "/sys/fs/cgroup/" + controllers, path, limit, read_v1);
    }
  }
  return limit;
}

// 0 where the system doesn't say.
double physical_memory() {
#if defined(_SC_PHYS_PAGES)
  const double pages = static_cast<double>(::sysconf(_SC_PHYS_PAGES));
  const double page = static_cast<double>(::sysconf(_SC_PAGESIZE));
  return pages > 0 && page > 0 ? pages * page : 0;
#else
  return 0;
#endif
}

}  // namespace

double cgroup_cpu_quota(const std::string& root) {
  return cgroup_limit(root, "cpu", cpu_quota_v1, [](const std::string& group) { return cpu_quota_v2(group + "/cpu.max"); });
}

int64_t cgroup_memory_limit(const std::string& root) {
  return static_cast<int64_t>(cgroup_limit(
      root, "memory", [](const std::string& group) { return read_bytes(group + "/memory.limit_in_bytes"); },
      [](const std::string& group) { return read_bytes(group + "/memory.max"); }));
}

int64_t memory_budget() {
  double limit = physical_memory();
  tighten(limit, static_cast<double>(cgroup_memory_limit("")));
  return limit > 0 ? static_cast<int64_t>(limit) : int64_t{1} << 47;
}

int cpu_budget() {
  const int cpus = affinity();
  const double quota = cgroup_cpu_quota("");
  return quota > 0 ? std::clamp(static_cast<int>(std::floor(quota)), 1, cpus) : cpus;
}

}  // namespace rskip
