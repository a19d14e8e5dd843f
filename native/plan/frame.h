// How plans name memory before it exists, and what one item's execution owns besides its arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/cancellation.h"
#include "ops/tensor.h"

namespace rskip {

// What a place's offset counts from: address zero (the offset is then an address), the arena, or an input or output of
// the program, which follow in this order.
enum class Base : uint32_t { kAddress, kArena, kFirstPort };

// A byte address that a frame resolves.
struct Place {
  Base base = Base::kAddress;
  int64_t offset = 0;

  static Place at_address(const void* data) {
    return {Base::kAddress, static_cast<int64_t>(reinterpret_cast<uintptr_t>(data))};
  }
  static Place in_arena(int64_t offset) { return {Base::kArena, offset}; }
  // Inputs are counted first, then outputs.
  static Place at_port(size_t port) {
    return {static_cast<Base>(static_cast<size_t>(Base::kFirstPort) + port), 0};
  }
  Place plus(int64_t bytes) const { return {base, offset + bytes}; }
};

struct Frame {
  std::vector<uintptr_t> bases;  // by Base
  // Operands of the operators on dense tensors. Made once with the frame, so that steps allocate nothing; only the data
  // pointers change from item to item.
  std::vector<TensorView> views;
  Cancellation cancellation;  // of the item's run

  static size_t base_count(size_t ports) { return static_cast<size_t>(Base::kFirstPort) + ports; }

  template <class T>
  T* at(Place place) const {
    return reinterpret_cast<T*>(bases[static_cast<size_t>(place.base)] + static_cast<uintptr_t>(place.offset));
  }
};

}  // namespace rskip
