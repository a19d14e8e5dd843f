// Convolution of small groups of channels, of which several share a block of lanes.
#include "kernels/convolution/conv_rules.h"

namespace rskip {
namespace {

// Larger groups leave little of a block unused; kDirect leaves out the halo of dilated ones.
bool applies(const ConvShape& s) {
  const int group = s.in_channels / s.groups;
  const bool dilated = s.dilation_h > 1 || s.dilation_w > 1;
  return s.groups > 1 && s.out_channels == s.in_channels && (group == 4 || group == 8) && !dilated;
}

}  // namespace

const ConvRules kGroupedRules = {applies, window_halo, nullptr, pack_by_channels};

}  // namespace rskip
