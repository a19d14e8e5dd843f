#include <algorithm>
#include <limits>

#include "kernels/scalar_math.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace rskip::ops {
namespace {

// Largest of n elements, `step` apart; the first NaN if there is one.
float maximum(const float* x, int64_t n, int64_t step) {
  float best = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i * step];
    if (v > best) best = v;
    else if (v != v) return v;
  }
  return best;
}

// NaN is above all numbers and equal to itself.
bool above(float a, float b) { return a > b || (a != a && b == b); }
bool level(float a, float b) { return a == b || (a != a && b != b); }

struct Ranked {
  float value;
  int64_t place;
};

// A binary heap in two strided arrays, with the last of the ranking at its root.
struct RankedHeap {
  float* values;
  int64_t* places;
  int64_t step;
  bool largest;

  Ranked at(int64_t i) const { return {values[i * step], places[i * step]}; }
  void put(int64_t i, Ranked r) const {
    values[i * step] = r.value;
    places[i * step] = r.place;
  }
  bool precedes(Ranked a, Ranked b) const {
    if (level(a.value, b.value)) return a.place < b.place;
    return largest ? above(a.value, b.value) : above(b.value, a.value);
  }
  // Puts r where it belongs below i, in a heap of n.
  void sink(int64_t i, int64_t n, Ranked r) const {
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
      if (child + 1 < n && precedes(at(child), at(child + 1))) ++child;
      if (!precedes(r, at(child))) break;
      put(i, at(child));
    }
    put(i, r);
  }
};

// About the number of comparisons in one sink().
constexpr int64_t kHeapWork = 32;

}  // namespace

void reduce_mean(const TensorView& x, const Ints& axes, const TensorView& y, Poll poll) {
  const Ints dense = dense_strides(x.shape);
  Ints kept_shape, kept_strides, reduced_shape, reduced_strides;
  for (size_t axis = 0; axis < x.shape.size(); ++axis) {
    const bool reduced = std::find(axes.begin(), axes.end(), static_cast<int64_t>(axis)) != axes.end();
    (reduced ? reduced_shape : kept_shape).push_back(x.shape[axis]);
    (reduced ? reduced_strides : kept_strides).push_back(dense[axis]);
  }
  const double count = static_cast<double>(product(reduced_shape, 0, reduced_shape.size()));
  float* to = y.as<float>();
  for_each_row<1>(kept_shape, {kept_strides}, poll, [&](const auto& kept, int64_t length, const auto& steps) {
    for (int64_t i = 0; i < length; ++i) {
      const float* from = x.as<float>() + kept[0] + i * steps[0];
      double sum = 0;
      for_each_row<1>(reduced_shape, {reduced_strides}, poll, [&](const auto& at, int64_t n, const auto& step) {
        for (int64_t k = 0; k < n; ++k) sum += from[at[0] + k * step[0]];
      });
      *to++ = static_cast<float>(sum / count);
    }
  });
}

void softmax(const TensorView& x, int64_t axis, bool log, const TensorView& y, Poll poll) {
  const Split s = split_at(x.shape, axis);
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      poll.before(s.length);
      const float* from = x.as<float>() + o * s.length * s.inner + i;
      float* to = y.as<float>() + o * s.length * s.inner + i;
      const float max = maximum(from, s.length, s.inner);
      double sum = 0;
      for (int64_t k = 0; k < s.length; ++k) {
        const float v = from[k * s.inner] - max;
        const float e = scalar_exp(v);
        sum += e;
        to[k * s.inner] = log ? v : e;
      }
      const float log_sum = log ? scalar_log(static_cast<float>(sum)) : 0;
      for (int64_t k = 0; k < s.length; ++k) {
        float& v = to[k * s.inner];
        v = log ? v - log_sum : static_cast<float>(v / sum);
      }
    }
  }
}

void arg_max(const TensorView& x, int64_t axis, bool select_last, const TensorView& y, Poll poll) {
  const Split s = split_at(x.shape, axis);
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      poll.before(s.length);
      const float* from = x.as<float>() + o * s.length * s.inner + i;
      int64_t best = 0;
      for (int64_t k = 1; k < s.length; ++k) {
        const float v = from[k * s.inner], w = from[best * s.inner];
        if (above(v, w) || (select_last && level(v, w))) best = k;
      }
      y.as<int64_t>()[o * s.inner + i] = best;
    }
  }
}

// In time n log k, and in no more memory than the outputs'.
void top_k(const TensorView& x, int64_t axis, bool largest, const TensorView& y, const TensorView& indices, Poll poll) {
  const Split s = split_at(x.shape, axis);
  const int64_t most = y.shape[static_cast<size_t>(axis)], step = s.inner;
  if (most == 0) return;
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.inner; ++i) {
      const float* from = x.as<float>() + o * s.length * step + i;
      const int64_t to = o * most * step + i;
      const RankedHeap heap{y.as<float>() + to, indices.as<int64_t>() + to, step, largest};
      for (int64_t k = most; k-- > 0;) heap.put(k, {from[k * step], k});
      for (int64_t k = most / 2; k-- > 0;) heap.sink(k, most, heap.at(k));
      for (int64_t k = most; k < s.length; ++k) {
        poll.before(kHeapWork);
        const Ranked next{from[k * step], k};
        if (heap.precedes(next, heap.at(0))) heap.sink(0, most, next);
      }
      for (int64_t end = most - 1; end > 0; --end) {
        poll.before(kHeapWork);
        const Ranked last = heap.at(end);
        heap.put(end, heap.at(0));
        heap.sink(0, end, last);
      }
    }
  }
}

}  // namespace rskip::ops
