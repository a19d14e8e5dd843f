#include "program/geometry.h"

#include <algorithm>
#include <limits>

namespace rskip {
namespace {

// Kernels count pixels and channels with int; larger images are left to the operators on dense tensors.
constexpr int64_t kMaxExtent = 1 << 24;
// Rows or planes that are a multiple of 4 KB apart fight for the same cache lines.
constexpr int kAliasBytes = 4096, kLineBytes = 64;

ImageLayout haloed(const Image& image, const Halo& halo, int element, int unit, int planes) {
  const int alias = kAliasBytes / element, line = kLineBytes / element;
  ImageLayout layout{image, halo, element, unit, planes};
  // Extents of 31 bits each: these sums fit 64.
  const int64_t width = int64_t{halo.left} + image.w + halo.right, height = int64_t{halo.top} + image.h + halo.bottom;
  layout.row_stride = width * unit;
  if (image.h > 1 && layout.row_stride % alias == 0) layout.row_stride += line;
  layout.plane_stride = saturating_mul(layout.row_stride, height);
  if (unit == kLanes && planes > 1 && layout.plane_stride % alias == 0) {
    layout.plane_stride = saturating_add(layout.plane_stride, line);
  }
  layout.origin = saturating_mul(layout.row_stride, halo.top) + int64_t{halo.left} * unit;
  return layout;
}

}  // namespace

bool as_image(const Value& value, Image* image, DType dtype) {
  const Ints& s = value.shape;
  if (value.dtype != dtype || s.size() < 2 || s.size() > 4 || value.elements == 0) return false;
  const int64_t h = s.size() == 4 ? s[2] : 1;
  const int64_t w = s.size() == 2 ? 1 : s.back();
  if (s[0] > kMaxExtent || s[1] > kMaxExtent || h > kMaxExtent || w > kMaxExtent) return false;
  if (h * w > std::numeric_limits<int>::max() / (4 * kLanes)) return false;
  *image = {static_cast<int>(s[0]), static_cast<int>(s[1]), static_cast<int>(h), static_cast<int>(w)};
  return true;
}

Halo widest(const Halo& a, const Halo& b) {
  return {std::max(a.top, b.top), std::max(a.left, b.left), std::max(a.bottom, b.bottom), std::max(a.right, b.right)};
}

ImageLayout blocked_layout(const Image& image, const Halo& halo, int element) {
  return haloed(image, halo, element, kLanes, channel_blocks(image.c));
}

ImageLayout planar_layout(const Image& image, const Halo& halo, int element) {
  return haloed(image, halo, element, 1, image.c);
}

ImageLayout dense_layout(const Image& image, int element) {
  return {image, {}, element, 1, image.c, image.w, image.pixels(), 0};
}

}  // namespace rskip
