// The kernels on bfloat16: against an oracle of rounded numbers, and bit for bit between instruction sets, where numbers are as
// small as floats get, too.
#include <bit>

#include "conv_tester.h"
#include "kernels/bfloat16/pack16.h"

namespace rskip::test {
namespace {

TEST(Bfloat16, RoundsToNearest) {
  const auto rounded = [](float x) { return std::bit_cast<float>(round_to_bfloat16(x) << 16); };
  for (float x : random_floats(1000, 1, -3, 3)) EXPECT_EQ(rounded(x), nearest_bfloat16(x));
  EXPECT_EQ(rounded(1 + 0x1p-8f), 1);
  EXPECT_EQ(rounded(1 + 0x3p-8f), 1 + 0x1p-6f);
  EXPECT_EQ(rounded(std::numeric_limits<float>::max()), INFINITY);
  EXPECT_EQ(rounded(-INFINITY), -INFINITY);
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7f800001))));
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0xffffffff))));
  EXPECT_EQ(std::bit_cast<uint32_t>(rounded(-0x1p-127f)), 0x80000000u);
}

// In both orders of sums.
template <class Test>
void in_both(const Test& test) {
  for (const bool amx : {false, true}) {
    SCOPED_TRACE(amx ? "in the order of AMX" : "pair by pair");
    test([=] { return ConvTester().algorithm(amx ? ConvAlgorithm::kBfloat16Amx : ConvAlgorithm::kBfloat16); },
         [=] { return ConvTester().algorithm(amx ? ConvAlgorithm::kPlanarBfloat16Amx : ConvAlgorithm::kPlanarBfloat16); });
  }
}

TEST(Conv16, Pointwise) {
  in_both([](const auto& conv, const auto&) {
    for (int channels : {1, 2, 15, 16, 17, 31, 32, 33, 48, 70}) conv().channels(channels, 40).map(5, 7).check();
    for (int channels : {1, 16, 17, 40}) conv().channels(24, channels).map(9, 3).residual().check();
    // Wider than a tile, and with a halo that other layers need.
    conv().channels(40, 48).map(3, 61).extra_halo(2).output_halo(1).in_place().check();
    conv().channels(33, 24).map(9, 10).stride(2).check();
    conv().channels(33, 24).map(9, 10).pad({1, 0, 2, 1}).check();
  });
}
TEST(Conv16, InBands) {
  in_both([](const auto& conv, const auto&) {
    // A row of the input is larger than what is rounded at a time; and ten rows at a time.
    conv().channels(1200, 17).map(3, 60).check();
    conv().channels(100, 17).map(35, 55).residual().check();
    conv().channels(100, 9).map(35, 55).kernel(3).stride(2).pad(1).check();
  });
}
TEST(Conv16, Kernels) {
  in_both([](const auto& conv, const auto&) {
    conv().channels(40, 33).map(7, 7).kernel(3).pad(1).residual().check();
    conv().channels(17, 20).map(11, 13).kernel(3).stride(2).pad(1).check();
    conv().channels(17, 20).map(12, 14).kernel(5, 2).stride(3, 1).dilation(1, 2).pad({2, 1, 0, 3}).check();
    conv().channels(34, 16).map(9, 9).kernel(3).dilation(2).pad(2).in_place().check();
    // Rows that are narrow beside what lies between them; and more than a tile.
    conv().channels(70, 40).map(9, 3).kernel(3).pad(1).residual().check();
    conv().channels(20, 40).map(7, 37).kernel(3).stride(2).pad(1).output_halo(1).check();
    conv().channels(20, 70).map(6, 40).kernel(3).pad(1).output_halo(2).in_place().check();
  });
}
TEST(Conv16, Planar) {
  in_both([](const auto&, const auto& planar) {
    for (int channels : {1, 3, 4}) planar().channels(channels, 40).map(19, 22).kernel(7).stride(2).pad(3).check();
    for (int width : {15, 16, 29, 61}) planar().channels(3, 20).map(9, width).kernel(3).stride(2).pad(1).residual().check();
    planar().channels(3, 33).map(32, 48).kernel(16).stride(16).check();
    planar().channels(2, 17).map(20, 21).kernel(2, 5).stride(1, 4).dilation(2, 1).pad({0, 2, 3, 1}).extra_halo(1).check();
    planar().channels(3, 16).map(120, 1400).kernel(3).stride(2).pad(1).check();  // in bands
  });
}
TEST(Conv16, Epilogues) {
  in_both([](const auto& conv, const auto&) {
    for (const Activation& act : all_activations()) conv().channels(20, 19).map(4, 5).act(act).in_place().check();
    conv().bias(false).check();
  });
}

struct GemmCase {
  int m, k, n;
  bool trans_b = false, residual = false;
  Activation act = {};
  Precision precision = Precision::kBfloat16;
};

std::vector<float> multiply(const KernelTable& table, const PackedGemm& packed, const std::vector<float>& a,
                            const std::vector<float>& residual, const GemmCase& c, int parts = 1) {
  Guarded x(a.size()), y(static_cast<size_t>(c.m) * c.n, -7);
  std::copy(a.begin(), a.end(), x.data());
  if (c.residual) std::copy(residual.begin(), residual.end(), y.data());
  for (int part = 0; part < parts; ++part) {
    Guarded scratch(gemm16_scratch_bytes(c.k, c.m) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
    (c.precision == Precision::kBfloat16 ? table.gemm16 : table.gemm16_amx)({&packed, x.data(), y.data(), c.residual ? y.data() : nullptr, c.m, c.act, scratch.data()}, part, parts);
  }
  return {y.data(), y.data() + y.size()};
}

void check_in(const GemmCase& c) {
  SCOPED_TRACE(std::to_string(c.m) + "x" + std::to_string(c.k) + "x" + std::to_string(c.n));
  const std::vector<float> a = random_floats(static_cast<size_t>(c.m) * c.k, 1);
  const std::vector<float> b = random_floats(static_cast<size_t>(c.k) * c.n, 2);
  const std::vector<float> bias = random_floats(c.n, 3), residual = random_floats(static_cast<size_t>(c.m) * c.n, 4);
  const auto packed = pack_gemm16(c.k, c.n, b.data(), c.trans_b, bias.data(), c.precision);
  const std::vector<float> expected = multiply(scalar(), *packed, a, residual, c);
  for (int i = 0; i < c.m; ++i) {
    for (int j = 0; j < c.n; ++j) {
      double sum = bias[j], magnitude = std::abs(sum);
      for (int k = 0; k < c.k; ++k) {
        const double product = static_cast<double>(nearest_bfloat16(a[i * c.k + k])) *
                               nearest_bfloat16(b[c.trans_b ? j * c.k + k : k * c.n + j]);
        sum += product;
        magnitude += std::abs(product);
      }
      if (c.residual) sum += residual[i * c.n + j];
      ASSERT_NEAR(expected[i * c.n + j], oracle_activation(sum, c.act), sum_tolerance(c.k + 4, magnitude + 1));
    }
  }
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    for (int parts : {1, 2, 5}) {
      EXPECT_TRUE(same_bits(expected, multiply(*table, *packed, a, residual, c, parts))) << parts << " parts";
    }
  }
}

void check(GemmCase c) {
  for (Precision precision : {Precision::kBfloat16, Precision::kBfloat16Amx}) {
    c.precision = precision;
    check_in(c);
  }
}

TEST(Gemm16, Sizes) {
  for (int m : {1, 2, 5, 13, 14, 15, 31}) check({m, 19, 45, m % 2 == 0});
  for (int k : {1, 2, 31, 32, 33, 64, 100}) check({3, k, 33, k % 2 == 1, true});
  for (int n : {1, 15, 16, 17, 31, 32, 48, 100}) check({4, 20, n, n % 2 == 1, true, {ActivationKind::kGelu, 0, 0}});
  check({90, 3000, 20});  // more rows than are rounded at a time
}
TEST(Gemm16, Epilogues) {
  for (const Activation& act : all_activations()) check({3, 20, 37, false, true, act});
}

// With one row, two of k and sixteen of n: sum = fma(x[0], w[0], fma(x[1], w[1], bias)).
std::vector<float> sum_of_two(const KernelTable& table, const float (&x)[2], const std::vector<float>& w,
                              const std::vector<float>& bias, Precision precision = Precision::kBfloat16) {
  const auto packed = pack_gemm16(2, kLanes, w.data(), true, bias.data(), precision);
  return multiply(table, *packed, {x[0], x[1]}, {}, {.m = 1, .k = 2, .n = kLanes, .precision = precision});
}

TEST(Gemm16, TheSecondOfAPairIsAddedFirst) {
  // 2^24 + 1 + 1 is 2^24 if the ones are added one after the other, and 2^24 + 2 if they are added first.
  const std::vector<float> w = {1, 0x1p24f};
  std::vector<float> all;
  for (int i = 0; i < kLanes; ++i) all.insert(all.end(), w.begin(), w.end());
  for (const KernelTable* table : available_tables()) {
    EXPECT_EQ(sum_of_two(*table, {1, 1}, all, std::vector<float>(kLanes, 1))[0], 0x1p24f) << table->name;
    EXPECT_EQ(sum_of_two(*table, {0x1p24f, 0x1p-24f}, all, std::vector<float>(kLanes, 1))[0], 0x1p24f + 2) << table->name;
  }
}

TEST(Gemm16, AmxAddsToTheSumWhatFirstsAndSecondsSumTo) {
  // 1 is lost beside 2^24, unless -2^24 is there already.
  std::vector<float> w;
  for (int i = 0; i < kLanes; ++i) w.insert(w.end(), {1, 0x1p24f});
  const std::vector<float> bias(kLanes, -0x1p24f);
  for (const KernelTable* table : available_tables()) {
    EXPECT_EQ(sum_of_two(*table, {1, 1}, w, bias, Precision::kBfloat16)[0], 1) << table->name;
    EXPECT_EQ(sum_of_two(*table, {1, 1}, w, bias, Precision::kBfloat16Amx)[0], 0) << table->name;
  }
}

TEST(Gemm16, DenormalsAreZeros) {
  const auto sum = [](const KernelTable& table, float x, float w, float bias) {
    std::vector<float> all(2 * kLanes, 0);
    all[0] = w;
    return sum_of_two(table, {x, 0}, all, std::vector<float>(kLanes, bias))[0];
  };
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    EXPECT_EQ(sum(*table, 0x1p-127f, 0x1p100f, 0), 0);           // an operand
    EXPECT_EQ(sum(*table, 0x1p100f, 0x1p-127f, 0), 0);           // a weight
    EXPECT_EQ(sum(*table, 0x1p-63f, 0x1p-64f, 0), 0);            // a product
    EXPECT_EQ(sum(*table, 1, 0, 0x1p-127f), 0);                  // what is added to
    EXPECT_EQ(sum(*table, -0x1p-63f, 0x1p-64f, 0x1p-126f), 0);   // a sum
    EXPECT_EQ(sum(*table, 0x1p-63f, 0x1p-63f, 0), 0x1p-126f);
    // Between the least normal number and the next smaller one of as many bits: denormal before it was rounded.
    EXPECT_EQ(sum(*table, -0x1p-75f, 0x1p-75f, 0x1p-126f), 0);
    EXPECT_EQ(sum(*table, -0x1p-76f, 0x1p-76f, 0x1p-126f), 0x1p-126f);
  }
}

TEST(Gemm16, TheSmallestNumbersHaveTheSameBits) {
  std::mt19937 generator(1);
  const auto small = [&](int least, int most, int bits) {
    const int exponent = least + static_cast<int>(generator() % static_cast<unsigned>(most - least));
    const float fraction = 1 + std::ldexp(static_cast<float>(generator() % (1u << bits)), -bits);
    return std::ldexp(generator() % 2 == 0 ? fraction : -fraction, exponent);
  };
  int zeros = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> w(2 * kLanes), bias(kLanes);
    for (float& each : w) each = small(-80, -60, generator() % 2 == 0 ? 0 : 7);
    for (float& each : bias) each = small(-127, -123, generator() % 2 == 0 ? 1 : 23);
    const float x[2] = {small(-70, -62, 7), small(-70, -62, 0)};
    for (Precision precision : {Precision::kBfloat16, Precision::kBfloat16Amx}) {
      const std::vector<float> expected = sum_of_two(scalar(), x, w, bias, precision);
      zeros += static_cast<int>(std::count(expected.begin(), expected.end(), 0.0f));
      for (const KernelTable* table : available_tables()) {
        ASSERT_TRUE(same_bits(expected, sum_of_two(*table, x, w, bias, precision))) << table->name << ", round " << round;
      }
    }
  }
  EXPECT_GT(zeros, 1000);
}

}  // namespace
}  // namespace rskip::test
