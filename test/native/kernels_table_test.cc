// Dispatch, and one run of every kernel of kernels.def on every instruction set. A kernel that is added to
// the list without a `run_<name>` here doesn't compile.
#include "kernel_tester.h"

namespace rskip::test {
namespace {

using Result = std::vector<float>;

// Sizes that leave tails in every direction.
constexpr int kChannels = 37, kHeight = 9, kWidth = 23;
constexpr Activation kAct{ActivationKind::kHardSwish, 0, 0};

Map input(uint32_t seed) {
  Map map(kChannels, kHeight, kWidth, {1, 1, 1, 1});
  map.fill(random_floats(static_cast<size_t>(kChannels) * kHeight * kWidth, seed, 0.5f, 2.0f));
  return map;
}
Guarded per_channel(uint32_t seed) {
  Guarded v(48);
  std::copy_n(random_floats(48, seed, 0.5f, 2.0f).begin(), 48, v.data());
  return v;
}
// Runs fn(y) on a fresh output map.
template <class F>
Result map_result(F fn, int height = kHeight, int width = kWidth) {
  Map y(kChannels, height, width);
  fn(y.view());
  y.expect_clean();
  return y.planar();
}

Result run_conv(const KernelTable& table) {
  ConvShape s{kChannels, kHeight, kWidth, kChannels, kHeight, kWidth, 3, 3, 1, 1, 1, 1, {1, 1, 1, 1}, 1};
  const Result weight = random_floats(static_cast<size_t>(kChannels) * kChannels * 9, 3);
  const Map x = input(1);
  const Map residual = input(2);
  return map_result([&](const BlockedView& y) {
    const auto packed = pack_conv(s, ConvAlgorithm::kDirect, weight.data(), nullptr);
    table.conv({packed.get(), x.view(), {}, y, &residual.view(), kAct, 0, nullptr}, 0, 1);
  });
}
Result run_gemm(const KernelTable& table) {
  const Result a = random_floats(7 * 33, 1), b = random_floats(33 * 45, 2);
  const auto packed = pack_gemm(33, 45, b.data(), false, nullptr);
  Result y(7 * 45);
  table.gemm({packed.get(), a.data(), y.data(), nullptr, 7, kAct}, 0, 1);
  return y;
}
Result run_pool(const KernelTable& table) {
  const Map x = input(1);
  return map_result([&](const BlockedView& y) {
    table.pool({x.view(), y, 3, 3, 2, 2, 1, 1, {1, 1, 1, 1}, false, false}, 0, 1);
  }, 5, 12);
}
Result run_global_pool(const KernelTable& table) {
  Result y(kChannels);
  table.global_pool(input(1).view(), false, y.data());
  return y;
}
Result run_affine_blocked(const KernelTable& table) {
  const Map x = input(1);
  const Guarded scale = per_channel(2), shift = per_channel(3);
  return map_result(
      [&](const BlockedView& y) { table.affine_blocked(x.view(), scale.data(), shift.data(), y, kAct, 0, 1); });
}
Result run_unary_blocked(const KernelTable& table) {
  const Map x = input(1);
  return map_result([&](const BlockedView& y) { table.unary_blocked(x.view(), y, kAct, 0, 1); });
}
Result run_binary_blocked(const KernelTable& table) {
  const Map a = input(1), b = input(2);
  return map_result(
      [&](const BlockedView& y) { table.binary_blocked(BinaryKind::kDiv, a.view(), b.view(), y, kAct, 0, 1); });
}
Result run_binary_channel(const KernelTable& table) {
  const Map a = input(1);
  const Guarded v = per_channel(2);
  return map_result([&](const BlockedView& y) {
    table.binary_channel(BinaryKind::kDiv, a.view(), v.data(), true, y, kAct, 0, 1);
  });
}
Result run_unary_span(const KernelTable& table) {
  Result x = random_floats(1003, 1, -5, 5);
  table.unary_span(x.data(), x.data(), x.size(), {ActivationKind::kTanh, 0, 0});
  return x;
}
Result run_binary_span(const KernelTable& table) {
  const Result a = random_floats(1003, 1, -5, 5), b = random_floats(1003, 2, 1, 2);
  Result y(a.size());
  table.binary_span(BinaryKind::kDiv, a.data(), b.data(), y.data(), y.size(), kAct);
  return y;
}
Result run_planar_to_blocked(const KernelTable& table) {
  Result x = random_floats(static_cast<size_t>(kChannels) * kHeight * kWidth, 1);
  return map_result([&](const BlockedView& y) {
    table.planar_to_blocked({x.data(), kChannels, kHeight, kWidth, kWidth, kHeight * kWidth}, y, 0, 1);
  });
}
Result run_blocked_to_planar(const KernelTable& table) {
  const Map x = input(1);
  Result y(static_cast<size_t>(kChannels) * kHeight * kWidth);
  table.blocked_to_planar(x.view(), {y.data(), kChannels, kHeight, kWidth, kWidth, kHeight * kWidth}, 0, 1);
  return y;
}

Result run_fma_burst(const KernelTable& table) {
  Result y(kLanes, 0.5f);
  int chains = 0;
  table.fma_burst(10, y.data(), &chains);
  EXPECT_GT(chains, 0);
  return y;
}

#define RS_KERNEL(kernel, ...)                                              \
  TEST(EveryKernel, kernel) {                                               \
    const Result expected = run_##kernel(scalar());                         \
    for (const KernelTable* table : available_tables()) {                   \
      EXPECT_TRUE(same_bits(expected, run_##kernel(*table))) << table->name; \
    }                                                                       \
  }
#include "kernels/kernels.def"
#undef RS_KERNEL

TEST(Dispatch, TablesAreCompleteAndDistinct) {
  std::vector<const KernelTable*> tables = available_tables();
  ASSERT_FALSE(tables.empty());
  EXPECT_EQ(tables.front()->isa, Isa::kScalar);
  EXPECT_EQ(tables.back(), best_table());
  for (const KernelTable* table : tables) {
    EXPECT_EQ(table_for(table->isa), table);
#define RS_KERNEL(kernel, ...)                                                     \
  EXPECT_NE(table->kernel, nullptr) << table->name;                                \
  for (const KernelTable* other : tables) {                                        \
    EXPECT_TRUE(other == table || table->kernel != other->kernel) << "not dispatched"; \
  }
#include "kernels/kernels.def"
#undef RS_KERNEL
  }
}

TEST(Dispatch, AsksTheMachine) {
#if defined(__x86_64__)
  EXPECT_EQ(table_for(Isa::kNeon), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx2) != nullptr, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(table_for(Isa::kAvx512) != nullptr,
            __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
#elif defined(__aarch64__)
  EXPECT_NE(table_for(Isa::kNeon), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx2), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx512), nullptr);
#endif
}

}  // namespace
}  // namespace rskip::test
