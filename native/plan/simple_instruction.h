// Instructions from lambdas, and operands to views; for the files that make instructions.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>

#include "plan/kernel_instructions.h"

namespace rskip {

template <class View>
View resolve(const Frame& frame, const ImageOperand<View>& operand) {
  View view = operand.view;
  view.data = frame.at<std::remove_pointer_t<decltype(view.data)>>(operand.place);
  return view;
}

// The packed weights and views of a convolution, of floats or bytes. `residual` is what args.residual points to.
template <class Operands, class Args, class View>
void resolve_conv(const Frame& frame, const Operands& operands, Args& args, View& residual) {
  args.conv = operands.conv.get();
  if (operands.planar) {
    args.x_planar = resolve(frame, operands.x_planar);
  } else {
    args.x = resolve(frame, operands.x);
  }
  args.y = resolve(frame, operands.y);
  if (operands.has_residual) {
    residual = resolve(frame, operands.residual);
    args.residual = &residual;
  }
}

// A float read and written takes about as long as some multiply-adds.
inline constexpr int64_t kMoveWork = 8;

template <class T>
int64_t move_work(const Blocked<T>& view) {
  return static_cast<int64_t>(view.blocks()) * kLanes * view.height * view.width * kMoveWork;
}

// An instruction from a lambda: body(frame, workspace, part, parts).
template <class Body>
class Simple final : public Instruction {
 public:
  Simple(int64_t work, Body body) : work_(work), body_(std::move(body)) {}
  int64_t shareable_work() const override { return work_; }

 private:
  void compute(Frame& frame, Workspace&, int part, int parts) const override { body_(frame, part, parts); }
  const int64_t work_;
  const Body body_;
};
template <class Body>
InstructionPtr simple(int64_t work, Body body) {
  return std::make_unique<Simple<Body>>(work, std::move(body));
}

}  // namespace rskip
