// Kernels on 8-bit numbers other than convolution: every instruction set must give the oracle's bytes.
#include "conv8_tester.h"

namespace rskip::test {
namespace {

using Bytes = std::vector<uint8_t>;

// check(table, parts) for every instruction set, whole and in parts.
template <class Check>
void on_every_table(const Check& check) {
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    for (int parts : {1, 3}) check(*table, parts);
  }
}

// `zeros`: of weights, of which there are none, one, or one for each column. at_run_time: scale and zero point of A come last.
void check_gemm(int m, int k, int n, bool trans_b, bool to_float, int zeros = 0, bool at_run_time = false,
                const Activation& act = {}) {
  SCOPED_TRACE(std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n));
  const Bytes a = random_integers<uint8_t>(static_cast<size_t>(m) * k, 1, 0, 255);
  const std::vector<int8_t> b = random_integers<int8_t>(static_cast<size_t>(k) * n, 2, -128, 127);
  const std::vector<int32_t> bias = random_integers<int32_t>(n, 3, -5000, 5000);
  const std::vector<float> shift = random_floats(n, 5);
  std::vector<float> scale = random_floats(n, 4, 0.5f, 1.5f);
  for (float& s : scale) s *= 64 / (8192 * std::sqrt(static_cast<float>(k)));
  const Rounding rounding{-90, 100, 90};
  const std::vector<int8_t> weight_zero = random_integers<int8_t>(zeros, 6, -128, 127);
  const auto packed = pack_gemm8(k, n, b.data(), trans_b, bias.data(), at_run_time ? nullptr : scale.data(), n,
                                 at_run_time ? 0 : 131, weight_zero.data(), zeros);
  Bytes expected;
  std::vector<float> expected_floats;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      int32_t sum = bias[j];
      const int zero = zeros == 0 ? 0 : weight_zero[zeros == 1 ? 0 : j];
      for (int p = 0; p < k; ++p) sum += (a[i * k + p] - 131) * ((trans_b ? b[j * k + p] : b[p * n + j]) - zero);
      expected.push_back(oracle_round(static_cast<float>(sum) * scale[j], rounding));
      expected_floats.push_back(std::fma(static_cast<float>(sum), scale[j], shift[j]));
    }
  }
  available_tables().front()->unary_span(expected_floats.data(), expected_floats.data(), expected_floats.size(), act);
  on_every_table([&](const KernelTable& table, int parts) {
    GuardedArray<uint8_t> x(a.size()), y(expected.size());
    Guarded y_float(expected.size());
    std::copy(a.begin(), a.end(), x.data());
    GuardedArray<uint8_t> scratch(gemm8_scratch_bytes(*packed, m, at_run_time), 0xa5);
    GemmArgs8 args;
    args.gemm = packed.get();
    args.a = x.data();
    args.m = m;
    args.y = to_float ? nullptr : y.data();
    args.y_float = to_float ? y_float.data() : nullptr;
    args.rounding = rounding;
    args.shift = shift.data();
    args.act = act;
    args.scratch = scratch.data();
    const uint8_t a_zero = 131;
    if (at_run_time) {
      args.scale = scale.data();
      args.scales = n;
      args.zero = &a_zero;
    }
    for (int part = 0; part < parts; ++part) table.gemm8(args, part, parts);
    if (to_float) {
      EXPECT_EQ(expected_floats, std::vector<float>(y_float.data(), y_float.data() + y_float.size()));
    } else {
      EXPECT_EQ(expected, Bytes(y.data(), y.data() + y.size()));
    }
  });
}

TEST(Kernels8, MatrixProducts) {
  for (int m : {1, 2, 7, 17}) {
    for (int k : {1, 4, 37, 64, 150}) {
      for (int n : {1, 16, 33, 50}) check_gemm(m, k, n, (m + k) % 2 == 0, (k + n) % 2 == 0);
    }
  }
}

// Rows and steps that don't divide evenly, and some that do.
TEST(Kernels8, MatrixProductsInSeveralTiles) {
  for (int k : {96, 132, 144, 400}) check_gemm(65, k, 80, k == 144, k > 100);
}

TEST(Kernels8, MatrixProductsWithZeroPointsOfWeights) {
  for (int m : {1, 9}) {
    for (int k : {4, 37}) {
      for (int n : {1, 33, 50}) {
        for (bool each : {false, true}) check_gemm(m, k, n, (m + k) % 2 == 0, (k + n) % 2 == 0, each ? n : 1, each == (m == 1));
      }
    }
  }
}

TEST(Kernels8, ActivationsBehindMatrixProducts) {
  for (ActivationKind kind : {ActivationKind::kGelu, ActivationKind::kTanh}) {
    for (int m : {1, 3, 21, 37}) {
      for (int n : {16, 33, 50}) check_gemm(m, 40, n, true, true, 0, false, {.kind = kind});
    }
  }
}

TEST(Kernels8, MatrixProductsWithScalesOfTheRun) {
  for (int m : {1, 17}) {
    for (int n : {16, 33, 50}) check_gemm(m, 37, n, true, n % 2 == 0, 0, true);
  }
}

TEST(Kernels8, AdditionsBehindMatrixProducts) {
  constexpr int m = 19, k = 70, n = 48;
  const Bytes a = random_integers<uint8_t>(m * k, 1, 0, 255);
  const std::vector<int8_t> b = random_integers<int8_t>(k * n, 2, -128, 127);
  const float scale = 0.001f;
  const auto packed = pack_gemm8(k, n, b.data(), false, nullptr, &scale, 1, 77);
  const Rounding rounding{-90, 165, 90}, first{-80, 100, 80}, second{-60, 190, 61};
  const Addition8 row_sum{0.75f, 1.25f, 120, true, first}, sum{1.5f, 0.6f, 99, false, second};
  const Bytes row = random_integers<uint8_t>(n, 3, 0, 255), rows = random_integers<uint8_t>(m * n, 4, 0, 255);
  Bytes expected;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      int32_t dot = 0;
      for (int p = 0; p < k; ++p) dot += (a[i * k + p] - 77) * b[p * n + j];
      const auto less = [](uint8_t byte, int zero) { return static_cast<float>(byte - zero); };
      const float own = less(oracle_round(static_cast<float>(dot) * scale, rounding), 90);
      const float with_row = less(oracle_round(std::fma(less(row[j], 120), 1.25f, own * 0.75f), first), 80);
      expected.push_back(oracle_round(std::fma(with_row, 1.5f, less(rows[i * n + j], 99) * 0.6f), second));
    }
  }
  on_every_table([&](const KernelTable& table, int parts) {
    GuardedArray<uint8_t> y(m * n), scratch(gemm8_scratch_bytes(*packed, m), 0xa5);
    std::copy(rows.begin(), rows.end(), y.data());
    GemmArgs8 args;
    args.gemm = packed.get();
    args.a = a.data();
    args.m = m;
    args.y = y.data();
    args.rounding = rounding;
    args.additions[0] = {row.data(), 0, row_sum};
    args.additions[1] = {y.data(), n, sum};  // in place
    args.addition_count = 2;
    args.scratch = scratch.data();
    for (int part = 0; part < parts; ++part) table.gemm8(args, part, parts);
    EXPECT_EQ(expected, Bytes(y.data(), y.data() + y.size()));
  });
}

void check_products(int m, int k, int n, bool trans_b) {
  SCOPED_TRACE(std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n));
  const Bytes a = random_integers<uint8_t>(static_cast<size_t>(2) * m * k, 1, 0, 255);
  const Bytes b = random_integers<uint8_t>(static_cast<size_t>(2) * k * n, 2, 0, 255);
  const int32_t zero_a = 101, zero_b = 140;
  const float scale = 0.01f / std::sqrt(static_cast<float>(k));
  const Rounding rounding{-90, 100, 90};
  const std::vector<int64_t> offsets = {int64_t{m} * k, 0, 0, 0, int64_t{k} * n, int64_t{m} * n};
  Bytes expected;
  for (size_t i = 0; i < 2; ++i) {
    const uint8_t *left = a.data() + offsets[3 * i], *right = b.data() + offsets[3 * i + 1];
    for (int row = 0; row < m; ++row) {
      for (int column = 0; column < n; ++column) {
        int32_t sum = 0;
        for (int p = 0; p < k; ++p) {
          sum += (left[row * k + p] - zero_a) * (right[trans_b ? column * k + p : p * n + column] - zero_b);
        }
        expected.push_back(oracle_round(static_cast<float>(sum) * scale, rounding));
      }
    }
  }
  on_every_table([&](const KernelTable& table, int parts) {
    GuardedArray<uint8_t> x(a.size()), w(b.size()), y(expected.size()), scratch(products8_scratch_bytes(m, k, n), 0xa5);
    std::copy(a.begin(), a.end(), x.data());
    std::copy(b.begin(), b.end(), w.data());
    const ProductsArgs8 args{x.data(), w.data(), y.data(), 2, offsets.data(), m, k, n, trans_b, zero_a, zero_b, scale,
                             rounding, scratch.data()};
    for (int part = 0; part < parts; ++part) table.products8(args, part, parts);
    EXPECT_EQ(expected, Bytes(y.data(), y.data() + y.size()));
  });
}

TEST(Kernels8, ProductsOfActivations) {
  for (int m : {1, 5, 18}) {
    for (int k : {1, 8, 37, 197}) {
      for (int n : {1, 16, 50}) {
        check_products(m, k, n, false);
        check_products(m, k, n, true);
      }
    }
  }
}

TEST(Kernels8, RangesOfTheRun) {
  std::vector<float> x = random_floats(53, 1, -3, 9);
  x[7] = std::numeric_limits<float>::quiet_NaN();
  x[50] = -4;
  x[51] = 12;
  const std::vector<float> positive = random_floats(16, 2, 1, 2), nothing(5, 0.0f);
  for (const std::vector<float>& values : {x, positive, nothing}) {
    float low = 0, high = 0;
    for (float v : values) {
      low = v < low ? v : low;
      high = v > high ? v : high;
    }
    const float scale = high == low ? 1 : (high - low) / 255;
    const uint8_t zero = oracle_round((0 - low) / scale, {0, 255, 0});
    Bytes expected;
    for (float v : values) {
      const float floor = static_cast<float>(-zero), ceiling = static_cast<float>(255 - zero);
      expected.push_back(std::isnan(v) ? zero : oracle_round(v / scale, {floor, ceiling, zero}));
    }
    on_every_table([&](const KernelTable& table, int) {
      Guarded from(values.size()), factor(1);
      GuardedArray<uint8_t> y(values.size()), centre(1);
      std::copy(values.begin(), values.end(), from.data());
      table.dynamic_quantize8({from.data(), y.data(), values.size(), factor.data(), centre.data()});
      EXPECT_EQ(scale, *factor.data());
      EXPECT_EQ(zero, *centre.data());
      EXPECT_EQ(expected, Bytes(y.data(), y.data() + y.size()));
    });
  }
}

// Three rows of five pixels of 20 channels; the lanes of no channel and the pixels of the halo don't widen the range.
TEST(Kernels8, RangesOfMaps) {
  constexpr int kRows = 3, kWidth = 5, kChannels = 20, kPitch = (kWidth + 1) * kLanes;
  std::vector<float> map(2 * kRows * kPitch, 1000.0f);
  float least = 0, most = 0;
  const auto each = [&](const auto& visit) {
    for (int c = 0; c < kChannels; ++c) {
      for (int i = 0; i < kRows * kWidth; ++i) {
        visit((c / kLanes * kRows + i / kWidth) * kPitch + i % kWidth * kLanes + c % kLanes);
      }
    }
  };
  int drawn = 0;
  each([&](int at) {
    map[at] = static_cast<float>(drawn++ % 37) - 9.5f;
    least = std::min(least, map[at]);
    most = std::max(most, map[at]);
  });
  const float scale = (most - least) / 255;
  const uint8_t zero = oracle_round(-least / scale, {0, 255, 0});
  on_every_table([&](const KernelTable& table, int) {
    std::vector<uint8_t> y(map.size(), 77);
    float factor = 0;
    uint8_t centre = 0;
    table.dynamic_quantize8({map.data(), y.data(), kWidth * kLanes, &factor, &centre, kRows, 2, kChannels - kLanes, kPitch,
                             kRows * kPitch, kPitch, kRows * kPitch});
    EXPECT_EQ(scale, factor);
    EXPECT_EQ(zero, centre);
    each([&](int at) {
      EXPECT_EQ(oracle_round(map[at] / scale, {static_cast<float>(-zero), static_cast<float>(255 - zero), zero}), y[at]);
    });
    EXPECT_EQ(77, y[kWidth * kLanes]) << "beyond a row";
  });
}

// A map of random bytes within a halo of 255, which no maximum may see.
Map8 random_map(int channels, int height, int width, uint32_t seed) {
  Map8 map(channels, height, width, {1, 2, 1, 0}, 255);
  map.fill(random_integers<uint8_t>(static_cast<size_t>(channels) * height * width, seed, 0, 250));
  return map;
}

TEST(Kernels8, MaximaOfWindows) {
  const Map8 x = random_map(37, 9, 11, 1);
  PoolArgs window;
  window.kernel_h = 3;
  window.kernel_w = 2;
  window.stride_h = window.stride_w = 2;
  window.dilation_w = 2;
  window.pad = {1, 1, 1, 1};
  Bytes expected;
  for (int c = 0; c < 37; ++c) {
    for (int h = 0; h < 5; ++h) {
      for (int w = 0; w < 6; ++w) {
        uint8_t most = 0;
        for (int i = 0; i < 3; ++i) {
          for (int j = 0; j < 2; ++j) {
            const int row = 2 * h + i - 1, column = 2 * w + 2 * j - 1;
            if (row >= 0 && row < 9 && column >= 0 && column < 11) most = std::max(most, x.at(c, row, column));
          }
        }
        expected.push_back(most);
      }
    }
  }
  on_every_table([&](const KernelTable& table, int parts) {
    Map8 y(37, 5, 6, {1, 1, 1, 1}, 9);
    for (int part = 0; part < parts; ++part) table.pool8({x.view(), y.view(), window}, part, parts);
    EXPECT_EQ(expected, y.planar());
    y.expect_clean();
  });
}

TEST(Kernels8, MeansOfMaps) {
  const Map8 x = random_map(37, 9, 11, 1);
  const float factor = 1.7f / 99;
  const Rounding rounding{-30, 200, 30};
  Bytes expected;
  std::vector<float> expected_floats;
  for (int c = 0; c < 37; ++c) {
    int32_t sum = 0;
    for (int h = 0; h < 9; ++h) {
      for (int w = 0; w < 11; ++w) sum += x.at(c, h, w) - 77;
    }
    expected_floats.push_back(static_cast<float>(sum) * factor);
    expected.push_back(oracle_round(expected_floats.back(), rounding));
  }
  on_every_table([&](const KernelTable& table, int parts) {
    GuardedArray<uint8_t> y(37);
    Guarded y_float(37);
    for (int part = 0; part < parts; ++part) {
      table.global_pool8({x.view(), 77, factor, nullptr, y.data(), rounding}, part, parts);
      table.global_pool8({x.view(), 77, factor, y_float.data(), nullptr, rounding}, part, parts);
    }
    EXPECT_EQ(expected, Bytes(y.data(), y.data() + 37));
    EXPECT_EQ(expected_floats, std::vector<float>(y_float.data(), y_float.data() + 37));
  });
}

TEST(Kernels8, SumsOfWindows) {
  const Map8 x = random_map(37, 9, 131, 1);
  PoolArgs window;
  window.kernel_h = 3;
  window.kernel_w = 70;
  window.stride_h = 2;
  window.stride_w = 8;
  window.dilation_w = 2;
  window.pad = {1, 8, 1, 8};
  const float factor = 0.7f;
  for (bool squares : {false, true}) {
    std::vector<float> expected;
    for (int c = 0; c < 37; ++c) {
      for (int h = 0; h < 5; ++h) {
        for (int w = 0; w < 2; ++w) {
          int32_t sum = 0;
          for (int i = 0; i < 3; ++i) {
            for (int j = 0; j < 70; ++j) {
              const int row = 2 * h + i - 1, column = 8 * w + 2 * j - 8;
              if (row < 0 || row >= 9 || column < 0 || column >= 131) continue;
              const int32_t number = x.at(c, row, column) - 77;
              sum += squares ? number * number : number;
            }
          }
          expected.push_back(static_cast<float>(sum) * factor);
        }
      }
    }
    on_every_table([&](const KernelTable& table, int parts) {
      Map y(37, 5, 2, {1, 1, 1, 1});
      for (int part = 0; part < parts; ++part) {
        table.sum_pool8({x.view(), y.view(), window, 77, factor, squares}, part, parts);
      }
      EXPECT_EQ(expected, y.planar());
    });
  }
}

TEST(Kernels8, SumsAndProducts) {
  const Map8 a = random_map(37, 5, 7, 1), b = random_map(37, 5, 7, 2), pixel = random_map(37, 1, 1, 3);
  const Rounding rounding{-120, 110, 120};
  for (BinaryKind kind : {BinaryKind::kAdd, BinaryKind::kMul}) {
    for (bool by_channel : {false, true}) {
      const bool product = kind == BinaryKind::kMul;
      BinaryArgs8 args{kind, a.view(), by_channel ? pixel.view() : b.view(), {}, by_channel, 128, 90,
                       product ? 0.01f : 0.5f, 0.75f, rounding};
      Bytes expected;
      for (int c = 0; c < 37; ++c) {
        for (int h = 0; h < 5; ++h) {
          for (int w = 0; w < 7; ++w) {
            const float p = static_cast<float>(a.at(c, h, w) - 128);
            const float q = static_cast<float>((by_channel ? pixel.at(c, 0, 0) : b.at(c, h, w)) - 90);
            expected.push_back(
                oracle_round(product ? p * q * args.factor_a : std::fma(p, args.factor_a, q * args.factor_b), rounding));
          }
        }
      }
      on_every_table([&](const KernelTable& table, int parts) {
        Map8 y(37, 5, 7, {1, 1, 1, 1}, 9);
        args.y = y.view();
        for (int part = 0; part < parts; ++part) table.binary8(args, part, parts);
        EXPECT_EQ(expected, y.planar());
        y.expect_clean();
      });
    }
  }
}

TEST(Kernels8, TablesAreLookedUp) {
  const Map8 x = random_map(20, 5, 7, 1);
  const Bytes table = random_integers<uint8_t>(256, 2, 0, 255);
  Bytes expected = x.planar();
  for (uint8_t& v : expected) v = table[v];
  on_every_table([&](const KernelTable& kernels, int parts) {
    Map8 y(20, 5, 7, {}, 9);
    for (int part = 0; part < parts; ++part) kernels.lookup8({x.view(), y.view(), table.data()}, part, parts);
    EXPECT_EQ(expected, y.planar());
  });
}

// How an axis might be resized: windows of random factors, some of them negative, whose sum is about 1.
struct RandomAxis {
  std::vector<int32_t> firsts, factors;
  DrawAxis8 axis;
  RandomAxis(int length, int count, int each, uint32_t seed) : factors(static_cast<size_t>(count) * static_cast<size_t>(each)) {
    const auto random = random_integers<int32_t>(factors.size(), seed, -(1 << 19), 1 << 20);
    for (int i = 0; i < count; ++i) {
      firsts.push_back(static_cast<int>(int64_t{i} * (length - each) / std::max(1, count - 1)));
      int32_t rest = 1 << kDrawBits;
      for (int j = 0; j < each; ++j) {
        const size_t at = static_cast<size_t>(i * each + j);
        factors[at] = j == each - 1 ? rest : random[at];
        rest -= factors[at];
      }
    }
    axis = {count, each, firsts.data(), factors.data()};
  }
  // Element i of what `value` becomes.
  template <class F>
  uint8_t at(int i, F value) const {
    int64_t sum = int64_t{1} << (kDrawBits - 1);
    for (int j = 0; j < axis.each; ++j) sum += int64_t{factors[static_cast<size_t>(i * axis.each + j)]} * value(firsts[static_cast<size_t>(i)] + j);
    return static_cast<uint8_t>(std::clamp<int64_t>(sum >> kDrawBits, 0, 255));
  }
};

TEST(Kernels8, ImagesAreDrawn) {
  struct Case {
    int width, height, channels, columns, rows, each;
    std::vector<int32_t> sources;
  };
  for (const Case& c : {Case{37, 41, 3, 19, 23, 4, {0, 1, 2}}, Case{5, 3, 3, 33, 16, 2, {2, 1, 0}}, Case{100, 7, 1, 16, 1, 7, {0, 0, 0}},
                        Case{1, 1, 1, 1, 1, 1, {0}}, Case{16, 16, 3, 16, 16, 1, {0, 1, 2}}}) {
    const auto random = random_integers<uint8_t>(static_cast<size_t>(c.width * c.height * c.channels), 1, 0, 255);
    GuardedArray<uint8_t> pixels(random.size());
    std::copy(random.begin(), random.end(), pixels.data());
    const RandomAxis columns(c.width, c.columns, c.each, 2), rows(c.height, c.rows, std::min(c.each, c.height), 3);
    const int planes = static_cast<int>(c.sources.size()), left = 2, top = 1;
    const int plane_width = c.columns + 5, plane_height = c.rows + 2;
    const std::vector<float> tables = random_floats(static_cast<size_t>(planes) * 256, 4);
    const size_t size = static_cast<size_t>(planes * plane_width * plane_height);
    std::vector<float> expected(size, -7);
    for (int p = 0; p < planes; ++p) {
      for (int y = 0; y < c.rows; ++y) {
        for (int x = 0; x < c.columns; ++x) {
          const uint8_t value = rows.at(y, [&](int row) {
            return columns.at(x, [&](int column) {
              return random[static_cast<size_t>((row * c.width + column) * c.channels + c.sources[static_cast<size_t>(p)])];
            });
          });
          expected[static_cast<size_t>((p * plane_height + top + y) * plane_width + left + x)] = tables[static_cast<size_t>(p * 256 + value)];
        }
      }
    }
    on_every_table([&](const KernelTable& table, int) {
      Guarded output(size, -7);
      DrawArgs8 args{pixels.data(), c.width, c.height, c.channels, columns.axis, rows.axis, planes, c.sources.data(), tables.data(),
                     output.data(), plane_width, plane_height, left, top, nullptr};
      GuardedArray<uint8_t> scratch(static_cast<size_t>(draw_scratch_bytes(args)));
      args.scratch = scratch.data();
      table.draw8(args);
      EXPECT_EQ(expected, std::vector<float>(output.data(), output.data() + size));
    });
  }
}

TEST(Kernels8, FloatsAndBack) {
  std::vector<float> x = random_floats(53, 1, -30, 30);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  x[5] = std::numeric_limits<float>::infinity();
  x[19] = -std::numeric_limits<float>::infinity();
  x[20] = 3e38f;
  x[52] = 0.375f;  // between two integers, times 4
  const float scale = 0.25f;
  Bytes expected;
  std::vector<float> back;
  for (float v : x) {
    expected.push_back(std::isnan(v) ? 100 : oracle_round(v / scale, {-100, 155, 100}));
    back.push_back(static_cast<float>(expected.back() - 100) * scale);
  }
  on_every_table([&](const KernelTable& table, int) {
    for (size_t n : {size_t{1}, size_t{16}, x.size()}) {
      Guarded from(n), real(n);
      GuardedArray<uint8_t> y(n);
      std::copy_n(x.begin(), n, from.data());
      table.quantize8({from.data(), y.data(), n, scale, 100});
      table.dequantize8({y.data(), real.data(), n, 100, scale});
      EXPECT_TRUE(std::equal(y.data(), y.data() + n, expected.begin()));
      EXPECT_TRUE(std::equal(real.data(), real.data() + n, back.begin()));
    }
  });
}

TEST(Kernels8, QuotientsAreThoseOfDivisions) {
  // Beside n + 1/2, and at the ends of the floats; of scales whose reciprocals aren't used as well.
  std::vector<float> scales = random_floats(40, 7, 1, 2);
  for (int exponent : {-140, -61, -60, -59, -20, 0, 20, 59, 60, 61, 120}) scales.push_back(std::ldexp(1.37f, exponent));
  for (const float scale : scales) {
    std::vector<float> x = {0.0f, -0.0f, 1e-45f, -1e-39f, 3e38f, -3e38f, scale, -scale};
    for (int n = -130; n < 260; ++n) {
      float at = (static_cast<float>(n) + 0.5f) * scale;
      for (int i = 0; i < 3; ++i) at = std::nextafter(at, -std::numeric_limits<float>::infinity());
      for (int i = 0; i < 7; ++i) {
        x.push_back(at);
        at = std::nextafter(at, std::numeric_limits<float>::infinity());
      }
    }
    Bytes expected;
    for (float v : x) expected.push_back(oracle_round(v / scale, {-100, 155, 100}));
    on_every_table([&](const KernelTable& table, int) {
      GuardedArray<uint8_t> y(x.size());
      table.quantize8({x.data(), y.data(), x.size(), scale, 100});
      EXPECT_EQ(expected, Bytes(y.data(), y.data() + y.size())) << scale;
    });
  }
}

TEST(Kernels8, LayoutsThereAndBack) {
  const Bytes planar = random_integers<uint8_t>(37 * 5 * 7, 1, 0, 255);
  on_every_table([&](const KernelTable& table, int parts) {
    GuardedArray<uint8_t> from(planar.size()), to(planar.size());
    std::copy(planar.begin(), planar.end(), from.data());
    Map8 blocked(37, 5, 7, {1, 1, 1, 1}, 9);
    for (int part = 0; part < parts; ++part) {
      table.planar_to_blocked8({from.data(), 37, 5, 7, 7, 35}, blocked.view(), part, parts);
    }
    EXPECT_EQ(planar, blocked.planar());
    blocked.expect_clean();
    for (int part = 0; part < parts; ++part) {
      table.blocked_to_planar8(blocked.view(), {to.data(), 37, 5, 7, 7, 35}, part, parts);
    }
    EXPECT_EQ(planar, Bytes(to.data(), to.data() + to.size()));
  });
}

}  // namespace
}  // namespace rskip::test
