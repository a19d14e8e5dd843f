// Integer steps. Sums are exact or wrap around, so their order doesn't matter.
#include <cmath>
#include <type_traits>

#include "kernels/scalar_math.h"
#include "ops/convolve.h"
#include "ops/ops.h"

namespace rskip::ops {
namespace {

// Calls f with a value of the element type, of tensors that hold bytes.
template <class F>
void with_byte(DType dtype, F f) {
  if (dtype == DType::kInt8) f(int8_t{});
  else f(uint8_t{});
}

// NaN gives `low`.
int32_t requantise(float v, const Requant& r) {
  const float rounded = std::nearbyint(v);
  const float low = static_cast<float>(r.low - r.zero), high = static_cast<float>(r.high - r.zero);
  return static_cast<int32_t>(!(rounded > low) ? low : rounded > high ? high : rounded) + r.zero;
}

// The zero point at position i of its channels; 0 without one.
int32_t zero_at(const TensorView& zero, int64_t i) {
  if (zero.data == nullptr) return 0;
  const int64_t at = zero.elements() == 1 ? 0 : i;
  switch (zero.dtype) {
    case DType::kInt8: return zero.as<int8_t>()[at];
    case DType::kUint8: return zero.as<uint8_t>()[at];
    default: return zero.as<int32_t>()[at];
  }
}

float scale_at(const TensorView& scale, int64_t i) { return scale.as<float>()[scale.elements() == 1 ? 0 : i]; }

// Calls segment(begin, end, scale, zero) for each run of elements with the same scale and zero point.
template <class Segment>
void for_each_scale(const TensorView& x, const TensorView& scale, const TensorView& zero, int64_t axis, Poll& poll,
                    Segment segment) {
  const bool uniform = scale.elements() == 1;
  const Split s = uniform ? Split{1, 1, x.elements()} : split_at(x.shape, axis);
  int64_t at = 0;
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t i = 0; i < s.length; ++i, at += s.inner) {
      for_each_segment(s.inner, poll, [&](int64_t begin, int64_t end) {
        segment(at + begin, at + end, scale_at(scale, i), zero_at(zero, i));
      });
    }
  }
}

// What becomes of sums: those of one row of the result, whose channel is `channel`, or counts up from there if `each`.
struct Finish {
  const TensorView &bias, &scale, &y;
  const Activation act;
  const Requant requant;
  const bool rounds_product;  // before a bias of floats is added

  float real(uint32_t sum, int64_t channel) const {
    const bool integer = bias.data != nullptr && bias.dtype == DType::kInt32;
    const uint32_t whole = integer ? static_cast<uint32_t>(bias.as<int32_t>()[channel]) : 0;
    return static_cast<float>(static_cast<int32_t>(sum + whole));
  }

  void row(const uint32_t* sums, int64_t count, int64_t at, int64_t channel, bool each) const {
    if (y.dtype == DType::kInt32) {
      for (int64_t i = 0; i < count; ++i) y.as<int32_t>()[at + i] = static_cast<int32_t>(sums[i]);
    } else if (y.dtype == DType::kFloat32) {
      const float* addend = bias.data != nullptr && bias.dtype == DType::kFloat32 ? bias.as<float>() : nullptr;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t c = channel + (each ? i : 0);
        const float sum = real(sums[i], c), factor = scale_at(scale, c);
        const float product = sum * factor;
        const float v = !addend ? product : rounds_product ? product + addend[c] : std::fma(sum, factor, addend[c]);
        y.as<float>()[at + i] = scalar_activation(v, act);
      }
    } else {
      with_byte(y.dtype, [&](auto type) {
        auto* to = y.as<decltype(type)>() + at;
        for (int64_t i = 0; i < count; ++i) {
          const int64_t c = channel + (each ? i : 0);
          to[i] = static_cast<decltype(type)>(requantise(real(sums[i], c) * scale_at(scale, c), requant));
        }
      });
    }
  }
};

// A product of (m, k) and (k, n) matrices, or (n, k) if transposed; the result begins at element `at`.
template <class A, class B>
void multiply(const A* a, const B* b, int32_t a_zero, const TensorView& b_zero, bool trans_b, int64_t m, int64_t k, int64_t n,
              const Finish& finish, int64_t at, Poll& poll) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t first = 0; first < n; first += kTile) {
      const int64_t count = std::min(kTile, n - first);
      poll.before(k * count);
      uint32_t sums[kTile] = {};
      int32_t zeros[kTile];
      for (int64_t j = 0; j < count; ++j) zeros[j] = zero_at(b_zero, first + j);
      if (trans_b) {
        for (int64_t j = 0; j < count; ++j) {
          const B* row = b + (first + j) * k;
          uint32_t sum = 0;
          for (int64_t p = 0; p < k; ++p) sum += static_cast<uint32_t>((a[i * k + p] - a_zero) * (row[p] - zeros[j]));
          sums[j] = sum;
        }
      } else {
        for (int64_t p = 0; p < k; ++p) {
          const int32_t factor = a[i * k + p] - a_zero;
          const B* row = b + p * n + first;
          for (int64_t j = 0; j < count; ++j) sums[j] += static_cast<uint32_t>(factor * (row[j] - zeros[j]));
        }
      }
      finish.row(sums, count, at + i * n + first, first, true);
    }
  }
}

template <class A, class B>
void qmatmul_of(const TensorView& a, const TensorView& b, const TensorView& a_zero, const TensorView& b_zero, bool trans_b,
                const Finish& finish, Poll& poll) {
  const TensorView& y = finish.y;
  const size_t rank = y.shape.size();
  const int64_t m = y.shape[rank - 2], n = y.shape[rank - 1], k = a.shape.back();
  for_each_product(a.shape, b.shape, y.shape, poll, [&](int64_t to, int64_t left, int64_t right) {
    multiply(a.as<A>() + left * m * k, b.as<B>() + right * k * n, zero_at(a_zero, 0), b_zero, trans_b, m, k, n, finish,
             to * m * n, poll);
  });
}

// f(X, W) for the element types of two tensors of bytes.
template <class F>
void with_bytes(DType x, DType w, F f) {
  with_byte(x, [&](auto first) { with_byte(w, [&](auto second) { f(first, second); }); });
}

}  // namespace

void quantize(const TensorView& x, const TensorView& scale, const TensorView& zero, int64_t axis, const TensorView& y,
              Poll poll) {
  with_byte(y.dtype, [&](auto type) {
    using T = decltype(type);
    Requant r{0, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
    for_each_scale(x, scale, zero, axis, poll, [&](int64_t begin, int64_t end, float factor, int32_t shift) {
      r.zero = shift;
      for (int64_t i = begin; i < end; ++i) {
        const float v = x.as<float>()[i] / factor;
        y.as<T>()[i] = static_cast<T>(v != v ? shift : requantise(v, r));
      }
    });
  });
}

void dequantize(const TensorView& x, const TensorView& scale, const TensorView& zero, int64_t axis, const TensorView& y,
                Poll poll) {
  const auto of = [&](auto type) {
    using T = decltype(type);
    for_each_scale(x, scale, zero, axis, poll, [&](int64_t begin, int64_t end, float factor, int32_t shift) {
      for (int64_t i = begin; i < end; ++i) {
        y.as<float>()[i] = static_cast<float>(int64_t{x.as<T>()[i]} - shift) * factor;
      }
    });
  };
  if (x.dtype == DType::kInt32) of(int32_t{});
  else with_byte(x.dtype, of);
}

void dynamic_quantize(const TensorView& x, const TensorView& y, const TensorView& scale, const TensorView& zero, Poll poll) {
  float low = 0, high = 0;
  const int64_t n = x.elements();
  for_each_segment(n, poll, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float v = x.as<float>()[i];
      if (v < low) low = v;
      if (v > high) high = v;
    }
  });
  // A tensor of zeros has no range: any scale serves.
  const float range = (high - low) / 255, step = range == 0 ? 1 : range;
  scale.as<float>()[0] = step;
  zero.as<uint8_t>()[0] = static_cast<uint8_t>(requantise((0 - low) / step, {0, 0, 255}));
  quantize(x, scale, zero, 0, y, poll);
}

void qconv(const QuantizedOperands& o, const Window& win, int64_t group, Activation act, const Requant& requant,
           const TensorView& y, Poll poll) {
  const Finish finish{o.bias, o.scale, y, act, requant, true};
  const auto begin = [](int64_t) { return uint32_t{0}; };
  const auto factors = [&](int64_t m) {
    return [zero = zero_at(o.w_zero, m)](int32_t weight) { return weight - zero; };
  };
  const auto add = [zero = zero_at(o.x_zero, 0)](uint32_t& sum, int32_t factor, int32_t v) {
    sum += static_cast<uint32_t>(factor * (v - zero));
  };
  const auto row = [&](const uint32_t* sums, int64_t count, int64_t at, int64_t m) {
    finish.row(sums, count, at, m, false);
  };
  with_bytes(o.x.dtype, o.w.dtype, [&](auto x, auto w) {
    convolve<decltype(x), decltype(w)>(o.x, o.w, y.shape, win, group, poll, begin, factors, add, row);
  });
}

void qmatmul(const QuantizedOperands& o, bool trans_b, Activation act, const Requant& requant, const TensorView& y, Poll poll) {
  const Finish finish{o.bias, o.scale, y, act, requant, false};
  with_bytes(o.x.dtype, o.w.dtype, [&](auto x, auto w) {
    qmatmul_of<decltype(x), decltype(w)>(o.x, o.w, o.x_zero, o.w_zero, trans_b, finish, poll);
  });
}

void qbinary(const TensorView& a, const TensorView& b, bool mul, const std::vector<Term>& terms, const Requant& requant,
             const TensorView& y, Poll poll) {
  const std::array<Ints, 3> strides{dense_strides(y.shape), broadcast_strides(a.shape, y.shape),
                                    broadcast_strides(b.shape, y.shape)};
  const auto [zero_a, factor_a] = terms[0];
  const auto [zero_b, factor_b] = terms[1];
  with_bytes(a.dtype, b.dtype, [&, zero_a = zero_a, factor_a = factor_a, zero_b = zero_b, factor_b = factor_b](auto p, auto q) {
    with_byte(y.dtype, [&](auto type) {
      using T = decltype(type);
      for_each_row<3>(y.shape, strides, poll, [&](const auto& at, int64_t length, const auto& steps) {
        T* to = y.as<T>() + at[0];
        const auto* left = a.as<decltype(p)>() + at[1];
        const auto* right = b.as<decltype(q)>() + at[2];
        for (int64_t i = 0; i < length; ++i) {
          const int32_t first = left[i * steps[1]] - zero_a, second = right[i * steps[2]] - zero_b;
          const float v = mul ? static_cast<float>(first * second) * factor_a
                              : std::fma(static_cast<float>(first), factor_a, static_cast<float>(second) * factor_b);
          to[i] = static_cast<T>(requantise(v, requant));
        }
      });
    });
  });
}

void qglobal_pool(const TensorView& x, const Term& term, const Requant& requant, const TensorView& y, Poll poll) {
  const int64_t planes = x.shape[0] * x.shape[1], size = product(x.shape, 2, x.shape.size());
  with_byte(x.dtype, [&](auto type) {
    const auto* from = x.as<decltype(type)>();
    for (int64_t p = 0; p < planes; ++p) {
      uint32_t sum = 0;
      for_each_segment(size, poll, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) sum += static_cast<uint32_t>(from[p * size + i] - term.zero);
      });
      const float v = static_cast<float>(static_cast<int32_t>(sum)) * term.factor;
      if (y.dtype == DType::kFloat32) y.as<float>()[p] = v;
      else if (y.dtype == DType::kInt8) y.as<int8_t>()[p] = static_cast<int8_t>(requantise(v, requant));
      else y.as<uint8_t>()[p] = static_cast<uint8_t>(requantise(v, requant));
    }
  });
}

void lookup(const TensorView& x, const TensorView& table, const TensorView& y, Poll poll) {
  const auto of = [&](auto type) {
    using T = decltype(type);
    for_each_segment(x.elements(), poll, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) y.as<T>()[i] = table.as<T>()[x.as<uint8_t>()[i]];
    });
  };
  if (y.dtype == DType::kFloat32) of(float{});
  else of(uint8_t{});
}

}  // namespace rskip::ops
