// Convolutions in bands of rows: the bits of one after the other, whole and in parts, and nothing read or written outside.
#include <cstring>
#include <optional>

#include "conv8_tester.h"
#include "plan/kernel_instructions8.h"
#include "run/team.h"

namespace rskip::test {
namespace {

ConvShape shape_of(int in, int out, int height, int width, int kernel, int stride, int groups) {
  ConvShape s;
  s.in_channels = in;
  s.out_channels = out;
  s.in_height = height;
  s.in_width = width;
  s.kernel_h = s.kernel_w = kernel;
  s.stride_h = s.stride_w = stride;
  const int pad = kernel / 2;
  s.pad = {pad, pad, pad, pad};
  s.out_height = (height + 2 * pad - kernel) / stride + 1;
  s.out_width = (width + 2 * pad - kernel) / stride + 1;
  s.groups = groups;
  return s;
}

std::shared_ptr<const PackedConv> pack(const ConvShape& s, uint32_t seed) {
  const size_t k = static_cast<size_t>(s.in_channels / s.groups) * s.kernel_h * s.kernel_w;
  return pack_conv(s, choose_conv_algorithm(s), random_floats(s.out_channels * k, seed).data(),
                   random_floats(s.out_channels, seed + 1).data());
}

BlockedOperand operand(const Map& map) {
  BlockedView view = map.view();
  const Place place = Place::at_address(view.data);
  view.data = nullptr;
  return {place, view};
}

// Two or three convolutions, their operands and what lies between them.
struct Chain {
  Chain(const ConvShape& a, const ConvShape& b, const std::optional<ConvShape>& c)
      : first(pack(a, 1)),
        second(pack(b, 3)),
        x(a.in_channels, a.in_height, a.in_width, conv_input_halo(a, choose_conv_algorithm(a))),
        between(b.in_channels, b.in_height, b.in_width, conv_input_halo(b, ConvAlgorithm::kDepthwise)),
        band(b.out_channels, b.out_height, b.out_width) {
    x.fill(random_floats(static_cast<size_t>(a.in_channels) * a.in_height * a.in_width, 5));
    if (c) third = pack(*c, 7);
  }
  ConvOperands operands(const std::shared_ptr<const PackedConv>& conv, const Map& from, const Map& to,
                        ActivationKind act) const {
    ConvOperands o;
    o.conv = conv;
    o.x = operand(from);
    o.y = operand(to);
    o.act = {act, 0, 0};
    o.multiply_adds = 1;
    return o;
  }
  std::shared_ptr<const PackedConv> first, second, third;
  Map x, between, band;
};

void run(const Instruction& instruction, int part, int parts) {
  Frame frame;
  frame.bases = {0};
  Workspace workspace;
  workspace.scratch.reserve(instruction.scratch_bytes());
  if (workspace.scratch.bytes() > 0) std::memset(workspace.scratch.data(), 0xff, workspace.scratch.bytes());  // NaNs
  instruction.run(frame, workspace, part, parts);
}

void check(const ConvShape& a, const ConvShape& b, const std::optional<ConvShape>& c = std::nullopt) {
  const Chain chain(a, b, c);
  const ConvShape& last = c ? *c : b;
  // An activation that doesn't map zero to zero: the lanes behind the last channel have to stay zero all the same.
  const auto kLast = ActivationKind::kSigmoid;
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    Map expected(last.out_channels, last.out_height, last.out_width);
    run(*make_conv(*table, chain.operands(chain.first, chain.x, chain.between, ActivationKind::kRelu)), 0, 1);
    run(*make_conv(*table, chain.operands(chain.second, chain.between, c ? chain.band : expected, kLast)), 0, 1);
    if (c) run(*make_conv(*table, chain.operands(chain.third, chain.band, expected, kLast)), 0, 1);
    for (int parts : {1, 2, 3, 7}) {
      Map y(last.out_channels, last.out_height, last.out_width, {1, 1, 1, 1});
      std::optional<ConvOperands> third;
      if (c) third = chain.operands(chain.third, chain.band, y, kLast);
      const InstructionPtr fused =
          make_fused_convs(*table, chain.operands(chain.first, chain.x, chain.between, ActivationKind::kRelu),
                           chain.operands(chain.second, chain.between, c ? chain.band : y, kLast), third);
      for (int part = 0; part < parts; ++part) run(*fused, part, parts);
      y.expect_clean();
      EXPECT_TRUE(same_bits(expected.planar(), y.planar())) << parts << " parts";
    }
  }
}

TEST(FusedConvs, ExpandAndDepthwise) {
  check(shape_of(24, 72, 37, 61, 1, 1, 1), shape_of(72, 72, 37, 61, 3, 1, 72));
  check(shape_of(24, 72, 37, 61, 1, 1, 1), shape_of(72, 72, 37, 61, 3, 2, 72));
  check(shape_of(16, 200, 40, 56, 1, 1, 1), shape_of(200, 200, 40, 56, 3, 1, 200));
}

TEST(FusedConvs, AndTheProjectionBehind) {
  check(shape_of(24, 72, 37, 61, 1, 1, 1), shape_of(72, 72, 37, 61, 3, 1, 72), shape_of(72, 40, 37, 61, 1, 1, 1));
  check(shape_of(16, 96, 50, 50, 1, 1, 1), shape_of(96, 96, 50, 50, 3, 2, 96), shape_of(96, 24, 25, 25, 1, 1, 1));
}

TEST(FusedConvs, BehindWindowsAndStrides) {
  check(shape_of(20, 56, 41, 45, 3, 2, 1), shape_of(56, 56, 21, 23, 5, 1, 56));
  check(shape_of(32, 256, 30, 90, 1, 2, 1), shape_of(256, 256, 15, 45, 5, 2, 256), shape_of(256, 18, 8, 23, 1, 1, 1));
}

// More workers than rows, a single row, and a window that holds the whole map.
TEST(FusedConvs, SmallMaps) {
  check(shape_of(8, 17, 3, 5, 1, 1, 1), shape_of(17, 17, 3, 5, 3, 1, 17));
  check(shape_of(8, 16, 1, 9, 1, 1, 1), shape_of(16, 16, 1, 9, 3, 1, 16), shape_of(16, 5, 1, 9, 1, 1, 1));
}

constexpr uint8_t kZero = 113, kBetween = 37;

std::shared_ptr<const PackedConv8> pack8(const ConvShape& s, int zero, uint32_t seed) {
  const size_t k = static_cast<size_t>(s.in_channels / s.groups) * s.kernel_h * s.kernel_w;
  const std::vector<float> scale(s.out_channels, 1.0f / (128 * std::sqrt(static_cast<float>(k))));
  return pack_conv8(s, choose_conv8_algorithm(s), random_integers<int8_t>(s.out_channels * k, seed, -128, 127).data(),
                    random_integers<int32_t>(s.out_channels, seed + 1, -9000, 9000).data(), scale.data(), s.out_channels, zero);
}

ConvOperands8 operands8(std::shared_ptr<const PackedConv8> conv, const Map8& from, uint8_t x_zero, const Map8& to, int32_t zero) {
  const auto operand = [](const Map8& map) -> BlockedOperand8 {
    BlockedView8 view = map.view();
    const Place place = Place::at_address(view.data);
    view.data = nullptr;
    return {place, view};
  };
  ConvOperands8 o;
  o.conv = std::move(conv);
  o.x = operand(from);
  o.x_zero = x_zero;
  o.y = operand(to);
  o.rounding = {static_cast<float>(-zero), static_cast<float>(255 - zero), zero};
  o.multiply_adds = 1;
  return o;
}

// Bytes, whose halo holds a zero point.
void check8(const ConvShape& a, const ConvShape& b, const std::optional<ConvShape>& c = std::nullopt) {
  const auto first = pack8(a, kZero, 1), second = pack8(b, kBetween, 3), third = c ? pack8(*c, kBetween, 7) : nullptr;
  Map8 x(a.in_channels, a.in_height, a.in_width, conv8_input_halo(a, choose_conv8_algorithm(a)), kZero);
  x.fill(random_integers<uint8_t>(static_cast<size_t>(a.in_channels) * a.in_height * a.in_width, 5, 0, 255));
  const ConvShape& last = c ? *c : b;
  for (const KernelTable* table : available_tables()) {
    SCOPED_TRACE(table->name);
    Map8 between(b.in_channels, b.in_height, b.in_width, conv8_input_halo(b, ConvAlgorithm::kDepthwise), kBetween);
    Map8 band(b.out_channels, b.out_height, b.out_width), expected(last.out_channels, last.out_height, last.out_width);
    run(*make_conv8(*table, operands8(first, x, kZero, between, kBetween)), 0, 1);
    run(*make_conv8(*table, operands8(second, between, kBetween, c ? band : expected, kBetween)), 0, 1);
    if (c) run(*make_conv8(*table, operands8(third, band, kBetween, expected, kZero)), 0, 1);
    for (int parts : {1, 2, 7}) {
      Map8 y(last.out_channels, last.out_height, last.out_width, {1, 1, 1, 1}, 77);
      std::optional<ConvOperands8> behind;
      if (c) behind = operands8(third, band, kBetween, y, kZero);
      const InstructionPtr fused = make_fused_convs(*table, operands8(first, x, kZero, between, kBetween),
                                                    operands8(second, between, kBetween, c ? band : y, kBetween), behind);
      for (int part = 0; part < parts; ++part) run(*fused, part, parts);
      y.expect_clean();
      EXPECT_EQ(expected.planar(), y.planar()) << parts << " parts";
    }
  }
}

TEST(FusedConvs, OfBytes) {
  check8(shape_of(24, 72, 37, 61, 1, 1, 1), shape_of(72, 72, 37, 61, 3, 2, 72));
  check8(shape_of(24, 200, 57, 61, 1, 1, 1), shape_of(200, 200, 57, 61, 3, 1, 200), shape_of(200, 40, 57, 61, 1, 1, 1));
  check8(shape_of(20, 170, 41, 121, 3, 2, 1), shape_of(170, 170, 21, 61, 5, 2, 170), shape_of(170, 18, 11, 31, 1, 1, 1));
  check8(shape_of(8, 17, 3, 5, 1, 1, 1), shape_of(17, 17, 3, 5, 3, 1, 17));
  check8(shape_of(40, 300, 33, 40, 1, 1, 1), shape_of(300, 300, 33, 40, 5, 1, 300));
}

}  // namespace
}  // namespace rskip::test
