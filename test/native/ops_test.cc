#include <algorithm>
#include <bit>

#include "ops_tester.h"

namespace rskip::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr DType kFloat = DType::kFloat32;
const std::vector<DType> kAllTypes{DType::kFloat32, DType::kUint8, DType::kInt32, DType::kInt64, DType::kBool};

Ints tail(const Ints& list, size_t first) { return Ints(list.begin() + static_cast<ptrdiff_t>(first), list.end()); }

Ints joined(Ints head, const Ints& rest) {
  head.insert(head.end(), rest.begin(), rest.end());
  return head;
}

// Position in x of a tap, along every spatial axis; false if it lies in the padding.
bool tap_position(const ops::Window& win, const Ints& out, const Ints& tap, const Ints& inner, Ints& position) {
  position.clear();
  bool inside = true;
  for (size_t i = 0; i < tap.size(); ++i) {
    position.push_back(out[i] * win.strides[i] + tap[i] * win.dilations[i] - win.pads[i]);
    inside = inside && position[i] >= 0 && position[i] < inner[i];
  }
  return inside;
}

struct ConvCase {
  Ints x, w, y;
  ops::Window win;
  int64_t group = 1;
};

const ConvCase kConvCases[] = {
    {{1, 3, 5, 7}, {4, 3, 3, 3}, {1, 4, 5, 7}, {{}, {1, 1}, {1, 1, 1, 1}, {1, 1}}},
    {{2, 6, 9, 8}, {4, 3, 3, 2}, {2, 4, 4, 3}, {{}, {2, 3}, {1, 0, 0, 1}, {1, 1}}, 2},
    {{1, 5, 9, 9}, {5, 1, 3, 3}, {1, 5, 9, 9}, {{}, {1, 1}, {2, 2, 2, 2}, {2, 2}}, 5},
    {{1, 2, 3, 200}, {3, 2, 2, 5}, {1, 3, 2, 196}, {{}, {1, 1}, {0, 0, 0, 0}, {1, 1}}},
    {{1, 3, 10}, {2, 3, 4}, {1, 2, 4}, {{}, {2}, {1, 0}, {1}}},
    {{1, 2, 4, 5, 6}, {3, 2, 2, 3, 2}, {1, 3, 5, 5, 3}, {{}, {1, 1, 2}, {1, 1, 0, 1, 1, 0}, {1, 1, 1}}},
    {{1, 2, 2, 2}, {1, 2, 1, 1}, {1, 1, 6, 6}, {{}, {1, 1}, {2, 2, 2, 2}, {1, 1}}},
    {{0, 2, 3, 3}, {1, 2, 1, 1}, {0, 1, 3, 3}, {{}, {1, 1}, {0, 0, 0, 0}, {1, 1}}},
};

double conv_truth(const ConvCase& c, const OpTensor& x, const OpTensor& w, const Ints& index) {
  const int64_t per_group = c.w[0] / c.group, first = index[1] / per_group * c.w[1];
  double sum = 0;
  Ints position;
  for (const Ints& tap : indices(tail(c.w, 2))) {
    if (!tap_position(c.win, tail(index, 2), tap, tail(c.x, 2), position)) continue;
    for (int64_t k = 0; k < c.w[1]; ++k) {
      sum += x.at(joined({index[0], first + k}, position)) * w.at(joined({index[1], k}, tap));
    }
  }
  return sum;
}

TEST(OpsConv, AnyRankGroupAndPadding) {
  for (const ConvCase& c : kConvCases) {
    const OpTensor x = OpTensor::random(kFloat, c.x, 1), w = OpTensor::random(kFloat, c.w, 2);
    const OpTensor bias = OpTensor::random(kFloat, {c.w[0]}, 3), residual = OpTensor::random(kFloat, c.y, 4);
    const OpTensor y(kFloat, c.y);
    ops::conv(x.view(), w.view(), kAbsent, kAbsent, c.win, c.group, kNoActivation, y.view());
    expect_tensor(y, [&](const Ints& i) { return conv_truth(c, x, w, i); });
    ops::conv(x.view(), w.view(), bias.view(), residual.view(), c.win, c.group, {ActivationKind::kRelu}, y.view());
    const auto truth = [&](const Ints& i) {
      return std::max(0.0, conv_truth(c, x, w, i) + bias.at({i[1]}) + residual.at(i));
    };
    expect_tensor(y, truth);
    // In place: the residual's memory takes the result.
    const OpTensor stream = OpTensor::random(kFloat, c.y, 4);
    ops::conv(x.view(), w.view(), bias.view(), stream.view(), c.win, c.group, {ActivationKind::kRelu}, stream.view());
    expect_tensor(stream, truth);
  }
}

TEST(OpsGemm, BothLayouts) {
  for (const auto& [m, k, n] : {std::tuple{1, 1, 1}, {3, 5, 7}, {2, 0, 3}, {5, 70, 131}, {0, 3, 2}}) {
    for (const bool trans_b : {false, true}) {
      const OpTensor a = OpTensor::random(kFloat, {m, k}, 1);
      const OpTensor b = OpTensor::random(kFloat, trans_b ? Ints{n, k} : Ints{k, n}, 2);
      const OpTensor c = OpTensor::random(kFloat, {n}, 3), residual = OpTensor::random(kFloat, {m, n}, 4);
      const OpTensor y(kFloat, {m, n});
      const int64_t depth = k;
      const auto product = [&](const Ints& i) {
        double sum = 0;
        for (int64_t p = 0; p < depth; ++p) sum += a.at({i[0], p}) * b.at(trans_b ? Ints{i[1], p} : Ints{p, i[1]});
        return sum;
      };
      ops::gemm(a.view(), b.view(), kAbsent, kAbsent, trans_b, kNoActivation, y.view());
      expect_tensor(y, product);
      ops::gemm(a.view(), b.view(), c.view(), residual.view(), trans_b, {ActivationKind::kLeakyRelu, 0.25f}, y.view());
      expect_tensor(y, [&](const Ints& i) {
        const double sum = product(i) + c.at({i[1]}) + residual.at(i);
        return sum < 0 ? sum / 4 : sum;
      });
    }
  }
}

TEST(OpsMatmul, BroadcastsLeadingAxes) {
  struct Case {
    Ints a, b, y;
  };
  for (const Case& c : {Case{{3, 4}, {4, 5}, {3, 5}},
                        {{2, 1, 3, 4}, {5, 4, 2}, {2, 5, 3, 2}},
                        {{2, 3, 4}, {4, 6}, {2, 3, 6}},
                        {{0, 3, 4}, {4, 6}, {0, 3, 6}}}) {
    const OpTensor a = OpTensor::random(kFloat, c.a, 1), b = OpTensor::random(kFloat, c.b, 2), y(kFloat, c.y);
    ops::matmul(a.view(), b.view(), y.view());
    const auto element = [](const OpTensor& t, const Ints& batch, int64_t row, int64_t column) {
      Ints index;
      const size_t own = t.shape().size() - 2;
      for (size_t i = 0; i < own; ++i) index.push_back(t.shape()[i] == 1 ? 0 : batch[batch.size() - own + i]);
      return t.at(joined(index, {row, column}));
    };
    expect_tensor(y, [&](const Ints& i) {
      const Ints batch(i.begin(), i.end() - 2);
      double sum = 0;
      for (int64_t k = 0; k < c.a.back(); ++k) {
        sum += element(a, batch, i[i.size() - 2], k) * element(b, batch, k, i.back());
      }
      return sum;
    });
  }
}

double binary_truth(BinaryKind kind, double a, double b) {
  switch (kind) {
    case BinaryKind::kAdd:
      return a + b;
    case BinaryKind::kSub:
      return a - b;
    case BinaryKind::kMul:
      return a * b;
    default:
      return a / b;
  }
}

struct Operands {
  Ints a, b, y;
};
const Operands kBroadcasts[] = {
    {{2, 3, 5}, {2, 3, 5}, {2, 3, 5}}, {{2, 3, 5}, {3, 1}, {2, 3, 5}}, {{}, {4, 3}, {4, 3}},
    {{4, 3}, {}, {4, 3}},              {{2, 1, 5}, {3, 1}, {2, 3, 5}}, {{}, {}, {}},
    {{3, 0}, {1}, {3, 0}},             {{1, 4, 1, 2}, {3, 1, 5, 1}, {3, 4, 5, 2}},
};

TEST(OpsBinary, BroadcastsEveryType) {
  for (const Operands& o : kBroadcasts) {
    for (const DType type : {DType::kFloat32, DType::kUint8, DType::kInt32, DType::kInt64}) {
      const OpTensor a = OpTensor::random(type, o.a, 1), b = OpTensor::random(type, o.b, 2), y(type, o.y);
      for (const BinaryKind kind : {BinaryKind::kAdd, BinaryKind::kSub, BinaryKind::kMul, BinaryKind::kDiv}) {
        ops::binary(kind, a.view(), b.view(), kNoActivation, y.view());
        expect_tensor(y, [&](const Ints& i) {
          const double p = a.broadcast(i), q = b.broadcast(i);
          if (type == kFloat) return binary_truth(kind, p, q);
          if (kind == BinaryKind::kDiv) return q == 0 ? 0.0 : std::trunc(p / q);
          const double exact = binary_truth(kind, p, q);
          return type == DType::kUint8 ? exact - 256 * std::floor(exact / 256) : exact;
        });
      }
    }
  }
}

TEST(OpsBinary, IntegersWrapAndNeverTrap) {
  const auto low = std::numeric_limits<int64_t>::min();
  OpTensor a(DType::kInt64, {3}), b = OpTensor::of(DType::kInt64, {3}, {-1, 0, -1}), y(DType::kInt64, {3});
  for (int64_t i = 0; i < 3; ++i) a.view().as<int64_t>()[i] = low;
  const auto run = [&](BinaryKind kind) {
    ops::binary(kind, a.view(), b.view(), kNoActivation, y.view());
    return std::vector<int64_t>(y.view().as<int64_t>(), y.view().as<int64_t>() + 3);
  };
  EXPECT_EQ(run(BinaryKind::kDiv), (std::vector<int64_t>{low, 0, low}));
  EXPECT_EQ(run(BinaryKind::kMul), (std::vector<int64_t>{low, 0, low}));
  EXPECT_EQ(run(BinaryKind::kAdd), (std::vector<int64_t>{-(low + 1), low, -(low + 1)}));
}

TEST(OpsCompare, EveryTypeAndNan) {
  using ops::CompareKind;
  const auto truth = [](CompareKind kind, double a, double b) {
    switch (kind) {
      case CompareKind::kGt:
        return a > b;
      case CompareKind::kGe:
        return a >= b;
      case CompareKind::kLt:
        return a < b;
      case CompareKind::kLe:
        return a <= b;
      default:
        return a == b;
    }
  };
  for (const DType type : kAllTypes) {
    for (const Operands& o : kBroadcasts) {
      OpTensor a = OpTensor::random(type, o.a, 1);
      const OpTensor b = OpTensor::random(type, o.b, 2), y(DType::kBool, o.y);
      if (type == kFloat && a.size() > 0) a.set(a.size() / 2, kNan);
      for (int k = 0; k < 5; ++k) {
        const auto kind = static_cast<CompareKind>(k);
        ops::compare(kind, a.view(), b.view(), y.view());
        expect_tensor(y, [&](const Ints& i) { return truth(kind, a.broadcast(i), b.broadcast(i)); });
      }
    }
  }
}

TEST(OpsLogical, Broadcasts) {
  for (const Operands& o : kBroadcasts) {
    const OpTensor a = OpTensor::random(DType::kBool, o.a, 1), b = OpTensor::random(DType::kBool, o.b, 2);
    const OpTensor y(DType::kBool, o.y), not_a(DType::kBool, o.a);
    ops::logical(ops::LogicalKind::kAnd, a.view(), b.view(), y.view());
    expect_tensor(y, [&](const Ints& i) { return a.broadcast(i) != 0 && b.broadcast(i) != 0; });
    ops::logical(ops::LogicalKind::kOr, a.view(), b.view(), y.view());
    expect_tensor(y, [&](const Ints& i) { return a.broadcast(i) != 0 || b.broadcast(i) != 0; });
    ops::logical(ops::LogicalKind::kNot, a.view(), kAbsent, not_a.view());
    expect_tensor(not_a, [&](const Ints& i) { return a.at(i) == 0; });
  }
}

TEST(OpsWhere, BroadcastsAllThree) {
  for (const DType type : kAllTypes) {
    const OpTensor condition = OpTensor::random(DType::kBool, {4, 1}, 1);
    const OpTensor a = OpTensor::random(type, {3}, 2), b = OpTensor::random(type, {2, 1, 3}, 3), y(type, {2, 4, 3});
    ops::where(condition.view(), a.view(), b.view(), y.view());
    expect_tensor(y, [&](const Ints& i) { return condition.broadcast(i) != 0 ? a.broadcast(i) : b.broadcast(i); });
  }
}

TEST(OpsCast, FloatsTruncateAndSaturate) {
  const std::vector<double> values{1.9, -1.9, 0.5, -0.5, 300, -7, kNan, kInfinity, -kInfinity, 3e9, -3e9, 1e30};
  const OpTensor x = OpTensor::of(kFloat, {12}, values);
  const auto cast_to = [&](DType type) {
    const OpTensor y(type, {12});
    ops::cast(x.view(), y.view());
    std::vector<double> result;
    for (int64_t i = 0; i < 12; ++i) result.push_back(y.get(i));
    return result;
  };
  const double high32 = 2147483647, low32 = -2147483648.0, high64 = 9223372036854775807.0, f3e9 = 3000000000.0;
  EXPECT_EQ(cast_to(DType::kUint8), (std::vector<double>{1, 0, 0, 0, 255, 0, 0, 255, 0, 255, 0, 255}));
  EXPECT_EQ(cast_to(DType::kInt32),
            (std::vector<double>{1, -1, 0, 0, 300, -7, 0, high32, low32, high32, low32, high32}));
  EXPECT_EQ(cast_to(DType::kInt64),
            (std::vector<double>{1, -1, 0, 0, 300, -7, 0, high64, -high64, f3e9, -f3e9, high64}));
  EXPECT_EQ(cast_to(DType::kBool), (std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
}

TEST(OpsCast, IntegersWrap) {
  const OpTensor x = OpTensor::of(DType::kInt64, {4}, {-1, 256, 4294967301.0, 0});
  const OpTensor bytes(DType::kUint8, {4}), words(DType::kInt32, {4}), flags(DType::kBool, {4}), floats(kFloat, {4});
  ops::cast(x.view(), bytes.view());
  expect_tensor(bytes, [](const Ints& i) { return std::vector<double>{255, 0, 5, 0}[static_cast<size_t>(i[0])]; });
  ops::cast(x.view(), words.view());
  expect_tensor(words, [](const Ints& i) { return std::vector<double>{-1, 256, 5, 0}[static_cast<size_t>(i[0])]; });
  ops::cast(x.view(), flags.view());
  expect_tensor(flags, [](const Ints& i) { return i[0] != 3; });
  ops::cast(x.view(), floats.view());
  expect_tensor(floats, [&](const Ints& i) { return x.at(i); });
}

// Just beyond the middle of two floats, where double precision would round to the middle first.
TEST(OpsCast, IntegersAreRoundedOnce) {
  const OpTensor x(DType::kInt64, {2}), y(kFloat, {2});
  const int64_t middle = (int64_t{1} << 60) + (int64_t{1} << 36);
  x.view().as<int64_t>()[0] = middle;
  x.view().as<int64_t>()[1] = middle + 1;
  ops::cast(x.view(), y.view());
  EXPECT_EQ(y.get(0), std::ldexp(1.0, 60));
  EXPECT_EQ(y.get(1), std::ldexp(1.0, 60) + std::ldexp(1.0, 37));
}

TEST(OpsUnary, Activations) {
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  const auto clamp = [](double v, double low, double high) {
    return std::isnan(v) ? v : std::fmin(std::fmax(v, low), high);
  };
  const std::vector<std::pair<Activation, std::function<double(double)>>> cases{
      {{ActivationKind::kNone}, [](double v) { return v; }},
      {{ActivationKind::kRelu}, [&](double v) { return clamp(v, 0, kInfinity); }},
      {{ActivationKind::kLeakyRelu, 0.5f}, [](double v) { return v < 0 ? v / 2 : v; }},
      {{ActivationKind::kClip, -0.25f, 0.75f}, [&](double v) { return clamp(v, -0.25, 0.75); }},
      {{ActivationKind::kSigmoid}, sigmoid},
      {{ActivationKind::kHardSigmoid, 0.25f, 0.5f}, [&](double v) { return clamp(v / 4 + 0.5, 0, 1); }},
      {{ActivationKind::kHardSwish}, [&](double v) { return v * clamp(v / 6 + 0.5, 0, 1); }},
      {{ActivationKind::kSilu}, [&](double v) { return v * sigmoid(v); }},
      {{ActivationKind::kTanh}, [](double v) { return std::tanh(v); }},
  };
  OpTensor x = OpTensor::random(kFloat, {50}, 1);
  for (int64_t i = 0; i < 25; ++i) x.set(i, x.get(i) * 8);
  x.set(7, kNan);
  const OpTensor y(kFloat, {50});
  for (const auto& [act, truth] : cases) {
    SCOPED_TRACE(static_cast<int>(act.kind));
    ops::unary(x.view(), act, y.view());
    expect_tensor(y, [&, f = truth](const Ints& i) { return f(x.at(i)); });
  }
}

}  // namespace
}  // namespace rskip::test
