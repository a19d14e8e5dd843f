// As conv_tester.h, for 8-bit numbers: every instruction set must give the oracle's bytes.
#pragma once

#include "kernel_tester.h"

namespace rskip::test {

// Integers in [low, high]; the ends are frequent, as sums of products of extremes are what goes wrong.
template <class T>
std::vector<T> random_integers(size_t n, uint32_t seed, int low, int high) {
  std::mt19937 generator(seed);
  std::vector<T> out(n);
  for (T& x : out) {
    const uint32_t draw = generator() >> 4;
    x = static_cast<T>(draw % 8 == 0 ? low : draw % 8 == 1 ? high : low + static_cast<int>(draw / 8 % (high - low + 1)));
  }
  return out;
}

// min(high, max(low, the nearest integer)) + zero, of equally near ones the even one.
inline uint8_t oracle_round(double value, const Rounding& rounding) {
  const double rounded = std::min<double>(rounding.high, std::max<double>(rounding.low, std::nearbyint(value)));
  return static_cast<uint8_t>(static_cast<int>(rounded) + rounding.zero);
}

class ConvTester8 {
 public:
  ConvTester8& channels(int in, int out) { return in_ = in, out_ = out, *this; }
  ConvTester8& map(int height, int width) { return height_ = height, width_ = width, *this; }
  ConvTester8& kernel(int height, int width) { return shape_.kernel_h = height, shape_.kernel_w = width, *this; }
  ConvTester8& kernel(int size) { return kernel(size, size); }
  ConvTester8& stride(int height, int width) { return shape_.stride_h = height, shape_.stride_w = width, *this; }
  ConvTester8& stride(int size) { return stride(size, size); }
  ConvTester8& dilation(int height, int width) { return shape_.dilation_h = height, shape_.dilation_w = width, *this; }
  ConvTester8& pad(Halo pad) { return shape_.pad = pad, *this; }
  ConvTester8& pad(int size) { return pad({size, size, size, size}); }
  ConvTester8& groups(int groups) { return shape_.groups = groups, *this; }
  ConvTester8& input_zero(int zero) { return input_zero_ = zero, *this; }
  ConvTester8& rounding(Rounding rounding) { return rounding_ = rounding, *this; }
  ConvTester8& bias(bool on) { return bias_ = on, *this; }
  // Zero points of the weights: one, or one for each output channel.
  ConvTester8& weight_zeros(int count) { return weight_zeros_ = count, *this; }
  ConvTester8& one_scale() { return one_scale_ = true, *this; }
  ConvTester8& residual(bool first = false) { return residual_ = true, addition_.residual_first = first, *this; }
  ConvTester8& in_place() { return in_place_ = true, residual(); }
  // The largest sums that there are: every input is 255, every weight this one.
  ConvTester8& largest(int8_t weight) { return largest_ = weight, input_zero(0); }
  ConvTester8& extra_halo(int size) { return extra_halo_ = size, *this; }
  ConvTester8& output_halo(int size) { return output_halo_ = size, *this; }

  void check() {
    prepare();
    SCOPED_TRACE("channels " + std::to_string(in_) + " to " + std::to_string(out_) + ", map " + std::to_string(height_) +
                 "x" + std::to_string(width_) + ", kernel " + std::to_string(shape_.kernel_h) + "x" +
                 std::to_string(shape_.kernel_w) + ", stride " + std::to_string(shape_.stride_w) + ", groups " +
                 std::to_string(shape_.groups));
    for (const KernelTable* table : available_tables()) {
      SCOPED_TRACE(table->name);
      pack(table->isa);
      for (int parts : {1, 2, 3, 7}) EXPECT_EQ(oracle_, run(*table, parts)) << parts << " parts";
    }
  }

 private:
  static Halo plus(Halo h, int extra) { return {h.top + extra, h.left + extra, h.bottom + extra, h.right + extra}; }

  void prepare() {
    ConvShape& s = shape_;
    s.in_channels = in_;
    s.out_channels = out_;
    s.in_height = height_;
    s.in_width = width_;
    s.out_height = (height_ + s.pad.top + s.pad.bottom - (s.kernel_h - 1) * s.dilation_h - 1) / s.stride_h + 1;
    s.out_width = (width_ + s.pad.left + s.pad.right - (s.kernel_w - 1) * s.dilation_w - 1) / s.stride_w + 1;
    const size_t out_size = static_cast<size_t>(out_) * s.out_height * s.out_width;
    const size_t k = static_cast<size_t>(in_ / s.groups) * s.kernel_h * s.kernel_w;
    x_ = random_integers<uint8_t>(static_cast<size_t>(in_) * height_ * width_, 1, 0, 255);
    weight_ = random_integers<int8_t>(out_ * k, 2, -128, 127);
    if (largest_ != 0) {
      std::fill(x_.begin(), x_.end(), 255);
      std::fill(weight_.begin(), weight_.end(), largest_);
    }
    weight_zero_ = random_integers<int8_t>(weight_zeros_, 6, -128, 127);
    biases_ = random_integers<int32_t>(out_, 3, -20000, 20000);
    residual_values_ = random_integers<uint8_t>(out_size, 4, 0, 255);
    // So that most results are inside the range, some exactly between two integers, and some beyond.
    scales_ = random_floats(one_scale_ ? 1 : out_, 5, 0.5f, 1.5f);
    for (float& scale : scales_) scale *= 64 / (8192 * std::sqrt(static_cast<float>(k)));
    scales_[0] = std::exp2(std::floor(std::log2(scales_[0])));
    compute_oracle();
  }

  void pack(Isa isa) {
    const bool winograd = winograd8_suits(shape_, isa) && weight_zeros_ == 0 && winograd8_is_exact(shape_, weight_.data());
    algorithm_ = winograd ? ConvAlgorithm::kWinograd4 : choose_conv8_algorithm(shape_);
    packed_ = pack_conv8(shape_, algorithm_, weight_.data(), bias_ ? biases_.data() : nullptr, scales_.data(),
                         static_cast<int>(scales_.size()), input_zero_, weight_zero_.data(), weight_zeros_);
  }

  int32_t oracle_sum(int m, int h, int w) const {
    const ConvShape& s = shape_;
    const int group_in = s.in_channels / s.groups, group_out = s.out_channels / s.groups;
    const int zero = weight_zeros_ == 0 ? 0 : weight_zero_[weight_zeros_ == 1 ? 0 : m];
    int32_t sum = bias_ ? biases_[m] : 0;
    for (int c = 0; c < group_in; ++c) {
      for (int i = 0; i < s.kernel_h; ++i) {
        for (int j = 0; j < s.kernel_w; ++j) {
          const int row = h * s.stride_h + i * s.dilation_h - s.pad.top;
          const int column = w * s.stride_w + j * s.dilation_w - s.pad.left;
          if (row < 0 || row >= s.in_height || column < 0 || column >= s.in_width) continue;
          const int channel = m / group_out * group_in + c;
          sum += (x_[(static_cast<size_t>(channel) * s.in_height + row) * s.in_width + column] - input_zero_) *
                 (weight_[((static_cast<size_t>(m) * group_in + c) * s.kernel_h + i) * s.kernel_w + j] - zero);
        }
      }
    }
    return sum;
  }

  void compute_oracle() {
    oracle_.clear();
    for (int m = 0; m < out_; ++m) {
      const float scale = scales_[one_scale_ ? 0 : m];
      for (int h = 0; h < shape_.out_height; ++h) {
        for (int w = 0; w < shape_.out_width; ++w) {
          // The product is rounded to a float before it is rounded to an integer.
          const float value = static_cast<float>(oracle_sum(m, h, w)) * scale;
          uint8_t y = oracle_round(value, rounding_);
          if (residual_) {
            const float own = static_cast<float>(y - rounding_.zero);
            const float other = static_cast<float>(residual_values_[oracle_.size()] - addition_.residual_zero);
            const float sum = addition_.residual_first
                                  ? std::fma(other, addition_.residual_scale, own * addition_.scale)
                                  : std::fma(own, addition_.scale, other * addition_.residual_scale);
            y = oracle_round(sum, addition_.rounding);
          }
          oracle_.push_back(y);
        }
      }
    }
  }

  std::vector<uint8_t> run(const KernelTable& table, int parts) const {
    const ConvShape& s = shape_;
    ConvArgs8 args;
    args.conv = packed_.get();
    args.rounding = rounding_;
    args.addition = addition_;
    const Halo halo = plus(conv8_input_halo(s, algorithm_), extra_halo_);
    const uint8_t zero = static_cast<uint8_t>(input_zero_);
    Map8 x(in_, height_, width_, halo, zero);
    const size_t row = width_ + halo.left + halo.right;
    const size_t plane = row * (height_ + halo.top + halo.bottom);
    const bool is_planar = algorithm_ == ConvAlgorithm::kPlanar;
    GuardedArray<uint8_t> planar(is_planar ? plane * in_ : 0, zero);
    if (is_planar) {
      args.x_planar = {planar.data() + halo.top * row + halo.left, in_, height_, width_, static_cast<ptrdiff_t>(row),
                       static_cast<ptrdiff_t>(plane)};
      size_t i = 0;
      for (int c = 0; c < in_; ++c) {
        for (int h = 0; h < height_; ++h) {
          for (int w = 0; w < width_; ++w) args.x_planar.data[c * plane + h * row + w] = x_[i++];
        }
      }
    } else {
      args.x = x.fill(x_).view();
    }
    const Halo out_halo = plus({}, output_halo_);
    Map8 residual(out_, s.out_height, s.out_width, in_place_ ? out_halo : plus(out_halo, 1), 77);
    residual.fill(residual_values_);
    Map8 y(out_, s.out_height, s.out_width, out_halo, 77);
    if (residual_) args.residual = &residual.view();
    args.y = in_place_ ? residual.view() : y.view();
    GuardedArray<uint8_t> scratch(conv8_scratch_bytes(*packed_, table.isa), 0xa5);
    args.scratch = scratch.data();
    for (int part = 0; part < parts; ++part) table.conv8(args, part, parts);
    const Map8& written = in_place_ ? residual : y;
    written.expect_clean();
    return written.planar();
  }

  int in_ = 16, out_ = 16, height_ = 8, width_ = 8;
  ConvShape shape_;
  int input_zero_ = 113;
  Rounding rounding_{-100, 155, 100};
  Addition8 addition_{0.7f, 1.3f, 91, false, {-60, 140, 60}};
  bool residual_ = false, in_place_ = false, bias_ = true, one_scale_ = false;
  int8_t largest_ = 0;
  int extra_halo_ = 0, output_halo_ = 0, weight_zeros_ = 0;
  ConvAlgorithm algorithm_ = ConvAlgorithm::kDirect;
  std::vector<uint8_t> x_, residual_values_, oracle_;
  std::vector<int8_t> weight_, weight_zero_;
  std::vector<int32_t> biases_;
  std::vector<float> scales_;
  std::shared_ptr<const PackedConv8> packed_;
};

}  // namespace rskip::test
