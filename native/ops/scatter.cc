// Operators that read or write elements at positions that other tensors give.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/ops.h"
#include "ops/rows.h"

namespace rskip::ops {
namespace {

int64_t index_at(const TensorView& indices, int64_t i) {
  return indices.dtype == DType::kInt64 ? indices.as<int64_t>()[i] : indices.as<int32_t>()[i];
}

// An index that may count from the end, made non-negative; false when it is out of range.
bool resolve(int64_t& index, int64_t length) {
  if (index < -length || index >= length) return false;
  if (index < 0) index += length;
  return true;
}

// Calls f(i, offset in data of the element that the i-th index names on `axis`); false when one is out of range.
template <class F>
bool for_each_element(const TensorView& data, const TensorView& indices, int64_t axis, Poll& poll, F f) {
  const Ints strides = dense_strides(data.shape);
  const size_t rank = strides.size(), along = static_cast<size_t>(axis);
  const int64_t count = indices.elements();
  Ints counter(rank, 0);
  for (int64_t i = 0; i < count; ++i) {
    poll.before(static_cast<int64_t>(rank));
    int64_t index = index_at(indices, i), offset = 0;
    if (!resolve(index, data.shape[along])) return false;
    for (size_t d = 0; d < rank; ++d) offset += strides[d] * (d == along ? index : counter[d]);
    f(i, offset);
    for (size_t d = rank; d-- > 0 && ++counter[d] == indices.shape[d];) counter[d] = 0;
  }
  return true;
}

// Calls f(row, offset in data of the slice that a row of indices names, elements of a slice); false as above.
template <class F>
bool for_each_slice(const TensorView& data, const TensorView& indices, int64_t batch_dims, Poll& poll, F f) {
  const Ints strides = dense_strides(data.shape);
  const size_t batches = static_cast<size_t>(batch_dims), rank = indices.shape.size();
  const int64_t depth = indices.shape.back();
  const int64_t rows = product(indices.shape, 0, rank - 1), per_batch = product(indices.shape, batches, rank - 1);
  const int64_t size = product(data.shape, batches + static_cast<size_t>(depth), data.shape.size());
  for (int64_t row = 0; row < rows; ++row) {
    poll.before(size + depth);
    int64_t offset = batches == 0 ? 0 : row / per_batch * strides[batches - 1];
    for (int64_t k = 0; k < depth; ++k) {
      const size_t axis = batches + static_cast<size_t>(k);
      int64_t index = index_at(indices, row * depth + k);
      if (!resolve(index, data.shape[axis])) return false;
      offset += index * strides[axis];
    }
    f(row, offset, size);
  }
  return true;
}

void copy_elements(const TensorView& from, int64_t at, const TensorView& to, int64_t to_at, int64_t count) {
  const size_t size = dtype_size(to.dtype);
  if (count > 0) {
    std::memcpy(to.as<char>() + static_cast<size_t>(to_at) * size, from.as<char>() + static_cast<size_t>(at) * size,
                static_cast<size_t>(count) * size);
  }
}

// Updates y[to..] with the elements of `updates` from `from` on.
void update(const TensorView& y, int64_t to, const TensorView& updates, int64_t from, int64_t count, ScatterKind kind) {
  if (kind == ScatterKind::kSet) return copy_elements(updates, from, y, to, count);
  dispatch(y.dtype, [&](auto type) {
    using T = decltype(type);
    T* target = y.as<T>() + to;
    const T* source = updates.as<T>() + from;
    for (int64_t i = 0; i < count; ++i) {
      const T a = target[i], b = source[i];
      switch (kind) {
        case ScatterKind::kAdd:
          target[i] = y.dtype == DType::kBool ? greatest(a, b) : plus(a, b);
          break;
        case ScatterKind::kMul:
          target[i] = times(a, b);
          break;
        case ScatterKind::kMin:
          target[i] = least(a, b);
          break;
        case ScatterKind::kMax:
          target[i] = greatest(a, b);
          break;
        case ScatterKind::kSet:
          break;
      }
    }
  });
}

}  // namespace

bool gather_elements(const TensorView& data, const TensorView& indices, int64_t axis, const TensorView& y, Poll poll) {
  return for_each_element(data, indices, axis, poll,
                          [&](int64_t i, int64_t offset) { copy_elements(data, offset, y, i, 1); });
}

bool gather_nd(const TensorView& data, const TensorView& indices, int64_t batch_dims, const TensorView& y, Poll poll) {
  return for_each_slice(data, indices, batch_dims, poll, [&](int64_t row, int64_t offset, int64_t size) {
    copy_elements(data, offset, y, row * size, size);
  });
}

bool scatter_elements(const TensorView& data, const TensorView& indices, const TensorView& updates, int64_t axis,
                      ScatterKind kind, const TensorView& y, Poll poll) {
  copy_elements(data, 0, y, 0, y.elements());
  return for_each_element(data, indices, axis, poll,
                          [&](int64_t i, int64_t offset) { update(y, offset, updates, i, 1, kind); });
}

bool scatter_nd(const TensorView& data, const TensorView& indices, const TensorView& updates, ScatterKind kind,
                const TensorView& y, Poll poll) {
  copy_elements(data, 0, y, 0, y.elements());
  return for_each_slice(data, indices, 0, poll, [&](int64_t row, int64_t offset, int64_t size) {
    update(y, offset, updates, row * size, size, kind);
  });
}

}  // namespace rskip::ops
