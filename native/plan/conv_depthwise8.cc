// Depthwise convolution of bytes with floats as its results, whose scale and zero point may be known at run time only, by the kernel
// on floats: what bytes and weights differ from their zero points by are small integers, so that floats hold all sums of their products
// exactly. A band of rows of the input becomes floats at a time.
#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/matrix/pack.h"
#include "plan/kernel_instructions8.h"
#include "plan/simple_instruction.h"

namespace rskip {
namespace {

constexpr int64_t kWindowBytes = 256 << 10;  // a second-level cache holds it and the rows of the result

class DepthwiseConv8 final : public Instruction {
 public:
  DepthwiseConv8(const KernelTable& table, DepthwiseOperands8 operands) : table_(table), o_(std::move(operands)) {
    const ConvShape& s = o_.conv->shape;
    halo_ = conv_input_halo(s, ConvAlgorithm::kDepthwise);
    row_stride_ = (int64_t{halo_.left} + s.in_width + halo_.right) * kLanes;
    const int64_t taps = int64_t{s.kernel_h - 1} * s.dilation_h + 1, blocks = channel_blocks(s.in_channels);
    const int64_t most = kWindowBytes / static_cast<int64_t>(sizeof(float)) / (row_stride_ * blocks);
    band_ = static_cast<int>(std::clamp<int64_t>((most - taps) / s.stride_h + 1, 1, s.out_height));
    block_stride_ = saturating_mul(row_stride_, (band_ - 1) * int64_t{s.stride_h} + taps);
    window_ = saturating_mul(block_stride_, blocks);
  }
  int64_t shareable_work() const override { return o_.multiply_adds; }
  size_t scratch_bytes() const override {
    const int64_t floats = saturating_add(window_, 2 * int64_t{whole_blocks(o_.conv->shape.out_channels)});
    return static_cast<size_t>(saturating_mul(floats, sizeof(float)));
  }

 private:
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    const ConvShape& s = o_.conv->shape;
    float* const window = reinterpret_cast<float*>(workspace.scratch.data());
    float* const scale = window + window_;
    float* const shift = scale + whole_blocks(s.out_channels);
    spread(frame.at<float>(o_.product.scale), o_.product.scales, scale);
    if (o_.product.has_shift) spread(frame.at<float>(o_.product.shift), s.out_channels, shift);
    const BlockedView8 x = resolve(frame, o_.x);
    const int32_t zero = o_.product.has_zero ? *frame.at<uint8_t>(o_.product.zero) : o_.zero;
    const auto [begin, end] = share_of(s.out_height, part, parts);
    for (int row = begin; row < end; row += band_) {
      const int count = std::min(band_, end - row);
      fill(x, zero, row * s.stride_h - s.pad.top, (count - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1, window);
      ConvArgs args;
      args.conv = o_.conv.get();
      args.x = {window + s.pad.top * row_stride_ + halo_.left * kLanes, s.in_channels, s.in_height, s.in_width, row_stride_,
                block_stride_};
      args.y = resolve(frame, o_.y);
      args.y.data += row * args.y.row_stride;
      args.y.height = args.rows = count;
      table_.conv(args, 0, 1);
      const Activation act = o_.product.act, none;
      const bool shifted = o_.product.has_shift;
      table_.binary_channel(BinaryKind::kMul, args.y, scale, false, args.y, shifted ? none : act, 0, 1);
      if (shifted) table_.binary_channel(BinaryKind::kAdd, args.y, shift, false, args.y, act, 0, 1);
    }
  }

  // One number for each channel, from as many or from one.
  void spread(const float* from, int count, float* to) const {
    const int channels = o_.conv->shape.out_channels;
    for (int c = 0; c < whole_blocks(channels); ++c) to[c] = c < channels ? from[count == 1 ? 0 : c] : 0;
  }

  // `count` rows of the input from row `top` on, less the zero point, and zeros around them.
  void fill(const BlockedView8& x, int32_t zero, int top, int count, float* window) const {
    const ptrdiff_t left = ptrdiff_t{halo_.left} * kLanes, width = ptrdiff_t{x.width} * kLanes;
    for (int b = 0; b < x.blocks(); ++b) {
      float* to = window + b * block_stride_;
      for (int row = top; row < top + count; ++row, to += row_stride_) {
        if (row < 0 || row >= x.height) {
          std::fill_n(to, row_stride_, 0.0f);
          continue;
        }
        const uint8_t* from = x.data + b * x.block_stride + row * x.row_stride;
        std::fill_n(to, left, 0.0f);
        table_.dequantize8({from, to + left, static_cast<size_t>(width), zero, 1.0f});
        std::fill(to + left + width, to + row_stride_, 0.0f);
      }
    }
  }

  const KernelTable& table_;
  const DepthwiseOperands8 o_;
  Halo halo_;
  int band_ = 1;  // rows of the result
  int64_t row_stride_ = 0, block_stride_ = 0, window_ = 0;  // of the window, in floats
};

}  // namespace

bool depthwise8_is_exact(const ConvShape& s) {
  constexpr int64_t kExact = 1 << 24, kMost = 255 * 255;
  return int64_t{s.kernel_h} * s.kernel_w <= kExact / kMost;
}

std::shared_ptr<const PackedConv> pack_depthwise8(const ConvShape& s, const int8_t* weight, const int8_t* weight_zero,
                                                  int weight_zeros) {
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  std::vector<float> floats(taps * static_cast<size_t>(s.out_channels));
  for (size_t i = 0; i < floats.size(); ++i) {
    const int zero = weight_zeros == 0 ? 0 : weight_zero[weight_zeros == 1 ? 0 : i / taps];
    floats[i] = static_cast<float>(weight[i] - zero);
  }
  return pack_conv(s, ConvAlgorithm::kDepthwise, floats.data(), nullptr);
}

InstructionPtr make_depthwise8(const KernelTable& table, DepthwiseOperands8 operands) {
  return std::make_unique<DepthwiseConv8>(table, std::move(operands));
}

}  // namespace rskip
