// Instructions that only move elements.
#include <algorithm>
#include <cstring>
#include <limits>

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

std::optional<BlockedMove> BlockedMove::then(const BlockedMove& next) const {
  const int64_t row = first_row + int64_t{next.first_row} * row_step, column = first_column + int64_t{next.first_column} * column_step;
  const int64_t down = int64_t{next.row_step} * row_step, right = int64_t{next.column_step} * column_step;
  if (fills || std::max({row, column, down, right}) > std::numeric_limits<int>::max()) return std::nullopt;
  BlockedMove both = next;
  both.first_row = static_cast<int>(row);
  both.first_column = static_cast<int>(column);
  both.row_step = static_cast<int>(down);
  both.column_step = static_cast<int>(right);
  return both;
}

namespace {

// A row of `count` pixels of channels, `shift` lanes later: each is the end of one of `low`, whose pixels are `step` apart, and the start of
// one of `high`. Of their lanes, the first few are real; those that aren't, and null, stand for `fill`.
template <class T>
struct RowShift {
  int count;
  ptrdiff_t step;
  int shift, low_lanes, high_lanes;
  T fill;

  void operator()(const T* low, const T* high, T* to) const {
    constexpr int kHalf = kLanes / 2;
    if (shift == 0 && high_lanes == kLanes) return part<kLanes>(high, to);
    if (shift == kHalf && (low == nullptr || low_lanes == kLanes) && (high == nullptr || high_lanes >= kHalf)) {
      part<kHalf>(low == nullptr ? nullptr : low + kHalf, to);
      return part<kHalf>(high, to + kHalf);
    }
    for (int i = 0; i < count; ++i, to += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const T* const from = lane < shift ? low : high;
        const int at = lane < shift ? kLanes - shift + lane : lane - shift;
        to[lane] = from == nullptr || at >= (lane < shift ? low_lanes : high_lanes) ? fill : from[i * step + at];
      }
    }
  }
  // N lanes of each pixel.
  template <int N>
  void part(const T* from, T* to) const {
    for (int i = 0; i < count; ++i, to += kLanes) {
      if (from == nullptr) {
        std::fill_n(to, N, fill);
      } else {
        std::memcpy(to, from + i * step, N * sizeof(T));
      }
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
      const ptrdiff_t step = static_cast<ptrdiff_t>(move.column_step) * kLanes;
      RowShift<T> shifted{move.columns, step, move.channels % kLanes, lanes(low), lanes(high), fill};
      const bool has_high = high >= 0 && shifted.high_lanes > 0, has_low = shifted.shift > 0 && low >= 0 && shifted.low_lanes > 0;
      const bool inside = h >= move.top && h < move.top + move.rows && (has_high || has_low);
      if (!inside || move.columns < to.width) std::fill_n(row, width, fill);
      if (!inside) return;
      // Lanes that are real in neither map may be copied.
      if (from.channels == to.channels) shifted.high_lanes = kLanes;
      const T* line = from.data + (move.first_row + (h - move.top) * move.row_step) * from.row_stride +
                      static_cast<ptrdiff_t>(move.first_column) * kLanes;
      shifted(has_low ? line + low * from.block_stride : nullptr, has_high ? line + high * from.block_stride : nullptr,
              row + static_cast<ptrdiff_t>(move.left) * kLanes);
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
