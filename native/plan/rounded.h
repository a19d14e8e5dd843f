// Eight bits hold neither NaN nor infinity: what a network in 8 bits makes of them looks like an answer.
#pragma once

#include "plan/plan.h"
#include "program/program.h"

namespace rskip {

// Marks the inputs that 8 bits round, and the exits and outputs that are computed from what they were rounded to. An input counts as long
// as a NaN in it would reach the rounding: a network may replace it before. As lib/backends/rounded.ts.
void mark_rounded(const Program& program, Plan& plan);

// How bad the worst number is.
enum class Numbers : uint8_t { kFinite, kInfinite, kNan };
Numbers worst_of(const float* x, size_t n);

}  // namespace rskip
