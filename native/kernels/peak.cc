#include "kernels/peak.h"

#include <algorithm>
#include <chrono>

namespace rskip {

double measure_fma_peak_gflops(Isa isa) {
  using Clock = std::chrono::steady_clock;
  const KernelTable* table = table_for(isa);
  if (table == nullptr) return 0;
  const int rounds = isa == Isa::kScalar ? 100 : 5000;
  double best = 0;
  const auto stop = Clock::now() + std::chrono::milliseconds(5);
  while (Clock::now() < stop) {
    alignas(64) float y[kLanes];
    std::fill_n(y, kLanes, 0.5f);
    int chains = 0;
    const auto start = Clock::now();
    table->fma_burst(rounds, y, &chains);
    const double nanoseconds = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    best = std::max(best, 2.0 * kLanes * chains * rounds / std::max(nanoseconds, 1.0));
  }
  return best;
}

}  // namespace rskip
