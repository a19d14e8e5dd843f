#include <utility>

#include "kernels/bfloat16/pack16.h"
#include "plan/passes.h"

namespace rskip {

DraftGraph store_pairs(DraftGraph graph) {
  struct Uses {
    DraftId writer;
    bool fits = true;
  };
  Table<NodeId, Uses> uses(graph.nodes.size());
  for (DraftId id : graph.drafts.ids()) {
    const Draft& draft = graph.drafts[id];
    const bool amx = draft.conv && precision_of(draft.conv->algorithm) == Precision::kBfloat16Amx;
    for (size_t i = 0; i < draft.reads.size(); ++i) {
      if (!amx || i > 0 || reads_planar(draft.conv->algorithm)) uses[graph.origin(draft.reads[i])].fits = false;
    }
    for (NodeId node : draft.more_writes) uses[graph.origin(node)].fits = false;
    if (!draft.write) continue;
    Uses& written = uses[graph.origin(draft.write)];
    if (written.writer || !amx || !is_clamp(draft.conv->act)) written.fits = false;
    written.writer = id;
  }
  for (NodeId id : graph.nodes.ids()) {
    Node& node = graph.nodes[id];
    if (!uses[id].fits || !uses[id].writer || !node.arena) continue;
    node.pairs = true;
    node.image.c = channels_of_pairs(node.image.c);
    graph.drafts[uses[id].writer].in_place.clear();
  }
  return graph;
}

}  // namespace rskip
