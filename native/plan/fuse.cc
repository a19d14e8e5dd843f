// Which drafts become one.
#include <optional>
#include <utility>

#include "plan/lowering.h"

namespace rskip {
namespace {

// Smaller maps stay in the cache from one layer to the next anyway.
constexpr int64_t kLeastFloats = (1 << 20) / sizeof(float);

bool fuse(const ConvDraft& first, const ConvDraft& second) {
  const ConvShape& s = second.shape;
  return (first.algorithm == ConvAlgorithm::kDirect || first.algorithm == ConvAlgorithm::kPlanar) &&
         !first.has_residual && second.algorithm == ConvAlgorithm::kDepthwise && first.images == second.images &&
         static_cast<int64_t>(s.in_channels) * s.in_height * s.in_width >= kLeastFloats;
}

// A residual stream is updated in place, which bands can't: a later one still reads what an earlier one would overwrite.
bool fuse_third(const ConvDraft& second, const ConvDraft& third) {
  const ConvShape& s = third.shape;
  return third.algorithm == ConvAlgorithm::kDirect && !second.has_residual && !third.has_residual && s.groups == 1 &&
         s.kernel_h == 1 && s.kernel_w == 1 && s.out_height == s.in_height && s.out_width == s.in_width &&
         s.pad.top == 0 && s.pad.left == 0 && third.images == second.images;
}

}  // namespace

// A convolution whose result only the depthwise convolution behind it reads, and what only the next one reads of that.
void PlanBuilder::fuse_convs() {
  std::vector<int> uses(nodes_.size());
  for (const Draft& draft : drafts_) {
    for (NodeId node : draft.reads) ++uses[static_cast<size_t>(root(node))];
    for (NodeId node : draft.more_writes) ++uses[static_cast<size_t>(root(node))];
    if (draft.write != kNone) ++uses[static_cast<size_t>(root(draft.write))];
  }
  // The draft behind number d, if it is a convolution that alone reads what that one writes.
  const auto reader = [&](size_t d) -> const Draft* {
    if (d + 1 >= drafts_.size()) return nullptr;
    const Draft &draft = drafts_[d], &next = drafts_[d + 1];
    if (!draft.conv || !next.conv || draft.shared_output != next.shared_output) return nullptr;
    const bool only = next.reads[0] == draft.write && nodes_[static_cast<size_t>(draft.write)].arena &&
                      uses[static_cast<size_t>(root(draft.write))] == 2;
    return only ? &next : nullptr;
  };
  for (size_t d = 0; d < drafts_.size(); ++d) {
    const Draft* second = reader(d);
    if (second == nullptr || !fuse(*drafts_[d].conv, *second->conv)) continue;
    const Draft* third = reader(d + 1);
    if (third != nullptr && !fuse_third(*second->conv, *third->conv)) third = nullptr;
    const size_t last = d + (third == nullptr ? 1 : 2);
    drafts_[last].make = [a = drafts_[d].conv, b = second->conv, c = third == nullptr ? nullptr : third->conv](
                             const PlanBuilder& p) {
      return for_images(a->images, [&](int n) {
        std::optional<ConvOperands> behind;
        if (c) behind = c->operands(p, n);
        return make_fused_convs(p.table(), a->operands(p, n), b->operands(p, n), std::move(behind));
      });
    };
    drafts_[last].reads[0] = drafts_[d].reads[0];
    drafts_[last].conv = nullptr;
    for (; d < last; ++d) drafts_[d] = {.shared_output = drafts_[d].shared_output};
  }
}

}  // namespace rskip
