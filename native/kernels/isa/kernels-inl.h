// Every kernel of kernels.def for one instruction set: those on 8-bit numbers if RSKIP_DOT is defined, those on
// bfloat16 if RSKIP_PAIRS is, or else those on floats. An isa_*.cc, isa8_*.cc or isa16_*.cc is nothing but this, with
//   RSKIP_ISA          the namespace, as the functions of isa.h are named
//   RSKIP_BASE         the one that it extends, if any, whose kernels it takes where it has no better products
//   RSKIP_MACHINE      RSKIP_X86, RSKIP_ARM64, or 1 for any: elsewhere the function of isa.h returns false
//   RSKIP_FEATURES     of the target region; undefined for those that every such machine has
//   RSKIP_VECTOR       the header of the vector type
//   RSKIP_TILE_BLOCKS  blocks of output channels in a register tile
//   RSKIP_DOT          whether there are dot products of 8-bit numbers
//   RSKIP_PAIRS        the header of pairs of bfloat16, which is included behind the vector type
#pragma once

#include "kernels/bfloat16/pack16.h"
#include "kernels/int8/pack8.h"
#include "kernels/isa/isa.h"
#include "kernels/prelude.h"

#ifdef RSKIP_BASE
#define RSKIP_EXTENDS 1
#else
#define RSKIP_EXTENDS 0
#define RSKIP_BASE RSKIP_ISA
#endif

#define RSKIP_JOIN_NAMES(a, b) a##b
#define RSKIP_JOIN(a, b) RSKIP_JOIN_NAMES(a, b)

#ifdef RSKIP_DOT
#define RSKIP_MATRIX 0
#ifdef RSKIP_FEATURES
#define RSKIP_WINOGRAD8 RSKIP_X86
#else
#define RSKIP_WINOGRAD8 0
#endif
#define RSKIP_SUFFIX kernels8
#define RSKIP_ALL "kernels/int8/all8-inl.h"
#elif defined(RSKIP_PAIRS)
#define RSKIP_SUFFIX kernels16
#define RSKIP_ALL "kernels/bfloat16/all16-inl.h"
#else
#define RSKIP_SUFFIX kernels
#define RSKIP_ALL "kernels/isa/all-inl.h"
#endif
#define RSKIP_TABLE_OF_ISA RSKIP_JOIN(RSKIP_ISA, RSKIP_JOIN(_, RSKIP_SUFFIX))

#if RSKIP_MACHINE
#if RSKIP_X86
#include <immintrin.h>
#elif RSKIP_ARM64
#include <arm_neon.h>
#endif

#ifdef RSKIP_FEATURES
RSKIP_TARGET_BEGIN(RSKIP_FEATURES)
#endif
// Keep the order: kernels are written on the vector type.
#include RSKIP_VECTOR
#ifdef RSKIP_PAIRS
#include RSKIP_PAIRS
#endif
#include RSKIP_ALL
#ifdef RSKIP_FEATURES
RSKIP_TARGET_END
#endif

namespace rskip {
bool RSKIP_TABLE_OF_ISA(KernelTable& table) {
#if RSKIP_EXTENDS && defined(RSKIP_DOT)
  if (!RSKIP_JOIN(RSKIP_BASE, _kernels8)(table)) return false;
#endif
  RSKIP_ISA::RSKIP_JOIN(set_, RSKIP_SUFFIX)(table);
  return true;
}
}  // namespace rskip
#else
namespace rskip {
bool RSKIP_TABLE_OF_ISA(KernelTable&) { return false; }
}  // namespace rskip
#endif
