#include "kernels/table.h"

#include "kernels/isa.h"
#include "simd/target.h"

#if RSKIP_X86
#include <cpuid.h>
#endif

namespace rskip {
namespace {

#if RSKIP_X86
struct Cpu {
  bool avx2 = false;
  bool avx512 = false;
};

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
  return cpu;
}
#endif

bool can_run(Isa isa) {
#if RSKIP_X86
  static const Cpu cpu = ask_cpu();
  if (isa == Isa::kAvx2) return cpu.avx2;
  if (isa == Isa::kAvx512) return cpu.avx512;
#endif
  return isa == Isa::kScalar || isa == Isa::kNeon;
}

}  // namespace

const KernelTable* table_for(Isa isa) {
  if (!can_run(isa)) return nullptr;
  switch (isa) {
    case Isa::kScalar:
      return scalar_table();
    case Isa::kAvx2:
      return avx2_table();
    case Isa::kAvx512:
      return avx512_table();
    case Isa::kNeon:
      return neon_table();
  }
  return nullptr;
}

std::vector<const KernelTable*> available_tables() {
  std::vector<const KernelTable*> tables;
  for (Isa isa : {Isa::kScalar, Isa::kNeon, Isa::kAvx2, Isa::kAvx512}) {
    if (const KernelTable* table = table_for(isa)) tables.push_back(table);
  }
  return tables;
}

const KernelTable* best_table() { return available_tables().back(); }

}  // namespace rskip
