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
  // Image `n` of a node.
  BlockedOperand blocked(NodeId node, int n) const;
  PlanarOperand planar(NodeId node, int n) const;
  bool same_memory(NodeId a, NodeId b) const { return placement_.root(a) == placement_.root(b); }

 private:
  const DraftGraph& graph_;
  const Placement& placement_;
  const KernelTable& table_;
};

// The layout of a node's images within a halo.
ImageLayout layout_of(const Node& node, const Halo& halo);

}  // namespace rskip
