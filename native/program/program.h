// The native form of lib/model/program/program.ts. A Program is decoded from words that lib/backends/encode.ts writes; nothing in
// them is trusted: decode_program() either returns a program whose indices, shapes and attributes fit each other, or
// throws EngineError(kInternal).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/table.h"
#include "kernels/types.h"
#include "ops/ops.h"
#include "ops/tensor.h"
#include "program/ids.h"

namespace rskip {

using Ints = std::vector<int64_t>;
using ValueId = Index<struct ValueTag>;
using ConstantId = Index<struct ConstantTag>;

// In the order of ops/operators.def, which is part of the encoding.
enum class Op : int32_t {
#define RS_OPERATOR(constant, ...) constant,
#include "ops/operators.def"
#undef RS_OPERATOR
};

struct Value {
  DType dtype = DType::kFloat32;
  Ints shape;
  ConstantId constant;
  int64_t elements = 1;
  size_t bytes() const { return static_cast<size_t>(elements) * dtype_size(dtype); }
};

// One step; which attributes are meaningful depends on `op`, as in lib/model/program/program.ts.
struct Step {
  Op op{};
  std::vector<ValueId> inputs, outputs;
  Activation act;
  ops::Window window;                    // conv (kernel from the weight's shape), pool
  int64_t group = 1;                     // conv
  BinaryKind binary = BinaryKind::kAdd;  // binary
  GlobalPoolKind pooled = GlobalPoolKind::kMax;
  ops::CompareKind compare = ops::CompareKind::kGt;
  ops::LogicalKind logical = ops::LogicalKind::kAnd;
  ops::PadMode pad_mode = ops::PadMode::kConstant;
  ops::ReduceKind reduce = ops::ReduceKind::kSum;
  ops::ScatterKind scatter = ops::ScatterKind::kSet;
  bool trans_b = false;            // gemm
  bool max = false;                // pool
  bool count_include_pad = false;  // pool
  bool column_major = false;       // pool
  bool squares = false;            // qpool
  bool log = false;                // softmax
  bool select_last = false;        // argMax
  bool largest = true;             // topK
  bool exclusive = false;          // cumSum
  bool reverse = false;            // cumSum
  int64_t axis = 0, depth = 0;
  int64_t batch_dims = 0;  // gatherNd
  Ints axes, perm, pads, starts, steps;
  ops::Requant requant;
  std::vector<ops::Term> terms;
  float epsilon = 0;  // layerNorm
  AttentionShape attention;
  size_t target = 0;  // branch, jump: a step, or the number of steps
};

struct Gate {
  ValueId score;
  ops::CompareKind compare = ops::CompareKind::kGt;
};

// Steps [gate_first, first) compute the gate's score, [first, end) are the body.
struct Block {
  bool skippable = false;
  bool has_gate = false;
  size_t gate_first = 0, first = 0, end = 0;
  ValueId input, output;
  Activation skip_activation;
  ValueId skip_table;  // of a stream of bytes that doesn't go around the block as it is: what becomes of each
  Gate gate;
};

// Steps [first, end) compute score and answers; they are in no block. The item ends behind them when the score reaches the
// threshold.
struct Exit {
  size_t first = 0, end = 0;
  ValueId score;
  std::vector<ValueId> answers;  // by output of the program
};

struct Port {
  ValueId value;
  bool batched = true;
};

// A constant's bytes, owned by the caller for the time of the call that gets it. Equal ids mean equal bytes,
// for the life of an engine. Without data (null and 0 bytes) they are in a file, from which they are read when they are
// needed, or the engine still holds what it made of them for another program.
struct ConstantData {
  int64_t id = 0;
  DType dtype = DType::kFloat32;
  const void* data = nullptr;
  size_t bytes = 0;
  int file = -1;  // open for reading; -1 for none
  int64_t offset = 0;
};

struct Program {
  Table<ValueId, Value> values;
  std::vector<Port> inputs, outputs;
  std::vector<Step> steps;
  std::vector<Block> blocks;
  std::vector<Exit> exits;
  bool whole = false;  // batching 'whole': always one item
  const Value& value(ValueId id) const { return values[id]; }
};

Program decode_program(std::span<const int32_t> words, std::span<const ConstantData> constants);

}  // namespace rskip
