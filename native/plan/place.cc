#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>

#include "plan/emitter.h"
#include "plan/memory_plan.h"
#include "plan/passes.h"
#include "program/error.h"

namespace rskip {
namespace {

// In the largest decimal unit: 4.4 TB.
std::string format_bytes(int64_t bytes) {
  if (bytes >= kTooLarge) return "more than 4 EB";
  double amount = static_cast<double>(bytes);
  const char* const units[] = {"bytes", "KB", "MB", "GB", "TB", "PB", "EB"};
  size_t unit = 0;
  for (; amount >= 1000; amount /= 1000) ++unit;
  char text[32];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.1f %s", amount, units[unit]);
  return text;
}

class Placing {
 public:
  explicit Placing(const DraftGraph& graph) : graph_(graph) {
    p_.parent = Table<NodeId, NodeId>(graph.nodes.size());
    p_.classes = Table<NodeId, NodeClass>(graph.nodes.size());
    for (NodeId id : graph.nodes.ids()) p_.parent[id] = graph.nodes[id].view_of;
  }

  Placement run(int64_t memory_limit) {
    find_uses();
    update_blocks_in_place();
    update_in_place();
    assign_places(memory_limit);
    return std::move(p_);
  }

 private:
  NodeClass& of(NodeId node) { return p_.classes[p_.root(node)]; }
  const NodeClass& of(NodeId node) const { return p_.of(node); }

  // Uses of every class, but for what only happens when a block is skipped.
  void find_uses() {
    const auto touch = [&](NodeId node, DraftId at) -> NodeClass& {
      NodeClass& c = of(node);
      c.first = c.first ? std::min(c.first, at) : at;
      c.last = std::max(c.last, at);
      return c;
    };
    Table<NodeId, int> writes(graph_.nodes.size());
    for (DraftId at : graph_.drafts.ids()) {
      const Draft& draft = graph_.drafts[at];
      if (draft.on_skip) continue;
      for (NodeId node : draft.reads) touch(node, at);
      std::vector<NodeId> written = draft.more_writes;
      if (draft.write) written.push_back(draft.write);
      for (NodeId node : written) {
        NodeClass& c = touch(node, at);
        if (!draft.make) continue;  // a view
        c.last_write = at;
        c.writer = ++writes[p_.root(node)] == 1 ? at : DraftId();
      }
    }
  }

  // Whether a draft may write its result over `read`, one of its operands.
  bool may_take(DraftId at, NodeId read) const {
    const Draft& draft = graph_.drafts[at];
    const Node &x = graph_.nodes[read], &y = graph_.nodes[draft.write];
    if (!x.arena || !y.arena || x.form != y.form || x.bytes != y.bytes || !(x.image == y.image)) return false;
    // A result that lies in an operand's place has its halo.
    if (x.halo_byte != y.halo_byte) return false;
    const NodeId from = p_.root(read), to = p_.root(draft.write);
    const NodeClass &a = p_.classes[from], &b = p_.classes[to];
    if (from == to || a.last > at || a.last_write >= at || b.first != at) return false;
    // A convolution may read one value twice, as its input and as its residual.
    return draft.elementwise ||
           std::count_if(draft.reads.begin(), draft.reads.end(),
                         [&](NodeId other) { return p_.root(other) == from; }) == 1;
  }

  void join(NodeId from, NodeId into) {
    from = p_.root(from);
    into = p_.root(into);
    if (from == into) return;
    p_.parent[from] = into;
    const NodeClass& a = p_.classes[from];
    NodeClass& b = p_.classes[into];
    b.first = std::min(a.first, b.first);
    b.last = std::max(a.last, b.last);
    b.last_write = std::max(a.last_write, b.last_write);
    // What matters from here on is who made the class as it is now; it is the later one.
    b.writer = a.writer;
  }

  // The chain of in-place results that leads from a block's output back to its input, if there is one.
  void update_blocks_in_place() {
    for (const StreamEnds& block : graph_.skippable) {
      const DraftId body = graph_.draft_of_body[block.block];
      std::vector<std::pair<NodeId, NodeId>> chain;  // (result, operand)
      const std::function<bool(NodeId)> reach = [&](NodeId node) {
        if (p_.root(node) == p_.root(block.input)) return true;
        const DraftId at = of(node).writer;
        if (at < body) return false;
        const Draft& draft = graph_.drafts[at];
        if (p_.root(draft.write) != p_.root(node)) return false;
        for (NodeId read : draft.in_place) {
          if (!may_take(at, read)) continue;
          chain.emplace_back(draft.write, read);
          if (reach(read)) return true;
          chain.pop_back();
        }
        return false;
      };
      if (!reach(block.output)) continue;
      for (; !chain.empty(); chain.pop_back()) join(chain.back().first, chain.back().second);
    }
    // Where there is none, skipping copies the stream, and the input has to live until then.
    for (DraftId at : graph_.drafts.ids()) {
      const Draft& draft = graph_.drafts[at];
      if (!draft.on_skip || p_.root(draft.reads[0]) == p_.root(draft.write)) continue;
      for (NodeId node : {draft.reads[0], draft.write}) of(node).last = std::max(of(node).last, at);
    }
  }

  void update_in_place() {
    for (DraftId at : graph_.drafts.ids()) {
      const Draft& draft = graph_.drafts[at];
      if (draft.on_skip) continue;
      for (NodeId read : draft.in_place) {
        if (!may_take(at, read)) continue;
        join(draft.write, read);
        break;
      }
    }
  }

  void assign_places(int64_t memory_limit) {
    for (NodeId id : graph_.nodes.ids()) {
      const Node& node = graph_.nodes[id];
      NodeClass& c = of(id);
      c.halo = widest(c.halo, node.halo);
      if (node.layer) c.layer = node.layer;
      c.zero_tail = c.zero_tail || node.zero_tail;
    }
    std::vector<Lifetime> lifetimes;
    std::vector<NodeId> roots;
    for (NodeId id : graph_.nodes.ids()) {
      const Node& node = graph_.nodes[id];
      const NodeClass& c = p_.classes[id];
      if (!node.arena || p_.parent[id] || !c.first) continue;
      const bool image = node.form == Form::kBlocked || node.form == Form::kPlanar;
      const int64_t bytes = image ? layout_of(node, c.halo).bytes() : static_cast<int64_t>(node.bytes);
      lifetimes.push_back({c.first.number(), c.last.number(), bytes});
      roots.push_back(id);
      p_.largest.see(c.layer ? c.layer : node.value, bytes);
    }
    const MemoryPlan memory = plan_memory(lifetimes);
    require_memory(memory.bytes, memory_limit, p_.largest);
    p_.arena_bytes = memory.bytes;
    for (size_t i = 0; i < roots.size(); ++i) {
      NodeClass& c = p_.classes[roots[i]];
      c.place = Place::in_arena(memory.offsets[i]);
      // With the tail up to a whole block of lanes, which may have to be zero.
      c.bytes = static_cast<size_t>((lifetimes[i].bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment);
    }
  }

  const DraftGraph& graph_;
  Placement p_;
};

}  // namespace

void require_memory(int64_t bytes, int64_t limit, const Largest& largest) {
  if (bytes <= limit) return;
  throw EngineError(ErrorCode::kOutOfMemory,
                    "model: it needs " + format_bytes(bytes) + " for one item, " + format_bytes(largest.bytes) +
                        " of them for value " + std::to_string(largest.value.number()) +
                        ", but this process may use only " + format_bytes(limit) + "; make the input or the model smaller",
                    largest.value.number());
}

Placement place(const DraftGraph& graph, int64_t memory_limit) { return Placing(graph).run(memory_limit); }

}  // namespace rskip
