// Normalisation of rows and of pixels. Sums have one fixed order: vector i goes into sum i % 4, then (0 + 1) + (2 + 3),
// then a tree over the lanes.
#pragma once

#include "kernels/rows/pool-inl.h"
#include "kernels/table.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

template <class F>
RSKIP_INLINE float reduce_lanes(Vec v, const F& combine) {
  v = combine(v, fold<8>(v));
  v = combine(v, fold<4>(v));
  v = combine(v, fold<2>(v));
  v = combine(v, fold<1>(v));
  float lane[kLanes];
  store(lane, v);
  return lane[0];
}
RSKIP_INLINE float sum_lanes(Vec v) {
  return reduce_lanes(v, [](Vec a, Vec b) { return a + b; });
}

// The first `lanes` of a vector, which are all for most.
RSKIP_INLINE Vec load_lanes(const float* p, int lanes) { return lanes == kLanes ? load(p) : load_first(p, lanes); }
RSKIP_INLINE void store_lanes(float* p, Vec v, int lanes) {
  if (lanes == kLanes) store(p, v);
  else store_first(p, v, lanes);
}

// The sum of term(i, lanes) over vectors that hold n elements; lanes beyond the last must be zero.
template <class F>
RSKIP_INLINE float sum_of_vectors(int64_t n, const F& term) {
  Vec sum[4];
  RSKIP_UNROLL(4) for (Vec& s : sum) s = splat(0);
  int64_t i = 0;
  for (; (i + 4) * kLanes <= n; i += 4) {
    RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) sum[j] = sum[j] + term(i + j, kLanes);
  }
  for (int j = 0; i * kLanes < n; ++i, ++j) {
    sum[j] = sum[j] + term(i, static_cast<int>(std::min<int64_t>(kLanes, n - i * kLanes)));
  }
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// n elements that lie in vectors `stride` floats apart: y = (x - mean) / sqrt(variance + epsilon) * scale + shift.
RSKIP_INLINE void normalise(const float* x, ptrdiff_t stride, const NormArgs& a, float* y, ptrdiff_t y_stride) {
  const auto at = [&](int64_t i, int lanes) { return load_lanes(x + i * stride, lanes); };
  const float count = static_cast<float>(a.n);
  const Vec mean = splat(sum_of_vectors(a.n, at) / count);
  const float squares = sum_of_vectors(a.n, [&](int64_t i, int lanes) {
    const Vec d = keep_first(at(i, lanes) - mean, lanes);
    return d * d;
  });
  const Vec factor = splat(1.0f) / sqrt(splat(squares / count + a.epsilon));
  for (int64_t i = 0; i * kLanes < a.n; ++i) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, a.n - i * kLanes));
    const Vec centred = (at(i, lanes) - mean) * factor;
    const Vec scale = a.scale == nullptr ? splat(1.0f) : load_lanes(a.scale + i * kLanes, lanes);
    const Vec shift = a.shift == nullptr ? splat(0.0f) : load_lanes(a.shift + i * kLanes, lanes);
    store_lanes(y + i * y_stride, fma(centred, scale, shift), lanes);
  }
}

inline void norm_rows(const float* x, const NormArgs& args, float* y, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) normalise(x + row * args.n, kLanes, args, y + row * args.n, kLanes);
}

inline void norm_channels(const BlockedView& x, const NormArgs& args, const BlockedView& y, int part, int parts) {
  const auto [begin, end] = share_of(static_cast<int64_t>(x.height) * x.width, part, parts);
  for (int64_t pixel = begin; pixel < end; ++pixel) {
    const int64_t row = pixel / x.width, column = pixel % x.width * kLanes;
    normalise(x.data + row * x.row_stride + column, x.block_stride, args, y.data + row * y.row_stride + column,
              y.block_stride);
  }
}

// 0 in the first `lanes`, -infinity in those behind them.
RSKIP_INLINE Vec lowest_beyond(int lanes) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  static constexpr float kBeyond[2 * kLanes] = {0,      0,      0,      0,      0,      0,      0,      0,
                                                0,      0,      0,      0,      0,      0,      0,      0,
                                                kLowest, kLowest, kLowest, kLowest, kLowest, kLowest, kLowest, kLowest,
                                                kLowest, kLowest, kLowest, kLowest, kLowest, kLowest, kLowest, kLowest};
  return load(kBeyond + kLanes - lanes);
}

// Vectors of a row; beyond its end -infinity, whose exponential is zero.
RSKIP_INLINE Vec load_or_lowest(const float* x, int64_t left) {
  if (left >= kLanes) return load(x);
  const int lanes = static_cast<int>(left);
  return load_first(x, lanes) + lowest_beyond(lanes);
}

RSKIP_INLINE Vec greatest_of_row(const float* x, int64_t n) {
  Vec most[2] = {splat(-std::numeric_limits<float>::infinity()), splat(-std::numeric_limits<float>::infinity())};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    most[0] = max(load(x + i), most[0]);
    most[1] = max(load(x + i + kLanes), most[1]);
  }
  for (; i < n; i += kLanes) most[0] = max(load_or_lowest(x + i, n - i), most[0]);
  return splat(reduce_lanes(max(most[0], most[1]), [](Vec a, Vec b) { return max(a, b); }));
}

// y = e^(x - the greatest of x), the sum of which is returned. x may be y. A row of -infinity alone, or with a NaN, gives
// NaNs.
RSKIP_INLINE float exp_row(const float* x, float* y, int64_t n) {
  const Vec top = greatest_of_row(x, n);
  return sum_of_vectors(n, [&](int64_t i, int lanes) {
    const Vec e = exp_of_negative(load_or_lowest(x + i * kLanes, n - i * kLanes) - top);
    store_lanes(y + i * kLanes, e, lanes);
    return e;
  });
}

RSKIP_INLINE void scale_row(float* y, int64_t n, float factor) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    store_lanes(y + i, load_lanes(y + i, lanes) * splat(factor), lanes);
  }
}

RSKIP_INLINE void add_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    store_lanes(y + i, load_lanes(y + i, lanes) + load_lanes(x + i, lanes), lanes);
  }
}

// x where it is below 0.
RSKIP_INLINE void replace_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    const Vec own = load_lanes(x + i, lanes);
    store_lanes(y + i, select(less(own, splat(0.0f)), own, load_lanes(y + i, lanes)), lanes);
  }
}

// x may be y.
RSKIP_INLINE void softmax_row(const float* x, float* y, int64_t n, bool log) {
  if (!log) return scale_row(y, n, 1.0f / exp_row(x, y, n));
  const Vec top = greatest_of_row(x, n);
  const auto shifted = [&](int64_t i) { return load_or_lowest(x + i * kLanes, n - i * kLanes) - top; };
  const float sum = sum_of_vectors(n, [&](int64_t i, int) { return exp_of_negative(shifted(i)); });
  const Vec drop = rskip::RSKIP_ISA::log(splat(sum));
  for (int64_t i = 0; i * kLanes < n; ++i) {
    store_lanes(y + i * kLanes, shifted(i) - drop, static_cast<int>(std::min<int64_t>(kLanes, n - i * kLanes)));
  }
}

inline void softmax_rows(const float* x, float* y, int64_t rows, int64_t n, bool log) {
  for (int64_t row = 0; row < rows; ++row) softmax_row(x + row * n, y + row * n, n, log);
}

}  // namespace rskip::RSKIP_ISA
