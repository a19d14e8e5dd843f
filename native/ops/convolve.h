// The loops of a convolution in plain C++, for any numbers.
#pragma once

#include "ops/rows.h"
#include "ops/window.h"

namespace rskip::ops {

// Output columns that are summed together.
inline constexpr int64_t kTile = 64;

// Calls row(sums, count, at, m) for the sums of each run of at most kTile columns of a row of channel m, which begin at
// element `at` of the result. They begin as begin(m); add(sum, factor, x) adds a product, where factors(m)(weight) is
// the factor of a weight. x has elements of type X, w of type W; `y` is the shape of the result.
template <class X, class W, class Begin, class Factors, class Add, class Row>
void convolve(const TensorView& x, const TensorView& w, const Ints& y, const Window& win, int64_t group, Poll& poll,
              Begin begin, Factors factors, Add add, Row row) {
  using Sum = decltype(begin(int64_t{}));
  const Geometry g = geometry(x.shape, y, Ints(w.shape.begin() + 2, w.shape.end()), win);
  const auto& [gd, gh, gw] = g;
  const int64_t items = x.shape[0], in_channels = x.shape[1], out_channels = w.shape[0];
  const int64_t group_in = in_channels / group, group_out = out_channels / group;
  const int64_t in_plane = product(x.shape, 2, x.shape.size()), taps = product(w.shape, 2, w.shape.size());

  // Adds what the windows of the columns from `first` on take from one channel.
  const auto add_windows = [&, &gd = gd, &gh = gh, &gw = gw](const X* plane, const W* weight, const auto& factor_of,
                                                             int64_t d, int64_t h, int64_t first, int64_t count,
                                                             Sum* sums) {
    const Range kd = gd.taps_inside(d), kh = gh.taps_inside(h);
    for (int64_t i = kd.first; i < kd.last; ++i) {
      for (int64_t j = kh.first; j < kh.last; ++j) {
        poll.before(gw.kernel * count);
        const int64_t row_at = (gd.start(d) + i * gd.dilation) * gh.input + gh.start(h) + j * gh.dilation;
        for (int64_t k = 0; k < gw.kernel; ++k) {
          const auto factor = factor_of(weight[(i * gh.kernel + j) * gw.kernel + k]);
          const Range columns = gw.positions_inside(k);
          const int64_t from = std::max(columns.first, first), to = std::min(columns.last, first + count);
          if (from >= to) continue;
          const X* from_x = plane + row_at * gw.input + gw.start(from) + k * gw.dilation;
          Sum* sum = sums + (from - first);
          for (int64_t p = 0; p < to - from; ++p) add(sum[p], factor, from_x[p * gw.stride]);
        }
      }
    }
  };

  int64_t at = 0;
  for (int64_t n = 0; n < items; ++n) {
    for (int64_t m = 0; m < out_channels; ++m) {
      const X* planes = x.as<X>() + (n * in_channels + m / group_out * group_in) * in_plane;
      const W* weights = w.as<W>() + m * group_in * taps;
      const auto factor_of = factors(m);
      for (int64_t d = 0; d < gd.output; ++d) {
        for (int64_t h = 0; h < gh.output; ++h) {
          for (int64_t first = 0; first < gw.output; first += kTile) {
            const int64_t count = std::min(kTile, gw.output - first);
            Sum sums[kTile];
            std::fill_n(sums, count, begin(m));
            for (int64_t c = 0; c < group_in; ++c) {
              add_windows(planes + c * in_plane, weights + c * taps, factor_of, d, h, first, count, sums);
            }
            row(sums, count, at, m);
            at += count;
          }
        }
      }
    }
  }
}

}  // namespace rskip::ops
