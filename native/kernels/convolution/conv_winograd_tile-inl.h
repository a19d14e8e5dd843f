// The products of Winograd convolution: a matrix product of transformed inputs and weights for every point.
#pragma once

#include <array>
#include <utility>

#include "kernels/convolution/conv_winograd.h"
#include "kernels/matrix/tile-inl.h"

namespace rskip::RSKIP_ISA {

// Sums over the channels go in chains, which are added one after the other: the transforms cancel much of what they sum,
// so one long chain would lose bits that direct convolution keeps. With these lengths the largest error stays below
// twice that of direct convolution (docs/performance.md).
constexpr int winograd_chain(int channels) {
  return channels <= kLanes ? kLanes / 2 : channels <= 2 * kLanes ? kLanes : 2 * kLanes;
}

// P tiles x N output blocks of one point: product = sum over channels.
struct WinogradTile {
  const float* v;
  ptrdiff_t v_block;
  const float* w;
  ptrdiff_t w_block;
  int channels, chain;
  float* product;
  ptrdiff_t product_block;
};
using WinogradTileFn = void (*)(const WinogradTile&);

template <int P, int N>
[[gnu::noinline]] void winograd_tile(const WinogradTile& t) {
  Walk walk;
  walk.s0 = t.v_block;
  walk.inner = kLanes;
  for (int first = 0; first < t.channels; first += t.chain) {
    const int channels = std::min(t.chain, t.channels - first);
    walk.n0 = channel_blocks(channels);
    walk.inner_last = channels - (walk.n0 - 1) * kLanes;
    Vec acc[P][N];
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) acc[p][n] = splat(0.0f);
    }
    const float* v = t.v + first / kLanes * t.v_block + first % kLanes;
    tile_sum<P, N, kLanes>(acc, v, kLanes, t.w + static_cast<ptrdiff_t>(first) * kLanes, t.w_block, walk,
                             FetchOwn());
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      RSKIP_UNROLL(16) for (int n = 0; n < N; ++n) {
        float* product = t.product + n * t.product_block + p * kLanes;
        store(product, first == 0 ? acc[p][n] : load(product) + acc[p][n]);
      }
    }
  }
}

// Adds one channel's products.
template <int P>
RSKIP_INLINE void winograd_step(Vec (&acc)[P][1], const WinogradTile& t, int channel) {
  const Vec weight[] = {load(t.w + channel * kLanes)};
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) add_products(acc[p], t.v + channel + p * kLanes, weight);
}

// The same for 16 channels and one block, unrolled. The two chains go side by side where there are registers for both.
template <int P>
[[gnu::noinline]] void winograd_tile_16(const WinogradTile& t) {
  constexpr int kChain = winograd_chain(kLanes);
  constexpr bool kSideBySide = 2 * P <= kTilePixels * kTileBlocks;
  Vec acc[P][1], rest[P][1];
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = splat(0.0f);
  if constexpr (kSideBySide) {
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) rest[p][0] = splat(0.0f);
    RSKIP_UNROLL(8) for (int i = 0; i < kChain; ++i) {
      winograd_step<P>(acc, t, i);
      winograd_step<P>(rest, t, kChain + i);
    }
  } else {
    RSKIP_UNROLL(8) for (int i = 0; i < kChain; ++i) winograd_step<P>(acc, t, i);
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
      store(t.product + p * kLanes, acc[p][0]);
      rest[p][0] = splat(0.0f);
    }
    RSKIP_UNROLL(8) for (int i = 0; i < kChain; ++i) winograd_step<P>(rest, t, kChain + i);
    RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = load(t.product + p * kLanes);
  }
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) store(t.product + p * kLanes, acc[p][0] + rest[p][0]);
}

// Two whole chains of 16 or 32 channels side by side, and one block.
template <int P>
[[gnu::noinline]] void winograd_tile_two_chains(const WinogradTile& t) {
  Vec acc[P][1], rest[P][1];
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) acc[p][0] = rest[p][0] = splat(0.0f);
  const float* v = t.v;
  const float* w = t.w;
  const ptrdiff_t v_rest = t.chain / kLanes * t.v_block;
  const ptrdiff_t w_rest = static_cast<ptrdiff_t>(t.chain) * kLanes;
  for (int blocks = t.chain / kLanes; blocks > 0; --blocks, v += t.v_block) {
    for (int i = 0; i < kLanes; i += 4) {
      RSKIP_UNROLL(4) for (int channel = i; channel < i + 4; ++channel, w += kLanes) {
        tile_step<P, 1, kLanes>(acc, v + channel, kLanes, w, 0, FetchOwn());
        tile_step<P, 1, kLanes>(rest, v + v_rest + channel, kLanes, w + w_rest, 0, FetchOwn());
      }
    }
  }
  RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) store(t.product + p * kLanes, acc[p][0] + rest[p][0]);
}
template <int... P>
constexpr auto winograd_row_two_chains(std::integer_sequence<int, P...>) {
  return std::array<WinogradTileFn, sizeof...(P)>{winograd_tile_two_chains<P + 1>...};
}
// For instruction sets with registers for both chains, where a product broadcasts from memory in any case. A register serves two blocks.
#ifdef RSKIP_BROADCAST_FROM_MEMORY
inline constexpr bool kWinogradTwoChains = true;
#else
inline constexpr bool kWinogradTwoChains = false;
#endif
inline constexpr auto kWinogradTilesTwoChains =
    winograd_row_two_chains(std::make_integer_sequence<int, kWinogradTwoChains ? kTilePixels : 1>());

template <int... P>
constexpr auto winograd_row_16(std::integer_sequence<int, P...>) {
  return std::array<WinogradTileFn, sizeof...(P)>{winograd_tile_16<P + 1>...};
}
inline constexpr auto kWinogradTiles16 = winograd_row_16(std::make_integer_sequence<int, kTilePixels>());

struct WinogradRow {
  WinogradTileFn fn[kTilePixels];
};
template <int N, int... P>
constexpr WinogradRow winograd_row(std::integer_sequence<int, P...>) {
  return {{winograd_tile<P + 1, N>...}};
}
inline constexpr WinogradRow kWinogradTiles[] = {
    winograd_row<1>(std::make_integer_sequence<int, kTilePixels>()),
#if RSKIP_TILE_BLOCKS >= 2
    winograd_row<2>(std::make_integer_sequence<int, kTilePixels>()),
#endif
};

}  // namespace rskip::RSKIP_ISA
