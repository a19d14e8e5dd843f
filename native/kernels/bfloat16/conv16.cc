// Convolution and matrix product of bfloat16: what depends on the shape alone, and how weights are packed.
#include <algorithm>

#include "kernels/bfloat16/pack16.h"
#include "kernels/convolution/conv_rules.h"

namespace rskip {
namespace {

constexpr int64_t kWindowFloats = (256 << 10) / sizeof(float);

bool applies(const ConvShape& s) { return s.groups == 1; }

template <ConvAlgorithm kAlgorithm>
size_t scratch_bytes(const ConvShape& s) {
  const PairWindow window(s, kAlgorithm);
  return static_cast<size_t>(window.floats(window.band(s.out_height))) * sizeof(float);
}

// Per output block [block of pairs][kh][kw][pair][16].
void pack(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  const int pairs = packed_pairs(s.in_channels, precision_of(packed.algorithm));
  const size_t size = taps * pairs * kLanes;
  packed.weights = AlignedFloats(size * channel_blocks(s.out_channels));
  packed.weights.zero_from(size * (channel_blocks(s.out_channels) - 1));
  for (int b = 0; b < channel_blocks(s.out_channels); ++b) {
    const ConvBlock block{0, pair_blocks(s.in_channels), pairs - (pair_blocks(s.in_channels) - 1) * kLanes, b * size};
    packed.blocks.push_back(block);
    float* out = packed.weights.data() + block.offset;
    for (int first = 0; first < pairs; first += kLanes) {
      for (size_t tap = 0; tap < taps; ++tap) {
        for (int pair = first; pair < std::min(pairs, first + kLanes); ++pair, out += kLanes) {
          const int channel = pair * kPair;
          if (channel >= s.in_channels) {
            std::fill(out, out + kLanes, 0.0f);
            continue;
          }
          each_lane(b, s.out_channels, [&](int m, int lane) {
            const float* w = weight + (static_cast<size_t>(m) * s.in_channels + channel) * taps + tap;
            out[lane] = pair_of(w[0], channel + 1 < s.in_channels ? w[taps] : 0);
          });
        }
      }
    }
  }
}

// Pairs are neighbours in a row: windows must begin at an even distance.
bool planar_applies(const ConvShape& s) {
  return conv_applies(s, ConvAlgorithm::kPlanar) && s.stride_w % kPair == 0 && s.dilation_w == 1;
}

bool planar_amx_applies(const ConvShape& s) { return planar_applies(s) && s.kernel_w <= kPairLanes && s.in_channels <= kStemChannels; }

// Per output block [input channel][kh][pair of kw][16].
void pack_planar(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const int pairs = (s.kernel_w + 1) / kPair, rows = s.in_channels * s.kernel_h;
  const size_t size = static_cast<size_t>(rows) * pairs * kLanes;
  packed.weights = AlignedFloats(size * channel_blocks(s.out_channels));
  packed.weights.zero_from(size * (channel_blocks(s.out_channels) - 1));
  for (int b = 0; b < channel_blocks(s.out_channels); ++b) {
    packed.blocks.push_back({0, s.in_channels, pairs, b * size});
    float* out = packed.weights.data() + b * size;
    for (int row = 0; row < rows; ++row) {
      for (int j = 0; j < s.kernel_w; j += kPair, out += kLanes) {
        each_lane(b, s.out_channels, [&](int m, int lane) {
          const float* w = weight + (static_cast<size_t>(m) * rows + row) * s.kernel_w + j;
          out[lane] = pair_of(w[0], j + 1 < s.kernel_w ? w[1] : 0);
        });
      }
    }
  }
}

// Per output block [kh][pair of kw][channel of four][16].
void pack_stem(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const StemRow row(s.kernel_w);
  const size_t size = static_cast<size_t>(s.kernel_h) * row.products * row.steps * kLanes;
  packed.weights = AlignedFloats(size * channel_blocks(s.out_channels));
  packed.weights.zero();
  for (int b = 0; b < channel_blocks(s.out_channels); ++b) {
    packed.blocks.push_back({0, 1, row.steps, b * size});
    float* out = packed.weights.data() + b * size;
    for (int i = 0; i < s.kernel_h; ++i) {
      for (int j = 0; j < s.kernel_w; j += kPair) {
        for (int c = 0; c < kStemChannels; ++c, out += kLanes) {
          if (c >= s.in_channels) continue;
          each_lane(b, s.out_channels, [&](int m, int lane) {
            const float* w = weight + ((static_cast<size_t>(m) * s.in_channels + c) * s.kernel_h + i) * s.kernel_w + j;
            out[lane] = pair_of(w[0], j + 1 < s.kernel_w ? w[1] : 0);
          });
        }
      }
    }
  }
}

}  // namespace

StemRow::StemRow(int kernel_w) {
  const int pairs = (kernel_w + 1) / kPair * kStemChannels;
  products = (pairs + kLanes - 1) / kLanes;
  while (pairs % products != 0) ++products;
  steps = pairs / products;
}

PairWindow::PairWindow(const ConvShape& s, ConvAlgorithm algorithm) : blocks(pair_blocks(s.in_channels)) {
  taps_h = (s.kernel_h - 1) * s.dilation_h + 1;
  if (reads_planar(algorithm)) {
    blocks = s.in_channels;
    stride_h = s.stride_h;
    stride_w = s.stride_w / kPair;
    row_floats = width = whole_blocks((s.out_width - 1) * stride_w + (s.kernel_w + 1) / kPair);
    if (algorithm == ConvAlgorithm::kPlanarBfloat16Amx) {
      blocks = 1;
      row_floats *= kStemChannels;
    }
    return;
  }
  const bool pointwise = s.kernel_h == 1 && s.kernel_w == 1;
  (pointwise ? step_h : stride_h) = s.stride_h;
  (pointwise ? step_w : stride_w) = s.stride_w;
  width = (s.out_width - 1) * stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
  row_floats = int64_t{width} * kLanes;
}

int PairWindow::band(int output_rows) const {
  const int64_t most = kWindowFloats / (row_floats * blocks);
  return static_cast<int>(std::clamp<int64_t>((most - taps_h) / stride_h + 1, 1, output_rows));
}

int gemm16_rows(int k, int m) {
  return static_cast<int>(std::clamp<int64_t>(kWindowFloats / (int64_t{pair_blocks(k)} * kLanes), 16, std::max(m, 16)));
}

size_t gemm16_scratch_bytes(int k, int m) {
  return static_cast<size_t>(gemm16_rows(k, m)) * pair_blocks(k) * kLanes * sizeof(float);
}

int64_t attention16_scratch_bytes(const AttentionShape& s) {
  const int64_t keys = whole_blocks(s.keys), pairs = std::max(pair_blocks(s.depth), pair_blocks(s.keys));
  const int64_t floats = keys * pair_blocks(s.depth) * kLanes + int64_t{whole_blocks(s.value_depth)} * pair_blocks(s.keys) * kLanes +
                         kQueryRows16 * (s.depth + keys + pairs * kLanes);
  return floats * static_cast<int64_t>(sizeof(float));
}

const ConvRules kBfloat16Rules = {applies, window_halo, scratch_bytes<ConvAlgorithm::kBfloat16>, pack};
const ConvRules kPlanarBfloat16Rules = {planar_applies, window_halo, scratch_bytes<ConvAlgorithm::kPlanarBfloat16>,
                                        pack_planar};
const ConvRules kBfloat16AmxRules = kBfloat16Rules;
const ConvRules kPlanarBfloat16AmxRules = {planar_amx_applies, window_halo, scratch_bytes<ConvAlgorithm::kPlanarBfloat16Amx>,
                                           pack_stem};

}  // namespace rskip
