// A depthwise convolution together with the convolution before it and, maybe, the 1x1 one behind it, in bands of rows:
// what one writes is still in the cache when the next one reads it. A worker's share is a run of the depthwise one's rows;
// the first one's rows between two shares are computed twice.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include "kernels/int8/pack8.h"
#include "plan/kernel_instructions8.h"
#include "plan/simple_instruction.h"

namespace rskip {
namespace {

// A second-level cache holds a window twice.
constexpr int64_t kWindowBytes = 256 << 10;

// What differs between convolutions of floats and of bytes.
struct Floats {
  using Element = float;
  using Operands = ConvOperands;
  using Args = ConvArgs;
  static Halo halo(const ConvShape& shape) { return conv_input_halo(shape, ConvAlgorithm::kDepthwise); }
  static size_t scratch_bytes(const KernelTable&, const PackedConv& conv) { return conv_scratch_bytes(conv); }
  static int halo_byte(const Operands&) { return 0; }
  static void run(const KernelTable& table, const Operands& o, Args& args) {
    args.act = o.act;
    conv_kernel(table, *o.conv)(args, 0, 1);
  }
};
struct Bytes {
  using Element = uint8_t;
  using Operands = ConvOperands8;
  using Args = ConvArgs8;
  static Halo halo(const ConvShape& shape) { return conv8_input_halo(shape, ConvAlgorithm::kDepthwise); }
  static size_t scratch_bytes(const KernelTable& table, const PackedConv8& conv) { return conv8_scratch_bytes(conv, table.isa); }
  static int halo_byte(const Operands& o) { return o.x_zero; }
  static void run(const KernelTable& table, const Operands& o, Args& args) {
    args.rounding = o.rounding;
    args.addition = o.addition;
    table.conv8(args, 0, 1);
  }
};

// The rows of the first convolution's result that a band of the second one's needs, with its halo.
struct Window {
  Halo halo;
  int width = 0, rows = 0, blocks = 0, band = 0;  // band: rows of the second convolution
  int64_t row_stride = 0, block_stride = 0;

  Window(const ConvShape& second, const Halo& around, int64_t element_bytes)
      : halo(around), width(second.in_width), blocks(channel_blocks(second.in_channels)) {
    row_stride = (int64_t{halo.left} + width + halo.right) * kLanes;
    const int taps = (second.kernel_h - 1) * second.dilation_h + 1;
    const int most = static_cast<int>(kWindowBytes / element_bytes / (row_stride * blocks));
    band = std::clamp((most - taps) / second.stride_h + 1, 1, second.out_height);
    rows = (band - 1) * second.stride_h + taps;
    block_stride = saturating_mul(row_stride, rows);
  }
  int64_t elements() const { return saturating_mul(block_stride, blocks); }
};

template <class Kind>
class FusedConvs final : public Instruction {
  using Element = typename Kind::Element;
  using Operands = typename Kind::Operands;
  using Args = typename Kind::Args;
  using View = Blocked<Element>;

 public:
  FusedConvs(const KernelTable& table, Operands first, Operands second, std::optional<Operands> third)
      : table_(table),
        first_(std::move(first)),
        second_(std::move(second)),
        third_(std::move(third)),
        window_(second_.conv->shape, Kind::halo(second_.conv->shape), sizeof(Element)) {
    const ConvShape& s = second_.conv->shape;
    band_view_ = {nullptr, s.out_channels, s.out_height, s.out_width, static_cast<ptrdiff_t>(s.out_width) * kLanes, 0};
    band_view_.block_stride = window_.band * band_view_.row_stride;
  }
  int64_t shareable_work() const override {
    return first_.multiply_adds + second_.multiply_adds + (third_ ? third_->multiply_adds : 0);
  }
  size_t scratch_bytes() const override {
    const size_t own = std::max(Kind::scratch_bytes(table_, *first_.conv), third_ ? Kind::scratch_bytes(table_, *third_->conv) : 0);
    return static_cast<size_t>(own_scratch()) + own;
  }

 private:
  // Where what convolutions need themselves begins: behind the window and the band, which is no larger than a map that has been
  // laid out.
  int64_t own_scratch() const {
    const int64_t band = third_ ? band_view_.block_stride * band_view_.blocks() : 0;
    const int64_t bytes = saturating_mul(saturating_add(window_.elements(), band), sizeof(Element));
    return saturating_mul(saturating_add(bytes, 63) / 64, 64);
  }

  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    const ConvShape& s = second_.conv->shape;
    const auto [begin, end] = share_of(s.out_height, part, parts);
    Element* const window = reinterpret_cast<Element*>(workspace.scratch.data());
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
        View between = band_view_;
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
    Target(const Frame& frame, const Operands& o, int row) : y(resolve(frame, o.y)) {
      y.data += row * y.row_stride;
      if (!o.has_residual) return;
      added = resolve(frame, o.residual);
      added.data += row * added.row_stride;
      residual = &added;
    }
    View y, added;
    const View* residual = nullptr;
  };

  // What lies around the first convolution's result, for `count` pixels.
  void clear(Element* at, int64_t count) const {
    std::memset(at, Kind::halo_byte(second_), static_cast<size_t>(count * kLanes) * sizeof(Element));
  }

  void clear_sides(Element* window) const {
    for (int64_t row = int64_t{window_.rows} * window_.blocks; row > 0; --row, window += window_.row_stride) {
      clear(window, window_.halo.left);
      clear(window + (window_.halo.left + window_.width) * kLanes, window_.halo.right);
    }
  }

  // Rows [from, from + count) of the window to its beginning.
  void move_rows(Element* window, int from, int count) const {
    for (int block = 0; block < window_.blocks; ++block, window += window_.block_stride) {
      std::memmove(window, window + from * window_.row_stride,
                   static_cast<size_t>(count * window_.row_stride) * sizeof(Element));
    }
  }

  // Rows [from, to) of the first convolution's result, the halo outside of it; the window begins at row `top`.
  void fill_rows(const Frame& frame, Element* window, int top, int from, int to) const {
    const ConvShape& s = first_.conv->shape;
    for (int row = from; row < to; ++row) {
      if (row >= 0 && row < s.out_height) continue;
      Element* at = window + (row - top) * window_.row_stride;
      for (int block = 0; block < window_.blocks; ++block, at += window_.block_stride) clear(at, window_.row_stride / kLanes);
    }
    const int begin = std::max(from, 0), end = std::min(to, s.out_height);
    if (begin >= end) return;
    Args args;
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

  void compute_second(Element* window, const View& y, const View* residual, int count) const {
    Args args;
    args.x = view(window, second_.conv->shape.pad.top);
    args.y = y;
    args.residual = residual;
    compute_rows(second_, args, count, window);
  }

  void compute_third(const Frame& frame, const View& x, Element* window, int row, int count) const {
    const Target to(frame, *third_, row);
    Args args;
    args.x = x;
    args.y = to.y;
    args.residual = to.residual;
    compute_rows(*third_, args, count, window);
  }

  // `args` has the views.
  void compute_rows(const Operands& o, Args& args, int rows, Element* window) const {
    args.conv = o.conv.get();
    args.rows = rows;
    args.scratch = reinterpret_cast<std::byte*>(window) + own_scratch();
    Kind::run(table_, o, args);
  }

  View view(Element* window, int row) const {
    const ConvShape& s = second_.conv->shape;
    Element* const origin = window + row * window_.row_stride + static_cast<ptrdiff_t>(window_.halo.left) * kLanes;
    return {origin, s.in_channels, s.in_height, s.in_width, window_.row_stride, window_.block_stride};
  }

  const KernelTable& table_;
  const Operands first_, second_;
  const std::optional<Operands> third_;
  const Window window_;
  View band_view_;  // of a band of the second one's result
};

}  // namespace

InstructionPtr make_fused_convs(const KernelTable& table, ConvOperands first, ConvOperands second,
                                std::optional<ConvOperands> third) {
  return std::make_unique<FusedConvs<Floats>>(table, std::move(first), std::move(second), std::move(third));
}
InstructionPtr make_fused_convs(const KernelTable& table, ConvOperands8 first, ConvOperands8 second,
                                std::optional<ConvOperands8> third) {
  return std::make_unique<FusedConvs<Bytes>>(table, std::move(first), std::move(second), std::move(third));
}

}  // namespace rskip
