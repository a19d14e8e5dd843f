// Pointwise operators. Integers wrap around; integer division truncates, and a division by zero gives 0.
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/scalar_math.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace rskip::ops {
namespace {

// Types that networks compute much with have loops of their own for each operation; those of the others call the operation for each
// element, so that the addon stays small.
template <class T>
constexpr bool kCommon = std::is_same_v<T, float> || std::is_same_v<T, int32_t> || std::is_same_v<T, int64_t>;

// y[i] = op(a, b) over numpy-broadcast operands.
template <class In, class Out, class Op>
void zip(const TensorView& a, const TensorView& b, const TensorView& y, Poll& poll, Op op) {
  if constexpr (!kCommon<In> && !std::is_pointer_v<Op>) {
    return zip<In, Out>(a, b, y, poll, static_cast<Out (*)(In, In)>(op));
  }
  const std::array<Ints, 3> strides{dense_strides(y.shape), broadcast_strides(a.shape, y.shape),
                                    broadcast_strides(b.shape, y.shape)};
  for_each_row<3>(y.shape, strides, poll, [&](const auto& at, int64_t length, const auto& steps) {
    Out* to = y.as<Out>() + at[0];
    const In* left = a.as<In>() + at[1];
    const In* right = b.as<In>() + at[2];
    if constexpr (kCommon<In>) {
      if (steps[1] == 1 && steps[2] == 1) {
        for (int64_t i = 0; i < length; ++i) to[i] = op(left[i], right[i]);
        return;
      }
      if (steps[1] == 1 && steps[2] == 0) {
        const In value = *right;
        for (int64_t i = 0; i < length; ++i) to[i] = op(left[i], value);
        return;
      }
      if (steps[1] == 0 && steps[2] == 1) {
        const In value = *left;
        for (int64_t i = 0; i < length; ++i) to[i] = op(value, right[i]);
        return;
      }
    }
    for (int64_t i = 0; i < length; ++i) to[i] = op(left[i * steps[1]], right[i * steps[2]]);
  });
}

template <class T>
T minus(T a, T b) {
  return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));
}

template <class T>
T divide(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return a / b;
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return static_cast<T>(0 - static_cast<uint64_t>(a));  // the smallest number wraps to itself
    }
    return static_cast<T>(a / b);
  }
}

// The remainder of the truncated division; with `floored`, of the floored one, which has the divisor's sign.
template <class T>
T remainder(T a, T b, bool floored) {
  T rest;
  if constexpr (std::is_floating_point_v<T>) {
    rest = std::fmod(a, b);  // exact
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;  // the smallest number would overflow
    }
    rest = static_cast<T>(a % b);
  }
  return floored && rest != 0 && (rest < 0) != (b < 0) ? static_cast<T>(rest + b) : rest;
}

// Integers wrap around; fractions are truncated, and 0 to a negative power is 0.
template <class T>
T power(T base, T exponent) {
  if constexpr (std::is_floating_point_v<T>) {
    return float_power(base, exponent);
  } else {
    if constexpr (std::is_signed_v<T>) {
      if (exponent < 0) return static_cast<T>(base == 1 ? 1 : base == -1 ? (exponent % 2 == 0 ? 1 : -1) : 0);
    }
    uint64_t result = 1, square = static_cast<uint64_t>(base);
    for (uint64_t left = static_cast<uint64_t>(exponent); left > 0; left >>= 1) {
      if (left & 1) result *= square;
      square *= square;
    }
    return static_cast<T>(result);
  }
}

template <class T>
void binary_as(BinaryKind kind, const TensorView& a, const TensorView& b, const TensorView& y, Poll& poll) {
  switch (kind) {
    case BinaryKind::kAdd:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return plus(p, q); });
    case BinaryKind::kSub:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return minus(p, q); });
    case BinaryKind::kMul:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return times(p, q); });
    case BinaryKind::kDiv:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return divide(p, q); });
    case BinaryKind::kMin:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return least(p, q); });
    case BinaryKind::kMax:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return greatest(p, q); });
    case BinaryKind::kMod:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return remainder(p, q, true); });
    case BinaryKind::kFmod:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return remainder(p, q, false); });
    case BinaryKind::kPow:
      return zip<T, T>(a, b, y, poll, [](T p, T q) { return power(p, q); });
  }
}

template <class T>
void compare_as(CompareKind kind, const TensorView& a, const TensorView& b, const TensorView& y, Poll& poll) {
  switch (kind) {
    case CompareKind::kGt:
      return zip<T, uint8_t>(a, b, y, poll, [](T p, T q) { return static_cast<uint8_t>(p > q); });
    case CompareKind::kGe:
      return zip<T, uint8_t>(a, b, y, poll, [](T p, T q) { return static_cast<uint8_t>(p >= q); });
    case CompareKind::kLt:
      return zip<T, uint8_t>(a, b, y, poll, [](T p, T q) { return static_cast<uint8_t>(p < q); });
    case CompareKind::kLe:
      return zip<T, uint8_t>(a, b, y, poll, [](T p, T q) { return static_cast<uint8_t>(p <= q); });
    case CompareKind::kEq:
      return zip<T, uint8_t>(a, b, y, poll, [](T p, T q) { return static_cast<uint8_t>(p == q); });
  }
}

// NaN gives 0, and numbers out of range saturate.
template <class Int>
Int saturate(float v) {
  if (v != v) return 0;
  // Both bounds are powers of two (or 0), and so exact.
  const float low = static_cast<float>(std::numeric_limits<Int>::min());
  const float end = 2 * static_cast<float>(std::numeric_limits<Int>::max() / 2 + 1);
  if (v >= end) return std::numeric_limits<Int>::max();
  if (v <= low) return std::numeric_limits<Int>::min();
  return static_cast<Int>(v);
}

template <class To, class From>
To convert(From v) {
  if constexpr (std::is_same_v<To, From>) return v;
  else if constexpr (std::is_same_v<From, float>) return saturate<To>(v);
  else return static_cast<To>(v);
}

void activate(float* y, int64_t n, Activation act, Poll& poll) {
  if (act.kind == ActivationKind::kNone) return;
  for_each_segment(n, poll, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = scalar_activation(y[i], act);
  });
}

}  // namespace

void unary(const TensorView& x, Activation act, const TensorView& y, Poll poll) {
  const int64_t n = y.elements();
  for_each_segment(n, poll, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y.as<float>()[i] = scalar_activation(x.as<float>()[i], act);
  });
}

void binary(BinaryKind kind, const TensorView& a, const TensorView& b, Activation act, const TensorView& y, Poll poll) {
  dispatch(y.dtype, [&](auto type) { binary_as<decltype(type)>(kind, a, b, y, poll); });
  if (y.dtype == DType::kFloat32) activate(y.as<float>(), y.elements(), act, poll);
}

void compare(CompareKind kind, const TensorView& a, const TensorView& b, const TensorView& y, Poll poll) {
  dispatch(a.dtype, [&](auto type) { compare_as<decltype(type)>(kind, a, b, y, poll); });
}

void logical(LogicalKind kind, const TensorView& a, const TensorView& b, const TensorView& y, Poll poll) {
  using Byte = uint8_t;
  switch (kind) {
    case LogicalKind::kAnd:
      return zip<Byte, Byte>(a, b, y, poll, [](Byte p, Byte q) { return static_cast<Byte>(p != 0 && q != 0); });
    case LogicalKind::kOr:
      return zip<Byte, Byte>(a, b, y, poll, [](Byte p, Byte q) { return static_cast<Byte>(p != 0 || q != 0); });
    case LogicalKind::kNot:
      return zip<Byte, Byte>(a, a, y, poll, [](Byte p, Byte) { return static_cast<Byte>(p == 0); });
  }
}

void where(const TensorView& condition, const TensorView& a, const TensorView& b, const TensorView& y, Poll poll) {
  const std::array<Ints, 4> strides{dense_strides(y.shape), broadcast_strides(condition.shape, y.shape),
                                    broadcast_strides(a.shape, y.shape), broadcast_strides(b.shape, y.shape)};
  dispatch(y.dtype, [&](auto type) {
    using T = decltype(type);
    for_each_row<4>(y.shape, strides, poll, [&](const auto& at, int64_t length, const auto& steps) {
      T* to = y.as<T>() + at[0];
      const uint8_t* chosen = condition.as<uint8_t>() + at[1];
      const T* left = a.as<T>() + at[2];
      const T* right = b.as<T>() + at[3];
      for (int64_t i = 0; i < length; ++i) to[i] = chosen[i * steps[1]] != 0 ? left[i * steps[2]] : right[i * steps[3]];
    });
  });
}

void cast(const TensorView& x, const TensorView& y, Poll poll) {
  const int64_t n = y.elements();
  dispatch(x.dtype, [&](auto from_type) {
    using From = decltype(from_type);
    const From* from = x.as<From>();
    if (y.dtype == DType::kBool && x.dtype != DType::kBool) {
      return for_each_segment(n, poll, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y.as<uint8_t>()[i] = from[i] != 0;
      });
    }
    dispatch(y.dtype, [&](auto to_type) {
      using To = decltype(to_type);
      for_each_segment(n, poll, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y.as<To>()[i] = convert<To>(from[i]);
      });
    });
  });
}

}  // namespace rskip::ops
