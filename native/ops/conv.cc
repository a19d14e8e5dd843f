// Convolution of any rank and with weights that are computed at run time. A sum is kept in double precision,
// in which products of floats are exact, so that fused and separate multiply-adds give the same bits.
#include <cstring>

#include "kernels/scalar_math.h"
#include "ops/ops.h"
#include "ops/rows.h"
#include "ops/window.h"

namespace rskip::ops {
namespace {

// Output columns that are summed together.
constexpr int64_t kTile = 64;

struct Channel {
  const float* x;       // first input channel of the group
  const float* weight;  // of this output channel
  int64_t in_channels, in_plane, taps;
};

// sums[i] += what the window of output column first + i takes, for `count` columns of one output row.
void add_windows(const Geometry& g, const Channel& channel, int64_t d, int64_t h, int64_t first, int64_t count,
                 double* sums, Poll& poll) {
  const auto& [gd, gh, gw] = g;
  const Range kd = gd.taps_inside(d), kh = gh.taps_inside(h);
  for (int64_t c = 0; c < channel.in_channels; ++c) {
    const float* plane = channel.x + c * channel.in_plane;
    const float* weight = channel.weight + c * channel.taps;
    for (int64_t i = kd.first; i < kd.last; ++i) {
      for (int64_t j = kh.first; j < kh.last; ++j) {
        poll.before(gw.kernel * count);
        const int64_t row_at = (gd.start(d) + i * gd.dilation) * gh.input + gh.start(h) + j * gh.dilation;
        for (int64_t k = 0; k < gw.kernel; ++k) {
          const double factor = weight[(i * gh.kernel + j) * gw.kernel + k];
          const Range columns = gw.positions_inside(k);
          const int64_t from = std::max(columns.first, first), to = std::min(columns.last, first + count);
          if (from >= to) continue;
          const float* x = plane + row_at * gw.input + gw.start(from) + k * gw.dilation;
          double* sum = sums + (from - first);
          for (int64_t p = 0; p < to - from; ++p) sum[p] += factor * x[p * gw.stride];
        }
      }
    }
  }
}

}  // namespace

void conv(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
          const Window& win, int64_t group, Activation act, const TensorView& y, Poll poll) {
  const Geometry g = geometry(x.shape, y.shape, Ints(w.shape.begin() + 2, w.shape.end()), win);
  const int64_t items = x.shape[0], in_channels = x.shape[1], out_channels = w.shape[0];
  const int64_t group_in = in_channels / group, group_out = out_channels / group;
  const int64_t in_plane = product(x.shape, 2, x.shape.size()), taps = product(w.shape, 2, w.shape.size());
  const int64_t width = g[2].output;
  float* out = y.as<float>();
  int64_t at = 0;
  for (int64_t n = 0; n < items; ++n) {
    for (int64_t m = 0; m < out_channels; ++m) {
      const Channel channel{x.as<float>() + (n * in_channels + m / group_out * group_in) * in_plane,
                            w.as<float>() + m * group_in * taps, group_in, in_plane, taps};
      const double shift = bias.data ? bias.as<float>()[m] : 0;
      for (int64_t d = 0; d < g[0].output; ++d) {
        for (int64_t h = 0; h < g[1].output; ++h) {
          for (int64_t first = 0; first < width; first += kTile) {
            const int64_t count = std::min(kTile, width - first);
            double sums[kTile];
            std::fill_n(sums, count, shift);
            add_windows(g, channel, d, h, first, count, sums, poll);
            for (int64_t i = 0; i < count; ++i, ++at) {
              if (residual.data) sums[i] += residual.as<float>()[at];
              out[at] = scalar_activation(static_cast<float>(sums[i]), act);
            }
          }
        }
      }
    }
  }
}

}  // namespace rskip::ops
