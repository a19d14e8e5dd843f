// Matrix products as other operators draft them.
#pragma once

#include "plan/lowering.h"

namespace rskip {

struct GemmShape {
  int m = 0, k = 0, n = 0;
  bool trans_b = false;
};

// y = act(a * b + c + residual): operands of the step in the order of a gemm, of which matmul has the first two. b, and c
// where there is one, are constants.
void draft_gemm(Lowering& plan, const Step& step, const GemmShape& shape);

}  // namespace rskip
