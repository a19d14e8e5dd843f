#include "program/program.h"

#include <bit>
#include <limits>
#include <map>
#include <string>
#include <utility>

#include "program/error.h"

namespace rskip {
namespace {

constexpr int32_t kMagic = 0x52534b50;
constexpr int32_t kVersion = 1;
constexpr int32_t kMaxRank = 16;
// Far beyond any memory, far below overflow when multiplied by an element's size or a halo.
constexpr int64_t kMaxElements = int64_t{1} << 40;

[[noreturn]] void fail(const std::string& what) { throw EngineError(ErrorCode::kInternal, "program: " + what); }

// Reads words in order; every read is checked.
class Reader {
 public:
  explicit Reader(std::span<const int32_t> words) : words_(words) {}
  int32_t next() {
    if (at_ >= words_.size()) fail("the words end too early");
    return words_[at_++];
  }
  int32_t in_range(int32_t low, int32_t high, const char* what) {
    const int32_t v = next();
    if (v < low || v > high) fail(std::string(what) + " " + std::to_string(v) + " is out of range");
    return v;
  }
  // A count of things that take at least one word each.
  int32_t count(const char* what) {
    const int32_t v = next();
    if (v < 0 || static_cast<size_t>(v) > words_.size() - at_) fail(std::string("bad number of ") + what);
    return v;
  }
  bool flag() { return in_range(0, 1, "flag") != 0; }
  float real() { return std::bit_cast<float>(next()); }
  Ints ints(int32_t n) {
    if (n < 0 || static_cast<size_t>(n) > words_.size() - at_) fail("a list is longer than the words");
    Ints out(static_cast<size_t>(n));
    for (int64_t& v : out) v = next();
    return out;
  }
  Activation activation() {
    Activation act;
    act.kind = static_cast<ActivationKind>(in_range(0, static_cast<int32_t>(ActivationKind::kTanh), "activation"));
    act.alpha = real();
    act.beta = real();
    return act;
  }
  bool done() const { return at_ == words_.size(); }

 private:
  std::span<const int32_t> words_;
  size_t at_ = 0;
};

Value read_value(Reader& in, std::span<const ConstantData> constants) {
  Value value;
  value.dtype = static_cast<DType>(in.in_range(0, static_cast<int32_t>(DType::kBool), "data type"));
  value.constant = in.in_range(kNone, static_cast<int32_t>(constants.size()) - 1, "constant");
  value.shape = in.ints(in.in_range(0, kMaxRank, "rank"));
  bool empty = false;
  for (int64_t d : value.shape) {
    if (d < 0) fail("a dimension is negative");
    if (d == 0) empty = true;
  }
  for (int64_t d : value.shape) {
    if (empty) break;
    if (value.elements > kMaxElements / d) fail("a value has too many elements");
    value.elements *= d;
  }
  if (empty) value.elements = 0;
  if (value.constant != kNone) {
    const ConstantData& data = constants[static_cast<size_t>(value.constant)];
    if (data.dtype != value.dtype) fail("the type of constant " + std::to_string(value.constant) + " differs");
    const bool held = data.data == nullptr && data.bytes == 0;
    if (!held && data.bytes != value.bytes()) fail("the length of constant " + std::to_string(value.constant) + " differs");
  }
  return value;
}

void read_attributes(Reader& in, int32_t step_count, Step& step) {
  const auto axis = [&] { step.axis = in.in_range(0, kMaxRank - 1, "axis"); };
  const auto window = [&](bool kernel) {
    const int32_t rank = in.in_range(1, 3, "number of spatial axes");
    if (kernel) step.window.kernel = in.ints(rank);
    step.window.strides = in.ints(rank);
    step.window.pads = in.ints(2 * rank);
    step.window.dilations = in.ints(rank);
  };
  switch (step.op) {
    case Op::kConv:
      step.group = in.next();
      step.act = in.activation();
      window(false);
      break;
    case Op::kGemm:
      step.trans_b = in.flag();
      step.act = in.activation();
      break;
    case Op::kAffine:
    case Op::kUnary: step.act = in.activation(); break;
    case Op::kBinary:
      step.binary = static_cast<BinaryKind>(in.in_range(0, 3, "binary kind"));
      step.act = in.activation();
      break;
    case Op::kCompare: step.compare = static_cast<ops::CompareKind>(in.in_range(0, 4, "compare kind")); break;
    case Op::kLogical: step.logical = static_cast<ops::LogicalKind>(in.in_range(0, 2, "logical kind")); break;
    case Op::kPool:
      step.max = in.flag();
      step.count_include_pad = in.flag();
      step.column_major = in.flag();
      window(true);
      break;
    case Op::kGlobalPool: step.max = in.flag(); break;
    case Op::kReduceMean: step.axes = in.ints(in.in_range(0, kMaxRank, "number of axes")); break;
    case Op::kSoftmax:
      axis();
      step.log = in.flag();
      break;
    case Op::kArgMax:
      axis();
      step.select_last = in.flag();
      break;
    case Op::kOneHot:
      axis();
      step.depth = in.in_range(0, std::numeric_limits<int32_t>::max(), "depth");
      break;
    case Op::kGather:
    case Op::kConcat: axis(); break;
    case Op::kTranspose: step.perm = in.ints(in.in_range(0, kMaxRank, "rank")); break;
    case Op::kPad:
      step.pad_mode = static_cast<ops::PadMode>(in.in_range(0, 3, "pad mode"));
      step.value = in.real();
      step.pads = in.ints(in.in_range(0, 2 * kMaxRank, "number of pads"));
      break;
    case Op::kSlice: {
      const int32_t rank = in.in_range(0, kMaxRank, "rank");
      step.starts = in.ints(rank);
      step.steps = in.ints(rank);
      break;
    }
    case Op::kBranch:
    case Op::kJump: step.target = in.in_range(0, step_count, "target"); break;
    case Op::kMatmul:
    case Op::kWhere:
    case Op::kCast:
    case Op::kReshape:
    case Op::kExpand: break;
  }
}

Step read_step(Reader& in, int32_t values, int32_t step_count) {
  Step step;
  step.op = static_cast<Op>(in.in_range(0, kOpCount - 1, "operator"));
  const int32_t input_count = in.count("inputs");
  const int32_t output_count = in.count("outputs");
  for (int32_t i = 0; i < input_count; ++i) step.inputs.push_back(in.in_range(kNone, values - 1, "input"));
  for (int32_t i = 0; i < output_count; ++i) step.outputs.push_back(in.in_range(0, values - 1, "output"));
  read_attributes(in, step_count, step);
  return step;
}

Block read_block(Reader& in, int32_t values, int32_t steps, int32_t after) {
  Block block;
  block.skippable = in.flag();
  block.gate_first = in.in_range(after, steps, "start of a gate");
  block.first = in.in_range(block.gate_first, steps, "start of a block");
  block.end = in.in_range(block.first, steps, "end of a block");
  block.input = in.in_range(0, values - 1, "input of a block");
  block.output = in.in_range(0, values - 1, "output of a block");
  block.skip_activation = in.activation();
  block.has_gate = in.flag();
  if (block.has_gate) {
    block.gate.score = in.in_range(0, values - 1, "score of a gate");
    block.gate.compare = static_cast<ops::CompareKind>(in.in_range(0, 3, "comparison of a gate"));
  }
  return block;
}

// What every path has written that leads through either.
void join_paths(std::vector<bool>& ready, const std::vector<bool>& other) {
  for (size_t v = 0; v < ready.size(); ++v) ready[v] = ready[v] && other[v];
}

// On every path, a value that is read has been written before, is an input, or is a constant. Jumps lead forwards.
void check_order(const Program& program) {
  std::vector<bool> fixed(program.values.size());
  for (size_t v = 0; v < fixed.size(); ++v) fixed[v] = program.values[v].constant != kNone;
  for (const Port& port : program.inputs) {
    if (fixed[static_cast<size_t>(port.value)]) fail("an input is a constant or is listed twice");
    fixed[static_cast<size_t>(port.value)] = true;
  }
  std::vector<bool> ready = fixed;
  std::map<int32_t, std::vector<bool>> arriving;  // by jumps, at their targets
  bool falls_through = true;                      // from the step before
  size_t block = 0;
  for (size_t s = 0; s <= program.steps.size(); ++s) {
    if (const auto jump = arriving.find(static_cast<int32_t>(s)); jump != arriving.end()) {
      if (falls_through) {
        join_paths(ready, jump->second);
      } else {
        ready = std::move(jump->second);
      }
      arriving.erase(jump);
      falls_through = true;
    }
    for (; block < program.blocks.size() && static_cast<size_t>(program.blocks[block].first) == s; ++block) {
      const Block& b = program.blocks[block];
      if (!ready[static_cast<size_t>(b.input)]) fail("a block's input isn't there yet");
      if (b.has_gate && !ready[static_cast<size_t>(b.gate.score)]) fail("a gate's score isn't there yet");
    }
    if (s == program.steps.size()) break;
    const Step& step = program.steps[s];
    for (int32_t v : step.inputs) {
      if (v != kNone && !ready[static_cast<size_t>(v)]) fail("step " + std::to_string(s) + " reads a value too early");
    }
    for (int32_t v : step.outputs) {
      if (fixed[static_cast<size_t>(v)]) fail("step " + std::to_string(s) + " writes a constant or an input");
      for (int32_t in : step.inputs) {
        if (in == v) fail("step " + std::to_string(s) + " reads what it writes");
      }
      ready[static_cast<size_t>(v)] = true;
    }
    if (step.op != Op::kBranch && step.op != Op::kJump) continue;
    if (const auto [there, first] = arriving.try_emplace(step.target, ready); !first) join_paths(there->second, ready);
    falls_through = step.op == Op::kBranch;
  }
  for (const Port& port : program.outputs) {
    if (!ready[static_cast<size_t>(port.value)]) fail("an output is never written");
  }
}

// What is written in a range that may be skipped must not be read outside of it, but for `leaves`.
void check_contained(const Program& program, int32_t first, int32_t end, int32_t leaves, const char* what) {
  std::vector<bool> inside(program.values.size());
  for (int32_t s = first; s < end; ++s) {
    for (int32_t v : program.steps[static_cast<size_t>(s)].outputs) inside[static_cast<size_t>(v)] = v != leaves;
  }
  const auto leaks = [&](int32_t v) { return v != kNone && inside[static_cast<size_t>(v)]; };
  bool leak = false;
  for (int32_t s = 0; s < static_cast<int32_t>(program.steps.size()); ++s) {
    if (s >= first && s < end) continue;
    const Step& step = program.steps[static_cast<size_t>(s)];
    for (int32_t v : step.inputs) leak = leak || leaks(v);
    for (int32_t v : step.outputs) leak = leak || leaks(v);
  }
  for (const Port& port : program.outputs) leak = leak || leaks(port.value);
  if (leak) fail(std::string("a value leaves ") + what);
}

void check_block(const Program& program, const Block& block) {
  if (block.has_gate) {
    const Value& score = program.value(block.gate.score);
    if (score.dtype != DType::kFloat32 || score.elements != 1) fail("a gate's score is not one float32");
    if (!block.skippable) fail("a gated block is not skippable");
  }
  if (block.gate_first < block.first) {
    if (!block.has_gate) fail("a block has gate steps but no gate");
    // Not even the score: a block that is made to run or to skip never asks its gate.
    check_contained(program, block.gate_first, block.first, kNone, "the steps of a gate");
  }
  if (!block.skippable) return;
  const Value& in = program.value(block.input);
  const Value& out = program.value(block.output);
  if (block.first == block.end) fail("a skippable block is empty");
  if (in.dtype != out.dtype || in.shape != out.shape) fail("the two ends of a skippable block differ in shape");
  if (in.dtype != DType::kFloat32 && block.skip_activation.kind != ActivationKind::kNone) {
    fail("an activation on a block that is not float32");
  }
  const Step& last = program.steps[static_cast<size_t>(block.end - 1)];
  if (last.outputs.size() != 1 || last.outputs[0] != block.output) fail("a block's last step doesn't write its output");
  for (size_t s = 0; s < program.steps.size(); ++s) {
    if (static_cast<int32_t>(s) == block.end - 1) continue;
    for (int32_t v : program.steps[s].outputs) {
      if (v == block.output) fail("a block's output is written elsewhere");
      if (v == block.input && static_cast<int32_t>(s) >= block.gate_first)
        fail("a block's input is written after its start");
    }
  }
  check_contained(program, block.first, block.end, block.output, "a skippable block");
}

// Targets lie ahead, and no edge enters or leaves the middle of a block or of its gate.
void check_control(const Program& program) {
  for (int32_t s = 0; s < static_cast<int32_t>(program.steps.size()); ++s) {
    const Step& step = program.steps[static_cast<size_t>(s)];
    if (step.op != Op::kBranch && step.op != Op::kJump) continue;
    if (step.target <= s) fail("a jump goes backwards");
    for (const Block& b : program.blocks) {
      const auto crosses = [&](int32_t first, int32_t end) {
        const bool from_inside = s >= first && s < end;
        const bool to_inside = step.target > first && step.target < end;
        return (from_inside && step.target > end) || (!from_inside && to_inside);
      };
      if (crosses(b.gate_first, b.end) || crosses(b.gate_first, b.first) || crosses(b.first, b.end)) {
        fail("a jump crosses the border of a block");
      }
      // A jump to a block's own start from outside is fine; from its gate it would avoid the decision.
      if (s >= b.gate_first && s < b.first && step.target > b.first) fail("a jump leaves a gate");
    }
  }
}

}  // namespace

const char* op_name(Op op) {
  static constexpr const char* kNames[kOpCount] = {
      "conv", "gemm",  "matmul",     "affine",     "unary",   "binary", "compare", "logical", "where",
      "cast", "pool",  "globalPool", "reduceMean", "softmax", "argMax", "oneHot",  "gather",  "transpose",
      "pad",  "slice", "concat",     "reshape",    "expand",  "branch", "jump"};
  return kNames[static_cast<size_t>(op)];
}

Program decode_program(std::span<const int32_t> words, std::span<const ConstantData> constants) {
  if (words.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) fail("too many words");
  if (constants.size() > words.size()) fail("more constants than words");
  Reader in(words);
  if (in.next() != kMagic || in.next() != kVersion) fail("unknown encoding");
  Program program;
  const int32_t value_count = in.count("values");
  const int32_t input_count = in.count("inputs");
  const int32_t output_count = in.count("outputs");
  const int32_t step_count = in.count("steps");
  const int32_t block_count = in.count("blocks");
  program.whole = in.flag();
  for (int32_t i = 0; i < value_count; ++i) program.values.push_back(read_value(in, constants));
  const auto read_ports = [&](int32_t n, std::vector<Port>& ports) {
    for (int32_t i = 0; i < n; ++i) {
      const int32_t value = in.in_range(0, value_count - 1, "port");
      ports.push_back({value, in.flag()});
    }
  };
  read_ports(input_count, program.inputs);
  read_ports(output_count, program.outputs);
  for (int32_t i = 0; i < step_count; ++i) program.steps.push_back(read_step(in, value_count, step_count));
  int32_t after = 0;
  for (int32_t i = 0; i < block_count; ++i) {
    program.blocks.push_back(read_block(in, value_count, step_count, after));
    after = program.blocks.back().end;
  }
  if (!in.done()) fail("words are left over");
  for (size_t s = 0; s < program.steps.size(); ++s) {
    validate_step(program, s);
    Step& step = program.steps[s];
    if (step.op != Op::kConv) continue;
    const Ints& weight = program.value(step.inputs[1]).shape;
    step.window.kernel.assign(weight.begin() + 2, weight.end());
  }
  check_control(program);
  check_order(program);
  for (const Block& block : program.blocks) check_block(program, block);
  return program;
}

}  // namespace rskip
