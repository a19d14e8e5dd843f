#include "plan/dense_instruction.h"

#include <utility>

#include "program/operator.h"

namespace rskip {
namespace {

class Dense final : public Instruction {
 public:
  Dense(const Step& step, std::vector<Place> operands, size_t first_view)
      : step_(step), rules_(*operator_of(step.op).rules), operands_(std::move(operands)), first_view_(first_view) {}

 private:
  void compute(Frame& frame, Workspace&, int, int) const override {
    TensorView* const views = frame.views.data() + first_view_;
    const size_t inputs = step_.inputs.size();
    for (size_t i = 0; i < operands_.size(); ++i) {
      const bool absent = i < inputs && !step_.inputs[i];
      views[i].data = absent ? nullptr : frame.at<void>(operands_[i]);
    }
    rules_.compute({step_, views, views + inputs, Poll(frame.cancellation)});
  }

  const Step step_;
  const OperatorRules& rules_;
  const std::vector<Place> operands_;
  const size_t first_view_;
};

}  // namespace

InstructionPtr make_dense(const Step& step, std::vector<Place> operands, size_t first_view) {
  return std::make_unique<Dense>(step, std::move(operands), first_view);
}

}  // namespace rskip
