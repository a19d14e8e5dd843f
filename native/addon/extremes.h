// The least and the greatest element of an array.
#pragma once

#include <napi.h>

namespace rskip {

// extremes(elements: TypedArray, found: Float64Array): boolean
//
// Fills in the least and the greatest element as Math.min and Math.max find them: NaN if one is, -0 below 0, infinities of the wrong
// signs if there are none. False, and nothing is filled in, for integers of 64 bits.
Napi::Value extremes(const Napi::CallbackInfo& info);

}  // namespace rskip
