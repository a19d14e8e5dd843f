// A program made ready to run: instructions in order, the places of all values in one arena, the control flow of
// branches, gates and skips. Immutable; shared by all runs.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "plan/instruction.h"
#include "plan/weight_cache.h"
#include "program/program.h"

namespace rskip {

struct PlanBlock {
  Gate gate;
  bool has_gate = false;
  bool skippable = false;
  Place score;       // float32; where there is a gate
  int32_t body = 0;  // code after the gate
  int32_t end = 0;   // code after the block
  // What skipping a block leaves to do: a copy of the stream where it isn't updated in place, and its activation.
  // Empty for a block without either: skipping it is no work at all.
  std::vector<InstructionPtr> on_skip;
};

// Bytes of the arena.
struct ArenaSpan {
  int64_t offset = 0;
  size_t bytes = 0;
};

struct PlanExit {
  Place score;  // float32
  std::vector<InstructionPtr> on_taken;  // write its answers to the outputs
  int32_t next = 0;  // code behind it
  std::vector<ArenaSpan> live;  // what that code reads of what was computed before
  bool rounded = false;  // see rounded.h
};

struct Code {
  enum class Kind : uint8_t {
    kRun,     // instruction
    kBranch,  // to `target` when the bool at `condition` is false
    kJump,    // to `target`
    kEnter,   // block `block`: its mode says whether to go on to the gate, to the body or to the end
    kDecide,  // the score of block `block` is there: to the body or to the end
    kExit,    // the score of exit `exit` is there: on, or the item ends with the exit's answers
  };
  Kind kind = Kind::kRun;
  int32_t target = 0;
  int32_t block = 0;
  int32_t exit = 0;
  Place condition;
  const Instruction* instruction = nullptr;
  int64_t work = 0;  // as Instruction::shareable_work()
  int64_t cost = 0;  // the same, also of what can't be shared
  bool joint = false;  // items of a batch that arrive here run the instruction at once
  ValueId value;     // what the instruction computes, or converts
};

struct PlanPort {
  size_t item_bytes = 0;
  bool batched = true;
  DType dtype = DType::kFloat32;
  bool rounded = false;  // see rounded.h
};

struct Plan {
  std::vector<InstructionPtr> instructions;
  std::vector<Code> code;
  std::vector<PlanBlock> blocks;
  std::vector<PlanExit> exits;
  std::vector<PlanPort> inputs, outputs;
  // Code [0, shared_outputs) computes and writes batched outputs; the rest writes those that all items share, and is
  // for the first item only.
  int32_t shared_outputs = 0;
  std::vector<TensorView> views;  // a frame's, without data
  int64_t cost = 0;  // of all code: that of the longest path, and the ends of exits
  size_t arena_bytes = 0;
  size_t scratch_bytes = 0;
  // Items of a batch that go on together, if that saves time: each walks to code `join` in turn, in one arena, and leaves it
  // with its `join_live` in the first `joined_bytes` of an arena of its own. No item passes `join` without stopping there.
  int32_t join = -1;  // or never
  std::vector<ArenaSpan> join_live;
  size_t joined_bytes = 0;
  size_t joint_scratch_bytes = 0;  // for each item
  bool whole = false;
  std::vector<std::shared_ptr<const void>> kept;  // constants that instructions point into
  // Of one item: its blocks, then its exits.
  size_t decisions() const { return blocks.size() + exits.size(); }
  Frame make_frame() const;
};

struct PlanContext {
  const KernelTable& table;
  WeightCache& weights;
  int threads;           // for packing weights
  int64_t memory_limit;  // bytes that a plan may need for one item
  int32_t* progress = nullptr;  // two numbers in memory of JavaScript, for which 0 is stored: weights packed, and all
  Precision precision = Precision::kFloat32;  // as in lower()
};

// The bytes of `constants` are not needed afterwards. Throws EngineError, kOutOfMemory for a plan beyond the memory limit.
std::unique_ptr<const Plan> make_plan(const Program& program, std::span<const ConstantData> constants,
                                      const PlanContext& context);

}  // namespace rskip
