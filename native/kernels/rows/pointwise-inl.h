// Elementwise kernels and layout changes.
#pragma once

#include "kernels/table.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

template <BinaryKind kKind>
RSKIP_INLINE Vec combine(Vec a, Vec b) {
  if constexpr (kKind == BinaryKind::kAdd) {
    return a + b;
  } else if constexpr (kKind == BinaryKind::kSub) {
    return a - b;
  } else if constexpr (kKind == BinaryKind::kMul) {
    return a * b;
  } else if constexpr (kKind == BinaryKind::kDiv) {
    return a / b;
  } else {
    // a where they are equal. A NaN is kept: of min and max here one in a, by themselves.
    return select(is_nan(b), b, kKind == BinaryKind::kMin ? min(b, a) : max(b, a));
  }
}

template <class F>
void each_row(const BlockedView& y, int part, int parts, const F& fn) {
  each_row_of_share(y.blocks(), y.height, part, parts, fn);
}
inline float* row_of(const BlockedView& v, int block, int row) {
  return v.data + block * v.block_stride + row * v.row_stride;
}
inline int lanes_of(const BlockedView& v, int block) { return std::min(kLanes, v.channels - block * kLanes); }

struct AffineRow {
  const BlockedView &x, &y;
  const float *scale, *shift;
  Epilogue epilogue;
  void operator()(int block, int row) const {
    const float* from = row_of(x, block, row);
    float* to = row_of(y, block, row);
    const Vec a = load(scale + block * kLanes);
    const Vec b = load(shift + block * kLanes);
    const int lanes = lanes_of(y, block);
    for (int w = 0; w < y.width; ++w, from += kLanes, to += kLanes) {
      store(to, keep_first(finish(fma(load(from), a, b), epilogue), lanes));
    }
  }
};
inline void affine_blocked(const BlockedView& x, const float* scale, const float* shift, const BlockedView& y,
                           Activation act, int part, int parts) {
  each_row(y, part, parts, AffineRow{x, y, scale, shift, epilogue_of(act)});
}

struct UnaryRow {
  const BlockedView &x, &y;
  Epilogue epilogue;
  void operator()(int block, int row) const {
    const float* from = row_of(x, block, row);
    float* to = row_of(y, block, row);
    const int lanes = lanes_of(y, block);
    for (int w = 0; w < y.width; ++w, from += kLanes, to += kLanes) {
      store(to, keep_first(finish(load(from), epilogue), lanes));
    }
  }
};
inline void unary_blocked(const BlockedView& x, const BlockedView& y, Activation act, int part, int parts) {
  each_row(y, part, parts, UnaryRow{x, y, epilogue_of(act)});
}

// One side of the operator: rows of the same shape, or one vector for every row of a block.
struct Operand {
  const BlockedView* rows;
  const float* channels;
};
template <BinaryKind kKind, bool kReversed>
struct BinaryRow {
  const BlockedView& a;
  Operand b;
  const BlockedView& y;
  Epilogue epilogue;
  void operator()(int block, int row) const {
    const float* left = row_of(a, block, row);
    const float* right = b.rows ? row_of(*b.rows, block, row) : b.channels + block * kLanes;
    const int step = b.rows ? kLanes : 0;
    float* to = row_of(y, block, row);
    const int lanes = lanes_of(y, block);
    for (int w = 0; w < y.width; ++w, left += kLanes, right += step, to += kLanes) {
      const Vec p = load(left), q = load(right);
      const Vec r = kReversed ? combine<kKind>(q, p) : combine<kKind>(p, q);
      store(to, keep_first(finish(r, epilogue), lanes));
    }
  }
};
template <bool kReversed>
void binary_rows(BinaryKind kind, const BlockedView& a, Operand b, const BlockedView& y, Activation act, int part, int parts) {
  const Epilogue e = epilogue_of(act);
  switch (kind) {
    case BinaryKind::kAdd:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kAdd, kReversed>{a, b, y, e});
    case BinaryKind::kSub:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kSub, kReversed>{a, b, y, e});
    case BinaryKind::kMul:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kMul, kReversed>{a, b, y, e});
    case BinaryKind::kDiv:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kDiv, kReversed>{a, b, y, e});
    case BinaryKind::kMin:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kMin, kReversed>{a, b, y, e});
    case BinaryKind::kMax:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kMax, kReversed>{a, b, y, e});
    default:
      return;
  }
}
inline void binary_blocked(BinaryKind kind, const BlockedView& a, const BlockedView& b, const BlockedView& y,
                           Activation act, int part, int parts) {
  binary_rows<false>(kind, a, {&b, nullptr}, y, act, part, parts);
}
inline void binary_channel(BinaryKind kind, const BlockedView& a, const float* v, bool reversed, const BlockedView& y,
                           Activation act, int part, int parts) {
  const Operand b{nullptr, v};
  reversed ? binary_rows<true>(kind, a, b, y, act, part, parts) : binary_rows<false>(kind, a, b, y, act, part, parts);
}

void unary_span(const float* x, float* y, size_t n, Activation act) {
  const size_t whole = n / kLanes * kLanes;
  const auto map = [&](const auto& function) __attribute__((always_inline)) {
    for (size_t i = 0; i < whole; i += kLanes) store(y + i, function(load(x + i)));
  };
  // The usual ones behind convolutions and matrix products apart: their constants then stay in registers.
  switch (act.kind) {
    case ActivationKind::kSilu:
      map([](Vec v) __attribute__((always_inline)) { return silu(v); });
      break;
    case ActivationKind::kGelu:
      map([](Vec v) __attribute__((always_inline)) { return gelu(v); });
      break;
    case ActivationKind::kHardSwish:
      map([](Vec v) __attribute__((always_inline)) { return hard_swish(v); });
      break;
    default:
      map([e = epilogue_of(act)](Vec v) __attribute__((always_inline)) { return finish(v, e); });
  }
  if (const int rest = static_cast<int>(n - whole); rest > 0) {
    store_first(y + whole, finish(load_first(x + whole, rest), epilogue_of(act)), rest);
  }
}

inline void unify_nans(float* x, size_t n) {
  const auto unified = [](Vec v) { return select(is_nan(v), splat(std::numeric_limits<float>::quiet_NaN()), v); };
  for (; n >= kLanes; n -= kLanes, x += kLanes) store(x, unified(load(x)));
  if (n > 0) store_first(x, unified(load_first(x, static_cast<int>(n))), static_cast<int>(n));
}

inline void affine_span(const float* x, const float* scale, const float* shift, int step, float* y, size_t n,
                        Activation act) {
  if (n == 0) return;
  const Epilogue e = epilogue_of(act);
  Vec a = splat(*scale), b = splat(*shift);
  for (; n >= kLanes; n -= kLanes, x += kLanes, y += kLanes) {
    if (step == 1) {
      a = load(scale);
      b = load(shift);
      scale += kLanes;
      shift += kLanes;
    }
    store(y, finish(fma(load(x), a, b), e));
  }
  const int rest = static_cast<int>(n);
  if (rest == 0) return;
  if (step == 1) {
    a = load_first(scale, rest);
    b = load_first(shift, rest);
  }
  store_first(y, finish(fma(load_first(x, rest), a, b), e), rest);
}

template <BinaryKind kKind, bool kWideA, bool kWideB>
void binary_span_of(const float* a, const float* b, float* y, size_t n, const Epilogue& e) {
  const Vec one_a = splat(*a), one_b = splat(*b);
  for (; n >= kLanes; n -= kLanes, y += kLanes) {
    store(y, finish(combine<kKind>(kWideA ? load(a) : one_a, kWideB ? load(b) : one_b), e));
    if (kWideA) a += kLanes;
    if (kWideB) b += kLanes;
  }
  const int rest = static_cast<int>(n);
  if (rest == 0) return;
  const Vec p = kWideA ? load_first(a, rest) : one_a, q = kWideB ? load_first(b, rest) : one_b;
  store_first(y, finish(combine<kKind>(p, q), e), rest);
}
template <BinaryKind kKind>
void binary_span_of(const float* a, int a_step, const float* b, int b_step, float* y, size_t n, const Epilogue& e) {
  if (n == 0) return;
  if (a_step == 0) return binary_span_of<kKind, false, true>(a, b, y, n, e);
  if (b_step == 0) return binary_span_of<kKind, true, false>(a, b, y, n, e);
  binary_span_of<kKind, true, true>(a, b, y, n, e);
}
inline void binary_span(BinaryKind kind, const float* a, int a_step, const float* b, int b_step, float* y, size_t n,
                        Activation act) {
  const Epilogue e = epilogue_of(act);
  switch (kind) {
    case BinaryKind::kAdd:
      return binary_span_of<BinaryKind::kAdd>(a, a_step, b, b_step, y, n, e);
    case BinaryKind::kSub:
      return binary_span_of<BinaryKind::kSub>(a, a_step, b, b_step, y, n, e);
    case BinaryKind::kMul:
      return binary_span_of<BinaryKind::kMul>(a, a_step, b, b_step, y, n, e);
    case BinaryKind::kDiv:
      return binary_span_of<BinaryKind::kDiv>(a, a_step, b, b_step, y, n, e);
    case BinaryKind::kMin:
      return binary_span_of<BinaryKind::kMin>(a, a_step, b, b_step, y, n, e);
    case BinaryKind::kMax:
      return binary_span_of<BinaryKind::kMax>(a, a_step, b, b_step, y, n, e);
    default:
      return;
  }
}

// 16 channels of a row at a time, or what is left of either.
struct PlanarToBlockedRow {
  const PlanarView& x;
  const BlockedView& y;
  void operator()(int block, int row) const {
    const float* from = x.data + block * kLanes * x.plane_stride + row * x.row_stride;
    float* to = row_of(y, block, row);
    const int lanes = lanes_of(y, block);
    for (int w = 0; w < y.width; w += kLanes) {
      const int pixels = std::min(kLanes, y.width - w);
      Vec v[kLanes];
      for (int c = 0; c < kLanes; ++c) {
        const float* channel = from + c * x.plane_stride + w;
        if (c >= lanes) v[c] = splat(0);
        else v[c] = pixels == kLanes ? load(channel) : load_first(channel, pixels);
      }
      transpose(v);
      for (int p = 0; p < pixels; ++p) store(to + (w + p) * kLanes, v[p]);
    }
  }
};
inline void planar_to_blocked(const PlanarView& x, const BlockedView& y, int part, int parts) {
  each_row(y, part, parts, PlanarToBlockedRow{x, y});
}

struct BlockedToPlanarRow {
  const BlockedView& x;
  const PlanarView& y;
  void operator()(int block, int row) const {
    const float* from = row_of(x, block, row);
    float* to = y.data + block * kLanes * y.plane_stride + row * y.row_stride;
    const int lanes = lanes_of(x, block);
    for (int w = 0; w < x.width; w += kLanes) {
      const int pixels = std::min(kLanes, x.width - w);
      Vec v[kLanes];
      for (int p = 0; p < kLanes; ++p) v[p] = p < pixels ? load(from + (w + p) * kLanes) : splat(0);
      transpose(v);
      for (int c = 0; c < lanes; ++c) {
        if (pixels == kLanes) store(to + c * y.plane_stride + w, v[c]);
        else store_first(to + c * y.plane_stride + w, v[c], pixels);
      }
    }
  }
};
inline void blocked_to_planar(const BlockedView& x, const PlanarView& y, int part, int parts) {
  each_row(x, part, parts, BlockedToPlanarRow{x, y});
}

}  // namespace rskip::RSKIP_ISA
