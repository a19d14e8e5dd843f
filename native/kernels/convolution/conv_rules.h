// What each algorithm of convolution decides by the shape alone, and how it packs weights: one conv_*.cc each. The kernel
// that runs it is in the conv_*-inl.h of the same name.
#pragma once

#include "kernels/matrix/pack.h"

namespace rskip {

struct ConvRules {
  // Whether the algorithm computes this convolution, unless one before it does.
  bool (*applies)(const ConvShape& shape);
  // As conv_input_halo().
  Halo (*input_halo)(const ConvShape& shape);
  // As conv_scratch_bytes(). Null: none.
  size_t (*scratch_bytes)(const ConvShape& shape);
  // Fills in `weights` and `blocks`; shape and algorithm are there.
  void (*pack)(const float* weight, PackedConv& packed);
};
extern const ConvRules kDirectRules, kPlanarRules, kDepthwiseRules, kGroupedRules, kWinograd2Rules, kWinograd4Rules, kBfloat16Rules,
    kPlanarBfloat16Rules, kBfloat16AmxRules, kPlanarBfloat16AmxRules;

// As ConvRules::applies.
bool conv_applies(const ConvShape& shape, ConvAlgorithm algorithm);
// The pads, and what windows of the last outputs reach beyond the input.
Halo window_halo(const ConvShape& shape);
// The input blocks of each output block of a direct convolution; offsets aren't set.
std::vector<ConvBlock> covering_blocks(const ConvShape& shape);
// Weights as [output block][input channel of the group][kh][kw][16].
void pack_by_channels(const float* weight, PackedConv& packed);

// Calls fn(output channel, lane) for the real channels of output block `block`.
template <class F>
void each_lane(int block, int channels, F fn) {
  for (int lane = 0; lane < kLanes && block * kLanes + lane < channels; ++lane) fn(block * kLanes + lane, lane);
}

}  // namespace rskip
