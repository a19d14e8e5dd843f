// Operators that only move elements, of any type; they are moved as bytes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops/ops.h"
#include "ops/rows.h"

namespace rskip::ops {
namespace {

template <size_t Size>
void copy_element(char* to, const char* from) {
  std::memcpy(to, from, Size);
}

// Calls f with the size of an element as a constant.
template <class F>
void with_size(DType dtype, F f) {
  switch (dtype_size(dtype)) {
    case 1:
      return f(std::integral_constant<size_t, 1>{});
    case 2:
      return f(std::integral_constant<size_t, 2>{});
    case 4:
      return f(std::integral_constant<size_t, 4>{});
    default:
      return f(std::integral_constant<size_t, 8>{});
  }
}

// Fills `length` elements with the one at `from`.
template <int64_t Size>
void repeat(char* to, const char* from, int64_t length) {
  // Copied from memory that is still in cache.
  constexpr int64_t kChunk = 1024;
  if (length > 0) copy_element<Size>(to, from);
  for (int64_t done = 1; done < length;) {
    const int64_t count = std::min({done, kChunk, length - done});
    std::memcpy(to + done * Size, to, static_cast<size_t>(count * Size));
    done += count;
  }
}

// Rows of x that are copied side by side into columns of y.
constexpr int64_t kSideBySide = 32;

// y[i * columns + j] = x[i + j * stride], for elements of Size bytes.
template <int64_t Size>
void interleave(const char* x, int64_t rows, int64_t columns, int64_t stride, char* y, Poll& poll) {
  for (int64_t begin = 0; begin < rows; begin += kSideBySide) {
    const int64_t end = std::min(rows, begin + kSideBySide);
    poll.before((end - begin) * columns);
    for (int64_t j = 0; j < columns; ++j) {
      const char* from = x + j * stride * Size;
      char* to = y + j * Size;
      for (int64_t i = begin; i < end; ++i) copy_element<Size>(to + i * columns * Size, from + i * Size);
    }
  }
}

// Fills the dense y from x[start + sum over axes of index * strides[axis]].
void gather_strided(const TensorView& x, int64_t start, const Ints& strides, const TensorView& y, Poll& poll) {
  with_size(y.dtype, [&](auto size) {
    constexpr int64_t kSize = size;
    const std::array<Ints, 2> both{dense_strides(y.shape), strides};
    const Rows<2> rows(y.shape, both);
    // Where neighbours in x come to lie in neighbouring rows.
    if (rows.steps()[1] != 1 && rows.group() > 1 && rows.group_step(1) == 1) {
      return rows.each_group([&](const std::array<int64_t, 2>& at) {
        interleave<kSize>(x.as<char>() + (start + at[1]) * kSize, rows.group(), rows.length(), rows.steps()[1],
                          y.as<char>() + at[0] * kSize, poll);
      });
    }
    rows.each(poll, [&](const auto& at, int64_t length, const auto& steps) {
      char* to = y.as<char>() + at[0] * kSize;
      const char* from = x.as<char>() + (start + at[1]) * kSize;
      if (steps[1] == 1) {
        std::memcpy(to, from, static_cast<size_t>(length * kSize));
      } else if (steps[1] == 0) {
        repeat<kSize>(to, from, length);
      } else {
        for (int64_t i = 0; i < length; ++i) copy_element<kSize>(to + i * kSize, from + i * steps[1] * kSize);
      }
    });
  });
}

// memcpy that may be given nothing.
void copy_run(const TensorView& x, int64_t from, const TensorView& y, int64_t to, int64_t count) {
  const int64_t size = static_cast<int64_t>(dtype_size(y.dtype));
  if (count > 0) std::memcpy(y.as<char>() + to * size, x.as<char>() + from * size, static_cast<size_t>(count * size));
}

// The i-th of indices of type int64, int32 or float32; a number that can't be an index (NaN, infinity) gives `invalid`.
int64_t index_at(const TensorView& indices, int64_t i, int64_t invalid) {
  if (indices.dtype == DType::kInt64) return indices.as<int64_t>()[i];
  if (indices.dtype == DType::kInt32) return indices.as<int32_t>()[i];
  const float v = indices.as<float>()[i];
  return std::fabs(v) < 9e18f ? static_cast<int64_t>(v) : invalid;
}

int64_t modulo(int64_t a, int64_t n) { return ((a % n) + n) % n; }

// Where position `at` (may be outside) of an axis of `size` elements comes from; -1 for the pad value.
int64_t source_index(int64_t at, int64_t size, PadMode mode) {
  if (at >= 0 && at < size) return at;
  if (size <= 0) return -1;
  switch (mode) {
    case PadMode::kConstant:
      return -1;
    case PadMode::kEdge:
      return at < 0 ? 0 : size - 1;
    case PadMode::kWrap:
      return modulo(at, size);
    case PadMode::kReflect: {
      const int64_t folded = modulo(at, std::max<int64_t>(1, 2 * (size - 1)));
      return folded < size ? folded : 2 * (size - 1) - folded;
    }
  }
  return -1;
}

// One axis of a padded tensor.
struct PadAxis {
  Ints source;          // offset in x of every position of y, in elements; -1 for the pad value
  int64_t first, last;  // positions of y that run through x one after another
};

PadAxis pad_axis(int64_t in, int64_t out, int64_t begin, int64_t end, int64_t stride, PadMode mode) {
  const int64_t crop = std::min<int64_t>(begin, 0), lead = std::max<int64_t>(begin, 0);
  const int64_t size = in + crop + std::min<int64_t>(end, 0);
  PadAxis axis{Ints(static_cast<size_t>(out)), std::min(lead, out), std::clamp(lead + size, std::min(lead, out), out)};
  for (int64_t i = 0; i < out; ++i) {
    const int64_t at = source_index(i - lead, size, mode);
    axis.source[static_cast<size_t>(i)] = at < 0 ? -1 : (at - crop) * stride;
  }
  return axis;
}

template <size_t Size>
struct Padder {
  const std::vector<PadAxis>& axes;
  const char* x;
  char* y;
  const char* fill;
  Poll& poll;

  void element(int64_t offset) {
    copy_element<Size>(y, offset < 0 ? fill : x + offset * static_cast<int64_t>(Size));
    y += Size;
  }

  void row(int64_t start) {
    const PadAxis& axis = axes.back();
    poll.before(static_cast<int64_t>(axis.source.size()));
    const auto outside = [&](int64_t i) {
      const int64_t offset = axis.source[static_cast<size_t>(i)];
      element(offset < 0 ? -1 : start + offset);
    };
    for (int64_t i = 0; i < axis.first; ++i) outside(i);
    if (axis.first < axis.last) {
      const size_t bytes = static_cast<size_t>(axis.last - axis.first) * Size;
      std::memcpy(y, x + (start + axis.source[static_cast<size_t>(axis.first)]) * static_cast<int64_t>(Size), bytes);
      y += bytes;
    }
    for (int64_t i = axis.last; i < static_cast<int64_t>(axis.source.size()); ++i) outside(i);
  }

  void fill_run(size_t level) {
    int64_t count = 1;
    for (size_t a = level; a < axes.size(); ++a) count *= static_cast<int64_t>(axes[a].source.size());
    for_each_segment(count, poll, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) element(-1);
    });
  }

  void walk(size_t level, int64_t start) {
    if (level + 1 == axes.size()) return row(start);
    for (const int64_t offset : axes[level].source) {
      if (offset < 0) fill_run(level + 1);
      else walk(level + 1, start + offset);
    }
  }
};

}  // namespace

void transpose(const TensorView& x, const Ints& perm, const TensorView& y, Poll poll) {
  const Ints dense = dense_strides(x.shape);
  Ints strides;
  for (const int64_t axis : perm) strides.push_back(dense[static_cast<size_t>(axis)]);
  gather_strided(x, 0, strides, y, poll);
}

void slice(const TensorView& x, const Ints& starts, const Ints& steps, const TensorView& y, Poll poll) {
  Ints strides = dense_strides(x.shape);
  int64_t start = 0;
  for (size_t axis = 0; axis < strides.size(); ++axis) {
    start += starts[axis] * strides[axis];
    strides[axis] *= steps[axis];
  }
  gather_strided(x, start, strides, y, poll);
}

void expand(const TensorView& x, const TensorView& y, Poll poll) {
  gather_strided(x, 0, broadcast_strides(x.shape, y.shape), y, poll);
}

void concat(const std::vector<TensorView>& xs, int64_t axis, const TensorView& y, Poll poll) {
  const Split s = split_at(y.shape, axis);
  int64_t start = 0;
  for (const TensorView& x : xs) {
    const int64_t run = x.shape[static_cast<size_t>(axis)] * s.inner;
    for (int64_t o = 0; o < s.outer; ++o) {
      poll.before(run);
      copy_run(x, o * run, y, o * s.length * s.inner + start, run);
    }
    start += run;
  }
}

bool gather(const TensorView& data, const TensorView& indices, int64_t axis, const TensorView& y, Poll poll) {
  const Split s = split_at(data.shape, axis);
  const int64_t count = indices.elements();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t asked = index_at(indices, i, s.length);
    if (asked < -s.length || asked >= s.length) return false;
    const int64_t index = asked < 0 ? asked + s.length : asked;
    for (int64_t o = 0; o < s.outer; ++o) {
      poll.before(s.inner);
      copy_run(data, (o * s.length + index) * s.inner, y, (o * count + i) * s.inner, s.inner);
    }
  }
  return true;
}

void one_hot(const TensorView& indices, const TensorView& values, int64_t axis, int64_t depth, const TensorView& y, Poll poll) {
  const Split s = split_at(y.shape, axis);
  const int64_t n = y.elements();
  for_each_segment(n, poll, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) copy_run(values, 0, y, i, 1);
  });
  for (int64_t o = 0; o < s.outer; ++o) {
    poll.before(s.inner);
    for (int64_t i = 0; i < s.inner; ++i) {
      const int64_t asked = index_at(indices, o * s.inner + i, depth);
      if (asked < -depth || asked >= depth) continue;
      const int64_t index = asked < 0 ? asked + depth : asked;
      copy_run(values, 1, y, (o * depth + index) * s.inner + i, 1);
    }
  }
}

void pad(const TensorView& x, const TensorView& value, const Ints& pads, PadMode mode, const TensorView& y, Poll poll) {
  if (y.elements() == 0) return;
  const size_t rank = x.shape.size();
  if (rank == 0) return copy_run(x, 0, y, 0, 1);
  const Ints strides = dense_strides(x.shape);
  std::vector<PadAxis> axes;
  for (size_t a = 0; a < rank; ++a) {
    axes.push_back(pad_axis(x.shape[a], y.shape[a], pads[a], pads[a + rank], strides[a], mode));
  }
  const char zeros[8] = {};
  const char* fill = value.data ? value.as<char>() : zeros;
  with_size(y.dtype, [&](auto size) { Padder<size>{axes, x.as<char>(), y.as<char>(), fill, poll}.walk(0, 0); });
}

}  // namespace rskip::ops
