// Helpers for the checks of operators, which see one step at a time, when its values are known and in range.
#pragma once

#include <cstdint>
#include <string>

#include "program/program.h"

namespace rskip {

// Strides, dilations, pads and windows beyond this make no sense and could overflow 64-bit sums.
inline constexpr int64_t kMaxWindow = INT32_MAX;

class StepCheck {
 public:
  StepCheck(const Program& program, size_t index) : step(program.steps[index]), program_(program), index_(index) {}

  const Step& step;

  // Throws EngineError(kInternal) with the step's number and operator.
  [[noreturn]] void fail(const std::string& what) const;
  void require(bool ok, const char* what) const {
    if (!ok) fail(what);
  }
  // Null when it is absent.
  const Value* optional(size_t i) const { return step.inputs[i] ? &program_.value(step.inputs[i]) : nullptr; }
  const Value& in(size_t i) const {
    const Value* value = optional(i);
    if (value == nullptr) fail("a needed input is missing");
    return *value;
  }
  const Value& out(size_t i = 0) const { return program_.value(step.outputs[i]); }

  // Every check calls this first; inputs and outputs may be read only after it.
  void counts(size_t inputs, size_t outputs) const {
    require(step.inputs.size() == inputs && step.outputs.size() == outputs, "wrong number of inputs or outputs");
  }
  void all_float() const;
  void shape_is(const Value& value, const Ints& shape) const { require(value.shape == shape, "a shape doesn't fit"); }
  // `value` has the shape of `x`, with the axes in `reduced` of length 1 or left out.
  void reduces(const Value& value, const Value& x, const Ints& reduced) const;
  void axis_in(size_t rank) const { require(step.axis >= 0 && step.axis < static_cast<int64_t>(rank), "bad axis"); }
  // Those of a convolution's and of a matrix product's first two inputs and output.
  void conv_shapes() const;
  void matmul_shapes(bool trans_b) const;
  // All inputs broadcast, as in numpy, to the output's shape; `exact`: and to no smaller one.
  void broadcasts(bool exact = true) const;
  // The step's window fits x and y. `exact`: the output's extents are those that follow from the window, rounded down.
  void window(const Value& x, const Value& y, bool exact) const;

 private:
  const Program& program_;
  const size_t index_;
};

}  // namespace rskip
