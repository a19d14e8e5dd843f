#include "kernels/table.h"

#include <array>
#include <cstdlib>
#include <string_view>

#include "kernels/isa/isa.h"
#include "simd/target.h"

#if RSKIP_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif RSKIP_ARM64 && defined(__APPLE__)
#include <sys/sysctl.h>
#elif RSKIP_ARM64 && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif RSKIP_ARM64 && defined(_WIN32)
#include <windows.h>
#endif

namespace rskip {
namespace {

#if RSKIP_X86
struct Cpu {
  bool avx2 = false, avx512 = false, avxvnni = false, avx512vnni = false, amx = false, avx512bf16 = false, amx_bf16 = false;
  bool halves512 = false;  // runs instructions on 512 bits in two halves
};

// Linux saves the registers of matrices only for processes that ask for them.
bool may_use_matrices() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kMatrixData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kMatrixData) == 0;
#else
  return false;
#endif
}

Cpu ask_cpu() {
  Cpu cpu;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return cpu;
  const bool osxsave = c >> 27 & 1;
  const bool fma = c >> 12 & 1;
  if (!osxsave || !fma) return cpu;
  // XCR0: which registers the operating system saves on a context switch.
  unsigned xcr0 = 0, xcr0_high = 0;
  __asm__("xgetbv" : "=a"(xcr0), "=d"(xcr0_high) : "c"(0));
  const bool ymm = (xcr0 & 0x06) == 0x06;
  const bool zmm = (xcr0 & 0xe6) == 0xe6;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;
  cpu.avx2 = ymm && (b >> 5 & 1);
  cpu.avx512 = cpu.avx2 && zmm && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
  cpu.avx512vnni = cpu.avx512 && (c >> 11 & 1);
  const bool matrices = (xcr0 & 0x60000) == 0x60000 && (d >> 24 & 1) && (d >> 25 & 1);
  cpu.amx = cpu.avx512vnni && matrices && may_use_matrices();
  const bool bf16_matrices = d >> 22 & 1;
  const unsigned subleaves = a;
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
    cpu.avxvnni = cpu.avx2 && (a >> 4 & 1);
    cpu.avx512bf16 = cpu.avx512 && (a >> 5 & 1);
    cpu.amx_bf16 = cpu.amx && cpu.avx512bf16 && bf16_matrices;
  }
  // AMD's alone have this leaf. Bit 3 (FP512) says that the units for floats are 512 bits wide: not on Zen 4.
  if (__get_cpuid(0x8000001a, &a, &b, &c, &d)) cpu.halves512 = (a >> 3 & 1) == 0;
  return cpu;
}
#endif

#if RSKIP_ARM64
// Whether the operating system says so: user programs can't ask the processor.
bool has_neon_dot() {
#if defined(__APPLE__)
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &value, &size, nullptr, 0) == 0 && value != 0;
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(_WIN32)
  return IsProcessorFeaturePresent(43) != 0;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE, which older SDKs don't name
#else
  return false;
#endif
}
#endif

#if RSKIP_X86
const Cpu& this_cpu() {
  static const Cpu cpu = ask_cpu();
  return cpu;
}
#endif

bool can_run(Isa isa) {
#if RSKIP_X86
  const Cpu& cpu = this_cpu();
  if (isa == Isa::kAvx2) return cpu.avx2;
  if (isa == Isa::kAvx512) return cpu.avx512;
  if (isa == Isa::kAvxVnni) return cpu.avxvnni;
  if (isa == Isa::kAvx512Vnni) return cpu.avx512vnni;
  if (isa == Isa::kAmx) return cpu.amx;
#endif
#if RSKIP_ARM64
  static const bool dot = has_neon_dot();
  if (isa == Isa::kNeonDot) return dot;
#endif
  return isa == Isa::kScalar || isa == Isa::kNeon;
}

using SetKernels = bool (*)(KernelTable&);

// The form of the AVX-512 kernels on floats that is faster on this processor. Benchmarks force one.
SetKernels avx512_form() {
  const char* const forced = std::getenv("RESIDUAL_SKIP_BROADCAST");
  const std::string_view form = forced == nullptr ? "" : forced;
  if (form == "memory") return avx512_memory_kernels;
  if (form == "register") return avx512_kernels;
#if RSKIP_X86
  if (this_cpu().halves512) return avx512_memory_kernels;
#endif
  return avx512_kernels;
}

// Those on bfloat16 of the processors that have dot products of bytes, or matrices of them: some have products of bfloat16, too.
bool avx512vnni_kernels16(KernelTable& table) {
  bool set = avx2_kernels16(table);
#if RSKIP_X86
  if (this_cpu().avx512bf16) set = set && avx512bf16_kernels16(table);
#endif
  return set;
}
bool best_kernels16(KernelTable& table) {
  bool set = avx512vnni_kernels16(table);
#if RSKIP_X86
  if (this_cpu().amx_bf16) set = set && amx_kernels16(table);
#endif
  return set;
}

// Null where this build lacks the kernels.
const KernelTable* make_table(Isa isa, const char* name, SetKernels floats, SetKernels bytes, SetKernels pairs) {
  static KernelTable tables[8];
  KernelTable& table = tables[static_cast<size_t>(isa)];
  table.isa = isa;
  table.name = name;
  return floats(table) && bytes(table) && pairs(table) ? &table : nullptr;
}

// In the order of Isa.
const std::array<const KernelTable*, 8>& all_tables() {
  static const SetKernels avx512 = avx512_form();
  static const std::array<const KernelTable*, 8> tables = {
      make_table(Isa::kScalar, "scalar", scalar_kernels, scalar_kernels8, scalar_kernels16),
      make_table(Isa::kAvx2, "avx2", avx2_kernels, avx2_kernels8, avx2_kernels16),
      make_table(Isa::kAvxVnni, "avxvnni", avx2_kernels, avxvnni_kernels8, avx2_kernels16),
      make_table(Isa::kAvx512, "avx512", avx512, avx512_kernels8, avx2_kernels16),
      make_table(Isa::kAvx512Vnni, "avx512vnni", avx512, avx512vnni_kernels8, avx512vnni_kernels16),
      make_table(Isa::kAmx, "amx", avx512, amx_kernels8, best_kernels16),
      make_table(Isa::kNeon, "neon", neon_kernels, neon_kernels8, scalar_kernels16),
      make_table(Isa::kNeonDot, "neondot", neon_kernels, neondot_kernels8, scalar_kernels16),
  };
  return tables;
}

}  // namespace

const KernelTable* table_for(Isa isa) { return can_run(isa) ? all_tables()[static_cast<size_t>(isa)] : nullptr; }

std::vector<const KernelTable*> available_tables() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable* table : all_tables()) {
    if (table != nullptr && can_run(table->isa)) tables.push_back(table);
  }
  return tables;
}

const KernelTable* best_table() { return available_tables().back(); }

}  // namespace rskip
