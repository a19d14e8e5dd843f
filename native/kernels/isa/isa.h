// One function per instruction set, each in its isa_*.cc, isa8_*.cc or isa16_*.cc, which sets the kernels of a table: those on
// floats, on 8-bit numbers, or on bfloat16. False where this build lacks them. Whether the machine can run them is asked in table.cc.
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

bool scalar_kernels16(KernelTable& table);
bool avx2_kernels16(KernelTable& table);
// Some of them only; the others are those of avx2_kernels16.
bool avx512bf16_kernels16(KernelTable& table);
bool amx_kernels16(KernelTable& table);
}  // namespace rskip
