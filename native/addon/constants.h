// Loops over constants of programs, which V8 would optimise for longer than they run. lib/tensor/constant-loops.ts says
// what they compute.
#pragma once

#include <napi.h>

namespace rskip {

// extremes(elements: TypedArray, found: Float64Array): boolean. False, and nothing is filled in, for integers of 64
// bits.
Napi::Value extremes(const Napi::CallbackInfo& info);
// scale(numbers: Float32Array, by: number, divided: boolean, results: Float32Array): void
void scale(const Napi::CallbackInfo& info);
// toBytes(numbers: Float32Array, factor, zero, low, high, bytes: Uint8Array | Int8Array): void
void to_bytes(const Napi::CallbackInfo& info);
// fromBytes(bytes: Uint8Array | Int8Array, zero: number, factor: number, numbers: Float32Array): void
void from_bytes(const Napi::CallbackInfo& info);
// inUnits(numbers: Float64Array, own: Float32Array | null, units: Float32Array, limit, results: Int32Array): void
void in_units(const Napi::CallbackInfo& info);

}  // namespace rskip
