#include "kernels/peak.h"

#include <algorithm>
#include <chrono>

namespace rskip {
namespace {

// The best of five milliseconds. burst(rounds, y, chains) does `operations` on each of its chains in every round.
template <class T>
double measure(Isa isa, void (*KernelTable::*burst)(int, T*, int*), double operations) {
  using Clock = std::chrono::steady_clock;
  const KernelTable* table = table_for(isa);
  if (table == nullptr) return 0;
  const int rounds = isa == Isa::kScalar ? 100 : 5000;
  double best = 0;
  const auto stop = Clock::now() + std::chrono::milliseconds(5);
  while (Clock::now() < stop) {
    alignas(64) T y[kLanes];
    std::fill_n(y, kLanes, static_cast<T>(0.5f));
    int chains = 0;
    const auto start = Clock::now();
    (table->*burst)(rounds, y, &chains);
    const double nanoseconds = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    best = std::max(best, operations * chains * rounds / std::max(nanoseconds, 1.0));
  }
  return best;
}

}  // namespace

double measure_fma_peak_gflops(Isa isa) { return measure(isa, &KernelTable::fma_burst, 2.0 * kLanes); }

double measure_dot_peak_gops(Isa isa) { return measure(isa, &KernelTable::dot_burst, 2.0 * 4 * kLanes); }

Precision fastest_precision() {
  const KernelTable *best = best_table(), *emulated = table_for(Isa::kAvx2);
  if (emulated == nullptr) return Precision::kFloat32;
  if (best->conv16_amx != emulated->conv16_amx) return Precision::kBfloat16Amx;
  return best->conv16 != emulated->conv16 ? Precision::kBfloat16 : Precision::kFloat32;
}

}  // namespace rskip
