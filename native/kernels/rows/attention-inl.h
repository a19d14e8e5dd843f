// Attention by heads and blocks of queries: the scores of a block, their softmax and its product with the values are
// done while the block is in the cache; no larger part of the matrix of scores ever exists. A softmax is divided by its
// sum behind that product, which has fewer columns.
#pragma once

#include "kernels/matrix/gemm-inl.h"
#include "kernels/rows/rows-inl.h"

namespace rskip::RSKIP_ISA {

// The products of one head: pack() its keys and values, score() queries by keys, weigh() values by scores.
struct ProductsOfAttention {
  static constexpr int kRows = kQueryRows;
  const AttentionShape& s;
  float *keys, *values, *queries, *scores;
  ProductsOfAttention(const AttentionShape& shape, float* memory)
      : s(shape),
        keys(memory),
        values(keys + static_cast<ptrdiff_t>(whole_blocks(s.keys)) * s.depth),
        queries(values + static_cast<ptrdiff_t>(whole_blocks(s.value_depth)) * s.keys),
        scores(queries + static_cast<ptrdiff_t>(kQueryRows) * s.depth) {}

  void pack(const float* k, const float* v) const {
    pack_columns(k, s.depth, s.keys, s.k.column, s.k.row, keys);
    pack_columns(v, s.keys, s.value_depth, s.v.row, s.v.column, values);
  }
  void score(int rows, const Epilogue& epilogue) const {
    GemmTile t = tile(epilogue);
    t.a = queries;
    t.w = keys;
    t.y = scores;
    t.a_stride = t.k = s.depth;
    t.y_stride = whole_blocks(s.keys);
    t.columns = s.keys;
    multiply_tiles(t, rows);
  }
  void weigh(int rows, float* y, const Epilogue& epilogue) const {
    GemmTile t = tile(epilogue);
    t.a = scores;
    t.w = values;
    t.y = y;
    t.a_stride = whole_blocks(s.keys);
    t.k = s.keys;
    t.y_stride = s.y.row;
    t.columns = s.value_depth;
    multiply_tiles(t, rows);
  }

 private:
  static GemmTile tile(const Epilogue& epilogue) {
    GemmTile t;
    t.bias = t.residual = nullptr;
    t.epilogue = &epilogue;
    return t;
  }
};

inline void mask_row(const AttentionShape& s, const float* mask, float* row) {
  if (s.mask.column == 1) return s.mask_replaces ? replace_row(row, mask, s.keys) : add_row(row, mask, s.keys);
  for (int j = 0; j < s.keys; ++j) {
    const float own = mask[j * s.mask.column];
    if (!s.mask_replaces) row[j] += own;
    else if (own < 0) row[j] = own;
  }
}

// One block of queries of one head; keys and values are packed.
template <class Products>
void attend(const AttentionArgs& args, const Products& at, int64_t batch, int64_t head, int first, int rows) {
  const AttentionShape& s = *args.shape;
  const Epilogue epilogue = epilogue_of({});
  const float* q = args.q + s.q.at(batch, head) + first * s.q.row;
  for (int r = 0; r < rows; ++r) {
    float* to = at.queries + r * s.depth;
    if (s.q.column == 1) {
      std::copy_n(q + r * s.q.row, s.depth, to);
      scale_row(to, s.depth, s.scale);
    } else {
      for (int d = 0; d < s.depth; ++d) to[d] = q[r * s.q.row + d * s.q.column] * s.scale;
    }
  }
  at.score(rows, epilogue);
  float sums[Products::kRows];
  for (int r = 0; r < rows; ++r) {
    float* row = at.scores + r * static_cast<ptrdiff_t>(whole_blocks(s.keys));
    if (args.mask != nullptr) mask_row(s, args.mask + s.mask.at(batch, head) + (first + r) * s.mask.row, row);
    sums[r] = exp_row(row, row, s.keys);
  }
  float* const y = args.y + s.y.at(batch, head) + first * s.y.row;
  at.weigh(rows, y, epilogue);
  for (int r = 0; r < rows; ++r) scale_row(y + r * s.y.row, s.value_depth, 1.0f / sums[r]);
}

// Shares are blocks of queries, head after head.
template <class Products>
void attention_by(const AttentionArgs& args, int part, int parts) {
  const AttentionShape& s = *args.shape;
  const Products at(s, args.scratch);
  const Split blocks(s.queries, Products::kRows);
  const auto [begin, end] = share_of(int64_t{s.batch} * s.heads * blocks.chunks, part, parts);
  int64_t packed = -1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t which = unit / blocks.chunks, batch = which / s.heads, head = which % s.heads;
    if (which != packed) {
      at.pack(args.k + s.k.at(batch, head), args.v + s.v.at(batch, head));
      packed = which;
    }
    const int block = static_cast<int>(unit % blocks.chunks);
    attend(args, at, batch, head, blocks.begin(block), blocks.size(block));
  }
}

inline void attention(const AttentionArgs& args, int part, int parts) {
  attention_by<ProductsOfAttention>(args, part, parts);
}

}  // namespace rskip::RSKIP_ISA
