// A convolution under test: `ConvTester().channels(24, 40).map(9, 11).kernel(3).pad(1).residual().check()` compares
// every instruction set, in all forms, with the double oracle and with scalar's bytes, whole and in parts; in the order of AMX, also with
// maps of pairs.
#pragma once

#include <bit>

#include "kernels/bfloat16/pack16.h"

#include "kernel_tester.h"

namespace rskip::test {

// Which maps are pairs.
struct Pairs {
  bool x = false, y = false;
};

class ConvTester {
 public:
  ConvTester& channels(int in, int out) { return in_ = in, out_ = out, *this; }
  ConvTester& map(int height, int width) { return height_ = height, width_ = width, *this; }
  ConvTester& kernel(int height, int width) { return shape_.kernel_h = height, shape_.kernel_w = width, *this; }
  ConvTester& kernel(int size) { return kernel(size, size); }
  ConvTester& stride(int height, int width) { return shape_.stride_h = height, shape_.stride_w = width, *this; }
  ConvTester& stride(int size) { return stride(size, size); }
  ConvTester& dilation(int height, int width) { return shape_.dilation_h = height, shape_.dilation_w = width, *this; }
  ConvTester& dilation(int size) { return dilation(size, size); }
  ConvTester& pad(Halo pad) { return shape_.pad = pad, *this; }
  ConvTester& pad(int size) { return pad({size, size, size, size}); }
  ConvTester& groups(int groups) { return shape_.groups = groups, *this; }
  ConvTester& act(Activation act) { return act_ = act, *this; }
  ConvTester& residual(bool on = true) { return residual_ = on, *this; }
  // The output is written over the residual, as in a residual stream.
  ConvTester& in_place() { return residual_ = in_place_ = true, *this; }
  ConvTester& bias(bool on) { return bias_ = on, *this; }
  // More halo than asked for, as when another layer reads the same map.
  ConvTester& extra_halo(int size) { return extra_halo_ = size, *this; }
  ConvTester& output_halo(int size) { return output_halo_ = size, *this; }
  ConvTester& algorithm(ConvAlgorithm algorithm) { return algorithm_ = algorithm, chosen_ = true, *this; }

  ConvShape shape() const {
    ConvShape s = shape_;
    s.in_channels = in_;
    s.out_channels = out_;
    s.in_height = height_;
    s.in_width = width_;
    s.out_height = (height_ + s.pad.top + s.pad.bottom - (s.kernel_h - 1) * s.dilation_h - 1) / s.stride_h + 1;
    s.out_width = (width_ + s.pad.left + s.pad.right - (s.kernel_w - 1) * s.dilation_w - 1) / s.stride_w + 1;
    return s;
  }

  void check() {
    prepare();
    SCOPED_TRACE(describe());
    const std::vector<float> expected = run(scalar(), 1);
    expect_near_oracle(expected);
    for (const KernelTable* table : tables_in_all_forms()) {
      SCOPED_TRACE(table->name);
      for (int parts : {1, 2, 3, 7}) EXPECT_TRUE(same_bits(expected, run(*table, parts))) << parts << " parts";
      if (precision_of(algorithm_) == Precision::kBfloat16Amx) check_pairs(*table, expected);
    }
  }

  // Largest error of the best table against the oracle.
  double max_error() {
    prepare();
    const std::vector<float> y = run(*best_table(), 1);
    double error = 0;
    for (size_t i = 0; i < y.size(); ++i) error = std::max(error, std::abs(y[i] - oracle_[i]));
    return error;
  }

 private:
  static Halo plus(Halo h, int extra) { return {h.top + extra, h.left + extra, h.bottom + extra, h.right + extra}; }

  // The same bits from a map of pairs, and those bits rounded in one.
  void check_pairs(const KernelTable& table, const std::vector<float>& expected) const {
    std::vector<float> nearest = expected;
    for (float& y : nearest) y = std::bit_cast<float>(round_to_bfloat16(y) << 16);
    for (const Pairs& pairs : {Pairs{true, false}, Pairs{false, true}, Pairs{true, true}}) {
      if ((pairs.x && reads_planar(algorithm_)) || (pairs.y && !is_clamp(act_))) continue;
      for (int parts : {1, 3}) {
        EXPECT_TRUE(same_bits(pairs.y ? nearest : expected, run(table, parts, pairs)))
            << parts << " parts, pairs of x: " << pairs.x << ", of y: " << pairs.y;
      }
    }
  }
  static std::vector<float> to_pairs(const std::vector<float>& planar, size_t pixels) {
    const size_t channels = planar.size() / pixels;
    std::vector<float> pairs(pixels * static_cast<size_t>(channels_of_pairs(static_cast<int>(channels))), 0.0f);
    for (size_t c = 0; c < channels; c += 2) {
      for (size_t i = 0; i < pixels; ++i) {
        pairs[c / 2 * pixels + i] = pair_of(planar[c * pixels + i], c + 1 < channels ? planar[(c + 1) * pixels + i] : 0);
      }
    }
    return pairs;
  }
  // What lies beyond the last channel is zero.
  static std::vector<float> from_pairs(const std::vector<float>& pairs, size_t pixels, size_t channels) {
    std::vector<float> planar(2 * pairs.size());
    for (size_t i = 0; i < pairs.size(); ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(pairs[i]);
      const size_t at = i / pixels * 2 * pixels + i % pixels;
      planar[at] = std::bit_cast<float>(bits << 16);
      planar[at + pixels] = std::bit_cast<float>(bits & 0xffff0000);
    }
    for (size_t i = channels * pixels; i < planar.size(); ++i) EXPECT_EQ(std::bit_cast<uint32_t>(planar[i]), 0u);
    planar.resize(channels * pixels);
    return planar;
  }

  std::string describe() const {
    const ConvShape s = shape();
    return "channels " + std::to_string(s.in_channels) + " to " + std::to_string(s.out_channels) + ", map " +
           std::to_string(s.in_height) + "x" + std::to_string(s.in_width) + ", kernel " + std::to_string(s.kernel_h) +
           "x" + std::to_string(s.kernel_w) + ", stride " + std::to_string(s.stride_h) + "x" +
           std::to_string(s.stride_w) + ", groups " + std::to_string(s.groups) + ", activation " +
           std::to_string(static_cast<int>(act_.kind)) + ", algorithm " + std::to_string(static_cast<int>(algorithm_));
  }

  void prepare() {
    const ConvShape s = shape();
    if (!chosen_) algorithm_ = choose_conv_algorithm(s);
    const size_t in_size = static_cast<size_t>(s.in_channels) * s.in_height * s.in_width;
    const size_t out_size = static_cast<size_t>(s.out_channels) * s.out_height * s.out_width;
    const size_t k = static_cast<size_t>(s.in_channels / s.groups) * s.kernel_h * s.kernel_w;
    x_ = random_floats(in_size, 1);
    weight_ = random_floats(s.out_channels * k, 2);
    bias_values_ = bias_ ? random_floats(s.out_channels, 3) : std::vector<float>(s.out_channels, 0.0f);
    residual_values_ = random_floats(out_size, 4);
    packed_ = pack_conv(s, algorithm_, weight_.data(), bias_ ? bias_values_.data() : nullptr);
    compute_oracle(s);
  }

  void compute_oracle(const ConvShape& s) {
    const int group_in = s.in_channels / s.groups;
    const int group_out = s.out_channels / s.groups;
    oracle_.clear();
    magnitude_.clear();
    for (int m = 0; m < s.out_channels; ++m) {
      for (int h = 0; h < s.out_height; ++h) {
        for (int w = 0; w < s.out_width; ++w) {
          double sum = bias_values_[m];
          double magnitude = std::abs(sum);
          for (int c = 0; c < group_in; ++c) {
            for (int i = 0; i < s.kernel_h; ++i) {
              for (int j = 0; j < s.kernel_w; ++j) {
                const int row = h * s.stride_h + i * s.dilation_h - s.pad.top;
                const int column = w * s.stride_w + j * s.dilation_w - s.pad.left;
                if (row < 0 || row >= s.in_height || column < 0 || column >= s.in_width) continue;
                const int channel = m / group_out * group_in + c;
                const double product =
                    static_cast<double>(
                        rounded(x_[(static_cast<size_t>(channel) * s.in_height + row) * s.in_width + column])) *
                    rounded(weight_[((static_cast<size_t>(m) * group_in + c) * s.kernel_h + i) * s.kernel_w + j]);
                sum += product;
                magnitude += std::abs(product);
              }
            }
          }
          if (residual_) {
            sum += residual_values_[oracle_.size()];
            magnitude += std::abs(residual_values_[oracle_.size()]);
          }
          oracle_.push_back(oracle_activation(sum, act_));
          magnitude_.push_back(magnitude);
        }
      }
    }
  }

  float rounded(float x) const { return is_bfloat16(algorithm_) ? nearest_bfloat16(x) : x; }

  void expect_near_oracle(const std::vector<float>& y) const {
    const ConvShape s = shape();
    const int64_t terms = static_cast<int64_t>(s.in_channels / s.groups) * s.kernel_h * s.kernel_w + 4;
    // Winograd's transforms add and subtract what the direct sum never holds.
    const bool winograd = algorithm_ == ConvAlgorithm::kWinograd2 || algorithm_ == ConvAlgorithm::kWinograd4;
    for (size_t i = 0; i < y.size(); ++i) {
      const double tolerance = sum_tolerance(terms, (winograd ? 4 : 1) * magnitude_[i]);
      ASSERT_NEAR(y[i], oracle_[i], tolerance) << "at " << i;
    }
  }

  decltype(KernelTable::conv) kernel_of(const KernelTable& table) const {
    switch (precision_of(algorithm_)) {
      case Precision::kBfloat16: return table.conv16;
      case Precision::kBfloat16Amx: return table.conv16_amx;
      case Precision::kFloat32: break;
    }
    return table.conv;
  }

  std::vector<float> run(const KernelTable& table, int parts, Pairs pairs = {}) const {
    const ConvShape s = shape();
    ConvArgs args;
    args.conv = packed_.get();
    args.act = act_;
    const Halo halo = plus(conv_input_halo(s, algorithm_), extra_halo_);
    args.x_pairs = pairs.x;
    args.y_pairs = pairs.y;
    const size_t in_pixels = static_cast<size_t>(s.in_height) * s.in_width, out_pixels = static_cast<size_t>(s.out_height) * s.out_width;
    Map x(pairs.x ? channels_of_pairs(s.in_channels) : s.in_channels, s.in_height, s.in_width, halo);
    const size_t row = s.in_width + halo.left + halo.right;
    const size_t plane = row * (s.in_height + halo.top + halo.bottom);
    Guarded planar(reads_planar(algorithm_) ? plane * s.in_channels : 0);
    if (reads_planar(algorithm_)) {
      args.x_planar = {planar.data() + halo.top * row + halo.left, s.in_channels, s.in_height, s.in_width,
                       static_cast<ptrdiff_t>(row), static_cast<ptrdiff_t>(plane)};
      size_t i = 0;
      for (int c = 0; c < s.in_channels; ++c) {
        for (int h = 0; h < s.in_height; ++h) {
          for (int w = 0; w < s.in_width; ++w) args.x_planar.data[c * plane + h * row + w] = x_[i++];
        }
      }
    } else {
      args.x = x.fill(pairs.x ? to_pairs(x_, in_pixels) : x_).view();
    }
    const Halo out_halo = plus({}, output_halo_);
    Map residual(s.out_channels, s.out_height, s.out_width, in_place_ ? out_halo : plus(out_halo, 1));
    residual.fill(residual_values_);
    Map y(pairs.y ? channels_of_pairs(s.out_channels) : s.out_channels, s.out_height, s.out_width, out_halo);
    const bool in_place = in_place_ && !pairs.y;
    if (residual_) args.residual = &residual.view();
    args.y = in_place ? residual.view() : y.view();
    for (int part = 0; part < parts; ++part) {
      Guarded scratch(conv_scratch_bytes(*packed_) / sizeof(float), std::numeric_limits<float>::quiet_NaN());
      args.scratch = scratch.data();
      kernel_of(table)(args, part, parts);
    }
    const Map& written = in_place ? residual : y;
    written.expect_clean();
    return pairs.y ? from_pairs(written.planar(), out_pixels, static_cast<size_t>(s.out_channels)) : written.planar();
  }

  int in_ = 16, out_ = 16, height_ = 8, width_ = 8;
  ConvShape shape_;
  Activation act_;
  bool residual_ = false, in_place_ = false, bias_ = true, chosen_ = false;
  int extra_halo_ = 0, output_halo_ = 0;
  ConvAlgorithm algorithm_ = ConvAlgorithm::kDirect;
  std::vector<float> x_, weight_, bias_values_, residual_values_;
  std::vector<double> oracle_, magnitude_;
  std::shared_ptr<const PackedConv> packed_;
};

}  // namespace rskip::test
