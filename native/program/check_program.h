// Checks across the steps of a program: nothing is read before it is written, and blocks can be skipped.
#pragma once

#include "program/program.h"

namespace rskip {

// Throws EngineError(kInternal). Every step must have been checked by itself.
void check_program(const Program& program);

}  // namespace rskip
