// The long tail: a step on dense tensors, computed by native/ops.
#pragma once

#include <vector>

#include "plan/instruction.h"
#include "program/program.h"

namespace rskip {

// `operands` are the places of the step's inputs, then its outputs; those of absent inputs are ignored. The frame's
// views [first_view, first_view + operands) must be as dense_views() gives them.
InstructionPtr make_dense(const Step& step, std::vector<Place> operands, size_t first_view);
std::vector<TensorView> dense_views(const Program& program, const Step& step);

}  // namespace rskip
