// Tiles of products of bfloat16 whose sums have the order of AMX, for machines without it: they are small rather than fast.
#pragma once

#include "kernels/bfloat16/kernels16-inl.h"

namespace rskip::RSKIP_ISA {

template <int P>
[[gnu::noinline]] void conv_tile16_apart(const ConvTile& t) {
  Vec acc[P][1];
  tile_bias(acc, t.bias);
  const uint32_t mode = begin_sums(acc);
  const Walk& walk = *t.walk;
  const Pair* w = reinterpret_cast<const Pair*>(t.w);
  for (int i0 = 0; i0 < walk.n0; ++i0) {
    const int inner = i0 + 1 == walk.n0 ? walk.inner_last : walk.inner;
    for (int i1 = 0; i1 < walk.n1; ++i1) {
      for (int i2 = 0; i2 < walk.n2; ++i2) {
        const float* x = t.x + i0 * walk.s0 + i1 * walk.s1 + i2 * walk.s2;
        Vec first[P][1], second[P][1];
        RSKIP_UNROLL(4) for (int p = 0; p < P; ++p) first[p][0] = second[p][0] = splat(0);
        for (int i = 0; i < inner; ++i, ++x, w += kLanes) {
          const Pairs factor[] = {load_weights(w)};
          RSKIP_UNROLL(4) for (int p = 0; p < P; ++p) add_products_apart(first[p], second[p], x + p * t.stride, factor);
        }
        RSKIP_UNROLL(4) for (int p = 0; p < P; ++p) {
          acc[p][0] = add_flushed(acc[p][0], add_flushed(first[p][0], second[p][0]));
        }
      }
    }
  }
  end_sums(acc, mode);
  tile_store(acc, t.out, *t.epilogue);
}

// One block of output channels after the other.
struct TileApart {
  int blocks, pixels;
  void operator()(const ConvTile& tile) const {
    ConvTile t = tile;
    alignas(64) float own[2 * kLanes];
    for (int n = 0; n < blocks; ++n) {
      if (tile.out.pairs) t.out.y = own;
      pixels == 2 ? conv_tile16_apart<2>(t) : conv_tile16_apart<1>(t);
      for (int p = 0; tile.out.pairs && p < pixels; ++p) {
        float* const y = tile.out.y + n * tile.out.y_block + p * kLanes;
        store_first(y, to_pairs(load(own + p * kLanes), splat(0)), tile.out.alone ? kLanes : kLanes / kPair);
      }
      t.w += t.w_block;
      t.bias += kLanes;
      t.out.y += t.out.y_block;
      if (t.out.residual != nullptr) t.out.residual += t.out.residual_block;
    }
  }
};
struct TilesApart {
  int blocks;
  TileApart operator[](int last) const { return {blocks, last + 1}; }
};
struct Tiles16Apart : RegisterTiles16<Tiles16Apart> {
  static constexpr Precision kPrecision = Precision::kBfloat16Amx;
  static constexpr int kPixels = 2;
  static constexpr int pixels(ptrdiff_t) { return kPixels; }
  static TilesApart tiles(int n, int) { return {n}; }
  static float* output_block(const ConvArgs& args, int b, TileOutput& to) {
    to.pairs = args.y_pairs;
    to.alone = b % kPair == 0 && b + 1 == channel_blocks(args.conv->shape.out_channels);
    if (to.pairs) to.y_block = kLanes / kPair;
    return RSKIP_ISA::output_block(args, b);
  }
  static void interleave(Vec (&v)[kStemChannels]) {
    alignas(64) float apart[kStemChannels][kLanes], together[kLanes * kStemChannels];
    for (int c = 0; c < kStemChannels; ++c) store(apart[c], v[c]);
    for (int i = 0; i < kLanes; ++i) {
      for (int c = 0; c < kStemChannels; ++c) std::memcpy(&together[i * kStemChannels + c], &apart[c][i], sizeof(float));
    }
    for (int c = 0; c < kStemChannels; ++c) v[c] = load(together + c * kLanes);
  }
};

}  // namespace rskip::RSKIP_ISA
