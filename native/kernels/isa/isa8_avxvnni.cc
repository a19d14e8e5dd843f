// The kernels on 8-bit numbers for AVX2 with FMA and dot products (AVX-VNNI).
#define RSKIP_ISA avxvnni
#define RSKIP_BASE avx2
#define RSKIP_MACHINE RSKIP_X86
#define RSKIP_FEATURES "avx2,fma,avxvnni"
#define RSKIP_VECTOR "simd/vec8_avx2-inl.h"
#define RSKIP_TILE_BLOCKS 1
#define RSKIP_DOT 1
#include "kernels/isa/kernels-inl.h"
