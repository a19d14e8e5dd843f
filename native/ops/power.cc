// Powers in double precision by polynomials of their own, so that all platforms give the same bits.
#include <cmath>
#include <limits>

#include "ops/ops.h"

namespace rskip::ops {
namespace {

constexpr double kLn2 = 0.693147180559945309417;

// ln x = 2 atanh(s) + e ln 2 with x = m 2^e, m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1), so |s| < 0.172.
double natural_log(double x) {
  int e;
  double m = std::frexp(x, &e);
  if (m < 0.70710678118654752) {
    m *= 2;
    --e;
  }
  const double s = (m - 1) / (m + 1), z = s * s;
  double p = 0;
  for (int k = 21; k >= 1; k -= 2) p = p * z + 1.0 / k;
  return 2 * s * p + e * kLn2;
}

// e^t = 2^n e^r with |r| <= ln 2 / 2, by Taylor's polynomial.
double exponential(double t) {
  if (t > 100) return std::numeric_limits<double>::infinity();
  if (t < -120) return 0;
  const double n = std::nearbyint(t / kLn2);
  const double r = t - n * kLn2;
  double p = 1;
  for (int k = 14; k >= 1; --k) p = 1 + p * r / k;
  return std::ldexp(p, static_cast<int>(n));
}

}  // namespace

float float_power(float x, float y) {
  const float infinity = std::numeric_limits<float>::infinity();
  if (y == 0 || x == 1) return 1;
  if (x != x || y != y) return x + y;
  const bool whole = std::fabs(y) < infinity && y == std::floor(y);
  const bool odd = whole && std::fabs(y) < 16777216.0f && std::fmod(y, 2.0f) != 0;
  const float magnitude = std::fabs(x);
  if (std::fabs(y) == infinity) {
    if (magnitude == 1) return 1;
    return (magnitude > 1) == (y > 0) ? infinity : 0;
  }
  if (x < 0 && magnitude < infinity && !whole) return std::numeric_limits<float>::quiet_NaN();
  float result;
  if (magnitude == 0 || magnitude == infinity) result = (magnitude == 0) == (y < 0) ? infinity : 0;
  else result = static_cast<float>(exponential(static_cast<double>(y) * natural_log(magnitude)));
  return odd && std::signbit(x) ? -result : result;
}

}  // namespace rskip::ops
