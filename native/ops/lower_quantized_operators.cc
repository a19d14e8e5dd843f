#include "ops/lower_quantized_operators.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "ops/gemm_operators.h"
#include "plan/window2d.h"

namespace rskip {
namespace {

// The operands of qconv and qmatmul.
struct ProductInputs {
  ValueId x, w, bias, scale, x_zero, w_zero;
  explicit ProductInputs(const Step& step)
      : x(step.inputs[0]),
        w(step.inputs[1]),
        bias(step.inputs[2]),
        scale(step.inputs[3]),
        x_zero(step.inputs[4]),
        w_zero(step.inputs[5]) {}

  // Whether kernels can compute it: unsigned inputs, constant signed weights, a scale.
  bool suit(const Lowering& plan) const {
    if (!is_bytes(plan, x) || !plan.is_constant(w) || plan.value(w).dtype != DType::kInt8 || !scale) return false;
    return (!bias || plan.is_constant(bias)) && (!w_zero || plan.is_constant(w_zero));
  }
  // Whether scale and zero point of x are known before any run.
  bool bound(const Lowering& plan) const {
    return plan.is_constant(scale) && (!x_zero || plan.is_constant(x_zero));
  }
  // What decides the packed bytes, with `more` behind.
  WeightCache::Key key(const Lowering& plan, WeightCache::Key more) const {
    for (ValueId id : {w_zero, x_zero, scale, bias, w}) {
      more.insert(more.begin(), plan.is_constant(id) ? plan.constant_key(id) : -1);
    }
    return more;
  }
};

int scales_of(const Lowering& plan, ValueId scale) { return static_cast<int>(plan.value(scale).elements); }

struct GemmShape8 {
  int m = 0, k = 0, n = 0;
  bool trans_b = false;
};

// A matrix product that has `additions` already.
std::shared_ptr<const ProductDraft8> addable(int32_t zero, int additions,
                                             std::function<GemmOperands8(const Emitter&)> operands) {
  const auto add = [=](const Addition8& sum, NodeId residual, bool one_row, NodeId to) -> AddedDraft8 {
    if (additions == kMaxAdditions8) return {};
    const auto with = [=](const Emitter& e) {
      GemmOperands8 o = operands(e);
      o.y = e.place(to);
      o.additions.push_back({e.place(residual), one_row ? 0 : o.n, sum});
      return o;
    };
    return {[=](const Emitter& e) { return make_gemm8(e.table(), with(e)); }, addable(sum.rounding.zero, additions + 1, with)};
  };
  return std::make_shared<ProductDraft8>(ProductDraft8{zero, add});
}

// What the kernels of matrix products take besides the two matrices.
class Product8 {
 public:
  Product8(Lowering& plan, const Step& step)
      : in(step),
        to_float(plan.value(step.outputs[0]).dtype == DType::kFloat32),
        scales(scales_of(plan, in.scale)),
        weight_zeros(in.w_zero ? scales_of(plan, in.w_zero) : 0),
        rounding_(rounding_of(step.requant)),
        act_(step.act),
        is_conv_(step.op == Op::kQconv) {
    const bool shifted = in.bias && plan.value(in.bias).dtype == DType::kFloat32;
    if (!shifted) start = in.bias;
    if (plan.is_constant(in.scale)) fixed_scale = in.scale;
    const bool has_zero = in.x_zero && !plan.is_constant(in.x_zero);
    if (!has_zero) zero = plan.scalar<uint8_t>(in.x_zero);
    if (!fixed_scale) factor_ = plan.request(in.scale, Form::kDense);
    if (has_zero) centre_ = plan.request(in.x_zero, Form::kDense);
    if (shifted) shift_ = plan.request(in.bias, Form::kDense);
  }

  Draft draft(NodeId from, NodeId to) const {
    Draft draft{.reads = {from}, .write = to};
    for (NodeId more : {shift_, factor_, centre_}) {
      if (more) draft.reads.push_back(more);
    }
    return draft;
  }
  GemmOperands8 operands(const Emitter& e) const {
    GemmOperands8 o;
    o.to_float = to_float;
    o.has_shift = static_cast<bool>(shift_);
    if (o.has_shift) o.shift = e.place(shift_);
    o.rounds_product = is_conv_;
    o.has_scale = static_cast<bool>(factor_);
    if (o.has_scale) o.scale = e.place(factor_);
    o.scales = scales;
    o.has_zero = static_cast<bool>(centre_);
    if (o.has_zero) o.zero = e.place(centre_);
    o.rounding = rounding_;
    o.act = act_;
    return o;
  }

  const ProductInputs in;
  const bool to_float;
  const int scales, weight_zeros;
  ValueId start, fixed_scale;  // the bias in integers, and the scale, where they are constants
  uint8_t zero = 0;            // of the input; 0 where it is known at run time only

 private:
  const Rounding rounding_;
  const Activation act_;
  const bool is_conv_;
  NodeId factor_, centre_, shift_;
};

void draft_gemm8(Lowering& plan, const Step& step, const GemmShape8& shape) {
  const NodeId from = plan.request(step.inputs[0], Form::kDense);
  const Product8 product(plan, step);
  const ProductInputs& in = product.in;
  const auto packed = plan.pack<PackedGemm8>(
      in.key(plan, {kPackedGemm8, shape.k, shape.n, shape.trans_b, product.to_float}),
      {in.w, product.fixed_scale, product.start, in.w_zero}, [=](const ConstantReader& read) {
        return pack_gemm8(shape.k, shape.n, read.of<int8_t>(product.in.w), shape.trans_b, read.of<int32_t>(product.start),
                          read.of<float>(product.fixed_scale), product.scales, product.zero,
                          read.of<int8_t>(product.in.w_zero), product.weight_zeros);
      });
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  Draft draft = product.draft(from, to);
  const auto operands = [=](const Emitter& e) {
    GemmOperands8 o = product.operands(e);
    o.gemm = *packed;
    o.a = e.place(from);
    o.y = e.place(to);
    o.m = shape.m;
    o.k = shape.k;
    o.n = shape.n;
    return o;
  };
  draft.make = [=](const Emitter& e) { return make_gemm8(e.table(), operands(e)); };
  if (!product.to_float && shape.n % kLanes == 0) draft.product8 = addable(step.requant.zero, 0, operands);
  plan.compute(std::move(draft));
}

int64_t multiply_adds_of(const ConvShape& s) {
  return saturating_product({s.out_channels, s.out_height, s.out_width, s.in_channels / s.groups, s.kernel_h, s.kernel_w});
}

// Depthwise convolutions with floats as their results, whose scale is known at run time only.
bool lower_depthwise8(Lowering& plan, const Step& step, const ConvShape& shape, int images) {
  const ProductInputs operands(step);
  const bool integer_bias = operands.bias && plan.value(operands.bias).dtype != DType::kFloat32;
  if (plan.is_constant(operands.scale) || integer_bias || !depthwise8_is_exact(shape)) return false;
  const NodeId from = plan.request(operands.x, Form::kBlocked);
  const Product8 product(plan, step);
  const ProductInputs& in = product.in;
  const auto packed = plan.pack<PackedConv>(
      {kPackedDepthwise8, plan.constant_key(in.w), in.w_zero ? plan.constant_key(in.w_zero) : -1, shape.in_channels, shape.kernel_h,
       shape.kernel_w},
      {in.w, in.w_zero}, [=](const ConstantReader& read) {
        return pack_depthwise8(shape, read.of<int8_t>(product.in.w), read.of<int8_t>(product.in.w_zero), product.weight_zeros);
      });
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  Draft draft = product.draft(from, to);
  draft.make = [=](const Emitter& e) {
    return for_images(images, [&](int n) {
      DepthwiseOperands8 o;
      o.conv = rebind_conv(**packed, shape);
      o.product = product.operands(e);
      o.x = e.blocked8(from, n);
      o.y = e.blocked(to, n);
      o.zero = product.zero;
      o.multiply_adds = multiply_adds_of(shape);
      return make_depthwise8(e.table(), std::move(o));
    });
  };
  plan.compute(std::move(draft));
  return true;
}

// What the kernels of convolution don't take, as products of matrices.
bool lower_im2col8(Lowering& plan, const Step& step, const ConvShape& shape, int images) {
  const int64_t k = saturating_product({shape.in_channels + 2 * kLanes, shape.kernel_h, shape.kernel_w});
  if (k > std::numeric_limits<int>::max() / 4) return false;
  const NodeId from = plan.request(step.inputs[0], Form::kBlocked);
  const Product8 product(plan, step);
  const ProductInputs& in = product.in;
  const auto packed = plan.pack<PackedIm2col8>(
      in.key(plan, {kPackedIm2col8, shape.in_channels, shape.out_channels, shape.kernel_h, shape.kernel_w, shape.groups,
                    product.to_float}),
      {in.w, product.fixed_scale, product.start, in.w_zero}, [=](const ConstantReader& read) {
        return pack_im2col8(shape, read.of<int8_t>(product.in.w), read.of<int32_t>(product.start),
                            read.of<float>(product.fixed_scale), product.scales, product.zero,
                            read.of<int8_t>(product.in.w_zero), product.weight_zeros);
      });
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  Draft draft = product.draft(from, to);
  draft.make = [=](const Emitter& e) {
    return for_images(images, [&](int n) {
      Im2colOperands8 o;
      o.conv = *packed;
      o.shape = shape;
      o.product = product.operands(e);
      o.x = e.blocked8(from, n);
      if (product.to_float) {
        o.y_float = e.blocked(to, n);
      } else {
        o.y = e.blocked8(to, n);
      }
      o.zero = product.zero;
      o.multiply_adds = multiply_adds_of(shape);
      return make_im2col8(e.table(), std::move(o));
    });
  };
  plan.compute(std::move(draft));
  return true;
}

}  // namespace

bool lower_quantize(Lowering& plan, const Step& step) {
  const ValueId x = step.inputs[0], scale = step.inputs[1], zero = step.inputs[2];
  const Value& y = plan.value(step.outputs[0]);
  if (y.dtype != kBytes || !plan.is_constant(scale) || plan.value(scale).elements != 1) return false;
  if (zero && !plan.is_constant(zero)) return false;
  const float factor = plan.scalar<float>(scale);
  const uint8_t shift = plan.scalar<uint8_t>(zero);
  const NodeId from = plan.request(x, Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {from}, .write = to, .make = [=, n = y.elements](const Emitter& e) {
                  return make_quantize8(e.table(), e.place(from), e.place(to), n, factor, shift);
                }});
  return true;
}

bool lower_dynamic_quantize(Lowering& plan, const Step& step) {
  Image image;
  const bool blocked = plan.blocked_at_home(step.inputs[0]) && as_image(plan.value(step.inputs[0]), &image) && image.n == 1;
  const Form form = blocked ? Form::kBlocked : Form::kDense;
  const NodeId from = plan.request(step.inputs[0], form), to = plan.target(step.outputs[0], form);
  const NodeId scale = plan.target(step.outputs[1], Form::kDense), zero = plan.target(step.outputs[2], Form::kDense);
  Draft draft{.reads = {from}, .write = to, .more_writes = {scale, zero}};
  draft.make = [=, n = plan.value(step.outputs[0]).elements](const Emitter& e) {
    if (!blocked) return make_dynamic_quantize8(e.table(), e.place(from), e.place(to), e.place(scale), e.place(zero), n);
    return make_dynamic_quantize8(e.table(), e.blocked(from, 0), e.blocked8(to, 0), e.place(scale), e.place(zero));
  };
  plan.compute(std::move(draft));
  return true;
}

bool lower_dequantize(Lowering& plan, const Step& step) {
  const ValueId x = step.inputs[0], scale = step.inputs[1], zero = step.inputs[2];
  if (!is_bytes(plan, x) || !plan.is_constant(scale) || plan.value(scale).elements != 1) return false;
  if (zero && !plan.is_constant(zero)) return false;
  const float factor = plan.scalar<float>(scale);
  const uint8_t shift = plan.scalar<uint8_t>(zero);
  const NodeId from = plan.request(x, Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {from}, .write = to, .make = [=, n = plan.value(x).elements](const Emitter& e) {
                  return make_dequantize8(e.table(), e.place(from), e.place(to), n, factor, shift);
                }});
  return true;
}

bool lower_qconv(Lowering& plan, const Step& step) {
  const ProductInputs in(step);
  Image x, y;
  const std::optional<Window2d> window = as_2d(step.window);
  if (!window || !in.suit(plan) || !as_image(plan.value(in.x), &x, kBytes)) return false;
  const Value& out = plan.value(step.outputs[0]);
  const bool to_float = out.dtype == DType::kFloat32;
  if (!as_image(out, &y, to_float ? DType::kFloat32 : kBytes) || !(to_float || in.bound(plan))) return false;
  const bool pointwise = window->kernel_h == 1 && window->kernel_w == 1 && step.group == 1 && is_empty(window->pad);
  if (pointwise && x.pixels() == 1 && y.pixels() == 1) {
    draft_gemm8(plan, step, {x.n, x.c, y.c, true});
    return true;
  }
  const ConvShape shape = conv_shape(x, y, *window, static_cast<int>(step.group));
  ConvAlgorithm algorithm = choose_conv8_algorithm(shape);
  const bool has_kernel = !in.w_zero || algorithm == ConvAlgorithm::kDepthwise;
  if (to_float && algorithm == ConvAlgorithm::kDepthwise && lower_depthwise8(plan, step, shape, y.n)) return true;
  if (to_float || !has_kernel || !in.bound(plan)) return lower_im2col8(plan, step, shape, y.n);
  const auto is_exact = [&](const ConstantReader& read) { return winograd8_is_exact(shape, read.of<int8_t>(in.w)); };
  if (winograd8_suits(shape, plan.isa) && plan.ask({kExactWinograd8, plan.constant_key(in.w), x.c, y.c}, in.w, is_exact)) {
    algorithm = ConvAlgorithm::kWinograd4;
  }
  const Halo halo = conv8_input_halo(shape, algorithm);
  const int scales = scales_of(plan, in.scale), weight_zeros = in.w_zero ? scales_of(plan, in.w_zero) : 0;
  const uint8_t zero = plan.scalar<uint8_t>(in.x_zero);
  const auto packed = plan.pack<PackedConv8>(
      in.key(plan, {kPackedConv8, static_cast<int64_t>(algorithm), x.c, y.c, shape.kernel_h, shape.kernel_w, shape.groups,
                    shape.dilation_w}),
      {in.w, in.scale, in.bias, in.w_zero}, [=](const ConstantReader& read) {
        return pack_conv8(shape, algorithm, read.of<int8_t>(in.w), read.of<int32_t>(in.bias), read.of<float>(in.scale),
                          scales, zero, read.of<int8_t>(in.w_zero), weight_zeros);
      });
  const bool planar = algorithm == ConvAlgorithm::kPlanar;
  const NodeId from = plan.request_image8(in.x, planar ? Form::kPlanar : Form::kBlocked, halo, zero);
  const NodeId to = plan.target(step.outputs[0], Form::kBlocked);
  const auto operands = [=, rounding = rounding_of(step.requant)](const Emitter& e, int n) {
    ConvOperands8 o;
    o.conv = rebind_conv8(**packed, shape);
    o.packed = *packed;
    o.planar = planar;
    if (planar) {
      o.x_planar = e.planar8(from, n);
    } else {
      o.x = e.blocked8(from, n);
    }
    o.x_zero = zero;
    o.y = e.blocked8(to, n);
    o.rounding = rounding;
    o.multiply_adds = multiply_adds_of(shape);
    return o;
  };
  Draft draft{.reads = {from}, .write = to};
  draft.make = [=](const Emitter& e) {
    return for_images(y.n, [&](int n) { return make_conv8(e.table(), operands(e, n)); });
  };
  const auto add = [=, images = y.n](const Addition8& sum, NodeId residual, bool, NodeId place) -> AddedDraft8 {
    return {[=](const Emitter& e) {
              return for_images(images, [&](int n) {
                ConvOperands8 o = operands(e, n);
                o.has_residual = true;
                o.residual = e.blocked8(residual, n);
                o.y = e.blocked8(place, n);
                o.addition = sum;
                return make_conv8(e.table(), std::move(o));
              });
            },
            nullptr};
  };
  draft.product8 = std::make_shared<ProductDraft8>(ProductDraft8{step.requant.zero, add});
  draft.conv = std::make_shared<ConvDraft>(ConvDraft{shape, algorithm, false, y.n, nullptr, operands});
  plan.compute(std::move(draft));
  return true;
}

namespace {

// Products of activations.
bool lower_products8(Lowering& plan, const Step& step) {
  const ProductInputs in(step);
  const Value &a = plan.value(in.x), &b = plan.value(in.w), &y = plan.value(step.outputs[0]);
  if (plan.is_constant(in.w) || a.dtype != kBytes || b.dtype != kBytes || y.dtype != kBytes || in.bias) return false;
  if (!in.scale || !in.bound(plan) || scales_of(plan, in.scale) != 1) return false;
  if (in.w_zero && !(plan.is_constant(in.w_zero) && scales_of(plan, in.w_zero) == 1)) return false;
  const auto fits = [](int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max() / 4; };
  const int64_t m = y.shape[y.shape.size() - 2], n = y.shape.back(), k = a.shape.back();
  if (!fits(m) || !fits(n) || !fits(k) || y.elements == 0 || y.elements / (m * n) > kMaxProducts) return false;
  ProductsArgs8 args;
  args.m = static_cast<int>(m);
  args.k = static_cast<int>(k);
  args.n = static_cast<int>(n);
  args.trans_b = step.trans_b;
  args.zero_a = plan.scalar<uint8_t>(in.x_zero);
  args.zero_b = plan.scalar<uint8_t>(in.w_zero);
  args.scale = plan.scalar<float>(in.scale);
  args.rounding = rounding_of(step.requant);
  const NodeId left = plan.request(in.x, Form::kDense), right = plan.request(in.w, Form::kDense);
  const NodeId to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {left, right}, .write = to,
                .make = [=, offsets = product_offsets(a.shape, b.shape, y.shape)](const Emitter& e) {
                  return make_products8(e.table(), e.place(left), e.place(right), e.place(to), args, offsets);
                }});
  return true;
}

}  // namespace

bool lower_qmatmul(Lowering& plan, const Step& step) {
  if (lower_products8(plan, step)) return true;
  const ProductInputs in(step);
  const Value &a = plan.value(in.x), &y = plan.value(step.outputs[0]);
  if (!in.suit(plan) || plan.value(in.w).shape.size() != 2) return false;
  if (y.dtype != DType::kFloat32 && !(y.dtype == kBytes && in.bound(plan))) return false;
  const auto fits = [](int64_t v) { return v > 0 && v <= std::numeric_limits<int>::max() / 4; };
  const int64_t k = a.shape.back(), n = y.shape.back();
  if (!fits(k) || !fits(n) || a.elements == 0 || !fits(a.elements / k)) return false;
  draft_gemm8(plan, step, {static_cast<int>(a.elements / k), static_cast<int>(k), static_cast<int>(n), step.trans_b});
  return true;
}

}  // namespace rskip
