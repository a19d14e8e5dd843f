// The project's own functions, scalar entry points and vector lanes.
#include "kernel_tester.h"
#include "kernels/scalar_math.h"

namespace rskip::test {
namespace {

// All magnitudes, both signs, and the values where formulas change.
std::vector<float> sweep() {
  std::vector<float> xs;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += 40009) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    xs.push_back(x);
    xs.push_back(-x);
  }
  const std::vector<float> fine = random_floats(20000, 9, -110, 110);
  xs.insert(xs.end(), fine.begin(), fine.end());
  for (float x : {0.625f, 88.72f, 88.73f, -87.34f, -103.9f, -104.1f, 1.0f, 0.70710678f}) xs.push_back(x);
  return xs;
}

template <class F, class G>
void expect_close(F function, G truth, double ulps) {
  double worst = 0;
  float worst_x = 0;
  for (float x : sweep()) {
    const double expected = truth(static_cast<double>(x));
    const float got = function(x);
    if (std::isnan(expected) || std::abs(expected) > std::numeric_limits<float>::max()) {
      const float rounded = static_cast<float>(expected);
      ASSERT_TRUE(std::isnan(expected) ? std::isnan(got) : got == rounded) << x << " gave " << got;
      continue;
    }
    // Near zero the unit is that of subnormal numbers, times x where x is a factor (silu).
    const double unit = std::max(std::abs(expected) * 2 * kUnitRoundoff, 0x1p-149 * std::max(1.0f, std::abs(x)));
    const double error = std::abs(got - expected) / unit;
    if (error > worst) worst = error, worst_x = x;
  }
  EXPECT_LE(worst, ulps) << "at " << worst_x;
}

float scalar_exp(float x) { return scalar_activation(x, {ActivationKind::kExp, 0, 0}); }
float scalar_log(float x) { return scalar_activation(x, {ActivationKind::kLog, 0, 0}); }

TEST(ScalarMath, Exp) {
  expect_close(scalar_exp, [](double x) { return std::exp(x); }, 1.5);
  EXPECT_EQ(scalar_exp(0), 1.0f);
  EXPECT_EQ(scalar_exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(scalar_exp(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(scalar_exp(std::numeric_limits<float>::quiet_NaN())));
}
TEST(ScalarMath, Log) {
  expect_close(scalar_log, [](double x) { return std::log(x); }, 1.5);
  EXPECT_EQ(scalar_log(1), 0.0f);
  EXPECT_EQ(scalar_log(0), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(scalar_log(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(scalar_log(-1)));
}
TEST(ScalarMath, Activations) {
  const auto with = [](const Activation& act, double ulps) {
    SCOPED_TRACE(static_cast<int>(act.kind));
    expect_close([&](float x) { return scalar_activation(x, act); },
                 [&](double x) { return oracle_activation(x, act); }, ulps);
  };
  with({ActivationKind::kSigmoid, 0, 0}, 3);
  with({ActivationKind::kTanh, 0, 0}, 2);
  with({ActivationKind::kSilu, 0, 0}, 4);
  with({ActivationKind::kRelu, 0, 0}, 0);
  with({ActivationKind::kLeakyRelu, 0.5f, 0}, 0.5);
  with({ActivationKind::kClip, -1, 2}, 0);
  with({ActivationKind::kSoftplus, 0, 0}, 4);
  for (const Activation& act : all_functions()) {
    switch (act.kind) {
      // 1 + erf(x) cancels where x is negative: the error is small beside x, not beside the result.
      case ActivationKind::kGelu: break;
      // An error of the exponent is as many times larger in the result as the exponent is long.
      case ActivationKind::kGeluTanh: with(act, 200); break;
      case ActivationKind::kAbs:
      case ActivationKind::kSign:
      case ActivationKind::kFloor:
      case ActivationKind::kCeil:
      case ActivationKind::kRound: with(act, 0); break;
      case ActivationKind::kSqrt:
      case ActivationKind::kReciprocal: with(act, 0.5); break;
      case ActivationKind::kExp:
      case ActivationKind::kLog: with(act, 1.5); break;
      default: with(act, 4);
    }
  }
}
TEST(ScalarMath, GeluIsWithinAnUlpOfItsInput) {
  const Activation gelu{ActivationKind::kGelu, 0, 0};
  for (float x : sweep()) {
    const double unit = std::max<double>(std::abs(x) * 2 * kUnitRoundoff, 0x1p-149);
    EXPECT_NEAR(scalar_activation(x, gelu), oracle_activation(x, gelu), unit) << x;
  }
}
TEST(ScalarMath, NanPropagates) {
  std::vector<Activation> acts = all_activations();
  acts.insert(acts.end(), all_functions().begin(), all_functions().end());
  for (const Activation& act : acts) {
    EXPECT_TRUE(std::isnan(scalar_activation(std::numeric_limits<float>::quiet_NaN(), act)))
        << static_cast<int>(act.kind);
  }
}

TEST(VectorMath, LanesHaveTheScalarBits) {
  std::vector<float> xs = sweep();
  for (float special : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                        -std::numeric_limits<float>::infinity(), 0.0f, -0.0f}) {
    xs.push_back(special);
  }
  std::vector<Activation> acts = all_activations();
  acts.insert(acts.end(), all_functions().begin(), all_functions().end());
  for (const Activation& act : acts) {
    std::vector<float> expected;
    for (float x : xs) expected.push_back(scalar_activation(x, act));
    for (const KernelTable* table : available_tables()) {
      std::vector<float> y(xs.size());
      table->unary_span(xs.data(), y.data(), xs.size(), act);
      EXPECT_TRUE(same_bits(expected, y)) << table->name << ", activation " << static_cast<int>(act.kind);
    }
  }
}

}  // namespace
}  // namespace rskip::test
