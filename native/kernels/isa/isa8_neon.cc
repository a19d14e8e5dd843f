// The kernels on 8-bit numbers for NEON (64-bit ARM).
#define RSKIP_ISA neon
#define RSKIP_MACHINE RSKIP_ARM64
#define RSKIP_VECTOR "simd/vec8_neon-inl.h"
#define RSKIP_TILE_BLOCKS 1
#define RSKIP_DOT 0
#include "kernels/isa/kernels-inl.h"
