// Depthwise convolution: lanes are channels, k runs over (kh, kw).
#pragma once

#include <utility>

#include "kernels/matrix/pack.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

struct DepthwiseTile {
  const float* x;
  ptrdiff_t x_row, x_column, pixel;  // floats between taps, and between pixels
  int kernel_h, kernel_w;
  const float* w;
  const float* bias;
  TileOutput out;
  const Epilogue* epilogue;
};
using DepthwiseTileFn = void (*)(const DepthwiseTile&);

// Any kernel, stride and dilation.
template <int P>
[[gnu::noinline]] void depthwise_tile_any(const DepthwiseTile& t) {
  Vec acc[P][1];
  tile_bias(acc, t.bias);
  const float* w = t.w;
  for (int kh = 0; kh < t.kernel_h; ++kh) {
    const float* x = t.x + kh * t.x_row;
    for (int kw = 0; kw < t.kernel_w; ++kw, x += t.x_column, w += kLanes) {
      const Vec weight = load(w);
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = fma(load(x + p * t.pixel), weight, acc[p][0]);
    }
  }
  tile_store(acc, t.out, *t.epilogue);
}

// Kernel width K, horizontal stride S, no horizontal dilation: each input is loaded once per kernel row. One part of the
// lanes after the other, so that sums and weights stay in registers.
template <int P, int K, int S>
[[gnu::noinline]] void depthwise_tile(const DepthwiseTile& t) {
  Part sum[P][kParts];
  RSKIP_UNROLL(4) for (int part = 0; part < kParts; ++part) {
    const float* w = t.w + part * kPartLanes;
    const float* x = t.x + part * kPartLanes;
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) sum[p][part] = load_part(t.bias + part * kPartLanes);
    for (int kh = 0; kh < t.kernel_h; ++kh, x += t.x_row, w += K * kLanes) {
      Part weight[K];
      RSKIP_UNROLL(16) for (int k = 0; k < K; ++k) weight[k] = load_part(w + k * kLanes);
      RSKIP_UNROLL(32) for (int j = 0; j < (P - 1) * S + K; ++j) {
        const Part pixel = load_part_once(x + j * kLanes);
        RSKIP_UNROLL(16) for (int k = 0; k < K; ++k) {
          const int p = (j - k) / S;
          if (j >= k && p * S + k == j && p < P) sum[p][part] = fma_part(pixel, weight[k], sum[p][part]);
        }
      }
    }
  }
  Vec acc[P][1];
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = from_parts(sum[p]);
  tile_store(acc, t.out, *t.epilogue);
}

struct DepthwiseRow {
  DepthwiseTileFn fn[kDepthwisePixels];
};
template <int K, int S, int... P>
constexpr DepthwiseRow depthwise_row(std::integer_sequence<int, P...>) {
  if constexpr (K == 0) {
    return {{depthwise_tile_any<P + 1>...}};
  } else {
    return {{depthwise_tile<P + 1, K, S>...}};
  }
}
template <int K, int S>
inline constexpr DepthwiseRow kDepthwiseTiles =
    depthwise_row<K, S>(std::make_integer_sequence<int, kDepthwisePixels>());

inline const DepthwiseTileFn* depthwise_tiles(const ConvShape& s) {
  if (s.dilation_w == 1 && s.stride_w == 1) {
    if (s.kernel_w == 3) return kDepthwiseTiles<3, 1>.fn;
    if (s.kernel_w == 5) return kDepthwiseTiles<5, 1>.fn;
    if (s.kernel_w == 7) return kDepthwiseTiles<7, 1>.fn;
  }
  if (s.dilation_w == 1 && s.stride_w == 2) {
    if (s.kernel_w == 3) return kDepthwiseTiles<3, 2>.fn;
    if (s.kernel_w == 5) return kDepthwiseTiles<5, 2>.fn;
  }
  return kDepthwiseTiles<0, 0>.fn;
}

// Each block of output channels reads the same block of the input.
inline void conv_by_blocks(const ConvArgs& args, const DepthwiseTileFn* fns, int most_pixels, int part, int parts) {
  const PackedConv& conv = *args.conv;
  const ConvShape& s = conv.shape;
  const BlockedView& x = args.x;
  const BlockedView& y = args.y;
  const Epilogue epilogue = epilogue_of(args.act);
  const Split columns(s.out_width, most_pixels);
  DepthwiseTile t;
  t.x_row = s.dilation_h * x.row_stride;
  t.x_column = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
  t.pixel = static_cast<ptrdiff_t>(s.stride_w) * kLanes;
  t.kernel_h = s.kernel_h;
  t.kernel_w = s.kernel_w;
  t.epilogue = &epilogue;
  each_rows_of_share(y.blocks(), rows_of(args), part, parts, [&](int b, int first, int end) {
    t.w = conv.weights.data() + conv.blocks[b].offset;
    t.bias = conv.bias.data() + b * kLanes;
    int raw = first;  // the first row that waits for its activation
    for (int row = first; row < end; ++row) {
      const float* x_row = x.data + b * x.block_stride + (row * s.stride_h - s.pad.top) * x.row_stride -
                           static_cast<ptrdiff_t>(s.pad.left) * kLanes;
      for (int chunk = 0; chunk < columns.chunks; ++chunk) {
        const int column = columns.begin(chunk);
        t.x = x_row + column * t.pixel;
        t.out.y = y.data + b * y.block_stride + row * y.row_stride + column * kLanes;
        if (args.residual != nullptr) {
          const BlockedView& r = *args.residual;
          t.out.residual = r.data + b * r.block_stride + row * r.row_stride + column * kLanes;
        }
        fns[columns.size(chunk) - 1](t);
      }
      if (epilogue.clamp_only || ((row + 1 - raw) * y.width < kActivatedPixels && row + 1 < end)) continue;
      activate_pixels(y, b, 1, int64_t{raw} * y.width, int64_t{row + 1} * y.width, epilogue.act);
      raw = row + 1;
    }
  });
}

inline void conv_depthwise(const ConvArgs& args, int part, int parts) {
  conv_by_blocks(args, depthwise_tiles(args.conv->shape), kDepthwisePixels, part, parts);
}

}  // namespace rskip::RSKIP_ISA
