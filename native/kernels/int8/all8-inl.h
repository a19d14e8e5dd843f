// Every kernel on 8-bit numbers of kernels.def for one instruction set, with dot products (RSKIP_DOT) or without, or, if it extends
// another, those that have products; isa/kernels-inl.h includes it.
#pragma once

#include "kernels/int8/conv8-inl.h"
#include "kernels/int8/conv8_depthwise-inl.h"
#if RSKIP_WINOGRAD8
#include "kernels/int8/conv8_winograd-inl.h"
#endif
#include "kernels/int8/gemm8-inl.h"
#if !RSKIP_EXTENDS
#include "kernels/int8/draw8-inl.h"
#include "kernels/int8/jpeg8-inl.h"
#include "kernels/int8/pointwise8-inl.h"
#endif

namespace rskip::RSKIP_ISA {

inline void conv8(const ConvArgs8& args, int part, int parts) {
  switch (args.conv->algorithm) {
    case ConvAlgorithm::kPlanar:
      return conv_planar<Tiles8>(args, part, parts);
    case ConvAlgorithm::kDepthwise:
      return conv8_depthwise(args, part, parts);
#if RSKIP_WINOGRAD8
    case ConvAlgorithm::kWinograd4:
      return RSKIP_BASE::conv8_winograd(args, part, parts, winograd_products8);
#endif
    default:
      return conv_direct<Tiles8>(args, part, parts);
  }
}

// Twice as many sums as there are inputs in registers, as in a tile.
inline void dot_burst(int rounds, int32_t* y, int* chains) {
  constexpr int kPixels = std::min(8, kTilePixels8);
  Bits sum[kPixels][kTileBlocks];
  Factors factor[kTileBlocks];
  RSKIP_UNROLL(2) for (int n = 0; n < kTileBlocks; ++n) {
    factor[n] = load_factors(reinterpret_cast<const int8_t*>(y));
    RSKIP_UNROLL(8) for (int p = 0; p < kPixels; ++p) sum[p][n] = add_bits(load_bits(y), 2 * p + n);
  }
  // Four rounds in one turn, because GCC moves each sum to another register and back in every turn.
  for (int round = 0; round < rounds; round += 4) {
    // Other numbers for every sum, or the compiler would multiply once.
    const uint8_t* x = reinterpret_cast<const uint8_t*>(y) + round % 16;
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
      RSKIP_UNROLL(8) for (int p = 0; p < kPixels; ++p) add_dots(sum[p], x + 4 * p + i, factor);
    }
  }
  // Every sum is used, or the compiler would drop it.
  Bits total = load_bits(y);
  RSKIP_UNROLL(2) for (int n = 0; n < kTileBlocks; ++n) {
    RSKIP_UNROLL(8) for (int p = 0; p < kPixels; ++p) total = sub_bits(total, sum[p][n]);
  }
  store_bits(y, total);
  *chains = kPixels * kTileBlocks;
}

inline void set_kernels8(KernelTable& table) {
#if RSKIP_EXTENDS
  table.conv8 = &RSKIP_ISA::conv8;
  table.gemm8 = &RSKIP_ISA::gemm8;
  table.products8 = &RSKIP_ISA::products8;
  table.dot_burst = &RSKIP_ISA::dot_burst;
#else
#define RS_KERNEL(name, ...)
#define RS_KERNEL16(name, ...)
#define RS_KERNEL8(name, ...) table.name = &RSKIP_ISA::name;
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16
#endif
}

}  // namespace rskip::RSKIP_ISA
