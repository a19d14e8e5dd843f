// Images to planes of floats, for lib/data/resample.ts.
#pragma once

#include <napi.h>

namespace rskip {

// draw(pixels: Uint8Array, numbers: Int32Array, column firsts and factors, row firsts and factors: Int32Array, tables: Float32Array,
//      output: Float32Array): Promise<void>. DrawArgs8 says what it computes; `numbers` are width, height and channels of the image, width and
// height of a plane, left, top, how many elements make one of a row and of a column, and the channel of each plane. It runs on a thread of
// the event loop's pool. Nobody may write to the arrays until it settles.
Napi::Value draw(const Napi::CallbackInfo& info);

}  // namespace rskip
