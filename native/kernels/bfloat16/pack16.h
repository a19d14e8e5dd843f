// Products of bfloat16 with sums of floats. Two neighbours along k are a pair, 32 bits with the first in the lower half, and
// lie where one float would; a step of k multiplies and adds a pair:
//   sum = fma(x.second, w.second, sum); sum = fma(x.first, w.first, sum)
// Operands and results that are denormal count as zeros of their sign, whichever instruction set computes them: that is what
// VDPBF16PS does (Intel SDM, volume 2), which rounds to nearest and finds a result denormal after rounding it.
// In the order of AMX (TDPBF16PS, there), a block of up to 16 pairs has two sums of its own, which begin as 0:
//   odd = fma(x.second, w.second, odd) and even = fma(x.first, w.first, even) for each pair; then sum = sum + (even + odd)
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/matrix/pack.h"

namespace rskip {

inline constexpr int kPair = 2;
// Channels in one block of pairs.
inline constexpr int kPairLanes = kPair * kLanes;
constexpr int pair_blocks(int channels) { return (channels + kPairLanes - 1) / kPairLanes; }
// Pairs along k that weights are packed for. With AMX, all blocks have 16 if there are several, as all products of matrices then have one
// shape; factors beyond k are 0.
constexpr int packed_pairs(int k, Precision precision) {
  const int pairs = (k + 1) / kPair;
  return precision == Precision::kBfloat16Amx && pairs > kLanes ? pair_blocks(k) * kLanes : pairs;
}

// Rounds to nearest, ties to even; denormals become zeros, NaNs stay NaNs.
constexpr uint32_t round_to_bfloat16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x), magnitude = u & 0x7fffffff;
  if (magnitude < 0x00800000) return (u >> 16) & 0x8000;
  if (magnitude > 0x7f800000) return (u >> 16) | 0x40;
  return (u + 0x7fff + ((u >> 16) & 1)) >> 16;
}
constexpr float pair_of(float first, float second) {
  return std::bit_cast<float>(round_to_bfloat16(first) | round_to_bfloat16(second) << 16);
}

// A map of pairs was rounded when it was stored, with 32 channels of a pixel side by side. It is a blocked map of floats, each of which stands
// for a pair, with this many channels.
constexpr int channels_of_pairs(int channels) { return pair_blocks(channels) * kLanes; }

// A row of a planar window as few products of matrices, all of one size: [pair of columns][channel of four], where those that the input
// doesn't have are zeros.
inline constexpr int kStemChannels = 4;
struct StemRow {
  int products, steps;  // of so many pairs each
  explicit StemRow(int kernel_w);
};

// The input of some rows of a convolution's output, as pairs: [block of pairs][row][column][16]. It has only the pixels that
// windows read, so that a 1x1 convolution's are neighbours whatever its stride. For kPlanarBfloat16 [channel][row][pair of columns], for
// kPlanarBfloat16Amx [row][pair of columns][channel of four].
struct PairWindow {
  int step_h = 1, step_w = 1;      // between pixels of the input that are held
  int stride_h = 1, stride_w = 1;  // between windows, in pixels that are held, or in pairs of columns
  int taps_h = 1;                  // rows that one window covers
  int width = 0, blocks = 0;       // pixels and blocks, or pairs of columns, rounded up to whole vectors, and channels
  int64_t row_floats = 0;

  PairWindow(const ConvShape& shape, ConvAlgorithm algorithm);
  int rows(int output_rows) const { return (output_rows - 1) * stride_h + taps_h; }
  int64_t floats(int output_rows) const { return rows(output_rows) * row_floats * blocks; }
  // Output rows at a time, of so many: a second-level cache holds their window, and weights beside it.
  int band(int output_rows) const;
};

// Rows of a matrix with k columns that are pairs at a time, of m.
int gemm16_rows(int k, int m);
// Scratch of one worker, in bytes, 64-byte aligned.
size_t gemm16_scratch_bytes(int k, int m);
// Queries whose scores exist at a time in the order of AMX, the rows of a tile; kQueryRows in other bfloat16.
inline constexpr int kQueryRows16 = 32;
int64_t attention16_scratch_bytes(const AttentionShape& shape);

}  // namespace rskip
