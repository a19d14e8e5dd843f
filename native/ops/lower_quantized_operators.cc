#include "ops/lower_quantized_operators.h"

#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "ops/lower_quantized_product_operators.h"
#include "plan/window2d.h"

namespace rskip {
namespace {

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

// Scale and zero point between floats and bytes, where there is one of each and both are constants.
struct Scaling {
  float scale;
  uint8_t zero;
};
std::optional<Scaling> scaling_of(Lowering& plan, const Step& step) {
  const ValueId scale = step.inputs[1], zero = step.inputs[2];
  if (!plan.is_constant(scale) || plan.value(scale).elements != 1 || (zero && !plan.is_constant(zero))) return std::nullopt;
  return Scaling{plan.scalar<float>(scale), plan.scalar<uint8_t>(zero)};
}

template <class Make>
bool lower_scaling(Lowering& plan, const Step& step, Make* make, const Scaling& by) {
  const NodeId from = plan.request(step.inputs[0], Form::kDense), to = plan.target(step.outputs[0], Form::kDense);
  plan.compute({.reads = {from}, .write = to, .make = [=, n = plan.value(step.inputs[0]).elements](const Emitter& e) {
                  return make(e.table(), e.place(from), e.place(to), n, by.scale, by.zero);
                }});
  return true;
}

// Maps of floats in blocks of channels become bytes in such blocks.
bool lower_blocked_quantize(Lowering& plan, const Step& step, int images, const Scaling& by) {
  const NodeId from = plan.request(step.inputs[0], Form::kBlocked), to = plan.target(step.outputs[0], Form::kBlocked);
  plan.compute({.reads = {from}, .write = to, .make = [=](const Emitter& e) {
                  return for_images(images, [&](int n) {
                    return make_quantize8(e.table(), e.blocked(from, n), e.blocked8(to, n), by.scale, by.zero);
                  });
                }});
  return true;
}

}  // namespace

bool lower_quantize(Lowering& plan, const Step& step) {
  const auto by = scaling_of(plan, step);
  if (!by || plan.value(step.outputs[0]).dtype != kBytes) return false;
  Image image;
  if (plan.blocked_at_home(step.inputs[0]) && as_image(plan.value(step.inputs[0]), &image)) {
    return lower_blocked_quantize(plan, step, image.n, *by);
  }
  using Dense = InstructionPtr(const KernelTable&, Place, Place, int64_t, float, int32_t);
  return lower_scaling<Dense>(plan, step, make_quantize8, *by);
}

bool lower_dequantize(Lowering& plan, const Step& step) {
  const auto by = scaling_of(plan, step);
  return by && is_bytes(plan, step.inputs[0]) && lower_scaling(plan, step, make_dequantize8, *by);
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
  draft.conv = std::make_shared<ConvDraft>(ConvDraft{shape, algorithm, false, {}, y.n, nullptr, operands});
  plan.compute(std::move(draft));
  return true;
}

}  // namespace rskip
