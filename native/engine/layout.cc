#include "engine/layout.h"

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
  const int64_t planes = static_cast<int64_t>(layout.planes) * layout.image.n;
  const int64_t begin = planes * part / parts, end = planes * (part + 1) / parts;
  float* plane = frame.at<float>(place) + begin * layout.plane_stride;
  const ptrdiff_t interior = static_cast<ptrdiff_t>(layout.image.w) * layout.unit;
  const ptrdiff_t gap = layout.row_stride - interior;
  for (int64_t i = begin; i < end; ++i, plane += layout.plane_stride) {
    float* from = plane + layout.origin;
    std::memset(plane, 0, static_cast<size_t>(from - plane) * sizeof(float));
    from += interior;
    if (gap == 2 * kLanes) {
      // By far the most common: a pixel on either side. A call for every row would cost more than the stores.
      for (int h = 1; h < layout.image.h; ++h, from += layout.row_stride)
        std::memset(from, 0, 2 * kLanes * sizeof(float));
    } else if (gap > 0) {
      for (int h = 1; h < layout.image.h; ++h, from += layout.row_stride) {
        std::memset(from, 0, static_cast<size_t>(gap) * sizeof(float));
      }
    } else {
      from += (layout.image.h - 1) * layout.row_stride;
    }
    std::memset(from, 0, static_cast<size_t>(plane + layout.plane_stride - from) * sizeof(float));
  }
}

void TailFill::run(const Frame& frame) const { std::memset(frame.at<void>(place), 0, bytes); }

}  // namespace rskip
