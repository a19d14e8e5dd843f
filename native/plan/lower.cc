// Which instruction computes a step. The choice depends on the program alone, never on the instruction set, the
// number of threads or the data, so that every machine computes the same bits.
#include <algorithm>
#include <limits>
#include <utility>

#include "plan/dense_instruction.h"
#include "plan/lowering.h"

namespace rskip {
namespace {

// Kinds of cached weights; part of WeightCache keys, beside those of nodes.cc.
enum : int64_t { kPackedConv = 16, kPackedGemm = 17 };

template <class T>
using Slot = std::shared_ptr<std::shared_ptr<const T>>;

bool fits_int(int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max(); }

// The attributes of a two-dimensional window; one-dimensional ones get a first axis of extent 1.
struct Window2d {
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  Halo pad;
};
bool as_2d(const ops::Window& w, Window2d* out) {
  const size_t rank = w.kernel.size();
  if (rank > 2) return false;
  for (const Ints* list : {&w.kernel, &w.strides, &w.dilations}) {
    for (int64_t v : *list) {
      if (!fits_int(v)) return false;
    }
  }
  const auto last = [rank](const Ints& list) { return static_cast<int>(list[rank - 1]); };
  out->kernel_w = last(w.kernel);
  out->stride_w = last(w.strides);
  out->dilation_w = last(w.dilations);
  out->pad.left = static_cast<int>(w.pads[rank - 1]);
  out->pad.right = static_cast<int>(w.pads[2 * rank - 1]);
  if (rank == 2) {
    out->kernel_h = static_cast<int>(w.kernel[0]);
    out->stride_h = static_cast<int>(w.strides[0]);
    out->dilation_h = static_cast<int>(w.dilations[0]);
    out->pad.top = static_cast<int>(w.pads[0]);
    out->pad.bottom = static_cast<int>(w.pads[2]);
  }
  return true;
}

bool no_pad(const Halo& pad) { return pad.top == 0 && pad.left == 0 && pad.bottom == 0 && pad.right == 0; }

}  // namespace

void PlanBuilder::lower(const Step& step) {
  layer_ = step.outputs[0];
  bool done = false;
  switch (step.op) {
    case Op::kConv: done = lower_conv(step); break;
    case Op::kGemm:
    case Op::kMatmul: done = lower_gemm(step); break;
    case Op::kPool: done = lower_pool(step); break;
    case Op::kGlobalPool: done = lower_global_pool(step, step.max); break;
    case Op::kReduceMean: done = lower_spatial_mean(step); break;
    case Op::kAffine: done = lower_affine(step); break;
    case Op::kUnary: done = lower_unary(step); break;
    case Op::kBinary: done = lower_binary(step); break;
    case Op::kConcat: done = lower_concat(step); break;
    case Op::kSlice: done = lower_slice(step); break;
    case Op::kPad: done = lower_pad(step); break;
    case Op::kReshape: done = lower_reshape(step); break;
    default: break;
  }
  if (!done) lower_dense(step);
}

bool PlanBuilder::lower_conv(const Step& step) {
  const int32_t x_id = step.inputs[0], weight = step.inputs[1], bias = step.inputs[2], residual = step.inputs[3];
  const int32_t y_id = step.outputs[0];
  Image x, y;
  Window2d window;
  if (!as_image(value(x_id), &x) || !as_image(value(y_id), &y) || !as_2d(step.window, &window)) return false;
  if (!is_constant(weight) || (bias != kNone && !is_constant(bias))) return false;
  const bool pointwise = window.kernel_h == 1 && window.kernel_w == 1 && step.group == 1 && no_pad(window.pad);
  if (pointwise && x.pixels() == 1 && y.pixels() == 1) return lower_conv_as_gemm(step, x);

  ConvShape shape;
  shape.in_channels = x.c;
  shape.in_height = x.h;
  shape.in_width = x.w;
  shape.out_channels = y.c;
  shape.out_height = y.h;
  shape.out_width = y.w;
  shape.kernel_h = window.kernel_h;
  shape.kernel_w = window.kernel_w;
  shape.stride_h = window.stride_h;
  shape.stride_w = window.stride_w;
  shape.dilation_h = window.dilation_h;
  shape.dilation_w = window.dilation_w;
  shape.pad = window.pad;
  shape.groups = static_cast<int>(step.group);
  const ConvAlgorithm algorithm = choose_conv_algorithm(shape);
  const Halo halo = conv_input_halo(shape, algorithm);

  // Weights are packed alike for every height and width, so that all compiled shapes of a model share them.
  const auto packed = std::make_shared<std::shared_ptr<const PackedConv>>();
  const WeightCache::Key key = {
      constant_id(weight), constant_id(bias), kPackedConv, static_cast<int64_t>(algorithm), x.c, y.c,
      shape.kernel_h,      shape.kernel_w,    shape.groups};
  add_packing(value(weight).elements, [=, this] {
    *packed = context_.weights.get<PackedConv>(key, [&] {
      require_data(weight);
      require_data(bias);
      return pack_conv(shape, algorithm, constant_floats(weight), constant_floats(bias));
    });
  });

  const bool planar = algorithm == ConvAlgorithm::kPlanar;
  const NodeId from = planar ? request_planar(x_id, halo) : request_blocked(x_id, halo);
  const NodeId add = residual == kNone ? kNone : request_blocked(residual);
  const NodeId to = target(y_id, Form::kBlocked);
  Draft draft{.reads = {from}, .write = to};
  if (add != kNone) {
    draft.reads.push_back(add);
    draft.in_place.push_back(add);
  }
  const int64_t work = saturating_product({y.c, y.pixels(), x.c / step.group, shape.kernel_h, shape.kernel_w});
  const auto operands = [=, act = step.act](const PlanBuilder& b, int n) {
    ConvOperands o;
    o.conv = rebind_conv(**packed, shape);
    o.packed = *packed;
    o.planar = planar;
    if (planar) {
      o.x_planar = b.planar(from, n);
    } else {
      o.x = b.blocked(from, n);
    }
    o.y = b.blocked(to, n);
    o.has_residual = add != kNone;
    if (o.has_residual) o.residual = b.blocked(add, n);
    o.act = act;
    o.multiply_adds = work;
    return o;
  };
  draft.make = [=](const PlanBuilder& b) {
    return for_images(y.n, [&](int n) { return make_conv(b.table(), operands(b, n)); });
  };
  draft.conv = std::make_shared<ConvDraft>(ConvDraft{shape, algorithm, add != kNone, y.n, operands});
  add_compute(std::move(draft));
  return true;
}

bool PlanBuilder::lower_conv_as_gemm(const Step& step, const Image& x) {
  const int n = static_cast<int>(value(step.outputs[0]).shape[1]);
  draft_gemm(step, x.n, x.c, n, true);
  return true;
}

bool PlanBuilder::lower_gemm(const Step& step) {
  const Value &a = value(step.inputs[0]), &b = value(step.inputs[1]);
  const bool product = step.op == Op::kMatmul;
  if (!is_constant(step.inputs[1]) || b.shape.size() != 2) return false;
  if (!product && step.inputs[2] != kNone && !is_constant(step.inputs[2])) return false;
  const int64_t k = a.shape.back(), n = value(step.outputs[0]).shape.back();
  if (!fits_int(k) || !fits_int(n) || a.elements == 0 || !fits_int(a.elements / k)) return false;
  draft_gemm(step, static_cast<int>(a.elements / k), static_cast<int>(k), static_cast<int>(n),
             !product && step.trans_b);
  return true;
}

void PlanBuilder::draft_gemm(const Step& step, int m, int k, int n, bool trans_b) {
  const bool product = step.op == Op::kMatmul;
  const int32_t b_id = step.inputs[1], c_id = product ? kNone : step.inputs[2];
  const int32_t residual = product ? kNone : step.inputs[3];
  const auto packed = std::make_shared<std::shared_ptr<const PackedGemm>>();
  const WeightCache::Key key = {constant_id(b_id), constant_id(c_id), kPackedGemm, k, n, trans_b};
  add_packing(value(b_id).elements, [=, this] {
    *packed = context_.weights.get<PackedGemm>(key, [&] {
      require_data(b_id);
      require_data(c_id);
      return pack_gemm(k, n, constant_floats(b_id), trans_b, constant_floats(c_id));
    });
  });
  const NodeId from = request(step.inputs[0], Form::kDense);
  const NodeId add = residual == kNone ? kNone : request(residual, Form::kDense);
  const NodeId to = target(step.outputs[0], Form::kDense);
  Draft draft{.reads = {from}, .write = to};
  if (add != kNone) {
    draft.reads.push_back(add);
    draft.in_place.push_back(add);
  }
  draft.make = [=, act = step.act](const PlanBuilder& b) {
    GemmOperands o;
    o.gemm = *packed;
    o.a = b.place(from);
    o.y = b.place(to);
    o.has_residual = add != kNone;
    if (o.has_residual) o.residual = b.place(add);
    o.m = m;
    o.k = k;
    o.n = n;
    o.act = act;
    return make_gemm(b.table(), std::move(o));
  };
  add_compute(std::move(draft));
}

bool PlanBuilder::lower_pool(const Step& step) {
  Image x, y;
  Window2d window;
  if (step.outputs.size() != 1 || !as_image(value(step.inputs[0]), &x) || !as_image(value(step.outputs[0]), &y))
    return false;
  if (!as_2d(step.window, &window)) return false;
  PoolArgs args;
  args.kernel_h = window.kernel_h;
  args.kernel_w = window.kernel_w;
  args.stride_h = window.stride_h;
  args.stride_w = window.stride_w;
  args.dilation_h = window.dilation_h;
  args.dilation_w = window.dilation_w;
  args.pad = window.pad;
  args.max = step.max;
  args.count_include_pad = step.count_include_pad;
  const NodeId from = request_blocked(step.inputs[0]);
  const NodeId to = target(step.outputs[0], Form::kBlocked);
  add_compute({.reads = {from}, .write = to, .make = [=](const PlanBuilder& b) {
                 return for_images(
                     y.n, [&](int n) { return make_pool(b.table(), b.blocked(from, n), b.blocked(to, n), args); });
               }});
  return true;
}

bool PlanBuilder::lower_global_pool(const Step& step, bool max) {
  if (!blocked_at_home(step.inputs[0])) return false;
  const NodeId from = request_blocked(step.inputs[0]);
  const NodeId to = target(step.outputs[0], Form::kDense);
  const Image x = nodes_[static_cast<size_t>(from)].image;
  add_compute({.reads = {from}, .write = to, .make = [=](const PlanBuilder& b) {
                 return for_images(x.n, [&](int n) {
                   const Place y =
                       b.place(to).plus(static_cast<int64_t>(n) * x.c * static_cast<int64_t>(sizeof(float)));
                   return make_global_pool(b.table(), b.blocked(from, n), max, y);
                 });
               }});
  return true;
}

// A mean over exactly the spatial axes is a global average pool.
bool PlanBuilder::lower_spatial_mean(const Step& step) {
  const size_t rank = value(step.inputs[0]).shape.size();
  if (rank < 3 || step.axes.size() != rank - 2 || step.axes[0] != 2) return false;
  return lower_global_pool(step, false);
}

void PlanBuilder::lower_dense(const Step& step) {
  Draft draft;
  std::vector<NodeId> operands;
  for (int32_t id : step.inputs) {
    operands.push_back(id == kNone ? kNone : request(id, Form::kDense));
    if (id != kNone) draft.reads.push_back(operands.back());
  }
  for (int32_t id : step.outputs) operands.push_back(target(id, Form::kDense));
  draft.write = operands[step.inputs.size()];
  draft.more_writes.assign(operands.begin() + static_cast<ptrdiff_t>(step.inputs.size()) + 1, operands.end());
  const size_t first_view = plan_->views.size();
  for (TensorView& view : dense_views(program_, step)) plan_->views.push_back(std::move(view));
  draft.make = [=, &step](const PlanBuilder& b) {
    std::vector<Place> places;
    for (NodeId node : operands) places.push_back(node == kNone ? Place{} : b.place(node));
    return make_dense(step, std::move(places), first_view);
  };
  add_compute(std::move(draft));
}

}  // namespace rskip
