// Instructions from lambdas, and operands to views; for the files that make instructions.
#pragma once

#include <algorithm>
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

// The share of n numbers, cut at whole vectors.
inline Share<int64_t> span_share(int64_t n, int part, int parts) {
  const auto [begin, end] = share_of((n + kLanes - 1) / kLanes, part, parts);
  return {std::min(n, begin * kLanes), std::min(n, end * kLanes)};
}

// An instruction from a lambda: body(frame, part, parts).
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

// An instruction from a lambda that needs scratch memory: body(frame, scratch, part, parts).
template <class Body>
class WithScratch final : public Instruction {
 public:
  WithScratch(int64_t work, size_t bytes, Body body) : work_(work), bytes_(bytes), body_(std::move(body)) {}
  int64_t shareable_work() const override { return work_; }
  size_t scratch_bytes() const override { return bytes_; }

 private:
  void compute(Frame& frame, Workspace& workspace, int part, int parts) const override {
    body_(frame, workspace.scratch.data(), part, parts);
  }
  const int64_t work_;
  const size_t bytes_;
  const Body body_;
};
template <class Body>
InstructionPtr with_scratch(int64_t work, size_t bytes, Body body) {
  return std::make_unique<WithScratch<Body>>(work, bytes, std::move(body));
}

}  // namespace rskip
