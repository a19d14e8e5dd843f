// The microkernel of convolution and matrix product: P pixels x N blocks of 16 output channels, summed in
// registers over all of k. Lanes are output channels, so every output element is one chain of fused
// multiply-adds in the order of k, and neither P nor N nor the instruction set can change its bits.
#pragma once

#include "simd/math-inl.h"

namespace rskip::RSKIP_ISA {

// How k runs through the input: three loops of n0 x n1 x n2 steps (strides in floats), innermost `inner`
// neighbouring floats. In the last of the n0 steps only `inner_last` of them count.
struct Walk {
  int n0 = 1, n1 = 1, n2 = 1;
  ptrdiff_t s0 = 0, s1 = 0, s2 = 0;
  int inner = 1, inner_last = 1;
  // If some weights are left out, how many times `inner` vectors: before and behind each of the n0, and behind each of the n1.
  bool leaves_out = false;
  int before = 0, behind = 0, between = 0;
};

// Floats between neighbouring pixels of a tile; known at compile time where it matters for addressing.
template <int kStride>
RSKIP_INLINE ptrdiff_t pixel_stride(ptrdiff_t runtime) {
  return kStride == 0 ? runtime : kStride;
}

RSKIP_INLINE Vec load_weights(const float* w) { return load(w); }
RSKIP_INLINE Vec load_weights(const uint16_t* w) { return load_bfloat16(w); }

// Weights that a tile prefetches while it reads its own. In a network most come from memory, and the processor's own prefetchers don't
// keep up with that, since they stop at every page. Weights are prefetched into the second-level cache alone: from there the processor's
// prefetchers do keep up, and the first level is small.

// The tile's own weights, some steps ahead.
struct FetchOwn {
  static constexpr ptrdiff_t kAhead = 64 * kLanes;
  ptrdiff_t ahead = kAhead;
  template <class W>
  const W* at(const W* w, ptrdiff_t w_block, int n) const {
    return w + n * w_block + ahead;
  }
};
// Weights at distances that are known at run time. A tile whose weights an earlier one has just read prefetches those of a later one: memory
// would otherwise be idle.
struct FetchAhead {
  ptrdiff_t first = 0, step = 0;
  template <class W>
  const W* at(const W* w, ptrdiff_t, int n) const {
    return w + first + n * step;
  }
};

template <int P, int N, int kStride, bool kHalf = false, class W, class Fetch>
RSKIP_INLINE void tile_step(Vec (&acc)[P][N], const float* x, ptrdiff_t stride, const W* w, ptrdiff_t w_block, Fetch fetch) {
  decltype(load_weights(w)) weight[N];
  RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
    weight[n] = load_weights(w + n * w_block);
    __builtin_prefetch(fetch.at(w, w_block, n), 0, 2);
  }
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    const float* const factor = x + p * pixel_stride<kStride>(stride);
    if constexpr (kHalf) add_half_products(acc[p], factor, weight);
    else if constexpr (requires { add_products(acc[p], factor, weight, p); }) add_products(acc[p], factor, weight, p);
    else add_products(acc[p], factor, weight);
  }
}

// The next float of pixels that lie closer together than a block of channels. Neighbouring steps read some of the same
// floats. The compiler keeps those in registers, which is fine beside `kSums` few enough; otherwise it runs out of
// registers over it, so it must not know.
template <int kSums>
RSKIP_INLINE const float* next_of_overlapping(const float* x) {
  ++x;
#if defined(__GNUC__)
  if constexpr (2 * kSums > kTilePixels * kTileBlocks) __asm__("" : "+r"(x));
#endif
  return x;
}

// acc += x * w. Weights, floats, bfloat16 or pairs of them, are read in sequence; those of output block n lie w_block of them after block n - 1.
template <int P, int N, int kStride, bool kHalf = false, class W, class Fetch>
RSKIP_INLINE void tile_sum(Vec (&acc)[P][N], const float* x, ptrdiff_t stride, const W* w, ptrdiff_t w_block, const Walk& walk,
                           Fetch fetch) {
  for (int i0 = 0; i0 < walk.n0; ++i0, x += walk.s0) {
    const int inner = i0 + 1 == walk.n0 ? walk.inner_last : walk.inner;
    const float* x1 = x;
    const ptrdiff_t step = static_cast<ptrdiff_t>(inner) * kLanes;
    if (walk.leaves_out) w += walk.before * step;
    for (int i1 = 0; i1 < walk.n1; ++i1, x1 += walk.s1) {
      const float* x2 = x1;
      for (int i2 = 0; i2 < walk.n2; ++i2, x2 += walk.s2) {
        const float* xi = x2;
        int i = inner;
        if constexpr (kStride != 0 && kStride < kLanes) {
          for (; i >= 3; i -= 3, w += 3 * kLanes) {
            tile_step<P, N, kStride, kHalf>(acc, xi, stride, w, w_block, FetchOwn());
            xi = next_of_overlapping<P * N>(xi);
            tile_step<P, N, kStride, kHalf>(acc, xi, stride, w + kLanes, w_block, FetchOwn());
            xi = next_of_overlapping<P * N>(xi);
            tile_step<P, N, kStride, kHalf>(acc, xi, stride, w + 2 * kLanes, w_block, FetchOwn());
            xi = next_of_overlapping<P * N>(xi);
          }
          for (; i > 0; --i, xi = next_of_overlapping<P * N>(xi), w += kLanes) {
            tile_step<P, N, kStride, kHalf>(acc, xi, stride, w, w_block, FetchOwn());
          }
          continue;
        }
        for (; i >= 4; i -= 4, xi += 4, w += 4 * kLanes) {
          tile_step<P, N, kStride, kHalf>(acc, xi, stride, w, w_block, fetch);
          tile_step<P, N, kStride, kHalf>(acc, xi + 1, stride, w + kLanes, w_block, fetch);
          tile_step<P, N, kStride, kHalf>(acc, xi + 2, stride, w + 2 * kLanes, w_block, fetch);
          tile_step<P, N, kStride, kHalf>(acc, xi + 3, stride, w + 3 * kLanes, w_block, fetch);
        }
        for (; i > 0; --i, ++xi, w += kLanes) tile_step<P, N, kStride, kHalf>(acc, xi, stride, w, w_block, fetch);
      }
      if (walk.leaves_out) w += walk.between * step;
    }
    if (walk.leaves_out) w += walk.behind * step;
  }
}

template <int P, int N>
RSKIP_INLINE void tile_bias(Vec (&acc)[P][N], const float* bias) {
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = load(bias + n * kLanes);
  }
}

// Where a tile of pixels goes: pixel p of block n is at y + n * y_block + 16 p.
template <class T>
struct TileTarget {
  T* y = nullptr;
  ptrdiff_t y_block = 0;
  const T* residual = nullptr;
  ptrdiff_t residual_block = 0;
};
// Of a matrix product, whose pixels are rows, they lie further apart.
struct TileOutput : TileTarget<float> {
  ptrdiff_t pixel = kLanes;
  bool pairs = false;  // y is a map of pairs
  bool alone = false;  // and this block of channels has none beside it
};

template <class T>
bool dense(const Blocked<T>& v) {
  return v.row_stride == static_cast<ptrdiff_t>(v.width) * kLanes;
}

// y = act(y) for pixels [first, end) of some blocks, counted over the rows; leaves lanes beyond the last channel zero.
[[gnu::noinline]] inline void activate_pixels(const BlockedView& y, int first_block, int blocks, int64_t first, int64_t end,
                                              const Activation& act) {
  for (int64_t count; first < end; first += count) {
    const int64_t row = dense(y) ? 0 : first / y.width, column = first - row * y.width;
    count = dense(y) ? end - first : std::min(end - first, y.width - column);
    for (int b = first_block; b < first_block + blocks; ++b) {
      float* const at = y.data + b * y.block_stride + row * y.row_stride + column * kLanes;
      const size_t length = static_cast<size_t>(count) * kLanes;
      RSKIP_BASE::unary_span(at, at, length, act);
      const int lanes = y.channels - b * kLanes;
      if (lanes >= kLanes) continue;
      for (size_t i = 0; i < length; i += kLanes) store(at + i, keep_first(load(at + i), lanes));
    }
  }
}
// Tiles leave an activation that is more than a clamp to be applied to so many pixels at a time: the first ones take as long as their
// latency.
inline constexpr int kActivatedPixels = 64;

// acc + residual, clamped if that is the activation. Takes a copy, or the compiler would read `out` again after every store.
template <int P, int N>
RSKIP_INLINE void tile_finish(Vec (&acc)[P][N], const TileOutput out, const Epilogue& epilogue) {
  if (const float* residual = out.residual; residual != nullptr) {
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p, residual += out.pixel) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = acc[p][n] + load(residual + n * out.residual_block);
    }
  }
  if (epilogue.clamps) {
    const Vec low = splat(epilogue.low), high = splat(epilogue.high);
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = min(high, max(low, acc[p][n]));
    }
  }
}
template <int P, int N>
RSKIP_INLINE void tile_store(Vec (&acc)[P][N], const TileOutput out, const Epilogue& epilogue) {
  tile_finish(acc, out, epilogue);
  float* y = out.y;
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p, y += out.pixel) {
    RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) store(y + n * out.y_block, acc[p][n]);
  }
}

// `count` things split into chunks of at most `most`, as evenly as possible.
struct Split {
  int chunks, base, extra;
  Split(int count, int most) : chunks((count + most - 1) / most), base(count / chunks), extra(count % chunks) {}
  int begin(int chunk) const { return chunk * base + (chunk < extra ? chunk : extra); }
  int size(int chunk) const { return base + (chunk < extra); }
};

// Whether `count` rows or tiles can be shared about evenly.
inline bool shares_evenly(int64_t count, int parts) { return count % parts == 0 || count >= 8 * parts; }

// fn(block, first row, end) for the part-th share of a map. Rows are shared where that is about even, because layers that
// follow each other then read what the same core has written; otherwise blocks and rows in one sequence.
template <class F>
void each_rows_of_share(int blocks, int rows, int part, int parts, const F& fn) {
  if (shares_evenly(rows, parts)) {
    const Share<int> share = share_of(rows, part, parts);
    for (int block = 0; block < blocks; ++block) fn(block, share.begin, share.end);
    return;
  }
  const Share<int64_t> share = share_of(static_cast<int64_t>(blocks) * rows, part, parts);
  for (int64_t unit = share.begin; unit < share.end;) {
    const int block = static_cast<int>(unit / rows), first = static_cast<int>(unit % rows);
    const int end = static_cast<int>(std::min<int64_t>(rows, first + share.end - unit));
    fn(block, first, end);
    unit += end - first;
  }
}
// The same with fn(block, row).
template <class F>
void each_row_of_share(int blocks, int rows, int part, int parts, const F& fn) {
  each_rows_of_share(blocks, rows, part, parts, [&](int block, int first, int end) {
    for (int row = first; row < end; ++row) fn(block, row);
  });
}

}  // namespace rskip::RSKIP_ISA
