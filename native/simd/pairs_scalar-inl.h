// Pairs of bfloat16 beside vec_scalar-inl.h: the definition of what every instruction set computes.
#pragma once

#include "kernels/bfloat16/pack16.h"

namespace rskip::RSKIP_ISA {

struct Pair {
  float bits;
};
struct Pairs {
  Vec v;
};
inline Pairs load_weights(const Pair* w) { return {load(&w->bits)}; }

inline float flush_denormal(float x) { return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
// fma(a, b, sum) without denormals. A result that is denormal as long as it has all bits of a normal number, but was rounded
// up to the least of those, is one.
inline float fma_flushed(float a, float b, float sum) {
  const float result = std::fma(a, b, sum);
  if (std::abs(result) > 0x1p-126f) return result;
  const bool tiny = std::abs(result) < 0x1p-126f || std::abs(double{a} * b + sum) < 0x1p-126 - 0x1p-151;
  return tiny ? std::copysign(0.0f, result) : result;
}
inline float first_of_pair(float pair) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(pair) << 16);
}
inline float second_of_pair(float pair) {
  return std::bit_cast<float>(std::bit_cast<uint32_t>(pair) & 0xffff0000);
}
// sum[n] += *x * factor[n], each of them a pair. Weights and rounded inputs are no denormals.
template <int N>
void add_products(Vec (&sum)[N], const float* x, const Pairs (&factor)[N]) {
  for (int n = 0; n < N; ++n) {
    for (int i = 0; i < kLanes; ++i) {
      const float pair = factor[n].v.v[i];
      const float second = fma_flushed(second_of_pair(*x), second_of_pair(pair), flush_denormal(sum[n].v[i]));
      sum[n].v[i] = fma_flushed(first_of_pair(*x), first_of_pair(pair), second);
    }
  }
}
// The same with sums of their own for the first and the second number of each pair, and the sum of both: as AMX does.
template <int N>
void add_products_apart(Vec (&first)[N], Vec (&second)[N], const float* x, const Pairs (&factor)[N]) {
  for (int n = 0; n < N; ++n) {
    for (int i = 0; i < kLanes; ++i) {
      const float pair = factor[n].v.v[i];
      first[n].v[i] = fma_flushed(first_of_pair(*x), first_of_pair(pair), first[n].v[i]);
      second[n].v[i] = fma_flushed(second_of_pair(*x), second_of_pair(pair), second[n].v[i]);
    }
  }
}
inline Vec add_flushed(Vec a, Vec b) {
  Vec sum;
  for (int i = 0; i < kLanes; ++i) sum.v[i] = flush_denormal(flush_denormal(a.v[i]) + b.v[i]);
  return sum;
}
// Of 32 neighbours.
inline Vec to_pairs(Vec first, Vec second) {
  Vec pairs;
  for (int i = 0; i < kLanes; ++i) {
    const float* from = i < kLanes / kPair ? first.v + kPair * i : second.v + kPair * i - kLanes;
    pairs.v[i] = pair_of(from[0], from[1]);
  }
  return pairs;
}
// Around the steps that add to sums: what they set is as before afterwards.
template <int P, int N>
uint32_t begin_sums(Vec (&)[P][N]) {
  return 0;
}
template <int P, int N>
void end_sums(Vec (&)[P][N], uint32_t) {}

}  // namespace rskip::RSKIP_ISA
