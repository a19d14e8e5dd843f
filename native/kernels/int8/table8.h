// Arguments of the kernels on 8-bit numbers. Values are unsigned, weights are signed, sums are 32-bit and wrap.
#pragma once

#include "kernels/table.h"

namespace rskip {

// What becomes of a sum: min(high, max(low, round(sum * scale[c]))) + zero, to the nearest integer, of two equally near
// to the even one; a NaN gives `low`. `low` and `high` are integers, with `zero` added in [0, 255].
struct Rounding {
  float low = 0, high = 255;
  int32_t zero = 0;
};
// An addition behind a convolution: with c, its result less its zero, and r = residual - residual_zero, the value is
// fma(c, scale, r * residual_scale) or, if residual_first, fma(r, residual_scale, c * scale); rounded like a sum.
struct Addition8 {
  float scale = 1, residual_scale = 1;
  int32_t residual_zero = 0;
  bool residual_first = false;
  Rounding rounding;
};

struct PackedConv8;
// Any but Winograd's.
ConvAlgorithm choose_conv8_algorithm(const ConvShape& shape);
// Whether `isa` gains by kWinograd4; sums are exact, so that instruction sets may differ. And whether it holds all sums by these weights.
bool winograd8_suits(const ConvShape& shape, Isa isa);
bool winograd8_is_exact(const ConvShape& shape, const int8_t* weight);
// weight is (M, C/groups, kh, kw); bias is (M) or null; `scales` are M or one; input_zero is that of x. Only kDepthwise takes zero points of
// the weights, M or one.
std::shared_ptr<const PackedConv8> pack_conv8(const ConvShape& shape, ConvAlgorithm algorithm, const int8_t* weight,
                                              const int32_t* bias, const float* scale, int scales, int input_zero,
                                              const int8_t* weight_zero = nullptr, int weight_zeros = 0);
std::shared_ptr<const PackedConv8> rebind_conv8(const PackedConv8& conv, const ConvShape& shape);
// What a worker needs beside its arguments.
size_t conv8_scratch_bytes(const PackedConv8& conv, Isa isa);
// Halo of the input's zero point.
Halo conv8_input_halo(const ConvShape& shape, ConvAlgorithm algorithm);

struct ConvArgs8 {
  const PackedConv8* conv = nullptr;
  BlockedView8 x;
  PlanarView8 x_planar;
  BlockedView8 y;
  const BlockedView8* residual = nullptr;
  Rounding rounding;
  Addition8 addition;  // where there is a residual
  int rows = 0;        // as ConvArgs
  void* scratch = nullptr;  // of the worker, 64-byte aligned
};

// An addition behind a product of matrices. `row` is from one row of what is added to the next; 0: all rows get the first.
struct RowAddition8 {
  const uint8_t* addend = nullptr;
  ptrdiff_t row = 0;
  Addition8 sum;
};
inline constexpr int kMaxAdditions8 = 2;

// Matrix B (K x N) of signed numbers, packed as [ceil(N / 16)][ceil(K / 4)][16][4].
struct PackedGemm8;
// b is (K,N), or (N,K) if trans_b; bias is (N) or null; `scales` are N, one, or, with null, none; so are weight_zeros.
std::shared_ptr<const PackedGemm8> pack_gemm8(int k, int n, const int8_t* b, bool trans_b, const int32_t* bias,
                                              const float* scale, int scales, int input_zero,
                                              const int8_t* weight_zero = nullptr, int weight_zeros = 0);
size_t gemm8_packed_bytes(const PackedGemm8& gemm);

// Bytes of `scratch` for m rows: A with its rows padded, where k is no multiple of four; sums of rows, where weights have zero
// points; and what depends on a scale and zero point that are known at run time only.
size_t gemm8_scratch_bytes(const PackedGemm8& gemm, int m, bool at_run_time = false);

// Y = A B, rows dense.
struct GemmArgs8 {
  const PackedGemm8* gemm = nullptr;
  const uint8_t* a = nullptr;
  int m = 0;
  // One of them: rounded, or act(fma(sum, scale, shift)), without shift act(sum * scale); act(round(sum * scale) + shift) if
  // rounds_product.
  uint8_t* y = nullptr;
  float* y_float = nullptr;
  Rounding rounding;
  RowAddition8 additions[kMaxAdditions8];  // to rounded sums, one after the other; N is then a multiple of 16
  int addition_count = 0;
  const float* shift = nullptr;  // (N), or null
  bool rounds_product = false;
  Activation act;
  void* scratch = nullptr;
  // In place of the packed ones, if not null: the sums' scales, N or one, and A's zero point, where the packed one is 0.
  const float* scale = nullptr;
  int scales = 1;
  const uint8_t* zero = nullptr;
};

// `count` products of m x k and k x n matrices (n x k if trans_b), both known at run time only: each sum of
// (a - zero_a) * (b - zero_b), times the scale, rounded. All are dense.
struct ProductsArgs8 {
  const uint8_t *a = nullptr, *b = nullptr;
  uint8_t* y = nullptr;
  int64_t count = 0;
  const int64_t* offsets = nullptr;  // of a, b and y, for each product
  int m = 0, k = 0, n = 0;
  bool trans_b = false;
  int32_t zero_a = 0, zero_b = 0;
  float scale = 1;
  Rounding rounding;
  void* scratch = nullptr;  // 64-byte aligned
};
size_t products8_scratch_bytes(int m, int k, int n);

// Maxima; 0 for a window that lies wholly in the padding.
struct PoolArgs8 {
  BlockedView8 x, y;
  PoolArgs window;  // without views
};

// The mean of every channel: (sum of x - zero) * factor, as a float or rounded.
struct GlobalPoolArgs8 {
  BlockedView8 x;
  int32_t zero = 0;
  float factor = 1;
  float* y_float = nullptr;
  uint8_t* y = nullptr;
  Rounding rounding;
};

// (sum of x - zero, or of its squares) * factor over each window; sums are exact and wrap.
struct SumPoolArgs8 {
  BlockedView8 x;
  BlockedView y;
  PoolArgs window;  // without views
  int32_t zero = 0;
  float factor = 1;
  bool squares = false;
};

// kAdd: fma(a - zero_a, factor_a, (b - zero_b) * factor_b); kMul: (a - zero_a) * (b - zero_b) * factor_a; then rounded.
// b has a's shape or, `by_channel`, one pixel for all of a's.
struct BinaryArgs8 {
  BinaryKind kind = BinaryKind::kAdd;
  BlockedView8 a, b, y;  // y may be a or b
  bool by_channel = false;
  int32_t zero_a = 0, zero_b = 0;
  float factor_a = 1, factor_b = 1;
  Rounding rounding;
};

// y = table[x]; in place allowed.
struct LookupArgs8 {
  BlockedView8 x, y;
  const uint8_t* table = nullptr;  // 256
};

// Dense spans of n numbers. y = round(x / scale) + zero, within [0, 255]; a NaN gives zero.
struct QuantizeArgs8 {
  const float* x = nullptr;
  uint8_t* y = nullptr;
  size_t n = 0;
  float scale = 1;
  int32_t zero = 0;
};
// The same with what makes the range of x, widened to hold 0, 255 steps: 1 and 0 for a range of nothing.
struct DynamicQuantizeArgs8 {
  const float* x = nullptr;
  uint8_t* y = nullptr;
  size_t n = 0;
  float* scale = nullptr;
  uint8_t* zero = nullptr;
  // Of a blocked map, n elements are one of `rows` rows of one of `blocks` blocks, of which the last has some channels less.
  int rows = 1, blocks = 1, last_channels = kLanes;
  ptrdiff_t x_row = 0, x_block = 0, y_row = 0, y_block = 0;
};
// y = (x - zero) * scale
struct DequantizeArgs8 {
  const uint8_t* x = nullptr;
  float* y = nullptr;
  size_t n = 0;
  int32_t zero = 0;
  float scale = 1;
};

// How one axis of an image is resized: element i of the result is the sum of `each` elements from firsts[i] on, times factors[i, j], which
// have kDrawBits bits behind the point. firsts doesn't fall.
struct DrawAxis8 {
  int count = 0, each = 0;
  const int32_t *firsts = nullptr, *factors = nullptr;
  // The elements that are needed.
  int begin() const { return firsts[0]; }
  int length() const { return firsts[count - 1] + each - firsts[0]; }
};
inline constexpr int kDrawBits = 22;

// output[p, top + y, left + x] = tables[p, value] of each of some planes, where value is channel sources[p] of the image, resized: along the
// rows, rounded to 8 bits, then along the columns, rounded again.
struct DrawArgs8 {
  const uint8_t* pixels = nullptr;  // [height, width, channels]
  int width = 0, height = 0, channels = 0;
  DrawAxis8 columns, rows;
  int planes = 0;
  const int32_t* sources = nullptr;
  const float* tables = nullptr;  // [planes, 256]
  float* output = nullptr;        // [planes, plane_height, plane_width]
  int plane_width = 0, plane_height = 0, left = 0, top = 0;
  uint8_t* scratch = nullptr;  // draw_scratch_bytes()

  static int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }
  int64_t row_bytes() const { return whole_vectors(int64_t{columns.length()} * channels); }
  int64_t narrow_width() const { return whole_vectors(columns.count); }
};
// Sixteen rows as columns, before and after they are resized, and all resized rows of each channel.
inline int64_t draw_scratch_bytes(const DrawArgs8& a) {
  return (a.row_bytes() + a.narrow_width()) * kLanes + a.channels * a.narrow_width() * a.rows.length();
}

// Inverse cosine transforms of 16 blocks of 8 x 8 coefficients, of which a block has columns x rows pixels: means of the whole block's.
struct InverseArgs8 {
  const int32_t* coefficients = nullptr;  // [64][16]: 16 blocks side by side
  int columns = 0, rows = 0;              // each 1, 2, 4 or 8
  uint8_t* y = nullptr;                   // rows of 16 * columns bytes
  ptrdiff_t stride = 0;
};
// For 1, 2, 4 or 8 pixels, [coefficient][pixel] in units of 2^-13: what a coefficient is multiplied by.
const int32_t* inverse_factors(int pixels);

// A row of RGB from rows of luminance and of colour, whose values are as far apart as two pixels if `halves`. If `far` are given, the row
// lies between two rows of colour, nearer to `near`. Rows can be read up to 32 bytes behind their ends, those of halves one before.
struct PaintArgs8 {
  const uint8_t* y = nullptr;
  const uint8_t* near[2] = {};
  const uint8_t* far[2] = {};
  bool halves = false;
  int width = 0;
  uint8_t* rgb = nullptr;  // of whole vectors of 32 pixels, and 16 more bytes
};

}  // namespace rskip
