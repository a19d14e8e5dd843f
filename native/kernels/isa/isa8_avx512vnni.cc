// The kernels on 8-bit numbers for AVX-512 (F, BW, DQ, VL) with dot products (AVX512_VNNI).
#define RSKIP_ISA avx512vnni
#define RSKIP_BASE avx512
#define RSKIP_MACHINE RSKIP_X86
#define RSKIP_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512vnni"
#define RSKIP_VECTOR "simd/vec8_avx512-inl.h"
#define RSKIP_TILE_BLOCKS 2
#define RSKIP_DOT 1
#include "kernels/isa/kernels-inl.h"
