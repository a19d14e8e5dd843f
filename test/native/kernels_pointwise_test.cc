// Elementwise kernels and layouts, over odd shapes, in place, with halos.
#include <bit>

#include "kernel_tester.h"

namespace rskip::test {
namespace {

const BinaryKind kBinaryKinds[] = {BinaryKind::kAdd, BinaryKind::kSub, BinaryKind::kMul,
                                   BinaryKind::kDiv, BinaryKind::kMin, BinaryKind::kMax};

float oracle_binary(BinaryKind kind, float a, float b) {
  switch (kind) {
    case BinaryKind::kAdd:
      return a + b;
    case BinaryKind::kSub:
      return a - b;
    case BinaryKind::kMul:
      return a * b;
    case BinaryKind::kDiv:
      return a / b;
    case BinaryKind::kMin:
      return std::isnan(a) || std::isnan(b) ? a + b : std::min(a, b);
    case BinaryKind::kMax:
      return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b);
    default:
      return 0;
  }
}

struct Size {
  int channels, height, width;
  size_t elements() const { return static_cast<size_t>(channels) * height * width; }
  int plane() const { return height * width; }
};
const Size kSizes[] = {{1, 1, 1}, {16, 3, 5}, {24, 4, 7}, {40, 1, 9}};

// Runs `kernel(table, x, y, parts)` on every instruction set, out of place and in place, whole and in parts.
template <class Kernel, class Oracle>
void check_map(const Size& size, Kernel kernel, Oracle oracle, double ulps) {
  SCOPED_TRACE("channels " + std::to_string(size.channels) + ", width " + std::to_string(size.width));
  const std::vector<float> values = random_floats(size.elements(), 5, -3, 3);
  std::vector<float> expected;
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    for (int parts : {1, 2, 5}) {
      for (bool in_place : {false, true}) {
        Map x(size.channels, size.height, size.width, {1, 1, 1, 1});
        Map y(size.channels, size.height, size.width, {0, 2, 1, 0});
        x.fill(values);
        const Map& out = in_place ? x : y;
        for (int part = 0; part < parts; ++part) kernel(*table, x.view(), out.view(), part, parts);
        out.expect_clean();
        if (expected.empty()) {
          expected = out.planar();
          for (size_t i = 0; i < expected.size(); ++i) {
            const double truth = oracle(static_cast<int>(i / size.plane()), i, values[i]);
            ASSERT_NEAR(expected[i], truth, ulp_tolerance(ulps, truth) + 1e-7 * (ulps > 0)) << "at " << i;
          }
        }
        EXPECT_TRUE(same_bits(expected, out.planar())) << parts << " parts, in place " << in_place;
      }
    }
  }
}

TEST(Pointwise, Unary) {
  for (const Size& size : kSizes) {
    for (const Activation& act : all_activations()) {
      check_map(
          size,
          [&](const KernelTable& t, const BlockedView& x, const BlockedView& y, int part, int parts) {
            t.unary_blocked(x, y, act, part, parts);
          },
          [&](int, size_t, float x) { return oracle_activation(x, act); }, 4);
    }
  }
}
TEST(Pointwise, Affine) {
  Guarded scale(48), shift(48);
  std::copy_n(random_floats(48, 6).begin(), 48, scale.data());
  std::copy_n(random_floats(48, 7).begin(), 48, shift.data());
  for (const Size& size : kSizes) {
    for (const Activation& act : all_activations()) {
      check_map(
          size,
          [&](const KernelTable& t, const BlockedView& x, const BlockedView& y, int part, int parts) {
            t.affine_blocked(x, scale.data(), shift.data(), y, act, part, parts);
          },
          [&](int c, size_t, float x) {
            return oracle_activation(static_cast<double>(x) * scale.data()[c] + shift.data()[c], act);
          },
          4);
    }
  }
}
TEST(Pointwise, BinaryMaps) {
  for (const Size& size : kSizes) {
    const std::vector<float> other = random_floats(size.elements(), 8, 0.5f, 2);
    for (BinaryKind kind : kBinaryKinds) {
      Map b(size.channels, size.height, size.width, {1, 0, 0, 1});
      b.fill(other);
      const auto run = [&](const KernelTable& t, const BlockedView& x, const BlockedView& y, int part, int parts) {
        t.binary_blocked(kind, x, b.view(), y, {}, part, parts);
      };
      check_map(size, run, [&](int, size_t i, float x) { return oracle_binary(kind, x, other[i]); }, 0);
    }
  }
}
TEST(Pointwise, BinaryChannels) {
  Guarded v(48);
  std::copy_n(random_floats(48, 9, 0.5f, 2).begin(), 48, v.data());
  for (const Size& size : kSizes) {
    for (BinaryKind kind : kBinaryKinds) {
      for (bool reversed : {false, true}) {
        const auto run = [&](const KernelTable& t, const BlockedView& x, const BlockedView& y, int part, int parts) {
          t.binary_channel(kind, x, v.data(), reversed, y, {ActivationKind::kRelu, 0, 0}, part, parts);
        };
        const auto oracle = [&](int c, size_t, float x) {
          const float r = reversed ? oracle_binary(kind, v.data()[c], x) : oracle_binary(kind, x, v.data()[c]);
          return r < 0 ? 0 : r;
        };
        check_map(size, run, oracle, 0);
      }
    }
  }
}

TEST(Pointwise, Spans) {
  for (size_t n : {size_t{0}, size_t{1}, size_t{15}, size_t{16}, size_t{37}, size_t{64}}) {
    SCOPED_TRACE(n);
    const std::vector<float> a = random_floats(n, 1), b = random_floats(n, 2, 0.5f, 2);
    for (const KernelTable* table : available_tables()) {
      SCOPED_TRACE(table->name);
      for (BinaryKind kind : kBinaryKinds) {
        Guarded x(n), other(n), y(n);
        std::copy_n(a.begin(), n, x.data());
        std::copy_n(b.begin(), n, other.data());
        table->binary_span(kind, x.data(), 1, other.data(), 1, y.data(), n, {});
        table->binary_span(kind, x.data(), 1, other.data(), 1, x.data(), n, {});
        for (size_t i = 0; i < n; ++i) {
          EXPECT_EQ(y.data()[i], oracle_binary(kind, a[i], b[i]));
          EXPECT_EQ(x.data()[i], y.data()[i]);
        }
        // One float for all, on either side.
        Guarded one(1, 0.75f);
        table->binary_span(kind, other.data(), 1, one.data(), 0, y.data(), n, {});
        for (size_t i = 0; i < n; ++i) EXPECT_EQ(y.data()[i], oracle_binary(kind, b[i], 0.75f));
        table->binary_span(kind, one.data(), 0, other.data(), 1, y.data(), n, {});
        for (size_t i = 0; i < n; ++i) EXPECT_EQ(y.data()[i], oracle_binary(kind, 0.75f, b[i]));
      }
      Guarded x(n);
      std::copy_n(a.begin(), n, x.data());
      table->unary_span(x.data(), x.data(), n, {ActivationKind::kLeakyRelu, 0.5f, 0});
      for (size_t i = 0; i < n; ++i) EXPECT_EQ(x.data()[i], a[i] < 0 ? 0.5f * a[i] : a[i]);
    }
  }
}

TEST(Pointwise, AffineSpans) {
  for (const size_t n : {size_t{1}, size_t{15}, size_t{16}, size_t{50}}) {
    const std::vector<float> x = random_floats(n, 1, -3, 3), a = random_floats(n, 2), b = random_floats(n, 3);
    for (const int step : {0, 1}) {
      std::vector<float> expected;
      for (const KernelTable* table : available_tables()) {
        SCOPED_TRACE(table->name);
        const size_t count = step == 0 ? 1 : n;
        Guarded from(n), scale(count), shift(count);
        std::copy_n(x.begin(), n, from.data());
        std::copy_n(a.begin(), count, scale.data());
        std::copy_n(b.begin(), count, shift.data());
        table->affine_span(from.data(), scale.data(), shift.data(), step, from.data(), n, {ActivationKind::kLeakyRelu, 0.2f, 0});
        const std::vector<float> y(from.data(), from.data() + n);
        for (size_t i = 0; i < n; ++i) {
          const size_t at = step == 0 ? 0 : i;
          const double sum = static_cast<double>(x[i]) * a[at] + b[at];
          ASSERT_NEAR(y[i], sum < 0 ? 0.2 * sum : sum, ulp_tolerance(2, std::abs(sum)) + 1e-7 * std::abs(b[at]));
        }
        if (expected.empty()) expected = y;
        EXPECT_TRUE(same_bits(expected, y));
      }
    }
  }
}

TEST(Pointwise, NansGetOneBitPattern) {
  for (const KernelTable* table : available_tables()) {
    Guarded x(50, 1.5f);
    for (size_t i : {size_t{0}, size_t{48}}) x.data()[i] = std::bit_cast<float>(0xffc00001u);
    x.data()[49] = -std::numeric_limits<float>::infinity();
    table->unify_nans(x.data(), x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const uint32_t expected = i == 0 || i == 48 ? 0x7fc00000u : i == 49 ? 0xff800000u : std::bit_cast<uint32_t>(1.5f);
      ASSERT_EQ(std::bit_cast<uint32_t>(x.data()[i]), expected) << table->name << ", " << i;
    }
  }
}

TEST(Pointwise, SpecialValues) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> a = {inf, -inf, nan, 0, -0.0f, 1e-44f, 1, -1, 3e38f, inf, nan, 0};
  const std::vector<float> b = {inf, inf, 1, 0, 0, 0.5f, nan, inf, 3e38f, 0, nan, -1};
  for (BinaryKind kind : kBinaryKinds) {
    for (const Activation& act : all_activations()) {
      std::vector<float> expected(a.size());
      scalar().binary_span(kind, a.data(), 1, b.data(), 1, expected.data(), a.size(), act);
      for (size_t i = 0; i < a.size(); ++i) {
        EXPECT_EQ(std::isnan(expected[i]), std::isnan(oracle_activation(oracle_binary(kind, a[i], b[i]), act)));
      }
      for (const KernelTable* table : available_tables()) {
        std::vector<float> y(a.size());
        table->binary_span(kind, a.data(), 1, b.data(), 1, y.data(), a.size(), act);
        EXPECT_TRUE(same_bits(expected, y)) << table->name;
      }
    }
  }
}

TEST(Layout, PlanarToBlockedAndBack) {
  for (const Size& size : {Size{1, 1, 1}, Size{3, 5, 7}, Size{16, 17, 16}, Size{40, 4, 33}, Size{64, 2, 18}}) {
    SCOPED_TRACE(size.channels);
    const std::vector<float> values = random_floats(size.elements(), 3);
    for (const KernelTable* table : available_tables()) {
      SCOPED_TRACE(table->name);
      for (int parts : {1, 3}) {
        // Dense on the way in, with a halo around every plane on the way out.
        Guarded dense(size.elements());
        std::copy(values.begin(), values.end(), dense.data());
        const PlanarView from{dense.data(), size.channels, size.height, size.width, size.width, size.plane()};
        Map map(size.channels, size.height, size.width, {1, 1, 1, 1});
        for (int part = 0; part < parts; ++part) table->planar_to_blocked(from, map.view(), part, parts);
        map.expect_clean();
        EXPECT_EQ(map.planar(), values);

        const ptrdiff_t row = size.width + 2, plane = row * (size.height + 1);
        Guarded padded(plane * size.channels, -5);
        const PlanarView to{padded.data() + 1, size.channels, size.height, size.width, row, plane};
        for (int part = 0; part < parts; ++part) table->blocked_to_planar(map.view(), to, part, parts);
        for (size_t i = 0; i < padded.size(); ++i) {
          const int h = static_cast<int>(i % plane / row), w = static_cast<int>(i % row) - 1;
          const bool inside = h < size.height && w >= 0 && w < size.width;
          const size_t at = i / plane * size.plane() + h * size.width + w;
          ASSERT_EQ(padded.data()[i], inside ? values[at] : -5);
        }
      }
    }
  }
}

}  // namespace
}  // namespace rskip::test
