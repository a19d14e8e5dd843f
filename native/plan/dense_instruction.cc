#include "plan/dense_instruction.h"

#include <string>
#include <utility>

#include "ops/ops.h"
#include "program/error.h"

namespace rskip {
namespace {

class Dense final : public Instruction {
 public:
  Dense(const Step& step, std::vector<bool> present, std::vector<Place> operands, size_t first_view)
      : step_(step), present_(std::move(present)), operands_(std::move(operands)), first_view_(first_view) {}

 private:
  void compute(Frame& frame, Workspace&, int, int) const override {
    TensorView* views = frame.views.data() + first_view_;
    for (size_t i = 0; i < operands_.size(); ++i) {
      views[i].data = present_[i] ? frame.at<void>(operands_[i]) : nullptr;
    }
    dispatch(views, views[step_.inputs.size()], Poll(frame.cancellation));
  }

  void dispatch(const TensorView* x, const TensorView& y, const Poll& poll) const {
    const Step& s = step_;
    switch (s.op) {
      case Op::kConv: return ops::conv(x[0], x[1], x[2], x[3], s.window, s.group, s.act, y, poll);
      case Op::kGemm: return ops::gemm(x[0], x[1], x[2], x[3], s.trans_b, s.act, y, poll);
      case Op::kMatmul: return ops::matmul(x[0], x[1], y, poll);
      case Op::kAffine: return ops::affine(x[0], x[1], x[2], s.act, y, poll);
      case Op::kUnary: return ops::unary(x[0], s.act, y, poll);
      case Op::kBinary: return ops::binary(s.binary, x[0], x[1], s.act, y, poll);
      case Op::kCompare: return ops::compare(s.compare, x[0], x[1], y, poll);
      case Op::kLogical: return ops::logical(s.logical, x[0], s.logical == ops::LogicalKind::kNot ? x[0] : x[1], y, poll);
      case Op::kWhere: return ops::where(x[0], x[1], x[2], y, poll);
      case Op::kCast: return ops::cast(x[0], y, poll);
      case Op::kPool: {
        static const TensorView kNoIndices;
        const TensorView& indices = s.outputs.size() == 2 ? (&y)[1] : kNoIndices;
        return ops::pool(x[0], s.window, s.max, s.count_include_pad, s.column_major, y, indices, poll);
      }
      case Op::kGlobalPool: return ops::global_pool(x[0], s.max, y, poll);
      case Op::kReduceMean: return ops::reduce_mean(x[0], s.axes, y, poll);
      case Op::kSoftmax: return ops::softmax(x[0], s.axis, s.log, y, poll);
      case Op::kArgMax: return ops::arg_max(x[0], s.axis, s.select_last, y, poll);
      case Op::kOneHot: return ops::one_hot(x[0], x[1], s.axis, s.depth, y, poll);
      case Op::kGather:
        if (!ops::gather(x[0], x[1], s.axis, y, poll)) {
          throw EngineError(ErrorCode::kInvalidArgument, "gather: an index is outside of [-n, n) with n = " +
                                                             std::to_string(x[0].shape[static_cast<size_t>(s.axis)]) +
                                                             " on axis " + std::to_string(s.axis));
        }
        return;
      case Op::kTranspose: return ops::transpose(x[0], s.perm, y, poll);
      case Op::kPad: return ops::pad(x[0], s.pads, s.pad_mode, s.value, y, poll);
      case Op::kSlice: return ops::slice(x[0], s.starts, s.steps, y, poll);
      case Op::kConcat: return ops::concat({x, x + s.inputs.size()}, s.axis, y, poll);
      case Op::kExpand: return ops::expand(x[0], y, poll);
      case Op::kReshape:
      case Op::kBranch:
      case Op::kJump: return;  // never made into instructions of this kind
    }
  }

  const Step step_;
  const std::vector<bool> present_;
  const std::vector<Place> operands_;
  const size_t first_view_;
};

}  // namespace

InstructionPtr make_dense(const Step& step, std::vector<Place> operands, size_t first_view) {
  std::vector<bool> present(operands.size(), true);
  for (size_t i = 0; i < step.inputs.size(); ++i) present[i] = step.inputs[i] != kNone;
  return std::make_unique<Dense>(step, std::move(present), std::move(operands), first_view);
}

std::vector<TensorView> dense_views(const Program& program, const Step& step) {
  std::vector<TensorView> views;
  const auto add = [&](int32_t id) {
    TensorView view;
    if (id != kNone) {
      view.dtype = program.value(id).dtype;
      view.shape = program.value(id).shape;
    }
    views.push_back(std::move(view));
  };
  for (int32_t id : step.inputs) add(id);
  for (int32_t id : step.outputs) add(id);
  return views;
}

}  // namespace rskip
