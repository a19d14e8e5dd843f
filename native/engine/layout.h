// Layouts of values in memory: dense, blocked (NCHWc16 with a zero halo), planar with a zero halo, and padded
// channel vectors. Geometry only; places come from the memory plan.
#pragma once

#include <cstddef>

#include "engine/frame.h"
#include "engine/program.h"
#include "kernels/types.h"

namespace rskip {

enum class Form {
  kDense,     // row-major
  kBlocked,   // BlockedView
  kPlanar,    // PlanarView with a zero halo
  kChannels,  // one vector of whole blocks for every image: channels, then zeros
};

// A value seen as images: (N, C), (N, C, W) or (N, C, H, W).
struct Image {
  int n = 0, c = 0, h = 0, w = 0;
  bool operator==(const Image&) const = default;
  int64_t pixels() const { return static_cast<int64_t>(h) * w; }
};
// False when the value isn't float32 of rank 2 to 4, is empty, or has an extent beyond what kernels count with.
bool as_image(const Value& value, Image* image);

// Geometry of a blocked or planar buffer that holds `image.n` images one after another.
struct ImageLayout {
  Image image;
  Halo halo;
  int unit = kLanes;  // floats of a pixel: 16 blocked, 1 planar
  int planes = 0;     // of one image: channel blocks, or channels
  ptrdiff_t row_stride = 0, plane_stride = 0;
  ptrdiff_t origin = 0;  // from a plane's first float to its pixel (0, 0)
  size_t image_bytes() const { return static_cast<size_t>(plane_stride) * static_cast<size_t>(planes) * sizeof(float); }
  size_t bytes() const { return image_bytes() * static_cast<size_t>(image.n); }
};
ImageLayout blocked_layout(const Image& image, const Halo& halo);
ImageLayout planar_layout(const Image& image, const Halo& halo);

// Views without data; the pointer is that of Operand.
BlockedView blocked_view(const ImageLayout& layout);
PlanarView planar_view(const ImageLayout& layout);

inline int whole_blocks(int channels) { return (channels + kLanes - 1) / kLanes * kLanes; }

// Zeroes what lies around the interiors of some planes: the first thing done by an instruction that produces a
// buffer. Rows are cleared from the end of one interior to the start of the next.
struct HaloFill {
  Place place;
  ImageLayout layout;
  void run(const Frame& frame, int part, int parts) const;
};

// Zeroes a few bytes: the lanes after a vector's last channel.
struct TailFill {
  Place place;
  size_t bytes = 0;
  void run(const Frame& frame) const;
};

}  // namespace rskip
