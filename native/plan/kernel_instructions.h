// Instructions that call the kernels of the dispatch table.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "kernels/table.h"
#include "ops/rows.h"
#include "plan/instruction.h"

namespace rskip {

// A blocked or planar image: `place` is that of its pixel (0, 0), the view has no data yet.
template <class View>
struct ImageOperand {
  Place place;
  View view;
};
using BlockedOperand = ImageOperand<BlockedView>;
using PlanarOperand = ImageOperand<PlanarView>;
using BlockedOperand8 = ImageOperand<BlockedView8>;
using PlanarOperand8 = ImageOperand<PlanarView8>;

struct ConvOperands {
  std::shared_ptr<const PackedConv> conv;
  std::shared_ptr<const PackedConv> packed;  // what `conv` shares its weights with, kept for others to find
  bool planar = false;
  BlockedOperand x;
  PlanarOperand x_planar;
  BlockedOperand y;
  bool x_pairs = false, y_pairs = false;  // as in ConvArgs
  bool has_residual = false;
  BlockedOperand residual;
  Activation act;
  int64_t multiply_adds = 0;
};
InstructionPtr make_conv(const KernelTable& table, ConvOperands operands);
// The kernel that these weights are packed for.
decltype(KernelTable::conv) conv_kernel(const KernelTable& table, const PackedConv& conv);

// The second convolution, which is depthwise, of the first one's result, of which only some rows exist at a time
// (fused_convs.cc); then, maybe, the third, 1x1 without stride or padding, of that. The first is kDirect, kPlanar or of bfloat16; it and
// the second, where there is a third, have no residual. What lies between them is not used as an operand: first.y, second.x
// and so on. The same bits as one after the other.
InstructionPtr make_fused_convs(const KernelTable& table, ConvOperands first, ConvOperands second,
                                std::optional<ConvOperands> third);

struct GemmOperands {
  std::shared_ptr<const PackedGemm> gemm;
  Place a, y;
  bool has_residual = false;
  Place residual;
  int m = 0, k = 0, n = 0;
  Activation act;
  Precision precision = Precision::kFloat32;  // what it is packed for
};
InstructionPtr make_gemm(const KernelTable& table, GemmOperands operands);

// row_instructions.cc. scale and shift may be absent.
struct NormOperands {
  int64_t n = 0;
  float epsilon = 0;
  std::optional<Place> scale, shift;
};
InstructionPtr make_norm_rows(const KernelTable& table, Place x, const NormOperands& operands, Place y, int64_t rows);
InstructionPtr make_norm_channels(const KernelTable& table, BlockedOperand x, const NormOperands& operands,
                                  BlockedOperand y);
InstructionPtr make_softmax_rows(const KernelTable& table, Place x, Place y, int64_t rows, int64_t n, bool log);
struct ProductsOperands {
  int m = 0, k = 0, n = 0;
  std::vector<int64_t> offsets;  // of a, b and y, for each product
};
InstructionPtr make_products(const KernelTable& table, Place a, Place b, Place y, ProductsOperands operands);
struct AttentionPlaces {
  Place q, k, v;
  std::optional<Place> mask;
  Place y;
};
InstructionPtr make_attention(const KernelTable& table, const AttentionShape& shape, AttentionPlaces places, Precision precision);

// `args` carries the window; its views are replaced.
InstructionPtr make_pool(const KernelTable& table, BlockedOperand x, BlockedOperand y, const PoolArgs& args);
InstructionPtr make_global_pool(const KernelTable& table, BlockedOperand x, GlobalPoolKind kind, Place y);
InstructionPtr make_affine(const KernelTable& table, BlockedOperand x, Place scale, Place shift, BlockedOperand y,
                           Activation act);
InstructionPtr make_unary(const KernelTable& table, BlockedOperand x, BlockedOperand y, Activation act);
InstructionPtr make_binary(const KernelTable& table, BinaryKind kind, BlockedOperand a, BlockedOperand b,
                           BlockedOperand y, Activation act);
InstructionPtr make_binary_channel(const KernelTable& table, BinaryKind kind, BlockedOperand a, Place v, bool reversed,
                                   BlockedOperand y, Activation act);
InstructionPtr make_unary_span(const KernelTable& table, Place x, Place y, int64_t n, Activation act);
InstructionPtr make_binary_span(const KernelTable& table, BinaryKind kind, Place a, Place b, Place y, int64_t n,
                                Activation act);
// row_instructions.cc: rows of y, then a and b, whose elements are neighbours or one for all of a row.
InstructionPtr make_binary_rows(const KernelTable& table, BinaryKind kind, Place a, Place b, Place y, ops::Rows<3> rows,
                                Activation act);
// A dense tensor (outer, length, inner), with a scale and a shift for each of `length`.
InstructionPtr make_affine_dense(const KernelTable& table, Place x, Place scale, Place shift, Place y,
                                 const ColumnShape& shape, Activation act);
InstructionPtr make_softmax_columns(const KernelTable& table, Place x, Place y, const ColumnShape& shape, bool log);
InstructionPtr make_arg_max(const KernelTable& table, Place x, Place y, const ColumnShape& shape);
InstructionPtr make_reduce_rows(const KernelTable& table, RowReduction kind, Place x, Place y, int64_t rows, int64_t n);
// `out_of_range` is called, and throws, where a place is.
InstructionPtr make_resample(const KernelTable& table, Place x, Place places, Place factors, Place y, ResampleArgs args,
                             std::function<void()> out_of_range);
InstructionPtr make_planar_to_blocked(const KernelTable& table, PlanarOperand x, BlockedOperand y);
InstructionPtr make_blocked_to_planar(const KernelTable& table, BlockedOperand x, PlanarOperand y);

// Plain copies (move_instructions.cc); no kernel of the table.
InstructionPtr make_copy(Place x, Place y, size_t bytes);
InstructionPtr make_copy_planar(PlanarOperand x, PlanarOperand y);
InstructionPtr make_copy_planar(PlanarOperand8 x, PlanarOperand8 y);
InstructionPtr make_copy_blocked(BlockedOperand x, BlockedOperand y);
InstructionPtr make_copy_blocked(BlockedOperand8 x, BlockedOperand8 y);
// y[0, n) = x[0, n), or x[0] for make_spread; then zeros up to whole blocks.
InstructionPtr make_pad_channels(Place x, Place y, int n);
InstructionPtr make_spread(Place x, Place y, int n);

// y = x's pixels (first_row + i * row_step, first_column + j * column_step), at (top + i, left + j) and `channels`
// channels later; `fill` elsewhere, which is zero for floats. Option A shortcuts are made of these.
struct BlockedMove {
  int first_row = 0, first_column = 0, row_step = 1, column_step = 1;
  int rows = 0, columns = 0;
  int top = 0, left = 0, channels = 0;
  bool fills = false;  // something of y
  uint8_t fill = 0;

  // This move and `next` as one; none if this one fills something, or a step would be too long.
  std::optional<BlockedMove> then(const BlockedMove& next) const;
};
InstructionPtr make_move_blocked(BlockedOperand x, BlockedOperand y, const BlockedMove& move);
InstructionPtr make_move_blocked(BlockedOperand8 x, BlockedOperand8 y, const BlockedMove& move);

}  // namespace rskip
