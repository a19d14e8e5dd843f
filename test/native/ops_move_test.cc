// Pools, reductions, and operators that only move elements.
#include <algorithm>
#include <numeric>

#include "ops_tester.h"

namespace rskip::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kLowest = -std::numeric_limits<double>::infinity();
constexpr DType kFloat = DType::kFloat32;
const std::vector<DType> kAllTypes{DType::kFloat32, DType::kUint8, DType::kInt32, DType::kInt64, DType::kBool};

struct PoolCase {
  Ints x, y;
  ops::Window win;
};
const PoolCase kPoolCases[] = {
    {{1, 3, 5, 7}, {1, 3, 3, 4}, {{3, 3}, {2, 2}, {1, 1, 1, 1}, {1, 1}}},
    // The last window reaches past the end padding, as with ceil_mode.
    {{1, 2, 6, 6}, {1, 2, 3, 3}, {{3, 3}, {2, 2}, {0, 0, 0, 0}, {1, 1}}},
    {{2, 1, 9, 8}, {2, 1, 5, 3}, {{3, 2}, {1, 2}, {0, 0, 0, 0}, {2, 3}}},
    {{1, 2, 7}, {1, 2, 4}, {{2}, {2}, {0, 1}, {1}}},
    {{1, 2, 3, 4, 5}, {1, 2, 3, 2, 3}, {{2, 2, 3}, {1, 2, 2}, {0, 0, 1, 1, 0, 1}, {1, 1, 1}}},
    // Windows that lie wholly in the padding.
    {{1, 1, 2, 2}, {1, 1, 6, 2}, {{1, 1}, {1, 1}, {2, 0, 2, 0}, {1, 1}}},
    {{1, 0, 4, 4}, {1, 0, 2, 2}, {{2, 2}, {2, 2}, {0, 0, 0, 0}, {1, 1}}},
    // Windows of one column.
    {{2, 1, 5, 1200}, {2, 1, 5, 1200}, {{3, 1}, {1, 1}, {1, 0, 1, 0}, {1, 1}}},
    {{1, 2, 3, 5, 6}, {1, 2, 2, 2, 6}, {{2, 2, 1}, {1, 2, 1}, {0, 1, 0, 0, 0, 0}, {1, 2, 1}}},
    {{1, 2, 4, 6}, {1, 2, 4, 5}, {{3, 1}, {1, 2}, {1, 2, 1, 2}, {1, 1}}},
};

struct WindowSum {
  double sum = 0, max = kLowest;
  int inside = 0, padded = 0;
  Ints best;
};

WindowSum walk_window(const PoolCase& c, const OpTensor& x, const Ints& index) {
  WindowSum w;
  for (const Ints& tap : indices(c.win.kernel)) {
    Ints at(index.begin(), index.begin() + 2);
    bool inside = true, padded = true;
    for (size_t i = 0; i < tap.size(); ++i) {
      const int64_t p = index[2 + i] * c.win.strides[i] + tap[i] * c.win.dilations[i] - c.win.pads[i];
      inside = inside && p >= 0 && p < c.x[2 + i];
      padded = padded && p < c.x[2 + i] + c.win.pads[tap.size() + i];
      at.push_back(p);
    }
    w.padded += padded;
    if (!inside) continue;
    const double v = x.at(at);
    w.sum += v;
    if (w.inside == 0 || v > w.max || (std::isnan(v) && !std::isnan(w.max))) w.max = v, w.best = at;
    ++w.inside;
  }
  return w;
}

TEST(OpsPool, Average) {
  for (const PoolCase& c : kPoolCases) {
    const OpTensor x = OpTensor::random(kFloat, c.x, 1), y(kFloat, c.y);
    for (const bool include : {false, true}) {
      ops::pool(x.view(), c.win, false, include, false, y.view(), kAbsent);
      expect_tensor(y, [&](const Ints& i) {
        const WindowSum w = walk_window(c, x, i);
        const int cells = include ? w.padded : w.inside;
        return cells == 0 ? 0 : w.sum / cells;
      });
    }
  }
}

TEST(OpsPool, MaximumAndItsPlace) {
  for (const PoolCase& c : kPoolCases) {
    OpTensor x = OpTensor::random(kFloat, c.x, 2);
    if (x.size() > 9) x.set(x.size() / 3, kNan);
    const OpTensor y(kFloat, c.y), places(DType::kInt64, c.y);
    for (const bool column_major : {false, true}) {
      ops::pool(x.view(), c.win, true, false, column_major, y.view(), places.view());
      expect_tensor(y, [&](const Ints& i) { return walk_window(c, x, i).max; });
      expect_tensor(places, [&](const Ints& i) {
        const WindowSum w = walk_window(c, x, i);
        if (w.inside == 0) return -1.0;
        int64_t plane = 1, flat = 0;
        for (size_t axis = 2; axis < c.x.size(); ++axis) plane *= c.x[axis];
        if (column_major) {
          for (size_t axis = c.x.size(); axis-- > 2;) flat = flat * c.x[axis] + w.best[axis];
        } else {
          for (size_t axis = 2; axis < c.x.size(); ++axis) flat = flat * c.x[axis] + w.best[axis];
        }
        return static_cast<double>((i[0] * c.x[1] + i[1]) * plane + flat);
      });
    }
    ops::pool(x.view(), c.win, true, false, false, y.view(), kAbsent);
    expect_tensor(y, [&](const Ints& i) { return walk_window(c, x, i).max; });
  }
}

TEST(OpsGlobalPool, BothShapesOfOutput) {
  for (const Ints& spatial : {Ints{5, 7}, {3}, {2, 3, 4}, {}}) {
    Ints shape{2, 3};
    shape.insert(shape.end(), spatial.begin(), spatial.end());
    OpTensor x = OpTensor::random(kFloat, shape, 1);
    const OpTensor y(kFloat, {2, 3});
    const int64_t size = x.size() / 6;
    ops::global_pool(x.view(), GlobalPoolKind::kMean, y.view());
    expect_tensor(y, [&](const Ints& i) {
      double sum = 0;
      for (int64_t k = 0; k < size; ++k) sum += x.get((i[0] * 3 + i[1]) * size + k);
      return sum / static_cast<double>(size);
    });
    x.set(0, kNan);
    ops::global_pool(x.view(), GlobalPoolKind::kMax, y.view());
    expect_tensor(y, [&](const Ints& i) {
      double best = kLowest;
      for (int64_t k = 0; k < size; ++k) {
        const double v = x.get((i[0] * 3 + i[1]) * size + k);
        best = std::isnan(v) || std::isnan(best) ? kNan : std::max(best, v);
      }
      return best;
    });
  }
}

// Calls check(shape, axes, kept axes, shape of the result) for several of each, with rows that are short, long and just
// right for elements that are made together.
template <class Check>
void for_each_reduction(Check check) {
  for (const Ints& shape : {Ints{3, 4, 2, 5}, {2, 3, 1, 71}, {1, 2, 3, 32}}) {
    for (const Ints& axes : {Ints{0}, {3}, {1, 2}, {2, 3}, {0, 2}, {0, 1, 2, 3}}) {
      Ints kept, y_shape;
      for (int64_t axis = 0; axis < 4; ++axis) {
        if (std::find(axes.begin(), axes.end(), axis) != axes.end()) continue;
        kept.push_back(axis);
        y_shape.push_back(shape[static_cast<size_t>(axis)]);
      }
      check(shape, axes, kept, y_shape);
    }
  }
}

// The elements of x that the result's element at `i` is made of.
std::vector<double> group_of(const OpTensor& x, const Ints& shape, const Ints& kept, const Ints& i) {
  std::vector<double> group;
  for (const Ints& index : indices(shape)) {
    bool mine = true;
    for (size_t k = 0; k < kept.size(); ++k) mine = mine && index[static_cast<size_t>(kept[k])] == i[k];
    if (mine) group.push_back(x.at(index));
  }
  return group;
}

TEST(OpsReduceMean, AnyAxes) {
  for_each_reduction([](const Ints& shape, const Ints& axes, const Ints& kept, const Ints& y_shape) {
    const OpTensor x = OpTensor::random(kFloat, shape, 1);
    const OpTensor y(kFloat, y_shape);
    ops::reduce_mean(x.view(), axes, y.view());
    expect_tensor(y, [&](const Ints& i) {
      const std::vector<double> group = group_of(x, shape, kept, i);
      return std::accumulate(group.begin(), group.end(), 0.0) / static_cast<double>(group.size());
    });
  });
}

TEST(OpsReduce, LargestAndSmallest) {
  for_each_reduction([](const Ints& shape, const Ints& axes, const Ints& kept, const Ints& y_shape) {
    for (const DType type : {kFloat, DType::kInt32}) {
      OpTensor x = OpTensor::random(type, shape, 1);
      if (type == kFloat) x.set(1, kNan);
      for (const ops::ReduceKind kind : {ops::ReduceKind::kMin, ops::ReduceKind::kMax}) {
        const OpTensor y(type, y_shape);
        ops::reduce(kind, x.view(), axes, y.view());
        expect_tensor(y, [&](const Ints& i) {
          const std::vector<double> group = group_of(x, shape, kept, i);
          const bool nan = std::any_of(group.begin(), group.end(), [](double v) { return std::isnan(v); });
          if (nan) return kNan;
          return kind == ops::ReduceKind::kMin ? *std::min_element(group.begin(), group.end())
                                               : *std::max_element(group.begin(), group.end());
        });
      }
    }
  });
}

TEST(OpsArgMax, TiesAndNan) {
  const OpTensor x = OpTensor::of(kFloat, {3, 4}, {1, 3, 3, 2, kNan, 5, kNan, 1, 0, 0, 0, 0});
  const OpTensor y(DType::kInt64, {3, 1});
  const auto run = [&](bool last) {
    ops::arg_max(x.view(), 1, last, y.view());
    return std::vector<double>{y.get(0), y.get(1), y.get(2)};
  };
  EXPECT_EQ(run(false), (std::vector<double>{1, 0, 0}));
  EXPECT_EQ(run(true), (std::vector<double>{2, 2, 3}));
}

TEST(OpsTopK, IsAStableSort) {
  OpTensor x = OpTensor::random(kFloat, {2, 37, 3}, 5);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, i % 11 == 3 ? kNan : std::floor(x.get(i) * 5));
  const auto above = [](double a, double b) { return a > b || (std::isnan(a) && !std::isnan(b)); };
  for (const bool largest : {true, false}) {
    for (const int64_t most : {0, 1, 2, 5, 36, 37}) {
      SCOPED_TRACE(testing::Message() << (largest ? "largest " : "smallest ") << most);
      const OpTensor y(kFloat, {2, most, 3}), places(DType::kInt64, {2, most, 3});
      ops::top_k(x.view(), 1, largest, y.view(), places.view());
      const auto truth = [&](const Ints& i) {
        std::vector<int64_t> order(37);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
          const double v = x.at({i[0], a, i[2]}), w = x.at({i[0], b, i[2]});
          return largest ? above(v, w) : above(w, v);
        });
        return order[static_cast<size_t>(i[1])];
      };
      expect_tensor(places, [&](const Ints& i) { return static_cast<double>(truth(i)); });
      expect_tensor(y, [&](const Ints& i) { return x.at({i[0], truth(i), i[2]}); });
    }
  }
}

TEST(OpsOneHot, IndicesOutsideAreCold) {
  const std::vector<double> asked{0, 2, -1, 3, -4, -3};
  for (const DType type : {DType::kInt64, DType::kInt32, kFloat}) {
    const OpTensor ids = OpTensor::of(type, {6}, asked), values = OpTensor::of(kFloat, {2}, {-1, 7}), y(kFloat, {3, 6});
    ops::one_hot(ids.view(), values.view(), 0, 3, y.view());
    expect_tensor(y, [&](const Ints& i) {
      const double a = asked[static_cast<size_t>(i[1])];
      return (a < 0 ? a + 3 : a) == static_cast<double>(i[0]) ? 7 : -1;
    });
  }
  const OpTensor ids = OpTensor::of(kFloat, {3}, {kNan, -kLowest, 1e30}), values = OpTensor::of(kFloat, {2}, {0, 1});
  const OpTensor y(kFloat, {3, 2});
  ops::one_hot(ids.view(), values.view(), 1, 2, y.view());
  expect_tensor(y, [](const Ints&) { return 0; });
}

TEST(OpsGather, ChecksIndices) {
  for (const DType type : kAllTypes) {
    const OpTensor data = OpTensor::random(type, {2, 4, 3}, 1);
    const OpTensor ids = OpTensor::of(DType::kInt64, {2, 2}, {3, -4, 0, -1});
    const OpTensor y(type, {2, 2, 2, 3});
    ASSERT_TRUE(ops::gather(data.view(), ids.view(), 1, y.view()));
    expect_tensor(y, [&](const Ints& i) {
      const double asked = ids.at({i[1], i[2]});
      return data.at({i[0], static_cast<int64_t>(asked < 0 ? asked + 4 : asked), i[3]});
    });
  }
  const OpTensor data = OpTensor::random(kFloat, {4}, 1), y(kFloat, {1});
  for (const double bad : {4.0, -5.0, 9e18, -9e18}) {
    const OpTensor id = OpTensor::of(DType::kInt64, {1}, {bad});
    EXPECT_FALSE(ops::gather(data.view(), id.view(), 0, y.view())) << bad;
  }
}

TEST(OpsTranspose, AnyPermutation) {
  for (const DType type : kAllTypes) {
    const OpTensor x = OpTensor::random(type, {2, 3, 1, 5}, 1);
    for (const Ints& perm : {Ints{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 2, 3, 1}, {1, 0, 3, 2}}) {
      Ints shape;
      for (const int64_t axis : perm) shape.push_back(x.shape()[static_cast<size_t>(axis)]);
      const OpTensor y(type, shape);
      ops::transpose(x.view(), perm, y.view());
      expect_tensor(y, [&](const Ints& i) {
        Ints source(4);
        for (size_t k = 0; k < 4; ++k) source[static_cast<size_t>(perm[k])] = i[k];
        return x.at(source);
      });
    }
  }
}

TEST(OpsPad, EveryModeExtendsAndCrops) {
  using ops::PadMode;
  const auto source = [](int64_t i, int64_t size, PadMode mode) -> int64_t {
    if (i >= 0 && i < size) return i;
    if (mode == PadMode::kConstant) return -1;
    if (mode == PadMode::kEdge) return i < 0 ? 0 : size - 1;
    while (i < 0 || i >= size) {
      if (mode == PadMode::kWrap)
        i += i < 0 ? size : -size;
      else if (size == 1)
        i = 0;
      else
        i = i < 0 ? -i : 2 * (size - 1) - i;
    }
    return i;
  };
  struct Case {
    Ints x, pads;
  };
  for (const Case& c : {Case{{2, 3, 4}, {0, 1, 2, 1, 0, 3}},
                        {{3, 4}, {-1, 7, 0, -2}},
                        {{1, 5}, {2, -2, 3, 9}},
                        {{6}, {-2, -3}},
                        {{2, 2}, {0, 0, -2, 1}}}) {
    const size_t rank = c.x.size();
    Ints shape;
    for (size_t a = 0; a < rank; ++a) shape.push_back(c.x[a] + c.pads[a] + c.pads[a + rank]);
    for (const PadMode mode : {PadMode::kConstant, PadMode::kReflect, PadMode::kEdge, PadMode::kWrap}) {
      for (const DType type : kAllTypes) {
        const OpTensor x = OpTensor::random(type, c.x, 1), one = OpTensor::of(type, {}, {1}), y(type, shape);
        ops::pad(x.view(), one.view(), c.pads, mode, y.view());
        expect_tensor(y, [&](const Ints& i) {
          Ints at;
          for (size_t a = 0; a < rank; ++a) {
            const int64_t begin = c.pads[a], end = c.pads[a + rank];
            const int64_t size = c.x[a] + std::min<int64_t>(begin, 0) + std::min<int64_t>(end, 0);
            const int64_t p = source(i[a] - std::max<int64_t>(begin, 0), size, mode);
            if (p < 0) return 1.0;
            at.push_back(p - std::min<int64_t>(begin, 0));
          }
          return x.at(at);
        });
      }
    }
  }
}

TEST(OpsSlice, StepsOfEitherSign) {
  for (const DType type : kAllTypes) {
    const OpTensor x = OpTensor::random(type, {4, 5, 6}, 1);
    struct Case {
      Ints starts, steps, shape;
    };
    for (const Case& c : {Case{{0, 0, 0}, {1, 1, 1}, {4, 5, 6}},
                          {{3, 1, 5}, {-1, 2, -2}, {4, 2, 3}},
                          {{1, 4, 0}, {1, -3, 5}, {2, 2, 2}},
                          {{0, 0, 3}, {1, 1, 1}, {4, 0, 3}}}) {
      const OpTensor y(type, c.shape);
      ops::slice(x.view(), c.starts, c.steps, y.view());
      expect_tensor(y, [&](const Ints& i) {
        Ints at;
        for (size_t a = 0; a < 3; ++a) at.push_back(c.starts[a] + i[a] * c.steps[a]);
        return x.at(at);
      });
    }
  }
}

TEST(OpsConcat, AnyAxisWithEmptyParts) {
  for (const DType type : kAllTypes) {
    for (int64_t axis = 0; axis < 3; ++axis) {
      std::vector<OpTensor> parts;
      std::vector<TensorView> views;
      Ints shape{2, 3, 4};
      int64_t total = 0;
      for (const int64_t length : {2, 0, 5, 1}) {
        shape[static_cast<size_t>(axis)] = length;
        parts.push_back(OpTensor::random(type, shape, static_cast<unsigned>(length)));
        total += length;
      }
      for (const OpTensor& part : parts) views.push_back(part.view());
      shape[static_cast<size_t>(axis)] = total;
      const OpTensor y(type, shape);
      ops::concat(views, axis, y.view());
      expect_tensor(y, [&](const Ints& i) {
        Ints at = i;
        int64_t& rest = at[static_cast<size_t>(axis)];
        for (const OpTensor& part : parts) {
          if (rest < part.shape()[static_cast<size_t>(axis)]) return part.at(at);
          rest -= part.shape()[static_cast<size_t>(axis)];
        }
        return kNan;
      });
    }
  }
}

TEST(OpsExpand, RepeatsAxes) {
  for (const DType type : kAllTypes) {
    const Ints shape{2, 3, 4};
    for (const Ints& from : {Ints{2, 3, 4}, {1, 3, 1}, {3, 1}, {4}, {}, {2, 1, 4}}) {
      const OpTensor x = OpTensor::random(type, from, 1), y(type, shape);
      ops::expand(x.view(), y.view());
      expect_tensor(y, [&](const Ints& i) { return x.broadcast(i); });
    }
    const OpTensor column = OpTensor::random(type, {2, 1}, 1), rows(type, {2, 3000});
    ops::expand(column.view(), rows.view());
    expect_tensor(rows, [&](const Ints& i) { return column.broadcast(i); });
  }
}

}  // namespace
}  // namespace rskip::test
