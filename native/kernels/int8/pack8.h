// Weights of 8 bits in the order in which the kernels read them. The same bytes serve every instruction set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/matrix/pack.h"
#include "kernels/int8/table8.h"

namespace rskip {

// Weights of 8 bits. Sums are of the unsigned numbers in the input, so that the zero point's share is in the bias.
struct PackedConv8 {
  ConvShape shape;
  ConvAlgorithm algorithm = ConvAlgorithm::kDirect;
  // Groups of four numbers of the input that lie side by side, or of rows for kDepthwise; what a group lacks has weight 0.
  // kDirect:    per output block [kh][kw][input block][group of four channels of the block][16][4]
  // kPlanar:    per output block [input channel][kh][group of four columns][16][4]; with a dilation, groups have one column
  // kWinograd4: per output block [point][pair of channels][16][2] numbers of 16 bits (WinogradConv8)
  // kDepthwise: per block [group of four kh][kw][16][4]; the rows of the second part follow those of the first
  Aligned<int8_t> weights;
  int input_zero = 0;  // of the input, and so of its halo
  // Number of 8-bit summands of a weight: less its zero point, it may need more than 8 bits.
  int parts = 1;
  // Whole blocks: the first number of each sum; then all of them again, for products of inputs less 128.
  Aligned<int32_t> bias;
  AlignedFloats scale;  // whole blocks
  std::vector<ConvBlock> blocks;
};

// How convolutions without groups are products of matrices: output rows in bands, for which the input is copied as pixels of all
// channels. With a stride, every stride_h-th row and stride_w-th column make an image of their own, so that what a tap reads of
// neighbouring pixels lies side by side; rows of an image follow each other, and what is between them is computed in vain.
// Of planar input, whole windows are copied: then there is one tap, and a pixel is a window.
struct MatrixConv8 {
  int taps = 1, products = 1, steps = 1;  // products under a tap, and the steps of k that each sums
  ptrdiff_t pixel = 0;          // bytes from pixel to pixel
  ptrdiff_t tap_bytes = 0;      // weights of a tap
  int images_h = 1, images_w = 1;
  ptrdiff_t image = 0;  // pixels of an image
  int pitch = 1;        // pixels of a row of it
  int band = 1;         // most output rows at once
  // What a worker needs: the pixels, then `offsets` places in the result and in the residual, and one of each tap.
  size_t packed_bytes = 0, offsets = 0, scratch_bytes = 0;
  explicit MatrixConv8(const PackedConv8& conv);
};

// Whether a convolution gains by it: sums of few numbers take longer to store and load than to compute.
bool matrices_suit(const PackedConv8& conv);

// Winograd's F(4x4, 3x3) with the points 0, 1, -1, 2, -2 and infinity, in integers. Transformed inputs are below 100 * 128 in
// magnitude. Rows of the weights' transform G are scaled to integers, by 24 or, the last one, by 12, so that transformed weights
// are below 144 * 129. Then 576 times each sum is computed modulo 2^32, which gives the sum modulo 2^26: all of it
// where no sum of products can reach 2^25 (winograd8_is_exact()).
struct WinogradConv8 {
  static constexpr int kPoints = 36;
  static constexpr int32_t kInverse = 954437177;  // 9 * kInverse = 1 modulo 2^32
  int tile_rows = 0, tile_columns = 0;
  int chunk = 0;  // tiles that are transformed and multiplied together, a multiple of four
  ptrdiff_t v_point = 0, product_point = 0;  // numbers from point to point
  size_t transformed_bytes = 0, scratch_bytes = 0;
  explicit WinogradConv8(const ConvShape& shape);
  int tiles() const { return tile_rows * tile_columns; }
  static constexpr int padded(int tiles) { return (tiles + 3) / 4 * 4; }
};

// For each point, the products of some transformed tiles, a multiple of four, with one block of weights or two, which lie `block` apart.
struct WinogradProducts8 {
  const int16_t *v = nullptr, *weights = nullptr;
  int32_t* product = nullptr;
  int tiles = 0, in_blocks = 0, blocks = 0;
  ptrdiff_t v_point = 0, v_block = 0, weight_point = 0, weight_block = 0, product_point = 0, product_block = 0;
};
using WinogradProductsFn8 = void (*)(const WinogradProducts8&);

// Whether kDepthwise takes four pixels at a time.
bool depthwise_by_lines8(const ConvShape& shape);

// As PackedConv8.
struct PackedGemm8 {
  int k = 0, n = 0;
  Aligned<int8_t> weights;  // [ceil(n / 16)][ceil(k / 4)][16][4]
  Aligned<int32_t> bias;
  AlignedFloats scale;
  // Whole blocks: what one of the input's zero point takes from each sum.
  Aligned<int32_t> columns;
  Aligned<int32_t> weight_zero;  // whole blocks; empty where all are 0
  int blocks() const { return channel_blocks(n); }
  int steps() const { return (k + 3) / 4; }
};

// Sums wrap, like those of the kernels.
inline int32_t sum_of(const int8_t* weight, size_t count, size_t stride) {
  uint32_t sum = 0;
  size_t i = 0;
  // Eight side by side, plus 128: as unsigned numbers in four sums of 16 bits, which hold 128 pairs.
  constexpr uint64_t kEvery = 0x0001000100010001, kByte = 0xff * kEvery;
  while (stride == 1 && count - i >= 8) {
    const size_t end = i + std::min<size_t>((count - i) / 8, 128) * 8;
    sum -= static_cast<uint32_t>(128 * (end - i));
    uint64_t sums = 0;
    for (; i < end; i += 8) {
      uint64_t eight;
      std::memcpy(&eight, weight + i, sizeof eight);
      eight ^= 0x80 * (kEvery | kEvery << 8);
      sums += (eight & kByte) + (eight >> 8 & kByte);
    }
    for (; sums != 0; sums >>= 16) sum += static_cast<uint32_t>(sums & 0xffff);
  }
  for (; i < count; ++i) sum += static_cast<uint32_t>(weight[i * stride]);
  return static_cast<int32_t>(sum);
}
// What sums of the unsigned numbers begin with: bias - zero * (sum of the channel's weights, less their zero points), and behind
// all of them the same for numbers less 128. `bias` may be null.
template <class SumOfWeights, class SumOfZeros>
Aligned<int32_t> packed_bias8(int channels, const int32_t* bias, int zero, const SumOfWeights& sum_of_weights,
                              const SumOfZeros& sum_of_zeros) {
  const int padded = whole_blocks(channels);
  Aligned<int32_t> out(2 * static_cast<size_t>(padded));
  out.zero();
  for (int m = 0; m < channels; ++m) {
    const uint32_t sum = static_cast<uint32_t>(sum_of_weights(m)), start = bias == nullptr ? 0 : bias[m];
    const uint32_t own = start - static_cast<uint32_t>(zero) * (sum - static_cast<uint32_t>(sum_of_zeros(m)));
    out.data()[m] = static_cast<int32_t>(own);
    out.data()[padded + m] = static_cast<int32_t>(own + 128 * sum);
  }
  return out;
}
// One for each channel, from as many or from one; zeros from none.
inline AlignedFloats packed_scale8(int channels, const float* scale, int scales) {
  AlignedFloats out(static_cast<size_t>(whole_blocks(channels)));
  out.zero();
  for (int m = 0; m < channels && scale != nullptr; ++m) out.data()[m] = scale[scales == 1 ? 0 : m];
  return out;
}

}  // namespace rskip
