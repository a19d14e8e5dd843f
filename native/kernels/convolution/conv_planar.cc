// Direct convolution on planar input of few channels: the stem.
#include "kernels/convolution/conv_rules.h"

namespace rskip {
namespace {

bool applies(const ConvShape& s) { return s.groups == 1 && s.in_channels <= 4; }

}  // namespace

const ConvRules kPlanarRules = {applies, window_halo, nullptr, pack_by_channels};

}  // namespace rskip
