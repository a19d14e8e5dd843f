// Matrix products as other operators draft them.
#pragma once

#include <vector>

#include "plan/lowering.h"

namespace rskip {

struct GemmShape {
  int m = 0, k = 0, n = 0;
  bool trans_b = false;
};

// y = act(a * b + c + residual): operands of the step in the order of a gemm, of which matmul has the first two. b, and c
// where there is one, are constants.
void draft_gemm(Lowering& plan, const Step& step, const GemmShape& shape);

// Products one after the other in a batch; more would be better computed as dense loops than listed.
inline constexpr int64_t kMaxProducts = 1 << 16;
// Where each product of a batch finds its matrices a and b, and where its result goes.
std::vector<int64_t> product_offsets(const Ints& a, const Ints& b, const Ints& y);

}  // namespace rskip
