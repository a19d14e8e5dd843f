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
  } else {
    return a / b;
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

// b is a row of the same shape, or one vector for the whole row (kChannel), on either side of the operator.
template <BinaryKind kKind, bool kChannel, bool kReversed>
struct BinaryRow {
  const BlockedView& a;
  const BlockedView* b;
  const float* v;
  const BlockedView& y;
  Epilogue epilogue;
  void operator()(int block, int row) const {
    const float* left = row_of(a, block, row);
    const float* right = kChannel ? v + block * kLanes : row_of(*b, block, row);
    float* to = row_of(y, block, row);
    const int lanes = lanes_of(y, block);
    const Vec channel = load(right);
    for (int w = 0; w < y.width; ++w, left += kLanes, right += kLanes, to += kLanes) {
      const Vec p = load(left);
      const Vec q = kChannel ? channel : load(right);
      const Vec r = kReversed ? combine<kKind>(q, p) : combine<kKind>(p, q);
      store(to, keep_first(finish(r, epilogue), lanes));
    }
  }
};
template <bool kChannel, bool kReversed>
void binary_rows(BinaryKind kind, const BlockedView& a, const BlockedView* b, const float* v, const BlockedView& y,
                 Activation act, int part, int parts) {
  const Epilogue e = epilogue_of(act);
  switch (kind) {
    case BinaryKind::kAdd:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kAdd, kChannel, kReversed>{a, b, v, y, e});
    case BinaryKind::kSub:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kSub, kChannel, kReversed>{a, b, v, y, e});
    case BinaryKind::kMul:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kMul, kChannel, kReversed>{a, b, v, y, e});
    case BinaryKind::kDiv:
      return each_row(y, part, parts, BinaryRow<BinaryKind::kDiv, kChannel, kReversed>{a, b, v, y, e});
    default:
      return;
  }
}
inline void binary_blocked(BinaryKind kind, const BlockedView& a, const BlockedView& b, const BlockedView& y,
                           Activation act, int part, int parts) {
  binary_rows<false, false>(kind, a, &b, nullptr, y, act, part, parts);
}
inline void binary_channel(BinaryKind kind, const BlockedView& a, const float* v, bool reversed, const BlockedView& y,
                           Activation act, int part, int parts) {
  if (reversed) {
    binary_rows<true, true>(kind, a, nullptr, v, y, act, part, parts);
  } else {
    binary_rows<true, false>(kind, a, nullptr, v, y, act, part, parts);
  }
}

inline void unary_span(const float* x, float* y, size_t n, Activation act) {
  const Epilogue e = epilogue_of(act);
  for (; n >= kLanes; n -= kLanes, x += kLanes, y += kLanes) store(y, finish(load(x), e));
  if (n > 0) store_first(y, finish(load_first(x, static_cast<int>(n)), e), static_cast<int>(n));
}

template <BinaryKind kKind>
void binary_span_of(const float* a, const float* b, float* y, size_t n, const Epilogue& e) {
  for (; n >= kLanes; n -= kLanes, a += kLanes, b += kLanes, y += kLanes) {
    store(y, finish(combine<kKind>(load(a), load(b)), e));
  }
  const int rest = static_cast<int>(n);
  if (rest > 0) store_first(y, finish(combine<kKind>(load_first(a, rest), load_first(b, rest)), e), rest);
}
inline void binary_span(BinaryKind kind, const float* a, const float* b, float* y, size_t n, Activation act) {
  const Epilogue e = epilogue_of(act);
  switch (kind) {
    case BinaryKind::kAdd:
      return binary_span_of<BinaryKind::kAdd>(a, b, y, n, e);
    case BinaryKind::kSub:
      return binary_span_of<BinaryKind::kSub>(a, b, y, n, e);
    case BinaryKind::kMul:
      return binary_span_of<BinaryKind::kMul>(a, b, y, n, e);
    case BinaryKind::kDiv:
      return binary_span_of<BinaryKind::kDiv>(a, b, y, n, e);
    default:
      return;
  }
}

struct PlanarToBlockedRow {
  const PlanarView& x;
  const BlockedView& y;
  void operator()(int block, int row) const {
    const float* from = x.data + block * kLanes * x.plane_stride + row * x.row_stride;
    float* to = row_of(y, block, row);
    const int lanes = lanes_of(y, block);
    for (int w = 0; w < y.width; ++w, ++from, to += kLanes) {
      for (int c = 0; c < lanes; ++c) to[c] = from[c * x.plane_stride];
      for (int c = lanes; c < kLanes; ++c) to[c] = 0;
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
    for (int c = 0; c < lanes; ++c, ++from, to += y.plane_stride) {
      for (int w = 0; w < x.width; ++w) to[w] = from[w * kLanes];
    }
  }
};
inline void blocked_to_planar(const BlockedView& x, const PlanarView& y, int part, int parts) {
  each_row(x, part, parts, BlockedToPlanarRow{x, y});
}

}  // namespace rskip::RSKIP_ISA
