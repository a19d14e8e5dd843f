// The passes of planning; each is a function from data to data. graph.h says what they hand on.
#pragma once

#include <memory>
#include <span>

#include "plan/graph.h"
#include "plan/plan.h"

namespace rskip {

// The choice of instructions depends on the program alone, never on the number of threads or the data, so that every machine
// computes the same bits; on `isa` only where sums of integers are exact in any order. Constants are read until the graph's packing has been done. In bfloat16,
// convolutions, products with constants and attention are those on bfloat16 where there are kernels.
DraftGraph lower(const Program& program, std::span<const ConstantData> constants, WeightCache& weights,
                 Precision precision = Precision::kFloat32, Isa isa = Isa::kScalar);

// Joins a convolution of bytes and the addition behind it; moves that follow each other; and a convolution, the depthwise one behind it and maybe the 1x1 one behind that, where nobody else reads what lies
// between them.
DraftGraph fuse(DraftGraph graph);

// Maps that one convolution in the order of AMX writes, and that only such read as their input, become maps of pairs.
DraftGraph store_pairs(DraftGraph graph);

// Nodes that share memory form a class. The first of them represents it.
struct NodeClass {
  DraftId first, last;  // drafts that define it first and use it last
  DraftId last_write;
  DraftId writer;  // the only draft that computes it; none if there are several
  Halo halo;
  ValueId layer;  // as Node::layer
  bool zero_tail = false;
  Place place;
  size_t bytes = 0;  // there, of an arena
};

// The largest buffer of a plan; the value's name is what a user can find.
struct Largest {
  ValueId value;
  int64_t bytes = 0;
  void see(ValueId of, int64_t size) {
    if (size > bytes) *this = {of, size};
  }
};
// Throws EngineError(kOutOfMemory), with the largest value, when `bytes` are more than this process may use.
void require_memory(int64_t bytes, int64_t limit, const Largest& largest);

struct Placement {
  Table<NodeId, NodeId> parent;      // towards the node that represents the class; none: itself
  Table<NodeId, NodeClass> classes;  // of the nodes that represent one
  int64_t arena_bytes = 0;
  Largest largest;

  NodeId root(NodeId node) const {
    while (parent[node]) node = parent[node];
    return node;
  }
  const NodeClass& of(NodeId node) const { return classes[root(node)]; }
};
// Results take the place of operands where they may: the residual stream of skippable blocks above all. Throws
// EngineError(kOutOfMemory) for an arena above the limit.
Placement place(const DraftGraph& graph, int64_t memory_limit);

// Throws EngineError(kOutOfMemory) when arena and scratch memory are above the limit.
std::unique_ptr<Plan> emit(const Program& program, DraftGraph graph, const Placement& placement,
                           const KernelTable& table, int64_t memory_limit);

}  // namespace rskip
