#include "plan/rounded.h"

#include <algorithm>
#include <bit>

namespace rskip {
namespace {

// A NaN in its operands is in its result, too.
bool keeps_nan(Op op) {
  switch (op) {
    case Op::kConv:
    case Op::kGemm:
    case Op::kMatmul:
    case Op::kAffine:
    case Op::kUnary:
    case Op::kBinary:
    case Op::kPool:
    case Op::kGlobalPool:
    case Op::kReduceMean:
    case Op::kLayerNorm:
    case Op::kResample:
    case Op::kTranspose:
    case Op::kPad:
    case Op::kConcat:
    case Op::kReshape:
    case Op::kExpand: return true;
    default: return false;
  }
}

}  // namespace

void mark_rounded(const Program& program, Plan& plan) {
  // The input whose NaN a value would have; none: no input's.
  Table<ValueId, Index<PlanPort>> source(program.values.size());
  Table<ValueId, uint8_t> rounded(program.values.size());
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const ValueId value = program.inputs[i].value;
    if (program.value(value).dtype == DType::kFloat32) source[value] = Index<PlanPort>(i);
  }
  for (const Step& step : program.steps) {
    const bool rounds = step.op == Op::kQuantize || step.op == Op::kDynamicQuantize;
    bool is_rounded = false;
    Index<PlanPort> from;
    for (ValueId input : step.inputs) {
      if (!input) continue;
      is_rounded |= rounded[input] != 0;
      if (!source[input]) continue;
      if (rounds) {
        plan.inputs[static_cast<size_t>(source[input].number())].rounded = is_rounded = true;
      } else if (keeps_nan(step.op)) {
        from = source[input];
      }
    }
    for (ValueId output : step.outputs) {
      rounded[output] |= is_rounded;
      if (from) source[output] = from;
    }
  }
  for (size_t i = 0; i < program.outputs.size(); ++i) plan.outputs[i].rounded = rounded[program.outputs[i].value] != 0;
  for (size_t e = 0; e < program.exits.size(); ++e) plan.exits[e].rounded = rounded[program.exits[e].score] != 0;
}

Numbers worst_of(const float* x, size_t n) {
  constexpr uint32_t kExponent = 0x7f800000, kLeast = 0x00800000, kSign = 0x80000000;
  constexpr size_t kLanes = 16;
  // Adding one to an exponent of ones gives the sign.
  uint32_t seen[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) seen[lane] |= (std::bit_cast<uint32_t>(x[i + lane]) & kExponent) + kLeast;
  }
  uint32_t any = 0;
  for (uint32_t one : seen) any |= one;
  for (; i < n; ++i) any |= (std::bit_cast<uint32_t>(x[i]) & kExponent) + kLeast;
  if ((any & kSign) == 0) return Numbers::kFinite;
  return std::any_of(x, x + n, [](float one) { return one != one; }) ? Numbers::kNan : Numbers::kInfinite;
}

}  // namespace rskip
