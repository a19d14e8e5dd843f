// Convolutions: every algorithm against the double oracle, and every instruction set against scalar's bytes.
#include "conv_tester.h"

namespace rskip::test {
namespace {

const Activation kRelu{ActivationKind::kRelu, 0, 0};

TEST(DirectConv, EveryTileWidth) {
  for (int width = 1; width <= 30; ++width) ConvTester().channels(16, 32).map(2, width).kernel(1).check();
  for (int width = 1; width <= 17; ++width) ConvTester().channels(20, 40).map(3, width).kernel(3).pad(1).check();
}
TEST(DirectConv, ChannelTails) {
  for (int in : {5, 15, 16, 17, 31, 40}) {
    for (int out : {1, 7, 16, 24, 33, 48}) ConvTester().channels(in, out).map(5, 6).kernel(3).pad(1).check();
  }
}
TEST(DirectConv, KernelsStridesDilationsAndPads) {
  ConvTester().channels(17, 20).map(9, 11).kernel(3).stride(2).pad(1).check();
  ConvTester().channels(17, 20).map(9, 11).kernel(1).stride(2).check();
  ConvTester().channels(16, 16).map(9, 12).kernel(5, 3).stride(1, 2).pad({2, 0, 1, 3}).check();
  ConvTester().channels(16, 16).map(12, 12).kernel(3).dilation(2, 3).pad(2).check();
  ConvTester().channels(16, 32).map(10, 13).kernel(2, 4).stride(3, 3).pad({0, 1, 2, 0}).check();
  ConvTester().channels(32, 16).map(4, 4).kernel(4).check();
  ConvTester().channels(16, 16).map(8, 8).kernel(1).pad(1).check();
}
TEST(DirectConv, Groups) {
  ConvTester().channels(32, 64).map(6, 7).kernel(3).pad(1).groups(2).check();
  ConvTester().channels(128, 128).map(4, 5).kernel(3).pad(1).groups(32).check();
  ConvTester().channels(48, 48).map(5, 5).kernel(3).pad(1).groups(6).check();
  ConvTester().channels(30, 20).map(5, 5).kernel(3).pad(1).groups(5).check();
  ConvTester().channels(24, 48).map(5, 5).kernel(3).pad(1).groups(24).check();
}
TEST(DirectConv, Epilogues) {
  for (const Activation& act : all_activations()) {
    ConvTester().channels(18, 35).map(4, 15).kernel(1).act(act).check();
    ConvTester().channels(18, 35).map(4, 5).kernel(3).pad(1).act(act).in_place().output_halo(1).check();
  }
  ConvTester().channels(16, 16).map(4, 5).kernel(1).bias(false).residual().check();
}
TEST(DirectConv, HalosOfNeighbours) {
  ConvTester().channels(32, 32).map(7, 7).kernel(1).output_halo(1).in_place().act(kRelu).check();
  ConvTester().channels(32, 32).map(7, 7).kernel(1).residual().act(kRelu).check();
  ConvTester().channels(32, 32).map(7, 7).kernel(1).extra_halo(2).check();
  ConvTester().channels(32, 32).map(7, 7).kernel(3).pad(1).extra_halo(2).output_halo(2).check();
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

}  // namespace
}  // namespace rskip::test
