// Elementary functions on any vector type V of this instruction set, with the same bits per lane on all of
// them: only fma, +, -, *, /, sqrt, comparisons and exact integer steps, in one order. NaN gives NaN.
#pragma once

#include <limits>

#include "kernels/types.h"

// y = act(x) for dense spans of n floats; in place allowed. The kernels on floats have it, and those on 8-bit numbers and on bfloat16 take
// it from there: each of its functions is compiled once.
namespace rskip::RSKIP_BASE {
void unary_span(const float* x, float* y, size_t n, Activation act);
}

namespace rskip::RSKIP_ISA {

template <class V>
RSKIP_INLINE V abs(V x) {
  return from_bits(and_bits(bits(x), 0x7fffffff));
}
// `magnitude`, which isn't negative, with the sign of x.
template <class V>
RSKIP_INLINE V with_sign_of(V x, V magnitude) {
  return from_bits(or_bits(bits(magnitude), and_bits(bits(x), std::numeric_limits<int32_t>::min())));
}

// The polynomial in x with these coefficients, the highest power first, by Horner's rule.
template <class V, class... Coefficients>
RSKIP_INLINE V polynomial(V x, float highest, Coefficients... rest) {
  V sum = splat<V>(highest);
  ((sum = fma(sum, x, splat<V>(rest))), ...);
  return sum;
}

// 1.5 * 2^23: added to a number, it rounds it to an integer and leaves that in the low bits.
inline constexpr float kRoundingMagic = 12582912.0f;

// p * 2^n, rounded once, for p near 1 and integers n from -152 to 129; `shifted` is n + kRoundingMagic. AVX-512 has an instruction for it.
template <class V>
RSKIP_INLINE V times_power_of_two(V p, V, V shifted) {
  const auto exponent = sub_bits(bits(shifted), bits(splat<V>(kRoundingMagic)));
  const auto half = shift_right<1>(exponent);
  const V scale_a = from_bits(shift_left<23>(add_bits(half, 127)));
  const V scale_b = from_bits(shift_left<23>(add_bits(sub_bits(exponent, half), 127)));
  return p * scale_a * scale_b;
}

// The same for n from -152 to 0, in fewer steps; `shifted` is kRoundingMagic - 64 - n. The first result is a normal number.
template <class V>
RSKIP_INLINE V times_small_power(V p, V, V shifted) {
  return from_bits(sub_bits(bits(p), shift_left<23>(bits(shifted)))) * splat<V>(0x1p-64f);
}

// e^t without its power of two, 2^n.
template <class V>
RSKIP_INLINE V exp_mantissa(V t, V n) {
  V r = fma(n, splat<V>(-0.693359375f), t);
  r = fma(n, splat<V>(2.12194440e-4f), r);
  return polynomial(r, 1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f);
}

// e^t for t from -105 to 89: beyond, the result is 0 or infinity. Largest error about 1 ulp, subnormal results included (no flush
// to zero).
template <class V>
RSKIP_INLINE V exp_within_bounds(V t) {
  const V shifted = fma(t, splat<V>(1.44269504f), splat<V>(kRoundingMagic));
  const V n = shifted - splat<V>(kRoundingMagic);
  return times_power_of_two(exp_mantissa(t, n), n, shifted);
}
// The same bits for t from -105 to 0. Of NaN, anything.
template <class V>
RSKIP_INLINE V exp_within_negative_bounds(V t) {
  const V magic = splat<V>(kRoundingMagic - 64);
  const V shifted = fma(t, splat<V>(-1.44269504f), magic);
  const V n = magic - shifted;
  return times_small_power(exp_mantissa(t, n), n, shifted);
}
template <class V>
RSKIP_INLINE V exp(V x) {
  return select(is_nan(x), x, exp_within_bounds(min(splat<V>(89.0f), max(splat<V>(-105.0f), x))));
}

// e^x for x <= 0, as exp but with 0 for results below the normal numbers: what weights that add up to 1 need.
template <class V>
RSKIP_INLINE V exp_of_negative(V x) {
  const V t = max(splat<V>(-88.029692f), x);  // -127 ln 2
  // The low bits of `shifted` hold the exponent of the power of two as floats store it.
  const float magic = 12582912.0f + 127;
  const V shifted = fma(t, splat<V>(1.44269504f), splat<V>(magic));
  const V n = shifted - splat<V>(magic);
  V r = fma(n, splat<V>(-0.693359375f), t);
  r = fma(n, splat<V>(2.12194440e-4f), r);
  // A polynomial of least relative error, 2e-9, for |r| <= ln 2 / 2.
  const V p = polynomial(r, 0.00138368039f, 0.0083748456f, 0.041668229f, 0.16666420f, 0.49999991f, 1.0f, 1.0f);
  return p * from_bits(shift_left<23>(bits(shifted)));
}

// Natural logarithm; largest error about 1 ulp. log(0) is -infinity, of negative numbers NaN.
template <class V>
RSKIP_INLINE V log(V x) {
  const float smallest_normal = std::numeric_limits<float>::min();
  const float infinity = std::numeric_limits<float>::infinity();
  const auto subnormal = less(x, splat<V>(smallest_normal));
  const V scaled = select(subnormal, x * splat<V>(8388608.0f), x);
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const auto offset = add_bits(bits(scaled), 0x3f800000 - 0x3f3504f3);
  const V e = to_float(add_bits(shift_right<23>(offset), -127)) - select(subnormal, splat<V>(23.0f), splat<V>(0.0f));
  const V m = from_bits(add_bits(and_bits(offset, 0x007fffff), 0x3f3504f3));
  // log m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1), |s| < 0.172. Written as
  // f - s (f - 2 s^2 (1/3 + s^2/5 + ...)) so that the leading term f = m - 1 is exact.
  const V f = m - splat<V>(1.0f);
  const V s = f / (f + splat<V>(2.0f));
  const V z = s * s;
  const V p = polynomial(z, 2.0f / 11, 2.0f / 9, 2.0f / 7, 2.0f / 5, 2.0f / 3);
  const V correction = s * fma(p, splat<V>(0.0f) - z, f);
  const V low = fma(e, splat<V>(-2.12194440e-4f), splat<V>(0.0f) - correction);
  V y = fma(e, splat<V>(0.693359375f), low + f);
  y = select(less(x, splat<V>(infinity)), y, x);
  y = select(less(splat<V>(0.0f), x), y, splat<V>(-infinity));
  y = select(less(x, splat<V>(0.0f)), splat<V>(std::numeric_limits<float>::quiet_NaN()), y);
  return select(is_nan(x), x, y);
}

// a where x is below 0, otherwise b; either for -0 and NaN.
template <class V>
RSKIP_INLINE V select_by_sign(V x, V a, V b) {
  return select(less(x, splat<V>(0.0f)), a, b);
}

// 1 / (1 + e^-x), for negative x as e^x / (1 + e^x), which keeps tiny results; e = e^-|x|.
template <class V>
RSKIP_INLINE V sigmoid_of(V x, V e) {
  return select_by_sign(x, e, splat<V>(1.0f)) / (splat<V>(1.0f) + e);
}
// -|x|, but at least -105.
template <class V>
RSKIP_INLINE V bounded_negative(V x) {
  return max(splat<V>(-105.0f), from_bits(or_bits(bits(x), bits(splat<V>(-0.0f)))));
}
template <class V>
RSKIP_INLINE V sigmoid(V x) {
  return sigmoid_of(x, exp_within_bounds(bounded_negative(x)));
}
// x sigmoid(x); of NaN, the factor x is one.
template <class V>
RSKIP_INLINE V silu(V x) {
  return x * sigmoid_of(x, exp_within_negative_bounds(bounded_negative(x)));
}

template <class V>
RSKIP_INLINE V tanh(V x) {
  // An odd polynomial, fitted by weighted least squares, where 1 - 2/(e^2x + 1) would cancel.
  const V z = x * x;
  const V p = polynomial(z, 0.00213945936f, -0.00817354955f, 0.0216991138f, -0.0539464578f, 0.133332029f,
                         -0.333333313f);
  const V near = fma(x * z, p, x);
  const V magnitude = abs(x);
  const V far = splat<V>(1.0f) - splat<V>(2.0f) / (exp(magnitude + magnitude) + splat<V>(1.0f));
  return select(is_nan(x), x, select(less(magnitude, splat<V>(0.625f)), near, with_sign_of(x, far)));
}

template <class V>
RSKIP_INLINE V erf(V x) {
  // Both polynomials were fitted by weighted least squares: erf(x) / x - 1 in x^2 below 1, and above it p in
  // erfc(x) = e^-(x + x p(x)), up to 4, beyond which erf rounds to 1.
  const V z = x * x;
  const V q = polynomial(z, 7.853861e-05f, -0.00080101937f, 0.0051883277f, -0.026853813f, 0.112835854f, -0.37612626f,
                         0.12837917f);
  const V near = fma(x, q, x);
  const V t = min(splat<V>(4.0f), abs(x));
  const V p = polynomial(t, -0.00021064254f, 0.0031869411f, -0.022798445f, 0.105116114f, 0.6358315f, 0.12848003f);
  const V far = splat<V>(1.0f) - exp(splat<V>(0.0f) - fma(t, p, t));
  return select(is_nan(x), x, select(less(t, splat<V>(1.0f)), near, with_sign_of(x, far)));
}

// x P(x), where P is the normal distribution: max(0, x) - |x| P(-|x|), which cancels nothing. The polynomial is
// (-log2 P(-t) - 1) / t, fitted for the least error beside x; at t = 9 the product is 1e-18.
template <class V>
RSKIP_INLINE V gelu(V x) {
  const V t = min(splat<V>(9.0f), abs(x));
  const V h = polynomial(t, -1.22061635e-7f, 3.45662420e-6f, -3.69961999e-5f, 1.62840864e-4f, 2.00478986e-4f,
                         -0.00714371726f, 0.0525454767f, 0.459194869f, 1.15110636f);
  const V exponent = fma(h, splat<V>(0.0f) - t, splat<V>(-1.0f));
  const float magic = 12582912.0f + 127;
  const V shifted = exponent + splat<V>(magic);
  const V r = exponent - (shifted - splat<V>(magic));
  // 2^r, for |r| <= 1/2.
  const V p = polynomial(r, 1.53457848e-4f, 0.00133999577f, 0.00961848907f, 0.0555032864f, 0.240226463f, 0.693147182f,
                         1.0f);
  const V tail = p * from_bits(shift_left<23>(bits(shifted)));
  return fma(splat<V>(0.0f) - t, tail, max(splat<V>(0.0f), x));
}

// e^x - 1 for x <= 0, without cancellation: with t = tanh(x / 2), e^x = (1 + t) / (1 - t).
template <class V>
RSKIP_INLINE V expm1_negative(V x) {
  const V t = tanh(x * splat<V>(0.5f));
  return (t + t) / (splat<V>(1.0f) - t);
}

// log(1 + e^x). What is lost when 1 + e is rounded to u is restored by the factor e / (u - 1).
template <class V>
RSKIP_INLINE V softplus(V x) {
  const V one = splat<V>(1.0f);
  const V e = exp(splat<V>(0.0f) - abs(x));
  const V u = one + e;
  const V log1p = select(less(one, u), log(u) * (e / (u - one)), e);
  return max(splat<V>(0.0f), x) + log1p;
}

// To the nearest integer, of two equally near to the even one.
template <class V>
RSKIP_INLINE V round(V x) {
  const V whole = splat<V>(8388608.0f);  // numbers from here on are integers
  const V magnitude = abs(x);
  return select(less(magnitude, whole), with_sign_of(x, (magnitude + whole) - whole), x);
}
template <class V>
RSKIP_INLINE V floor(V x) {
  const V r = round(x);
  return select(less(x, r), r - splat<V>(1.0f), r);
}
template <class V>
RSKIP_INLINE V ceil(V x) {
  const V r = round(x);
  return select(less(r, x), with_sign_of(x, r + splat<V>(1.0f)), r);
}

// sin(x + quarter * pi / 2), with x limited to [-2^20, 2^20]; largest error about 1 ulp.
template <class V>
RSKIP_INLINE V sine(V x, int quarter) {
  // r = x - n pi / 2 in three parts of pi / 2 (Cody and Waite); the first step is exact.
  const float most = 1048576.0f, magic = 12582912.0f;
  const V t = min(splat<V>(most), max(splat<V>(-most), x));
  const V shifted = fma(t, splat<V>(0.636619772f), splat<V>(magic));
  const V n = shifted - splat<V>(magic);
  V r = fma(n, splat<V>(-1.57079637f), t);
  r = fma(n, splat<V>(4.37113883e-8f), r);
  r = fma(n, splat<V>(1.71512489e-15f), r);
  // Taylor's polynomials suffice for |r| <= pi / 4.
  const V z = r * r;
  V s = polynomial(z, 1.0f / 362880, -1.0f / 5040, 1.0f / 120, -1.0f / 6);
  s = fma(s * z, r, r);
  const V c = polynomial(z, -1.0f / 3628800, 1.0f / 40320, -1.0f / 720, 1.0f / 24, -0.5f, 1.0f);
  // The low bits of `shifted` count quarters of a turn: an odd one takes the cosine, each half turn changes the sign.
  const auto quarters = add_bits(bits(shifted), quarter);
  const V odd = to_float(and_bits(quarters, 1));
  const V y = select(less(splat<V>(0.5f), odd), c, s);
  const V negative = to_float(and_bits(quarters, 2));
  return select(is_nan(x - x), x - x, select(less(splat<V>(0.5f), negative), splat<V>(0.0f) - y, y));
}

template <class V>
RSKIP_INLINE V clamp(V x, float low, float high) {
  return min(splat<V>(high), max(splat<V>(low), x));
}

template <class V>
RSKIP_INLINE V hard_swish(V x) {
  return x * clamp(fma(x, splat<V>(1.0f / 6), splat<V>(0.5f)), 0.0f, 1.0f);
}

// The functions of Activation in lib/model/program/program.ts.
template <class V>
V activate(V x, const Activation& act) {
  switch (act.kind) {
    case ActivationKind::kNone:
      return x;
    case ActivationKind::kRelu:
      return max(splat<V>(0.0f), x);
    case ActivationKind::kLeakyRelu:
      return select(less(x, splat<V>(0.0f)), x * splat<V>(act.alpha), x);
    case ActivationKind::kClip:
      return clamp(x, act.alpha, act.beta);
    case ActivationKind::kSigmoid:
      return sigmoid(x);
    case ActivationKind::kHardSigmoid:
      return clamp(fma(x, splat<V>(act.alpha), splat<V>(act.beta)), 0.0f, 1.0f);
    case ActivationKind::kHardSwish:
      return hard_swish(x);
    case ActivationKind::kSilu:
      return silu(x);
    case ActivationKind::kTanh:
      return tanh(x);
    case ActivationKind::kErf:
      return erf(x);
    case ActivationKind::kGelu:
      return gelu(x);
    case ActivationKind::kGeluTanh: {
      // (1 + tanh(a)) / 2 = sigmoid(2a) with a = sqrt(2 / pi) (x + 0.044715 x^3).
      const V twice = fma(x * x, splat<V>(0.0713548163f), splat<V>(1.59576912f)) * x;
      return x * sigmoid(twice);
    }
    case ActivationKind::kElu:
      return select(less(x, splat<V>(0.0f)), splat<V>(act.alpha) * expm1_negative(x), x);
    case ActivationKind::kSelu:
      return splat<V>(act.beta) * select(less(x, splat<V>(0.0f)), splat<V>(act.alpha) * expm1_negative(x), x);
    case ActivationKind::kCelu:
      return select(less(x, splat<V>(0.0f)), splat<V>(act.alpha) * expm1_negative(x / splat<V>(act.alpha)), x);
    case ActivationKind::kSoftplus:
      return softplus(x);
    case ActivationKind::kSoftsign:
      return x / (splat<V>(1.0f) + abs(x));
    case ActivationKind::kMish: {
      // With e = e^x, tanh(log(1 + e)) = n / (n + 2) where n = e (e + 2). From x = 20 on it rounds to 1.
      const V e = exp(min(splat<V>(20.0f), x));
      const V n = e * (e + splat<V>(2.0f));
      return x * (n / (n + splat<V>(2.0f)));
    }
    case ActivationKind::kExp:
      return exp(x);
    case ActivationKind::kLog:
      return log(x);
    case ActivationKind::kSqrt:
      return select(less(x, splat<V>(0.0f)), splat<V>(std::numeric_limits<float>::quiet_NaN()), sqrt(x));
    case ActivationKind::kReciprocal:
      return splat<V>(1.0f) / x;
    case ActivationKind::kAbs:
      return abs(x);
    case ActivationKind::kSign:
      return select(less(x, splat<V>(0.0f)), splat<V>(-1.0f), select(less(splat<V>(0.0f), x), splat<V>(1.0f), x));
    case ActivationKind::kFloor:
      return floor(x);
    case ActivationKind::kCeil:
      return ceil(x);
    case ActivationKind::kRound:
      return round(x);
    case ActivationKind::kSin:
      return sine(x, 0);
    case ActivationKind::kCos:
      return sine(x, 1);
  }
  return x;
}

// How an epilogue applies an activation: min and max when that suffices, which needs no branch and keeps
// lanes of zero at zero; otherwise `activate`, which may not (sigmoid(0) = 0.5).
struct Epilogue {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
  bool clamps = false;     // whether they are the activation
  bool clamp_only = true;  // whether they are, or there is none
  Activation act;
};
inline Epilogue epilogue_of(const Activation& act) {
  Epilogue e;
  e.act = act;
  e.clamps = true;
  if (act.kind == ActivationKind::kRelu) {
    e.low = 0;
  } else if (act.kind == ActivationKind::kClip && is_clamp(act)) {
    e.low = act.alpha;
    e.high = act.beta;
  } else {
    e.clamps = false;
    e.clamp_only = act.kind == ActivationKind::kNone;
  }
  return e;
}
template <class V>
RSKIP_INLINE V finish(V x, const Epilogue& e) {
  return e.clamp_only ? clamp(x, e.low, e.high) : activate(x, e.act);
}

}  // namespace rskip::RSKIP_ISA
