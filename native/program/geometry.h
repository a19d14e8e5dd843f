// Sizes of what a plan lays out in memory, and how images lie there. Numbers that come from a program's words are added
// and multiplied here only. Sizes saturate at kTooLarge instead of wrapping; a plan with a size above the memory limit
// is refused before anything is allocated, so no instruction ever sees a saturated one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "kernels/types.h"
#include "program/program.h"

namespace rskip {

inline constexpr int64_t kTooLarge = int64_t{1} << 62;

// Operands are at least 0.
constexpr int64_t saturating_add(int64_t a, int64_t b) { return a >= kTooLarge - b ? kTooLarge : a + b; }
constexpr int64_t saturating_mul(int64_t a, int64_t b) { return b != 0 && a > kTooLarge / b ? kTooLarge : a * b; }
constexpr int64_t saturating_product(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors) product = saturating_mul(product, factor);
  return product;
}

// A value seen as images: (N, C), (N, C, W) or (N, C, H, W).
struct Image {
  int n = 0, c = 0, h = 0, w = 0;
  bool operator==(const Image&) const = default;
  int64_t pixels() const { return static_cast<int64_t>(h) * w; }
};
// False when the value isn't of this type and of rank 2 to 4, is empty, or has an extent beyond what kernels count with.
bool as_image(const Value& value, Image* image, DType dtype = DType::kFloat32);

// The halo that serves both.
Halo widest(const Halo& a, const Halo& b);
inline bool is_empty(const Halo& halo) { return halo.top == 0 && halo.left == 0 && halo.bottom == 0 && halo.right == 0; }

// Geometry of a buffer that holds `image.n` images one after another. Strides and offsets count elements.
struct ImageLayout {
  Image image;
  Halo halo;
  int element = sizeof(float);  // bytes
  int unit = kLanes;            // elements of a pixel: 16 blocked, 1 planar
  int planes = 0;               // of one image: channel blocks, or channels
  int64_t row_stride = 0, plane_stride = 0;
  int64_t origin = 0;  // from a plane's first element to its pixel (0, 0)
  int64_t image_elements() const { return saturating_mul(plane_stride, planes); }
  int64_t bytes() const { return saturating_product({image_elements(), image.n, element}); }
};
// The engine's own buffers, of elements of so many bytes. Strides that would make rows or planes fight for the same cache
// lines are widened.
ImageLayout blocked_layout(const Image& image, const Halo& halo, int element = sizeof(float));
ImageLayout planar_layout(const Image& image, const Halo& halo, int element = sizeof(float));
// A dense tensor, such as the caller's: strides are exactly those of its shape.
ImageLayout dense_layout(const Image& image, int element = sizeof(float));

// A view without data; the pointer is that of an operand.
template <class View>
View view_of(const ImageLayout& l) {
  return {nullptr, l.image.c, l.image.h, l.image.w, static_cast<ptrdiff_t>(l.row_stride),
          static_cast<ptrdiff_t>(l.plane_stride)};
}

}  // namespace rskip
