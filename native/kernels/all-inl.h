// Every kernel of kernels.def for one instruction set, and their table. Included by an isa_*.cc inside a
// target region, after that instruction set's vector type.
#pragma once

#ifndef RSKIP_ISA
#error "define RSKIP_ISA and include a vector type first"
#endif

#include "kernels/conv-inl.h"
#include "kernels/depthwise-inl.h"
#include "kernels/gemm-inl.h"
#include "kernels/pointwise-inl.h"
#include "kernels/pool-inl.h"

namespace rskip::RSKIP_ISA {

inline void conv(const ConvArgs& args, int part, int parts) {
  switch (args.conv->algorithm) {
    case ConvAlgorithm::kPlanar:
      return conv_planar(args, part, parts);
    case ConvAlgorithm::kDepthwise:
      return conv_depthwise(args, part, parts);
    default:
      return conv_direct(args, part, parts);
  }
}

inline KernelTable make_table(Isa isa, const char* name) {
  KernelTable table;
  table.isa = isa;
  table.name = name;
#define RS_KERNEL(name, ...) table.name = &RSKIP_ISA::name;
#include "kernels/kernels.def"
#undef RS_KERNEL
  return table;
}

}  // namespace rskip::RSKIP_ISA
