#include <algorithm>
#include <limits>
#include <type_traits>

#include "ops/ops.h"
#include "ops/rows.h"
#include "ops/window.h"

namespace rskip::ops {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Position of column `w` of the window's row that taps (i, j) read, in its plane.
struct Plane {
  const Geometry& g;
  int64_t row(int64_t d, int64_t i, int64_t h, int64_t j) const {
    return ((g[0].start(d) + i * g[0].dilation) * g[1].input + g[1].start(h) + j * g[1].dilation) * g[2].input;
  }
  int64_t column_major(int64_t at) const {
    const int64_t w = at % g[2].input, h = at / g[2].input % g[1].input, d = at / (g[2].input * g[1].input);
    return (w * g[1].input + h) * g[0].input + d;
  }
};

// Calls `use` with the offset of each row of a window that lies inside the plane, and the taps of it that do.
template <class Use>
void each_row(const Geometry& g, int64_t d, int64_t h, int64_t w, Poll& poll, const Use& use) {
  const Range di = g[0].taps_inside(d), hi = g[1].taps_inside(h), wi = g[2].taps_inside(w);
  for (int64_t i = di.first; i < di.last; ++i) {
    for (int64_t j = hi.first; j < hi.last; ++j) {
      poll.before(wi.last - wi.first);
      use(Plane{g}.row(d, i, h, j) + g[2].start(w), wi);
    }
  }
}

// How many elements a window averages; in double, as the product of three 31-bit extents can exceed 64 bits.
double cells_of(const Geometry& g, int64_t d, int64_t h, int64_t w, bool count_include_pad) {
  double cells = 1;
  for (const auto& [axis, at] : {std::pair{g[0], d}, {g[1], h}, {g[2], w}}) {
    cells *= static_cast<double>(axis.cells(at, count_include_pad));
  }
  return cells;
}

float average_window(const Geometry& g, const float* x, int64_t d, int64_t h, int64_t w, bool count_include_pad,
                     Poll& poll) {
  double sum = 0;
  each_row(g, d, h, w, poll, [&](int64_t row, const Range& taps) {
    for (int64_t k = taps.first; k < taps.last; ++k) sum += x[row + k * g[2].dilation];
  });
  const double cells = cells_of(g, d, h, w, count_include_pad);
  return cells == 0 ? 0.0f : static_cast<float>(sum / cells);
}

// Position of the largest element in the plane, or -1 for a window that lies wholly in the padding. The first
// of equal ones wins, and the first NaN beats any number.
template <class T>
int64_t max_window(const Geometry& g, const T* x, int64_t d, int64_t h, int64_t w, Poll& poll) {
  int64_t best = -1;
  each_row(g, d, h, w, poll, [&](int64_t row, const Range& taps) {
    for (int64_t k = taps.first; k < taps.last; ++k) {
      const int64_t at = row + k * g[2].dilation;
      if (best < 0 || (!(x[at] <= x[best]) && x[best] == x[best])) best = at;
    }
  });
  return best;
}

// Whether the window of each element of y has one column, that of the element.
bool is_vertical(const Axis& w) {
  return w.kernel == 1 && w.stride == 1 && w.pad_begin == 0 && w.output == w.input;
}

// `average_window` for a row of y where windows have one column: sums of neighbours grow side by side.
void average_row(const Geometry& g, const float* x, int64_t d, int64_t h, bool count_include_pad, float* y, Poll& poll) {
  constexpr int64_t kSums = 512;
  double sums[kSums];
  const double cells = cells_of(g, d, h, 0, count_include_pad);
  const Range di = g[0].taps_inside(d), hi = g[1].taps_inside(h);
  for (int64_t begin = 0; begin < g[2].output; begin += kSums) {
    const int64_t count = std::min(kSums, g[2].output - begin);
    std::fill_n(sums, count, 0.0);
    for (int64_t i = di.first; i < di.last; ++i) {
      for (int64_t j = hi.first; j < hi.last; ++j) {
        poll.before(count);
        const float* row = x + Plane{g}.row(d, i, h, j) + begin;
        for (int64_t w = 0; w < count; ++w) sums[w] += row[w];
      }
    }
    for (int64_t w = 0; w < count; ++w) y[begin + w] = cells == 0 ? 0.0f : static_cast<float>(sums[w] / cells);
  }
}

template <class T>
void pool_of(const TensorView& x, const Window& win, bool max, bool count_include_pad, bool column_major,
             const TensorView& y, const TensorView& indices, Poll& poll) {
  constexpr T kNothing = std::numeric_limits<T>::has_infinity ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::lowest();
  const Geometry g = geometry(x.shape, y.shape, win.kernel, win);
  const int64_t planes = x.shape[0] * x.shape[1], in_plane = product(x.shape, 2, x.shape.size());
  int64_t at = 0;
  for (int64_t p = 0; p < planes; ++p) {
    const T* plane = x.as<T>() + p * in_plane;
    for (int64_t d = 0; d < g[0].output; ++d) {
      for (int64_t h = 0; h < g[1].output; ++h) {
        poll.before(g[2].output);
        if constexpr (std::is_same_v<T, float>) {
          if (!max && is_vertical(g[2])) {
            average_row(g, plane, d, h, count_include_pad, y.as<float>() + at, poll);
            at += g[2].output;
            continue;
          }
        }
        for (int64_t w = 0; w < g[2].output; ++w, ++at) {
          if constexpr (std::is_same_v<T, float>) {
            if (!max) {
              y.as<float>()[at] = average_window(g, plane, d, h, w, count_include_pad, poll);
              continue;
            }
          }
          const int64_t best = max_window(g, plane, d, h, w, poll);
          y.as<T>()[at] = best < 0 ? kNothing : plane[best];
          if (!indices.data) continue;
          const int64_t index = column_major ? Plane{g}.column_major(best) : best;
          indices.as<int64_t>()[at] = best < 0 ? -1 : p * in_plane + index;
        }
      }
    }
  }
}

template <class T>
uint32_t window_sum(const Geometry& g, const T* x, int64_t d, int64_t h, int64_t w, int32_t zero, bool squares, Poll& poll) {
  uint32_t sum = 0;
  each_row(g, d, h, w, poll, [&](int64_t row, const Range& taps) {
    for (int64_t k = taps.first; k < taps.last; ++k) {
      const int32_t number = x[row + k * g[2].dilation] - zero;
      sum += static_cast<uint32_t>(squares ? number * number : number);
    }
  });
  return sum;
}

}  // namespace

void qpool(const TensorView& x, const Window& win, bool squares, const Term& term, const TensorView& y, Poll poll) {
  const Geometry g = geometry(x.shape, y.shape, win.kernel, win);
  const int64_t planes = x.shape[0] * x.shape[1], in_plane = product(x.shape, 2, x.shape.size());
  const auto of = [&](auto type) {
    float* to = y.as<float>();
    for (int64_t p = 0; p < planes; ++p) {
      const auto* plane = x.as<decltype(type)>() + p * in_plane;
      for (int64_t d = 0; d < g[0].output; ++d) {
        for (int64_t h = 0; h < g[1].output; ++h) {
          poll.before(g[2].output);
          for (int64_t w = 0; w < g[2].output; ++w) {
            const uint32_t sum = window_sum(g, plane, d, h, w, term.zero, squares, poll);
            *to++ = static_cast<float>(static_cast<int32_t>(sum)) * term.factor;
          }
        }
      }
    }
  };
  if (x.dtype == DType::kInt8) of(int8_t{});
  else of(uint8_t{});
}

void pool(const TensorView& x, const Window& win, bool max, bool count_include_pad, bool column_major,
          const TensorView& y, const TensorView& indices, Poll poll) {
  const auto of = [&](auto type) {
    pool_of<decltype(type)>(x, win, max, count_include_pad, column_major, y, indices, poll);
  };
  if (x.dtype == DType::kInt8) of(int8_t{});
  else if (x.dtype == DType::kUint8) of(uint8_t{});
  else of(float{});
}

void global_pool(const TensorView& x, GlobalPoolKind kind, const TensorView& y, Poll poll) {
  const int64_t planes = x.shape[0] * x.shape[1], size = product(x.shape, 2, x.shape.size());
  for (int64_t p = 0; p < planes; ++p) {
    poll.before(size);
    const float* plane = x.as<float>() + p * size;
    float best = kLowest;
    double sum = 0;
    for (int64_t i = 0; i < size; ++i) {
      sum += kind == GlobalPoolKind::kMeanSquare ? plane[i] * plane[i] : plane[i];
      if (!(plane[i] <= best) && best == best) best = plane[i];
    }
    y.as<float>()[p] = kind == GlobalPoolKind::kMax ? best : static_cast<float>(sum / static_cast<double>(size));
  }
}

}  // namespace rskip::ops
