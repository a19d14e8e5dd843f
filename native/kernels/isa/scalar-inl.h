// What the kernels in plain C++ are compiled with. Nothing is gained by unrolling calls of std::fma, and compile time is lost. They are
// small rather than fast: few processors lack AVX2, and the addon would be 0.3 MB larger. RSKIP_SCALAR_END closes what this header opens.
#pragma once

#define RSKIP_UNROLL(n)
#define RSKIP_INLINE inline

#include "kernels/bfloat16/pack16.h"
#include "kernels/int8/pack8.h"
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"
#include "kernels/scalar_math.h"

#if defined(__clang__)
#define RSKIP_SCALAR_END RSKIP_PRAGMA(clang attribute pop)
#pragma clang attribute push(__attribute__((minsize)), apply_to = function)
#else
#define RSKIP_SCALAR_END RSKIP_PRAGMA(GCC pop_options)
#pragma GCC push_options
#pragma GCC optimize("Os")
#endif

#define RSKIP_ISA scalar
#define RSKIP_MACHINE 1
#define RSKIP_TILE_BLOCKS 1
