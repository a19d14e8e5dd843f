// The kernels on bfloat16 for AVX2 and FMA, and for what has more but no products of bfloat16.
#define RSKIP_ISA avx2
#define RSKIP_MACHINE RSKIP_X86
#define RSKIP_FEATURES "avx2,fma"
#define RSKIP_VECTOR "simd/vec_avx2-inl.h"
#define RSKIP_PAIRS "simd/pairs_avx2-inl.h"
#define RSKIP_TILE_BLOCKS 1
#include "kernels/isa/kernels-inl.h"
