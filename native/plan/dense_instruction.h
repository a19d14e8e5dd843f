// The long tail: a step on dense tensors, computed by its operator's rules.
#pragma once

#include <vector>

#include "plan/instruction.h"
#include "program/program.h"

namespace rskip {

// `operands` are the places of the step's inputs, then its outputs; those of absent inputs are ignored. The frame's views
// [first_view, first_view + operands) have the types and shapes of these values, none for absent ones.
InstructionPtr make_dense(const Step& step, std::vector<Place> operands, size_t first_view);

}  // namespace rskip
