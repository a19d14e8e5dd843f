// A depthwise convolution together with the convolution before it and, maybe, the 1x1 one behind it, in bands of rows:
// what one writes is still in the cache when the next one reads it. A worker's share is a run of the depthwise one's rows;
// the first one's rows between two shares are computed twice.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include "kernels/matrix/pack.h"
#include "plan/simple_instruction.h"

namespace rskip {
namespace {

// A second-level cache holds a window twice.
constexpr int64_t kWindowFloats = (256 << 10) / sizeof(float);

// The rows of the first convolution's result that a band of the second one's needs, with its halo.
struct Window {
  Halo halo;
  int width = 0, rows = 0, blocks = 0, band = 0;  // band: rows of the second convolution
  int64_t row_stride = 0, block_stride = 0;

  explicit Window(const ConvShape& second)
      : halo(conv_input_halo(second, ConvAlgorithm::kDepthwise)),
        width(second.in_width),
        blocks(channel_blocks(second.in_channels)) {
    row_stride = (int64_t{halo.left} + width + halo.right) * kLanes;
    const int taps = (second.kernel_h - 1) * second.dilation_h + 1;
    const int most = static_cast<int>(kWindowFloats / (row_stride * blocks));
    band = std::clamp((most - taps) / second.stride_h + 1, 1, second.out_height);
    rows = (band - 1) * second.stride_h + taps;
    block_stride = saturating_mul(row_stride, rows);
  }
  int64_t bytes() const { return saturating_product({block_stride, blocks, sizeof(float)}); }
};

class FusedConvs final : public Instruction {
 public:
  FusedConvs(const KernelTable& table, ConvOperands first, ConvOperands second, std::optional<ConvOperands> third)
      : table_(table),
        first_(std::move(first)),
        second_(std::move(second)),
        third_(std::move(third)),
        window_(second_.conv->shape) {
    const ConvShape& s = second_.conv->shape;
    band_view_ = {nullptr, s.out_channels, s.out_height, s.out_width, static_cast<ptrdiff_t>(s.out_width) * kLanes, 0};
    band_view_.block_stride = window_.band * band_view_.row_stride;
  }
  int64_t shareable_work() const override {
    return first_.multiply_adds + second_.multiply_adds + (third_ ? third_->multiply_adds : 0);
  }
  size_t scratch_bytes() const override {
    const size_t own = std::max(conv_scratch_bytes(*first_.conv), third_ ? conv_scratch_bytes(*third_->conv) : 0);
    return static_cast<size_t>(saturating_add(window_.bytes(), band_bytes())) + own;
  }

 private:
  // A band is no larger than a map, which has been laid out.
  int64_t band_bytes() const {
    return third_ ? band_view_.block_stride * band_view_.blocks() * static_cast<int64_t>(sizeof(float)) : 0;
  }

  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    const ConvShape& s = second_.conv->shape;
    const auto [begin, end] = share_of(s.out_height, part, parts);
    float* const window = reinterpret_cast<float*>(workspace.scratch.data());
    clear_sides(window);
    int held = begin * s.stride_h - s.pad.top, held_end = held;  // rows in the window, from its first on
    for (int row = begin; row < end; row += window_.band) {
      const int count = std::min(window_.band, end - row);
      const int top = row * s.stride_h - s.pad.top;
      const int bottom = (row + count - 1) * s.stride_h - s.pad.top + (s.kernel_h - 1) * s.dilation_h + 1;
      if (top > held && top < held_end) move_rows(window, top - held, held_end - top);
      fill_rows(frame, window, top, std::max(top, held_end), bottom);
      held = top;
      held_end = bottom;
      if (third_) {
        BlockedView between = band_view_;
        between.data = window + window_.block_stride * window_.blocks;
        compute_second(window, between, nullptr, count);
        compute_third(frame, between, window, row, count);
      } else {
        const Target to(frame, second_, row);
        compute_second(window, to.y, to.residual, count);
      }
    }
  }

  // Rows of an operand's result, and of its residual.
  struct Target {
    Target(const Frame& frame, const ConvOperands& o, int row) : y(resolve(frame, o.y)) {
      y.data += row * y.row_stride;
      if (!o.has_residual) return;
      added = resolve(frame, o.residual);
      added.data += row * added.row_stride;
      residual = &added;
    }
    BlockedView y, added;
    const BlockedView* residual = nullptr;
  };

  void clear_sides(float* window) const {
    const size_t left = static_cast<size_t>(window_.halo.left) * kLanes * sizeof(float);
    const size_t right = static_cast<size_t>(window_.halo.right) * kLanes * sizeof(float);
    for (int64_t row = int64_t{window_.rows} * window_.blocks; row > 0; --row, window += window_.row_stride) {
      std::memset(window, 0, left);
      std::memset(window + (window_.halo.left + window_.width) * kLanes, 0, right);
    }
  }

  // Rows [from, from + count) of the window to its beginning.
  void move_rows(float* window, int from, int count) const {
    for (int block = 0; block < window_.blocks; ++block, window += window_.block_stride) {
      std::memmove(window, window + from * window_.row_stride,
                   static_cast<size_t>(count * window_.row_stride) * sizeof(float));
    }
  }

  // Rows [from, to) of the first convolution's result, zeros outside of it; the window begins at row `top`.
  void fill_rows(const Frame& frame, float* window, int top, int from, int to) const {
    const ConvShape& s = first_.conv->shape;
    for (int row = from; row < to; ++row) {
      if (row >= 0 && row < s.out_height) continue;
      float* at = window + (row - top) * window_.row_stride;
      for (int block = 0; block < window_.blocks; ++block, at += window_.block_stride) {
        std::memset(at, 0, static_cast<size_t>(window_.row_stride) * sizeof(float));
      }
    }
    const int begin = std::max(from, 0), end = std::min(to, s.out_height);
    if (begin >= end) return;
    ConvArgs args;
    if (first_.planar) {
      args.x_planar = resolve(frame, first_.x_planar);
      args.x_planar.data += static_cast<ptrdiff_t>(begin) * s.stride_h * args.x_planar.row_stride;
    } else {
      args.x = resolve(frame, first_.x);
      args.x.data += static_cast<ptrdiff_t>(begin) * s.stride_h * args.x.row_stride;
    }
    args.y = view(window, begin - top);
    compute_rows(first_, args, end - begin, window);
  }

  void compute_second(float* window, const BlockedView& y, const BlockedView* residual, int count) const {
    ConvArgs args;
    args.x = view(window, second_.conv->shape.pad.top);
    args.y = y;
    args.residual = residual;
    compute_rows(second_, args, count, window);
  }

  void compute_third(const Frame& frame, const BlockedView& x, float* window, int row, int count) const {
    const Target to(frame, *third_, row);
    ConvArgs args;
    args.x = x;
    args.y = to.y;
    args.residual = to.residual;
    compute_rows(*third_, args, count, window);
  }

  // `args` has the views. What convolutions need themselves is behind the window and the band.
  void compute_rows(const ConvOperands& o, ConvArgs& args, int rows, float* window) const {
    args.conv = o.conv.get();
    args.act = o.act;
    args.rows = rows;
    args.scratch = reinterpret_cast<std::byte*>(window) + window_.bytes() + band_bytes();
    conv_kernel(table_, *o.conv)(args, 0, 1);
  }

  BlockedView view(float* window, int row) const {
    const ConvShape& s = second_.conv->shape;
    float* const origin = window + row * window_.row_stride + static_cast<ptrdiff_t>(window_.halo.left) * kLanes;
    return {origin, s.in_channels, s.in_height, s.in_width, window_.row_stride, window_.block_stride};
  }

  const KernelTable& table_;
  const ConvOperands first_, second_;
  const std::optional<ConvOperands> third_;
  const Window window_;
  BlockedView band_view_;  // of a band of the second one's result
};

}  // namespace

InstructionPtr make_fused_convs(const KernelTable& table, ConvOperands first, ConvOperands second,
                                std::optional<ConvOperands> third) {
  return std::make_unique<FusedConvs>(table, std::move(first), std::move(second), std::move(third));
}

}  // namespace rskip
