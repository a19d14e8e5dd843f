// What one item's execution owns besides its arena, and how plans name memory before it exists.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/cancellation.h"
#include "ops/tensor.h"

namespace rskip {

// A byte address as base + offset. Bases of a frame: 0 is address zero (so `offset` is an address: constants),
// 1 the arena, then the program's inputs, then its outputs.
struct Place {
  int32_t base = 0;
  int64_t offset = 0;
  Place plus(int64_t bytes) const { return {base, offset + bytes}; }
};
inline constexpr int32_t kAbsoluteBase = 0, kArenaBase = 1, kFirstPortBase = 2;

struct Frame {
  std::vector<uintptr_t> bases;
  // Operands of the operators on dense tensors; made once with the frame, so that steps allocate nothing. Only the
  // data pointers change from item to item.
  std::vector<TensorView> views;
  // Of the run that the item belongs to.
  Cancellation cancellation;

  template <class T>
  T* at(Place place) const {
    return reinterpret_cast<T*>(bases[static_cast<size_t>(place.base)] + static_cast<uintptr_t>(place.offset));
  }
};

}  // namespace rskip
