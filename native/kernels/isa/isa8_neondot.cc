// The kernels on 8-bit numbers for NEON with dot products (FEAT_DotProd).
#define RSKIP_ISA neondot
#define RSKIP_BASE neon
#define RSKIP_MACHINE RSKIP_ARM64
// The two compilers write it differently.
#if defined(__clang__)
#define RSKIP_FEATURES "dotprod"
#else
#define RSKIP_FEATURES "+dotprod"
#endif
#define RSKIP_VECTOR "simd/vec8_neon-inl.h"
#define RSKIP_TILE_BLOCKS 1
#define RSKIP_DOT 1
#include "kernels/isa/kernels-inl.h"
