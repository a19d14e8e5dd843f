// Dense row-major tensors of the long tail: what native/ops computes on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rskip {

// Order is part of the encoding of programs.
enum class DType : int32_t { kFloat32, kUint8, kInt32, kInt64, kBool, kInt8, kInt16, kUint16, kUint32, kUint64 };

inline size_t dtype_size(DType t) {
  switch (t) {
    case DType::kInt64:
    case DType::kUint64: return 8;
    case DType::kUint8:
    case DType::kBool:
    case DType::kInt8: return 1;
    case DType::kInt16:
    case DType::kUint16: return 2;
    default: return 4;
  }
}
inline bool is_byte(DType t) { return t == DType::kUint8 || t == DType::kInt8; }

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
