// The kernels on 8-bit numbers for AVX-512 (F, BW, DQ, VL).
#define RSKIP_ISA avx512
#define RSKIP_MACHINE RSKIP_X86
#define RSKIP_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#define RSKIP_VECTOR "simd/vec8_avx512-inl.h"
#define RSKIP_TILE_BLOCKS 2
#define RSKIP_DOT 0
#include "kernels/isa/kernels-inl.h"
