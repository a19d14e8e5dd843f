// Convolution on 8-bit numbers as products of matrices (im2col): each row is what the window of one pixel sees. The kernels of
// matrix products take what those of convolutions don't: zero points of weights, a scale and a zero point of the input that are
// known at run time only, and results that are floats.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/convolution/conv_rules.h"
#include "kernels/int8/pack8.h"
#include "plan/kernel_instructions8.h"
#include "plan/simple_instruction.h"

namespace rskip {

// Output blocks that read the same input blocks.
struct Im2colPiece8 {
  int first_input = 0, inputs = 0;  // blocks of the input
  int first_output = 0;             // block of the output
  std::shared_ptr<const PackedGemm8> gemm;
};

struct PackedIm2col8 {
  // Rows of the matrices: [kh][kw][input block of the piece][16]. Where a channel isn't of an output's group, or is none at all,
  // the weight is the zero point, so that what lies there doesn't matter.
  std::vector<Im2colPiece8> pieces;
};

std::shared_ptr<const PackedIm2col8> pack_im2col8(const ConvShape& s, const int8_t* weight, const int32_t* bias, const float* scale,
                                                  int scales, int input_zero, const int8_t* weight_zero, int weight_zeros) {
  auto packed = std::make_shared<PackedIm2col8>();
  const int group_in = s.in_channels / s.groups, group_out = s.out_channels / s.groups;
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  const std::vector<ConvBlock> blocks = covering_blocks(s);
  std::vector<int8_t> matrix;
  for (size_t begin = 0, end = 0; begin < blocks.size(); begin = end) {
    const ConvBlock& first = blocks[begin];
    while (end < blocks.size() && blocks[end].first_block == first.first_block && blocks[end].blocks == first.blocks) ++end;
    const int channel = static_cast<int>(begin) * kLanes;
    const int n = std::min(static_cast<int>(end) * kLanes, s.out_channels) - channel;
    const size_t k = taps * static_cast<size_t>(first.blocks) * kLanes;
    const auto of_channel = [channel](const auto* all, int count) { return count > 1 ? all + channel : all; };
    const int8_t* const zeros = of_channel(weight_zero, weight_zeros);
    matrix.resize(k * static_cast<size_t>(n));
    for (int j = 0; j < n; ++j) {
      int8_t* const row = matrix.data() + static_cast<size_t>(j) * k;
      std::fill_n(row, k, weight_zeros == 0 ? int8_t{0} : zeros[weight_zeros == 1 ? 0 : j]);
      const int m = channel + j, from = m / group_out * group_in;
      for (int c = 0; c < group_in; ++c) {
        const int8_t* const own = weight + (static_cast<size_t>(m) * group_in + c) * taps;
        const size_t at = static_cast<size_t>(from + c - first.first_block * kLanes);
        for (size_t tap = 0; tap < taps; ++tap) row[tap * first.blocks * kLanes + at] = own[tap];
      }
    }
    packed->pieces.push_back({first.first_block, first.blocks, static_cast<int>(begin),
                              pack_gemm8(static_cast<int>(k), n, matrix.data(), true, bias == nullptr ? nullptr : bias + channel,
                                         scale == nullptr ? nullptr : of_channel(scale, scales), scales, input_zero, zeros,
                                         std::min(weight_zeros, n))});
  }
  return packed;
}

namespace {

constexpr size_t kAlignment = 64;
// Bytes of the rows that are multiplied at a time, and their most: they stay in the second-level cache.
constexpr int64_t kRowBytes = 256 << 10;
constexpr int64_t kMaxRows = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

class Im2col8 final : public Instruction {
 public:
  Im2col8(const KernelTable& table, Im2colOperands8 operands) : gemm8_(table.gemm8), o_(std::move(operands)) {
    int64_t k = 1, n = 1;
    for (const Im2colPiece8& piece : o_.conv->pieces) {
      k = std::max<int64_t>(k, piece.gemm->k);
      n = std::max<int64_t>(n, piece.gemm->n);
    }
    pixels_ = static_cast<int64_t>(o_.shape.out_height) * o_.shape.out_width;
    rows_ = std::clamp<int64_t>(kRowBytes / k, 16, kMaxRows);
    rows_ = std::min(rows_, pixels_);
    window_bytes_ = aligned(static_cast<size_t>(rows_ * k));
    result_bytes_ = aligned(static_cast<size_t>(rows_ * n) * (o_.product.to_float ? sizeof(float) : 1));
    for (const Im2colPiece8& piece : o_.conv->pieces) {
      const size_t own = gemm8_scratch_bytes(*piece.gemm, static_cast<int>(rows_), o_.product.at_run_time());
      kernel_bytes_ = std::max(kernel_bytes_, own);
    }
  }
  int64_t shareable_work() const override { return o_.multiply_adds; }
  size_t scratch_bytes() const override { return window_bytes_ + result_bytes_ + kernel_bytes_; }

 private:
  // Shares are runs of pixels, or, on small maps, of output blocks.
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    const BlockedView8 x = resolve(frame, o_.x);
    const uint8_t zero = o_.product.has_zero ? *frame.at<uint8_t>(o_.product.zero) : o_.zero;
    uint8_t* const windows = reinterpret_cast<uint8_t*>(workspace.scratch.data());
    uint8_t* const results = windows + window_bytes_;
    const int64_t chunks = (pixels_ + rows_ - 1) / rows_;
    const bool by_pixels = chunks >= parts;
    const auto [begin, end] = by_pixels ? share_of(chunks, part, parts) : Share<int64_t>{0, chunks};
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int first = static_cast<int>(chunk * rows_);
      const int count = static_cast<int>(std::min(rows_, pixels_ - first));
      for (const Im2colPiece8& piece : o_.conv->pieces) {
        gather(x, piece, zero, first, count, windows);
        GemmArgs8 args = gemm_args(frame, o_.product, piece.first_output * kLanes);
        args.gemm = piece.gemm.get();
        args.a = windows;
        args.m = count;
        if (o_.product.to_float) {
          args.y_float = reinterpret_cast<float*>(results);
        } else {
          args.y = results;
        }
        args.scratch = results + result_bytes_;
        const auto blocks = by_pixels ? Share<int>{0, piece.gemm->blocks()} : share_of(piece.gemm->blocks(), part, parts);
        gemm8_(args, by_pixels ? 0 : part, by_pixels ? 1 : parts);
        if (o_.product.to_float) {
          scatter(args.y_float, resolve(frame, o_.y_float), piece, blocks, first, count);
        } else {
          scatter(args.y, resolve(frame, o_.y), piece, blocks, first, count);
        }
      }
    }
  }

  void gather(const BlockedView8& x, const Im2colPiece8& piece, uint8_t zero, int first, int count, uint8_t* to) const {
    const ConvShape& s = o_.shape;
    const uint8_t* const base = x.data + piece.first_input * x.block_stride;
    const ptrdiff_t bytes = static_cast<ptrdiff_t>(piece.inputs) * kLanes;
    const ptrdiff_t down = s.dilation_h * x.row_stride, across = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
    const int64_t height = int64_t{s.kernel_h - 1} * s.dilation_h, width = int64_t{s.kernel_w - 1} * s.dilation_w;
    for (int pixel = first; pixel < first + count; ++pixel) {
      const int64_t top = int64_t{pixel / s.out_width} * s.stride_h - s.pad.top;
      const int64_t left = int64_t{pixel % s.out_width} * s.stride_w - s.pad.left;
      if (top >= 0 && top + height < s.in_height && left >= 0 && left + width < s.in_width) {
        const uint8_t* row = base + top * x.row_stride + left * kLanes;
        for (int kh = 0; kh < s.kernel_h; ++kh, row += down) {
          const uint8_t* from = row;
          for (int kw = 0; kw < s.kernel_w; ++kw, from += across, to += bytes) copy(from, x.block_stride, piece.inputs, to);
        }
        continue;
      }
      for (int kh = 0; kh < s.kernel_h; ++kh) {
        const int64_t row = top + int64_t{kh} * s.dilation_h;
        for (int kw = 0; kw < s.kernel_w; ++kw, to += bytes) {
          const int64_t column = left + int64_t{kw} * s.dilation_w;
          if (row < 0 || row >= s.in_height || column < 0 || column >= s.in_width) {
            std::memset(to, zero, static_cast<size_t>(bytes));
          } else {
            copy(base + row * x.row_stride + column * kLanes, x.block_stride, piece.inputs, to);
          }
        }
      }
    }
  }

  // One pixel of some blocks.
  static void copy(const uint8_t* from, ptrdiff_t block_stride, int blocks, uint8_t* to) {
    for (int b = 0; b < blocks; ++b, from += block_stride, to += kLanes) std::memcpy(to, from, kLanes);
  }

  template <class T>
  void scatter(const T* rows, const Blocked<T>& y, const Im2colPiece8& piece, Share<int> blocks, int first, int count) const {
    const ptrdiff_t n = piece.gemm->n;
    for (int b = blocks.begin; b < blocks.end; ++b) {
      T* const to = y.data + (piece.first_output + b) * y.block_stride;
      const size_t lanes = static_cast<size_t>(std::min<ptrdiff_t>(kLanes, n - b * kLanes));
      const T* from = rows + b * kLanes;
      for (int pixel = first; pixel < first + count; ++pixel, from += n) {
        T* const at = to + pixel / y.width * y.row_stride + static_cast<ptrdiff_t>(pixel % y.width) * kLanes;
        if (lanes == kLanes) {
          std::memcpy(at, from, kLanes * sizeof(T));
        } else {
          std::fill(std::copy_n(from, lanes, at), at + kLanes, T{});
        }
      }
    }
  }

  decltype(KernelTable::gemm8) const gemm8_;
  const Im2colOperands8 o_;
  int64_t pixels_, rows_;
  size_t window_bytes_, result_bytes_, kernel_bytes_ = 0;
};

}  // namespace

InstructionPtr make_im2col8(const KernelTable& table, Im2colOperands8 operands) {
  return std::make_unique<Im2col8>(table, std::move(operands));
}

}  // namespace rskip
