// Operators that reduce or normalise along axes, and what turns indices into elements.
#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ops/ops.h"
#include "ops/rows.h"
#include "plan/lowering.h"
#include "plan/simple_instruction.h"
#include "program/check_step.h"
#include "program/error.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_global_pool(const StepCheck& c) {
  c.counts(1, 1);
  c.all_float();
  const Ints& x = c.in(0).shape;
  c.require(x.size() >= 2, "bad rank");
  Ints kept(x.size(), 1);
  kept[0] = x[0];
  kept[1] = x[1];
  c.require(c.out().shape == kept || c.out().shape == Ints{x[0], x[1]}, "a shape doesn't fit");
}

bool lower_global_pool(Lowering& plan, ValueId x_id, ValueId y_id, GlobalPoolKind kind) {
  if (!plan.blocked_at_home(x_id)) return false;
  const NodeId from = plan.request_blocked(x_id);
  const NodeId to = plan.target(y_id, Form::kDense);
  const Image x = plan.image(from);
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return for_images(x.n, [&](int n) {
                    const Place y = e.place(to).plus(int64_t{n} * x.c * static_cast<int64_t>(sizeof(float)));
                    return make_global_pool(e.table(), e.blocked(from, n), kind, y);
                  });
                }});
  return true;
}

// Over axes from `first` on, with something on them: one number of each row.
bool lower_rows(Lowering& plan, const Step& step, RowReduction kind, size_t first) {
  const Value& x = plan.value(step.inputs[0]);
  if (x.dtype != DType::kFloat32 || x.elements == 0) return false;
  const NodeId from = plan.request(step.inputs[0], Form::kDense), to = plan.target(step.outputs[0], Form::kDense);
  const int64_t n = ops::product(x.shape, first, x.shape.size()), rows = x.elements / n;
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return make_reduce_rows(e.table(), kind, e.place(from), e.place(to), rows, n);
                }});
  return true;
}

bool lower_global_pool(Lowering& plan, const Step& step) {
  if (lower_global_pool(plan, step.inputs[0], step.outputs[0], step.pooled)) return true;
  if (step.pooled == GlobalPoolKind::kMeanSquare) return false;
  return lower_rows(plan, step, step.pooled == GlobalPoolKind::kMax ? RowReduction::kMax : RowReduction::kMean, 2);
}

void compute_global_pool(const DenseStep& d) { ops::global_pool(d.x[0], d.step.pooled, *d.y, d.poll); }

// Sorted, and y's shape is what is left.
void check_axes(const StepCheck& c) {
  int64_t last = -1;
  for (int64_t axis : c.step.axes) {
    c.require(axis > last && axis < static_cast<int64_t>(c.in(0).shape.size()), "bad axes");
    last = axis;
  }
  c.reduces(c.out(), c.in(0), c.step.axes);
}

void check_reduce_mean(const StepCheck& c) {
  c.counts(1, 1);
  c.all_float();
  check_axes(c);
}

void check_reduce(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype == c.out().dtype && c.in(0).dtype != DType::kBool, "bad types");
  check_axes(c);
}

bool lower_last_axes(Lowering& plan, const Step& step, RowReduction kind) {
  const size_t kept = plan.value(step.inputs[0]).shape.size() - step.axes.size();
  return !step.axes.empty() && step.axes[0] == static_cast<int64_t>(kept) && lower_rows(plan, step, kind, kept);
}

bool lower_reduce(Lowering& plan, const Step& step) {
  switch (step.reduce) {
    case ops::ReduceKind::kSum:
      return lower_last_axes(plan, step, RowReduction::kSum);
    case ops::ReduceKind::kMax:
      return lower_last_axes(plan, step, RowReduction::kMax);
    case ops::ReduceKind::kMin:
      return lower_last_axes(plan, step, RowReduction::kMin);
    default:
      return false;
  }
}

void compute_reduce(const DenseStep& d) { ops::reduce(d.step.reduce, d.x[0], d.step.axes, *d.y, d.poll); }

void check_cum_sum(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype == c.out().dtype && c.in(0).dtype != DType::kBool, "bad types");
  c.axis_in(c.in(0).shape.size());
  c.shape_is(c.out(), c.in(0).shape);
}

void compute_cum_sum(const DenseStep& d) {
  ops::cum_sum(d.x[0], d.step.axis, d.step.exclusive, d.step.reverse, *d.y, d.poll);
}

// A mean over exactly the spatial axes of a map in blocks is a global average pool.
bool lower_reduce_mean(Lowering& plan, const Step& step) {
  const size_t rank = plan.value(step.inputs[0]).shape.size();
  if (rank >= 3 && step.axes.size() == rank - 2 && step.axes[0] == 2 &&
      lower_global_pool(plan, step.inputs[0], step.outputs[0], GlobalPoolKind::kMean))
    return true;
  return lower_last_axes(plan, step, RowReduction::kMean);
}

void compute_reduce_mean(const DenseStep& d) { ops::reduce_mean(d.x[0], d.step.axes, *d.y, d.poll); }

void check_softmax(const StepCheck& c) {
  c.counts(1, 1);
  c.all_float();
  c.axis_in(c.in(0).shape.size());
  c.shape_is(c.out(), c.in(0).shape);
}

bool lower_softmax(Lowering& plan, const Step& step) {
  const Value& x = plan.value(step.inputs[0]);
  const NodeId from = plan.request(step.inputs[0], Form::kDense), to = plan.target(step.outputs[0], Form::kDense);
  const ops::Split s = ops::split_at(x.shape, step.axis);
  plan.compute({.reads = {from}, .write = to, .in_place = {from}, .make = [=, log = step.log](const Emitter& e) {
                  if (s.inner == 1) return make_softmax_rows(e.table(), e.place(from), e.place(to), s.outer, s.length, log);
                  return make_softmax_columns(e.table(), e.place(from), e.place(to), {s.outer, s.length, s.inner}, log);
                }});
  return true;
}

void check_layer_norm(const StepCheck& c) {
  c.counts(3, 1);
  c.all_float();
  const Ints& x = c.in(0).shape;
  c.axis_in(x.size());
  for (size_t i : {1, 2}) {
    if (const Value* vector = c.optional(i)) c.shape_is(*vector, {x[static_cast<size_t>(c.step.axis)]});
  }
  c.shape_is(c.out(), x);
}

// Over the channels of a map, or over rows.
bool lower_layer_norm(Lowering& plan, const Step& step) {
  const Value& x = plan.value(step.inputs[0]);
  const int64_t last = static_cast<int64_t>(x.shape.size()) - 1;
  Image in, out;
  const bool blocked = step.axis == 1 && last > 1 && plan.as_images(step, &in, &out);
  if (x.elements == 0 || (step.axis != last && !blocked)) return false;
  const NodeId from = blocked ? plan.request_blocked(step.inputs[0]) : plan.request(step.inputs[0], Form::kDense);
  std::vector<NodeId> reads = {from};
  std::array<NodeId, 2> vectors;
  for (size_t i = 0; i < 2; ++i) {
    if (!step.inputs[i + 1]) continue;
    vectors[i] = plan.request(step.inputs[i + 1], Form::kDense);
    reads.push_back(vectors[i]);
  }
  const NodeId to = plan.target(step.outputs[0], blocked ? Form::kBlocked : Form::kDense);
  const int64_t n = x.shape[static_cast<size_t>(step.axis)], rows = x.elements / n;
  const Image image = plan.image(from);
  Draft draft{.reads = std::move(reads), .write = to, .in_place = {from}};
  draft.make = [=, epsilon = step.epsilon](const Emitter& e) {
    NormOperands o{n, epsilon, {}, {}};
    if (vectors[0]) o.scale = e.place(vectors[0]);
    if (vectors[1]) o.shift = e.place(vectors[1]);
    if (!blocked) return make_norm_rows(e.table(), e.place(from), o, e.place(to), rows);
    return for_images(image.n,
                      [&](int i) { return make_norm_channels(e.table(), e.blocked(from, i), o, e.blocked(to, i)); });
  };
  plan.compute(std::move(draft));
  return true;
}

void compute_layer_norm(const DenseStep& d) {
  ops::layer_norm(d.x[0], d.x[1], d.x[2], d.step.axis, d.step.epsilon, *d.y, d.poll);
}

void check_arg_max(const StepCheck& c) {
  c.counts(1, 1);
  c.require(c.in(0).dtype != DType::kBool && c.out().dtype == DType::kInt64, "bad types");
  c.axis_in(c.in(0).shape.size());
  c.require(c.in(0).shape[static_cast<size_t>(c.step.axis)] > 0, "the maximum of nothing");
  c.reduces(c.out(), c.in(0), {c.step.axis});
}

bool lower_arg_max(Lowering& plan, const Step& step) {
  const Value& x = plan.value(step.inputs[0]);
  const ops::Split s = ops::split_at(x.shape, step.axis);
  // The kernels count in floats.
  if (x.dtype != DType::kFloat32 || step.select_last || s.length >= int64_t{1} << 24) return false;
  const NodeId from = plan.request(step.inputs[0], Form::kDense), to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return make_arg_max(e.table(), e.place(from), e.place(to), {s.outer, s.length, s.inner});
                }});
  return true;
}

void compute_arg_max(const DenseStep& d) { ops::arg_max(d.x[0], d.step.axis, d.step.select_last, *d.y, d.poll); }

void check_top_k(const StepCheck& c) {
  c.counts(1, 2);
  const DType type = c.in(0).dtype;
  c.require((type == DType::kFloat32 || type == DType::kInt64) && c.out().dtype == type, "bad types");
  c.require(c.out(1).dtype == DType::kInt64, "the indices are not int64");
  c.axis_in(c.in(0).shape.size());
  Ints shape = c.in(0).shape;
  int64_t& length = shape[static_cast<size_t>(c.step.axis)];
  c.require(c.out().shape.size() == shape.size(), "bad rank");
  const int64_t found = c.out().shape[static_cast<size_t>(c.step.axis)];
  c.require(found <= length, "more are asked for than there are");
  length = found;
  c.shape_is(c.out(), shape);
  c.shape_is(c.out(1), shape);
}

void compute_top_k(const DenseStep& d) { ops::top_k(d.x[0], d.step.axis, d.step.largest, d.y[0], d.y[1], d.poll); }

void check_one_hot(const StepCheck& c) {
  c.counts(2, 1);
  const Value &indices = c.in(0), &values = c.in(1);
  c.require(indices.dtype == DType::kInt64 || indices.dtype == DType::kInt32 || indices.dtype == DType::kFloat32,
            "bad type of indices");
  c.require(values.elements == 2 && values.dtype == c.out().dtype, "bad values");
  Ints shape = indices.shape;
  c.axis_in(shape.size() + 1);
  shape.insert(shape.begin() + c.step.axis, c.step.depth);
  c.shape_is(c.out(), shape);
}

void compute_one_hot(const DenseStep& d) { ops::one_hot(d.x[0], d.x[1], d.step.axis, d.step.depth, *d.y, d.poll); }

void check_gather(const StepCheck& c) {
  c.counts(2, 1);
  const Value &data = c.in(0), &indices = c.in(1);
  c.require(indices.dtype == DType::kInt64 || indices.dtype == DType::kInt32, "bad type of indices");
  c.require(data.dtype == c.out().dtype, "types differ");
  c.axis_in(data.shape.size());
  Ints shape(data.shape.begin(), data.shape.begin() + c.step.axis);
  shape.insert(shape.end(), indices.shape.begin(), indices.shape.end());
  shape.insert(shape.end(), data.shape.begin() + c.step.axis + 1, data.shape.end());
  c.shape_is(c.out(), shape);
}

[[noreturn]] void refuse_index(int64_t extent, int64_t axis) {
  throw EngineError(ErrorCode::kInvalidArgument, "gather: an index is outside [-n, n) with n = " + std::to_string(extent) +
                                                     " on axis " + std::to_string(axis));
}

template <class Index>
void pick_rows(const FileTable& table, const Index* indices, int64_t count, std::byte* y, Poll poll) {
  const int64_t rows = table.rows();
  for (int64_t i = 0; i < count; ++i, y += table.row_bytes()) {
    const int64_t index = indices[i];
    if (index < -rows || index >= rows) refuse_index(rows, 0);
    poll.before(static_cast<int64_t>(table.row_bytes()));
    std::memcpy(y, table.row(index < 0 ? index + rows : index), table.row_bytes());
  }
}

// Rows of a table that stays in its file.
bool lower_gather(Lowering& plan, const Step& step) {
  const auto table = step.axis == 0 ? plan.table(step.inputs[0]) : nullptr;
  if (table == nullptr) return false;
  const Value& indices = plan.value(step.inputs[1]);
  const NodeId from = plan.request(step.inputs[1], Form::kDense), to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {from}, .write = to, .make = [=, count = indices.elements, wide = indices.dtype == DType::kInt64](const Emitter& e) {
                  return simple(0, [=, indices = e.place(from), y = e.place(to)](Frame& frame, int, int) {
                    const Poll poll(frame.cancellation);
                    if (wide) return pick_rows(*table, frame.at<int64_t>(indices), count, frame.at<std::byte>(y), poll);
                    pick_rows(*table, frame.at<int32_t>(indices), count, frame.at<std::byte>(y), poll);
                  });
                }});
  return true;
}

void compute_gather(const DenseStep& d) {
  if (ops::gather(d.x[0], d.x[1], d.step.axis, *d.y, d.poll)) return;
  refuse_index(d.x[0].shape[static_cast<size_t>(d.step.axis)], d.step.axis);
}

}  // namespace

const OperatorRules operators::globalPool = {check_global_pool, lower_global_pool, compute_global_pool};
const OperatorRules operators::reduceMean = {check_reduce_mean, lower_reduce_mean, compute_reduce_mean};
const OperatorRules operators::reduce = {check_reduce, lower_reduce, compute_reduce};
const OperatorRules operators::cumSum = {check_cum_sum, nullptr, compute_cum_sum};
const OperatorRules operators::softmax = {check_softmax, lower_softmax};
const OperatorRules operators::layerNorm = {check_layer_norm, lower_layer_norm, compute_layer_norm};
const OperatorRules operators::argMax = {check_arg_max, lower_arg_max, compute_arg_max};
const OperatorRules operators::topK = {check_top_k, nullptr, compute_top_k};
const OperatorRules operators::oneHot = {check_one_hot, nullptr, compute_one_hot};
const OperatorRules operators::gather = {check_gather, lower_gather, compute_gather};

}  // namespace rskip
