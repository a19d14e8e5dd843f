// Dispatch, and one run of every kernel of kernels.def on every instruction set. A kernel that is added to
// the list without a `run_<name>` here doesn't compile.
#include <limits>
#include <string_view>

#include "conv8_tester.h"
#include "kernels/bfloat16/pack16.h"

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
    table.conv({packed.get(), x.view(), {}, y, &residual.view(), kAct, 0, false, false, nullptr}, 0, 1);
  });
}
Result run_gemm(const KernelTable& table) {
  const Result a = random_floats(7 * 33, 1), b = random_floats(33 * 45, 2);
  const auto packed = pack_gemm(33, 45, b.data(), false, nullptr);
  Result y(7 * 45);
  table.gemm({packed.get(), a.data(), y.data(), nullptr, 7, kAct}, 0, 1);
  return y;
}
Result run_conv16_in(ConvAlgorithm algorithm, decltype(KernelTable::conv) kernel) {
  ConvShape s{kChannels, kHeight, kWidth, kChannels, kHeight, kWidth, 3, 3, 1, 1, 1, 1, {1, 1, 1, 1}, 1};
  const Result weight = random_floats(static_cast<size_t>(kChannels) * kChannels * 9, 3);
  const Map x = input(1);
  const Map residual = input(2);
  return map_result([&](const BlockedView& y) {
    const auto packed = pack_conv(s, algorithm, weight.data(), nullptr);
    Guarded scratch(conv_scratch_bytes(*packed) / sizeof(float));
    kernel({packed.get(), x.view(), {}, y, &residual.view(), kAct, 0, false, false, scratch.data()}, 0, 1);
  });
}
Result run_conv16(const KernelTable& table) { return run_conv16_in(ConvAlgorithm::kBfloat16, table.conv16); }
Result run_conv16_amx(const KernelTable& table) { return run_conv16_in(ConvAlgorithm::kBfloat16Amx, table.conv16_amx); }
Result run_gemm16_in(Precision precision, decltype(KernelTable::gemm) kernel) {
  const Result a = random_floats(7 * 33, 1), b = random_floats(33 * 45, 2);
  const auto packed = pack_gemm16(33, 45, b.data(), false, nullptr, precision);
  Guarded scratch(gemm16_scratch_bytes(33, 7) / sizeof(float));
  Result y(7 * 45);
  kernel({packed.get(), a.data(), y.data(), nullptr, 7, kAct, scratch.data()}, 0, 1);
  return y;
}
Result run_gemm16(const KernelTable& table) { return run_gemm16_in(Precision::kBfloat16, table.gemm16); }
Result run_gemm16_amx(const KernelTable& table) { return run_gemm16_in(Precision::kBfloat16Amx, table.gemm16_amx); }
Result run_products(const KernelTable& table) {
  const Result a = random_floats(2 * 7 * 33, 1), b = random_floats(2 * 33 * 45, 2);
  const int64_t offsets[] = {0, 0, 0, 7 * 33, 33 * 45, 7 * 45};
  Guarded scratch(33 * kProductColumns);
  Result y(2 * 7 * 45);
  table.products({a.data(), b.data(), y.data(), 2, 7, 33, 45, 45, 1, offsets, scratch.data()}, 0, 1);
  return y;
}
Result run_attention(const KernelTable& table) {
  const AttentionView view{0, 5 * 22, 11, 22, 1};
  const AttentionShape shape{1, 2, 5, 5, 11, 11, 0.5f, view, view, view, {}, view};
  const Result q = random_floats(110, 1), k = random_floats(110, 2), v = random_floats(110, 3);
  Guarded scratch(static_cast<size_t>(attention_scratch_bytes(shape)) / sizeof(float));
  Result y(110);
  table.attention({&shape, q.data(), k.data(), v.data(), nullptr, y.data(), scratch.data()}, 0, 1);
  return y;
}
Result run_attention16_by(decltype(KernelTable::attention) kernel) {
  const AttentionView view{0, 5 * 22, 11, 22, 1};
  const AttentionShape shape{1, 2, 5, 5, 11, 11, 0.5f, view, view, view, {}, view};
  const Result q = random_floats(110, 1), k = random_floats(110, 2), v = random_floats(110, 3);
  Guarded scratch(static_cast<size_t>(attention16_scratch_bytes(shape)) / sizeof(float));
  Result y(110);
  kernel({&shape, q.data(), k.data(), v.data(), nullptr, y.data(), scratch.data()}, 0, 1);
  return y;
}
Result run_attention16(const KernelTable& table) { return run_attention16_by(table.attention16); }
Result run_attention16_amx(const KernelTable& table) { return run_attention16_by(table.attention16_amx); }
Result run_norm_rows(const KernelTable& table) {
  const Result x = random_floats(3 * 37, 1);
  Result y(x.size());
  table.norm_rows(x.data(), {37, 1e-5f, nullptr, nullptr}, y.data(), 3);
  return y;
}
Result run_norm_channels(const KernelTable& table) {
  const Map x = input(1);
  const NormArgs args{kChannels, 1e-5f, nullptr, nullptr};
  return map_result([&](const BlockedView& y) { table.norm_channels(x.view(), args, y, 0, 1); });
}
Result run_softmax_rows(const KernelTable& table) {
  const Result x = random_floats(3 * 37, 1);
  Result y(x.size());
  table.softmax_rows(x.data(), y.data(), 3, 37, false);
  return y;
}
Result run_softmax_columns(const KernelTable& table) {
  const Result x = random_floats(2 * 5 * 37, 1);
  Result y(x.size());
  table.softmax_columns(x.data(), y.data(), {2, 5, 37}, false, 0, 1);
  return y;
}
Result run_arg_max_columns(const KernelTable& table) {
  const Result x = random_floats(2 * 5 * 37, 1);
  std::vector<int64_t> y(2 * 37);
  table.arg_max_columns(x.data(), y.data(), {2, 5, 37}, 0, 1);
  return Result(y.begin(), y.end());
}
Result run_arg_max_rows(const KernelTable& table) {
  const Result x = random_floats(3 * 37, 1);
  std::vector<int64_t> y(3);
  table.arg_max_rows(x.data(), y.data(), 3, 37);
  return Result(y.begin(), y.end());
}
Result run_reduce_rows(const KernelTable& table) {
  const Result x = random_floats(3 * 37, 1);
  Result y(3);
  table.reduce_rows(RowReduction::kMean, x.data(), y.data(), 3, 37);
  return y;
}
Result run_resample(const KernelTable& table) {
  const Result x = random_floats(2 * 5 * 37, 1);
  const int32_t places[] = {0, 1, 1, 3, 4, 2};
  const float factors[] = {0.25f, 0.75f, 0.5f, 0.5f, 1.25f, -0.25f};
  Result y(2 * 3 * 37);
  table.resample({{2, 5, 37}, 3, 2, places, factors, x.data(), y.data(), nullptr}, 0, 1);
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
  table.global_pool(input(1).view(), GlobalPoolKind::kMean, y.data());
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
  table.binary_span(BinaryKind::kDiv, a.data(), 1, b.data(), 1, y.data(), y.size(), kAct);
  return y;
}
Result run_affine_span(const KernelTable& table) {
  const Result x = random_floats(1003, 1, -5, 5), scale = random_floats(1003, 2), shift = random_floats(1003, 3);
  Result y(x.size());
  table.affine_span(x.data(), scale.data(), shift.data(), 1, y.data(), y.size(), kAct);
  return y;
}
Result run_unify_nans(const KernelTable& table) {
  Result x = random_floats(37, 1);
  x[5] = -std::numeric_limits<float>::quiet_NaN();
  table.unify_nans(x.data(), x.size());
  return x;
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

// Those on 8-bit numbers.
Map8 input8(uint32_t seed) {
  Map8 map(kChannels, kHeight, kWidth, {1, 1, 1, 1}, 7);
  map.fill(random_integers<uint8_t>(static_cast<size_t>(kChannels) * kHeight * kWidth, seed, 0, 255));
  return map;
}
template <class F>
Result map_result8(F fn, int height = kHeight, int width = kWidth) {
  Map8 y(kChannels, height, width);
  fn(y.view());
  const std::vector<uint8_t> bytes = y.planar();
  return Result(bytes.begin(), bytes.end());
}
constexpr Rounding kRounding{-50, 190, 50};

Result run_conv8(const KernelTable& table) {
  ConvShape s{kChannels, kHeight, kWidth, kChannels, kHeight, kWidth, 3, 3, 1, 1, 1, 1, {1, 1, 1, 1}, 1};
  const auto weight = random_integers<int8_t>(static_cast<size_t>(kChannels) * kChannels * 9, 3, -128, 127);
  const float scale = 0.0004f;
  const auto packed = pack_conv8(s, ConvAlgorithm::kDirect, weight.data(), nullptr, &scale, 1, 7);
  const Map8 x = input8(1), residual = input8(2);
  GuardedArray<uint8_t> scratch(conv8_scratch_bytes(*packed, table.isa));
  return map_result8([&](const BlockedView8& y) {
    const Addition8 addition{0.5f, 0.75f, 9, false, kRounding};
    table.conv8({packed.get(), x.view(), {}, y, &residual.view(), kRounding, addition, 0, scratch.data()}, 0, 1);
  });
}
Result run_gemm8(const KernelTable& table) {
  const auto a = random_integers<uint8_t>(7 * 32, 1, 0, 255);
  const auto b = random_integers<int8_t>(32 * 45, 2, -128, 127);
  const float scale = 0.001f;
  const auto packed = pack_gemm8(32, 45, b.data(), false, nullptr, &scale, 1, 100);
  Result y(7 * 45);
  GemmArgs8 args;
  args.gemm = packed.get();
  args.a = a.data();
  args.m = 7;
  args.y_float = y.data();
  args.act = kAct;
  table.gemm8(args, 0, 1);
  return y;
}
Result run_products8(const KernelTable& table) {
  const auto a = random_integers<uint8_t>(7 * 30, 1, 0, 255), b = random_integers<uint8_t>(30 * 45, 2, 0, 255);
  const int64_t offsets[] = {0, 0, 0};
  std::vector<uint8_t> y(7 * 45);
  GuardedArray<uint8_t> scratch(products8_scratch_bytes(7, 30, 45));
  table.products8({a.data(), b.data(), y.data(), 1, offsets, 7, 30, 45, false, 100, 120, 0.001f, kRounding, scratch.data()}, 0,
                  1);
  return Result(y.begin(), y.end());
}
Result run_pool8(const KernelTable& table) {
  const Map8 x = input8(1);
  PoolArgs window;
  window.kernel_h = window.kernel_w = 3;
  window.stride_h = window.stride_w = 2;
  window.pad = {1, 1, 1, 1};
  return map_result8([&](const BlockedView8& y) { table.pool8({x.view(), y, window}, 0, 1); }, 5, 12);
}
Result run_global_pool8(const KernelTable& table) {
  Result y(kChannels);
  table.global_pool8({input8(1).view(), 100, 0.01f, y.data(), nullptr, {}}, 0, 1);
  return y;
}
Result run_sum_pool8(const KernelTable& table) {
  const Map8 x = input8(1);
  PoolArgs window;
  window.kernel_h = window.kernel_w = 3;
  window.stride_h = window.stride_w = 2;
  window.pad = {1, 1, 1, 1};
  return map_result([&](const BlockedView& y) { table.sum_pool8({x.view(), y, window, 100, 0.01f, true}, 0, 1); }, 5, 12);
}
Result run_binary8(const KernelTable& table) {
  const Map8 a = input8(1), b = input8(2);
  return map_result8([&](const BlockedView8& y) {
    table.binary8({BinaryKind::kAdd, a.view(), b.view(), y, false, 3, 5, 0.5f, 0.75f, kRounding}, 0, 1);
  });
}
Result run_lookup8(const KernelTable& table) {
  const Map8 x = input8(1);
  const auto entries = random_integers<uint8_t>(256, 3, 0, 255);
  return map_result8([&](const BlockedView8& y) { table.lookup8({x.view(), y, entries.data()}, 0, 1); });
}
Result run_quantize8(const KernelTable& table) {
  const Result x = random_floats(1003, 1, -5, 5);
  std::vector<uint8_t> y(x.size());
  table.quantize8({x.data(), y.data(), x.size(), 0.05f, 100});
  return Result(y.begin(), y.end());
}
Result run_dynamic_quantize8(const KernelTable& table) {
  const Result x = random_floats(1003, 1, -5, 5);
  std::vector<uint8_t> y(x.size() + 1);
  Result scale(1);
  table.dynamic_quantize8({x.data(), y.data(), x.size(), scale.data(), y.data() + x.size()});
  Result all(y.begin(), y.end());
  all.push_back(scale[0]);
  return all;
}
Result run_dequantize8(const KernelTable& table) {
  const auto x = random_integers<uint8_t>(1003, 1, 0, 255);
  Result y(x.size());
  table.dequantize8({x.data(), y.data(), x.size(), 100, 0.05f});
  return y;
}
Result run_planar_to_blocked8(const KernelTable& table) {
  auto x = random_integers<uint8_t>(static_cast<size_t>(kChannels) * kHeight * kWidth, 1, 0, 255);
  return map_result8([&](const BlockedView8& y) {
    table.planar_to_blocked8({x.data(), kChannels, kHeight, kWidth, kWidth, kHeight * kWidth}, y, 0, 1);
  });
}
Result run_blocked_to_planar8(const KernelTable& table) {
  const Map8 x = input8(1);
  std::vector<uint8_t> y(static_cast<size_t>(kChannels) * kHeight * kWidth);
  table.blocked_to_planar8(x.view(), {y.data(), kChannels, kHeight, kWidth, kWidth, kHeight * kWidth}, 0, 1);
  return Result(y.begin(), y.end());
}
Result run_draw8(const KernelTable& table) {
  const auto pixels = random_integers<uint8_t>(9 * 23 * 3, 1, 0, 255);
  // Windows of 3 that move on by 1, with factors that overshoot.
  std::vector<int32_t> firsts(21), factors;
  for (int i = 0; i < 21; ++i) {
    firsts[static_cast<size_t>(i)] = i;
    for (const int32_t factor : {-300'000, 4'194'304 + 600'000 - i, -300'000}) factors.push_back(factor);
  }
  const std::vector<int32_t> sources{2, 1, 0};
  const Result tables = random_floats(3 * 256, 3);
  Result y(3 * 7 * 21);
  DrawArgs8 args{pixels.data(), 23, 9, 3, {21, 3, firsts.data(), factors.data()}, {7, 3, firsts.data(), factors.data()},
                 3, sources.data(), tables.data(), y.data(), 21, 7, 0, 0, nullptr};
  std::vector<uint8_t> scratch(static_cast<size_t>(draw_scratch_bytes(args)));
  args.scratch = scratch.data();
  table.draw8(args);
  return y;
}
Result run_inverse8(const KernelTable& table) {
  std::vector<uint8_t> y(8 * 8 * kLanes);
  const auto coefficients = random_integers<int32_t>(64 * kLanes, 1, -300, 300);
  Result all;
  for (const auto& [columns, rows] : {std::pair{8, 8}, {8, 4}, {2, 2}, {1, 1}}) {
    table.inverse8({coefficients.data(), columns, rows, y.data(), columns * kLanes});
    all.insert(all.end(), y.begin(), y.begin() + columns * rows * kLanes);
  }
  return all;
}
Result run_paint8(const KernelTable& table) {
  const auto rows = random_integers<uint8_t>(5 * 96, 1, 0, 255);
  const auto row = [&](int i) { return rows.data() + 96 * i + 16; };
  std::vector<uint8_t> rgb(3 * 64 + 16);
  Result all;
  for (const PaintArgs8& args : {PaintArgs8{row(0), {row(1), row(2)}, {row(3), row(4)}, true, 37, rgb.data()},
                                 PaintArgs8{row(0), {row(1), row(2)}, {}, true, 37, rgb.data()},
                                 PaintArgs8{row(0), {row(1), row(2)}, {}, false, 37, rgb.data()}}) {
    table.paint8(args);
    all.insert(all.end(), rgb.begin(), rgb.begin() + 3 * 37);
  }
  return all;
}
// The number of chains depends on the instruction set, and so does what is left of them.
Result run_dot_burst(const KernelTable& table) {
  std::vector<int32_t> y = random_integers<int32_t>(kLanes, 1, -1000, 1000);
  int chains = 0;
  table.dot_burst(10, y.data(), &chains);
  EXPECT_GT(chains, 0);
  return {};
}

#define RS_KERNEL(kernel, ...)                                              \
  TEST(EveryKernel, kernel) {                                               \
    const Result expected = run_##kernel(scalar());                         \
    for (const KernelTable* table : available_tables()) {                   \
      EXPECT_TRUE(same_bits(expected, run_##kernel(*table))) << table->name; \
    }                                                                       \
  }
#define RS_KERNEL8 RS_KERNEL
#define RS_KERNEL16 RS_KERNEL
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16

// The instruction set that has the same kernels on floats, and those on 8-bit numbers without products.
Isa base_of(Isa isa) {
  switch (isa) {
    case Isa::kAvxVnni: return Isa::kAvx2;
    case Isa::kAvx512Vnni:
    case Isa::kAmx: return Isa::kAvx512;
    case Isa::kNeonDot: return Isa::kNeon;
    default: return isa;
  }
}

// The weakest instruction set that has the same kernels on bfloat16.
Isa base16_of(Isa isa, [[maybe_unused]] std::string_view kernel) {
#if defined(__x86_64__)
  if (kernel.ends_with("_amx") && isa != Isa::kScalar) {
    return isa == Isa::kAmx && __builtin_cpu_supports("amx-bf16") ? isa : Isa::kAvx2;
  }
#endif
  switch (isa) {
    case Isa::kScalar:
    case Isa::kNeon:
    case Isa::kNeonDot: return Isa::kScalar;
#if defined(__x86_64__)
    case Isa::kAvx512Vnni:
    case Isa::kAmx: return __builtin_cpu_supports("avx512bf16") ? Isa::kAvx512Vnni : Isa::kAvx2;
#endif
    default: return Isa::kAvx2;
  }
}

bool has_products8(std::string_view kernel) {
  return kernel == "conv8" || kernel == "gemm8" || kernel == "products8" || kernel == "dot_burst";
}

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
    const bool shared = base_of(other->isa) == base_of(table->isa);                \
    EXPECT_EQ(shared, table->kernel == other->kernel) << "not dispatched";         \
  }
#define RS_KERNEL8(kernel, ...)                                                                                   \
  EXPECT_NE(table->kernel, nullptr) << table->name;                                                               \
  for (const KernelTable* other : tables) {                                                                       \
    const bool shared = has_products8(#kernel) ? other == table : base_of(other->isa) == base_of(table->isa);      \
    EXPECT_EQ(shared, table->kernel == other->kernel) << #kernel << " isn't dispatched";                          \
  }
#define RS_KERNEL16(kernel, ...)                                                   \
  EXPECT_NE(table->kernel, nullptr) << table->name;                                \
  for (const KernelTable* other : tables) {                                        \
    const bool shared = base16_of(other->isa, #kernel) == base16_of(table->isa, #kernel); \
    EXPECT_EQ(shared, table->kernel == other->kernel) << #kernel << " isn't dispatched"; \
  }
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16
  }
}

TEST(Dispatch, AVX512HasTwoFormsOfConvolution) {
  const KernelTable* const table = table_for(Isa::kAvx512);
  if (table == nullptr) GTEST_SKIP() << "no AVX-512";
  KernelTable from_register, from_memory;
  ASSERT_TRUE(avx512_kernels(from_register) && avx512_memory_kernels(from_memory));
  EXPECT_NE(from_register.conv, from_memory.conv);
  EXPECT_EQ(from_register.gemm, from_memory.gemm);
  EXPECT_TRUE(table->conv == from_register.conv || table->conv == from_memory.conv);
}

TEST(Dispatch, AsksTheMachine) {
#if defined(__x86_64__)
  EXPECT_EQ(table_for(Isa::kNeon), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx2) != nullptr, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(table_for(Isa::kAvx512) != nullptr,
            __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
  EXPECT_EQ(table_for(Isa::kAvx512Vnni) != nullptr,
            table_for(Isa::kAvx512) != nullptr && __builtin_cpu_supports("avx512vnni"));
  EXPECT_EQ(table_for(Isa::kAvxVnni) != nullptr, table_for(Isa::kAvx2) != nullptr && __builtin_cpu_supports("avxvnni"));
#elif defined(__aarch64__)
  EXPECT_NE(table_for(Isa::kNeon), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx2), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx512), nullptr);
  EXPECT_EQ(table_for(Isa::kAvx512Vnni), nullptr);
#endif
}

}  // namespace
}  // namespace rskip::test
