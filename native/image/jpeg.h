// JPEG files of the kind that cameras and most programs write: baseline, one scan, 8 bits, grey or YCbCr with colours at full, at half
// horizontal, or at half resolution. Whole images have the values of libjpeg's slow integer transform and its smooth upsampling.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/table.h"

namespace rskip {

struct JpegRequest {
  int width = 0, height = 0, channels = 0;  // as the frame header must say
  int shrink = 1;                           // 1, 2, 4 or 8: a pixel of the result is the mean of so many rows and columns
  int orientation = 1;                      // of EXIF, 1 to 8: the result is upright

  int columns() const { return (width + shrink - 1) / shrink; }
  int rows() const { return (height + shrink - 1) / shrink; }
};

// Writes columns() x rows() pixels, or rows() x columns() from orientation 5 on, with interleaved channels. Returns false, with any
// pixels, if the file is damaged in any way, or of another kind: another decoder is to judge it.
bool decode_jpeg(std::span<const uint8_t> file, const JpegRequest& request, const KernelTable& table, uint8_t* pixels);

}  // namespace rskip
