#include "kernel_tester.h"
#include "kernels/bfloat16/pack16.h"
#include "kernels/matrix/pack.h"

namespace rskip::test {
namespace {

std::vector<float> copy_of(const Guarded& from) { return {from.data(), from.data() + from.size()}; }

struct Rows {
  int64_t rows, n;
};

TEST(Softmax, Rows) {
  for (const Rows& c : {Rows{1, 1}, Rows{3, 5}, Rows{2, 16}, Rows{2, 17}, Rows{3, 63}, Rows{2, 197}}) {
    SCOPED_TRACE(c.n);
    const std::vector<float> x = random_floats(static_cast<size_t>(c.rows * c.n), 1, -20, 20);
    for (const bool log : {false, true}) {
      const auto run = [&](const KernelTable& table, bool in_place) {
        Guarded from(x.size()), to(x.size(), -7);
        std::copy(x.begin(), x.end(), from.data());
        table.softmax_rows(from.data(), in_place ? from.data() : to.data(), c.rows, c.n, log);
        return copy_of(in_place ? from : to);
      };
      const std::vector<float> y = run(scalar(), false);
      for (int64_t row = 0; row < c.rows; ++row) {
        const float* line = x.data() + row * c.n;
        const double most = *std::max_element(line, line + c.n);
        double sum = 0;
        for (int64_t i = 0; i < c.n; ++i) sum += std::exp(line[i] - most);
        for (int64_t i = 0; i < c.n; ++i) {
          const double shifted = line[i] - most;
          const double expected = log ? shifted - std::log(sum) : std::exp(shifted) / sum;
          // The difference is rounded before its exponential is taken.
          const double tolerance = log ? ulp_tolerance(4, std::abs(expected) + std::abs(shifted) + 1)
                                       : ulp_tolerance(4 + std::abs(shifted), expected) +
                                             sum_tolerance(c.n / 4, expected);
          ASSERT_NEAR(y[static_cast<size_t>(row * c.n + i)], expected, tolerance);
        }
      }
      for (const KernelTable* table : available_tables()) {
        SCOPED_TRACE(table->name);
        EXPECT_TRUE(same_bits(y, run(*table, false)));
        EXPECT_TRUE(same_bits(y, run(*table, true)));
      }
    }
  }
}

TEST(Softmax, WhatIsMaskedIsZeroAndNothingAloneIsNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> x(20, -infinity);
  x[3] = 1;
  for (const KernelTable* table : available_tables()) {
    std::vector<float> y(20);
    table->softmax_rows(x.data(), y.data(), 1, 20, false);
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], i == 3 ? 1.0f : 0.0f);
    const std::vector<float> none(20, -infinity);
    table->softmax_rows(none.data(), y.data(), 1, 20, false);
    for (float v : y) EXPECT_TRUE(std::isnan(v));
    std::vector<float> spoilt = x;
    spoilt[7] = std::numeric_limits<float>::quiet_NaN();
    table->softmax_rows(spoilt.data(), y.data(), 1, 20, false);
    for (float v : y) EXPECT_TRUE(std::isnan(v));
  }
}

// Normalised along n, in double precision.
std::vector<double> normalised(const std::vector<float>& x, double epsilon) {
  double mean = 0, squares = 0;
  for (float v : x) mean += v;
  mean /= static_cast<double>(x.size());
  for (float v : x) squares += (v - mean) * (v - mean);
  std::vector<double> y;
  for (float v : x) y.push_back((v - mean) / std::sqrt(squares / static_cast<double>(x.size()) + epsilon));
  return y;
}

// What rounding may cost: a mean of n terms, of a deviation that divides.
double norm_tolerance(int64_t n, double value, double scale) {
  return kUnitRoundoff * (8 + static_cast<double>(n) / 8) * (std::abs(value) + 2) * (std::abs(scale) + 1);
}

TEST(Norm, Rows) {
  for (const Rows& c : {Rows{1, 1}, Rows{2, 7}, Rows{3, 16}, Rows{2, 33}, Rows{4, 192}, Rows{2, 770}}) {
    SCOPED_TRACE(c.n);
    const size_t n = static_cast<size_t>(c.n);
    const std::vector<float> x = random_floats(static_cast<size_t>(c.rows) * n, 1, -1, 3);
    const std::vector<float> scale = random_floats(n, 2, 0.5, 2), shift = random_floats(n, 3);
    for (const bool bare : {false, true}) {
      const auto run = [&](const KernelTable& table, bool in_place) {
        Guarded from(x.size()), to(x.size(), -7), a(n), b(n);
        std::copy(x.begin(), x.end(), from.data());
        std::copy(scale.begin(), scale.end(), a.data());
        std::copy(shift.begin(), shift.end(), b.data());
        const NormArgs args{c.n, 1e-5f, bare ? nullptr : a.data(), bare ? nullptr : b.data()};
        table.norm_rows(from.data(), args, in_place ? from.data() : to.data(), c.rows);
        return copy_of(in_place ? from : to);
      };
      const std::vector<float> y = run(scalar(), false);
      for (int64_t row = 0; row < c.rows; ++row) {
        std::vector<float> line(n);
        std::copy_n(x.begin() + row * c.n, n, line.begin());
        const std::vector<double> expected = normalised(line, 1e-5);
        for (size_t i = 0; i < n; ++i) {
          const double value = bare ? expected[i] : expected[i] * scale[i] + shift[i];
          const double tolerance = norm_tolerance(c.n, expected[i], bare ? 1 : scale[i]);
          ASSERT_NEAR(y[static_cast<size_t>(row) * n + i], value, tolerance);
        }
      }
      for (const KernelTable* table : available_tables()) {
        SCOPED_TRACE(table->name);
        EXPECT_TRUE(same_bits(y, run(*table, false)));
        EXPECT_TRUE(same_bits(y, run(*table, true)));
      }
    }
  }
}

TEST(Norm, ChannelsHaveTheBitsOfRows) {
  for (const int channels : {1, 15, 16, 40, 96}) {
    SCOPED_TRACE(channels);
    const int height = 3, width = 5;
    const std::vector<float> x = random_floats(static_cast<size_t>(channels) * height * width, 1, -1, 3);
    const std::vector<float> scale = random_floats(channels, 2), shift = random_floats(channels, 3);
    const NormArgs args{channels, 1e-6f, scale.data(), shift.data()};
    std::vector<float> rows(x.size()), expected(x.size());
    for (int pixel = 0; pixel < height * width; ++pixel) {
      for (int c = 0; c < channels; ++c) rows[pixel * channels + c] = x[c * height * width + pixel];
    }
    scalar().norm_rows(rows.data(), args, rows.data(), height * width);
    for (int pixel = 0; pixel < height * width; ++pixel) {
      for (int c = 0; c < channels; ++c) expected[c * height * width + pixel] = rows[pixel * channels + c];
    }
    for (const KernelTable* table : available_tables()) {
      SCOPED_TRACE(table->name);
      for (int parts : {1, 2, 7}) {
        Map from(channels, height, width, {1, 1, 1, 1}), to(channels, height, width, {1, 0, 0, 2});
        from.fill(x);
        for (int part = 0; part < parts; ++part) table->norm_channels(from.view(), args, to.view(), part, parts);
        EXPECT_TRUE(same_bits(expected, to.planar()));
        to.expect_clean();
      }
    }
  }
}

struct Heads {
  int batch, heads, queries, keys, depth, value_depth;
  bool mask = false, rows_first = true, replaces = false;
  // Of keys and values: columns are neighbours, rows are, or nothing is.
  enum class Layout { kRows, kColumns, kApart } layout = Layout::kRows;
};

void check_attention(const Heads& c, Precision precision) {
  const bool bfloat16 = precision != Precision::kFloat32;
  SCOPED_TRACE(std::to_string(c.queries) + " queries, " + std::to_string(c.keys) + " keys");
  AttentionShape s{c.batch, c.heads, c.queries, c.keys, c.depth, c.value_depth, 0.3f, {}, {}, {}, {}, {}, c.replaces};
  const auto view = [&](int64_t rows, int64_t columns) -> AttentionView {
    const int64_t all = c.heads * rows * columns;
    if (c.rows_first) return {0, all, columns, c.heads * columns, 1};
    return {0, all, rows * columns, columns, 1};
  };
  s.q = view(c.queries, c.depth);
  const auto laid_out = [&](int64_t columns) -> AttentionView {
    const int64_t head = c.keys * columns;
    if (c.layout == Heads::Layout::kColumns) return {0, c.heads * head, head, 1, c.keys};
    if (c.layout == Heads::Layout::kApart) return {0, 2 * c.heads * head, 2 * head, 2 * columns, 2};
    return view(c.keys, columns);
  };
  s.k = laid_out(c.depth);
  s.v = laid_out(c.value_depth);
  s.y = view(c.queries, c.value_depth);
  s.mask = {0, c.keys, 0, 0, 1};
  const auto size = [&](int rows, int columns) { return static_cast<size_t>(c.batch) * c.heads * rows * columns; };
  const std::vector<float> q = random_floats(size(c.queries, c.depth), 1, -2, 2);
  const std::vector<float> k = random_floats(2 * size(c.keys, c.depth), 2, -2, 2);
  const std::vector<float> v = random_floats(2 * size(c.keys, c.value_depth), 3);
  const std::vector<float> mask = random_floats(static_cast<size_t>(c.batch) * c.keys, 4, -3, c.replaces ? 3 : 0);
  const auto run = [&](const KernelTable& table, int parts) {
    Guarded y(size(c.queries, c.value_depth), -7);
    const int64_t bytes = bfloat16 ? attention16_scratch_bytes(s) : attention_scratch_bytes(s);
    Guarded scratch(static_cast<size_t>(bytes) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
    AttentionArgs args{&s, q.data(), k.data(), v.data(), c.mask ? mask.data() : nullptr, y.data(), scratch.data()};
    for (int part = 0; part < parts; ++part) {
      const auto kernel = !bfloat16                           ? table.attention
                          : precision == Precision::kBfloat16 ? table.attention16
                                                              : table.attention16_amx;
      kernel(args, part, parts);
    }
    return copy_of(y);
  };
  const auto factor = [=](float x) { return bfloat16 ? nearest_bfloat16(x) : x; };
  const std::vector<float> y = run(scalar(), 1);
  for (int b = 0; b < c.batch; ++b) {
    for (int h = 0; h < c.heads; ++h) {
      for (int i = 0; i < c.queries; ++i) {
        std::vector<double> weights;
        double most = -1e30, sum = 0, reach = 0;
        for (int j = 0; j < c.keys; ++j) {
          double score = 0, magnitude = 0;
          for (int d = 0; d < c.depth; ++d) {
            const float query = q[s.q.at(b, h) + i * s.q.row + d];
            const double left = factor(query * s.scale);
            const double product = left * factor(k[s.k.at(b, h) + j * s.k.row + d * s.k.column]);
            score += product;
            magnitude += std::abs(product);
          }
          reach = std::max(reach, magnitude);
          const double own = c.mask ? mask[b * c.keys + j] : 0;
          if (!c.replaces) weights.push_back(score + own);
          else weights.push_back(own < 0 ? own : score);
          most = std::max(most, weights.back());
        }
        for (double& w : weights) sum += w = std::exp(w - most);
        for (int d = 0; d < c.value_depth; ++d) {
          double expected = 0;
          for (int j = 0; j < c.keys; ++j) {
            expected += weights[j] / sum * factor(v[s.v.at(b, h) + j * s.v.row + d * s.v.column]);
          }
          // Values are below 1; a score's error is a weight's relative error, and so is that of rounding a weight.
          const double rounding = bfloat16 ? 0x1p-9 : 0;
          const double tolerance = 2 * sum_tolerance(c.depth + 8, reach + 3) + sum_tolerance(c.keys, 1) + rounding;
          ASSERT_NEAR(y[s.y.at(b, h) + i * s.y.row + d], expected, tolerance);
        }
      }
    }
  }
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    for (int parts : {1, 2, 5}) EXPECT_TRUE(same_bits(y, run(*table, parts))) << parts << " parts";
  }
}

void check_attention(const Heads& c) {
  for (Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kBfloat16Amx}) check_attention(c, precision);
}

TEST(Attention, HeadsAndShapes) {
  check_attention({1, 1, 1, 1, 1, 1});
  check_attention({1, 3, 5, 5, 8, 8});
  check_attention({2, 2, 29, 33, 16, 12, true});
  check_attention({1, 2, 57, 17, 7, 33, true, false});
  check_attention({2, 1, 3, 70, 32, 16, false, false});
  check_attention({2, 2, 29, 33, 16, 12, true, true, true});
  for (auto layout : {Heads::Layout::kColumns, Heads::Layout::kApart}) check_attention({2, 2, 5, 37, 41, 19, true, true, false, layout});
}

TEST(Products, Batches) {
  struct Case {
    int64_t count;
    int m, k, n;
  };
  const Case cases[] = {{1, 1, 1, 1}, {2, 5, 7, 3}, {3, 17, 33, 65}, {2, 1, 20, 130}, {1, 30, 16, 64}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.n);
    const std::vector<float> a = random_floats(static_cast<size_t>(c.count) * c.m * c.k, 1);
    const std::vector<float> b = random_floats(static_cast<size_t>(c.k) * c.n, 2);
    std::vector<int64_t> offsets;
    // One right-hand matrix for all.
    for (int64_t i = 0; i < c.count; ++i) {
      for (int64_t at : {i * c.m * c.k, int64_t{0}, i * c.m * c.n}) offsets.push_back(at);
    }
    for (const bool transposed : {false, true}) {
      const ptrdiff_t row = transposed ? 1 : c.n, column = transposed ? c.k : 1;
      const auto run = [&](const KernelTable& table, int parts) {
        Guarded y(static_cast<size_t>(c.count) * c.m * c.n, -7);
        AlignedFloats scratch(static_cast<size_t>(c.k) * kProductColumns);
        ProductsArgs args{a.data(), b.data(), y.data(), c.count,        c.m,           c.k,
                          c.n,      row,      column,   offsets.data(), scratch.data()};
        for (int part = 0; part < parts; ++part) table.products(args, part, parts);
        return copy_of(y);
      };
      const std::vector<float> y = run(scalar(), 1);
      for (int64_t i = 0; i < c.count * c.m; ++i) {
        for (int j = 0; j < c.n; ++j) {
          double sum = 0, magnitude = 0;
          for (int l = 0; l < c.k; ++l) {
            const double product = static_cast<double>(a[i * c.k + l]) * b[l * row + j * column];
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_NEAR(y[i * c.n + j], sum, sum_tolerance(c.k, magnitude));
        }
      }
      for (const KernelTable* table : available_tables()) {
        SCOPED_TRACE(table->name);
        for (int parts : {1, 2, 5}) EXPECT_TRUE(same_bits(y, run(*table, parts))) << parts << " parts";
      }
    }
  }
}

}  // namespace
}  // namespace rskip::test
