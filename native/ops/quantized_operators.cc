// Integer steps: operators on bytes, and those between bytes and floats.
#include "ops/ops.h"
#include "ops/lower_quantized_operators.h"
#include "plan/lowering.h"
#include "program/check_step.h"
#include "program/operator.h"

namespace rskip {
namespace {

void check_bytes(const StepCheck& c, size_t input) { c.require(is_byte(c.in(input).dtype), "an input holds no bytes"); }

// A scale, or a zero point, for all positions or for each of `length`.
void check_vector(const StepCheck& c, const Value& value, DType dtype, int64_t length) {
  c.require(value.dtype == dtype, "a scale or zero point has the wrong type");
  c.require(value.shape.size() <= 1 && (value.elements == 1 || value.elements == length),
            "a scale or zero point has the wrong length");
}

void check_scaling(const StepCheck& c, const Value& quantised) {
  c.counts(3, 1);
  c.shape_is(c.out(), c.in(0).shape);
  int64_t length = 1;
  if (c.in(1).elements != 1) {
    c.axis_in(c.in(0).shape.size());
    length = c.in(0).shape[static_cast<size_t>(c.step.axis)];
  }
  check_vector(c, c.in(1), DType::kFloat32, length);
  if (!c.optional(2)) return;
  check_vector(c, c.in(2), quantised.dtype, length);
  c.require(c.in(2).elements == c.in(1).elements, "scale and zero point differ in length");
}

void check_quantize(const StepCheck& c) {
  c.counts(3, 1);
  c.require(c.in(0).dtype == DType::kFloat32 && is_byte(c.out().dtype), "wrong types");
  check_scaling(c, c.out());
}

void compute_quantize(const DenseStep& d) { ops::quantize(d.x[0], d.x[1], d.x[2], d.step.axis, *d.y, d.poll); }

void check_dequantize(const StepCheck& c) {
  c.counts(3, 1);
  const DType from = c.in(0).dtype;
  c.require((is_byte(from) || from == DType::kInt32) && c.out().dtype == DType::kFloat32, "wrong types");
  check_scaling(c, c.in(0));
}

void compute_dequantize(const DenseStep& d) { ops::dequantize(d.x[0], d.x[1], d.x[2], d.step.axis, *d.y, d.poll); }

void check_dynamic_quantize(const StepCheck& c) {
  c.counts(1, 3);
  c.require(c.in(0).dtype == DType::kFloat32 && c.out(0).dtype == DType::kUint8 && c.out(1).dtype == DType::kFloat32 &&
                c.out(2).dtype == DType::kUint8,
            "wrong types");
  c.shape_is(c.out(), c.in(0).shape);
  c.require(c.out(1).elements == 1 && c.out(2).elements == 1, "a scale or zero point has the wrong length");
}

void compute_dynamic_quantize(const DenseStep& d) { ops::dynamic_quantize(d.x[0], d.y[0], d.y[1], d.y[2], d.poll); }

void check_requant(const StepCheck& c) {
  const ops::Requant& r = c.step.requant;
  const bool is_signed = c.out().dtype == DType::kInt8;
  const int32_t least = is_signed ? -128 : 0, greatest = is_signed ? 127 : 255;
  c.require(least <= r.low && r.low <= r.high && r.high <= greatest && least <= r.zero && r.zero <= greatest,
            "a bound or zero point is out of range");
}

// What qconv and qmatmul have in common: bias, scale and zero points, for `channels` of the result.
void check_product(const StepCheck& c, int64_t channels) {
  const DType y = c.out().dtype;
  check_bytes(c, 0);
  check_bytes(c, 1);
  if (y == DType::kInt32) {
    c.require(!c.optional(2) && !c.optional(3), "a sum has a bias or a scale");
  } else {
    check_vector(c, c.in(3), DType::kFloat32, channels);
    const Value* bias = c.optional(2);
    c.require(!bias || bias->dtype == DType::kInt32 || (bias->dtype == DType::kFloat32 && y == DType::kFloat32),
              "the bias has the wrong type");
    if (bias) c.shape_is(*bias, {channels});
    c.require(y == DType::kFloat32 || is_byte(y), "wrong type of output");
  }
  if (is_byte(y)) check_requant(c);
  c.require(y == DType::kFloat32 || c.step.act.kind == ActivationKind::kNone, "an activation on integers");
  if (c.optional(4)) check_vector(c, c.in(4), c.in(0).dtype, 1);
  if (c.optional(5)) check_vector(c, c.in(5), c.in(1).dtype, channels);
}

ops::QuantizedOperands operands(const DenseStep& d) { return {d.x[0], d.x[1], d.x[2], d.x[3], d.x[4], d.x[5]}; }

void check_qconv(const StepCheck& c) {
  c.counts(6, 1);
  c.conv_shapes();
  check_product(c, c.in(1).shape[0]);
}

void compute_qconv(const DenseStep& d) {
  ops::qconv(operands(d), d.step.window, d.step.group, d.step.act, d.step.requant, *d.y, d.poll);
}

void check_qmatmul(const StepCheck& c) {
  c.counts(6, 1);
  c.matmul_shapes(c.step.trans_b);
  check_product(c, c.out().shape.back());
}

void compute_qmatmul(const DenseStep& d) {
  ops::qmatmul(operands(d), d.step.trans_b, d.step.act, d.step.requant, *d.y, d.poll);
}

void check_terms(const StepCheck& c) {
  c.require(c.step.terms.size() == c.step.inputs.size(), "wrong number of terms");
  for (size_t i = 0; i < c.step.terms.size(); ++i) {
    check_bytes(c, i);
    const int32_t zero = c.step.terms[i].zero;
    c.require(-128 <= zero && zero <= 255, "a zero point is out of range");
  }
}

void check_qbinary(const StepCheck& c) {
  c.counts(2, 1);
  check_terms(c);
  c.require(c.step.binary == BinaryKind::kAdd || c.step.binary == BinaryKind::kMul, "neither a sum nor a product");
  c.require(is_byte(c.out().dtype), "the output holds no bytes");
  check_requant(c);
  c.broadcasts();
}

void compute_qbinary(const DenseStep& d) {
  ops::qbinary(d.x[0], d.x[1], d.step.binary == BinaryKind::kMul, d.step.terms, d.step.requant, *d.y, d.poll);
}

void check_qglobal_pool(const StepCheck& c) {
  c.counts(1, 1);
  check_terms(c);
  const Ints& x = c.in(0).shape;
  c.require(x.size() >= 2, "bad rank");
  Ints kept(x.size(), 1);
  kept[0] = x[0];
  kept[1] = x[1];
  c.require(c.out().shape == kept || c.out().shape == Ints{x[0], x[1]}, "a shape doesn't fit");
  if (c.out().dtype != DType::kFloat32) {
    c.require(is_byte(c.out().dtype), "wrong type of output");
    check_requant(c);
  }
}

void compute_qglobal_pool(const DenseStep& d) {
  ops::qglobal_pool(d.x[0], d.step.terms[0], d.step.requant, *d.y, d.poll);
}

void check_qpool(const StepCheck& c) {
  c.counts(1, 1);
  check_terms(c);
  c.require(c.out().dtype == DType::kFloat32, "wrong type of output");
  c.window(c.in(0), c.out(), false);
  c.require(c.in(0).shape[1] == c.out().shape[1], "channels differ");
}

void compute_qpool(const DenseStep& d) {
  ops::qpool(d.x[0], d.step.window, d.step.squares, d.step.terms[0], *d.y, d.poll);
}

void check_lookup(const StepCheck& c) {
  c.counts(2, 1);
  check_bytes(c, 0);
  c.shape_is(c.in(1), {256});
  const DType y = c.out().dtype;
  c.require(c.in(1).dtype == y && (is_byte(y) || y == DType::kFloat32), "wrong types");
  c.shape_is(c.out(), c.in(0).shape);
}

void compute_lookup(const DenseStep& d) { ops::lookup(d.x[0], d.x[1], *d.y, d.poll); }

}  // namespace

const OperatorRules operators::quantize = {check_quantize, lower_quantize, compute_quantize};
const OperatorRules operators::dequantize = {check_dequantize, lower_dequantize, compute_dequantize};
const OperatorRules operators::dynamicQuantize = {check_dynamic_quantize, lower_dynamic_quantize, compute_dynamic_quantize};
const OperatorRules operators::qconv = {check_qconv, lower_qconv, compute_qconv};
const OperatorRules operators::qmatmul = {check_qmatmul, lower_qmatmul, compute_qmatmul};
const OperatorRules operators::qbinary = {check_qbinary, lower_qbinary, compute_qbinary};
const OperatorRules operators::qglobalPool = {check_qglobal_pool, lower_qglobal_pool, compute_qglobal_pool};
const OperatorRules operators::qpool = {check_qpool, lower_qpool, compute_qpool};
const OperatorRules operators::lookup = {check_lookup, lower_lookup, compute_lookup};

}  // namespace rskip
