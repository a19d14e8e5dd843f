#include <bit>
#include <cmath>
#include <thread>

#include "kernel_tester.h"
#include "kernels/matrix/pack.h"

namespace rskip::test {
namespace {

struct GemmCase {
  int m, k, n;
  bool trans_b = false, residual = false, bias = true;
  Activation act = {};
  enum class Weights { kFloats, kBfloat16, kBytes } weights = Weights::kFloats;  // the shortest form that holds them
  float magnitude = 1;  // of every third number of a
};
using Weights = GemmCase::Weights;

void check(const GemmCase& c) {
  SCOPED_TRACE(std::to_string(c.m) + "x" + std::to_string(c.k) + "x" + std::to_string(c.n));
  std::vector<float> a = random_floats(static_cast<size_t>(c.m) * c.k, 1);
  for (size_t i = 0; i < a.size(); i += 3) a[i] *= c.magnitude;
  std::vector<float> b = random_floats(static_cast<size_t>(c.k) * c.n, 2);
  for (int i = 0; i < c.k * c.n; ++i) {
    const int row = c.trans_b ? i % c.k : i / c.n;
    float& x = b[i];
    if (c.weights == Weights::kBfloat16) x = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffff0000u);
    if (c.weights == Weights::kBytes) x = std::ldexp(std::nearbyint(127 * x) + 0.0f, row % 31 - 20);
  }
  const std::vector<float> bias = random_floats(c.n, 3);
  const std::vector<float> residual = random_floats(static_cast<size_t>(c.m) * c.n, 4);
  const float* const shift = c.bias ? bias.data() : nullptr;
  const auto packed = pack_gemm(c.k, c.n, b.data(), c.trans_b, shift, c.m == 1);
  const Weights form = c.m == 1 ? c.weights : Weights::kFloats;
  EXPECT_EQ(packed->halves.size() > 0, form == Weights::kBfloat16);
  EXPECT_EQ(packed->words.size() > 0, form == Weights::kBytes);
  const size_t column = form == Weights::kBytes ? (c.k + 3) / 4 * 4 : c.k * (form == Weights::kBfloat16 ? 2 : 4);
  EXPECT_EQ(gemm_packed_bytes(*packed), packed->blocks() * kLanes * (column + 4) + 4 * packed->scales.size());
  const auto run = [&](const KernelTable& table, int parts, const PackedGemm* packed) {
    Guarded x(a.size()), y(residual.size(), -7);
    std::copy(a.begin(), a.end(), x.data());
    if (c.residual) std::copy(residual.begin(), residual.end(), y.data());
    Guarded scratch(gemm_scratch_bytes(*packed) / sizeof(float));
    GemmArgs args{packed, x.data(), y.data(), c.residual ? y.data() : nullptr, c.m, c.act, scratch.data()};
    for (int part = 0; part < parts; ++part) table.gemm(args, part, parts);
    return std::vector<float>(y.data(), y.data() + y.size());
  };
  const std::vector<float> expected = run(scalar(), 1, packed.get());
  const auto as_floats = pack_gemm(c.k, c.n, b.data(), c.trans_b, shift);
  EXPECT_TRUE(same_bits(expected, run(scalar(), 1, as_floats.get())));
  for (int i = 0; i < c.m; ++i) {
    for (int j = 0; j < c.n; ++j) {
      double sum = c.bias ? bias[j] : 0;
      double magnitude = std::abs(sum);
      for (int k = 0; k < c.k; ++k) {
        const double product = static_cast<double>(a[i * c.k + k]) * b[c.trans_b ? j * c.k + k : k * c.n + j];
        sum += product;
        magnitude += std::abs(product);
      }
      if (c.residual) sum += residual[i * c.n + j];
      ASSERT_NEAR(expected[i * c.n + j], oracle_activation(sum, c.act), sum_tolerance(c.k + 4, magnitude + 1));
    }
  }
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    for (int parts : {1, 2, 3, 5})
      EXPECT_TRUE(same_bits(expected, run(*table, parts, packed.get()))) << parts << " parts";
  }
}

TEST(Gemm, Vectors) {
  for (int n : {1, 2, 10, 16, 17, 64, 100, 129, 150, 300}) check({1, 33, n});
  check({1, 64, 16, true, false, true, {ActivationKind::kRelu, 0, 0}});
  check({1, 16, 1, true, false, true, {ActivationKind::kSigmoid, 0, 0}});
  check({1, 1, 1});
}
TEST(Gemm, VectorsByWeightsThatBfloat16Holds) {
  for (int n : {1, 10, 16, 17, 64, 100, 129, 300}) {
    check({1, 33, n, n % 2 == 0, false, true, {}, Weights::kBfloat16});
  }
  check({1, 64, 40, true, true, false, {ActivationKind::kSilu, 0, 0}, Weights::kBfloat16});
  check({2, 33, 20, false, false, true, {}, Weights::kBfloat16});
}
TEST(Gemm, VectorsByWeightsThatBytesHold) {
  for (int n : {1, 10, 16, 17, 64, 100, 129, 300}) check({1, 33, n, n % 2 == 0, false, true, {}, Weights::kBytes});
  for (int k : {1, 2, 3, 4, 5, 63, 1280}) check({1, k, 70, true, true, false, {}, Weights::kBytes});
  check({2, 33, 20, false, false, true, {}, Weights::kBytes});
}
// Times the scales of the weights these are denormal.
TEST(Gemm, VectorsOfVerySmallNumbersByWeightsThatBytesHold) {
  for (float magnitude : {1e-30f, 1e-36f, 1e-40f}) {
    for (int k : {3, 70}) check({1, k, 40, false, false, false, {}, Weights::kBytes, magnitude});
  }
}
TEST(Gemm, OtherWeightsAreNotHeldByBytes) {
  const auto packed = [](std::vector<float> b) {
    return pack_gemm(1, static_cast<int>(b.size()), b.data(), false, nullptr, true);
  };
  EXPECT_EQ(packed({127, -127, 0, 1})->words.size(), size_t{kLanes});
  EXPECT_EQ(packed({0, 0})->scales.data()[0], std::exp2(-24.0f));
  EXPECT_EQ(packed({0.375f, -0.125f})->scales.data()[0], std::exp2(-32.0f));
  const std::vector<std::vector<float>> others = {{127.5f, 1}, {128, 1}, {1, -0.0f}, {1e-44f, 0}, {INFINITY, 1}, {NAN, 1}};
  for (const std::vector<float>& b : others) {
    EXPECT_EQ(packed(b)->words.size(), 0u);
  }
}
TEST(Gemm, Matrices) {
  for (int m = 2; m <= 14; ++m) check({m, 19, 45, m % 2 == 0});
  check({5, 24, 33, false, true, false});
  check({7, 3, 16, true, true, true, {ActivationKind::kSilu, 0, 0}});
  // Several tiles of rows and of columns, the last of them narrow.
  for (int n : {64, 80, 150}) check({13, 70, n, false, true, true, {ActivationKind::kGelu, 0, 0}});
}
TEST(Gemm, LongSums) {
  for (int k : {4096, 4097, 9000}) {
    for (Weights form : {Weights::kFloats, Weights::kBfloat16, Weights::kBytes}) {
      check({1, k, 37, k % 2 == 0, true, true, {ActivationKind::kRelu, 0, 0}, form});
    }
    check({3, k, 21, true, false, false});
  }
}
// Equal summands are rounded in the same direction for a long time.
TEST(Gemm, LongSumsAreMadeOfChains) {
  constexpr int k = 1 << 15;
  const std::vector<float> a(k, 1), b(k, 0.1f);
  const auto packed = pack_gemm(k, 1, b.data(), false, nullptr, true);
  float chain = 0, y = 0;
  for (float x : b) chain += x;
  const double exact = k * static_cast<double>(0.1f);
  for (const KernelTable* table : available_tables()) {
    table->gemm({packed.get(), a.data(), &y, nullptr, 1, {}}, 0, 1);
    EXPECT_LT(std::abs(y - exact), std::abs(chain - exact) / 6) << table->name;
  }
}
TEST(Gemm, Epilogues) {
  for (const Activation& act : all_activations()) {
    check({1, 20, 37, false, true, true, act});
    check({3, 20, 37, false, false, true, act});
  }
}

// Weights share slabs of memory: each has its bytes to itself, and keeps them when others are freed, from whichever thread.
TEST(Weights, KeepTheirBytes) {
  const auto work = [](uint8_t first) {
    std::vector<Aligned<uint8_t>> kept;
    for (int round = 0; round < 60; ++round) {
      // Among others more than a whole slab, and sizes that end within a cache line.
      const size_t size = round % 29 == 7 ? (size_t{17} << 20) + 1 : size_t{1} << (round % 23);
      Aligned<uint8_t> bytes(size - (round % 3 == 0 ? size / 3 : 0));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 64, 0u);
      std::memset(bytes.data(), first + round, bytes.size());
      if (round % 2 == 0) kept.push_back(bytes);
    }
    for (size_t i = 0; i < kept.size(); ++i) {
      const uint8_t* data = kept[i].data();
      const auto count = std::count(data, data + kept[i].size(), static_cast<uint8_t>(first + 2 * i));
      EXPECT_EQ(static_cast<size_t>(count), kept[i].size()) << i;
    }
  };
  std::thread other(work, 100);
  work(0);
  other.join();
}

}  // namespace
}  // namespace rskip::test
