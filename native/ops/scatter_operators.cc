// Operators that read or write elements at positions that other tensors give.
#include <algorithm>
#include <array>

#include "ops/ops.h"
#include "ops/rows.h"
#include "plan/lowering.h"
#include "program/check_step.h"
#include "program/error.h"
#include "program/operator.h"

namespace rskip {
namespace {

void throw_out_of_range(Op op) {
  throw EngineError(ErrorCode::kInvalidArgument,
                    std::string(operator_of(op).name) + ": an index is outside of its axis of the data");
}

void in_range(const DenseStep& d, bool ok) {
  if (!ok) throw_out_of_range(d.step.op);
}

void check_indices(const StepCheck& c, const Value& indices) {
  c.require(indices.dtype == DType::kInt64 || indices.dtype == DType::kInt32, "bad type of indices");
}

// The indices have the rank of `data`, and are no longer on any other axis.
void check_elements(const StepCheck& c, const Value& data, const Value& indices) {
  check_indices(c, indices);
  c.axis_in(data.shape.size());
  c.require(indices.shape.size() == data.shape.size(), "bad rank");
  for (size_t d = 0; d < data.shape.size(); ++d) {
    const bool fits = static_cast<int64_t>(d) == c.step.axis || indices.shape[d] <= data.shape[d];
    c.require(fits, "the indices leave their input");
  }
}

// The shape of what the rows of `indices` name in `data`.
Ints named_shape(const StepCheck& c, const Value& data, const Value& indices, size_t batch_dims) {
  check_indices(c, indices);
  c.require(indices.shape.size() > batch_dims && data.shape.size() >= batch_dims, "bad rank");
  c.require(indices.shape.back() <= static_cast<int64_t>(data.shape.size() - batch_dims), "too many indices in a row");
  for (size_t d = 0; d < batch_dims; ++d) c.require(indices.shape[d] == data.shape[d], "batches differ");
  Ints shape(indices.shape.begin(), indices.shape.end() - 1);
  shape.insert(shape.end(), data.shape.begin() + static_cast<int64_t>(batch_dims) + indices.shape.back(), data.shape.end());
  return shape;
}

void check_gather_elements(const StepCheck& c) {
  c.counts(2, 1);
  c.require(c.in(0).dtype == c.out().dtype, "types differ");
  check_elements(c, c.in(0), c.in(1));
  c.shape_is(c.out(), c.in(1).shape);
}

void compute_gather_elements(const DenseStep& d) {
  in_range(d, ops::gather_elements(d.x[0], d.x[1], d.step.axis, *d.y, d.poll));
}

void check_gather_nd(const StepCheck& c) {
  c.counts(2, 1);
  c.require(c.in(0).dtype == c.out().dtype, "types differ");
  c.shape_is(c.out(), named_shape(c, c.in(0), c.in(1), static_cast<size_t>(c.step.batch_dims)));
}

void compute_gather_nd(const DenseStep& d) {
  in_range(d, ops::gather_nd(d.x[0], d.x[1], d.step.batch_dims, *d.y, d.poll));
}

void check_scatter(const StepCheck& c) {
  c.counts(3, 1);
  c.require(c.in(0).dtype == c.out().dtype && c.in(2).dtype == c.out().dtype, "types differ");
  c.shape_is(c.out(), c.in(0).shape);
}

void check_scatter_elements(const StepCheck& c) {
  check_scatter(c);
  check_elements(c, c.in(0), c.in(1));
  c.shape_is(c.in(2), c.in(1).shape);
}

void compute_scatter_elements(const DenseStep& d) {
  in_range(d, ops::scatter_elements(d.x[0], d.x[1], d.x[2], d.step.axis, d.step.scatter, *d.y, d.poll));
}

void check_scatter_nd(const StepCheck& c) {
  check_scatter(c);
  c.shape_is(c.in(2), named_shape(c, c.in(0), c.in(1), 0));
}

void compute_scatter_nd(const DenseStep& d) {
  in_range(d, ops::scatter_nd(d.x[0], d.x[1], d.x[2], d.step.scatter, *d.y, d.poll));
}

void check_resample(const StepCheck& c) {
  c.counts(3, 1);
  const Value &x = c.in(0), &indices = c.in(1), &weights = c.in(2);
  c.require(x.dtype == DType::kFloat32 && weights.dtype == DType::kFloat32 && c.out().dtype == DType::kFloat32,
            "a type is not float32");
  c.require(indices.dtype == DType::kInt32 && indices.shape.size() == 2, "bad indices");
  c.shape_is(weights, indices.shape);
  c.axis_in(x.shape.size());
  Ints shape = x.shape;
  shape[static_cast<size_t>(c.step.axis)] = indices.shape[0];
  c.shape_is(c.out(), shape);
}

bool lower_resample(Lowering& plan, const Step& step) {
  std::array<NodeId, 3> operands;
  for (size_t i = 0; i < 3; ++i) operands[i] = plan.request(step.inputs[i], Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  const ops::Split s = ops::split_at(plan.value(step.inputs[0]).shape, step.axis);
  const Ints& taps = plan.value(step.inputs[1]).shape;
  ResampleArgs args;
  args.shape = {s.outer, s.length, s.inner};
  args.count = taps[0];
  args.each = taps[1];
  plan.compute({.reads = {operands.begin(), operands.end()}, .write = to, .make = [=](const Emitter& e) {
                  return make_resample(e.table(), e.place(operands[0]), e.place(operands[1]), e.place(operands[2]),
                                       e.place(to), args, [] { throw_out_of_range(Op::kResample); });
                }});
  return true;
}

}  // namespace

const OperatorRules operators::gatherElements = {check_gather_elements, nullptr, compute_gather_elements};
const OperatorRules operators::gatherNd = {check_gather_nd, nullptr, compute_gather_nd};
const OperatorRules operators::scatterElements = {check_scatter_elements, nullptr, compute_scatter_elements};
const OperatorRules operators::scatterNd = {check_scatter_nd, nullptr, compute_scatter_nd};
const OperatorRules operators::resample = {check_resample, lower_resample};

}  // namespace rskip
