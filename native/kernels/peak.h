#pragma once

#include "kernels/table.h"

namespace rskip {
// Peak of one thread in 10^9 floating-point operations per second (a fused multiply-add is two), measured
// now in about five milliseconds. 0 if this machine can't run the instruction set.
double measure_fma_peak_gflops(Isa isa);
}  // namespace rskip
