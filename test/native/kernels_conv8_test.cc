// Convolution on 8-bit numbers over shapes that leave tails in every direction.
#include "conv8_tester.h"

namespace rskip::test {
namespace {

TEST(Conv8, PointwiseOfAnyChannels) {
  for (int in : {1, 3, 5, 16, 17, 37, 64}) {
    for (int out : {1, 15, 16, 33, 64}) ConvTester8().channels(in, out).map(5, 7).check();
  }
}

TEST(Conv8, PointwiseTilesOfAnyWidth) {
  for (int width = 1; width <= 31; ++width) ConvTester8().channels(24, 48).map(1, width).check();
}

TEST(Conv8, PointwiseBetweenHalos) {
  ConvTester8().channels(32, 48).map(6, 9).output_halo(1).check();
  ConvTester8().channels(32, 48).map(6, 9).extra_halo(2).output_halo(1).residual().check();
}

TEST(Conv8, ThreeByThree) {
  for (int width : {1, 2, 5, 8, 13, 29}) ConvTester8().channels(20, 40).map(5, width).kernel(3).pad(1).check();
  ConvTester8().channels(64, 64).map(7, 7).kernel(3).pad(1).check();
}

// Where some instruction sets take Winograd's algorithm: tiles of 4x4, of which sixteen are computed together.
TEST(Conv8, ThreeByThreeInTiles) {
  for (int width : {8, 9, 11, 23, 32}) {
    ConvTester8().channels(16, 16).map(9, width).kernel(3).pad(1).check();
    ConvTester8().channels(20, 40).map(8, width).kernel(3).pad(1).residual(width % 2 == 0).output_halo(1).check();
  }
  ConvTester8().channels(32, 32).map(33, 34).kernel(3).pad(1).in_place().check();
  ConvTester8().channels(48, 33).map(12, 10).kernel(3).pad({0, 2, 1, 0}).extra_halo(1).input_zero(0).check();
  ConvTester8().channels(192, 17).map(8, 8).kernel(3).pad(1).check();
  ConvTester8().channels(64, 48).map(13, 10).kernel(3).rounding({-20, 40, 60}).bias(false).check();
}

// With 114 channels, no sum exceeds what Winograd's algorithm holds; with one more, these take another.
TEST(Conv8, LargestSums) {
  for (int channels : {114, 115}) {
    for (int weight : {-128, 127}) {
      ConvTester8().channels(channels, 16).map(8, 8).kernel(3).pad(1).largest(static_cast<int8_t>(weight)).check();
    }
  }
}

TEST(Conv8, StridesDilationsAndPads) {
  ConvTester8().channels(18, 33).map(9, 12).kernel(3).pad(1).stride(2).check();
  ConvTester8().channels(18, 33).map(9, 12).kernel(1).stride(2).check();
  ConvTester8().channels(18, 33).map(9, 12).kernel(3).pad({0, 1, 2, 3}).stride(1, 3).check();
  ConvTester8().channels(18, 33).map(11, 12).kernel(3, 2).pad(2).dilation(2, 3).check();
  ConvTester8().channels(8, 16).map(4, 4).kernel(5).pad(2).extra_halo(1).check();
}

// Where processors multiply matrices.
TEST(Conv8, WholeBlocksOfChannels) {
  for (int width : {1, 2, 7, 16, 17, 35}) {
    ConvTester8().channels(48, 40).map(5, width).kernel(3).pad(1).residual().output_halo(1).check();
    ConvTester8().channels(32, 33).map(3, width).residual().check();
  }
  ConvTester8().channels(32, 48).map(9, 36).kernel(3).pad(1).stride(2).check();
  ConvTester8().channels(32, 48).map(9, 36).kernel(1).stride(2).check();
  ConvTester8().channels(32, 48).map(9, 12).kernel(2, 4).pad(2).dilation(2, 1).check();
  ConvTester8().channels(32, 48).map(9, 12).kernel(3).pad(2).dilation(2, 2).check();
}

TEST(Conv8, Stems) {
  ConvTester8().channels(3, 64).map(31, 30).kernel(7).pad(3).stride(2).check();
  ConvTester8().channels(3, 32).map(17, 16).kernel(3).pad(1).stride(2).check();
  ConvTester8().channels(1, 6).map(9, 9).kernel(5).pad(2).check();
  ConvTester8().channels(4, 20).map(8, 21).kernel(4).check();
  ConvTester8().channels(2, 16).map(9, 14).kernel(3).pad(2).dilation(2, 2).check();
}

// Where processors that multiply matrices copy windows.
TEST(Conv8, StemsOfManyColumns) {
  for (int size : {5, 6, 7, 8}) {
    ConvTester8().channels(3, 33).map(11, 41).kernel(size).pad(2).output_halo(1).check();
    ConvTester8().channels(1, 64).map(19, 23).kernel(size).pad(size / 2).stride(2).residual().check();
  }
  ConvTester8().channels(4, 40).map(12, 70).kernel(8).stride(3, 1).check();
  ConvTester8().channels(2, 32).map(16, 14).kernel(7).pad({3, 0, 2, 5}).dilation(2, 1).input_zero(0).check();
}

TEST(Conv8, Groups) {
  ConvTester8().channels(32, 32).map(6, 7).kernel(3).pad(1).groups(8).check();
  ConvTester8().channels(40, 80).map(6, 7).kernel(3).pad(1).groups(5).check();
  ConvTester8().channels(104, 104).map(5, 6).kernel(3).pad(1).groups(13).stride(2).check();
}

TEST(Conv8, Depthwise) {
  for (int size : {3, 5}) {
    for (int stride : {1, 2}) {
      for (int width : {1, 4, 9, 23}) {
        ConvTester8().channels(40, 40).map(7, width).kernel(size).pad(size / 2).stride(stride).groups(40).check();
      }
    }
  }
  ConvTester8().channels(40, 40).map(6, 13).kernel(3).pad({0, 2, 1, 0}).groups(40).output_halo(1).rounding({-20, 40, 60}).check();
  ConvTester8().channels(40, 40).map(8, 14).kernel(5).pad({2, 0, 1, 3}).stride(2).groups(40).extra_halo(1).check();
  ConvTester8().channels(24, 24).map(9, 10).kernel(3).pad(1).groups(24).residual().check();
  ConvTester8().channels(24, 24).map(9, 10).kernel(7).pad(3).groups(24).check();
  ConvTester8().channels(24, 24).map(9, 10).kernel(2, 4).groups(24).check();
  ConvTester8().channels(24, 24).map(9, 12).kernel(3).pad(2).dilation(2, 2).groups(24).residual().check();
}
TEST(Conv8, DepthwiseWithZeroPointsOfWeights) {
  for (int zeros : {1, 40}) {
    for (int size : {1, 3, 5, 6}) {
      ConvTester8().channels(40, 40).map(9, 23).kernel(size).pad(size / 2).groups(40).weight_zeros(zeros).check();
    }
  }
  ConvTester8().channels(24, 24).map(9, 10).kernel(3).pad(1).stride(2).groups(24).weight_zeros(24).residual().check();
}

// Rows of taps that lie in it may be left out.
TEST(Conv8, HalosOfZeros) {
  for (int height : {1, 2, 5}) {
    ConvTester8().channels(20, 33).map(height, 9).kernel(3).pad(1).input_zero(0).check();
    ConvTester8().channels(20, 33).map(height, 9).kernel(3).pad(3).stride(2).input_zero(0).check();
    ConvTester8().channels(36, 20).map(height, 9).kernel(3).pad(4).dilation(4, 2).groups(2).input_zero(0).residual().check();
  }
}

TEST(Conv8, Residuals) {
  for (bool first : {false, true}) {
    ConvTester8().channels(16, 40).map(7, 7).kernel(3).pad(1).residual(first).output_halo(1).check();
  }
  // A tile of any width: what it adds lies where its result goes.
  for (int width = 1; width <= 15; ++width) {
    ConvTester8().channels(16, 64).map(1, width).in_place().check();
    ConvTester8().channels(16, 33).map(2, width).in_place().output_halo(1).check();
  }
  ConvTester8().channels(16, 64).map(7, 7).in_place().check();
}

TEST(Conv8, RoundingAndZeroPoints) {
  for (int zero : {0, 1, 128, 255}) {
    for (int range : {0, 1}) {
      const Rounding rounding = range == 0 ? Rounding{-static_cast<float>(zero), 255.0f - zero, zero} : Rounding{0, 0, zero};
      ConvTester8().channels(16, 16).map(5, 9).kernel(3).pad(1).input_zero(zero).rounding(rounding).check();
    }
  }
  ConvTester8().channels(16, 20).map(5, 9).bias(false).one_scale().rounding({0, 155, 100}).check();
}

}  // namespace
}  // namespace rskip::test
