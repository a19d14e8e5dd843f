// Forms of values in memory, and what fills the halo around them.
#pragma once

#include <cstddef>

#include "plan/frame.h"
#include "program/geometry.h"

namespace rskip {

enum class Form {
  kDense,     // row-major
  kBlocked,   // BlockedView
  kPlanar,    // PlanarView with a halo
  kChannels,  // one vector of whole blocks for every image: channels, then zeros
};

// Sets the bytes around the interiors of some planes: the first thing done by an instruction that produces a
// buffer. Rows are set from the end of one interior to the start of the next.
struct HaloFill {
  Place place;
  ImageLayout layout;
  uint8_t byte = 0;
  void run(const Frame& frame, int part, int parts) const;
};

// Zeroes a few bytes: the lanes after a vector's last channel.
struct TailFill {
  Place place;
  size_t bytes = 0;
  void run(const Frame& frame) const;
};

}  // namespace rskip
