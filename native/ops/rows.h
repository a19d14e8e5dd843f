// Walks strided views row by row: adjacent axes that every operand walks through evenly are merged first, so
// that the innermost row is as long as the views allow.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "ops/ops.h"

namespace rskip::ops {

// Calls f with a value of the element type of `dtype`.
template <class F>
void dispatch(DType dtype, F f) {
  switch (dtype) {
    case DType::kFloat32:
      return f(float{});
    case DType::kInt32:
      return f(int32_t{});
    case DType::kInt64:
      return f(int64_t{});
    case DType::kUint8:
    case DType::kBool:
      return f(uint8_t{});
    case DType::kInt8:
      return f(int8_t{});
    case DType::kInt16:
      return f(int16_t{});
    case DType::kUint16:
      return f(uint16_t{});
    case DType::kUint32:
      return f(uint32_t{});
    case DType::kUint64:
      return f(uint64_t{});
  }
}

// The sum or product of two elements; unsigned arithmetic wraps where signed overflow would be undefined.
template <class T>
using Wrapping = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;
template <class T>
T plus(T a, T b) {
  return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));
}
template <class T>
T times(T a, T b) {
  return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));
}

// The smaller and the greater of two; NaN propagates.
template <class T>
T least(T a, T b) {
  return b < a || b != b ? b : a;
}
template <class T>
T greatest(T a, T b) {
  return b > a || b != b ? b : a;
}

// Strides, in elements, of a dense row-major tensor.
inline Ints dense_strides(const Ints& shape) {
  Ints strides(shape.size());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

// Strides that read a dense tensor of `shape` as if it were numpy-broadcast to `target`.
inline Ints broadcast_strides(const Ints& shape, const Ints& target) {
  const Ints dense = dense_strides(shape);
  const size_t lead = target.size() - shape.size();
  Ints strides(target.size(), 0);
  for (size_t axis = lead; axis < target.size(); ++axis) {
    if (shape[axis - lead] != 1) strides[axis] = dense[axis - lead];
  }
  return strides;
}

inline int64_t product(const Ints& shape, size_t first, size_t last) {
  int64_t n = 1;
  for (size_t axis = first; axis < last; ++axis) n *= shape[axis];
  return n;
}

// Elements of the axes before `axis`, of `axis` itself, and of those after it.
struct Split {
  int64_t outer, length, inner;
};
inline Split split_at(const Ints& shape, int64_t axis) {
  const size_t a = static_cast<size_t>(axis);
  if (a >= shape.size()) return {product(shape, 0, shape.size()), 1, 1};
  return {product(shape, 0, a), shape[a], product(shape, a + 1, shape.size())};
}

// Calls segment(begin, end) for consecutive pieces of [0, n), and polls before each.
template <class Segment>
void for_each_segment(int64_t n, Poll& poll, Segment segment) {
  constexpr int64_t kSegment = 1 << 16;
  for (int64_t begin = 0; begin < n; begin += kSegment) {
    const int64_t end = std::min(n, begin + kSegment);
    poll.before(end - begin);
    segment(begin, end);
  }
}

// The rows of a shape, for N operands whose strides over it are given.
template <size_t N>
class Rows {
 public:
  Rows(const Ints& shape, const std::array<Ints, N>& strides) {
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      const int64_t dim = shape[axis];
      if (dim == 0) length_ = 0;
      if (dim <= 1) continue;
      bool even = !outer_.empty();
      for (size_t i = 0; even && i < N; ++i) even = outer_strides_[i].back() == strides[i][axis] * dim;
      if (even) outer_.back() *= dim;
      else outer_.push_back(dim);
      for (size_t i = 0; i < N; ++i) {
        if (even) outer_strides_[i].back() = strides[i][axis];
        else outer_strides_[i].push_back(strides[i][axis]);
      }
    }
    if (outer_.empty()) return;
    length_ *= outer_.back();
    outer_.pop_back();
    for (size_t i = 0; i < N; ++i) {
      steps_[i] = outer_strides_[i].back();
      outer_strides_[i].pop_back();
    }
  }

  // Rows, elements of each, and the distance between these, for each of the operands.
  int64_t count() const { return product(outer_, 0, outer_.size()); }
  int64_t length() const { return length_; }
  const std::array<int64_t, N>& steps() const { return steps_; }

  // Calls row(offsets, length, steps) for every row, or piece of a long one: offsets of its first element and distance
  // between its elements, for each of the operands.
  template <class Row>
  void each(Poll& poll, Row row) const {
    each(0, count(), poll, row);
  }
  // The same for rows [begin, end).
  template <class Row>
  void each(int64_t begin, int64_t end, Poll& poll, Row row) const {
    walk(outer_.size(), begin, end, [&](const std::array<int64_t, N>& offsets) {
      for_each_segment(length_, poll, [&](int64_t from, int64_t to) {
        std::array<int64_t, N> first = offsets;
        for (size_t i = 0; i < N; ++i) first[i] += from * steps_[i];
        row(first, to - from, steps_);
      });
    });
  }

  // Rows along the axis before the row's own.
  int64_t group() const { return outer_.empty() ? 1 : outer_.back(); }
  // The distance between such rows of an operand.
  int64_t group_step(size_t operand) const { return outer_.empty() ? 0 : outer_strides_[operand].back(); }
  // Calls fn(offsets) for the first row of each such group.
  template <class F>
  void each_group(F fn) const {
    const size_t axes = outer_.empty() ? 0 : outer_.size() - 1;
    walk(axes, 0, product(outer_, 0, axes), fn);
  }

 private:
  // Calls fn(offsets) for the positions [begin, end) on the first `axes` of the axes that rows are apart on.
  template <class F>
  void walk(size_t axes, int64_t begin, int64_t end, F fn) const {
    if (length_ == 0) return;
    std::array<int64_t, N> offsets{};
    Ints counter(axes, 0);
    int64_t rest = begin;
    for (size_t axis = axes; axis-- > 0; rest /= outer_[axis]) {
      counter[axis] = rest % outer_[axis];
      for (size_t i = 0; i < N; ++i) offsets[i] += counter[axis] * outer_strides_[i][axis];
    }
    for (int64_t at = begin; at < end; ++at) {
      fn(offsets);
      for (size_t axis = axes; axis-- > 0;) {
        const bool wraps = ++counter[axis] == outer_[axis];
        for (size_t i = 0; i < N; ++i) offsets[i] += outer_strides_[i][axis] * (wraps ? 1 - outer_[axis] : 1);
        if (!wraps) break;
        counter[axis] = 0;
      }
    }
  }

  Ints outer_;
  std::array<Ints, N> outer_strides_;
  int64_t length_ = 1;
  std::array<int64_t, N> steps_{};
};

template <size_t N, class Row>
void for_each_row(const Ints& shape, const std::array<Ints, N>& strides, Poll& poll, Row row) {
  Rows<N>(shape, strides).each(poll, row);
}

// Calls f(y, a, b) with the numbers of the matrices, the last two axes of each, of every product of a broadcast batch.
template <class F>
void for_each_product(const Ints& a, const Ints& b, const Ints& y, Poll& poll, F f) {
  const auto leading = [](const Ints& shape) { return Ints(shape.begin(), shape.end() - 2); };
  const Ints batch = leading(y);
  const std::array<Ints, 3> strides{dense_strides(batch), broadcast_strides(leading(a), batch),
                                    broadcast_strides(leading(b), batch)};
  for_each_row<3>(batch, strides, poll, [&](const auto& at, int64_t length, const auto& steps) {
    for (int64_t i = 0; i < length; ++i) f(at[0] + i * steps[0], at[1] + i * steps[1], at[2] + i * steps[2]);
  });
}

}  // namespace rskip::ops
