// Scalar entry points to the project's own exp, tanh, sigmoid and activations: the same bits as every
// vector type gives per lane. Implemented in native/kernels/isa/isa_scalar.cc from native/simd.
#pragma once

#include "kernels/types.h"

namespace rskip {
float scalar_exp(float x);
float scalar_log(float x);
float scalar_activation(float x, const Activation& act);
}  // namespace rskip
