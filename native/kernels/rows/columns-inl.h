// Functions of all elements along one axis, where vectors hold neighbours on the axes behind it; and numbers that come of
// dense rows.
#pragma once

#include <cmath>

#include "kernels/rows/rows-inl.h"

namespace rskip::RSKIP_ISA {

// Calls fn(outer, first column, columns) for each run of up to 16 neighbouring columns of a share.
template <class F>
void each_column_run(const ColumnShape& s, int part, int parts, const F& fn) {
  const int64_t runs = (s.inner + kLanes - 1) / kLanes;
  const auto [begin, end] = share_of(s.outer * runs, part, parts);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t outer = unit / runs, column = unit % runs * kLanes;
    fn(outer, column, static_cast<int>(std::min<int64_t>(kLanes, s.inner - column)));
  }
}

inline void softmax_columns(const float* x, float* y, const ColumnShape& s, bool log, int part, int parts) {
  each_column_run(s, part, parts, [&](int64_t outer, int64_t column, int lanes) {
    const int64_t first = outer * s.length * s.inner + column;
    const auto at = [&](int64_t k) { return load_lanes(x + first + k * s.inner, lanes); };
    const auto put = [&](int64_t k, Vec v) { store_lanes(y + first + k * s.inner, v, lanes); };
    Vec top = splat(-std::numeric_limits<float>::infinity());
    for (int64_t k = 0; k < s.length; ++k) top = max(at(k), top);
    Vec sum[4];
    RSKIP_UNROLL(4) for (Vec& one : sum) one = splat(0);
    const auto add = [&](int64_t k, int chain) {
      const Vec e = exp_of_negative(at(k) - top);
      if (!log) put(k, e);
      sum[chain] = sum[chain] + e;
    };
    int64_t k = 0;
    for (; k + 4 <= s.length; k += 4) {
      RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) add(k + i, i);
    }
    RSKIP_UNROLL(3) for (int i = 0; i < 3; ++i) {
      if (k + i < s.length) add(k + i, i);
    }
    const Vec total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    if (log) {
      const Vec drop = rskip::RSKIP_ISA::log(total);
      for (k = 0; k < s.length; ++k) put(k, (at(k) - top) - drop);
    } else {
      const Vec factor = splat(1.0f) / total;
      for (k = 0; k < s.length; ++k) put(k, load_lanes(y + first + k * s.inner, lanes) * factor);
    }
  });
}

// Where the greatest element is, and it; a NaN is greater than any number.
struct Greatest {
  Vec value, place;
  RSKIP_INLINE void meet(Vec v, float at) {
    // What isn't less or equal replaces it, unless it is a NaN itself.
    const Vec other = select(is_nan(v), splat(at), select(less(value, v), splat(at), place));
    const Vec greater = select(is_nan(v), v, max(v, value));
    place = select(is_nan(value), place, other);
    value = select(is_nan(value), value, greater);
  }
};

inline void arg_max_columns(const float* x, int64_t* y, const ColumnShape& s, int part, int parts) {
  each_column_run(s, part, parts, [&](int64_t outer, int64_t column, int lanes) {
    const float* from = x + outer * s.length * s.inner + column;
    Greatest best{load_lanes(from, lanes), splat(0)};
    for (int64_t k = 1; k < s.length; ++k) {
      best.meet(load_lanes(from + k * s.inner, lanes), static_cast<float>(k));
    }
    float places[kLanes];
    store(places, best.place);
    for (int lane = 0; lane < lanes; ++lane) y[outer * s.inner + column + lane] = static_cast<int64_t>(places[lane]);
  });
}

inline void arg_max_rows(const float* x, int64_t* y, int64_t rows, int64_t n) {
  for (int64_t row = 0; row < rows; ++row, x += n) {
    // Lane i has the best of elements i, i + 16, ...; those beyond the end are no better than any.
    Greatest best{load_or_lowest(x, n), splat(0)};
    for (int64_t k = kLanes; k < n; k += kLanes) best.meet(load_or_lowest(x + k, n - k), static_cast<float>(k));
    float values[kLanes], places[kLanes];
    store(values, best.value);
    store(places, best.place);
    int64_t found = static_cast<int64_t>(places[0]);
    float value = values[0];
    for (int lane = 1; lane < kLanes && lane < n; ++lane) {
      const int64_t place = static_cast<int64_t>(places[lane]) + lane;
      const bool above = values[lane] > value || (values[lane] != values[lane] && value == value);
      const bool level = values[lane] == value || (values[lane] != values[lane] && value != value);
      if (!above && !(level && place < found)) continue;
      found = place;
      value = values[lane];
    }
    y[row] = found;
  }
}

// Elements whose sum is taken in single precision; such sums are added in double.
inline constexpr int64_t kSumRun = 64 * kLanes;

RSKIP_INLINE float sum_of_row(const float* x, int64_t n, float divisor) {
  if (n <= kSumRun) {
    return sum_of_vectors(n, [&](int64_t i, int lanes) { return load_lanes(x + i * kLanes, lanes); }) / divisor;
  }
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kSumRun) {
    const float* run = x + begin;
    sum += sum_of_vectors(std::min(kSumRun, n - begin),
                          [&](int64_t i, int lanes) { return load_lanes(run + i * kLanes, lanes); });
  }
  return static_cast<float>(sum / divisor);
}

// The greatest, of the numbers' negatives if `kNegative`; NaN if there is one.
template <bool kNegative>
RSKIP_INLINE float greatest_or_nan(const float* x, int64_t n) {
  const auto turned = [](Vec v) { return kNegative ? splat(0) - v : v; };
  Vec most[4];
  RSKIP_UNROLL(4) for (Vec& one : most) one = splat(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) most[j] = max_or_nan(most[j], turned(load(x + i + j * kLanes)));
  }
  for (; i < n; i += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    most[0] = max_or_nan(most[0], turned(load_lanes(x + i, lanes)) + lowest_beyond(lanes));
  }
  const Vec best = max_or_nan(max_or_nan(most[0], most[1]), max_or_nan(most[2], most[3]));
  return reduce_lanes(best, [](Vec a, Vec b) { return max_or_nan(a, b); });
}

inline void reduce_rows(RowReduction kind, const float* x, float* y, int64_t rows, int64_t n) {
  const float count = static_cast<float>(n);
  for (int64_t row = 0; row < rows; ++row, x += n) {
    switch (kind) {
      case RowReduction::kSum:
        y[row] = sum_of_row(x, n, 1.0f);
        break;
      case RowReduction::kMean:
        y[row] = sum_of_row(x, n, count);
        break;
      case RowReduction::kMax:
        y[row] = greatest_or_nan<false>(x, n);
        break;
      case RowReduction::kMin:
        y[row] = 0 - greatest_or_nan<true>(x, n);
        break;
    }
  }
}

}  // namespace rskip::RSKIP_ISA
