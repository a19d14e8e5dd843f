// Attention whose two products are those of bfloat16. Masks and the softmax between them are on floats.
#pragma once

#include "kernels/bfloat16/kernels16-inl.h"
#include "kernels/rows/attention-inl.h"

namespace rskip::RSKIP_ISA {

// [block of 16 columns][pair along k][16] of the matrix whose element (i, j) is at b[i * row + j * column]; zeros beyond its last row
// and column.
inline void pack_pairs(const float* b, int k, int n, ptrdiff_t row, ptrdiff_t column, Precision precision, float* to) {
  const int pairs = packed_pairs(k, precision);
  for (int first = 0; first < n; first += kLanes, b += kLanes * column, to += pairs * kLanes) {
    const int lanes = std::min(kLanes, n - first);
    for (int pair = 0; row == 1 && pair < pairs; pair += kLanes) {
      Vec columns[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        columns[j] = j < lanes ? pairs_at(b + j * column + kPair * pair, k - kPair * pair) : splat(0);
      }
      transpose(columns);
      for (int i = 0; i < std::min(kLanes, pairs - pair); ++i) store(to + (pair + i) * kLanes, columns[i]);
    }
    for (int pair = 0; row != 1 && pair < pairs; ++pair) {
      alignas(64) float both[kPairLanes] = {};
      const auto line = [&](int i) {
        if (i >= k) return splat(0);
        if (column == 1) return load_lanes(b + i * row, lanes);
        for (int lane = 0; lane < lanes; ++lane) both[lane] = b[i * row + lane * column];
        return load(both);
      };
      const Vec low = line(kPair * pair), high = line(kPair * pair + 1);
      store(both, to_pairs(low, high));
      uint16_t halves[kPairLanes];
      std::memcpy(halves, both, sizeof(halves));
      uint32_t beside[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) beside[lane] = halves[lane] | uint32_t{halves[lane + kLanes]} << 16;
      std::memcpy(to + pair * kLanes, beside, sizeof(beside));
    }
  }
}

// As ProductsOfAttention.
template <class Tiles>
struct PairsOfAttention {
  static constexpr int kRows = Tiles::kPrecision == Precision::kBfloat16Amx ? kQueryRows16 : kQueryRows;
  const AttentionShape& s;
  float *keys, *values, *queries, *scores, *rows;
  PairsOfAttention(const AttentionShape& shape, float* memory)
      : s(shape),
        keys(memory),
        values(keys + static_cast<ptrdiff_t>(whole_blocks(s.keys)) * packed_pairs(s.depth, Tiles::kPrecision)),
        queries(values + static_cast<ptrdiff_t>(whole_blocks(s.value_depth)) * packed_pairs(s.keys, Tiles::kPrecision)),
        scores(queries + static_cast<ptrdiff_t>(kRows) * s.depth),
        rows(scores + static_cast<ptrdiff_t>(kRows) * whole_blocks(s.keys)) {}

  void pack(const float* k, const float* v) const {
    pack_pairs(k, s.depth, s.keys, s.k.column, s.k.row, Tiles::kPrecision, keys);
    pack_pairs(v, s.keys, s.value_depth, s.v.row, s.v.column, Tiles::kPrecision, values);
  }
  void score(int count, const Epilogue& epilogue) const {
    const int n = whole_blocks(s.keys);
    multiply(queries, s.depth, count, s.depth, n, keys, scores, n, epilogue);
  }
  void weigh(int count, float* y, const Epilogue& epilogue) const {
    multiply(scores, whole_blocks(s.keys), count, s.keys, s.value_depth, values, y, s.y.row, epilogue);
  }

 private:
  void multiply(const float* x, ptrdiff_t stride, int m, int k, int n, const float* weights, float* y, ptrdiff_t y_stride,
                const Epilogue& epilogue) const {
    fill_rows(x, stride, m, k, rows);
    PairsProduct p;
    p.rows = rows;
    p.m = m;
    p.k = k;
    p.n = n;
    p.weights = weights;
    p.y = y;
    p.y_stride = y_stride;
    p.epilogue = &epilogue;
    Tiles::multiply(p, 0, p.groups());
  }
};

template <class Tiles>
void attention16_by(const AttentionArgs& args, int part, int parts) {
  attention_by<PairsOfAttention<Tiles>>(args, part, parts);
}

}  // namespace rskip::RSKIP_ISA
