#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <type_traits>

#include "ops/ops.h"
#include "ops/rows.h"

namespace rskip::ops {
namespace {

// NaN is above all numbers and equal to itself.
template <class T>
bool above(T a, T b) {
  return a > b || (a != a && b == b);
}
template <class T>
bool level(T a, T b) {
  return a == b || (a != a && b != b);
}

template <class T>
struct Ranked {
  T value;
  int64_t place;
};

// A binary heap in two strided arrays, with the last of the ranking at its root.
template <class T>
struct RankedHeap {
  T* values;
  int64_t* places;
  int64_t step;
  bool largest;

  Ranked<T> at(int64_t i) const { return {values[i * step], places[i * step]}; }
  void put(int64_t i, Ranked<T> r) const {
    values[i * step] = r.value;
    places[i * step] = r.place;
  }
  bool precedes(Ranked<T> a, Ranked<T> b) const {
    if (level(a.value, b.value)) return a.place < b.place;
    return largest ? above(a.value, b.value) : above(b.value, a.value);
  }
  // Puts r where it belongs below i, in a heap of n.
  void sink(int64_t i, int64_t n, Ranked<T> r) const {
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
      if (child + 1 < n && precedes(at(child), at(child + 1))) ++child;
      if (!precedes(r, at(child))) break;
      put(i, at(child));
    }
    put(i, r);
  }
};

// Elements of the result that are made together where what they are made of lies side by side.
constexpr int64_t kTogether = 32;

// Calls group(count, walk) for the elements of the result, in order, `count` of them at a time; walk(each) calls
// each(offset in x) for what the first of them is made of. That of the others follows it.
template <class Group>
void for_each_group(const TensorView& x, const Ints& axes, Poll& poll, Group group) {
  const Ints dense = dense_strides(x.shape);
  Ints kept_shape, kept_strides, reduced_shape, reduced_strides;
  for (size_t axis = 0; axis < x.shape.size(); ++axis) {
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(axis)) != axes.end();
    (reduced ? reduced_shape : kept_shape).push_back(x.shape[axis]);
    (reduced ? reduced_strides : kept_strides).push_back(dense[axis]);
  }
  const Rows<1> reduced(reduced_shape, {reduced_strides});
  for_each_row<1>(kept_shape, {kept_strides}, poll, [&](const auto& kept, int64_t length, const auto& steps) {
    const int64_t together = steps[0] == 1 ? kTogether : 1;
    for (int64_t i = 0; i < length; i += together) {
      const int64_t start = kept[0] + i * steps[0];
      group(std::min(together, length - i), [&](auto each) {
        reduced.each(poll, [&](const auto& at, int64_t n, const auto& step) {
          for (int64_t k = 0; k < n; ++k) each(start + at[0] + k * step[0]);
        });
      });
    }
  });
}

// y's elements are finish() of what `combine` makes of those of x, in order, beginning with `start`.
template <class T, class Sum, class Combine, class Finish>
void gather_groups(const TensorView& x, const Ints& axes, const TensorView& y, Poll& poll, Sum start, Combine combine,
                   Finish finish) {
  T* to = y.as<T>();
  const T* from = x.as<T>();
  for_each_group(x, axes, poll, [&](int64_t count, auto walk) {
    Sum sums[kTogether];
    std::fill(std::begin(sums), std::end(sums), start);
    walk([&](int64_t at) {
      const T* parts = from + at;
      if (count == kTogether) {
        for (int64_t i = 0; i < kTogether; ++i) sums[i] = combine(sums[i], static_cast<Sum>(parts[i]));
      } else {
        for (int64_t i = 0; i < count; ++i) sums[i] = combine(sums[i], static_cast<Sum>(parts[i]));
      }
    });
    for (int64_t i = 0; i < count; ++i) *to++ = static_cast<T>(finish(sums[i]));
  });
}

// About the number of comparisons in one sink().
constexpr int64_t kHeapWork = 32;

}  // namespace

void reduce_mean(const TensorView& x, const Ints& axes, const TensorView& y, Poll poll) {
  double count = 1;
  for (const int64_t axis : axes) count *= static_cast<double>(x.shape[static_cast<size_t>(axis)]);
  gather_groups<float>(
      x, axes, y, poll, 0.0, [](double a, double b) { return a + b; }, [&](double sum) { return sum / count; });
}

void reduce(ReduceKind kind, const TensorView& x, const Ints& axes, const TensorView& y, Poll poll) {
  dispatch(x.dtype, [&](auto type) {
    using T = decltype(type);
    using Sum = std::conditional_t<std::is_floating_point_v<T>, double, uint64_t>;
    using Limits = std::numeric_limits<T>;
    constexpr bool kFloat = std::is_floating_point_v<T>;
    const auto gather = [&](auto start, auto combine) {
      gather_groups<T>(x, axes, y, poll, start, combine, [](auto sum) { return sum; });
    };
    switch (kind) {
      case ReduceKind::kSum:
        return gather(Sum{0}, [](Sum a, Sum b) { return a + b; });
      case ReduceKind::kProd:
        return gather(Sum{1}, [](Sum a, Sum b) { return a * b; });
      case ReduceKind::kMin:
        return gather(kFloat ? Limits::infinity() : Limits::max(), least<T>);
      case ReduceKind::kMax:
        return gather(kFloat ? -Limits::infinity() : Limits::lowest(), greatest<T>);
    }
  });
}

void cum_sum(const TensorView& x, int64_t axis, bool exclusive, bool reverse, const TensorView& y, Poll poll) {
  const Split s = split_at(x.shape, axis);
  dispatch(x.dtype, [&](auto type) {
    using T = decltype(type);
    using Sum = std::conditional_t<std::is_floating_point_v<T>, double, uint64_t>;
    for (int64_t o = 0; o < s.outer; ++o) {
      for (int64_t i = 0; i < s.inner; ++i) {
        poll.before(s.length);
        const T* from = x.as<T>() + o * s.length * s.inner + i;
        T* to = y.as<T>() + o * s.length * s.inner + i;
        Sum sum = 0;
        for (int64_t k = 0; k < s.length; ++k) {
          const int64_t at = (reverse ? s.length - 1 - k : k) * s.inner;
          const Sum next = sum + static_cast<Sum>(from[at]);
          to[at] = static_cast<T>(exclusive ? sum : next);
          sum = next;
        }
      }
    }
  });
}

void layer_norm(const TensorView& x, const TensorView& scale, const TensorView& shift, int64_t axis, float epsilon,
                const TensorView& y, Poll poll) {
  const Split s = split_at(x.shape, axis);
  const float *a = scale.as<float>(), *b = shift.as<float>();
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      poll.before(s.length);
      const float* from = x.as<float>() + o * s.length * s.inner + i;
      float* to = y.as<float>() + o * s.length * s.inner + i;
      double sum = 0, squares = 0;
      for (int64_t k = 0; k < s.length; ++k) sum += from[k * s.inner];
      const double mean = sum / static_cast<double>(s.length);
      for (int64_t k = 0; k < s.length; ++k) squares += (from[k * s.inner] - mean) * (from[k * s.inner] - mean);
      const double factor = 1 / std::sqrt(squares / static_cast<double>(s.length) + epsilon);
      for (int64_t k = 0; k < s.length; ++k) {
        const double centred = (from[k * s.inner] - mean) * factor;
        to[k * s.inner] = static_cast<float>(centred * (a ? a[k] : 1) + (b ? b[k] : 0));
      }
    }
  }
}

void arg_max(const TensorView& x, int64_t axis, bool select_last, const TensorView& y, Poll poll) {
  const Split s = split_at(x.shape, axis);
  dispatch(x.dtype, [&](auto type) {
    using T = decltype(type);
    for (int64_t o = 0; o < s.outer; ++o) {
      for (int64_t i = 0; i < s.inner; ++i) {
        poll.before(s.length);
        const T* from = x.as<T>() + o * s.length * s.inner + i;
        int64_t best = 0;
        for (int64_t k = 1; k < s.length; ++k) {
          const T v = from[k * s.inner], w = from[best * s.inner];
          if (above(v, w) || (select_last && level(v, w))) best = k;
        }
        y.as<int64_t>()[o * s.inner + i] = best;
      }
    }
  });
}

namespace {

template <class T>
void top_k_of(const TensorView& x, int64_t axis, bool largest, const TensorView& y, const TensorView& indices, Poll poll) {
  const Split s = split_at(x.shape, axis);
  const int64_t most = y.shape[static_cast<size_t>(axis)], step = s.inner;
  if (most == 0) return;
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      const T* from = x.as<T>() + o * s.length * step + i;
      const int64_t to = o * most * step + i;
      const RankedHeap<T> heap{y.as<T>() + to, indices.as<int64_t>() + to, step, largest};
      for (int64_t k = most; k-- > 0;) heap.put(k, {from[k * step], k});
      for (int64_t k = most / 2; k-- > 0;) heap.sink(k, most, heap.at(k));
      for (int64_t k = most; k < s.length; ++k) {
        poll.before(kHeapWork);
        const Ranked<T> next{from[k * step], k};
        if (heap.precedes(next, heap.at(0))) heap.sink(0, most, next);
      }
      for (int64_t end = most - 1; end > 0; --end) {
        poll.before(kHeapWork);
        const Ranked<T> last = heap.at(end);
        heap.put(end, heap.at(0));
        heap.sink(0, end, last);
      }
    }
  }
}

}  // namespace

// In time n log k, and in no more memory than the outputs'.
void top_k(const TensorView& x, int64_t axis, bool largest, const TensorView& y, const TensorView& indices, Poll poll) {
  const auto run = x.dtype == DType::kInt64 ? top_k_of<int64_t> : top_k_of<float>;
  run(x, axis, largest, y, indices, poll);
}

}  // namespace rskip::ops
