// Lowering of integer steps to the kernels on 8-bit numbers; false where a step is left to plain loops.
#pragma once

#include "plan/lowering.h"

namespace rskip {

inline constexpr DType kBytes = DType::kUint8;
inline bool is_bytes(const Lowering& plan, ValueId id) { return plan.value(id).dtype == kBytes; }
inline Rounding rounding_of(const ops::Requant& r) {
  return {static_cast<float>(r.low - r.zero), static_cast<float>(r.high - r.zero), r.zero};
}

// lower_quantized_operators.cc
bool lower_quantize(Lowering& plan, const Step& step);
bool lower_dynamic_quantize(Lowering& plan, const Step& step);
bool lower_dequantize(Lowering& plan, const Step& step);
bool lower_qconv(Lowering& plan, const Step& step);
// lower_quantized_product_operators.cc
bool lower_qmatmul(Lowering& plan, const Step& step);
// lower_quantized_map_operators.cc
bool lower_qbinary(Lowering& plan, const Step& step);
bool lower_qglobal_pool(Lowering& plan, const Step& step);
bool lower_qpool(Lowering& plan, const Step& step);
bool lower_lookup(Lowering& plan, const Step& step);
// Of pool, where it takes maxima of bytes.
bool lower_pool8(Lowering& plan, const Step& step);

}  // namespace rskip
