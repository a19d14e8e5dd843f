// Direct convolution on planar input: k runs over (channel, kh, kw).
#pragma once

#include "kernels/convolution/conv_tiles-inl.h"

namespace rskip::RSKIP_ISA {

template <class Tiles>
void conv_planar(const typename Tiles::Args& args, int part, int parts) {
  const ConvShape& s = args.conv->shape;
  const auto& x = args.x_planar;
  Walk walk;
  walk.n0 = s.in_channels;
  walk.n1 = s.kernel_h;
  walk.s0 = x.plane_stride;
  walk.s1 = s.dilation_h * x.row_stride;
  if (s.dilation_w == 1) {
    walk.inner = walk.inner_last = (s.kernel_w + Tiles::kStep - 1) / Tiles::kStep;
  } else {
    walk.n2 = s.kernel_w;
    walk.s2 = s.dilation_w;
  }
  const ConvRows rows{rows_of(args), s.out_width, s.stride_h * x.row_stride, s.stride_w, false};
  const auto* x0 = x.data - s.pad.top * x.row_stride - s.pad.left;
  conv_tiles_run<Tiles>(args, x0, 0, rows, walk, part, parts);
}

}  // namespace rskip::RSKIP_ISA
