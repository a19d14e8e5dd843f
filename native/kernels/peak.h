#pragma once

#include "kernels/table.h"

namespace rskip {
// Peak of one thread in 10^9 floating-point operations per second (a fused multiply-add is two), measured
// now in about five milliseconds. 0 if this machine can't run the instruction set.
double measure_fma_peak_gflops(Isa isa);
// The same for products of 8-bit numbers: a product and its sum are two operations.
double measure_dot_peak_gops(Isa isa);
// The precision that the processor has the fastest products for. Processors that multiply matrices of bfloat16 multiply pairs of them more
// slowly than floats.
Precision fastest_precision();
}  // namespace rskip
