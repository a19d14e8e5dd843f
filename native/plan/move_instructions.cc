// Instructions that only move elements.
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

// One pixel of channels, `shift` lanes later: the end of `low` and the start of `high`, of which the first few lanes are real; those
// that aren't, and null, stand for `fill`.
template <class T>
struct PixelShift {
  int shift, low_lanes, high_lanes;
  T fill;

  void operator()(const T* low, const T* high, T* to) const {
    constexpr int kHalf = kLanes / 2;
    if (shift == kHalf && (low == nullptr || low_lanes == kLanes) && (high == nullptr || high_lanes >= kHalf)) {
      half(low == nullptr ? nullptr : low + kHalf, to);
      return half(high, to + kHalf);
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const T* const from = lane < shift ? low : high;
      const int at = lane < shift ? kLanes - shift + lane : lane - shift;
      to[lane] = from == nullptr || at >= (lane < shift ? low_lanes : high_lanes) ? fill : from[at];
    }
  }
  void half(const T* from, T* to) const {
    if (from == nullptr) {
      std::fill_n(to, kLanes / 2, fill);
    } else {
      std::copy_n(from, kLanes / 2, to);
    }
  }
};

template <class T, class Operand>
InstructionPtr move_blocked(const Operand& x, const Operand& y, const BlockedMove& move) {
  return simple(move_work(y.view), [x, y, move](Frame& frame, int part, int parts) {
    const auto from = resolve(frame, x), to = resolve(frame, y);
    const T fill = static_cast<T>(move.fill);
    const ptrdiff_t width = static_cast<ptrdiff_t>(to.width) * kLanes;
    each_row(to.blocks(), to.height, part, parts, [&](int b, int h) {
      T* row = to.data + b * to.block_stride + h * to.row_stride;
      const int high = b - move.channels / kLanes, low = high - 1;
      const auto lanes = [&](int block) { return std::clamp(from.channels - block * kLanes, 0, kLanes); };
      const PixelShift<T> shifted{move.channels % kLanes, lanes(low), lanes(high), fill};
      const bool has_high = high >= 0 && shifted.high_lanes > 0, has_low = shifted.shift > 0 && low >= 0 && shifted.low_lanes > 0;
      const bool inside = h >= move.top && h < move.top + move.rows && (has_high || has_low);
      if (!inside || move.columns < to.width) std::fill_n(row, width, fill);
      if (!inside) return;
      const T* line = from.data + (move.first_row + (h - move.top) * move.row_step) * from.row_stride +
                      static_cast<ptrdiff_t>(move.first_column) * kLanes;
      const T* high_pixel = has_high ? line + high * from.block_stride : nullptr;
      const T* low_pixel = has_low ? line + low * from.block_stride : nullptr;
      const ptrdiff_t step = static_cast<ptrdiff_t>(move.column_step) * kLanes;
      T* pixel = row + static_cast<ptrdiff_t>(move.left) * kLanes;
      const bool whole = shifted.shift == 0 && (shifted.high_lanes == kLanes || from.channels == to.channels);
      for (int w = 0; w < move.columns; ++w, pixel += kLanes) {
        const ptrdiff_t at = w * step;
        if (whole) {
          std::copy_n(high_pixel + at, kLanes, pixel);
        } else {
          shifted(has_low ? low_pixel + at : nullptr, has_high ? high_pixel + at : nullptr, pixel);
        }
      }
    });
  });
}

}  // namespace

InstructionPtr make_move_blocked(BlockedOperand x, BlockedOperand y, const BlockedMove& move) {
  return move_blocked<float>(x, y, move);
}
InstructionPtr make_move_blocked(BlockedOperand8 x, BlockedOperand8 y, const BlockedMove& move) {
  return move_blocked<uint8_t>(x, y, move);
}

}  // namespace rskip
