#include "engine/layout.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace rskip {
namespace {

// Kernels count pixels and channels with int; what is beyond goes to the operators on dense tensors.
constexpr int64_t kMaxExtent = 1 << 24;
// Rows or planes that are a multiple of 4 KB apart fight for the same cache lines.
constexpr ptrdiff_t kAliasFloats = 1024;

ImageLayout haloed(const Image& image, const Halo& halo, int unit, int planes) {
  ImageLayout layout{image, halo, unit, planes};
  layout.row_stride = static_cast<ptrdiff_t>(halo.left + image.w + halo.right) * unit;
  if (image.h > 1 && layout.row_stride % kAliasFloats == 0) layout.row_stride += kLanes;
  layout.plane_stride = layout.row_stride * (halo.top + image.h + halo.bottom);
  if (unit == kLanes && planes > 1 && layout.plane_stride % kAliasFloats == 0) layout.plane_stride += kLanes;
  layout.origin = halo.top * layout.row_stride + static_cast<ptrdiff_t>(halo.left) * unit;
  return layout;
}

}  // namespace

bool as_image(const Value& value, Image* image) {
  const Ints& s = value.shape;
  if (value.dtype != DType::kFloat32 || s.size() < 2 || s.size() > 4 || value.elements == 0) return false;
  const int64_t h = s.size() == 4 ? s[2] : 1;
  const int64_t w = s.size() == 2 ? 1 : s.back();
  if (s[0] > kMaxExtent || s[1] > kMaxExtent || h > kMaxExtent || w > kMaxExtent) return false;
  if (h * w > std::numeric_limits<int>::max() / (4 * kLanes)) return false;
  *image = {static_cast<int>(s[0]), static_cast<int>(s[1]), static_cast<int>(h), static_cast<int>(w)};
  return true;
}

ImageLayout blocked_layout(const Image& image, const Halo& halo) {
  return haloed(image, halo, kLanes, whole_blocks(image.c) / kLanes);
}

ImageLayout planar_layout(const Image& image, const Halo& halo) { return haloed(image, halo, 1, image.c); }

BlockedView blocked_view(const ImageLayout& layout) {
  return {nullptr, layout.image.c, layout.image.h, layout.image.w, layout.row_stride, layout.plane_stride};
}

PlanarView planar_view(const ImageLayout& layout) {
  return {nullptr, layout.image.c, layout.image.h, layout.image.w, layout.row_stride, layout.plane_stride};
}

void HaloFill::run(const Frame& frame, int part, int parts) const {
  const int height = layout.image.h;
  const int first = static_cast<int>(static_cast<int64_t>(height) * part / parts);
  const int end = static_cast<int>(static_cast<int64_t>(height) * (part + 1) / parts);
  if (first == end) return;
  const ptrdiff_t interior = static_cast<ptrdiff_t>(layout.image.w) * layout.unit;
  const ptrdiff_t gap = layout.row_stride - interior;
  float* plane = frame.at<float>(place);
  for (int64_t i = static_cast<int64_t>(layout.planes) * layout.image.n; i > 0; --i, plane += layout.plane_stride) {
    // What lies before each row, and before the first and after the last of the plane.
    float* const origin = plane + layout.origin;
    if (first == 0) std::memset(plane, 0, static_cast<size_t>(layout.origin) * sizeof(float));
    const int second = std::max(first, 1);
    float* from = origin + second * layout.row_stride - gap;
    if (gap == 2 * kLanes) {
      // By far the most common: a pixel on either side. A call for every row would cost more than the stores.
      for (int h = second; h < end; ++h, from += layout.row_stride) std::memset(from, 0, 2 * kLanes * sizeof(float));
    } else if (gap > 0) {
      for (int h = second; h < end; ++h, from += layout.row_stride) {
        std::memset(from, 0, static_cast<size_t>(gap) * sizeof(float));
      }
    }
    if (end < height) continue;
    from = origin + (height - 1) * layout.row_stride + interior;
    std::memset(from, 0, static_cast<size_t>(plane + layout.plane_stride - from) * sizeof(float));
  }
}

void TailFill::run(const Frame& frame) const { std::memset(frame.at<void>(place), 0, bytes); }

}  // namespace rskip
