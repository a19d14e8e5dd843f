// Convolution of any rank and with weights that are computed at run time. A sum is kept in double precision,
// in which products of floats are exact, so that fused and separate multiply-adds give the same bits.
#include "kernels/scalar_math.h"
#include "ops/convolve.h"
#include "ops/ops.h"

namespace rskip::ops {

void conv(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
          const Window& win, int64_t group, Activation act, const TensorView& y, Poll poll) {
  const auto begin = [&](int64_t m) -> double { return bias.data ? bias.as<float>()[m] : 0; };
  const auto factors = [](int64_t) { return [](float weight) -> double { return weight; }; };
  const auto add = [](double& sum, double factor, float v) { sum += factor * v; };
  const auto row = [&](double* sums, int64_t count, int64_t at, int64_t) {
    for (int64_t i = 0; i < count; ++i) {
      if (residual.data) sums[i] += residual.as<float>()[at + i];
      y.as<float>()[at + i] = scalar_activation(static_cast<float>(sums[i]), act);
    }
  };
  convolve<float, float>(x, w, y.shape, win, group, poll, begin, factors, add, row);
}

}  // namespace rskip::ops
