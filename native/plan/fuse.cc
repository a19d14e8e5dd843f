#include <optional>
#include <utility>

#include "plan/emitter.h"
#include "plan/passes.h"

namespace rskip {
namespace {

// Smaller maps stay in the cache from one layer to the next anyway.
constexpr int64_t kMinBytes = 1 << 20;

bool is_bytes(const ConvDraft& conv) { return conv.operands8 != nullptr; }

bool joins(const ConvDraft& first, const ConvDraft& second) {
  const ConvShape& s = second.shape;
  const ConvAlgorithm a = first.algorithm;
  return (a == ConvAlgorithm::kDirect || a == ConvAlgorithm::kPlanar || is_bfloat16(a)) &&
         first.shape.dilation_h == 1 && first.shape.dilation_w == 1 &&  // of which taps are left out by rows of the whole map
         !first.has_residual && second.algorithm == ConvAlgorithm::kDepthwise && first.images == second.images &&
         is_bytes(first) == is_bytes(second) &&
         saturating_product({s.in_channels, s.in_height, s.in_width, is_bytes(first) ? 1 : 4}) >= kMinBytes;
}

// A residual stream is updated in place. Bands can't do that: a later one still reads what an earlier one overwrites.
bool joins_third(const ConvDraft& second, const ConvDraft& third) {
  const ConvShape& s = third.shape;
  const bool direct = third.algorithm == ConvAlgorithm::kDirect || third.algorithm == ConvAlgorithm::kBfloat16 ||
                      third.algorithm == ConvAlgorithm::kBfloat16Amx;
  return direct && is_bytes(second) == is_bytes(third) && !second.has_residual && !third.has_residual && s.groups == 1 &&
         s.kernel_h == 1 && s.kernel_w == 1 && s.out_height == s.in_height && s.out_width == s.in_width &&
         s.pad.top == 0 && s.pad.left == 0 && third.images == second.images;
}

// The operands of two or three convolutions that become one, for an image; `of` is the member with those of their kind.
template <class Operands>
InstructionPtr make_fused(const Emitter& e, int n, std::function<Operands(const Emitter&, int)> ConvDraft::*of,
                          const ConvDraft& first, const ConvDraft& second, const ConvDraft* third) {
  std::optional<Operands> behind;
  if (third != nullptr) behind = (third->*of)(e, n);
  return make_fused_convs(e.table(), (first.*of)(e, n), (second.*of)(e, n), std::move(behind));
}

DraftId after(DraftId id) { return DraftId(static_cast<size_t>(id.number()) + 1); }

// A convolution or matrix product of bytes becomes part of the addition behind it, which alone reads its result.
void join_addition(DraftGraph& graph, DraftId id, const Table<NodeId, int>& uses) {
  if (after(id) >= graph.drafts.next()) return;
  Draft &first = graph.drafts[id], &add = graph.drafts[after(id)];
  if (!first.product8 || !add.add8 || first.shared_output != add.shared_output || !graph.nodes[first.write].arena) return;
  const size_t own = add.reads[0] == first.write ? 0 : 1, other = 1 - own;
  if (add.reads[own] != first.write || add.reads[other] == first.write || uses[graph.origin(first.write)] != 2) return;
  const ops::Term &mine = add.add8->terms[own], &its = add.add8->terms[other];
  if (mine.zero != first.product8->zero || add.add8->one_row[own]) return;
  const NodeId residual = add.reads[other];
  const Addition8 addition{mine.factor, its.factor, its.zero, own == 1, add.add8->rounding};
  AddedDraft8 added = first.product8->add(addition, residual, add.add8->one_row[other], add.write);
  if (!added.make) return;
  add.make = std::move(added.make);
  add.reads = std::move(first.reads);
  add.reads.push_back(residual);
  add.in_place = {residual};
  add.elementwise = false;
  add.product8 = std::move(added.product);
  add.add8 = nullptr;
  first = {.shared_output = add.shared_output};
}

// The next draft, if it alone reads what this one writes, as its first operand; null otherwise.
Draft* only_reader(DraftGraph& graph, DraftId id, const Table<NodeId, int>& uses) {
  if (after(id) >= graph.drafts.next()) return nullptr;
  Draft &draft = graph.drafts[id], &next = graph.drafts[after(id)];
  if (draft.shared_output != next.shared_output || next.reads.empty() || next.reads[0] != draft.write) return nullptr;
  return graph.nodes[draft.write].arena && uses[graph.origin(draft.write)] == 2 ? &next : nullptr;
}

// A move becomes part of the move behind it, which alone reads its result.
void join_move(DraftGraph& graph, DraftId id, const Table<NodeId, int>& uses) {
  Draft& first = graph.drafts[id];
  Draft* const next = first.move ? only_reader(graph, id, uses) : nullptr;
  if (next == nullptr || !next->move) return;
  const std::optional<BlockedMove> both = first.move->move.then(next->move->move);
  if (!both) return;
  next->reads = std::move(first.reads);
  next->make = next->move->make(next->reads[0], *both);
  next->move = std::make_shared<MoveDraft>(*both, next->move->make);
  first = {.shared_output = next->shared_output};
}

}  // namespace

DraftGraph fuse(DraftGraph graph) {
  Table<NodeId, int> uses(graph.nodes.size());
  for (const Draft& draft : graph.drafts) {
    for (NodeId node : draft.reads) ++uses[graph.origin(node)];
    for (NodeId node : draft.more_writes) ++uses[graph.origin(node)];
    if (draft.write) ++uses[graph.origin(draft.write)];
  }
  for (DraftId id : graph.drafts.ids()) {
    join_addition(graph, id, uses);
    join_move(graph, id, uses);
  }
  // The next draft, if it is a convolution that alone reads what this one writes.
  const auto reader = [&](DraftId id) -> const Draft* {
    const Draft* next = graph.drafts[id].conv ? only_reader(graph, id, uses) : nullptr;
    return next != nullptr && next->conv ? next : nullptr;
  };
  for (DraftId id : graph.drafts.ids()) {
    const Draft* second = reader(id);
    if (second == nullptr || !joins(*graph.drafts[id].conv, *second->conv)) continue;
    const Draft* third = reader(after(id));
    if (third != nullptr && !joins_third(*second->conv, *third->conv)) third = nullptr;
    Draft& last = graph.drafts[third == nullptr ? after(id) : after(after(id))];
    MakeFn make = [a = graph.drafts[id].conv, b = second->conv,
                   c = third == nullptr ? nullptr : third->conv](const Emitter& e) {
      return for_images(a->images, [&](int n) {
        return is_bytes(*a) ? make_fused(e, n, &ConvDraft::operands8, *a, *b, c.get())
                            : make_fused(e, n, &ConvDraft::operands, *a, *b, c.get());
      });
    };
    last.make = std::move(make);
    last.reads[0] = graph.drafts[id].reads[0];
    last.conv = nullptr;
    // The others do nothing now, but keep their positions, which jumps may name.
    graph.drafts[id] = {.shared_output = last.shared_output};
    if (third != nullptr) graph.drafts[after(id)] = {.shared_output = last.shared_output};
  }
  return graph;
}

}  // namespace rskip
