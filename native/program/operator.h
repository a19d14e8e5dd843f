// What the engine knows of an operator: how it is decoded, checked, lowered and computed.
#pragma once

#include <span>

#include "ops/cancellation.h"
#include "ops/tensor.h"
#include "program/program.h"

namespace rskip {

class Lowering;
class StepCheck;

enum class Attribute {
#define RS_ATTRIBUTE(constant, ...) constant,
#include "program/attributes.def"
#undef RS_ATTRIBUTE
};

// A step on dense tensors: views of its inputs, then of its outputs. Those of absent inputs have no data.
struct DenseStep {
  const Step& step;
  const TensorView* x;
  const TensorView* y;
  const Poll& poll;
};

struct OperatorRules {
  // Throws EngineError(kInternal) unless operands and attributes fit. All else relies on it.
  void (*check)(const StepCheck& check);
  // Drafts the instructions of a step on buffers in the kernels' layouts. False when the step is better computed on
  // dense tensors, which is what is done without it.
  bool (*lower)(Lowering& lowering, const Step& step) = nullptr;
  // Computes a step on dense tensors. Null for what is never left to it.
  void (*compute)(const DenseStep& dense) = nullptr;
};

struct Operator {
  const char* name;
  std::span<const Attribute> attributes;
  const OperatorRules* rules;
};
const Operator& operator_of(Op op);
extern const size_t kOperatorCount;

namespace operators {
#define RS_OPERATOR(constant, name, ...) extern const OperatorRules name;
#include "ops/operators.def"
#undef RS_OPERATOR
}  // namespace operators

}  // namespace rskip
