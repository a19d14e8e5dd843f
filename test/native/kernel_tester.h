// What the kernel tests share: guarded buffers, maps in the blocked layout, tolerance families, and a loop
// over every instruction set that this machine has.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "kernels/isa/isa.h"
#include "kernels/int8/table8.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace rskip::test {

// Numbers between two guards. Those of floats hold NaNs, so that a kernel that computes with what lies outside
// shows it in its result; AddressSanitizer builds trap on any access at all.
template <class T>
class GuardedArray {
 public:
  explicit GuardedArray(size_t size, T fill = 0) : size_(size), storage_(size + 2 * kGuard + kLine, fill) {
    const size_t misaligned = reinterpret_cast<uintptr_t>(storage_.data()) % 64 / sizeof(T);
    begin_ = storage_.data() + (kLine - misaligned) % kLine + kGuard;
    for (size_t i = 0; i < kGuard; ++i) begin_[-1 - static_cast<ptrdiff_t>(i)] = begin_[size + i] = pattern();
    poison();
  }
  GuardedArray(const GuardedArray& other) : GuardedArray(other.size_) { std::copy_n(other.begin_, size_, begin_); }
  GuardedArray& operator=(const GuardedArray&) = delete;
  ~GuardedArray() {
    ASAN_UNPOISON_MEMORY_REGION(storage_.data(), storage_.size() * sizeof(T));
    for (size_t i = 0; i < kGuard; ++i) {
      if (!same(begin_[-1 - static_cast<ptrdiff_t>(i)]) || !same(begin_[size_ + i])) {
        ADD_FAILURE() << "a guard was overwritten " << i << " numbers outside the buffer";
        break;
      }
    }
  }
  T* data() { return begin_; }
  const T* data() const { return begin_; }
  size_t size() const { return size_; }

 private:
  static constexpr size_t kGuard = 64, kLine = 64 / sizeof(T);
  static constexpr uint32_t kPattern = 0x7fc5a5a5;
  static T pattern() {
    T x;
    std::memcpy(&x, &kPattern, sizeof x);
    return x;
  }
  static bool same(const T& x) { return std::memcmp(&x, &kPattern, sizeof x) == 0; }
  void poison() {
    ASAN_POISON_MEMORY_REGION(begin_ - kGuard, kGuard * sizeof(T));
    ASAN_POISON_MEMORY_REGION(begin_ + size_, kGuard * sizeof(T));
  }

  size_t size_;
  std::vector<T> storage_;
  T* begin_;
};
using Guarded = GuardedArray<float>;

inline std::vector<float> random_floats(size_t n, uint32_t seed, float low = -1, float high = 1) {
  std::mt19937 generator(seed);
  std::vector<float> out(n);
  for (float& x : out) {
    x = low + (high - low) * static_cast<float>(generator() >> 8) * 0x1p-24f;
  }
  return out;
}

// The nearest number with eight bits, of two the one with an even last bit.
inline float nearest_bfloat16(float x) {
  int exponent;
  const float fraction = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(256 * fraction) / 256, exponent);
}

// One item in the blocked layout, with a halo of `fill`.
template <class T>
class MapOf {
 public:
  MapOf(int channels, int height, int width, Halo halo = {}, T fill = 0)
      : halo_(halo),
        fill_(fill),
        blocks_((channels + kLanes - 1) / kLanes),
        storage_(static_cast<size_t>(blocks_) * (height + halo.top + halo.bottom) * (width + halo.left + halo.right) *
                     kLanes,
                 fill) {
    view_.channels = channels;
    view_.height = height;
    view_.width = width;
    view_.row_stride = static_cast<ptrdiff_t>(width + halo.left + halo.right) * kLanes;
    view_.block_stride = view_.row_stride * (height + halo.top + halo.bottom);
    repoint();
  }
  MapOf(const MapOf& other)
      : halo_(other.halo_), fill_(other.fill_), blocks_(other.blocks_), storage_(other.storage_), view_(other.view_) {
    repoint();
  }
  const Blocked<T>& view() const { return view_; }
  T& at(int c, int h, int w) const {
    return view_.data[c / kLanes * view_.block_stride + h * view_.row_stride + w * kLanes + c % kLanes];
  }
  MapOf& fill(const std::vector<T>& planar) {
    size_t i = 0;
    for (int c = 0; c < view_.channels; ++c) {
      for (int h = 0; h < view_.height; ++h) {
        for (int w = 0; w < view_.width; ++w) at(c, h, w) = planar[i++];
      }
    }
    return *this;
  }
  std::vector<T> planar() const {
    std::vector<T> out;
    for (int c = 0; c < view_.channels; ++c) {
      for (int h = 0; h < view_.height; ++h) {
        for (int w = 0; w < view_.width; ++w) out.push_back(at(c, h, w));
      }
    }
    return out;
  }
  // The halo and, of floats, lanes beyond the last channel are still as they were.
  void expect_clean() const {
    for (int c = 0; c < (sizeof(T) == 1 ? view_.channels : blocks_ * kLanes); ++c) {
      for (int h = -halo_.top; h < view_.height + halo_.bottom; ++h) {
        for (int w = -halo_.left; w < view_.width + halo_.right; ++w) {
          const bool inside = c < view_.channels && h >= 0 && h < view_.height && w >= 0 && w < view_.width;
          if (!inside && at(c, h, w) != fill_) {
            ADD_FAILURE() << "written outside the interior: channel " << c << ", row " << h << ", column " << w;
            return;
          }
        }
      }
    }
  }

 private:
  void repoint() { view_.data = storage_.data() + halo_.top * view_.row_stride + halo_.left * kLanes; }

  Halo halo_;
  T fill_;
  int blocks_;
  GuardedArray<T> storage_;
  Blocked<T> view_;
};
using Map = MapOf<float>;
using Map8 = MapOf<uint8_t>;

// Tolerance families. `magnitude` is the sum of the absolute values of the terms.
inline constexpr double kUnitRoundoff = 0x1p-24;
// A sum of `terms` products in any order: the bound of Higham, Accuracy and Stability, section 3.1.
inline double sum_tolerance(int64_t terms, double magnitude) {
  return kUnitRoundoff * static_cast<double>(terms + 2) * magnitude + 1e-38;
}
// `ulps` units in the last place of the true value.
inline double ulp_tolerance(double ulps, double value) { return 2 * kUnitRoundoff * ulps * std::abs(value) + 1e-44; }

// Bytes, save that any NaN equals any NaN: instruction sets differ in the payload they propagate.
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return false;
  }
  return true;
}

inline const KernelTable& scalar() { return *table_for(Isa::kScalar); }

// Those of available_tables(), and both forms of AVX-512: the processor chooses one.
inline std::vector<const KernelTable*> tables_in_all_forms() {
  std::vector<const KernelTable*> tables = available_tables();
  if (table_for(Isa::kAvx512) == nullptr) return tables;
  static KernelTable forms[2] = {*table_for(Isa::kAvx512), *table_for(Isa::kAvx512)};
  forms[0].name = "avx512, broadcast in registers";
  forms[1].name = "avx512, broadcast from memory";
  if (avx512_kernels(forms[0]) && avx512_memory_kernels(forms[1])) {
    for (const KernelTable& form : forms) tables.push_back(&form);
  }
  return tables;
}

inline double oracle_activation(double x, const Activation& act) {
  switch (act.kind) {
    case ActivationKind::kNone:
      return x;
    case ActivationKind::kRelu:
      return x < 0 ? 0 : x;
    case ActivationKind::kLeakyRelu:
      return x < 0 ? act.alpha * x : x;
    case ActivationKind::kClip:
      return std::isnan(x) ? x : std::min<double>(std::max<double>(x, act.alpha), act.beta);
    case ActivationKind::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case ActivationKind::kHardSigmoid:
      return std::isnan(x) ? x : std::min(std::max<double>(act.alpha * x + act.beta, 0), 1.0);
    case ActivationKind::kHardSwish:
      return std::isnan(x) ? x : x * std::min(std::max(x / 6 + 0.5, 0.0), 1.0);
    case ActivationKind::kSilu:
      return x / (1 + std::exp(-x));
    case ActivationKind::kTanh:
      return std::tanh(x);
    case ActivationKind::kErf:
      return std::erf(x);
    case ActivationKind::kGelu:
      return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case ActivationKind::kGeluTanh:
      return x / (1 + std::exp(-2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case ActivationKind::kElu:
      return x < 0 ? act.alpha * std::expm1(x) : x;
    case ActivationKind::kSelu:
      return act.beta * (x < 0 ? act.alpha * std::expm1(x) : x);
    case ActivationKind::kCelu:
      return x < 0 ? act.alpha * std::expm1(x / act.alpha) : x;
    case ActivationKind::kSoftplus:
      return std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x)));
    case ActivationKind::kSoftsign:
      return x / (1 + std::fabs(x));
    case ActivationKind::kMish:
      return x * std::tanh(x > 50 ? x : std::log1p(std::exp(x)));
    case ActivationKind::kExp:
      return std::exp(x);
    case ActivationKind::kLog:
      return std::log(x);
    case ActivationKind::kSqrt:
      return std::sqrt(x);
    case ActivationKind::kReciprocal:
      return 1 / x;
    case ActivationKind::kAbs:
      return std::fabs(x);
    case ActivationKind::kSign:
      return x > 0 ? 1 : x < 0 ? -1 : x;
    case ActivationKind::kFloor:
      return std::floor(x);
    case ActivationKind::kCeil:
      return std::ceil(x);
    case ActivationKind::kRound:
      return std::nearbyint(x);
    case ActivationKind::kSin:
      return std::sin(std::clamp(x, -1048576.0, 1048576.0));
    case ActivationKind::kCos:
      return std::cos(std::clamp(x, -1048576.0, 1048576.0));
  }
  return x;
}

// One of each kind. The clip's interval doesn't hold 0: lanes beyond the last channel must stay zero even so.
inline const std::vector<Activation>& all_activations() {
  static const std::vector<Activation> all = {
      {ActivationKind::kNone, 0, 0},          {ActivationKind::kRelu, 0, 0},
      {ActivationKind::kLeakyRelu, 0.1f, 0},  {ActivationKind::kClip, 0.25f, 0.5f},
      {ActivationKind::kClip, 0, 6},          {ActivationKind::kSigmoid, 0, 0},
      {ActivationKind::kHardSigmoid, 0.2f, 0.5f}, {ActivationKind::kHardSwish, 0, 0},
      {ActivationKind::kSilu, 0, 0},          {ActivationKind::kTanh, 0, 0},
      {ActivationKind::kSoftplus, 0, 0},
  };
  return all;
}

// The others. Steep ones, and those with jumps, are no epilogues to compare with a tolerance of sums.
inline const std::vector<Activation>& all_functions() {
  static const std::vector<Activation> all = {
      {ActivationKind::kErf, 0, 0},      {ActivationKind::kGelu, 0, 0},
      {ActivationKind::kGeluTanh, 0, 0}, {ActivationKind::kElu, 0.75f, 0},
      {ActivationKind::kCelu, 2, 0},     {ActivationKind::kSelu, 1.67326324f, 1.05070098f},
      {ActivationKind::kMish, 0, 0},     {ActivationKind::kSoftsign, 0, 0},
      {ActivationKind::kExp, 0, 0},      {ActivationKind::kLog, 0, 0},
      {ActivationKind::kSqrt, 0, 0},     {ActivationKind::kReciprocal, 0, 0},
      {ActivationKind::kAbs, 0, 0},      {ActivationKind::kSign, 0, 0},
      {ActivationKind::kFloor, 0, 0},    {ActivationKind::kCeil, 0, 0},
      {ActivationKind::kRound, 0, 0},    {ActivationKind::kSin, 0, 0},
      {ActivationKind::kCos, 0, 0},
  };
  return all;
}

}  // namespace rskip::test
