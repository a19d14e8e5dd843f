// Opens and closes a region of code compiled for one instruction set, so that build files need no flags
// per file. Use in an isa_*.cc after every standard header and before the first -inl.h:
//   RSKIP_TARGET_BEGIN("avx2,fma")
//   ... -inl.h files ...
//   RSKIP_TARGET_END
// Contraction is off inside: a*b + c is two roundings unless fma() is written.
#pragma once

#if !defined(__GNUC__) && !defined(__clang__)
#error "this compiler lacks what the kernels need; use GCC or Clang"
#endif

#define RSKIP_PRAGMA(text) _Pragma(#text)

#if defined(__clang__)
#define RSKIP_TARGET_BEGIN(isa) \
  RSKIP_PRAGMA(clang fp contract(off)) RSKIP_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define RSKIP_TARGET_END RSKIP_PRAGMA(clang attribute pop)
#else
#define RSKIP_TARGET_BEGIN(isa) \
  RSKIP_PRAGMA(GCC push_options) RSKIP_PRAGMA(GCC target(isa)) RSKIP_PRAGMA(GCC optimize("fp-contract=off"))
#define RSKIP_TARGET_END RSKIP_PRAGMA(GCC pop_options)
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define RSKIP_X86 1
#else
#define RSKIP_X86 0
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
#define RSKIP_ARM64 1
#else
#define RSKIP_ARM64 0
#endif

// Vector helpers must vanish into their caller: a call would pass registers through memory.
#ifndef RSKIP_INLINE
#define RSKIP_INLINE [[gnu::always_inline]] inline
#endif
// The same pointer, of whose origin the compiler knows nothing: it would otherwise keep every multiple of a stride that
// is added to it in a register of its own, and move them through those of vectors.
template <class T>
RSKIP_INLINE T* opaque(T* p) {
#if defined(__GNUC__)
  __asm__("" : "+r"(p));
#endif
  return p;
}
// Register tiles are arrays: unless every loop over them is unrolled they live in memory.
#ifndef RSKIP_UNROLL
#define RSKIP_UNROLL(n) RSKIP_PRAGMA(GCC unroll n)
#endif
