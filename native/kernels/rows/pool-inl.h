// Pooling over windows and over whole maps; lanes are channels.
#pragma once

#include "kernels/table.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

// The taps of a window along one axis that fall into [0, size), and how many fall into the padded extent.
struct WindowSpan {
  int begin, end, padded;
};
inline WindowSpan window_span(int64_t start, int kernel, int64_t dilation, int64_t size, int64_t pad_end) {
  if (start >= 0 && start + (kernel - 1) * dilation < size) return {0, kernel, kernel};
  // Taps before position `limit`.
  const auto taps_before = [&](int64_t limit) {
    if (start >= limit) return 0;
    return static_cast<int>(std::min<int64_t>(kernel, (limit - start - 1) / dilation + 1));
  };
  return {taps_before(0), taps_before(size), taps_before(size + pad_end)};
}

// Once a NaN is met it stays.
RSKIP_INLINE Vec max_or_nan(Vec sum, Vec x) { return select(is_nan(sum), sum, max(sum, x)); }

// `kColumns` windows of a row, `step` floats apart, with the same taps; the first window begins `first` floats behind `plane`.
// Several chains hide the latency, each in the order that it has alone.
template <int kColumns, bool kMax>
RSKIP_INLINE void pool_windows(const PoolArgs& args, const float* plane, ptrdiff_t first, ptrdiff_t step,
                               WindowSpan vertical, WindowSpan horizontal, float* y, int lanes) {
  Vec sum[kColumns];
  RSKIP_UNROLL(4) for (int i = 0; i < kColumns; ++i) {
    sum[i] = splat(kMax ? -std::numeric_limits<float>::infinity() : 0.0f);
  }
  for (int kh = vertical.begin; kh < vertical.end; ++kh) {
    const ptrdiff_t line = first + static_cast<ptrdiff_t>(kh) * args.dilation_h * args.x.row_stride;
    for (int kw = horizontal.begin; kw < horizontal.end; ++kw) {
      const float* tap = plane + (line + static_cast<ptrdiff_t>(kw) * args.dilation_w * kLanes);
      RSKIP_UNROLL(4) for (int i = 0; i < kColumns; ++i) {
        const Vec value = load(tap + i * step);
        sum[i] = kMax ? max_or_nan(sum[i], value) : sum[i] + value;
      }
    }
  }
  const int64_t rows = args.count_include_pad ? vertical.padded : vertical.end - vertical.begin;
  const int64_t columns = args.count_include_pad ? horizontal.padded : horizontal.end - horizontal.begin;
  const Vec count = splat(static_cast<float>(std::max<int64_t>(1, rows * columns)));
  RSKIP_UNROLL(4) for (int i = 0; i < kColumns; ++i) {
    store(y + i * kLanes, keep_first(kMax ? sum[i] : sum[i] / count, lanes));
  }
}

template <bool kMax>
RSKIP_INLINE void pool_rows(const PoolArgs& args, int part, int parts) {
  const BlockedView& x = args.x;
  const BlockedView& y = args.y;
  const ptrdiff_t step = static_cast<ptrdiff_t>(args.stride_w) * kLanes;
  each_row_of_share(y.blocks(), y.height, part, parts, [&](int b, int row) {
    const int lanes = std::min(kLanes, y.channels - b * kLanes);
    const int top = row * args.stride_h - args.pad.top;
    const WindowSpan vertical = window_span(top, args.kernel_h, args.dilation_h, x.height, args.pad.bottom);
    const float* plane = x.data + b * x.block_stride;
    float* to = y.data + b * y.block_stride + row * y.row_stride;
    const auto left_of = [&](int column) { return column * args.stride_w - args.pad.left; };
    const auto span = [&](int column) {
      return window_span(left_of(column), args.kernel_w, args.dilation_w, x.width, args.pad.right);
    };
    for (int column = 0; column < y.width;) {
      const ptrdiff_t first = top * x.row_stride + static_cast<ptrdiff_t>(left_of(column)) * kLanes;
      const WindowSpan horizontal = span(column);
      const auto whole = [&](WindowSpan one) { return one.end - one.begin == args.kernel_w; };
      if (column + 4 <= y.width && whole(horizontal) && whole(span(column + 3))) {
        pool_windows<4, kMax>(args, plane, first, step, vertical, horizontal, to + column * kLanes, lanes);
        column += 4;
      } else {
        pool_windows<1, kMax>(args, plane, first, step, vertical, horizontal, to + column * kLanes, lanes);
        ++column;
      }
    }
  });
}

inline void pool(const PoolArgs& args, int part, int parts) {
  if (args.max) pool_rows<true>(args, part, parts);
  else pool_rows<false>(args, part, parts);
}

// Combines the terms of columns w, w + 4, w + 8, ... of all rows into result w % 4, then (0 with 1) with (2 with 3): four
// chains hide the latency, and the order is the same everywhere.
template <class Term, class Combine>
RSKIP_INLINE Vec combine_pixels(const BlockedView& x, int b, float start, const Term& term, const Combine& combine) {
  Vec sum[4];
  RSKIP_UNROLL(4) for (Vec& one : sum) one = splat(start);
  for (int h = 0; h < x.height; ++h) {
    const float* line = x.data + b * x.block_stride + h * x.row_stride;
    int w = 0;
    for (; w + 4 <= x.width; w += 4) {
      RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) sum[i] = combine(sum[i], term(load(line + (w + i) * kLanes)));
    }
    RSKIP_UNROLL(3) for (int i = 0; i < 3; ++i) {
      if (w + i < x.width) sum[i] = combine(sum[i], term(load(line + (w + i) * kLanes)));
    }
  }
  return combine(combine(sum[0], sum[1]), combine(sum[2], sum[3]));
}

inline void global_pool(const BlockedView& x, GlobalPoolKind kind, float* y) {
  const Vec count = splat(static_cast<float>(static_cast<int64_t>(x.height) * x.width));
  const auto same = [](Vec v) { return v; };
  const auto square = [](Vec v) { return v * v; };
  const auto add = [](Vec a, Vec b) { return a + b; };
  for (int b = 0; b < x.blocks(); ++b) {
    Vec result;
    if (kind == GlobalPoolKind::kMax) {
      result = combine_pixels(x, b, -std::numeric_limits<float>::infinity(), same, max_or_nan);
    } else if (kind == GlobalPoolKind::kMean) {
      result = combine_pixels(x, b, 0, same, add) / count;
    } else {
      result = combine_pixels(x, b, 0, square, add) / count;
    }
    store_first(y + b * kLanes, result, std::min(kLanes, x.channels - b * kLanes));
  }
}

}  // namespace rskip::RSKIP_ISA
