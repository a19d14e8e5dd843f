// Memory of one executing thread.
#pragma once

#include "kernels/aligned_buffer.h"

namespace rskip {

struct Workspace {
  AlignedBuffer arena;    // values of the unit that the thread leads
  AlignedBuffer scratch;  // of single kernel calls
};

}  // namespace rskip
