// Convolutions: every algorithm against the double oracle, and every instruction set against scalar's bytes.
#include "conv_tester.h"

namespace rskip::test {
namespace {

const Activation kRelu{ActivationKind::kRelu, 0, 0};

ConvTester direct() { return ConvTester().algorithm(ConvAlgorithm::kDirect); }

TEST(DirectConv, EveryTileWidth) {
  for (int width = 1; width <= 30; ++width) direct().channels(16, 32).map(2, width).kernel(1).check();
  for (int width = 1; width <= 17; ++width) direct().channels(20, 40).map(3, width).kernel(3).pad(1).check();
}
TEST(DirectConv, ChannelTails) {
  for (int in : {5, 15, 16, 17, 31, 40}) {
    for (int out : {1, 7, 16, 24, 33, 48}) direct().channels(in, out).map(5, 6).kernel(3).pad(1).check();
  }
}
TEST(DirectConv, KernelsStridesDilationsAndPads) {
  direct().channels(17, 20).map(9, 11).kernel(3).stride(2).pad(1).check();
  direct().channels(17, 20).map(9, 11).kernel(1).stride(2).check();
  direct().channels(16, 16).map(9, 12).kernel(5, 3).stride(1, 2).pad({2, 0, 1, 3}).check();
  direct().channels(16, 16).map(12, 12).kernel(3).dilation(2, 3).pad(2).check();
  // Taps of most tiles, or all but one, are in the padding.
  direct().channels(33, 20).map(12, 30).kernel(3).dilation(10, 26).pad({10, 26, 10, 26}).check();
  direct().channels(16, 32).map(7, 7).kernel(3).dilation(9).pad(9).check();
  direct().channels(16, 32).map(14, 14).kernel(3).dilation(12).pad(12).residual().act(kRelu).check();
  direct().channels(16, 16).map(5, 20).kernel(1).dilation(2).check();
  direct().channels(16, 16).map(9, 17).kernel(3, 4).dilation(8, 5).pad({20, 3, 1, 20}).stride(2).check();
  direct().channels(16, 32).map(10, 13).kernel(2, 4).stride(3, 3).pad({0, 1, 2, 0}).check();
  direct().channels(32, 16).map(4, 4).kernel(4).check();
  direct().channels(16, 16).map(8, 8).kernel(1).pad(1).check();
}
TEST(DirectConv, Groups) {
  direct().channels(32, 64).map(6, 7).kernel(3).pad(1).groups(2).check();
  direct().channels(128, 128).map(4, 5).kernel(3).pad(1).groups(32).check();
  direct().channels(48, 48).map(5, 5).kernel(3).pad(1).groups(6).check();
  direct().channels(30, 20).map(5, 5).kernel(3).pad(1).groups(5).check();
  direct().channels(24, 48).map(5, 5).kernel(3).pad(1).groups(24).check();
}
TEST(DirectConv, Epilogues) {
  for (const Activation& act : all_activations()) {
    direct().channels(18, 35).map(4, 15).kernel(1).act(act).check();
    direct().channels(18, 35).map(4, 5).kernel(3).pad(1).act(act).in_place().output_halo(1).check();
  }
  direct().channels(16, 16).map(4, 5).kernel(1).bias(false).residual().check();
}
TEST(DirectConv, HalvesOfBlocks) {
  for (int out : {8, 9, 23, 24, 40}) {
    direct().channels(18, out).map(4, 14).kernel(1).check();
    direct().channels(18, out).map(3, 28).kernel(1).in_place().act(kRelu).output_halo(1).check();
  }
}
// More pixels than are activated at a time.
TEST(DirectConv, ActivationsOfLongRows) {
  const Activation sigmoid{ActivationKind::kSigmoid, 0, 0};
  direct().channels(18, 35).map(11, 15).kernel(1).act(sigmoid).check();
  direct().channels(18, 35).map(11, 15).kernel(1).act(sigmoid).output_halo(1).check();
  direct().channels(18, 24).map(3, 150).kernel(3).pad(1).act(sigmoid).check();
  ConvTester().channels(20, 20).groups(20).map(21, 7).kernel(3).pad(1).act(sigmoid).output_halo(1).check();
}
TEST(DirectConv, HalosOfNeighbours) {
  direct().channels(32, 32).map(7, 7).kernel(1).output_halo(1).in_place().act(kRelu).check();
  direct().channels(32, 32).map(7, 7).kernel(1).residual().act(kRelu).check();
  direct().channels(32, 32).map(7, 7).kernel(1).extra_halo(2).check();
  direct().channels(32, 32).map(7, 7).kernel(3).pad(1).extra_halo(2).output_halo(2).check();
}

TEST(PlanarConv, Stems) {
  ConvTester().channels(3, 64).map(30, 32).kernel(7).stride(2).pad(3).act(kRelu).output_halo(1).check();
  ConvTester().channels(3, 16).map(9, 32).kernel(3).pad(1).act(kRelu).check();
  ConvTester().channels(1, 20).map(12, 11).kernel(5).check();
  ConvTester().channels(4, 24).map(13, 17).kernel(3).stride(2).pad({0, 0, 1, 1}).in_place().check();
  ConvTester().channels(3, 16).map(16, 16).kernel(3).dilation(2).pad(2).check();
  ConvTester().channels(3, 16).map(16, 16).kernel(4).stride(4).check();
  for (const Activation& act : all_activations()) {
    ConvTester().channels(2, 10).map(4, 5).kernel(3).pad(1).act(act).check();
  }
}

TEST(DepthwiseConv, KernelsStridesDilationsAndPads) {
  for (int kernel : {2, 3, 5, 7}) {
    for (int stride : {1, 2, 3}) {
      for (int channels : {16, 24, 40}) {
        ConvTester()
            .channels(channels, channels)
            .groups(channels)
            .map(11, 23)
            .kernel(kernel)
            .stride(stride)
            .pad(kernel / 2)
            .check();
      }
    }
  }
  ConvTester().channels(33, 33).groups(33).map(9, 9).kernel(3).dilation(2).pad(2).in_place().act(kRelu).check();
  ConvTester().channels(16, 16).groups(16).map(9, 10).kernel(3, 5).stride(2, 1).pad({1, 2, 1, 2}).check();
}
TEST(DepthwiseConv, EveryTileWidthAndEpilogue) {
  for (int width = 1; width <= 20; ++width) {
    ConvTester().channels(16, 16).groups(16).map(3, width).kernel(3).pad(1).check();
  }
  for (const Activation& act : all_activations()) {
    ConvTester().channels(18, 18).groups(18).map(4, 5).kernel(3).pad(1).act(act).in_place().output_halo(2).check();
  }
}

TEST(GroupedConv, KernelsStridesAndPads) {
  for (int group : {4, 8}) {
    for (int kernel : {1, 2, 3, 5}) {
      for (int stride : {1, 2}) {
        for (int channels : {16, 24, 40}) {
          ConvTester().channels(channels, channels).groups(channels / group).map(11, 23).kernel(kernel).stride(stride).pad(kernel / 2).check();
        }
      }
    }
    ConvTester().channels(16, 16).groups(16 / group).map(9, 10).kernel(3, 5).stride(2, 1).pad({1, 2, 1, 2}).in_place().act(kRelu).check();
  }
}
TEST(GroupedConv, EveryTileWidthAndEpilogue) {
  for (int group : {4, 8}) {
    for (int width = 1; width <= 20; ++width) {
      ConvTester().channels(32, 32).groups(32 / group).map(3, width).kernel(3).pad(1).check();
    }
    for (const Activation& act : all_activations()) {
      ConvTester().channels(24, 24).groups(24 / group).map(4, 5).kernel(3).pad(1).act(act).in_place().output_halo(2).check();
    }
  }
}

ConvTester winograd(ConvAlgorithm algorithm) { return ConvTester().algorithm(algorithm).kernel(3).pad(1); }
const ConvAlgorithm kWinograds[] = {ConvAlgorithm::kWinograd2, ConvAlgorithm::kWinograd4};

TEST(WinogradConv, EveryMapSize) {
  for (ConvAlgorithm algorithm : kWinograds) {
    for (int size = 1; size <= 18; ++size) {
      winograd(algorithm).channels(16, 16).map(size, 9).check();
      winograd(algorithm).channels(16, 16).map(6, size).check();
    }
    winograd(algorithm).channels(16, 32).map(32, 32).check();
  }
}
TEST(WinogradConv, ChannelTails) {
  for (ConvAlgorithm algorithm : kWinograds) {
    for (int in : {3, 16, 21, 40}) {
      for (int out : {5, 16, 24, 33, 48}) winograd(algorithm).channels(in, out).map(7, 10).check();
    }
  }
}
TEST(WinogradConv, FewTiles) {
  for (ConvAlgorithm algorithm : kWinograds) {
    for (int width : {4, 7, 12, 17, 20, 24}) {
      for (int out : {16, 40, 64, 80}) winograd(algorithm).channels(24, out).map(4, width).check();
    }
  }
}
// Weights so large that workers share the channels.
TEST(WinogradConv, LargeWeights) {
  for (ConvAlgorithm algorithm : kWinograds) winograd(algorithm).channels(96, 72).map(16, 16).check();
}
TEST(WinogradConv, PadsHalosAndEpilogues) {
  for (ConvAlgorithm algorithm : kWinograds) {
    winograd(algorithm).pad(0).channels(16, 16).map(9, 10).check();
    winograd(algorithm).pad({0, 2, 1, 0}).channels(16, 16).map(9, 10).output_halo(1).check();
    winograd(algorithm).pad(2).channels(16, 16).map(5, 6).extra_halo(1).check();
    for (const Activation& act : all_activations()) {
      winograd(algorithm).channels(16, 19).map(7, 6).act(act).in_place().output_halo(2).check();
    }
    winograd(algorithm).bias(false).residual().check();
  }
}
// The largest error over many outputs is at most twice that of direct convolution.
TEST(WinogradConv, ErrorIsNearThatOfDirectConvolution) {
  for (int channels : {16, 32, 64, 128}) {
    const auto error = [&](ConvAlgorithm algorithm) {
      return winograd(algorithm).channels(channels, 32).map(32, 32).max_error();
    };
    const double reference = error(ConvAlgorithm::kDirect);
    EXPECT_LE(error(ConvAlgorithm::kWinograd2), 2 * reference) << channels;
    EXPECT_LE(error(ConvAlgorithm::kWinograd4), 2 * reference) << channels;
  }
}

TEST(ConvAlgorithmChoice, OfBfloat16LeavesWinogradWhatItDoesFaster) {
  const auto chosen = [](const ConvTester& tester) { return choose_conv_algorithm(tester.shape(), Precision::kBfloat16); };
  EXPECT_EQ(chosen(ConvTester().channels(64, 256).map(56, 56).kernel(1)), ConvAlgorithm::kBfloat16);
  EXPECT_EQ(chosen(ConvTester().channels(64, 128).map(56, 56).kernel(3).stride(2).pad(1)), ConvAlgorithm::kBfloat16);
  EXPECT_EQ(chosen(ConvTester().channels(512, 512).map(7, 7).kernel(3).pad(1)), ConvAlgorithm::kBfloat16);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kWinograd4);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).groups(64).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kDepthwise);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).groups(4).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kDirect);
  EXPECT_EQ(chosen(ConvTester().channels(3, 64).map(224, 224).kernel(7).stride(2).pad(3)), ConvAlgorithm::kPlanarBfloat16);
  EXPECT_EQ(chosen(ConvTester().channels(3, 16).map(32, 32).kernel(3).pad(1)), ConvAlgorithm::kPlanar);
}

TEST(ConvAlgorithmChoice, OfAmxLeavesWinogradNothing) {
  const auto chosen = [](const ConvTester& tester) { return choose_conv_algorithm(tester.shape(), Precision::kBfloat16Amx); };
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kBfloat16Amx);
  EXPECT_EQ(chosen(ConvTester().channels(64, 256).map(56, 56).kernel(1)), ConvAlgorithm::kBfloat16Amx);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).groups(64).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kDepthwise);
  EXPECT_EQ(chosen(ConvTester().channels(128, 128).groups(32).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kGrouped);
  EXPECT_EQ(chosen(ConvTester().channels(3, 64).map(224, 224).kernel(7).stride(2).pad(3)), ConvAlgorithm::kPlanarBfloat16Amx);
  // A row of its window has more pairs than a product of matrices takes.
  EXPECT_EQ(chosen(ConvTester().channels(3, 64).map(80, 80).kernel(2, 34).stride(2)), ConvAlgorithm::kPlanar);
}

TEST(ConvAlgorithmChoice, FollowsTheShape) {
  const auto chosen = [](const ConvTester& tester) { return choose_conv_algorithm(tester.shape()); };
  EXPECT_EQ(chosen(ConvTester().channels(3, 64).map(224, 224).kernel(7).stride(2).pad(3)), ConvAlgorithm::kPlanar);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).groups(64).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kDepthwise);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kWinograd4);
  EXPECT_EQ(chosen(ConvTester().channels(64, 128).map(56, 56).kernel(3).stride(2).pad(1)), ConvAlgorithm::kDirect);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).map(56, 56).kernel(3).dilation(2).pad(2)), ConvAlgorithm::kDirect);
  EXPECT_EQ(chosen(ConvTester().channels(64, 64).groups(4).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kDirect);
  EXPECT_EQ(chosen(ConvTester().channels(64, 256).map(56, 56).kernel(1)), ConvAlgorithm::kDirect);
  EXPECT_EQ(chosen(ConvTester().channels(128, 128).groups(32).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kGrouped);
  EXPECT_EQ(chosen(ConvTester().channels(256, 256).groups(32).map(56, 56).kernel(3).stride(2).pad(1)), ConvAlgorithm::kGrouped);
  EXPECT_EQ(chosen(ConvTester().channels(512, 512).groups(32).map(14, 14).kernel(3).pad(1)), ConvAlgorithm::kDirect);
  EXPECT_EQ(chosen(ConvTester().channels(128, 256).groups(32).map(56, 56).kernel(3).pad(1)), ConvAlgorithm::kDirect);
}

}  // namespace
}  // namespace rskip::test
