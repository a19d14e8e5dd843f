// Every kernel on bfloat16 of kernels.def for one instruction set; kernels-inl.h includes it.
#pragma once

#include "kernels/bfloat16/attention16-inl.h"
#include "kernels/bfloat16/kernels16-inl.h"

namespace rskip::RSKIP_ISA {

inline void set_kernels16(KernelTable& table) {
#define RS_KERNEL(name, ...)
#define RS_KERNEL8(name, ...)
#define RS_KERNEL16(name, ...) table.name = &RSKIP_ISA::name;
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16
}

}  // namespace rskip::RSKIP_ISA
