// What kernels and engine share: activations, tensor views, convolution shapes.
// No Node headers, no exceptions, no allocation here.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rskip {

// Channels of one block of the blocked layout, and lanes of every vector type, on every instruction set.
inline constexpr int kLanes = 16;

// Blocks of channels, and channels rounded up to whole blocks.
constexpr int channel_blocks(int channels) { return (channels + kLanes - 1) / kLanes; }
constexpr int whole_blocks(int channels) { return channel_blocks(channels) * kLanes; }

// Where the part-th of `parts` shares of [0, count) begins.
constexpr int64_t part_begin(int64_t count, int part, int parts) { return count * part / parts; }
// One share of [0, count); all of them together are disjoint and complete.
template <class T>
struct Share {
  T begin, end;
};
template <class T>
constexpr Share<T> share_of(T count, int part, int parts) {
  return {static_cast<T>(part_begin(count, part, parts)), static_cast<T>(part_begin(count, part + 1, parts))};
}

// Order is that of ACTIVATION_KINDS in lib/model/program/program.ts.
enum class ActivationKind : int32_t {
  kNone,
  kRelu,
  kLeakyRelu,
  kClip,
  kSigmoid,
  kHardSigmoid,
  kHardSwish,
  kSilu,
  kTanh,
  kErf,
  kGelu,
  kGeluTanh,
  kElu,
  kSelu,
  kCelu,
  kSoftplus,
  kSoftsign,
  kMish,
  kExp,
  kLog,
  kSqrt,
  kReciprocal,
  kAbs,
  kSign,
  kFloor,
  kCeil,
  kRound,
  kSin,
  kCos
};

struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  float alpha = 0;
  float beta = 0;
};

// Whether min and max are all of it, or there is none, and zeros stay zeros.
constexpr bool is_clamp(const Activation& a) {
  return a.kind == ActivationKind::kNone || a.kind == ActivationKind::kRelu ||
         (a.kind == ActivationKind::kClip && a.alpha <= 0 && a.beta >= 0);
}

// One item in the blocked layout NCHWc16. Element (c, h, w) is at
//   data[(c / 16) * block_stride + h * row_stride + w * 16 + c % 16].
// Strides are in elements. `data` points at (0, 0, 0); around every channel block lies a zero halo, so that
// h in [-halo.top, height + halo.bottom) and w likewise may be read. Lanes of channels >= `channels` in
// the last block are zero and stay zero. Kernels write only the interior: halos stay zero.
// `data` is 64-byte aligned, and so is every row.
//
// Unsigned 8-bit numbers lie in the same layout. Their halo holds the zero point, lanes of channels >= `channels` hold
// anything, and `data` is aligned to the 16 bytes of a pixel.
struct Halo {
  int top = 0, left = 0, bottom = 0, right = 0;
  bool operator==(const Halo&) const = default;
};
template <class T>
struct Blocked {
  T* data = nullptr;
  int channels = 0, height = 0, width = 0;
  ptrdiff_t row_stride = 0, block_stride = 0;
  int blocks() const { return channel_blocks(channels); }
};
using BlockedView = Blocked<float>;
using BlockedView8 = Blocked<uint8_t>;

// One item in plain NCHW (C, H, W), dense or with row and plane strides in elements and a zero halo as above.
template <class T>
struct Planar {
  T* data = nullptr;
  int channels = 0, height = 0, width = 0;
  ptrdiff_t row_stride = 0, plane_stride = 0;
};
using PlanarView = Planar<float>;
using PlanarView8 = Planar<uint8_t>;

// A two-dimensional convolution. Padding may be asymmetric.
struct ConvShape {
  int in_channels = 0, in_height = 0, in_width = 0;
  int out_channels = 0, out_height = 0, out_width = 0;
  int kernel_h = 1, kernel_w = 1;
  int stride_h = 1, stride_w = 1;
  int dilation_h = 1, dilation_w = 1;
  Halo pad;
  int groups = 1;
};

// Fixed by the shape alone, so that every machine computes the same bits.
enum class ConvAlgorithm : int32_t {
  kDirect,     // blocked input, any kernel, stride, dilation, groups
  kPlanar,     // planar input of few channels (the stem)
  kDepthwise,  // groups == in_channels == out_channels
  kGrouped,    // groups of four or eight channels
  kWinograd2,  // F(2x2, 3x3)
  kWinograd4,  // F(4x4, 3x3)
  kBfloat16,        // blocked input, products of bfloat16, one group
  kPlanarBfloat16,  // planar input, products of bfloat16
  // The same two, with sums in the order of AMX.
  kBfloat16Amx,
  kPlanarBfloat16Amx,
};
constexpr bool reads_planar(ConvAlgorithm a) {
  return a == ConvAlgorithm::kPlanar || a == ConvAlgorithm::kPlanarBfloat16 || a == ConvAlgorithm::kPlanarBfloat16Amx;
}

// What convolutions and products multiply, and in which order they sum it (bfloat16/pack16.h). In the order of PRECISIONS in program.ts.
enum class Precision : int32_t { kFloat32, kBfloat16, kBfloat16Amx };
constexpr Precision precision_of(ConvAlgorithm a) {
  if (a == ConvAlgorithm::kBfloat16 || a == ConvAlgorithm::kPlanarBfloat16) return Precision::kBfloat16;
  const bool amx = a == ConvAlgorithm::kBfloat16Amx || a == ConvAlgorithm::kPlanarBfloat16Amx;
  return amx ? Precision::kBfloat16Amx : Precision::kFloat32;
}
constexpr bool is_bfloat16(ConvAlgorithm a) { return precision_of(a) != Precision::kFloat32; }

}  // namespace rskip
