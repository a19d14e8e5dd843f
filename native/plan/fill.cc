#include "plan/fill.h"

#include <algorithm>
#include <cstring>

namespace rskip {

void HaloFill::run(const Frame& frame, int part, int parts) const {
  const int height = layout.image.h;
  const auto [first, end] = share_of(height, part, parts);
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
