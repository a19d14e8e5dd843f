// The kernels on bfloat16 for AVX-512 (F, BW, DQ, VL) with products of bfloat16 (AVX512_BF16).
#define RSKIP_ISA avx512bf16
#define RSKIP_BASE avx512
#define RSKIP_MACHINE RSKIP_X86
#define RSKIP_FEATURES "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16"
#define RSKIP_VECTOR "simd/vec_avx512-inl.h"
#define RSKIP_PAIRS "simd/pairs_avx512-inl.h"
#define RSKIP_TILE_BLOCKS 2
#include "kernels/isa/kernels-inl.h"
