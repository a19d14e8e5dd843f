// What drafts use to make their instructions once all places are known.
#pragma once

#include "plan/graph.h"
#include "plan/passes.h"

namespace rskip {

class Emitter {
 public:
  Emitter(const DraftGraph& graph, const Placement& placement, const KernelTable& table)
      : graph_(graph), placement_(placement), table_(table) {}

  const KernelTable& table() const { return table_; }
  Place place(NodeId node) const;
  ImageLayout layout(NodeId node) const;
  // Image `n` of a node; of bytes where the name ends in 8.
  BlockedOperand blocked(NodeId node, int n) const { return image<BlockedView>(node, n); }
  PlanarOperand planar(NodeId node, int n) const { return image<PlanarView>(node, n); }
  BlockedOperand8 blocked8(NodeId node, int n) const { return image<BlockedView8>(node, n); }
  PlanarOperand8 planar8(NodeId node, int n) const { return image<PlanarView8>(node, n); }
  bool has_pairs(NodeId node) const { return graph_.nodes[node].pairs; }
  bool same_memory(NodeId a, NodeId b) const { return placement_.root(a) == placement_.root(b); }

 private:
  // Of its pixel (0, 0).
  Place place_of_image(NodeId node, const ImageLayout& layout, int n) const;
  template <class View>
  ImageOperand<View> image(NodeId node, int n) const {
    const ImageLayout l = layout(node);
    return {place_of_image(node, l, n), view_of<View>(l)};
  }

  const DraftGraph& graph_;
  const Placement& placement_;
  const KernelTable& table_;
};

// The layout of a node's images within a halo.
ImageLayout layout_of(const Node& node, const Halo& halo);

}  // namespace rskip
