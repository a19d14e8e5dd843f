// Normalisation of rows and of pixels. Sums have one fixed order: vector i goes into sum i % 4, then (0 + 1) + (2 + 3),
// then a tree over the lanes.
#pragma once

#include "kernels/pool-inl.h"
#include "kernels/table.h"
#include "kernels/tile-inl.h"

namespace rskip::RSKIP_ISA {

template <class F>
RSKIP_INLINE float reduce_lanes(Vec v, const F& combine) {
  float lane[kLanes];
  store(lane, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] = combine(lane[i], lane[i + half]);
  }
  return lane[0];
}
RSKIP_INLINE float sum_lanes(Vec v) {
  return reduce_lanes(v, [](float a, float b) { return a + b; });
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
  const auto at = [&](int64_t i, int lanes) {
    return lanes == kLanes ? load(x + i * stride) : load_first(x + i * stride, lanes);
  };
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
    const Vec scale = a.scale == nullptr ? splat(1.0f) : load_first(a.scale + i * kLanes, lanes);
    const Vec shift = a.shift == nullptr ? splat(0.0f) : load_first(a.shift + i * kLanes, lanes);
    store_first(y + i * y_stride, fma(centred, scale, shift), lanes);
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

// Vectors of a row; beyond its end -infinity, whose exponential is zero.
RSKIP_INLINE Vec load_or_least(const float* x, int64_t left) {
  if (left >= kLanes) return load(x);
  float lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = i < left ? x[i] : -std::numeric_limits<float>::infinity();
  return load(lane);
}

// x may be y. A row of -infinity alone, or with a NaN, gives NaNs.
RSKIP_INLINE void softmax_row(const float* x, float* y, int64_t n, bool log) {
  Vec most = splat(-std::numeric_limits<float>::infinity());
  for (int64_t i = 0; i < n; i += kLanes) most = max(load_or_least(x + i, n - i), most);
  const Vec top = splat(reduce_lanes(most, [](float a, float b) { return a > b ? a : b; }));
  const auto shifted = [&](int64_t i) { return load_or_least(x + i, n - i) - top; };
  const auto put = [&](int64_t i, Vec v) {
    if (n - i >= kLanes) store(y + i, v);
    else store_first(y + i, v, static_cast<int>(n - i));
  };
  if (log) {
    const float sum = sum_of_vectors(n, [&](int64_t i, int) { return exp(shifted(i * kLanes)); });
    const Vec drop = rskip::RSKIP_ISA::log(splat(sum));
    for (int64_t i = 0; i < n; i += kLanes) put(i, shifted(i) - drop);
    return;
  }
  const float sum = sum_of_vectors(n, [&](int64_t i, int) {
    const Vec e = exp(shifted(i * kLanes));
    put(i * kLanes, e);
    return e;
  });
  const Vec factor = splat(1.0f) / splat(sum);
  for (int64_t i = 0; i < n; i += kLanes) put(i, load_or_least(y + i, n - i) * factor);
}

inline void softmax_rows(const float* x, float* y, int64_t rows, int64_t n, bool log) {
  for (int64_t row = 0; row < rows; ++row) softmax_row(x + row * n, y + row * n, n, log);
}

}  // namespace rskip::RSKIP_ISA
