// Operators that decide which step is next. Planning lowers them itself.
#include "program/check_step.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_branch(const StepCheck& c) {
  c.counts(1, 0);
  c.require(c.in(0).dtype == DType::kBool && c.in(0).elements == 1, "the condition is not one bool");
}

void check_jump(const StepCheck& c) { c.counts(0, 0); }

}  // namespace

const OperatorRules operators::branch = {.check = check_branch};
const OperatorRules operators::jump = {.check = check_jump};

}  // namespace rskip
