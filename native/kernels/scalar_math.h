// The scalar entry point to the project's own activations: the same bits as every vector type gives per lane. Implemented in
// native/kernels/isa/isa_scalar.cc from native/simd.
#pragma once

#include "kernels/types.h"

namespace rskip {
float scalar_activation(float x, const Activation& act);
}  // namespace rskip
