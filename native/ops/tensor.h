// Dense row-major tensors of the long tail: what native/ops computes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rskip {

// Order is part of the encoding of programs: float32, uint8, int32, int64, bool.
enum class DType : int32_t { kFloat32, kUint8, kInt32, kInt64, kBool };

inline size_t dtype_size(DType t) { return t == DType::kInt64 ? 8 : (t == DType::kUint8 || t == DType::kBool) ? 1 : 4; }

// A view; strides are those of a dense row-major tensor of this shape.
struct TensorView {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  void* data = nullptr;
  int64_t elements() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace rskip
