// Every kernel on bfloat16 of kernels.def for one instruction set; kernels-inl.h includes it.
#pragma once

#include "kernels/bfloat16/attention16-inl.h"
#include "kernels/bfloat16/kernels16-inl.h"
#include "kernels/bfloat16/tiles16-inl.h"
#if !RSKIP_EXTENDS
#include "kernels/bfloat16/tiles16_apart-inl.h"
#endif

namespace rskip::RSKIP_ISA {

inline void set_kernels16(KernelTable& table) {
  table.conv16 = &conv16_by<Tiles16>;
  table.gemm16 = &gemm16_by<Tiles16>;
  table.attention16 = &attention16_by<Tiles16>;
#if !RSKIP_EXTENDS
  table.conv16_amx = &conv16_by<Tiles16Apart>;
  table.gemm16_amx = &gemm16_by<Tiles16Apart>;
  table.attention16_amx = &attention16_by<Tiles16Apart>;
#endif
}

}  // namespace rskip::RSKIP_ISA
