// Each pass of planning by itself: what it makes of what the pass before it hands on.
#include <gtest/gtest.h>

#include <algorithm>

#include "plan/passes.h"
#include "program/error.h"
#include "program_writer.h"

namespace rskip::test {
namespace {

constexpr int64_t kEnough = int64_t{1} << 32;

// A program and what lowering needs.
struct Lowered {
  explicit Lowered(const ProgramWriter& w)
      : writer(w),
        program(decode_program(writer.words(), writer.constants())),
        graph(lower(program, writer.constants(), weights)) {}
  const ProgramWriter writer;  // holds the constants that are packed later
  WeightCache weights;
  Program program;
  DraftGraph graph;
};

size_t count(const DraftGraph& graph, const std::function<bool(const Draft&)>& is) {
  return static_cast<size_t>(std::count_if(graph.drafts.begin(), graph.drafts.end(), is));
}
size_t convolutions(const DraftGraph& graph) {
  return count(graph, [](const Draft& d) { return d.conv != nullptr; });
}
size_t instructions(const DraftGraph& graph) {
  return count(graph, [](const Draft& d) { return d.make != nullptr; });
}

// Expand, depthwise and project on a map that is too large for a cache.
ProgramWriter inverted_residual(bool middle_is_output) {
  Random random(1);
  ProgramWriter w;
  const int32_t wide = w.conv(w.input({1, 16, 96, 96}), 48, 1, random, -1, kRelu);
  const int32_t filtered = w.conv(wide, 48, 3, random, -1, kRelu, 48);
  w.output(w.conv(filtered, 20, 1, random));
  if (middle_is_output) w.output(wide);
  return w;
}

TEST(Lower, DraftsBlocksAroundTheirSteps) {
  const Lowered lowered(TestNetwork(2).writer);
  const DraftGraph& graph = lowered.graph;
  EXPECT_EQ(convolutions(graph), 1u + 2 * 2);
  for (Code::Kind kind : {Code::Kind::kEnter, Code::Kind::kDecide}) {
    EXPECT_EQ(count(graph, [&](const Draft& d) { return d.kind == kind; }), 2u);
  }
  // Where jumps land: every step, and the end.
  EXPECT_EQ(graph.draft_of_step.size(), lowered.program.steps.size() + 1);
  EXPECT_EQ(graph.skippable.size(), 2u);
  EXPECT_EQ(graph.packing.size(), 1u + 2 * (2 + 1) + 1);
  EXPECT_TRUE(std::is_sorted(graph.draft_of_step.begin(), graph.draft_of_step.end()));
}

TEST(Lower, ConvertsAValueOnceForAllItsReaders) {
  Random random(2);
  ProgramWriter w;
  const int32_t x = w.input({1, 20, 8, 8});
  for (int i = 0; i < 3; ++i) w.output(w.conv(x, 4, 3, random));
  const Lowered lowered(w);
  // To blocked once; three convolutions; three outputs to dense.
  EXPECT_EQ(instructions(lowered.graph), 1u + 3 + 3);
}

TEST(Fuse, JoinsWhatNobodyElseReads) {
  for (bool middle_is_output : {false, true}) {
    const Lowered lowered(inverted_residual(middle_is_output));
    const DraftGraph fused = fuse(lowered.graph);
    EXPECT_EQ(fused.drafts.size(), lowered.graph.drafts.size());  // positions are those of jumps
    EXPECT_EQ(instructions(fused), instructions(lowered.graph) - (middle_is_output ? 0 : 2));
  }
}

// Rows and columns of a map, in two slices, padded around and with `before` channels before it; and the map.
ProgramWriter shortcut(int32_t before, bool middle_is_output) {
  Random random(3);
  ProgramWriter w;
  const int32_t x = w.conv(w.input({2, 3, 11, 13}), 20, 3, random);
  const int32_t rows = w.step(Op::kSlice, {x}, {2, 20, 5, 13}, {4, 0, 0, 1, 0, 1, 1, 2, 1});
  const int32_t both = w.step(Op::kSlice, {rows}, {2, 20, 5, 4}, {4, 0, 0, 0, 2, 1, 1, 1, 3});
  w.output(w.step(Op::kPad, {both, -1}, {2, 28 + before, 7, 6}, {0, 8, 0, before, 1, 2, 0, 8, 1, 0}), false);
  w.output(x, false);
  if (middle_is_output) w.output(rows, false);
  return w;
}

TEST(Fuse, JoinsMovesOfPixels) {
  for (bool middle_is_output : {false, true}) {
    for (int before : {0, 5, 8, 16}) {
      SCOPED_TRACE(before);
      const Lowered lowered(shortcut(before, middle_is_output));
      EXPECT_EQ(instructions(fuse(lowered.graph)), instructions(lowered.graph) - (middle_is_output ? 1 : 2));
      Engine engine(EngineOptions{});
      const auto compiled = engine.compile(lowered.writer.words(), lowered.writer.constants());
      TestRun run(compiled->plan(), 1, BlockMode::kRun);
      ASSERT_FALSE(compiled->run_here(std::move(run.request)).error);
      const float* const moved = reinterpret_cast<const float*>(run.outputs[0].data());
      const float* const x = reinterpret_cast<const float*>(run.outputs[1].data());
      const int channels = 28 + before;
      for (int i = 0; i < 2 * channels * 7 * 6; ++i) {
        const int n = i / (channels * 42), c = i / 42 % channels - before, h = i / 6 % 7 - 1, w = i % 6 - 2;
        const bool inside = c >= 0 && c < 20 && h >= 0 && h < 5 && w >= 0;
        ASSERT_EQ(moved[i], inside ? x[((n * 20 + c) * 11 + 1 + 2 * h) * 13 + 2 + 3 * w] : 0.0f) << i;
      }
    }
  }
}

// A pad adds pixels and channels, which what is behind it would move, too.
TEST(Fuse, LeavesMovesBehindAPad) {
  BlockedMove pad, slice;
  pad.fills = true;
  EXPECT_FALSE(pad.then(slice));
  slice.row_step = 1 << 30;
  EXPECT_FALSE(slice.then(slice));
}

// Whose first map an output or a residual may read, too.
enum class AlsoReads { kNobody, kAnOutput, kAResidual };
ProgramWriter bottleneck(AlsoReads also) {
  Random random(7);
  ProgramWriter w;
  const int32_t x = w.input({1, 20, 9, 9});
  const int32_t reduced = w.conv(x, 24, 1, random, -1, kRelu);
  const int32_t filtered = w.conv(reduced, 24, 3, random, also == AlsoReads::kAResidual ? reduced : -1, kRelu);
  const int32_t activated = w.conv(filtered, 40, 1, random, -1, {ActivationKind::kSilu, 0, 0});
  w.output(w.conv(activated, 20, 1, random));
  if (also == AlsoReads::kAnOutput) w.output(reduced);
  return w;
}

TEST(StorePairs, OfMapsThatOnlyConvolutionsOfAmxRead) {
  const auto pairs = [](AlsoReads also, Precision precision) {
    const ProgramWriter w = bottleneck(also);
    WeightCache weights;
    const Program program = decode_program(w.words(), w.constants());
    const DraftGraph graph = store_pairs(fuse(lower(program, w.constants(), weights, precision)));
    size_t maps = 0;
    for (const Node& node : graph.nodes) {
      if (!node.pairs) continue;
      ++maps;
      EXPECT_EQ(node.image.c, kLanes);
    }
    return maps;
  };
  EXPECT_EQ(pairs(AlsoReads::kNobody, Precision::kBfloat16Amx), 2u);
  EXPECT_EQ(pairs(AlsoReads::kAnOutput, Precision::kBfloat16Amx), 1u);
  EXPECT_EQ(pairs(AlsoReads::kAResidual, Precision::kBfloat16Amx), 1u);
  EXPECT_EQ(pairs(AlsoReads::kNobody, Precision::kBfloat16), 0u);
  EXPECT_EQ(pairs(AlsoReads::kNobody, Precision::kFloat32), 0u);
}

TEST(Place, UpdatesTheStreamOfSkippableBlocksInPlace) {
  const Lowered lowered(TestNetwork(3).writer);
  const Placement placement = place(lowered.graph, kEnough);
  for (const StreamEnds& block : lowered.graph.skippable) {
    EXPECT_EQ(placement.root(block.input), placement.root(block.output));
  }
}

TEST(Place, KeepsApartWhatIsAliveAtTheSameTime) {
  for (uint32_t seed = 1; seed < 6; ++seed) {
    const Lowered lowered(TestNetwork(2, 20, 9, seed).writer);
    const DraftGraph& graph = lowered.graph;
    const Placement placement = place(graph, kEnough);
    for (NodeId a : graph.nodes.ids()) {
      const NodeClass& p = placement.classes[a];
      if (!graph.nodes[a].arena || placement.parent[a] || !p.first) continue;
      EXPECT_LT(p.place.offset, placement.arena_bytes);
      for (NodeId b : graph.nodes.ids()) {
        const NodeClass& q = placement.classes[b];
        if (a == b || !graph.nodes[b].arena || placement.parent[b] || !q.first) continue;
        const bool together = p.first <= q.last && q.first <= p.last;
        EXPECT_FALSE(together && p.place.offset == q.place.offset);
      }
    }
  }
}

TEST(Place, RefusesArenasAboveTheLimit) {
  const Lowered lowered(TestNetwork(1).writer);
  const int64_t needed = place(lowered.graph, kEnough).arena_bytes;
  EXPECT_EQ(place(lowered.graph, needed).arena_bytes, needed);
  EXPECT_THROW(place(lowered.graph, needed - 1), EngineError);
}

TEST(Emit, LeadsJumpsToTheirSteps) {
  ProgramWriter w;
  const int32_t x = w.input({4}), condition = w.input({1}, DType::kBool), y = w.value({4});
  w.push(Op::kBranch, {condition}, {}, {3});
  w.push(Op::kUnary, {x}, {y}, act_words(kRelu));
  w.push(Op::kJump, {}, {}, {4});
  w.push(Op::kUnary, {x}, {y}, act_words({}));
  w.output(y);
  Lowered lowered(w);
  const Placement placement = place(lowered.graph, kEnough);
  const auto plan = emit(lowered.program, lowered.graph, placement, *table_for(Isa::kScalar), kEnough);
  const auto kind = [&](size_t at) { return plan->code[at].kind; };
  ASSERT_EQ(plan->code.size(), 5u);
  EXPECT_EQ(kind(0), Code::Kind::kBranch);
  EXPECT_EQ(plan->code[0].target, 3);
  EXPECT_EQ(kind(2), Code::Kind::kJump);
  EXPECT_EQ(plan->code[2].target, 4);
  EXPECT_EQ(plan->instructions.size(), 3u);  // two steps and the output's copy
}

TEST(Emit, GivesASkippedBlockNothingToDoWhereItIsUpdatedInPlace) {
  Lowered lowered(TestNetwork(2).writer);
  ReadMemory memory;
  for (const Packing& packing : lowered.graph.packing) packing.pack(memory);
  const Placement placement = place(lowered.graph, kEnough);
  const auto plan = emit(lowered.program, lowered.graph, placement, *table_for(Isa::kScalar), kEnough);
  for (const PlanBlock& block : plan->blocks) {
    EXPECT_TRUE(block.on_skip.empty());
    EXPECT_LT(block.body, block.end);
  }
}

}  // namespace
}  // namespace rskip::test
