// Which algorithm computes a convolution, and what is the same for all of them.
#include <algorithm>

#include "kernels/convolution/conv_rules.h"

namespace rskip {
namespace {

const ConvRules& rules_of(ConvAlgorithm algorithm) {
  switch (algorithm) {
    case ConvAlgorithm::kDirect: return kDirectRules;
    case ConvAlgorithm::kPlanar: return kPlanarRules;
    case ConvAlgorithm::kDepthwise: return kDepthwiseRules;
    case ConvAlgorithm::kGrouped: return kGroupedRules;
    case ConvAlgorithm::kWinograd2: return kWinograd2Rules;
    case ConvAlgorithm::kWinograd4: return kWinograd4Rules;
    case ConvAlgorithm::kBfloat16: return kBfloat16Rules;
    case ConvAlgorithm::kPlanarBfloat16: return kPlanarBfloat16Rules;
    case ConvAlgorithm::kBfloat16Amx: return kBfloat16AmxRules;
    case ConvAlgorithm::kPlanarBfloat16Amx: return kPlanarBfloat16AmxRules;
  }
  return kDirectRules;
}

}  // namespace

bool conv_applies(const ConvShape& shape, ConvAlgorithm algorithm) { return rules_of(algorithm).applies(shape); }

ConvAlgorithm choose_conv_algorithm(const ConvShape& shape, Precision precision) {
  for (ConvAlgorithm algorithm : {ConvAlgorithm::kDepthwise, ConvAlgorithm::kPlanarBfloat16, ConvAlgorithm::kPlanarBfloat16Amx,
                                  ConvAlgorithm::kPlanar, ConvAlgorithm::kGrouped, ConvAlgorithm::kBfloat16Amx, ConvAlgorithm::kWinograd4,
                                  ConvAlgorithm::kBfloat16, ConvAlgorithm::kWinograd2}) {
    if (const Precision own = precision_of(algorithm); own != Precision::kFloat32 && own != precision) continue;
    if (conv_applies(shape, algorithm)) return algorithm;
  }
  return ConvAlgorithm::kDirect;
}

Halo conv_input_halo(const ConvShape& shape, ConvAlgorithm algorithm) { return rules_of(algorithm).input_halo(shape); }

size_t conv_scratch_bytes(const PackedConv& conv) {
  const ConvRules& rules = rules_of(conv.algorithm);
  return rules.scratch_bytes == nullptr ? 0 : rules.scratch_bytes(conv.shape);
}

std::shared_ptr<const PackedConv> pack_conv(const ConvShape& shape, ConvAlgorithm algorithm, const float* weight,
                                            const float* bias) {
  auto packed = std::make_shared<PackedConv>();
  packed->shape = shape;
  packed->algorithm = algorithm;
  packed->bias = padded_bias(shape.out_channels, bias);
  rules_of(algorithm).pack(weight, *packed);
  return packed;
}

std::shared_ptr<const PackedConv> rebind_conv(const PackedConv& conv, const ConvShape& shape) {
  auto bound = std::make_shared<PackedConv>(conv);
  bound->shape = shape;
  return bound;
}

size_t conv_packed_bytes(const PackedConv& conv) { return (conv.weights.size() + conv.bias.size()) * sizeof(float); }

Halo window_halo(const ConvShape& s) {
  const int last_row = (s.out_height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h - s.pad.top;
  const int last_column = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w - s.pad.left;
  return {s.pad.top, s.pad.left, std::max(0, last_row + 1 - s.in_height), std::max(0, last_column + 1 - s.in_width)};
}

std::vector<ConvBlock> covering_blocks(const ConvShape& s) {
  const int group_in = s.in_channels / s.groups;
  const int group_out = s.out_channels / s.groups;
  std::vector<ConvBlock> blocks(static_cast<size_t>(channel_blocks(s.out_channels)));
  for (int b = 0; b < channel_blocks(s.out_channels); ++b) {
    const int last = std::min(s.out_channels, (b + 1) * kLanes) - 1;
    const int begin = b * kLanes / group_out * group_in;
    const int end = (last / group_out + 1) * group_in;
    ConvBlock& block = blocks[b];
    block.first_block = begin / kLanes;
    block.blocks = channel_blocks(end) - block.first_block;
    block.last_channels = end - (channel_blocks(end) - 1) * kLanes;
  }
  return blocks;
}

void pack_by_channels(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const size_t k = static_cast<size_t>(s.in_channels / s.groups) * s.kernel_h * s.kernel_w;
  packed.weights = AlignedFloats(k * kLanes * channel_blocks(s.out_channels));
  packed.weights.zero();
  for (int b = 0; b < channel_blocks(s.out_channels); ++b) {
    ConvBlock block;
    block.offset = b * k * kLanes;
    packed.blocks.push_back(block);
    float* out = packed.weights.data() + block.offset;
    each_lane(b, s.out_channels, [&](int m, int lane) {
      for (size_t i = 0; i < k; ++i) out[i * kLanes + lane] = weight[m * k + i];
    });
  }
}

}  // namespace rskip
