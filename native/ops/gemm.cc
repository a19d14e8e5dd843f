// Matrix products with sums in double precision, in which products of floats are exact.
#include "kernels/scalar_math.h"
#include "ops/ops.h"
#include "ops/rows.h"

namespace rskip::ops {
namespace {

// Columns of the result that are summed together.
constexpr int64_t kTile = 64;

// sums[j] += sum over k of a[k] * b[k, j], rows of b being `stride` apart.
void add_row(const float* a, const float* b, int64_t depth, int64_t stride, int64_t count, double* sums) {
  for (int64_t k = 0; k < depth; ++k) {
    const double factor = a[k];
    const float* row = b + k * stride;
    for (int64_t j = 0; j < count; ++j) sums[j] += factor * row[j];
  }
}

// The same for a transposed b, whose rows are the columns of the product; four at a time.
void add_row_transposed(const float* a, const float* b, int64_t depth, int64_t count, double* sums) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const float* r = b + j * depth;
    double s0 = sums[j], s1 = sums[j + 1], s2 = sums[j + 2], s3 = sums[j + 3];
    for (int64_t k = 0; k < depth; ++k) {
      const double factor = a[k];
      s0 += factor * r[k];
      s1 += factor * r[k + depth];
      s2 += factor * r[k + 2 * depth];
      s3 += factor * r[k + 3 * depth];
    }
    sums[j] = s0, sums[j + 1] = s1, sums[j + 2] = s2, sums[j + 3] = s3;
  }
  for (; j < count; ++j) {
    for (int64_t k = 0; k < depth; ++k) sums[j] += static_cast<double>(a[k]) * b[j * depth + k];
  }
}

struct Product {
  int64_t m, k, n;
  bool trans_b = false;
  const float* bias = nullptr;
  Activation act;
};

void multiply(const Product& p, const float* a, const float* b, const float* residual, float* y, Poll& poll) {
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t first = 0; first < p.n; first += kTile) {
      const int64_t count = std::min(kTile, p.n - first);
      poll.before(p.k * count);
      double sums[kTile];
      for (int64_t j = 0; j < count; ++j) sums[j] = p.bias ? p.bias[first + j] : 0;
      if (p.trans_b) add_row_transposed(a + i * p.k, b + first * p.k, p.k, count, sums);
      else add_row(a + i * p.k, b + first, p.k, p.n, count, sums);
      const int64_t at = i * p.n + first;
      for (int64_t j = 0; j < count; ++j) {
        if (residual) sums[j] += residual[at + j];
        y[at + j] = scalar_activation(static_cast<float>(sums[j]), p.act);
      }
    }
  }
}

}  // namespace

void gemm(const TensorView& a, const TensorView& b, const TensorView& c, const TensorView& residual, bool trans_b,
          Activation act, const TensorView& y, Poll poll) {
  const int64_t k = a.shape.back(), n = y.shape.back();
  const Product p{product(y.shape, 0, y.shape.size() - 1), k, n, trans_b, c.as<float>(), act};
  multiply(p, a.as<float>(), b.as<float>(), residual.as<float>(), y.as<float>(), poll);
}

void matmul(const TensorView& a, const TensorView& b, const TensorView& y, Poll poll) {
  const size_t rank = y.shape.size();
  const Product p{y.shape[rank - 2], a.shape.back(), y.shape[rank - 1], false, nullptr, {}};
  for_each_product(a.shape, b.shape, y.shape, poll, [&](int64_t to, int64_t left, int64_t right) {
    multiply(p, a.as<float>() + left * p.m * p.k, b.as<float>() + right * p.k * p.n, nullptr,
             y.as<float>() + to * p.m * p.n, poll);
  });
}

}  // namespace rskip::ops
