// One function per instruction set, each in its isa_*.cc or isa8_*.cc, which sets the kernels of a table: those on floats, or
// those on 8-bit numbers. False where this build lacks them. Whether the machine can run them is asked in table.cc.
#pragma once

#include "kernels/table.h"

namespace rskip {
bool scalar_kernels(KernelTable& table);
bool avx2_kernels(KernelTable& table);
bool avx512_kernels(KernelTable& table);
// The same with other convolutions, of the same bits.
bool avx512_memory_kernels(KernelTable& table);
bool neon_kernels(KernelTable& table);

bool scalar_kernels8(KernelTable& table);
bool avx2_kernels8(KernelTable& table);
bool avxvnni_kernels8(KernelTable& table);
bool avx512_kernels8(KernelTable& table);
bool avx512vnni_kernels8(KernelTable& table);
bool amx_kernels8(KernelTable& table);
bool neon_kernels8(KernelTable& table);
bool neondot_kernels8(KernelTable& table);
}  // namespace rskip
