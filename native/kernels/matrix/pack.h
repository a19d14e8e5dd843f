// Weights in the order in which the kernels read them. The same bytes serve every instruction set.
#pragma once

#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kernels/table.h"

namespace rskip {

// Bytes on a 64-byte boundary, not initialised; in huge pages where the system has them.
std::shared_ptr<void> aligned_bytes(size_t bytes);

// Numbers in such bytes. Copies share them.
template <class T>
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(size_t size) : data_(std::static_pointer_cast<T>(aligned_bytes(size * sizeof(T)))), size_(size) {}
  void zero() { zero_from(0); }
  void zero_from(size_t first) { std::memset(data_.get() + first, 0, (size_ - first) * sizeof(T)); }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }

 private:
  std::shared_ptr<T> data_;
  size_t size_ = 0;
};
using AlignedFloats = Aligned<float>;

// Of whole blocks; zeros beyond the last channel, and for null.
AlignedFloats padded_bias(int channels, const float* bias);

// What one block of 16 output channels reads. With groups that is the covering range of input channels;
// weights between channels of different groups are packed as zeros.
struct ConvBlock {
  int first_block = 0;    // of the input
  int blocks = 0;         // input blocks read
  int last_channels = 0;  // real channels of the last of them: the rest is not multiplied
  size_t offset = 0;      // of its weights, in floats
};

struct PackedConv {
  ConvShape shape;
  ConvAlgorithm algorithm = ConvAlgorithm::kDirect;
  // kDirect:    per output block [input block][kh][kw][input channel of the block][16]
  // kPlanar:    per output block [input channel][kh][kw][16]
  // kDepthwise: per block [kh][kw][16]
  // kGrouped: per block [channel of the group][kh][kw][16]
  // kWinograd*: per output block [point][input channel][16], transformed
  // kBfloat16:  per output block [block of pairs][kh][kw][pair][16], each 32 bits: bfloat16/pack16.h
  // kPlanarBfloat16: per output block [input channel][kh][pair of kw][16]
  // kBfloat16Amx: as kBfloat16; in blocks of pairs that are several, all are whole
  // kPlanarBfloat16Amx: per output block [kh][pair of kw][channel of four][16]
  AlignedFloats weights;
  AlignedFloats bias;  // whole blocks
  std::vector<ConvBlock> blocks;
};

// Output rows that a call computes.
template <class Args>
int rows_of(const Args& args) { return args.rows > 0 ? args.rows : args.conv->shape.out_height; }

inline constexpr int kWordBytes = 4;
struct PackedGemm {
  int k = 0, n = 0;
  AlignedFloats weights;     // [ceil(n / 16)][k][16]; for gemm16 pairs of bfloat16, half as many
  Aligned<uint16_t> halves;  // instead of them: bfloat16 that hold them exactly
  // or whole numbers of a byte, four neighbours along k in a word, [ceil(n / 16)][ceil(k / 4)][16]: the first is the lowest
  Aligned<int32_t> words;
  AlignedFloats scales;  // of each k: a power of two, by which a word with only the highest byte of a number is that weight
  AlignedFloats bias;        // whole blocks
  int blocks() const { return channel_blocks(n); }
};

}  // namespace rskip
