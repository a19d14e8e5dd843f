// Weighted sums along one axis: resizing.
#pragma once

#include "kernels/rows/rows-inl.h"

namespace rskip::RSKIP_ISA {

// y[c] = sum over j of factors[j] * x[places[j] * inner + c]. kEach is `each` where that is small, otherwise 0.
template <int kEach>
RSKIP_INLINE void weigh_slice(const float* x, const int32_t* places, const float* factors, int64_t each, int64_t inner,
                              float* y) {
  const int64_t taps = kEach == 0 ? each : kEach;
  for (int64_t c = 0; c < inner; c += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, inner - c));
    Vec sum = splat(0);
    for (int64_t j = 0; j < taps; ++j) sum = sum + splat(factors[j]) * load_lanes(x + places[j] * inner + c, lanes);
    store_lanes(y + c, sum, lanes);
  }
}

RSKIP_INLINE void weigh_slices(const ResampleArgs& a, const float* x, int64_t inner, int64_t begin, int64_t end,
                               float* y) {
  for (int64_t i = begin; i < end; ++i, y += inner) {
    const int32_t* places = a.places + i * a.each;
    const float* factors = a.factors + i * a.each;
    if (a.each == 2) weigh_slice<2>(x, places, factors, a.each, inner, y);
    else if (a.each == 4) weigh_slice<4>(x, places, factors, a.each, inner, y);
    else weigh_slice<0>(x, places, factors, a.each, inner, y);
  }
}

// 16 rows of n floats, `stride` apart, of which `rows` exist, to n vectors and back.
RSKIP_INLINE void rows_to_vectors(const float* x, int64_t stride, int rows, int64_t n, float* vectors) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    Vec v[kLanes];
    for (int r = 0; r < kLanes; ++r) v[r] = r < rows ? load_lanes(x + r * stride + i, lanes) : splat(0);
    transpose(v);
    for (int k = 0; k < lanes; ++k) store(vectors + (i + k) * kLanes, v[k]);
  }
}
RSKIP_INLINE void vectors_to_rows(const float* vectors, int64_t n, float* y, int64_t stride, int rows) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int lanes = static_cast<int>(std::min<int64_t>(kLanes, n - i));
    Vec v[kLanes];
    for (int k = 0; k < kLanes; ++k) v[k] = k < lanes ? load(vectors + (i + k) * kLanes) : splat(0);
    transpose(v);
    for (int r = 0; r < rows; ++r) store_lanes(y + r * stride + i, v[r], lanes);
  }
}

inline void resample(const ResampleArgs& args, int part, int parts) {
  const auto& [outer, length, inner] = args.shape;
  if (inner > 1) {
    const auto [begin, end] = share_of(outer * args.count, part, parts);
    for (int64_t unit = begin; unit < end;) {
      const int64_t o = unit / args.count, first = unit % args.count;
      const int64_t last = std::min(args.count, first + end - unit);
      weigh_slices(args, args.x + o * length * inner, inner, first, last, args.y + unit * inner);
      unit += last - first;
    }
    return;
  }
  // Along the last axis, the elements of several rows that lie one below the other become neighbours first.
  float* const results = args.scratch + length * kLanes;
  const auto [begin, end] = share_of((outer + kLanes - 1) / kLanes, part, parts);
  for (int64_t o = begin * kLanes; o < std::min(outer, end * kLanes); o += kLanes) {
    const int rows = static_cast<int>(std::min<int64_t>(kLanes, outer - o));
    rows_to_vectors(args.x + o * length, length, rows, length, args.scratch);
    weigh_slices(args, args.scratch, kLanes, 0, args.count, results);
    vectors_to_rows(results, args.count, args.y + o * args.count, args.count, rows);
  }
}

}  // namespace rskip::RSKIP_ISA
