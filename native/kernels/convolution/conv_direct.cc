// Direct convolution on blocked input: any kernel, stride, dilation and groups.
#include "kernels/convolution/conv_rules.h"

namespace rskip {
namespace {

bool applies(const ConvShape&) { return true; }

void pack(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const int group_in = s.in_channels / s.groups;
  const int group_out = s.out_channels / s.groups;
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  packed.blocks = covering_blocks(s);
  size_t size = 0;
  for (ConvBlock& block : packed.blocks) {
    block.offset = size;
    size += taps * kLanes * (static_cast<size_t>(block.blocks - 1) * kLanes + block.last_channels);
  }
  packed.weights = AlignedFloats(size);
  packed.weights.zero_from(s.groups > 1 ? 0 : packed.blocks.back().offset);
  for (size_t b = 0; b < packed.blocks.size(); ++b) {
    const ConvBlock& block = packed.blocks[b];
    // The weights of each output lane, and the first input channel that it reads.
    const float* weights[kLanes] = {};
    int first[kLanes] = {};
    int lanes = 0;
    each_lane(static_cast<int>(b), s.out_channels, [&](int m, int lane) {
      weights[lane] = weight + static_cast<size_t>(m) * group_in * taps;
      first[lane] = m / group_out * group_in;
      lanes = lane + 1;
    });
    float* out = packed.weights.data() + block.offset;
    for (int i = 0; i < block.blocks; ++i) {
      const int begin = (block.first_block + i) * kLanes;
      const int end = begin + (i + 1 == block.blocks ? block.last_channels : kLanes);
      for (size_t tap = 0; tap < taps; ++tap) {
        for (int c = begin; c < end; ++c, out += kLanes) {
          for (int lane = 0; lane < lanes; ++lane) {
            const int in_group = c - first[lane];
            if (in_group >= 0 && in_group < group_in) out[lane] = weights[lane][in_group * taps + tap];
          }
        }
      }
    }
  }
}

}  // namespace

const ConvRules kDirectRules = {applies, window_halo, nullptr, pack};

}  // namespace rskip
