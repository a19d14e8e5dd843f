// Instructions that only move floats.
#include <algorithm>
#include <cstring>

#include "plan/kernel_instructions.h"
#include "plan/simple_instruction.h"

namespace rskip {

InstructionPtr make_copy(Place x, Place y, size_t bytes) {
  return simple(0, [x, y, bytes](Frame& frame, int, int) {
    if (bytes > 0) std::memcpy(frame.at<void>(y), frame.at<void>(x), bytes);
  });
}

namespace {

// copy(plane, row) for a share of the rows of all planes.
template <class Copy>
void each_row(int planes, int height, int part, int parts, const Copy& copy) {
  const auto [begin, end] = share_of(int64_t{planes} * height, part, parts);
  for (int64_t r = begin; r < end; ++r) {
    copy(static_cast<int>(r / height), static_cast<int>(r % height));
  }
}

template <class Operand>
InstructionPtr copy_planar(const Operand& x, const Operand& y) {
  const int64_t work = static_cast<int64_t>(x.view.channels) * x.view.height * x.view.width * kMoveWork;
  return simple(work, [x, y](Frame& frame, int part, int parts) {
    const auto from = resolve(frame, x), to = resolve(frame, y);
    each_row(from.channels, from.height, part, parts, [&](int c, int h) {
      std::copy_n(from.data + c * from.plane_stride + h * from.row_stride, from.width,
                  to.data + c * to.plane_stride + h * to.row_stride);
    });
  });
}

template <class Operand>
InstructionPtr copy_blocked(const Operand& x, const Operand& y) {
  return simple(move_work(x.view), [x, y](Frame& frame, int part, int parts) {
    const auto from = resolve(frame, x), to = resolve(frame, y);
    each_row(from.blocks(), from.height, part, parts, [&](int b, int h) {
      std::copy_n(from.data + b * from.block_stride + h * from.row_stride, static_cast<ptrdiff_t>(from.width) * kLanes,
                  to.data + b * to.block_stride + h * to.row_stride);
    });
  });
}

}  // namespace

InstructionPtr make_copy_planar(PlanarOperand x, PlanarOperand y) { return copy_planar(x, y); }
InstructionPtr make_copy_planar(PlanarOperand8 x, PlanarOperand8 y) { return copy_planar(x, y); }
InstructionPtr make_copy_blocked(BlockedOperand x, BlockedOperand y) { return copy_blocked(x, y); }
InstructionPtr make_copy_blocked(BlockedOperand8 x, BlockedOperand8 y) { return copy_blocked(x, y); }

InstructionPtr make_pad_channels(Place x, Place y, int n) {
  return simple(0, [x, y, n](Frame& frame, int, int) {
    float* to = frame.at<float>(y);
    std::copy_n(frame.at<float>(x), n, to);
    std::fill(to + n, to + whole_blocks(n), 0.0f);
  });
}

InstructionPtr make_spread(Place x, Place y, int n) {
  return simple(0, [x, y, n](Frame& frame, int, int) {
    float* to = frame.at<float>(y);
    std::fill_n(to, n, *frame.at<float>(x));
    std::fill(to + n, to + whole_blocks(n), 0.0f);
  });
}

namespace {

// One pixel of channels, `shift` lanes later: the end of `low` and the start of `high`; null stands for zeros.
void shift_lanes(const float* low, const float* high, int shift, float* to) {
  for (int lane = 0; lane < shift; ++lane) to[lane] = low == nullptr ? 0.0f : low[kLanes - shift + lane];
  for (int lane = shift; lane < kLanes; ++lane) to[lane] = high == nullptr ? 0.0f : high[lane - shift];
}

}  // namespace

InstructionPtr make_move_blocked(BlockedOperand x, BlockedOperand y, const BlockedMove& move) {
  return simple(move_work(y.view), [x, y, move](Frame& frame, int part, int parts) {
    const BlockedView from = resolve(frame, x), to = resolve(frame, y);
    const int shift = move.channels % kLanes;
    const size_t row_bytes = static_cast<size_t>(to.width) * kLanes * sizeof(float);
    each_row(to.blocks(), to.height, part, parts, [&](int b, int h) {
      float* row = to.data + b * to.block_stride + h * to.row_stride;
      const int high = b - move.channels / kLanes, low = high - 1;
      const bool has_high = high >= 0 && high < from.blocks(), has_low = shift > 0 && low >= 0 && low < from.blocks();
      const bool inside = h >= move.top && h < move.top + move.rows && (has_high || has_low);
      if (!inside || move.columns < to.width) std::memset(row, 0, row_bytes);
      if (!inside) return;
      const float* line = from.data + (move.first_row + (h - move.top) * move.row_step) * from.row_stride +
                          static_cast<ptrdiff_t>(move.first_column) * kLanes;
      const float* high_pixel = has_high ? line + high * from.block_stride : nullptr;
      const float* low_pixel = has_low ? line + low * from.block_stride : nullptr;
      const ptrdiff_t step = static_cast<ptrdiff_t>(move.column_step) * kLanes;
      float* pixel = row + static_cast<ptrdiff_t>(move.left) * kLanes;
      for (int w = 0; w < move.columns; ++w, pixel += kLanes) {
        const ptrdiff_t at = w * step;
        if (shift == 0) {
          std::memcpy(pixel, high_pixel + at, kLanes * sizeof(float));
        } else {
          shift_lanes(has_low ? low_pixel + at : nullptr, has_high ? high_pixel + at : nullptr, shift, pixel);
        }
      }
    });
  });
}

}  // namespace rskip
