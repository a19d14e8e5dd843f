#include <limits>
#include <string>

#include "program/check_program.h"
#include "program/check_step.h"
#include "program/operator.h"
#include "program/words.h"

namespace rskip {
namespace {

constexpr int32_t kMagic = 0x52534b50;
constexpr int32_t kVersion = 1;
constexpr size_t kMaxRank = 16;
// Far beyond any memory, far below overflow when multiplied by an element's size or a halo.
constexpr int64_t kMaxElements = int64_t{1} << 40;

Value read_value(Words& in, std::span<const ConstantData> constants) {
  Value value;
  value.dtype = in.one_of(DType::kUint64, "data type");
  value.constant = in.optional_id<ConstantId>(constants.size(), "constant");
  value.shape = in.ints(in.position(0, kMaxRank, "rank"));
  bool empty = false;
  for (int64_t d : value.shape) {
    if (d < 0) fail_program("a dimension is negative");
    if (d == 0) empty = true;
  }
  for (int64_t d : value.shape) {
    if (empty) break;
    if (value.elements > kMaxElements / d) fail_program("a value has too many elements");
    value.elements *= d;
  }
  if (empty) value.elements = 0;
  if (value.constant) {
    const std::string name = "constant " + std::to_string(value.constant.number());
    const ConstantData& data = constants[static_cast<size_t>(value.constant.number())];
    if (data.dtype != value.dtype) fail_program("the type of " + name + " differs");
    const bool held = data.data == nullptr && data.bytes == 0;
    if (!held && data.bytes != value.bytes()) fail_program("the length of " + name + " differs");
  }
  return value;
}

// Strides, pads and dilations of as many axes as come first.
void read_window(Words& in, Step& step, bool with_kernel) {
  const size_t rank = in.position(1, 3, "number of spatial axes");
  if (with_kernel) step.window.kernel = in.ints(rank);
  step.window.strides = in.ints(rank);
  step.window.pads = in.ints(2 * rank);
  step.window.dilations = in.ints(rank);
}

// As read_window; the kernel of a convolution has the extents of its weight.
void read_conv_window(Words& in, const Program& program, Step& step) {
  read_window(in, step, false);
  if (step.inputs.size() < 2 || !step.inputs[1]) return;
  const Ints& weight = program.value(step.inputs[1]).shape;
  if (weight.size() > 2) step.window.kernel.assign(weight.begin() + 2, weight.end());
}

AttentionView read_view(Words& in) {
  AttentionView view;
  for (int64_t* field : {&view.offset, &view.batch, &view.head, &view.row, &view.column}) *field = in.next();
  return view;
}

AttentionShape read_attention(Words& in) {
  AttentionShape shape;
  for (int* extent : {&shape.batch, &shape.heads, &shape.queries, &shape.keys, &shape.depth, &shape.value_depth}) {
    *extent = in.next();
  }
  shape.scale = in.real();
  shape.mask_replaces = in.flag();
  for (AttentionView* view : {&shape.q, &shape.k, &shape.v, &shape.mask, &shape.y}) *view = read_view(in);
  return shape;
}

// For program/attributes.def.
Ints read_ints(Words& in, size_t most, const char* what) { return in.ints(in.position(0, most, what)); }

ops::Requant read_requant(Words& in) {
  const int32_t zero = in.next(), low = in.next(), high = in.next();
  return {zero, low, high};
}

void read_slice(Words& in, Step& step) {
  step.starts = read_ints(in, kMaxRank, "rank");
  step.steps = in.ints(step.starts.size());
}

void read_terms(Words& in, Step& step) {
  for (size_t n = in.count("terms"); n > 0; --n) {
    const int32_t zero = in.next();
    step.terms.push_back({zero, in.real()});
  }
}

void read_attribute(Words& in, Attribute attribute, const Program& program, size_t step_count, Step& step) {
  switch (attribute) {
#define RS_ATTRIBUTE(constant, ...) \
  case Attribute::constant: __VA_ARGS__; return;
#include "program/attributes.def"
#undef RS_ATTRIBUTE
  }
}

Step read_step(Words& in, const Program& program, size_t step_count) {
  Step step;
  step.op = static_cast<Op>(in.position(0, kOperatorCount - 1, "operator"));
  const size_t input_count = in.count("inputs"), output_count = in.count("outputs"), values = program.values.size();
  for (size_t i = 0; i < input_count; ++i) step.inputs.push_back(in.optional_id<ValueId>(values, "input"));
  for (size_t i = 0; i < output_count; ++i) step.outputs.push_back(in.id<ValueId>(values, "output"));
  for (Attribute attribute : operator_of(step.op).attributes) {
    read_attribute(in, attribute, program, step_count, step);
  }
  return step;
}

Block read_block(Words& in, size_t values, size_t steps, size_t after) {
  Block block;
  const int32_t skips = in.in_range(0, 2, "kind of block");
  block.skippable = skips != 0;
  block.gate_first = in.position(after, steps, "start of a gate");
  block.first = in.position(block.gate_first, steps, "start of a block");
  block.end = in.position(block.first, steps, "end of a block");
  block.input = in.id<ValueId>(values, "input of a block");
  block.output = in.id<ValueId>(values, "output of a block");
  block.skip_activation = in.activation();
  block.has_gate = in.flag();
  if (block.has_gate) {
    block.gate.score = in.id<ValueId>(values, "score of a gate");
    block.gate.compare = in.one_of(ops::CompareKind::kLe, "comparison of a gate");
  }
  if (skips == 2) block.skip_table = in.id<ValueId>(values, "table of a block");
  return block;
}

Exit read_exit(Words& in, const Program& program, size_t after) {
  Exit exit;
  exit.first = in.position(after, program.steps.size(), "start of an exit");
  exit.end = in.position(exit.first, program.steps.size(), "end of an exit");
  exit.score = in.id<ValueId>(program.values.size(), "score of an exit");
  for (size_t i = 0; i < program.outputs.size(); ++i) {
    exit.answers.push_back(in.id<ValueId>(program.values.size(), "answer of an exit"));
  }
  return exit;
}

}  // namespace

Program decode_program(std::span<const int32_t> words, std::span<const ConstantData> constants) {
  if (words.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) fail_program("too many words");
  if (constants.size() > words.size()) fail_program("more constants than words");
  Words in(words);
  if (in.next() != kMagic || in.next() != kVersion) fail_program("unknown encoding");
  Program program;
  const size_t value_count = in.count("values");
  const size_t input_count = in.count("inputs");
  const size_t output_count = in.count("outputs");
  const size_t step_count = in.count("steps");
  const size_t block_count = in.count("blocks");
  program.whole = in.flag();
  for (size_t i = 0; i < value_count; ++i) program.values.add(read_value(in, constants));
  const auto read_ports = [&](size_t n, std::vector<Port>& ports) {
    for (size_t i = 0; i < n; ++i) {
      const ValueId value = in.id<ValueId>(value_count, "port");
      ports.push_back({value, in.flag()});
    }
  };
  read_ports(input_count, program.inputs);
  read_ports(output_count, program.outputs);
  for (size_t i = 0; i < step_count; ++i) program.steps.push_back(read_step(in, program, step_count));
  size_t after = 0;
  for (size_t i = 0; i < block_count; ++i) {
    program.blocks.push_back(read_block(in, value_count, step_count, after));
    after = program.blocks.back().end;
  }
  after = 0;
  const bool has_exits = !in.done();
  for (size_t n = has_exits ? in.count("exits") : 0; n > 0; --n) {
    program.exits.push_back(read_exit(in, program, after));
    after = program.exits.back().end;
  }
  if (has_exits && program.exits.empty()) fail_program("its list of exits is empty");
  if (!in.done()) fail_program("words are left over");
  for (size_t s = 0; s < step_count; ++s) operator_of(program.steps[s].op).rules->check(StepCheck(program, s));
  check_program(program);
  return program;
}

}  // namespace rskip
