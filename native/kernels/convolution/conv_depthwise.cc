// Convolution of each channel by itself.
#include "kernels/convolution/conv_rules.h"

namespace rskip {
namespace {

bool applies(const ConvShape& s) { return s.groups > 1 && s.groups == s.in_channels && s.groups == s.out_channels; }

}  // namespace

const ConvRules kDepthwiseRules = {applies, window_halo, nullptr, pack_by_channels};

}  // namespace rskip
