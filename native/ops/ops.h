// The long tail of operators in plain C++ loops, on dense tensors of any rank. Semantics are those of the
// steps in lib/model/program/program.ts. Results don't depend on the instruction set: this code is compiled once,
// with contraction off. Long loops poll, and throw Cancelled when asked to end.
#pragma once

#include <vector>

#include "kernels/table.h"
#include "kernels/types.h"
#include "ops/cancellation.h"
#include "ops/tensor.h"

namespace rskip::ops {

using Ints = std::vector<int64_t>;

struct Window {
  Ints kernel, strides, pads, dilations;  // pads: begins, then ends
};

enum class CompareKind : int32_t { kGt, kGe, kLt, kLe, kEq };
enum class LogicalKind : int32_t { kAnd, kOr, kNot };
enum class ReduceKind : int32_t { kSum, kProd, kMin, kMax };
enum class ScatterKind : int32_t { kSet, kAdd, kMul, kMin, kMax };
enum class PadMode : int32_t { kConstant, kReflect, kEdge, kWrap };

// 1 to 3 spatial axes, dynamic weights allowed; bias and residual may have null data.
void conv(const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
          const Window& win, int64_t group, Activation act, const TensorView& y, Poll poll = {});
void gemm(const TensorView& a, const TensorView& b, const TensorView& c, const TensorView& residual, bool trans_b,
          Activation act, const TensorView& y, Poll poll = {});
void matmul(const TensorView& a, const TensorView& b, const TensorView& y, Poll poll = {});
void unary(const TensorView& x, Activation act, const TensorView& y, Poll poll = {});
void binary(BinaryKind kind, const TensorView& a, const TensorView& b, Activation act, const TensorView& y, Poll poll = {});
// x to the power of y as C defines it; largest error about 0.5 ulp.
float float_power(float x, float y);
void compare(CompareKind kind, const TensorView& a, const TensorView& b, const TensorView& y, Poll poll = {});
void logical(LogicalKind kind, const TensorView& a, const TensorView& b, const TensorView& y, Poll poll = {});
void where(const TensorView& condition, const TensorView& a, const TensorView& b, const TensorView& y, Poll poll = {});
void cast(const TensorView& x, const TensorView& y, Poll poll = {});
// indices may have null data.
void pool(const TensorView& x, const Window& win, bool max, bool count_include_pad, bool column_major,
          const TensorView& y, const TensorView& indices, Poll poll = {});
void global_pool(const TensorView& x, GlobalPoolKind kind, const TensorView& y, Poll poll = {});
void reduce_mean(const TensorView& x, const Ints& axes, const TensorView& y, Poll poll = {});
// scale and shift may have null data.
void layer_norm(const TensorView& x, const TensorView& scale, const TensorView& shift, int64_t axis, float epsilon,
                const TensorView& y, Poll poll = {});
void arg_max(const TensorView& x, int64_t axis, bool select_last, const TensorView& y, Poll poll = {});
// Best first; as many as y has at `axis`.
void top_k(const TensorView& x, int64_t axis, bool largest, const TensorView& y, const TensorView& indices, Poll poll = {});
void one_hot(const TensorView& indices, const TensorView& values, int64_t axis, int64_t depth, const TensorView& y, Poll poll = {});
// False when an index is out of range (nothing outside the tensors is read).
bool gather(const TensorView& data, const TensorView& indices, int64_t axis, const TensorView& y, Poll poll = {});
void transpose(const TensorView& x, const Ints& perm, const TensorView& y, Poll poll = {});
// value may have null data, which stands for 0.
void pad(const TensorView& x, const TensorView& value, const Ints& pads, PadMode mode, const TensorView& y, Poll poll = {});
void slice(const TensorView& x, const Ints& starts, const Ints& steps, const TensorView& y, Poll poll = {});
void concat(const std::vector<TensorView>& xs, int64_t axis, const TensorView& y, Poll poll = {});
void expand(const TensorView& x, const TensorView& y, Poll poll = {});
void reduce(ReduceKind kind, const TensorView& x, const Ints& axes, const TensorView& y, Poll poll = {});
void cum_sum(const TensorView& x, int64_t axis, bool exclusive, bool reverse, const TensorView& y, Poll poll = {});
// These are false when an index is out of range (nothing outside the tensors is read or written).
bool gather_elements(const TensorView& data, const TensorView& indices, int64_t axis, const TensorView& y, Poll poll = {});
bool gather_nd(const TensorView& data, const TensorView& indices, int64_t batch_dims, const TensorView& y, Poll poll = {});
bool scatter_elements(const TensorView& data, const TensorView& indices, const TensorView& updates, int64_t axis,
                      ScatterKind kind, const TensorView& y, Poll poll = {});
bool scatter_nd(const TensorView& data, const TensorView& indices, const TensorView& updates, ScatterKind kind,
                const TensorView& y, Poll poll = {});

// How a number becomes a byte: min(max(round(v), low - zero), high - zero) + zero; of two equally near integers the even one.
struct Requant {
  int32_t zero = 0, low = 0, high = 0;
};
// A byte stands for (x - zero) * factor.
struct Term {
  int32_t zero = 0;
  float factor = 1;
};
// Of qconv and qmatmul; all but x and w may have null data.
struct QuantizedOperands {
  const TensorView &x, &w, &bias, &scale, &x_zero, &w_zero;
};

// zero may have null data.
void quantize(const TensorView& x, const TensorView& scale, const TensorView& zero, int64_t axis, const TensorView& y, Poll poll = {});
void dequantize(const TensorView& x, const TensorView& scale, const TensorView& zero, int64_t axis, const TensorView& y, Poll poll = {});
void dynamic_quantize(const TensorView& x, const TensorView& y, const TensorView& scale, const TensorView& zero, Poll poll = {});
void qconv(const QuantizedOperands& o, const Window& win, int64_t group, Activation act, const Requant& requant,
           const TensorView& y, Poll poll = {});
void qmatmul(const QuantizedOperands& o, bool trans_b, Activation act, const Requant& requant, const TensorView& y, Poll poll = {});
void qbinary(const TensorView& a, const TensorView& b, bool mul, const std::vector<Term>& terms, const Requant& requant,
             const TensorView& y, Poll poll = {});
void qglobal_pool(const TensorView& x, const Term& term, const Requant& requant, const TensorView& y, Poll poll = {});
void qpool(const TensorView& x, const Window& win, bool squares, const Term& term, const TensorView& y, Poll poll = {});
void lookup(const TensorView& x, const TensorView& table, const TensorView& y, Poll poll = {});

}  // namespace rskip::ops
