// What shares memory: results that take the place of an operand, the residual stream of skippable blocks above all;
// and where everything lies in the arena.
#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

#include "plan/lowering.h"
#include "plan/memory_plan.h"
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

}  // namespace

NodeId PlanBuilder::root(NodeId node) const {
  while (nodes_[static_cast<size_t>(node)].parent != kNone) node = nodes_[static_cast<size_t>(node)].parent;
  return node;
}

void PlanBuilder::join(NodeId from, NodeId into) {
  from = root(from);
  into = root(into);
  if (from == into) return;
  nodes_[static_cast<size_t>(from)].parent = into;
  if (classes_.empty()) return;  // still lowering
  const NodeClass& a = classes_[static_cast<size_t>(from)];
  NodeClass& b = classes_[static_cast<size_t>(into)];
  b.first = std::min(a.first, b.first);
  b.last = std::max(a.last, b.last);
  b.last_write = std::max(a.last_write, b.last_write);
  // What matters from here on is who made the class as it is now; it is the later one.
  b.writer = a.writer;
}

// Uses of every class, but for what only happens when a block is skipped.
void PlanBuilder::find_uses() {
  classes_.assign(nodes_.size(), {});
  const auto touch = [&](NodeId node, int32_t at) -> NodeClass& {
    NodeClass& c = classes_[static_cast<size_t>(root(node))];
    c.first = c.first < 0 ? at : std::min(c.first, at);
    c.last = std::max(c.last, at);
    return c;
  };
  std::vector<int32_t> writes(nodes_.size());
  for (size_t d = 0; d < drafts_.size(); ++d) {
    const Draft& draft = drafts_[d];
    const int32_t at = static_cast<int32_t>(d);
    if (draft.on_skip) continue;
    for (NodeId node : draft.reads) touch(node, at);
    std::vector<NodeId> written = draft.more_writes;
    if (draft.write != kNone) written.push_back(draft.write);
    for (NodeId node : written) {
      NodeClass& c = touch(node, at);
      if (!draft.make) continue;  // a view
      c.last_write = at;
      c.writer = ++writes[static_cast<size_t>(root(node))] == 1 ? at : -1;
    }
  }
}

// Whether draft number `at` may write its result over `read`, one of its operands.
bool PlanBuilder::may_take(const Draft& draft, int32_t at, NodeId read) const {
  const Node &x = nodes_[static_cast<size_t>(read)], &y = nodes_[static_cast<size_t>(draft.write)];
  if (!x.arena || !y.arena || x.form != y.form || x.bytes != y.bytes || !(x.image == y.image)) return false;
  const NodeId from = root(read), to = root(draft.write);
  const NodeClass &a = classes_[static_cast<size_t>(from)], &b = classes_[static_cast<size_t>(to)];
  if (from == to || a.last > at || a.last_write >= at || b.first != at) return false;
  // A convolution may read one value twice, as its input and as its residual.
  return draft.elementwise ||
         std::count_if(draft.reads.begin(), draft.reads.end(), [&](NodeId other) { return root(other) == from; }) == 1;
}

// The chain of in-place results that leads from a block's output back to its input, if there is one.
void PlanBuilder::update_blocks_in_place() {
  for (size_t b = 0; b < program_.blocks.size(); ++b) {
    const Block& block = program_.blocks[b];
    if (!block.skippable) continue;
    const NodeId input = home(block.input), output = home(block.output);
    const int32_t body = static_cast<int32_t>(draft_of_body_[b]);
    std::vector<std::pair<NodeId, NodeId>> chain;  // (result, operand)
    const std::function<bool(NodeId)> reach = [&](NodeId node) {
      if (root(node) == root(input)) return true;
      const int32_t at = classes_[static_cast<size_t>(root(node))].writer;
      if (at < body) return false;
      const Draft& draft = drafts_[static_cast<size_t>(at)];
      if (root(draft.write) != root(node)) return false;
      for (NodeId read : draft.in_place) {
        if (!may_take(draft, at, read)) continue;
        chain.emplace_back(draft.write, read);
        if (reach(read)) return true;
        chain.pop_back();
      }
      return false;
    };
    if (!reach(output)) continue;
    while (!chain.empty()) {
      join(chain.back().first, chain.back().second);
      chain.pop_back();
    }
  }
  // Where there is none, skipping copies the stream, and the input has to live until then.
  for (size_t d = 0; d < drafts_.size(); ++d) {
    const Draft& draft = drafts_[d];
    if (!draft.on_skip || root(draft.reads[0]) == root(draft.write)) continue;
    for (NodeId node : {draft.reads[0], draft.write}) {
      int32_t& last = classes_[static_cast<size_t>(root(node))].last;
      last = std::max(last, static_cast<int32_t>(d));
    }
  }
}

void PlanBuilder::update_in_place() {
  for (size_t d = 0; d < drafts_.size(); ++d) {
    const Draft& draft = drafts_[d];
    if (draft.on_skip) continue;
    for (NodeId read : draft.in_place) {
      if (!may_take(draft, static_cast<int32_t>(d), read)) continue;
      join(draft.write, read);
      break;
    }
  }
}

void PlanBuilder::note_size(int32_t value_id, int64_t bytes) {
  if (bytes > largest_.bytes) largest_ = {value_id, bytes};
}

// Throws EngineError(kOutOfMemory), with the largest value, for what this process may not allocate.
void PlanBuilder::require_memory(int64_t bytes) const {
  if (bytes <= context_.memory_limit) return;
  throw EngineError(ErrorCode::kOutOfMemory,
                    "The plan needs " + format_bytes(bytes) + " for one item, " + format_bytes(largest_.bytes) +
                        " of them for value " + std::to_string(largest_.value) + ", and this process may use " +
                        format_bytes(context_.memory_limit) + ". Make the input or the model smaller.",
                    largest_.value);
}

void PlanBuilder::assign_places() {
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    NodeClass& c = classes_[static_cast<size_t>(root(static_cast<NodeId>(i)))];
    c.halo = widest(c.halo, node.halo);
    if (node.layer != kNone) c.layer = node.layer;
    c.zero_tail = c.zero_tail || node.zero_tail;
  }
  std::vector<Lifetime> lifetimes;
  std::vector<NodeId> roots;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    const NodeId id = static_cast<NodeId>(i);
    if (!node.arena || node.parent != kNone || classes_[i].first < 0) continue;
    const bool image = node.form == Form::kBlocked || node.form == Form::kPlanar;
    const int64_t bytes = image ? layout(id).bytes() : static_cast<int64_t>(node.bytes);
    lifetimes.push_back({classes_[i].first, classes_[i].last, bytes});
    roots.push_back(id);
    note_size(classes_[i].layer != kNone ? classes_[i].layer : node.value, bytes);
  }
  const MemoryPlan memory = plan_memory(lifetimes);
  require_memory(memory.bytes);
  plan_->arena_bytes = static_cast<size_t>(memory.bytes);
  for (size_t i = 0; i < roots.size(); ++i) {
    classes_[static_cast<size_t>(roots[i])].place = {kArenaBase, memory.offsets[i]};
  }
}

}  // namespace rskip
