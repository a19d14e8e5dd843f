// Every kernel on floats of kernels.def for one instruction set; kernels-inl.h includes it.
#pragma once

#ifndef RSKIP_ISA
#error "define RSKIP_ISA and include a vector type first"
#endif

#include "kernels/rows/attention-inl.h"
#include "kernels/convolution/conv_depthwise-inl.h"
#include "kernels/convolution/conv_direct-inl.h"
#include "kernels/convolution/conv_grouped-inl.h"
#include "kernels/convolution/conv_planar-inl.h"
#include "kernels/convolution/conv_winograd-inl.h"
#include "kernels/matrix/gemm-inl.h"
#include "kernels/rows/pointwise-inl.h"
#include "kernels/rows/pool-inl.h"
#include "kernels/rows/columns-inl.h"
#include "kernels/rows/resample-inl.h"
#include "kernels/rows/rows-inl.h"

namespace rskip::RSKIP_ISA {

inline void conv(const ConvArgs& args, int part, int parts) {
  switch (args.conv->algorithm) {
    case ConvAlgorithm::kPlanar:
      return conv_planar<FloatTiles>(args, part, parts);
    case ConvAlgorithm::kDepthwise:
      return conv_depthwise(args, part, parts);
    case ConvAlgorithm::kGrouped:
      return conv_grouped(args, part, parts);
    case ConvAlgorithm::kWinograd2:
      return conv_winograd<2>(args, part, parts);
    case ConvAlgorithm::kWinograd4:
      return conv_winograd<4>(args, part, parts);
    case ConvAlgorithm::kBfloat16:
    case ConvAlgorithm::kPlanarBfloat16:
    case ConvAlgorithm::kBfloat16Amx:
    case ConvAlgorithm::kPlanarBfloat16Amx:
      return;  // of conv16
    case ConvAlgorithm::kDirect:
      return conv_direct<FloatTiles>(args, part, parts);
  }
}

inline void fma_burst(int rounds, float* y, int* chains) {
  constexpr int kChains = kTilePixels * kTileBlocks;
  Vec sum[kChains];
  RSKIP_UNROLL(32) for (int i = 0; i < kChains; ++i) sum[i] = splat(static_cast<float>(i));
  const Vec factor = load(y);
  for (int round = 0; round < rounds; ++round) {
    RSKIP_UNROLL(32) for (int i = 0; i < kChains; ++i) sum[i] = fma(sum[i], factor, factor);
  }
  // Every chain differs and is used, or the compiler would drop it; chain 0 holds the least.
  Vec least = sum[0];
  RSKIP_UNROLL(32) for (int i = 1; i < kChains; ++i) least = min(sum[i], least);
  store(y, least);
  *chains = kChains;
}

inline void set_kernels(KernelTable& table) {
#define RS_KERNEL(name, ...) table.name = &RSKIP_ISA::name;
#define RS_KERNEL8(name, ...)
#define RS_KERNEL16(name, ...)
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16
}

}  // namespace rskip::RSKIP_ISA
