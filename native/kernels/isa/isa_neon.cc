// The kernels for NEON (64-bit ARM).
#define RSKIP_ISA neon
#define RSKIP_MACHINE RSKIP_ARM64
#define RSKIP_VECTOR "simd/vec_neon-inl.h"
#define RSKIP_TILE_BLOCKS 1
#include "kernels/isa/kernels-inl.h"
