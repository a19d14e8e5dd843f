// Builds the words of programs, as lib/backends/encode.ts does, and runs them.
#pragma once

#include <algorithm>
#include <bit>
#include <memory>
#include <vector>

#include "program/program.h"
#include "run/engine.h"

namespace rskip::test {

using Words = std::vector<int32_t>;

inline int32_t bits(float value) { return std::bit_cast<int32_t>(value); }
inline Words act_words(const Activation& act) {
  return {static_cast<int32_t>(act.kind), bits(act.alpha), bits(act.beta)};
}
inline const Activation kRelu{ActivationKind::kRelu, 0, 0};

// Small and deterministic.
class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed * 2654435761u + 1) {}
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    return state_ ^= state_ << 5;
  }
  uint32_t below(uint32_t n) { return next() % n; }
  float real() { return static_cast<float>(next() >> 8) / 16777216.0f * 2 - 1; }
  std::vector<float> reals(size_t n, float scale = 1) {
    std::vector<float> out(n);
    for (float& v : out) v = real() * scale;
    return out;
  }

 private:
  uint32_t state_;
};

class ProgramWriter {
 public:
  int32_t value(const Words& shape, DType dtype = DType::kFloat32, int32_t constant = -1) {
    append(values_, {static_cast<int32_t>(dtype), constant, static_cast<int32_t>(shape.size())});
    append(values_, shape);
    shapes_.push_back(shape);
    return value_count_++;
  }
  template <class T = float>
  int32_t constant(const Words& shape, std::vector<T> data, DType dtype = DType::kFloat32) {
    const auto kept = std::make_shared<const std::vector<T>>(std::move(data));
    data_.push_back(kept);
    const int32_t index = static_cast<int32_t>(constants_.size());
    constants_.push_back({next_id_++, dtype, kept->data(), kept->size() * sizeof(T)});
    return value(shape, dtype, index);
  }
  int32_t input(const Words& shape, DType dtype = DType::kFloat32, bool batched = true) {
    const int32_t id = value(shape, dtype);
    append(inputs_, {id, batched});
    ++input_count_;
    return id;
  }
  void output(int32_t id, bool batched = true) {
    append(outputs_, {id, batched});
    ++output_count_;
  }
  void push(Op op, const Words& inputs, const Words& outputs, const Words& attributes = {}) {
    append(steps_,
           {static_cast<int32_t>(op), static_cast<int32_t>(inputs.size()), static_cast<int32_t>(outputs.size())});
    append(steps_, inputs);
    append(steps_, outputs);
    append(steps_, attributes);
    ++step_count_;
  }
  int32_t step(Op op, const Words& inputs, const Words& shape, const Words& attributes = {},
               DType dtype = DType::kFloat32) {
    const int32_t y = value(shape, dtype);
    push(op, inputs, {y}, attributes);
    return y;
  }
  // A convolution of stride 1 that keeps height and width, with random weights.
  int32_t conv(int32_t x, int32_t channels, int32_t kernel, Random& random, int32_t residual = -1,
               const Activation& act = {}, int32_t groups = 1) {
    const Words shape = shapes_[static_cast<size_t>(x)];
    const int32_t taps = shape[1] / groups * kernel * kernel, pad = kernel / 2;
    const int32_t weight = constant(
        {channels, shape[1] / groups, kernel, kernel},
        random.reals(static_cast<size_t>(channels) * static_cast<size_t>(taps), 1.7f / static_cast<float>(taps)));
    const int32_t bias = constant({channels}, random.reals(static_cast<size_t>(channels)));
    Words attributes = {groups};
    append(attributes, act_words(act));
    append(attributes, {2, 1, 1, pad, pad, pad, pad, 1, 1});
    return step(Op::kConv, {x, weight, bias, residual}, {shape[0], channels, shape[2], shape[3]}, attributes);
  }
  // (1, C, H, W) -> (1, n)
  int32_t classify(int32_t x, int32_t n, Random& random) {
    const Words shape = shapes_[static_cast<size_t>(x)];
    const int32_t pooled = step(Op::kGlobalPool, {x}, {1, shape[1], 1, 1}, {0});
    const int32_t flat = step(Op::kReshape, {pooled}, {1, shape[1]});
    const int32_t weight = constant({n, shape[1]}, random.reals(static_cast<size_t>(n * shape[1])));
    Words attributes = {1};
    append(attributes, act_words({}));
    return step(Op::kGemm, {flat, weight, -1, -1}, {1, n}, attributes);
  }
  void block(bool skippable, int32_t gate_first, int32_t first, int32_t input, int32_t output, int32_t score = -1,
             const Activation& skip_activation = {}, ops::CompareKind compare = ops::CompareKind::kGt,
             int32_t skip_table = -1) {
    append(blocks_, {skip_table < 0 ? skippable : 2, gate_first, first, step_count_, input, output});
    append(blocks_, act_words(skip_activation));
    append(blocks_, score < 0 ? Words{0} : Words{1, score, static_cast<int32_t>(compare)});
    if (skip_table >= 0) append(blocks_, {skip_table});
    ++block_count_;
  }
  // Steps [first, now) compute its score and answers.
  void exit(int32_t first, int32_t score, const Words& answers) {
    append(exits_, {first, step_count_, score});
    append(exits_, answers);
    ++exit_count_;
  }
  int32_t steps() const { return step_count_; }
  int32_t blocks() const { return block_count_; }
  const std::vector<ConstantData>& constants() const { return constants_; }

  Words words(bool whole = false) const {
    Words out = {0x52534b50, 1, value_count_, input_count_, output_count_, step_count_, block_count_, whole};
    for (const Words* part : {&values_, &inputs_, &outputs_, &steps_, &blocks_}) append(out, *part);
    if (exit_count_ > 0) {
      append(out, {exit_count_});
      append(out, exits_);
    }
    return out;
  }

 private:
  static void append(Words& to, const Words& from) { to.insert(to.end(), from.begin(), from.end()); }
  Words values_, inputs_, outputs_, steps_, blocks_, exits_;
  int32_t value_count_ = 0, input_count_ = 0, output_count_ = 0, step_count_ = 0, block_count_ = 0;
  int32_t exit_count_ = 0;
  std::vector<Words> shapes_;
  std::vector<std::shared_ptr<const void>> data_;  // that `constants_` points to; copies share it
  std::vector<ConstantData> constants_;
  // Ids count up over all writers: equal ids mean equal bytes.
  static inline int64_t next_id_ = 0;
};

// A stem, gated blocks of two convolutions on a residual stream, and a classifier. With `exits`, there is one before the first
// block and one behind each.
struct TestNetwork {
  ProgramWriter writer;
  int32_t block_count;
  explicit TestNetwork(int32_t blocks, int32_t channels = 20, int32_t size = 9, uint32_t seed = 1,
                       bool exits = false)
      : block_count(blocks) {
    Random random(seed);
    int32_t x = writer.conv(writer.input({1, 3, size, size}), channels, 3, random, -1, kRelu);
    if (exits) exit(x, random);
    for (int32_t b = 0; b < blocks; ++b) {
      const int32_t gate_first = writer.steps();
      const int32_t score = writer.classify(x, 1, random);
      const int32_t first = writer.steps();
      const int32_t hidden = writer.conv(x, channels, 3, random, -1, kRelu);
      const int32_t y = writer.conv(hidden, channels, 3, random, x, kRelu);
      writer.block(true, gate_first, first, x, y, score);
      x = y;
      if (exits) exit(x, random);
    }
    writer.output(writer.classify(x, 10, random));
  }
  void exit(int32_t x, Random& random) {
    const int32_t first = writer.steps();
    const int32_t answer = writer.classify(x, 10, random);
    const int32_t spread = writer.step(Op::kReshape, {answer}, {1, 1, 10});
    writer.exit(first, writer.step(Op::kGlobalPool, {spread}, {1, 1}, {1}), {answer});
  }
};

// A request with its buffers.
struct TestRun {
  RunRequest request;
  std::vector<std::vector<char>> inputs, outputs;
  std::vector<uint8_t> outcomes;
  std::vector<float> scores;

  TestRun(const Plan& plan, int64_t items, BlockMode mode, float threshold = 0, uint32_t seed = 7) {
    Random random(seed);
    const auto size = [&](const PlanPort& port) {
      return port.item_bytes * static_cast<size_t>(port.batched ? items : 1);
    };
    request.items = items;
    for (const PlanPort& port : plan.inputs) {
      inputs.emplace_back(size(port));
      // Inputs may be smaller than a float, and even empty.
      const std::vector<float> data = random.reals(size(port) / sizeof(float) + 1);
      std::copy_n(reinterpret_cast<const char*>(data.data()), size(port), inputs.back().data());
      request.inputs.push_back({inputs.back().data(), inputs.back().size()});
    }
    for (const PlanPort& port : plan.outputs) {
      outputs.emplace_back(size(port));
      request.outputs.push_back({outputs.back().data(), outputs.back().size()});
    }
    request.modes.assign(plan.blocks.size(), mode);
    request.modes.resize(plan.decisions(), BlockMode::kGate);
    request.thresholds.assign(plan.decisions(), threshold);
    outcomes.resize(plan.decisions() * static_cast<size_t>(items));
    scores.resize(outcomes.size());
    request.outcomes = outcomes;
    request.scores = scores;
  }
  TestRun(const TestRun&) = delete;
};

}  // namespace rskip::test
