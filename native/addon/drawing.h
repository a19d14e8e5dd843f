// JPEG files to pixels, and pixels to planes of floats, for lib/data.
#pragma once

#include <napi.h>

namespace rskip {

// draw(pixels: Uint8Array, numbers: Int32Array, column firsts and factors, row firsts and factors: Int32Array, tables: Float32Array,
//      output: Float32Array): Promise<void>. DrawArgs8 says what it computes; `numbers` are width, height and channels of the image, width and
// height of a plane, left, top, how many elements make one of a row and of a column, and the channel of each plane. It runs on a thread of
// the event loop's pool. Nobody may write to the arrays until it settles.
Napi::Value draw(const Napi::CallbackInfo& info);

// decodeJpeg(file: Uint8Array, numbers: Int32Array, pixels: Uint8Array): Promise<boolean>. image/jpeg.h says what it does; `numbers` are
// those of JpegRequest. It runs and takes arrays as `draw` does.
Napi::Value decode_jpeg(const Napi::CallbackInfo& info);

}  // namespace rskip
