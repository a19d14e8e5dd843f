// Depthwise convolution on 8-bit numbers: lanes are channels, and a dot product takes four rows of one column.
#pragma once

#include "kernels/tile8-inl.h"

namespace rskip::RSKIP_ISA {

struct DepthwiseTile8 {
  const uint8_t* x;
  ptrdiff_t x_row, x_column, pixel;  // bytes between taps, and between pixels
  int kernel_h, kernel_w;
  const int8_t* w;
  const int32_t* bias;
  const float* scale;
  TileTarget<uint8_t> out;
  const Epilogue8* epilogue;
};
using DepthwiseTileFn8 = void (*)(const DepthwiseTile8&);

// Up to four rows of the kernel, from `first` on; the others have no weight, so that any row does.
struct FourRows {
  ptrdiff_t offset[4];
  FourRows(int first, int kernel_h, ptrdiff_t x_row) {
    for (int i = 0; i < 4; ++i) offset[i] = std::min(first + i, kernel_h - 1) * x_row;
  }
  RSKIP_INLINE Quads operator()(const uint8_t* x) const {
    return interleave(x + offset[0], x + offset[1], x + offset[2], x + offset[3]);
  }
};

// Any kernel, stride and dilation.
template <int P>
[[gnu::noinline]] void depthwise_tile8_any(const DepthwiseTile8& t) {
  Bits acc[P][1];
  tile_bias8(acc, t.bias);
  const int8_t* w = t.w;
  for (int kh = 0; kh < t.kernel_h; kh += kQuad) {
    const FourRows rows(kh, t.kernel_h, t.x_row);
    const uint8_t* x = t.x;
    for (int kw = 0; kw < t.kernel_w; ++kw, x += t.x_column, w += kFactorBytes) {
      const Factors factor = load_factors(w);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = add_dot(acc[p][0], rows(x + p * t.pixel), factor);
    }
  }
  tile_store8(acc, t.out, t.scale, *t.epilogue);
}

// Kernel width K, horizontal stride S, no horizontal dilation: each column is loaded once for four rows of the kernel.
template <int P, int K, int S>
[[gnu::noinline]] void depthwise_tile8(const DepthwiseTile8& t) {
  Bits acc[P][1];
  tile_bias8(acc, t.bias);
  const int8_t* w = t.w;
  for (int kh = 0; kh < t.kernel_h; kh += kQuad, w += K * kFactorBytes) {
    const FourRows rows(kh, t.kernel_h, t.x_row);
    Factors factor[K];
    RSKIP_UNROLL(16) for (int k = 0; k < K; ++k) factor[k] = load_factors(w + k * kFactorBytes);
    RSKIP_UNROLL(32) for (int j = 0; j < (P - 1) * S + K; ++j) {
      const Quads column = rows(t.x + j * kLanes);
      RSKIP_UNROLL(16) for (int k = 0; k < K; ++k) {
        const int p = (j - k) / S;
        if (j >= k && p * S + k == j && p < P) acc[p][0] = add_dot(acc[p][0], column, factor[k]);
      }
    }
  }
  tile_store8(acc, t.out, t.scale, *t.epilogue);
}

struct DepthwiseRow8 {
  DepthwiseTileFn8 fn[kDepthwisePixels];
};
template <int K, int S, int... P>
constexpr DepthwiseRow8 depthwise_row8(std::integer_sequence<int, P...>) {
  if constexpr (K == 0) {
    return {{depthwise_tile8_any<P + 1>...}};
  } else {
    return {{depthwise_tile8<P + 1, K, S>...}};
  }
}
template <int K, int S>
inline constexpr DepthwiseRow8 kDepthwiseTiles8 =
    depthwise_row8<K, S>(std::make_integer_sequence<int, kDepthwisePixels>());

inline const DepthwiseTileFn8* depthwise_tiles8(const ConvShape& s) {
  if (s.dilation_w == 1 && s.stride_w == 1) {
    if (s.kernel_w == 3) return kDepthwiseTiles8<3, 1>.fn;
    if (s.kernel_w == 5) return kDepthwiseTiles8<5, 1>.fn;
  }
  if (s.dilation_w == 1 && s.stride_w == 2) {
    if (s.kernel_w == 3) return kDepthwiseTiles8<3, 2>.fn;
    if (s.kernel_w == 5) return kDepthwiseTiles8<5, 2>.fn;
  }
  return kDepthwiseTiles8<0, 0>.fn;
}

inline void conv8_depthwise(const ConvArgs8& args, int part, int parts) {
  const PackedConv8& conv = *args.conv;
  const ConvShape& s = conv.shape;
  const BlockedView8& x = args.x;
  const BlockedView8& y = args.y;
  const Epilogue8 epilogue{args.rounding, args.addition};
  const DepthwiseTileFn8* fns = depthwise_tiles8(s);
  const Split columns(s.out_width, kDepthwisePixels);
  DepthwiseTile8 t;
  t.x_row = s.dilation_h * x.row_stride;
  t.x_column = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
  t.pixel = static_cast<ptrdiff_t>(s.stride_w) * kLanes;
  t.kernel_h = s.kernel_h;
  t.kernel_w = s.kernel_w;
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
      fns[columns.size(chunk) - 1](t);
    }
  });
}

}  // namespace rskip::RSKIP_ISA
