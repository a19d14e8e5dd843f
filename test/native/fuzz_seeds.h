// The programs that fuzzing starts from. Every operator is in one of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "program_writer.h"

namespace rskip::test {

// Steps of every kind on a blocked map, one after another.
inline ProgramWriter maps() {
  Random random(1);
  ProgramWriter w;
  int32_t x = w.conv(w.input({1, 3, 9, 8}), 20, 3, random, -1, kRelu);
  const int32_t vector = w.constant({20}, random.reals(20));
  x = w.step(Op::kAffine, {x, vector, vector}, {1, 20, 9, 8}, act_words(kRelu));
  x = w.conv(x, 20, 3, random, x, {}, 20);
  x = w.conv(x, 32, 3, random, -1, {}, 4);
  x = w.step(Op::kPool, {x}, {1, 32, 5, 4}, {1, 0, 0, 2, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1});
  const int32_t half = w.step(Op::kSlice, {x}, {1, 32, 3, 2}, {4, 0, 0, 0, 0, 1, 1, 2, 2});
  const int32_t padded = w.step(Op::kPad, {half, -1}, {1, 36, 3, 2}, {0, 8, 0, 1, 0, 0, 0, 3, 0, 0});
  const int32_t joined = w.step(Op::kConcat, {half, padded}, {1, 68, 3, 2}, {1});
  const int32_t mean = w.step(Op::kReduceMean, {joined}, {1, 68, 1, 1}, {2, 2, 3});
  const int32_t scaled = w.step(Op::kBinary, {joined, mean}, {1, 68, 3, 2}, {2, 0, 0, 0});
  w.output(w.step(Op::kTranspose, {scaled}, {1, 3, 2, 68}, {4, 0, 2, 3, 1}));
  w.output(w.step(Op::kSoftmax, {scaled}, {1, 68, 3, 2}, {1, 1}));
  w.output(w.classify(scaled, 4, random));
  return w;
}

// Steps on tensors of other types, and two branches.
inline ProgramWriter tensors() {
  Random random(2);
  ProgramWriter w;
  const int32_t x = w.input({1, 6}), index = w.input({2}, DType::kInt64, false);
  const int32_t zero = w.constant({}, {0});
  const int32_t positive = w.step(Op::kCompare, {x, zero}, {1, 6}, {0}, DType::kBool);
  const int32_t negative = w.step(Op::kLogical, {positive}, {1, 6}, {2}, DType::kBool);
  const int32_t chosen = w.step(Op::kWhere, {negative, zero, x}, {1, 6});
  const int32_t most = w.step(Op::kArgMax, {chosen}, {1}, {1, 0}, DType::kInt64);
  const int32_t hot = w.step(Op::kOneHot, {most, w.constant({2}, {0, 1})}, {1, 6}, {1, 6});
  const int32_t best = w.value({1, 4}), places = w.value({1, 4}, DType::kInt64);
  w.push(Op::kTopK, {chosen}, {best, places}, {1, 1});
  w.output(best);
  w.output(places);
  const int32_t picked = w.step(Op::kGather, {hot, most}, {1, 1}, {1});
  const int32_t wide = w.step(Op::kExpand, {picked}, {1, 6});
  const int32_t whole = w.step(Op::kCast, {wide}, {1, 6}, {}, DType::kInt32);
  w.output(w.step(Op::kBinary, {whole, whole}, {1, 6}, {3, 0, 0, 0}, DType::kInt32));
  const int32_t weight = w.constant({6, 6}, random.reals(36));
  const int32_t product = w.step(Op::kMatmul, {x, weight}, {1, 6});
  const int32_t condition = w.step(Op::kSlice, {positive}, {1, 1}, {2, 0, 3, 1, 1}, DType::kBool);
  const int32_t y = w.value({1, 6});
  w.push(Op::kBranch, {condition}, {}, {w.steps() + 3});
  w.push(Op::kReshape, {product}, {y});
  w.push(Op::kJump, {}, {}, {w.steps() + 2});
  w.push(Op::kUnary, {x}, {y}, act_words(kRelu));
  w.output(y);
  w.output(w.step(Op::kReshape, {index}, {2, 1}, {}, DType::kInt64), false);
  return w;
}

// Convolutions of other ranks, and pools with indices.
inline ProgramWriter ranks() {
  Random random(3);
  ProgramWriter w;
  const int32_t line = w.input({1, 4, 17}), volume = w.input({1, 2, 3, 4, 5});
  const int32_t a = w.constant({5, 4, 3}, random.reals(60)), b = w.constant({3, 2, 1, 2, 3}, random.reals(36));
  const int32_t conv = w.step(Op::kConv, {line, a, -1, -1}, {1, 5, 9}, {1, 0, 0, 0, 1, 2, 1, 1, 1});
  const int32_t indices = w.value({1, 5, 8}, DType::kInt64), pooled = w.value({1, 5, 8});
  w.push(Op::kPool, {conv}, {pooled, indices}, {1, 0, 1, 1, 2, 1, 0, 0, 1});
  w.output(pooled);
  w.output(indices);
  w.output(w.step(Op::kConv, {volume, b, -1, -1}, {1, 3, 3, 3, 3}, {1, 0, 0, 0, 3, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1}));
  return w;
}

// Large enough for bands of rows: expand, depthwise, project.
inline ProgramWriter inverted() {
  Random random(4);
  ProgramWriter w;
  const int32_t x = w.input({1, 2, 16, 1040});
  const int32_t wide = w.conv(x, 16, 1, random, -1, kRelu);
  w.output(w.conv(w.conv(wide, 16, 3, random, -1, kRelu, 16), 3, 1, random));
  return w;
}

inline std::vector<std::pair<std::string, ProgramWriter>> fuzz_seeds() {
  return {{"maps", maps()},         {"tensors", tensors()},
          {"ranks", ranks()},       {"inverted", inverted()},
          {"gates", TestNetwork(2, 5, 4).writer}, {"winograd", TestNetwork(1, 20, 9).writer},
          {"exits", TestNetwork(2, 5, 4, 1, true).writer}};
}

}  // namespace rskip::test
