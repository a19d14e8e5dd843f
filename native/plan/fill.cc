#include "plan/fill.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace rskip {
namespace {

constexpr ptrdiff_t kTwoBytePixels = 2 * kLanes, kFourBytePixels = 4 * kLanes, kTwoFloatPixels = kTwoBytePixels * sizeof(float);

}  // namespace

void HaloFill::run(const Frame& frame, int part, int parts) const {
  const int height = layout.image.h;
  const auto [first, end] = share_of(height, part, parts);
  if (first == end) return;
  const ptrdiff_t row = layout.row_stride * layout.element;
  const ptrdiff_t interior = static_cast<ptrdiff_t>(layout.image.w) * layout.unit * layout.element;
  const ptrdiff_t gap = row - interior, before = layout.origin * layout.element;
  const ptrdiff_t plane_bytes = layout.plane_stride * layout.element;
  uint8_t* plane = frame.at<uint8_t>(place);
  for (int64_t i = static_cast<int64_t>(layout.planes) * layout.image.n; i > 0; --i, plane += plane_bytes) {
    // What lies before each row, and before the first and after the last of the plane.
    uint8_t* const origin = plane + before;
    if (first == 0) std::memset(plane, byte, static_cast<size_t>(before));
    const int second = std::max(first, 1);
    const auto each_row = [&](auto bytes) {
      uint8_t* from = origin + second * row - gap;
      for (int h = second; h < end; ++h, from += row) std::memset(from, byte, bytes);
    };
    // By far the most common: a pixel on either side, and three on the right of depthwise convolutions of bytes. A call for every row would cost more than the stores.
    if (gap == kTwoFloatPixels) {
      each_row(std::integral_constant<size_t, kTwoFloatPixels>());
    } else if (gap == kTwoBytePixels) {
      each_row(std::integral_constant<size_t, kTwoBytePixels>());
    } else if (gap == kFourBytePixels) {
      each_row(std::integral_constant<size_t, kFourBytePixels>());
    } else if (gap > 0) {
      each_row(static_cast<size_t>(gap));
    }
    if (end < height) continue;
    uint8_t* const from = origin + (height - 1) * row + interior;
    std::memset(from, byte, static_cast<size_t>(plane + plane_bytes - from));
  }
}

void TailFill::run(const Frame& frame) const { std::memset(frame.at<void>(place), 0, bytes); }

}  // namespace rskip
