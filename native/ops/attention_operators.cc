// Attention (Vaswani et al., Attention Is All You Need, 2017) on operands as they lie in memory.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

#include "plan/lowering.h"
#include "program/check_step.h"
#include "program/geometry.h"
#include "program/operator.h"

namespace rskip {
namespace {

using Extents = std::array<int64_t, 4>;

std::array<int64_t, 4> strides_of(const AttentionView& v) { return {v.batch, v.head, v.row, v.column}; }

// All elements lie inside the tensor.
void check_view(const StepCheck& c, const Value& value, const AttentionView& view, const Extents& extents) {
  int64_t last = view.offset;
  const auto strides = strides_of(view);
  const bool forward = std::all_of(strides.begin(), strides.end(), [](int64_t s) { return s >= 0; });
  c.require(view.offset >= 0 && forward, "bad strides");
  for (size_t i = 0; i < extents.size(); ++i) last = saturating_add(last, saturating_mul(strides[i], extents[i] - 1));
  c.require(last < value.elements, "a view leaves its tensor");
}

// Every element of the tensor is one of the view, and columns are neighbours.
void check_cover(const StepCheck& c, const Value& value, const AttentionView& view, const Extents& extents) {
  std::vector<std::pair<int64_t, int64_t>> axes;
  const auto strides = strides_of(view);
  for (size_t i = 0; i < extents.size(); ++i) {
    if (extents[i] > 1) axes.emplace_back(strides[i], extents[i]);
  }
  std::sort(axes.begin(), axes.end());
  int64_t dense = 1;
  for (const auto& [stride, extent] : axes) {
    c.require(stride == dense, "the result's view has gaps");
    dense = saturating_mul(dense, extent);
  }
  c.require(view.offset == 0 && dense == value.elements && (extents[3] == 1 || view.column == 1),
            "the result's view has gaps");
}

void check_attention(const StepCheck& c) {
  c.counts(4, 1);
  c.all_float();
  const AttentionShape& s = c.step.attention;
  const int64_t b = s.batch, h = s.heads;
  c.require(b > 0 && h > 0 && s.queries > 0 && s.keys > 0 && s.depth > 0 && s.value_depth > 0, "it is empty");
  constexpr int kMax = std::numeric_limits<int>::max() - kLanes;
  c.require(s.keys <= kMax && s.value_depth <= kMax, "it is too large");
  check_view(c, c.in(0), s.q, {b, h, s.queries, s.depth});
  check_view(c, c.in(1), s.k, {b, h, s.keys, s.depth});
  check_view(c, c.in(2), s.v, {b, h, s.keys, s.value_depth});
  if (const Value* mask = c.optional(3)) check_view(c, *mask, s.mask, {b, h, s.queries, s.keys});
  check_cover(c, c.out(), s.y, {b, h, s.queries, s.value_depth});
}

bool lower_attention(Lowering& plan, const Step& step) {
  std::vector<NodeId> from;
  for (ValueId id : step.inputs) {
    if (id) from.push_back(plan.request(id, Form::kDense));
  }
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = from, .write = to, .make = [=, shape = step.attention, precision = plan.precision](const Emitter& e) {
                  AttentionPlaces places{e.place(from[0]), e.place(from[1]), e.place(from[2]), {}, e.place(to)};
                  if (from.size() > 3) places.mask = e.place(from[3]);
                  return make_attention(e.table(), shape, places, precision);
                }});
  return true;
}

}  // namespace

const OperatorRules operators::attention = {check_attention, lower_attention};

}  // namespace rskip
