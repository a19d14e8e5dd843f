#include "kernel_tester.h"

namespace rskip::test {
namespace {

struct PoolCase {
  int channels, height, width, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, dilation = 1;
  Halo pad = {};
  bool include_pad = false;
};

double oracle_pool(const PoolCase& c, bool max, const Map& x, int channel, int row, int column) {
  double sum = max ? -std::numeric_limits<double>::infinity() : 0;
  int counted = 0;
  for (int i = 0; i < c.kernel_h; ++i) {
    for (int j = 0; j < c.kernel_w; ++j) {
      const int h = row * c.stride_h - c.pad.top + i * c.dilation;
      const int w = column * c.stride_w - c.pad.left + j * c.dilation;
      const bool real = h >= 0 && h < c.height && w >= 0 && w < c.width;
      if (!max && c.include_pad && h < c.height + c.pad.bottom && w < c.width + c.pad.right) ++counted;
      if (!max && !c.include_pad && real) ++counted;
      if (!real) continue;
      const double value = x.at(channel, h, w);
      sum = max ? (std::isnan(value) || std::isnan(sum) ? NAN : std::max(sum, value)) : sum + value;
    }
  }
  return max ? sum : sum / counted;
}

void check(const PoolCase& c) {
  SCOPED_TRACE("kernel " + std::to_string(c.kernel_h) + "x" + std::to_string(c.kernel_w));
  for (bool max : {false, true}) {
    Map x(c.channels, c.height, c.width);
    x.fill(random_floats(static_cast<size_t>(c.channels) * c.height * c.width, 2));
    x.at(0, c.height / 2, c.width / 2) = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> expected;
    for (const KernelTable* table : available_tables()) {
      SCOPED_TRACE(table->name);
      for (int parts : {1, 4}) {
        Map y(c.channels, c.out_height, c.out_width, {1, 1, 1, 1});
        PoolArgs args{x.view(),   y.view(),   c.kernel_h, c.kernel_w, c.stride_h,    c.stride_w,
                      c.dilation, c.dilation, c.pad,      max,        c.include_pad};
        for (int part = 0; part < parts; ++part) table->pool(args, part, parts);
        y.expect_clean();
        if (expected.empty()) expected = y.planar();
        EXPECT_TRUE(same_bits(expected, y.planar())) << parts << " parts";
      }
    }
    size_t i = 0;
    for (int channel = 0; channel < c.channels; ++channel) {
      for (int row = 0; row < c.out_height; ++row) {
        for (int column = 0; column < c.out_width; ++column, ++i) {
          const double truth = oracle_pool(c, max, x, channel, row, column);
          ASSERT_EQ(std::isnan(expected[i]), std::isnan(truth)) << "at " << i;
          if (std::isnan(truth)) continue;
          ASSERT_NEAR(expected[i], truth, max ? 0 : sum_tolerance(c.kernel_h * c.kernel_w, 1));
        }
      }
    }
  }
}

TEST(Pool, Windows) {
  check({16, 8, 9, 4, 4, 2, 2, 2, 2});
  check({24, 9, 13, 5, 7, 3, 3, 2, 2, 1, {1, 1, 1, 1}});
  check({24, 9, 13, 5, 7, 3, 3, 2, 2, 1, {1, 1, 1, 1}, true});
  check({5, 6, 6, 6, 5, 3, 2, 1, 1, 1, {1, 0, 1, 0}});
  check({17, 10, 10, 6, 6, 3, 3, 1, 1, 2, {0, 0, 0, 0}});
  // ceil_mode: the last windows reach past the end padding.
  check({16, 7, 7, 4, 4, 2, 2, 2, 2});
  check({16, 7, 8, 4, 4, 3, 3, 2, 2, 1, {0, 0, 0, 0}, true});
  check({16, 1, 20, 1, 5, 1, 4, 1, 4});
}

TEST(Pool, Global) {
  for (int width : {1, 2, 3, 4, 7, 8, 13}) {
    for (int channels : {1, 16, 37}) {
      SCOPED_TRACE(width);
      const int height = 5;
      Map x(channels, height, width, {1, 1, 1, 1});
      x.fill(random_floats(static_cast<size_t>(channels) * height * width, 3));
      for (GlobalPoolKind kind : {GlobalPoolKind::kMean, GlobalPoolKind::kMax, GlobalPoolKind::kMeanSquare}) {
        const bool max = kind == GlobalPoolKind::kMax, squares = kind == GlobalPoolKind::kMeanSquare;
        std::vector<float> expected;
        for (const KernelTable* table : available_tables()) {
          Guarded y(channels);
          table->global_pool(x.view(), kind, y.data());
          const std::vector<float> got(y.data(), y.data() + channels);
          if (expected.empty()) expected = got;
          EXPECT_TRUE(same_bits(expected, got)) << table->name;
        }
        for (int c = 0; c < channels; ++c) {
          double truth = max ? -std::numeric_limits<double>::infinity() : 0;
          for (int h = 0; h < height; ++h) {
            for (int w = 0; w < width; ++w) {
              const double value = x.at(c, h, w);
              truth = max ? std::max(truth, value) : truth + (squares ? value * value : value);
            }
          }
          if (!max) truth /= height * width;
          EXPECT_NEAR(expected[c], truth, max ? 0 : sum_tolerance(height * width, 1));
        }
      }
    }
  }
}
TEST(Pool, GlobalMaxKeepsNan) {
  Map x(16, 2, 2);
  x.at(3, 0, 0) = std::numeric_limits<float>::quiet_NaN();
  for (const KernelTable* table : available_tables()) {
    Guarded y(16);
    table->global_pool(x.view(), GlobalPoolKind::kMax, y.data());
    EXPECT_TRUE(std::isnan(y.data()[3])) << table->name;
    EXPECT_EQ(y.data()[4], 0) << table->name;
  }
}

}  // namespace
}  // namespace rskip::test
