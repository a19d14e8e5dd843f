// Programs of integer steps: kernels, layouts and joined steps give the bytes of the plain loops.
#include <gtest/gtest.h>

#include "conv8_tester.h"
#include "program_writer.h"

namespace rskip::test {
namespace {

// Writes integer steps. Kernels need constant weights: where these are inputs of the program, plain loops compute.
class IntegerWriter {
 public:
  explicit IntegerWriter(bool constant_weights) : constant_weights_(constant_weights) {}

  ProgramWriter w;
  std::vector<std::vector<char>> weight_inputs;  // in the order of the program's inputs, behind the first

  int32_t image(const Words& shape) { return w.input(shape); }

  int32_t quantize(int32_t x, const Words& shape, float scale, uint8_t zero) {
    return w.step(Op::kQuantize, {x, real({}, {scale}), byte({}, zero)}, shape, {0}, DType::kUint8);
  }
  // The zero point of x, and those of the result, are chosen by the caller.
  int32_t conv(int32_t x, const Words& from, const Words& to, int kernel, int stride, int groups, uint8_t x_zero,
               Words requant, uint32_t seed) {
    const int32_t group_in = from[1] / groups;
    const size_t k = static_cast<size_t>(group_in) * kernel * kernel;
    const int32_t weight = signed_weights({to[1], group_in, kernel, kernel}, k * to[1], seed);
    const int32_t bias =
        w.constant({to[1]}, random_integers<int32_t>(to[1], seed + 1, -9000, 9000), DType::kInt32);
    std::vector<float> scale = random_floats(to[1], seed + 2, 0.5f, 1.5f);
    for (float& s : scale) s *= 64 / (8192 * std::sqrt(static_cast<float>(k)));
    const int pad = kernel / 2;
    Words attributes = {groups};
    append(attributes, act_words({}));
    append(attributes, requant);
    append(attributes, {2, stride, stride, pad, pad, pad, pad, 1, 1});
    return w.step(Op::kQconv, {x, weight, bias, real({to[1]}, scale), byte({1}, x_zero), -1}, to, attributes, DType::kUint8);
  }
  int32_t add(int32_t a, int32_t b, const Words& shape, uint8_t zero_a, uint8_t zero_b, Words requant) {
    Words attributes = {static_cast<int32_t>(BinaryKind::kAdd), 2, zero_a, bits(0.75f), zero_b, bits(1.25f)};
    append(attributes, requant);
    return w.step(Op::kQbinary, {a, b}, shape, attributes, DType::kUint8);
  }
  int32_t multiply(int32_t a, int32_t b, const Words& shape, uint8_t zero_a, uint8_t zero_b) {
    Words attributes = {static_cast<int32_t>(BinaryKind::kMul), 2, zero_a, bits(0.009f), zero_b, bits(1.0f)};
    append(attributes, {100, 3, 250});
    return w.step(Op::kQbinary, {a, b}, shape, attributes, DType::kUint8);
  }
  int32_t max_pool(int32_t x, const Words& to) {
    return w.step(Op::kPool, {x}, to, {1, 0, 0, 2, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1}, DType::kUint8);
  }
  int32_t lookup(int32_t x, const Words& shape, uint32_t seed) {
    return w.step(Op::kLookup, {x, table(seed)}, shape, {}, DType::kUint8);
  }
  int32_t mean(int32_t x, int32_t channels, uint8_t zero, DType dtype) {
    return w.step(Op::kQglobalPool, {x}, {1, channels, 1, 1}, {1, zero, bits(0.011f), 90, 5, 250}, dtype);
  }
  int32_t windows(int32_t x, const Words& to, bool squares, uint8_t zero, Words window) {
    Words attributes = {squares, 1, zero, bits(0.03f)};
    append(attributes, window);
    return w.step(Op::kQpool, {x}, to, attributes);
  }
  int32_t table(uint32_t seed) {
    return w.constant({256}, random_integers<uint8_t>(256, seed, 0, 255), DType::kUint8);
  }
  int32_t matmul(int32_t x, int32_t k, int32_t n, bool to_float, uint32_t seed) {
    const int32_t weight = signed_weights({n, k}, static_cast<size_t>(n) * k, seed);
    const int32_t bias = to_float ? real({n}, random_floats(n, seed + 1))
                                  : w.constant({n}, random_integers<int32_t>(n, seed + 1, -900, 900), DType::kInt32);
    Words attributes = {1};
    append(attributes, act_words({}));
    append(attributes, to_float ? Words{0, 0, 0} : Words{100, 3, 240});
    return w.step(Op::kQmatmul, {x, weight, bias, real({1}, {0.0007f}), byte({1}, 90), -1}, {1, n}, attributes,
                  to_float ? DType::kFloat32 : DType::kUint8);
  }
  // A matrix product of the rows of x, whose zero point is 90, with a zero point of 100.
  int32_t layer(int32_t x, const Words& shape, int32_t n, uint32_t seed) {
    const int32_t weight = signed_weights({shape.back(), n}, static_cast<size_t>(shape.back()) * n, seed);
    return product_of({x, weight, -1, real({1}, {0.0007f}), byte({1}, 90), -1}, shape, false, {100, 3, 240});
  }
  int32_t product(int32_t a, int32_t b, const Words& shape, bool trans_b, uint8_t a_zero, uint8_t b_zero) {
    const int32_t first = zero_point(a_zero), second = zero_point(b_zero);
    return product_of({a, b, -1, real({1}, {0.0005f}), first, second}, shape, trans_b, {90, 0, 255});
  }
  // A convolution of x whose weights have zero points, by channel or one for all; with floats as its result, or bytes. x_zero and
  // scale may be results of steps.
  struct Window {
    int kernel, stride, pad, dilation, groups;
  };
  int32_t asymmetric(int32_t x, const Words& from, const Words& to, const Window& window, bool to_float, int32_t scale,
                     int32_t x_zero, uint32_t seed) {
    const int32_t group_in = from[1] / window.groups;
    const size_t k = static_cast<size_t>(group_in) * window.kernel * window.kernel;
    const int32_t weight = signed_weights({to[1], group_in, window.kernel, window.kernel}, k * to[1], seed);
    const int32_t zeros = seed % 2 == 0 ? to[1] : 1;
    const int32_t weight_zero = w.constant({zeros}, random_integers<int8_t>(zeros, seed + 1, -128, 127), DType::kInt8);
    const int32_t bias = to_float ? real({to[1]}, random_floats(to[1], seed + 2))
                                  : w.constant({to[1]}, random_integers<int32_t>(to[1], seed + 2, -9000, 9000), DType::kInt32);
    Words attributes = {window.groups};
    append(attributes, to_float ? act_words(kRelu) : act_words({}));
    append(attributes, to_float ? Words{0, 0, 0} : Words{90, 3, 250});
    const auto [kernel, stride, pad, dilation, groups] = window;
    append(attributes, {2, stride, stride, pad, pad, pad, pad, dilation, dilation});
    return w.step(Op::kQconv, {x, weight, bias, scale, x_zero, weight_zero}, to, attributes,
                  to_float ? DType::kFloat32 : DType::kUint8);
  }
  int32_t real(const Words& shape, std::vector<float> data) { return w.constant(shape, std::move(data)); }
  int32_t byte(const Words& shape, uint8_t value) {
    return w.constant<uint8_t>(shape, {value}, DType::kUint8);
  }
  int32_t row(int32_t n, uint32_t seed) {
    return w.constant({n}, random_integers<uint8_t>(n, seed, 0, 255), DType::kUint8);
  }
  int32_t dequantize(int32_t x, const Words& shape, float scale, uint8_t zero) {
    return w.step(Op::kDequantize, {x, real({}, {scale}), byte({}, zero)}, shape, {0});
  }

 private:
  int32_t product_of(const Words& operands, const Words& shape, bool trans_b, const Words& requant) {
    Words attributes = {trans_b};
    append(attributes, act_words({}));
    append(attributes, requant);
    return w.step(Op::kQmatmul, operands, shape, attributes, DType::kUint8);
  }
  static void append(Words& to, const Words& from) { to.insert(to.end(), from.begin(), from.end()); }
  // Kernels multiply activations where their zero points are constants.
  int32_t zero_point(uint8_t value) {
    if (constant_weights_) return byte({1}, value);
    weight_inputs.push_back({static_cast<char>(value)});
    return w.input({1}, DType::kUint8, false);
  }
  int32_t signed_weights(const Words& shape, size_t n, uint32_t seed) {
    const std::vector<int8_t> data = random_integers<int8_t>(n, seed, -128, 127);
    if (constant_weights_) return w.constant(shape, data, DType::kInt8);
    weight_inputs.emplace_back(data.begin(), data.end());
    return w.input(shape, DType::kInt8, false);
  }
  const bool constant_weights_;
};

// A stem, a pool, a skippable block, one with a projection, layers of other kinds, and both kinds of heads.
IntegerWriter network(bool constant_weights, bool skip_table) {
  IntegerWriter i(constant_weights);
  const Words image = {1, 3, 23, 21}, stem = {1, 20, 12, 11}, first = {1, 20, 6, 6}, second = {1, 40, 3, 3};
  const Words ranged = {90, 3, 250};
  int32_t x = i.quantize(i.image(image), image, 0.01f, 120);
  x = i.conv(x, image, stem, 7, 2, 1, 120, ranged, 10);
  x = i.max_pool(x, first);
  const int32_t begin = i.w.steps();
  const int32_t score = i.mean(x, 20, 90, DType::kFloat32);
  const int32_t gate = i.w.step(Op::kReduceMean, {score}, {1, 1, 1, 1}, {4, 0, 1, 2, 3});
  const int32_t body = i.w.steps();
  int32_t hidden = i.conv(x, first, first, 3, 1, 1, 90, {60, 60, 255}, 20);
  hidden = i.conv(hidden, first, first, 3, 1, 1, 60, {70, 0, 255}, 30);
  const int32_t sum = i.add(hidden, x, first, 70, 90, ranged);
  i.w.block(true, begin, body, x, sum, gate, {}, ops::CompareKind::kGt, skip_table ? i.table(99) : -1);
  // Read as of another zero point, which needs another halo.
  const int32_t other = i.conv(sum, first, first, 5, 1, 20, 33, {33, 0, 255}, 40);
  const int32_t projection = i.conv(sum, first, second, 1, 2, 1, 90, {10, 0, 255}, 50);
  const int32_t main = i.conv(other, first, second, 3, 2, 4, 33, {20, 0, 255}, 60);
  x = i.add(projection, main, second, 10, 20, ranged);
  x = i.lookup(x, second, 70);
  i.w.output(i.dequantize(x, second, 0.25f, 90));
  i.w.output(i.windows(sum, {1, 20, 2, 2}, false, 90, {2, 3, 3, 3, 3, 0, 0, 0, 0, 1, 1}));
  i.w.output(i.windows(sum, {1, 20, 1, 1}, true, 90, {2, 6, 6, 1, 1, 0, 0, 0, 0, 1, 1}));
  const int32_t mean = i.mean(x, 40, 90, DType::kUint8);
  const int32_t flat = i.w.step(Op::kReshape, {mean}, {1, 40}, {}, DType::kUint8);
  const int32_t head = i.matmul(flat, 40, 37, false, 80);
  i.w.output(head);
  i.w.output(i.matmul(head, 37, 10, true, 90));
  return i;
}

std::vector<std::vector<char>> outputs_of(const KernelTable& table, int threads, const IntegerWriter& i, BlockMode mode) {
  EngineOptions options;
  options.table = &table;
  options.threads = threads;
  Engine engine(options);
  const auto program = engine.compile(i.w.words(), i.w.constants());
  TestRun run(program->plan(), 3, mode);
  for (size_t n = 0; n < i.weight_inputs.size(); ++n) run.inputs[n + 1] = i.weight_inputs[n];
  for (size_t n = 0; n < run.inputs.size(); ++n) run.request.inputs[n] = {run.inputs[n].data(), run.inputs[n].size()};
  const RunResult result = program->run_here(std::move(run.request));
  EXPECT_FALSE(result.error);
  return run.outputs;
}

// Matrix products with additions of rows behind them, and of activations by activations.
IntegerWriter rows(bool constant_weights) {
  IntegerWriter i(constant_weights);
  const Words shape = {1, 3, 5, 32}, square = {1, 3, 5, 5};
  const int32_t x = i.quantize(i.image(shape), shape, 0.01f, 120);
  int32_t y = i.layer(x, shape, 32, 10);
  y = i.add(i.row(32, 20), y, shape, 33, 100, {90, 3, 250});
  y = i.add(x, y, shape, 120, 90, {110, 0, 255});
  const int32_t other = i.add(i.layer(y, shape, 32, 30), i.row(32, 40), shape, 100, 61, {80, 0, 255});
  const int32_t scores = i.product(y, other, square, true, 110, 80);
  i.w.output(i.product(scores, i.lookup(other, shape, 50), shape, false, 90, 0));
  return i;
}

// A factor for each channel, before and behind the map.
IntegerWriter scaled(bool constant_weights) {
  IntegerWriter i(constant_weights);
  const Words image = {1, 3, 11, 13}, map = {1, 37, 11, 13}, factors = {1, 37, 1, 1};
  int32_t x = i.conv(i.quantize(i.image(image), image, 0.01f, 120), image, map, 3, 1, 1, 120, {90, 0, 255}, 10);
  const int32_t factor = i.conv(i.mean(x, 37, 90, DType::kUint8), factors, factors, 1, 1, 1, 90, {20, 0, 255}, 20);
  i.w.output(i.multiply(x, factor, map, 90, 20));
  i.w.output(i.multiply(factor, x, map, 20, 90));
  i.w.output(i.add(x, factor, map, 90, 20, {90, 3, 250}));
  i.w.output(i.add(factor, x, map, 20, 90, {90, 3, 250}));
  return i;
}

// Maps behind each other, of which the last one has no whole block of channels.
IntegerWriter joined(bool constant_weights) {
  IntegerWriter i(constant_weights);
  const Words image = {1, 3, 11, 13}, first = {1, 32, 11, 13}, last = {1, 20, 11, 13}, all = {1, 84, 11, 13};
  const int32_t x = i.quantize(i.image(image), image, 0.01f, 120);
  const int32_t a = i.conv(x, image, first, 3, 1, 1, 120, {90, 0, 255}, 10);
  const int32_t b = i.conv(x, image, last, 1, 1, 1, 120, {90, 0, 255}, 20);
  const int32_t sum = i.w.step(Op::kConcat, {a, a, b}, all, {1}, DType::kUint8);
  i.w.output(sum);
  i.w.output(i.conv(sum, all, first, 3, 1, 1, 90, {33, 0, 255}, 30));
  return i;
}

// Convolutions whose weights have zero points, then one whose scale and zero point are known at run time only.
IntegerWriter asymmetric(bool constant_weights) {
  IntegerWriter i(constant_weights);
  const Words image = {1, 3, 23, 21}, stem = {1, 20, 12, 11}, wide = {1, 37, 12, 11}, small = {1, 37, 6, 6};
  const auto by_channel = [&](int32_t n) { return i.real({n}, random_floats(n, 7, 0.0004f, 0.0008f)); };
  int32_t x = i.quantize(i.image(image), image, 0.01f, 120);
  x = i.asymmetric(x, image, stem, {7, 2, 3, 1, 1}, false, by_channel(20), i.byte({1}, 120), 10);
  x = i.asymmetric(x, stem, stem, {3, 1, 2, 2, 20}, false, i.real({1}, {0.003f}), i.byte({1}, 90), 21);
  x = i.asymmetric(x, stem, stem, {3, 1, 1, 1, 4}, false, by_channel(20), i.byte({1}, 90), 30);
  x = i.asymmetric(x, stem, wide, {1, 1, 0, 1, 1}, false, by_channel(37), i.byte({1}, 90), 41);
  const int32_t real = i.asymmetric(x, wide, small, {3, 2, 1, 1, 1}, true, by_channel(37), i.byte({1}, 90), 50);
  i.w.output(x);
  i.w.output(real);
  const int32_t bytes = i.w.value(small, DType::kUint8), scale = i.w.value({}), zero = i.w.value({}, DType::kUint8);
  i.w.push(Op::kDynamicQuantize, {real}, {bytes, scale, zero});
  i.w.output(i.asymmetric(bytes, small, {1, 20, 6, 6}, {3, 1, 1, 1, 1}, true, scale, zero, 61));
  i.w.output(i.asymmetric(bytes, small, small, {3, 1, 1, 1, 37}, true, scale, zero, 70));
  i.w.output(i.asymmetric(bytes, small, {1, 37, 3, 3}, {5, 2, 2, 1, 37}, true, scale, zero, 81));
  return i;
}

// Shortcuts that leave out every second pixel and pad the channels: by half a block, by other numbers, and by a whole block.
IntegerWriter shortcuts(bool constant_weights) {
  IntegerWriter i(constant_weights);
  const Words image = {1, 3, 17, 18}, first = {1, 20, 17, 18}, half = {1, 20, 9, 9};
  int32_t x = i.quantize(i.image(image), image, 0.01f, 120);
  x = i.conv(x, image, first, 3, 1, 1, 120, {90, 3, 250}, 10);
  x = i.conv(x, first, first, 3, 1, 1, 90, {90, 3, 250}, 20);
  const int32_t skipped = i.w.step(Op::kSlice, {x}, half, {4, 0, 0, 0, 0, 1, 1, 2, 2}, DType::kUint8);
  for (int before : {8, 5, 16, 0}) {
    const Words to = {1, 20 + before + 12, 9, 9};
    const int32_t main = i.conv(x, first, to, 3, 2, 1, 90, {33, 0, 255}, 30);
    const int32_t padded = i.w.step(Op::kPad, {skipped, i.byte({}, 90)}, to, {0, 8, 0, before, 0, 0, 0, 12, 0, 0}, DType::kUint8);
    i.w.output(i.dequantize(i.add(main, padded, to, 33, 90, {90, 3, 250}), to, 0.25f, 90));
  }
  const Words around = {1, 20, 12, 13};
  const int32_t framed = i.w.step(Op::kPad, {skipped, -1}, around, {0, 8, 0, 0, 1, 2, 0, 0, 2, 2}, DType::kUint8);
  i.w.output(i.dequantize(framed, around, 0.25f, 90));
  return i;
}

// Expand, depthwise and project.
IntegerWriter inverted_residual(bool constant_weights, int32_t side) {
  IntegerWriter i(constant_weights);
  const Words image = {1, 8, side, side}, wide = {1, 97, side, side};
  int32_t x = i.quantize(i.image(image), image, 0.01f, 120);
  x = i.conv(x, image, wide, 1, 1, 1, 120, {60, 60, 255}, 10);
  x = i.conv(x, wide, wide, 3, 1, 97, 60, {33, 0, 255}, 20);
  i.w.output(i.conv(x, wide, {1, 4, side, side}, 1, 1, 1, 33, {90, 3, 250}, 30));
  return i;
}

// A map of a MiB is too large for a cache.
TEST(IntegerPrograms, LargeMapsAreProcessedInBands) {
  const auto instructions = [](const IntegerWriter& i) {
    Engine engine(EngineOptions{});
    return engine.compile(i.w.words(), i.w.constants())->plan().instructions.size();
  };
  EXPECT_EQ(instructions(inverted_residual(true, 104)) + 2, instructions(inverted_residual(true, 103)));
  const IntegerWriter plain = inverted_residual(false, 104), packed = inverted_residual(true, 104);
  const auto expected = outputs_of(scalar(), 1, plain, BlockMode::kRun);
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    EXPECT_EQ(expected, outputs_of(*table, 3, packed, BlockMode::kRun));
  }
}

// Weights that aren't constant have no kernels.
void expect_plain_loops(IntegerWriter make(bool constant_weights)) {
  const IntegerWriter plain = make(false), packed = make(true);
  const auto expected = outputs_of(scalar(), 1, plain, BlockMode::kRun);
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    for (int threads : {1, 3}) EXPECT_EQ(expected, outputs_of(*table, threads, packed, BlockMode::kRun));
  }
}

TEST(IntegerPrograms, AsymmetricWeightsGiveTheBitsOfPlainLoops) { expect_plain_loops(asymmetric); }

TEST(IntegerPrograms, PaddedShortcutsGiveTheBytesOfPlainLoops) { expect_plain_loops(shortcuts); }

TEST(IntegerPrograms, FactorsOfChannelsGiveTheBytesOfPlainLoops) { expect_plain_loops(scaled); }

TEST(IntegerPrograms, JoinedMapsGiveTheBytesOfPlainLoops) { expect_plain_loops(joined); }

TEST(IntegerPrograms, RowsGiveTheBytesOfPlainLoops) { expect_plain_loops(rows); }

TEST(IntegerPrograms, KernelsGiveTheBytesOfPlainLoops) {
  for (bool skip_table : {false, true}) {
    const IntegerWriter plain = network(false, skip_table), packed = network(true, skip_table);
    for (BlockMode mode : {BlockMode::kRun, BlockMode::kSkip, BlockMode::kGate}) {
      const auto expected = outputs_of(scalar(), 1, plain, mode);
      for (const KernelTable* table : available_tables()) {
        SCOPED_TRACE(table->name);
        for (int threads : {1, 3}) {
          const auto actual = outputs_of(*table, threads, packed, mode);
          for (size_t n = 0; n < expected.size(); ++n) EXPECT_EQ(expected[n], actual[n]) << "output " << n;
        }
      }
    }
  }
}

}  // namespace
}  // namespace rskip::test
