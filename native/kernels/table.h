// The dispatch table: one plain struct of function pointers per instruction set, chosen once per session.
#pragma once

#include <memory>
#include <vector>

#include "kernels/types.h"

namespace rskip {

// kAvxVnni, kAvx512Vnni and kNeonDot are the one before each with the instructions that sum four products of 8-bit numbers,
// kAmx has those that multiply matrices of them, too; their kernels on floats are the same. Of those that a machine has, the
// last is the best.
enum class Isa : int32_t { kScalar, kAvx2, kAvxVnni, kAvx512, kAvx512Vnni, kAmx, kNeon, kNeonDot };

// Weights of one convolution, packed for one algorithm; the same bytes for every instruction set.
// Immutable once made; shared by all concurrent runs.
struct PackedConv;
// In bfloat16 those of bfloat16, wherever Winograd doesn't save more multiplications than they do.
ConvAlgorithm choose_conv_algorithm(const ConvShape& shape, Precision precision = Precision::kFloat32);
// Whether kWinograd2 and kWinograd4 can compute this convolution at all: 3x3, stride 1, one group.
bool winograd_applies(const ConvShape& shape);
// weight is (M, C/groups, kh, kw), bias is (M) or null. Throws std::bad_alloc.
std::shared_ptr<const PackedConv> pack_conv(const ConvShape& shape, ConvAlgorithm algorithm, const float* weight,
                                            const float* bias);
// The same weights, not copied, for another height, width or padding; algorithm and all else must be equal.
std::shared_ptr<const PackedConv> rebind_conv(const PackedConv& conv, const ConvShape& shape);
// Zero halo that the input view of this convolution must have (pads, and what tiles over-read).
Halo conv_input_halo(const ConvShape& shape, ConvAlgorithm algorithm);
// Scratch that one call on one worker needs, in bytes, 64-byte aligned.
size_t conv_scratch_bytes(const PackedConv& conv);
size_t conv_packed_bytes(const PackedConv& conv);

struct ConvArgs {
  const PackedConv* conv = nullptr;
  BlockedView x;            // unless reads_planar()
  PlanarView x_planar;      // reads_planar()
  BlockedView y;            // may be the same memory as residual; never overlaps x
  const BlockedView* residual = nullptr;
  Activation act;           // y = act(conv(x) + bias + residual)
  // All but kWinograd*: compute so many rows only, 0 for all. The first of them is row 0 of y and residual, and
  // x is shifted so that it would be the first of all.
  int rows = 0;
  // conv16_amx: which of them are maps of pairs (bfloat16/pack16.h); y only where is_clamp(act).
  bool x_pairs = false, y_pairs = false;
  void* scratch = nullptr;
};

// Matrix B (K x N) packed as [ceil(N/16)][K][16] with its bias.
struct PackedGemm;
// b is (K,N), or (N,K) if trans_b; c is (N) or null. For products with a single row, weights that bfloat16 holds exactly take
// half the memory: reading them is what takes the time. Those that are whole numbers from -127 to 127 times a power of two, one for
// each k, take a quarter. The sums are the same.
std::shared_ptr<const PackedGemm> pack_gemm(int k, int n, const float* b, bool trans_b, const float* c,
                                            bool single_row = false);
// The same for gemm16 or gemm16_amx.
std::shared_ptr<const PackedGemm> pack_gemm16(int k, int n, const float* b, bool trans_b, const float* c, Precision precision);
size_t gemm_packed_bytes(const PackedGemm& gemm);
// Scratch of one worker in gemm, in bytes, 64-byte aligned.
size_t gemm_scratch_bytes(const PackedGemm& gemm);

struct GemmArgs {
  const PackedGemm* gemm = nullptr;
  const float* a = nullptr;         // m x k, row-major, dense
  float* y = nullptr;               // m x n, row-major, dense; may be the same memory as residual
  const float* residual = nullptr;  // m x n or null
  int m = 0;
  Activation act;
  void* scratch = nullptr;
};

// `count` products of m x k and k x n matrices, both known at run time only. a and y are row-major and dense.
inline constexpr int kProductColumns = 64;
struct ProductsArgs {
  const float *a = nullptr, *b = nullptr;
  float* y = nullptr;
  int64_t count = 0;
  int m = 0, k = 0, n = 0;
  ptrdiff_t b_row = 0, b_column = 0;  // between neighbours of b
  const int64_t* offsets = nullptr;   // of a, b and y, for each product
  float* scratch = nullptr;           // k x kProductColumns floats, 64-byte aligned
};

// Where a tensor's element (batch, head, row, column) lies, in floats from its first.
struct AttentionView {
  int64_t offset = 0, batch = 0, head = 0, row = 0, column = 0;
  int64_t at(int64_t b, int64_t h) const { return offset + b * batch + h * head; }
};
// Rows are queries of q, mask and y, keys of k and v; columns are those of a head, of the mask keys. y's columns are
// neighbours. The mask is added to the scores, or with `mask_replaces` takes their place where it is below 0.
struct AttentionShape {
  int batch = 0, heads = 0, queries = 0, keys = 0, depth = 0, value_depth = 0;
  float scale = 1;
  AttentionView q, k, v, mask, y;
  bool mask_replaces = false;
};
// Queries whose scores exist at a time.
inline constexpr int kQueryRows = 24;
// Scratch of one worker, in bytes, 64-byte aligned.
int64_t attention_scratch_bytes(const AttentionShape& shape);
struct AttentionArgs {
  const AttentionShape* shape = nullptr;
  const float *q = nullptr, *k = nullptr, *v = nullptr;
  const float* mask = nullptr;  // or none
  float* y = nullptr;           // overlaps nothing
  float* scratch = nullptr;
};

// scale and shift have n elements, or are null for 1 and 0.
struct NormArgs {
  int64_t n = 0;
  float epsilon = 0;
  const float *scale = nullptr, *shift = nullptr;
};

// A dense tensor as (outer, length, inner): columns are its elements along the middle axis.
struct ColumnShape {
  int64_t outer = 1, length = 1, inner = 1;
};
enum class RowReduction : int32_t { kSum, kMean, kMax, kMin };

// y[o, i, c] = sum over j of factors[i, j] * x[o, places[i, j], c], in the order of j; x is `shape`, y has `count` instead of
// its length. Places are inside of it.
struct ResampleArgs {
  ColumnShape shape;
  int64_t count = 0, each = 0;
  const int32_t* places = nullptr;
  const float* factors = nullptr;
  const float* x = nullptr;
  float* y = nullptr;
  float* scratch = nullptr;  // for an inner axis of 1 (length + count) x 16 floats, 64-byte aligned
};

struct PoolArgs {
  BlockedView x, y;
  int kernel_h = 1, kernel_w = 1, stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1;
  Halo pad;
  bool max = false;
  bool count_include_pad = false;
  // ONNX ceil_mode may let the last window reach past the end padding; those cells never count.
};

enum class GlobalPoolKind : int32_t { kMean, kMax, kMeanSquare };

// The kernels compute those up to kMax; the others have plain loops only.
enum class BinaryKind : int32_t { kAdd, kSub, kMul, kDiv, kMin, kMax, kMod, kFmod, kPow };

// Splitting: a kernel with (part, parts) does the part-th of `parts` disjoint shares of its output; all
// parts together give the same bits as (0, 1). Parts may be empty.
// table8.h
struct ConvArgs8;
struct GemmArgs8;
struct ProductsArgs8;
struct PoolArgs8;
struct GlobalPoolArgs8;
struct SumPoolArgs8;
struct BinaryArgs8;
struct LookupArgs8;
struct QuantizeArgs8;
struct DynamicQuantizeArgs8;
struct DequantizeArgs8;
struct DrawArgs8;
struct InverseArgs8;
struct PaintArgs8;

struct KernelTable {
  Isa isa = Isa::kScalar;
  const char* name = "";
#define RS_KERNEL(name, ...) void (*name)(__VA_ARGS__) = nullptr;
#define RS_KERNEL8 RS_KERNEL
#define RS_KERNEL16 RS_KERNEL
#include "kernels/kernels.def"
#undef RS_KERNEL
#undef RS_KERNEL8
#undef RS_KERNEL16
};

// Best table that this CPU and operating system can run, at most `cap`; null if `cap` itself can't run here.
// Asks XCR0 as well as CPUID.
const KernelTable* best_table();
const KernelTable* table_for(Isa isa);
// All tables that can run here, weakest first.
std::vector<const KernelTable*> available_tables();

}  // namespace rskip
