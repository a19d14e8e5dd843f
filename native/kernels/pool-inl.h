// Pooling over windows and over whole maps; lanes are channels.
#pragma once

#include "kernels/table.h"
#include "kernels/tile-inl.h"

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

inline void pool(const PoolArgs& args, int part, int parts) {
  const BlockedView& x = args.x;
  const BlockedView& y = args.y;
  each_row_of_share(y.blocks(), y.height, part, parts, [&](int b, int row) {
    const int lanes = std::min(kLanes, y.channels - b * kLanes);
    const int top = row * args.stride_h - args.pad.top;
    const WindowSpan vertical = window_span(top, args.kernel_h, args.dilation_h, x.height, args.pad.bottom);
    for (int column = 0; column < y.width; ++column) {
      const int left = column * args.stride_w - args.pad.left;
      const WindowSpan horizontal = window_span(left, args.kernel_w, args.dilation_w, x.width, args.pad.right);
      Vec sum = splat(args.max ? -std::numeric_limits<float>::infinity() : 0.0f);
      for (int kh = vertical.begin; kh < vertical.end; ++kh) {
        const float* line = x.data + b * x.block_stride + (top + kh * args.dilation_h) * x.row_stride;
        for (int kw = horizontal.begin; kw < horizontal.end; ++kw) {
          const Vec value = load(line + static_cast<ptrdiff_t>(left + kw * args.dilation_w) * kLanes);
          sum = args.max ? max_or_nan(sum, value) : sum + value;
        }
      }
      if (!args.max) {
        const int64_t rows = args.count_include_pad ? vertical.padded : vertical.end - vertical.begin;
        const int64_t columns = args.count_include_pad ? horizontal.padded : horizontal.end - horizontal.begin;
        sum = sum / splat(static_cast<float>(std::max<int64_t>(1, rows * columns)));
      }
      store(y.data + b * y.block_stride + row * y.row_stride + column * kLanes, keep_first(sum, lanes));
    }
  });
}

// The mean adds columns w, w + 4, w + 8, ... of all rows into sum w % 4, then (0 + 1) + (2 + 3): four
// chains hide the latency, and the order is the same everywhere.
inline void global_pool(const BlockedView& x, bool max, float* y) {
  for (int b = 0; b < x.blocks(); ++b) {
    Vec sum[4];
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) sum[i] = splat(max ? -std::numeric_limits<float>::infinity() : 0.0f);
    for (int h = 0; h < x.height; ++h) {
      const float* line = x.data + b * x.block_stride + h * x.row_stride;
      int w = 0;
      if (max) {
        for (; w < x.width; ++w) sum[0] = max_or_nan(sum[0], load(line + w * kLanes));
        continue;
      }
      for (; w + 4 <= x.width; w += 4) {
        RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) sum[i] = sum[i] + load(line + (w + i) * kLanes);
      }
      RSKIP_UNROLL(3) for (int i = 0; i < 3; ++i) {
        if (w + i < x.width) sum[i] = sum[i] + load(line + (w + i) * kLanes);
      }
    }
    if (!max) {
      const float count = static_cast<float>(static_cast<int64_t>(x.height) * x.width);
      sum[0] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / splat(count);
    }
    store_first(y + b * kLanes, sum[0], std::min(kLanes, x.channels - b * kLanes));
  }
}

}  // namespace rskip::RSKIP_ISA
