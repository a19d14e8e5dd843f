// Extents that a program may ask for but no image has: right results, or a refusal that says what is too large.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "plan/memory_plan.h"
#include "program/error.h"
#include "program/geometry.h"
#include "program_writer.h"

namespace rskip::test {
namespace {

constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kGiB = int64_t{1} << 30;

using Floats = std::vector<float>;

// Runs one item of a program and returns its outputs; `input` is that of its only input.
std::vector<Floats> run(const ProgramWriter& writer, const Floats& input) {
  Engine engine({.threads = 1, .memory_limit = kGiB});
  const auto program = engine.compile(writer.words(), writer.constants());
  TestRun run(program->plan(), 1, BlockMode::kRun);
  EXPECT_EQ(run.inputs[0].size(), input.size() * sizeof(float));
  std::memcpy(run.inputs[0].data(), input.data(), run.inputs[0].size());
  const RunResult result = program->run_here(std::move(run.request));
  EXPECT_FALSE(result.error);
  std::vector<Floats> outputs;
  for (const std::vector<char>& bytes : run.outputs) {
    Floats& output = outputs.emplace_back(bytes.size() / sizeof(float));
    std::memcpy(output.data(), bytes.data(), bytes.size());
  }
  return outputs;
}

Floats ramp(size_t n) {
  Floats values(n);
  std::iota(values.begin(), values.end(), 1.0f);
  return values;
}

void expect_too_large(const ProgramWriter& writer, int32_t value, const std::string& needs) {
  Engine engine({.threads = 1, .memory_limit = kGiB});
  try {
    engine.compile(writer.words(), writer.constants());
    ADD_FAILURE() << "the program was accepted";
  } catch (const EngineError& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
    EXPECT_EQ(error.value(), value);
    EXPECT_NE(std::string(error.what()).find(needs), std::string::npos) << error.what();
  }
}

// The caller's tensors have the strides of their shapes, also where the engine would widen those of its own.
TEST(Sizes, RowsOfAMultipleOf4KiB) {
  for (int32_t width : {1023, 1024, 1025, 2048}) {
    for (int32_t channels : {1, 3, 16, 20}) {
      ProgramWriter w;
      Floats identity(static_cast<size_t>(channels * channels));
      for (int32_t c = 0; c < channels; ++c) identity[static_cast<size_t>(c * channels + c)] = 1;
      const Words shape = {1, channels, 3, width};
      const int32_t weight = w.constant({channels, channels, 1, 1}, identity);
      Words attributes = {1, 0, 0, 0, 2, 1, 1, 0, 0, 0, 0, 1, 1};
      w.output(w.step(Op::kConv, {w.input(shape), weight, -1, -1}, shape, attributes));
      const Floats x = ramp(static_cast<size_t>(channels * 3 * width));
      EXPECT_EQ(run(w, x)[0], x) << channels << " channels, width " << width;
    }
  }
}

// Depthwise, 1x1, on (1, 16, 1, 8): out of the image but for one output. Returns the convolution's output.
int32_t padded_conv(ProgramWriter& w, int32_t x, int32_t left, int32_t right, int32_t stride, int32_t outputs) {
  const int32_t weight = w.constant({16, 1, 1, 1}, Floats(16, 1));
  return w.step(Op::kConv, {x, weight, -1, -1}, {1, 16, 1, outputs}, {16, 0, 0, 0, 2, 1, stride, 0, left, 0, right, 1, 1});
}

TEST(Sizes, HalosBeyondTheMemory) {
  ProgramWriter w;
  const int32_t x = w.input({1, 16, 1, 8});
  const int32_t y = padded_conv(w, x, 1 << 30, 0, 1 << 30, 2);
  w.output(y);
  expect_too_large(w, y, "68.7 GB of them for value " + std::to_string(y));
}

TEST(Sizes, HalosOfTwoConvolutionsThatAddUpBeyondInt) {
  ProgramWriter w;
  const int32_t x = w.input({1, 16, 1, 8});
  w.output(padded_conv(w, x, 1 << 30, 0, 1 << 30, 2));
  const int32_t y = padded_conv(w, x, 0, kMax - 8, kMax - 1, 2);
  w.output(y);
  expect_too_large(w, y, "206.2 GB");
}

// 2^20 channels with a halo of 2^20 on every side: 2^64 bytes.
TEST(Sizes, HalosWhoseProductWraps) {
  constexpr int32_t kChannels = 1 << 20, kPad = (1 << 20) - 1;
  ProgramWriter w;
  const int32_t x = w.input({1, kChannels, 2, 2});
  const int32_t weight = w.constant({kChannels, 1, 2, 2}, Floats(4 << 20, 1));
  const int32_t y = w.step(Op::kConv, {x, weight, -1, -1}, {1, kChannels, 2, 2},
                           {kChannels, 0, 0, 0, 2, 1 << 21, 1 << 21, kPad, kPad, kPad + 2, kPad + 2, 1, 1});
  w.output(y);
  expect_too_large(w, y, "more than 4 EB");
}

TEST(Sizes, PlansWhoseSumIsBeyondTheMemory) {
  ProgramWriter w;
  const Words shape = {1, 1 << 27};
  const int32_t x = w.input(shape);
  Words copies;
  for (int i = 0; i < 3; ++i) copies.push_back(w.step(Op::kUnary, {x}, shape, act_words(kRelu)));
  w.output(w.step(Op::kConcat, copies, {3, 1 << 27}, {0}));
  Engine enough({.threads = 1, .memory_limit = 4 * kGiB});
  EXPECT_NO_THROW(enough.compile(w.words(), w.constants()));
  expect_too_large(w, 4, "1.6 GB of them for value 4");
}

TEST(MemoryPlan, SaturatesWhereSumsWouldWrap) {
  EXPECT_EQ(plan_memory({{0, 1, kTooLarge - 1}, {0, 1, kTooLarge - 1}, {1, 2, 64}}).bytes, kTooLarge);
  EXPECT_EQ(saturating_add(kTooLarge, kTooLarge), kTooLarge);
  EXPECT_EQ(saturating_product({kMax, kMax, kMax}), kTooLarge);
  EXPECT_EQ(saturating_product({kMax, kMax, 0}), 0);
  EXPECT_EQ(saturating_product({int64_t{1} << 31, int64_t{1} << 31}), kTooLarge);
  EXPECT_EQ(saturating_product({1 << 30, 1 << 30}), int64_t{1} << 60);
}

int32_t push_pool(ProgramWriter& w, int32_t x, const Words& shape, bool max, bool indices, const Words& window) {
  Words attributes = {max, true, 0};
  attributes.insert(attributes.end(), window.begin(), window.end());
  const int32_t y = w.value(shape);
  Words outputs = {y};
  if (indices) outputs.push_back(w.value(shape, DType::kInt64));
  w.push(Op::kPool, {x}, outputs, attributes);
  return y;
}

TEST(Sizes, PoolsWithDilationsNear2To31) {
  for (bool indices : {false, true}) {
    ProgramWriter w;
    const int32_t far = 1 << 30;
    w.output(push_pool(w, w.input({1, 1, 8, 8}), {1, 1, 2, 2}, true, indices,
                       {2, 2, 2, far, far, 0, 0, kMax - 8, kMax - 8, far, far}));
    EXPECT_EQ(run(w, ramp(64))[0], (Floats{1, -kInfinity, -kInfinity, -kInfinity}));
  }
}

// Taps outside of the image take no time.
TEST(Sizes, PoolsFarLargerThanTheImage) {
  constexpr int32_t kSize = 40, kKernel = 1 << 26, kPad = kKernel / 2;
  const Words window = {2, kKernel, kKernel, 1, 1, kPad, kPad, kPad - 1, kPad - 1, 1, 1};
  const Floats x = ramp(kSize * kSize);
  const auto began = std::chrono::steady_clock::now();
  for (bool indices : {false, true}) {
    ProgramWriter w;
    w.output(push_pool(w, w.input({1, 1, kSize, kSize}), {1, 1, kSize, kSize}, true, indices, window));
    EXPECT_EQ(run(w, x)[0], Floats(kSize * kSize, kSize * kSize));
  }
  ProgramWriter w;
  w.output(push_pool(w, w.input({1, 1, kSize, kSize}), {1, 1, kSize, kSize}, false, false, window));
  const float sum = std::accumulate(x.begin(), x.end(), 0.0f);
  const Floats means = run(w, x)[0];
  for (float y : means) EXPECT_FLOAT_EQ(y, sum / (static_cast<float>(kKernel) * kKernel));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10));
}

// Three axes of 2^31 - 1 cells each.
TEST(Sizes, CountedCellsBeyond64Bits) {
  ProgramWriter w;
  const Words window = {3,        kMax - 1, kMax - 1, kMax - 1, 1, 1, 1, 0, 0, 0,
                        kMax - 2, kMax - 2, kMax - 2, 1,        1, 1};
  w.output(push_pool(w, w.input({1, 1, 1, 1, 1}), {1, 1, 1, 1, 1}, false, false, window));
  EXPECT_FLOAT_EQ(run(w, {8})[0][0], 8 / std::pow(2.0f, 93.0f));
}

// The output has an axis that no input has: other images than those of the inputs.
TEST(Sizes, BinaryWithMoreAxesThanItsInputs) {
  ProgramWriter w;
  const int32_t x = w.input({2, 3, 5});
  const int32_t weight = w.constant({3, 3, 1}, {1, 0, 0, 0, 1, 0, 0, 0, 1});
  const int32_t same = w.step(Op::kConv, {x, weight, -1, -1}, {2, 3, 5}, {1, 0, 0, 0, 1, 1, 0, 0, 1});
  w.output(w.step(Op::kBinary, {same, same}, {1, 2, 3, 5}, {0, 0, 0, 0}));
  Floats expected = ramp(30);
  for (float& v : expected) v *= 2;
  EXPECT_EQ(run(w, ramp(30))[0], expected);
}

}  // namespace
}  // namespace rskip::test
