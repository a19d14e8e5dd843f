// Tensors for the tests of native/ops, and an oracle's view of them: by index, in double precision. Every tensor
// owns an allocation of exactly its size, so that the address sanitizer sees any step over its ends.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "ops/ops.h"

namespace rskip::test {

using ops::Ints;

// Every index of a shape, in row-major order.
inline std::vector<Ints> indices(const Ints& shape) {
  std::vector<Ints> all{{}};
  for (const int64_t dim : shape) {
    std::vector<Ints> longer;
    for (const Ints& index : all) {
      for (int64_t i = 0; i < dim; ++i) {
        longer.push_back(index);
        longer.back().push_back(i);
      }
    }
    all = std::move(longer);
  }
  return all;
}

class OpTensor {
 public:
  OpTensor(DType dtype, Ints shape) : dtype_(dtype), shape_(std::move(shape)) {
    int64_t n = 1;
    for (const int64_t dim : shape_) n *= dim;
    bytes_ = std::make_unique<char[]>(static_cast<size_t>(n) * dtype_size(dtype_));
  }

  // Uniform floats in [-1, 1), small integers, booleans.
  static OpTensor random(DType dtype, Ints shape, unsigned seed) {
    OpTensor t(dtype, std::move(shape));
    std::mt19937 engine(seed);
    for (int64_t i = 0; i < t.size(); ++i) {
      const double u = static_cast<double>(engine()) / 4294967296.0;
      if (dtype == DType::kFloat32) t.set(i, u * 2 - 1);
      else if (dtype == DType::kBool) t.set(i, u < 0.5);
      else t.set(i, dtype == DType::kUint8 ? std::floor(u * 6) : std::floor(u * 11) - 5);
    }
    return t;
  }

  static OpTensor of(DType dtype, Ints shape, const std::vector<double>& values) {
    OpTensor t(dtype, std::move(shape));
    for (size_t i = 0; i < values.size(); ++i) t.set(static_cast<int64_t>(i), values[i]);
    return t;
  }

  TensorView view() const { return {dtype_, shape_, bytes_.get()}; }
  DType dtype() const { return dtype_; }
  const Ints& shape() const { return shape_; }
  int64_t size() const { return view().elements(); }

  double get(int64_t i) const {
    switch (dtype_) {
      case DType::kFloat32:
        return view().as<float>()[i];
      case DType::kInt32:
        return view().as<int32_t>()[i];
      case DType::kInt64:
        return static_cast<double>(view().as<int64_t>()[i]);
      default:
        return view().as<uint8_t>()[i];
    }
  }

  void set(int64_t i, double value) {
    switch (dtype_) {
      case DType::kFloat32:
        view().as<float>()[i] = static_cast<float>(value);
        return;
      case DType::kInt32:
        view().as<int32_t>()[i] = static_cast<int32_t>(value);
        return;
      case DType::kInt64:
        view().as<int64_t>()[i] = static_cast<int64_t>(value);
        return;
      default:
        view().as<uint8_t>()[i] = static_cast<uint8_t>(value);
    }
  }

  double at(const Ints& index) const {
    int64_t flat = 0;
    for (size_t axis = 0; axis < shape_.size(); ++axis) flat = flat * shape_[axis] + index[axis];
    return get(flat);
  }

  // Element for an index of a shape that this one is numpy-broadcast to.
  double broadcast(const Ints& index) const {
    const size_t lead = index.size() - shape_.size();
    Ints own;
    for (size_t axis = 0; axis < shape_.size(); ++axis) own.push_back(shape_[axis] == 1 ? 0 : index[lead + axis]);
    return at(own);
  }

 private:
  DType dtype_;
  Ints shape_;
  std::unique_ptr<char[]> bytes_;
};

inline const TensorView kAbsent{};
inline const Activation kNoActivation{};

// What an operator may lose: the rounding of its result to float, and of what an activation is given.
inline void expect_value(double actual, double truth, int64_t at) {
  if (std::isnan(truth)) {
    ASSERT_TRUE(std::isnan(actual)) << "at " << at << ": " << actual << " instead of NaN";
  } else if (std::isinf(truth)) {
    ASSERT_EQ(actual, truth) << "at " << at;
  } else {
    ASSERT_NEAR(actual, truth, std::ldexp(1.0, -22) + std::ldexp(std::fabs(truth), -22)) << "at " << at;
  }
}

// Every element of y is what `truth` says for its index.
inline void expect_tensor(const OpTensor& y, const std::function<double(const Ints&)>& truth) {
  int64_t at = 0;
  for (const Ints& index : indices(y.shape())) {
    expect_value(y.get(at), truth(index), at);
    if (testing::Test::HasFatalFailure()) return;
    ++at;
  }
}

}  // namespace rskip::test
