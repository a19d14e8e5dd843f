// Functions along one axis of a dense tensor, and resampling: against plain loops, and bit for bit on every instruction set.
#include "kernel_tester.h"
#include "kernels/matrix/pack.h"

namespace rskip::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const ColumnShape kShapes[] = {{1, 1, 5}, {2, 3, 1}, {2, 2, 16}, {3, 7, 19}, {1, 21, 50}, {2, 130, 3}};

size_t size_of(const ColumnShape& s) { return static_cast<size_t>(s.outer * s.length * s.inner); }

// Calls fn(index of y, indices of the elements of a column).
template <class F>
void each_column(const ColumnShape& s, F fn) {
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      std::vector<size_t> column;
      for (int64_t k = 0; k < s.length; ++k) column.push_back(static_cast<size_t>((o * s.length + k) * s.inner + i));
      fn(static_cast<size_t>(o * s.inner + i), column);
    }
  }
}

TEST(Columns, Softmax) {
  for (const ColumnShape& s : kShapes) {
    SCOPED_TRACE(s.length);
    const std::vector<float> x = random_floats(size_of(s), 1, -20, 20);
    for (const bool log : {false, true}) {
      std::vector<float> first;
      for (const KernelTable* table : available_tables()) {
        for (const int parts : {1, 3}) {
          Guarded y(x.size());
          std::copy(x.begin(), x.end(), y.data());
          for (int part = 0; part < parts; ++part) table->softmax_columns(y.data(), y.data(), s, log, part, parts);
          const std::vector<float> values(y.data(), y.data() + y.size());
          if (first.empty()) first = values;
          EXPECT_TRUE(same_bits(first, values)) << table->name;
        }
      }
      each_column(s, [&](size_t, const std::vector<size_t>& column) {
        double most = -1e30, sum = 0;
        for (size_t at : column) most = std::max<double>(most, x[at]);
        for (size_t at : column) sum += std::exp(x[at] - most);
        for (size_t at : column) {
          const double shifted = x[at] - most, expected = log ? shifted - std::log(sum) : std::exp(shifted) / sum;
          const double tolerance = log ? ulp_tolerance(4, std::abs(expected) + std::abs(shifted) + 1)
                                       : ulp_tolerance(4 + std::abs(shifted), expected) +
                                             sum_tolerance(s.length / 4, expected);
          ASSERT_NEAR(first[at], expected, tolerance);
        }
      });
    }
  }
}

TEST(Columns, SoftmaxOfNothingOrOfNaNIsNaN) {
  const float least = -std::numeric_limits<float>::infinity();
  const std::vector<float> x = {least, 1, 1, least, kNan, 0, least, 2, least};
  for (const KernelTable* table : available_tables()) {
    std::vector<float> y(9);
    table->softmax_columns(x.data(), y.data(), {1, 3, 3}, false, 0, 1);
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_TRUE(std::isnan(y[3 * k]));
      EXPECT_TRUE(std::isnan(y[3 * k + 1]));
    }
    EXPECT_EQ(y[8], 0.0f);
  }
}

// The first of the greatest; a NaN is greater than any number.
TEST(Columns, ArgMax) {
  for (const ColumnShape& s : kShapes) {
    SCOPED_TRACE(s.length);
    std::vector<float> x = random_floats(size_of(s), 2, -4, 4);
    for (size_t i = 0; i < x.size(); ++i) x[i] = i % 23 == 11 ? kNan : std::floor(x[i]);
    std::vector<int64_t> expected(static_cast<size_t>(s.outer * s.inner));
    each_column(s, [&](size_t to, const std::vector<size_t>& column) {
      const auto nan = std::find_if(column.begin(), column.end(), [&](size_t at) { return std::isnan(x[at]); });
      const auto most = std::max_element(column.begin(), column.end(), [&](size_t a, size_t b) { return x[a] < x[b]; });
      expected[to] = (nan != column.end() ? nan : most) - column.begin();
    });
    for (const KernelTable* table : available_tables()) {
      for (const int parts : {1, 3}) {
        std::vector<int64_t> y(expected.size(), -1);
        for (int part = 0; part < parts; ++part) table->arg_max_columns(x.data(), y.data(), s, part, parts);
        EXPECT_EQ(y, expected) << table->name;
      }
      if (s.inner != 1) continue;
      std::vector<int64_t> y(expected.size(), -1);
      table->arg_max_rows(x.data(), y.data(), s.outer, s.length);
      EXPECT_EQ(y, expected) << table->name;
    }
  }
}

TEST(Columns, ArgMaxOfRows) {
  for (const int64_t n : {1, 2, 15, 16, 17, 40, 1000}) {
    SCOPED_TRACE(n);
    const int64_t rows = 9;
    for (const float scale : {1.0f, 1000.0f}) {
      // Small numbers give many ties; the last rows have a NaN, and nothing but -infinity.
      std::vector<float> x = random_floats(static_cast<size_t>(rows * n), 3, -3, 3);
      for (float& v : x) v = std::floor(v * scale);
      x[static_cast<size_t>(rows - 2) * n + n / 2] = kNan;
      std::fill(x.end() - n, x.end(), -std::numeric_limits<float>::infinity());
      std::vector<int64_t> expected;
      for (int64_t row = 0; row < rows; ++row) {
        const auto begin = x.begin() + row * n, end = begin + n;
        const auto nan = std::find_if(begin, end, [](float v) { return std::isnan(v); });
        expected.push_back((nan != end ? nan : std::max_element(begin, end)) - begin);
      }
      for (const KernelTable* table : available_tables()) {
        Guarded from(x.size());
        std::copy(x.begin(), x.end(), from.data());
        std::vector<int64_t> y(static_cast<size_t>(rows));
        table->arg_max_rows(from.data(), y.data(), rows, n);
        EXPECT_EQ(y, expected) << table->name;
      }
    }
  }
}

TEST(Columns, ReducesRows) {
  for (const int64_t n : {1, 7, 16, 33, 64, 100, 1024, 1025, 5000}) {
    SCOPED_TRACE(n);
    const int64_t rows = 3;
    std::vector<float> x = random_floats(static_cast<size_t>(rows * n), 4, 0.5, 9);
    for (size_t i = 0; i < x.size(); i += 3) x[i] = -x[i];
    for (const RowReduction kind : {RowReduction::kSum, RowReduction::kMean, RowReduction::kMax, RowReduction::kMin}) {
      std::vector<float> first;
      for (const KernelTable* table : available_tables()) {
        Guarded from(x.size());
        std::copy(x.begin(), x.end(), from.data());
        std::vector<float> y(static_cast<size_t>(rows));
        table->reduce_rows(kind, from.data(), y.data(), rows, n);
        if (first.empty()) first = y;
        EXPECT_TRUE(same_bits(first, y)) << table->name;
        from.data()[n / 2] = kNan;
        table->reduce_rows(kind, from.data(), y.data(), rows, n);
        EXPECT_TRUE(std::isnan(y[0])) << table->name;
        EXPECT_EQ(y[1], first[1]);
      }
      for (int64_t row = 0; row < rows; ++row) {
        const auto begin = x.begin() + row * n, end = begin + n;
        double sum = 0, magnitude = 0;
        for (auto at = begin; at != end; ++at) {
          sum += *at;
          magnitude += std::abs(*at);
        }
        const double count = kind == RowReduction::kMean ? static_cast<double>(n) : 1;
        const float value = first[static_cast<size_t>(row)];
        // At most 16 additions in single precision, whatever the length, then those of a tree.
        if (kind == RowReduction::kMax) EXPECT_EQ(value, *std::max_element(begin, end));
        else if (kind == RowReduction::kMin) EXPECT_EQ(value, *std::min_element(begin, end));
        else EXPECT_NEAR(value, sum / count, sum_tolerance(std::min<int64_t>(n, 22), magnitude) / count);
      }
    }
  }
}

TEST(Resample, WeighsAlongAnAxis) {
  for (const ColumnShape& s : kShapes) {
    for (const int64_t each : {1, 2, 3, 4, 6}) {
      SCOPED_TRACE(std::to_string(s.inner) + ", " + std::to_string(each) + " taps");
      const int64_t count = 11;
      const std::vector<float> x = random_floats(size_of(s), 5), factors = random_floats(count * each, 6);
      std::vector<int32_t> places;
      for (int64_t i = 0; i < count * each; ++i) places.push_back(static_cast<int32_t>((7 * i + each) % s.length));
      std::vector<float> expected(static_cast<size_t>(s.outer * count * s.inner));
      for (int64_t o = 0; o < s.outer; ++o) {
        for (int64_t i = 0; i < count; ++i) {
          for (int64_t c = 0; c < s.inner; ++c) {
            // In this order, each product rounded before it is added.
            volatile float sum = 0;
            for (int64_t j = 0; j < each; ++j) {
              const int64_t place = places[static_cast<size_t>(i * each + j)];
              const volatile float term =
                  factors[static_cast<size_t>(i * each + j)] * x[static_cast<size_t>((o * s.length + place) * s.inner + c)];
              sum = sum + term;
            }
            expected[static_cast<size_t>((o * count + i) * s.inner + c)] = sum;
          }
        }
      }
      for (const KernelTable* table : available_tables()) {
        for (const int parts : {1, 3}) {
          Guarded from(x.size()), y(expected.size());
          std::copy(x.begin(), x.end(), from.data());
          AlignedFloats scratch(static_cast<size_t>(s.length + count) * kLanes);
          const ResampleArgs args{s, count, each, places.data(), factors.data(), from.data(), y.data(), scratch.data()};
          for (int part = 0; part < parts; ++part) table->resample(args, part, parts);
          EXPECT_TRUE(same_bits(expected, {y.data(), y.data() + y.size()})) << table->name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace rskip::test
