// Direct convolution on blocked input: k runs over (input block, kh, kw, channel), of 8-bit numbers over (kh, kw, input block,
// channel).
#pragma once

#include "kernels/convolution/conv_tiles-inl.h"

namespace rskip::RSKIP_ISA {

template <class Tiles>
void conv_direct(const typename Tiles::Args& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  const auto& x = args.x;
  Walk walk;
  const ptrdiff_t row = s.dilation_h * x.row_stride, column = static_cast<ptrdiff_t>(s.dilation_w) * kLanes;
  if constexpr (Tiles::kTapsFirst) {
    walk.n0 = s.kernel_h;
    walk.n1 = s.kernel_w;
    walk.s0 = row;
    walk.s1 = column;
    walk.s2 = x.block_stride;
  } else {
    walk.n1 = s.kernel_h;
    walk.n2 = s.kernel_w;
    walk.s0 = x.block_stride;
    walk.s1 = row;
    walk.s2 = column;
  }
  walk.inner = kLanes / Tiles::kStep;
  ConvRows rows{rows_of(args), s.out_width, s.stride_h * x.row_stride, static_cast<ptrdiff_t>(s.stride_w) * kLanes, false};
  const bool pointwise = s.kernel_h == 1 && s.kernel_w == 1 && s.stride_h == 1 && s.stride_w == 1;
  if (pointwise && s.out_height == s.in_height && s.out_width == s.in_width && s.pad.top == 0 && s.pad.left == 0 &&
      dense(x)) {
    rows = {1, rows_of(args) * s.out_width, 0, kLanes, true};
  }
  const auto* x0 = x.data - s.pad.top * x.row_stride - static_cast<ptrdiff_t>(s.pad.left) * kLanes;
  conv_tiles_run<Tiles>(args, x0, x.block_stride, rows, walk, part, parts);
}

}  // namespace rskip::RSKIP_ISA
