// One function per instruction set, each in its isa_*.cc; null where this build lacks it. Whether the
// machine can run the table is asked in table.cc.
#pragma once

#include "kernels/table.h"

namespace rskip {
const KernelTable* scalar_table();
const KernelTable* avx2_table();
const KernelTable* avx512_table();
const KernelTable* neon_table();
}  // namespace rskip
