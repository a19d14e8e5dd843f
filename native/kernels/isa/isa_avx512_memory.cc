// The convolutions for AVX-512 whose products broadcast from memory; see add_products() in simd/vec_avx512-inl.h. Those
// that are rare or have no such products are the ones of isa_avx512.cc, so that the addon stays small.
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#if RSKIP_X86
#include <immintrin.h>

#define RSKIP_ISA avx512memory
#define RSKIP_BASE avx512
#define RSKIP_TILE_BLOCKS 2
#define RSKIP_BROADCAST_FROM_MEMORY
RSKIP_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include "simd/vec_avx512-inl.h"
// Keep the order: kernels are written on the vector type.
#include "kernels/convolution/conv_direct-inl.h"
#include "kernels/convolution/conv_winograd-inl.h"
RSKIP_TARGET_END

namespace rskip {
namespace {

KernelTable from_register;

using Stride = avx512memory::OneStride<kLanes>;

// Of whole tiles only.
template <int N>
constexpr avx512memory::ConvTileRow with_half_tile() {
  avx512memory::ConvTileRow row = avx512memory::kConvTiles<Stride>[N - 1];
  row.fn[avx512memory::kTilePixels - 1] = avx512memory::conv_tile<avx512memory::kTilePixels, N, Stride, true>;
  return row;
}
constexpr avx512memory::ConvTileRow kHalfTiles[] = {with_half_tile<1>(), with_half_tile<2>()};

// With a stride of 1, on blocked input.
struct CommonTiles : avx512memory::FloatTiles {
  static const TileFn* tiles(int n, int lanes) {
    return (2 * lanes <= kLanes ? kHalfTiles[n - 1] : avx512memory::kConvTiles<Stride>[n - 1]).fn;
  }
};

void conv(const ConvArgs& args, int part, int parts) {
  switch (args.conv->algorithm) {
    case ConvAlgorithm::kWinograd2: return avx512memory::conv_winograd<2>(args, part, parts);
    case ConvAlgorithm::kWinograd4: return avx512memory::conv_winograd<4>(args, part, parts);
    case ConvAlgorithm::kDirect:
      if (args.conv->shape.stride_w == 1) return avx512memory::conv_direct<CommonTiles>(args, part, parts);
      break;
    case ConvAlgorithm::kPlanar:
    case ConvAlgorithm::kDepthwise:
    case ConvAlgorithm::kGrouped:
    case ConvAlgorithm::kBfloat16:
    case ConvAlgorithm::kPlanarBfloat16:
    case ConvAlgorithm::kBfloat16Amx:
    case ConvAlgorithm::kPlanarBfloat16Amx: break;
  }
  from_register.conv(args, part, parts);
}

}  // namespace

bool avx512_memory_kernels(KernelTable& table) {
  avx512_kernels(from_register);
  avx512_kernels(table);
  table.conv = conv;
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool avx512_memory_kernels(KernelTable&) { return false; }
}  // namespace rskip
#endif
