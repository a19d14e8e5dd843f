// Pools, elementwise kernels and layout changes of 8-bit numbers.
#pragma once

#include <algorithm>

#include "kernels/rows/pool-inl.h"
#include "kernels/int8/tile8-inl.h"

namespace rskip::RSKIP_ISA {

inline uint8_t* row_of(const BlockedView8& v, int block, int row) {
  return v.data + block * v.block_stride + row * v.row_stride;
}

// Rounds and stores sixteen values.
RSKIP_INLINE void store_rounded(uint8_t* y, Vec value, const Clamp8& clamp, const Rounding& rounding) {
  store_bytes(y, add_bits(round_to_bits(clamp(value)), rounding.zero));
}

inline void pool8(const PoolArgs8& args, int part, int parts) {
  static constexpr uint8_t kNothing[kLanes] = {};
  const BlockedView8 &x = args.x, &y = args.y;
  const PoolArgs& window = args.window;
  each_row_of_share(y.blocks(), y.height, part, parts, [&](int b, int row) {
    const int top = row * window.stride_h - window.pad.top;
    const WindowSpan vertical = window_span(top, window.kernel_h, window.dilation_h, x.height, 0);
    uint8_t* to = row_of(y, b, row);
    for (int column = 0; column < y.width; ++column, to += kLanes) {
      const int left = column * window.stride_w - window.pad.left;
      const WindowSpan horizontal = window_span(left, window.kernel_w, window.dilation_w, x.width, 0);
      Sixteen most = load_sixteen(kNothing);
      for (int kh = vertical.begin; kh < vertical.end; ++kh) {
        const uint8_t* line = row_of(x, b, top + kh * window.dilation_h);
        for (int kw = horizontal.begin; kw < horizontal.end; ++kw) {
          most = max(most, load_sixteen(line + static_cast<ptrdiff_t>(left + kw * window.dilation_w) * kLanes));
        }
      }
      store_sixteen(to, most);
    }
  });
}

// Sums are exact and wrap.
inline void global_pool8(const GlobalPoolArgs8& args, int part, int parts) {
  const BlockedView8& x = args.x;
  const Clamp8 clamp(args.rounding);
  const Share<int> share = share_of(x.blocks(), part, parts);
  const uint32_t zeros = static_cast<uint32_t>(x.height) * static_cast<uint32_t>(x.width) * static_cast<uint32_t>(args.zero);
  for (int b = share.begin; b < share.end; ++b) {
    Bits sum = bits(splat(0.0f));
    for (int h = 0; h < x.height; ++h) {
      const uint8_t* line = row_of(x, b, h);
      for (int w = 0; w < x.width; ++w) sum = add_bits(sum, load_bytes(line + static_cast<ptrdiff_t>(w) * kLanes));
    }
    const Vec mean = to_float(add_bits(sum, static_cast<int32_t>(0u - zeros))) * splat(args.factor);
    const int lanes = std::min(kLanes, x.channels - b * kLanes);
    if (args.y_float != nullptr) {
      store_first(args.y_float + b * kLanes, mean, lanes);
    } else {
      uint8_t row[kLanes];
      store_rounded(row, mean, clamp, args.rounding);
      std::copy_n(row, lanes, args.y + b * kLanes);
    }
  }
}

// The sum of `n` pixels, each `step` bytes behind the one before.
template <bool kSquares>
Bits sum_of_pixels(const uint8_t* x, int n, ptrdiff_t step, int32_t zero) {
  // So many squares, of at most 383 each, have a sum that a float holds exactly.
  constexpr int kExact = 64;
  Bits sum = bits(splat(0.0f));
  for (int first = 0; first < n; first += kExact) {
    Vec squares = splat(0.0f);
    for (int i = first, end = std::min(n, first + kExact); i < end; ++i, x += step) {
      const Bits number = add_bits(load_bytes(x), -zero);
      if constexpr (kSquares) {
        squares = fma(to_float(number), to_float(number), squares);
      } else {
        sum = add_bits(sum, number);
      }
    }
    if constexpr (kSquares) sum = add_bits(sum, round_to_bits(squares));
  }
  return sum;
}

template <bool kSquares>
void sum_rows8(const SumPoolArgs8& args, int part, int parts) {
  const BlockedView8& x = args.x;
  const BlockedView& y = args.y;
  const PoolArgs& window = args.window;
  each_row_of_share(y.blocks(), y.height, part, parts, [&](int b, int row) {
    const int lanes = std::min(kLanes, y.channels - b * kLanes);
    const int top = row * window.stride_h - window.pad.top;
    const WindowSpan vertical = window_span(top, window.kernel_h, window.dilation_h, x.height, 0);
    float* to = y.data + b * y.block_stride + row * y.row_stride;
    for (int column = 0; column < y.width; ++column, to += kLanes) {
      const int left = column * window.stride_w - window.pad.left;
      const WindowSpan horizontal = window_span(left, window.kernel_w, window.dilation_w, x.width, 0);
      Bits sum = bits(splat(0.0f));
      for (int kh = vertical.begin; kh < vertical.end; ++kh) {
        const uint8_t* line = row_of(x, b, top + kh * window.dilation_h);
        line += static_cast<ptrdiff_t>(left + horizontal.begin * window.dilation_w) * kLanes;
        const ptrdiff_t step = static_cast<ptrdiff_t>(window.dilation_w) * kLanes;
        sum = add_bits(sum, sum_of_pixels<kSquares>(line, horizontal.end - horizontal.begin, step, args.zero));
      }
      store(to, keep_first(to_float(sum) * splat(args.factor), lanes));
    }
  });
}
inline void sum_pool8(const SumPoolArgs8& args, int part, int parts) {
  args.squares ? sum_rows8<true>(args, part, parts) : sum_rows8<false>(args, part, parts);
}

template <bool kMultiply, bool kChannel>
void binary_rows8(const BinaryArgs8& args, int part, int parts) {
  const Clamp8 clamp(args.rounding);
  const Vec factor_a = splat(args.factor_a), factor_b = splat(args.factor_b);
  each_row_of_share(args.y.blocks(), args.y.height, part, parts, [&](int b, int row) {
    const uint8_t* left = row_of(args.a, b, row);
    const uint8_t* right = row_of(args.b, b, kChannel ? 0 : row);
    uint8_t* to = row_of(args.y, b, row);
    for (int w = 0; w < args.y.width; ++w, left += kLanes, right += kChannel ? 0 : kLanes, to += kLanes) {
      const Vec p = to_float(add_bits(load_bytes(left), -args.zero_a)), q = to_float(add_bits(load_bytes(right), -args.zero_b));
      // Products of such integers are exact in floats.
      const Vec value = kMultiply ? p * q * factor_a : fma(p, factor_a, q * factor_b);
      store_rounded(to, value, clamp, args.rounding);
    }
  });
}
inline void binary8(const BinaryArgs8& args, int part, int parts) {
  const bool multiply = args.kind == BinaryKind::kMul;
  if (args.by_channel) {
    return multiply ? binary_rows8<true, true>(args, part, parts) : binary_rows8<false, true>(args, part, parts);
  }
  multiply ? binary_rows8<true, false>(args, part, parts) : binary_rows8<false, false>(args, part, parts);
}

inline void lookup8(const LookupArgs8& args, int part, int parts) {
  each_row_of_share(args.y.blocks(), args.y.height, part, parts, [&](int b, int row) {
    look_up(args.table, row_of(args.x, b, row), row_of(args.y, b, row), static_cast<ptrdiff_t>(args.y.width) * kLanes);
  });
}

// Whether Quotient8 is exact: no step of it overflows or underflows.
inline bool divides_by_factor(float scale) { return scale > 0x1p-60f && scale < 0x1p60f; }

// x / scale, for the integer that it is rounded to, in a third of the time of a division. The quotient is corrected by its remainder
// (Markstein 1990). It rounds to the same integer as the division's: that was checked for every mantissa of a scale, beside all n + 1/2.
struct Quotient8 {
  Vec scale, factor, least, most;
  Quotient8(float s, const Rounding& rounding)
      : scale(splat(s)), factor(splat(1 / s)), least(splat(rounding.low * s)), most(splat(rounding.high * s)) {}
  RSKIP_INLINE Vec operator()(Vec value) const {
    const Vec x = min(most, max(value, least)), quotient = x * factor;
    return fma(fma(splat(0.0f) - quotient, scale, x), factor, quotient);
  }
};

template <class Divide>
void quantize_span8(const QuantizeArgs8& args, const Rounding& rounding, const Divide& divide) {
  const auto rounded = [&](Vec x, uint8_t* y) {
    const Vec value = divide(select(is_nan(x), splat(0.0f), x));
    store_bytes(y, add_bits(round_to_bits(value), rounding.zero));
  };
  size_t i = 0;
  for (; i + kLanes <= args.n; i += kLanes) rounded(load(args.x + i), args.y + i);
  if (i == args.n) return;
  uint8_t row[kLanes];
  rounded(load_first(args.x + i, static_cast<int>(args.n - i)), row);
  std::copy_n(row, args.n - i, args.y + i);
}

inline void quantize8(const QuantizeArgs8& args) {
  const Rounding rounding{static_cast<float>(-args.zero), static_cast<float>(255 - args.zero), args.zero};
  if (divides_by_factor(args.scale)) return quantize_span8(args, rounding, Quotient8(args.scale, rounding));
  const Clamp8 clamp(rounding);
  const Vec scale = splat(args.scale);
  quantize_span8(args, rounding, [&](Vec x) {
    const Vec value = x / scale;
    return clamp(select(is_nan(value), splat(0.0f), value));
  });
}

inline void dynamic_quantize8(const DynamicQuantizeArgs8& args) {
  // Maxima of the range's ends; a NaN changes neither.
  Vec low = splat(0.0f), high = splat(0.0f);
  const auto widen = [&](Vec x) {
    low = min(x, low);
    high = max(x, high);
  };
  const auto each_row = [&](const auto& row) {
    for (int b = 0; b < args.blocks; ++b) {
      for (int r = 0; r < args.rows; ++r) {
        row(args.x + b * args.x_block + r * args.x_row, args.y + b * args.y_block + r * args.y_row,
            b + 1 == args.blocks ? args.last_channels : kLanes);
      }
    }
  };
  each_row([&](const float* x, const uint8_t*, int channels) {
    size_t i = 0;
    for (; i + kLanes <= args.n; i += kLanes) widen(channels == kLanes ? load(x + i) : load_first(x + i, channels));
    if (i < args.n) widen(load_first(x + i, static_cast<int>(args.n - i)));
  });
  float lows[kLanes], highs[kLanes];
  store(lows, low);
  store(highs, high);
  const float least = *std::min_element(lows, lows + kLanes), range = *std::max_element(highs, highs + kLanes) - least;
  const float scale = range / 255 == 0 ? 1 : range / 255;
  const Rounding any;
  uint8_t zero[kLanes];
  store_rounded(zero, splat((0 - least) / scale), Clamp8(any), any);
  *args.scale = scale;
  *args.zero = zero[0];
  each_row([&](const float* x, uint8_t* y, int) { quantize8({x, y, args.n, scale, zero[0]}); });
}

inline void dequantize8(const DequantizeArgs8& args) {
  const Vec scale = splat(args.scale);
  const auto real = [&](const uint8_t* x) { return to_float(add_bits(load_bytes(x), -args.zero)) * scale; };
  size_t i = 0;
  for (; i + kLanes <= args.n; i += kLanes) store(args.y + i, real(args.x + i));
  if (i == args.n) return;
  uint8_t row[kLanes] = {};
  std::copy_n(args.x + i, args.n - i, row);
  store_first(args.y + i, real(row), static_cast<int>(args.n - i));
}

inline void planar_to_blocked8(const PlanarView8& x, const BlockedView8& y, int part, int parts) {
  each_row_of_share(y.blocks(), y.height, part, parts, [&](int b, int row) {
    const uint8_t* from = x.data + b * kLanes * x.plane_stride + row * x.row_stride;
    uint8_t* to = row_of(y, b, row);
    const int lanes = std::min(kLanes, y.channels - b * kLanes);
    for (int w = 0; w < y.width; ++w, ++from, to += kLanes) {
      for (int c = 0; c < lanes; ++c) to[c] = from[c * x.plane_stride];
      for (int c = lanes; c < kLanes; ++c) to[c] = 0;
    }
  });
}

inline void blocked_to_planar8(const BlockedView8& x, const PlanarView8& y, int part, int parts) {
  each_row_of_share(x.blocks(), x.height, part, parts, [&](int b, int row) {
    const uint8_t* from = row_of(x, b, row);
    uint8_t* to = y.data + b * kLanes * y.plane_stride + row * y.row_stride;
    const int lanes = std::min(kLanes, x.channels - b * kLanes);
    for (int c = 0; c < lanes; ++c, ++from, to += y.plane_stride) {
      for (int w = 0; w < x.width; ++w) to[w] = from[static_cast<ptrdiff_t>(w) * kLanes];
    }
  });
}

}  // namespace rskip::RSKIP_ISA
