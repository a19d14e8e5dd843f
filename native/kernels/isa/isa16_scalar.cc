// The kernels on bfloat16 in plain C++, for any machine; compiled as those in isa_scalar.cc.
#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#include "kernels/bfloat16/pack16.h"
#include "kernels/int8/pack8.h"
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)
#endif

#define RSKIP_ISA scalar
#define RSKIP_MACHINE 1
#define RSKIP_VECTOR "simd/vec_scalar-inl.h"
#define RSKIP_PAIRS "simd/pairs_scalar-inl.h"
#define RSKIP_TILE_BLOCKS 1
#include "kernels/isa/kernels-inl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
