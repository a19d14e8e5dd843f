// Windows as the kernels have them: of two axes, counted with int.
#pragma once

#include <limits>
#include <optional>

#include "kernels/table.h"
#include "program/geometry.h"

namespace rskip {

// The attributes of a two-dimensional window; one-dimensional ones get a first axis of extent 1.
struct Window2d {
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  Halo pad;
};

// Nothing for three axes, and for numbers beyond int.
inline std::optional<Window2d> as_2d(const ops::Window& w) {
  const size_t rank = w.kernel.size();
  if (rank > 2) return std::nullopt;
  for (const Ints* list : {&w.kernel, &w.strides, &w.dilations}) {
    for (int64_t v : *list) {
      if (v < 1 || v > std::numeric_limits<int>::max()) return std::nullopt;
    }
  }
  const auto last = [rank](const Ints& list) { return static_cast<int>(list[rank - 1]); };
  Window2d out;
  out.kernel_w = last(w.kernel);
  out.stride_w = last(w.strides);
  out.dilation_w = last(w.dilations);
  out.pad.left = static_cast<int>(w.pads[rank - 1]);
  out.pad.right = static_cast<int>(w.pads[2 * rank - 1]);
  if (rank == 2) {
    out.kernel_h = static_cast<int>(w.kernel[0]);
    out.stride_h = static_cast<int>(w.strides[0]);
    out.dilation_h = static_cast<int>(w.dilations[0]);
    out.pad.top = static_cast<int>(w.pads[0]);
    out.pad.bottom = static_cast<int>(w.pads[2]);
  }
  return out;
}

// Without views.
inline PoolArgs pool_window(const Window2d& window) {
  PoolArgs args;
  args.kernel_h = window.kernel_h;
  args.kernel_w = window.kernel_w;
  args.stride_h = window.stride_h;
  args.stride_w = window.stride_w;
  args.dilation_h = window.dilation_h;
  args.dilation_w = window.dilation_w;
  args.pad = window.pad;
  return args;
}

inline ConvShape conv_shape(const Image& x, const Image& y, const Window2d& window, int groups) {
  ConvShape shape;
  shape.in_channels = x.c;
  shape.in_height = x.h;
  shape.in_width = x.w;
  shape.out_channels = y.c;
  shape.out_height = y.h;
  shape.out_width = y.w;
  shape.kernel_h = window.kernel_h;
  shape.kernel_w = window.kernel_w;
  shape.stride_h = window.stride_h;
  shape.stride_w = window.stride_w;
  shape.dilation_h = window.dilation_h;
  shape.dilation_w = window.dilation_w;
  shape.pad = window.pad;
  shape.groups = groups;
  return shape;
}

}  // namespace rskip
