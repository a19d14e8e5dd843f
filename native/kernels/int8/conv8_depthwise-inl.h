// Depthwise convolution on 8-bit numbers: a dot product takes four rows of one column.
#pragma once

#include "kernels/int8/tile8-inl.h"

namespace rskip::RSKIP_ISA {

// Any kernel, stride, dilation and residual: lanes are channels.
struct DepthwiseTile8 {
  const uint8_t* x;
  ptrdiff_t x_row, x_column, pixel;  // bytes between taps, and between pixels
  int kernel_h, kernel_w, parts;
  const int8_t* w;
  const int32_t* bias;
  const float* scale;
  TileTarget<uint8_t> out;
  const Epilogue8* epilogue;
};
using DepthwiseTileFn8 = void (*)(const DepthwiseTile8&);

// Four of `rows` rows, from `first` on; behind the last, over again for the next parts of weights. Where there is no weight, any row does.
struct FourRows {
  ptrdiff_t offset[4] = {};
  FourRows() = default;
  FourRows(int first, int rows, ptrdiff_t x_row) {
    for (int i = 0; i < 4; ++i) offset[i] = (first + i) % rows * x_row;
  }
  RSKIP_INLINE Quads operator()(const uint8_t* x) const {
    return interleave(x + offset[0], x + offset[1], x + offset[2], x + offset[3]);
  }
  RSKIP_INLINE void pixels(const uint8_t* x, Quads (&quarters)[4]) const {
    interleave_pixels(x + offset[0], x + offset[1], x + offset[2], x + offset[3], quarters);
  }
};

template <int P>
[[gnu::noinline]] void depthwise_tile8(const DepthwiseTile8& t) {
  Bits acc[P][1];
  tile_bias8(acc, t.bias);
  const int8_t* w = t.w;
  for (int kh = 0; kh < t.kernel_h * t.parts; kh += kQuad) {
    const FourRows rows(kh, t.kernel_h, t.x_row);
    const uint8_t* x = t.x;
    for (int kw = 0; kw < t.kernel_w; ++kw, x += t.x_column, w += kFactorBytes) {
      const Factors factor = load_factors(w);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = add_dot(acc[p][0], rows(x + p * t.pixel), factor);
    }
  }
  tile_store8(acc, t.out, t.scale, *t.epilogue);
}

struct DepthwiseRow8 {
  DepthwiseTileFn8 fn[kDepthwisePixels];
};
template <int... P>
constexpr DepthwiseRow8 depthwise_row8(std::integer_sequence<int, P...>) {
  return {{depthwise_tile8<P + 1>...}};
}
inline constexpr DepthwiseRow8 kDepthwiseTiles8 = depthwise_row8(std::make_integer_sequence<int, kDepthwisePixels>());

inline void depthwise_any8(const ConvArgs8& args, int part, int parts) {
  const PackedConv8& conv = *args.conv;
  const ConvShape& s = conv.shape;
  const BlockedView8& x = args.x;
  const BlockedView8& y = args.y;
  const Epilogue8 epilogue{args.rounding, args.addition};
  const Split columns(s.out_width, kDepthwisePixels);
  DepthwiseTile8 t;
  t.x_row = s.dilation_h * x.row_stride;
  t.x_column = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
  t.pixel = static_cast<ptrdiff_t>(s.stride_w) * kLanes;
  t.kernel_h = s.kernel_h;
  t.kernel_w = s.kernel_w;
  t.parts = conv.parts;
  t.epilogue = &epilogue;
  each_row_of_share(y.blocks(), rows_of(args), part, parts, [&](int b, int row) {
    t.w = conv.weights.data() + conv.blocks[b].offset;
    t.bias = bias_of(conv.bias) + b * kLanes;
    t.scale = conv.scale.data() + b * kLanes;
    const uint8_t* x_row = x.data + b * x.block_stride + (row * s.stride_h - s.pad.top) * x.row_stride -
                           static_cast<ptrdiff_t>(s.pad.left) * kLanes;
    for (int chunk = 0; chunk < columns.chunks; ++chunk) {
      const int column = columns.begin(chunk);
      t.x = x_row + column * t.pixel;
      t.out.y = y.data + b * y.block_stride + row * y.row_stride + column * kLanes;
      if (args.residual != nullptr) {
        const BlockedView8& r = *args.residual;
        t.out.residual = r.data + b * r.block_stride + row * r.row_stride + column * kLanes;
      }
      kDepthwiseTiles8.fn[columns.size(chunk) - 1](t);
    }
  });
}

// A block's weights for a K x K kernel over R rows of output, which read the same groups of four rows: for each row of
// output, group and column, those of the four quarters of the channels.
template <int K, int R>
struct DepthwiseWeights8 {
  static constexpr int kGroups = (K + R + 2) / 4;
  PixelFactors factor[R][kGroups][K][4];
  Bits bias[4];
  Vec scale[4];

  DepthwiseWeights8(const PackedConv8& conv, int b) {
    const int8_t* packed = conv.weights.data() + conv.blocks[b].offset;
    for (int group = 0; group < kGroups; ++group) {
      for (int k = 0; k < K; ++k) {
        // Groups of the kernel's own rows, of which the last may not exist; for the second row of output, one row later.
        uint32_t rows[kLanes] = {}, before[kLanes] = {};
        const auto read = [&](int g, uint32_t* to) {
          if (g >= 0 && g < (K + 3) / 4) std::memcpy(to, packed + (g * K + k) * kFactorBytes, kFactorBytes);
        };
        read(group, rows);
        read(group - 1, before);
        for (int r = 0; r < R; ++r) {
          const int8_t* bytes = reinterpret_cast<const int8_t*>(rows);
          for (int j = 0; j < 4; ++j) factor[r][group][k][j] = load_pixel_factors(bytes + j * 4 * kQuad);
          for (int lane = 0; lane < kLanes; ++lane) rows[lane] = rows[lane] << 8 | before[lane] >> 24;
        }
      }
    }
    for (int j = 0; j < 4; ++j) {
      bias[j] = load_for_pixels(bias_of(conv.bias) + b * kLanes + 4 * j);
      scale[j] = load_for_pixels(conv.scale.data() + b * kLanes + 4 * j);
    }
  }
};

struct DepthwiseLine8 {
  const uint8_t* x;  // the first tap of the first pixel
  ptrdiff_t x_row;
  uint8_t* y;
  ptrdiff_t y_row;
  int width;  // at least 4
  const Rounding* rounding;
};

// Those of every S-th of the pixels of three groups, from pixel k on.
template <int S, int k>
RSKIP_INLINE Quads window_pixels(const Quads& first, const Quads& second, const Quads& third) {
  if constexpr (S == 1) {
    return pixels_from<k>(first, second);
  } else {
    return pixels_from<k / 2>(every_second<k % 2>(first, second), every_second<k % 2>(third, third));
  }
}

// sum[r] += window * factor[r][group][at][j] for each row r of output.
template <int R, class Weights>
RSKIP_INLINE void add_tap(Bits (&sum)[R], const Quads& window, const Weights& w, int group, int at, int j) {
  RSKIP_UNROLL(2) for (int r = 0; r < R; ++r) sum[r] = add_dot(sum[r], window, w.factor[r][group][at][j]);
}

// R rows of output, four pixels at a time; the last four may overlap those before. `Weights` are for as many rows or more.
template <int S, int R, class Weights, int... k>
[[gnu::noinline]] void depthwise_line8(const DepthwiseLine8& t, const Weights& w, std::integer_sequence<int, k...>) {
  constexpr int kGroups = Weights::kGroups, kKernel = sizeof...(k);
  const Rounder8 rounder = rounder_of(*t.rounding);
  FourRows rows[kGroups];
  for (int g = 0; g < kGroups; ++g) rows[g] = FourRows(4 * g, kKernel + R - 1, t.x_row);
  Quads column[kGroups][S + 1][4];
  RSKIP_UNROLL(2) for (int g = 0; g < kGroups; ++g) rows[g].pixels(t.x, column[g][S]);
  for (int first = 0; first < t.width; first += 4) {
    const int pixel = std::min(first, t.width - 4);
    const uint8_t* x = t.x + static_cast<ptrdiff_t>(pixel) * S * kLanes;
    RSKIP_UNROLL(2) for (int g = 0; g < kGroups; ++g) {
      if (pixel < first) {
        rows[g].pixels(x, column[g][0]);
      } else {
        RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) column[g][0][j] = column[g][S][j];
      }
      RSKIP_UNROLL(2) for (int i = 1; i <= S; ++i) rows[g].pixels(x + i * 4 * kLanes, column[g][i]);
    }
    Bits value[R][4];
    RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) {
      Bits sum[R];
      RSKIP_UNROLL(2) for (int r = 0; r < R; ++r) sum[r] = w.bias[j];
      RSKIP_UNROLL(2) for (int g = 0; g < kGroups; ++g) {
        (add_tap(sum, window_pixels<S, k>(column[g][0][j], column[g][1][j], column[g][S][j]), w, g, k, j), ...);
      }
      RSKIP_UNROLL(2) for (int r = 0; r < R; ++r) value[r][j] = rounder.round(to_float(sum[r]) * w.scale[j]);
    }
    RSKIP_UNROLL(2) for (int r = 0; r < R; ++r) rounder.store_pixels(t.y + r * t.y_row + pixel * kLanes, value[r]);
  }
}

template <int K, int S>
void depthwise_lines8(const ConvArgs8& args, int part, int parts) {
  constexpr int kRows = S == 1 ? 2 : 1;  // with a stride, rows of output have few rows of input in common
  constexpr std::make_integer_sequence<int, K> kTaps;
  const ConvShape& s = args.conv->shape;
  const BlockedView8& x = args.x;
  const BlockedView8& y = args.y;
  DepthwiseLine8 t{nullptr, x.row_stride, nullptr, y.row_stride, s.out_width, &args.rounding};
  each_rows_of_share(y.blocks(), rows_of(args), part, parts, [&](int b, int first, int end) {
    const DepthwiseWeights8<K, kRows> weights(*args.conv, b);
    for (int row = first; row < end; row += kRows) {
      t.x = x.data + b * x.block_stride + (row * S - s.pad.top) * x.row_stride - static_cast<ptrdiff_t>(s.pad.left) * kLanes;
      t.y = y.data + b * y.block_stride + row * y.row_stride;
      if (row + kRows <= end) {
        depthwise_line8<S, kRows>(t, weights, kTaps);
      } else {
        depthwise_line8<S, 1>(t, weights, kTaps);
      }
    }
  });
}

inline void conv8_depthwise(const ConvArgs8& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  if (!depthwise_by_lines8(s) || args.residual != nullptr || args.conv->parts > 1) return depthwise_any8(args, part, parts);
  if (s.kernel_w == 3) {
    return s.stride_w == 1 ? depthwise_lines8<3, 1>(args, part, parts) : depthwise_lines8<3, 2>(args, part, parts);
  }
  s.stride_w == 1 ? depthwise_lines8<5, 1>(args, part, parts) : depthwise_lines8<5, 2>(args, part, parts);
}

}  // namespace rskip::RSKIP_ISA
