// Convolution on 8-bit numbers: which algorithm, and packing.
#include <algorithm>
#include <cstring>

#include "kernels/convolution/conv_rules.h"
#include "kernels/int8/pack8.h"

namespace rskip {
namespace {

constexpr int kQuad = 4;
constexpr size_t kFactorBytes = kQuad * kLanes;

// Products of matrices read beyond the last groups, and multiply those by zeros.
constexpr size_t kBeyond = kLanes * kFactorBytes;

size_t quads(int count) { return static_cast<size_t>((count + kQuad - 1) / kQuad); }

// Where the weight of an output lane and number `i` of a group of four is, from the first of the four.
size_t at(int lane, size_t i) { return static_cast<size_t>(lane) * kQuad + i % kQuad; }

void pack_direct(const int8_t* weight, PackedConv8& packed) {
  const ConvShape& s = packed.shape;
  const int group_in = s.in_channels / s.groups, group_out = s.out_channels / s.groups;
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  packed.blocks = covering_blocks(s);
  size_t size = 0;
  for (ConvBlock& block : packed.blocks) {
    block.offset = size;
    size += taps * kFactorBytes * (static_cast<size_t>(block.blocks - 1) * quads(kLanes) + quads(block.last_channels));
  }
  packed.weights = Aligned<int8_t>(size + kBeyond);
  packed.weights.zero();
  for (size_t b = 0; b < packed.blocks.size(); ++b) {
    const ConvBlock& block = packed.blocks[b];
    // Channel by channel, whose weights are in a row.
    each_lane(static_cast<int>(b), s.out_channels, [&](int m, int lane) {
      const int8_t* const own = weight + static_cast<size_t>(m) * group_in * taps;
      const int from = m / group_out * group_in;
      int8_t* out = packed.weights.data() + block.offset;
      for (size_t tap = 0; tap < taps; ++tap) {
        for (int i = 0; i < block.blocks; ++i) {
          const int channels = i + 1 == block.blocks ? block.last_channels : kLanes;
          const int first = (block.first_block + i) * kLanes - from;
          const int end = std::min(channels, group_in - first);
          const int8_t* const from = own + static_cast<ptrdiff_t>(first) * static_cast<ptrdiff_t>(taps) + tap;
          int8_t* const to = out + at(lane, 0);
          const auto put = [&](int c) { to[c / kQuad * kFactorBytes + c % kQuad] = from[c * taps]; };
          int c = std::max(0, -first);
          // Groups of four that lie side by side.
          for (; taps == 1 && c % kQuad == 0 && c + kQuad <= end; c += kQuad) {
            std::memcpy(to + c / kQuad * kFactorBytes, from + c, kQuad);
          }
          for (; c < end; ++c) put(c);
          out += quads(channels) * kFactorBytes;
        }
      }
    });
  }
}

// Blocks of equal size. put(weights of the block, output channel, lane) stores those of one channel.
template <class Put>
void pack_blocks(size_t block_size, PackedConv8& packed, const Put& put) {
  const int blocks = channel_blocks(packed.shape.out_channels);
  packed.weights = Aligned<int8_t>(block_size * blocks + kBeyond);
  packed.weights.zero();
  for (int b = 0; b < blocks; ++b) {
    ConvBlock block;
    block.offset = b * block_size;
    packed.blocks.push_back(block);
    int8_t* out = packed.weights.data() + block.offset;
    each_lane(b, packed.shape.out_channels, [&](int m, int lane) { put(out, m, lane); });
  }
}

void pack_planar(const int8_t* weight, PackedConv8& packed) {
  const ConvShape& s = packed.shape;
  const size_t rows = static_cast<size_t>(s.in_channels) * s.kernel_h;
  const size_t spread = s.dilation_w == 1 ? 1 : kQuad;  // positions that a column takes
  const size_t row_size = quads(s.kernel_w * static_cast<int>(spread)) * kFactorBytes;
  pack_blocks(rows * row_size, packed, [&](int8_t* out, int m, int lane) {
    for (size_t row = 0; row < rows; ++row, out += row_size) {
      for (int kw = 0; kw < s.kernel_w; ++kw) {
        const size_t position = kw * spread;
        out[position / kQuad * kFactorBytes + at(lane, position)] = weight[(m * rows + row) * s.kernel_w + kw];
      }
    }
  });
}

// The summands of 8 bits of a weight less its zero point.
int8_t part_of(int whole, int part) {
  for (int i = 0; i < part; ++i) whole -= std::clamp(whole, -128, 127);
  return static_cast<int8_t>(std::clamp(whole, -128, 127));
}

template <class Zero>
void pack_depthwise(const int8_t* weight, const Zero& zero_of, PackedConv8& packed) {
  const ConvShape& s = packed.shape;
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  for (int m = 0; m < s.out_channels; ++m) {
    for (size_t tap = 0; tap < taps; ++tap) {
      while (part_of(weight[m * taps + tap] - zero_of(m), packed.parts) != 0) ++packed.parts;
    }
  }
  const int rows = s.kernel_h * packed.parts;
  pack_blocks(quads(rows) * s.kernel_w * kFactorBytes, packed, [&](int8_t* out, int m, int lane) {
    for (int row = 0; row < rows; ++row) {
      int8_t* group = out + static_cast<size_t>(row / kQuad) * s.kernel_w * kFactorBytes + at(lane, row);
      for (int kw = 0; kw < s.kernel_w; ++kw) {
        const int whole = weight[(static_cast<size_t>(m) * s.kernel_h + row % s.kernel_h) * s.kernel_w + kw] - zero_of(m);
        group[kw * kFactorBytes] = part_of(whole, row / s.kernel_h);
      }
    }
  });
}

// G g of three weights, scaled as WinogradConv8 says.
void transform_weights(const int32_t (&g)[3], int32_t (&out)[6]) {
  const int32_t even = g[0] + g[2], far = g[0] + 4 * g[2];
  out[0] = 6 * g[0];
  out[1] = -4 * (even + g[1]);
  out[2] = -4 * (even - g[1]);
  out[3] = far + 2 * g[1];
  out[4] = far - 2 * g[1];
  out[5] = 12 * g[2];
}

void pack_winograd(const int8_t* weight, PackedConv8& packed) {
  const ConvShape& s = packed.shape;
  const size_t point = static_cast<size_t>(whole_blocks(s.in_channels)) * kLanes;
  pack_blocks(WinogradConv8::kPoints * point * sizeof(int16_t), packed, [&](int8_t* out, int m, int lane) {
    int16_t* const block = reinterpret_cast<int16_t*>(out);
    for (int c = 0; c < s.in_channels; ++c) {
      const int8_t* g = weight + (static_cast<size_t>(m) * s.in_channels + c) * 9;
      int32_t rows[3][6];
      for (int i = 0; i < 3; ++i) transform_weights({g[3 * i], g[3 * i + 1], g[3 * i + 2]}, rows[i]);
      int16_t* to = block + (c / 2 * kLanes + lane) * 2 + c % 2;
      for (int j = 0; j < 6; ++j) {
        int32_t column[6];
        transform_weights({rows[0][j], rows[1][j], rows[2][j]}, column);
        for (int i = 0; i < 6; ++i) to[(i * 6 + j) * point] = static_cast<int16_t>(column[i]);
      }
    }
  });
}

}  // namespace

ConvAlgorithm choose_conv8_algorithm(const ConvShape& shape) {
  for (ConvAlgorithm algorithm : {ConvAlgorithm::kDepthwise, ConvAlgorithm::kPlanar}) {
    if (conv_applies(shape, algorithm)) return algorithm;
  }
  return ConvAlgorithm::kDirect;
}

// Its weights take eight times the memory. Beside dot products of 8 bits it gains nothing once they come from memory, nor with few
// channels where tiles reach far beyond the map.
bool winograd8_suits(const ConvShape& s, Isa isa) {
  const bool dots = isa == Isa::kAvxVnni || isa == Isa::kAvx512Vnni;
  if (!dots && isa != Isa::kAvx2 && isa != Isa::kAvx512) return false;
  const int64_t most = dots ? 192 * 192 : 256 * 256;
  const auto covered = [](int64_t size) { return (size + 3) / 4 * 4; };
  const int64_t pixels = int64_t{s.out_height} * s.out_width, computed = covered(s.out_height) * covered(s.out_width);
  if (dots && s.in_channels < 64 && computed - pixels > pixels / 8) return false;
  return winograd_applies(s) && s.in_channels >= kLanes && s.out_channels >= kLanes &&
         int64_t{s.in_channels} * s.out_channels <= most && std::min(s.out_height, s.out_width) >= 8;
}

bool winograd8_is_exact(const ConvShape& s, const int8_t* weight) {
  constexpr int64_t kMost = (int64_t{1} << 25) / 255;
  const int n = s.in_channels * 9;
  if (int64_t{n} * 128 <= kMost) return true;
  for (int m = 0; m < s.out_channels; ++m, weight += n) {
    int64_t least = 0, most = 0;
    for (int i = 0; i < n; ++i) {
      least += std::min<int>(weight[i], 0);
      most += std::max<int>(weight[i], 0);
    }
    if (-least > kMost || most > kMost) return false;
  }
  return true;
}

Halo conv8_input_halo(const ConvShape& shape, ConvAlgorithm algorithm) {
  Halo halo = window_halo(shape);
  // The last group of four columns.
  if (algorithm == ConvAlgorithm::kPlanar) halo.right += kQuad - 1;
  if (algorithm == ConvAlgorithm::kWinograd4) {
    const WinogradConv8 plan(shape);  // whole tiles are read, also where the output ends inside one
    halo.bottom = std::max(halo.bottom, 4 * plan.tile_rows + 2 - shape.pad.top - shape.in_height);
    halo.right = std::max(halo.right, 4 * plan.tile_columns + 2 - shape.pad.left - shape.in_width);
  }
  if (algorithm == ConvAlgorithm::kDepthwise && depthwise_by_lines8(shape)) {
    // The last four pixels read one more group of four columns than they have strides.
    const int end = (shape.out_width - kQuad) * shape.stride_w - shape.pad.left + (shape.stride_w + 1) * kQuad;
    halo.right = std::max(halo.right, end - shape.in_width);
  }
  return halo;
}

WinogradConv8::WinogradConv8(const ConvShape& s) {
  constexpr int kBlocks = 2;  // of the output, whose products lie in memory together
  tile_rows = (s.out_height + 3) / 4;
  tile_columns = (s.out_width + 3) / 4;
  const ptrdiff_t channels = whole_blocks(s.in_channels), numbers = std::min(whole_blocks(s.out_channels), kBlocks * kLanes);
  chunk = padded(static_cast<int>(std::min<int64_t>(int64_t{tile_rows} * tile_columns, 16)));
  // An odd number of cache lines, so that points are spread over the sets of a cache.
  v_point = (chunk * channels / 32 | 1) * 32;
  product_point = (chunk * numbers / 16 | 1) * 16;
  transformed_bytes = static_cast<size_t>(kPoints * v_point) * sizeof(int16_t);
  scratch_bytes = transformed_bytes + static_cast<size_t>(kPoints * product_point) * sizeof(int32_t);
}

MatrixConv8::MatrixConv8(const PackedConv8& conv) {
  constexpr int kMaxSteps = 16, kTilePixels = 32;
  const ConvShape& s = conv.shape;
  const bool planar = conv.algorithm == ConvAlgorithm::kPlanar;
  // A second-level cache holds a band and the weights of some blocks; of windows, the first level holds a band.
  const ptrdiff_t band_bytes = (planar ? 24 : 384) << 10;
  const int groups = static_cast<int>(planar ? s.in_channels * s.kernel_h * quads(s.kernel_w) : quads(s.in_channels));
  products = (groups + kMaxSteps - 1) / kMaxSteps;
  ptrdiff_t more = 0;
  pitch = s.out_width;
  if (planar) {
    steps = kMaxSteps;
    pixel = static_cast<ptrdiff_t>(products) * kMaxSteps * kQuad;
  } else {
    taps = s.kernel_h * s.kernel_w;
    steps = (groups + products - 1) / products;
    tap_bytes = static_cast<ptrdiff_t>(groups * kFactorBytes);
    pixel = static_cast<ptrdiff_t>(products) * steps * kQuad;
    // Or pixels would share few of a cache's sets.
    if (pixel % 1024 == 0) pixel += 64;
    const int reach_h = (s.kernel_h - 1) * s.dilation_h, reach_w = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w;
    images_h = std::min(s.stride_h, reach_h + 1);
    images_w = std::min(s.stride_w, (s.kernel_w - 1) * s.dilation_w + 1);
    pitch = reach_w / s.stride_w + 1;
    more = reach_h / s.stride_h;
  }
  const ptrdiff_t row = static_cast<ptrdiff_t>(pitch) * images_h * images_w * pixel;
  band = static_cast<int>(std::clamp<ptrdiff_t>(band_bytes / row - more, 1, s.out_height));
  image = (band + more) * pitch;
  packed_bytes = static_cast<size_t>((image * images_h * images_w + kTilePixels) * pixel + 63) / 64 * 64;
  offsets = static_cast<size_t>(band) * pitch + kTilePixels;
  scratch_bytes = packed_bytes + (2 * offsets + static_cast<size_t>(taps)) * sizeof(ptrdiff_t);
}

bool matrices_suit(const PackedConv8& conv) {
  const ConvShape& s = conv.shape;
  if (conv.algorithm == ConvAlgorithm::kPlanar) return s.dilation_w == 1 && quads(s.kernel_w) == 2 && s.out_channels >= 2 * kLanes;
  const int64_t numbers = int64_t{s.in_channels} * s.kernel_h * s.kernel_w;
  return conv.algorithm == ConvAlgorithm::kDirect && s.groups == 1 && numbers >= 32 && numbers * s.out_channels >= 1024;
}

bool depthwise_by_lines8(const ConvShape& s) {
  const bool square = s.kernel_h == s.kernel_w && s.stride_h == s.stride_w && s.dilation_h == 1 && s.dilation_w == 1;
  return square && (s.kernel_w == 3 || s.kernel_w == 5) && s.stride_w <= 2 && s.out_width >= kQuad;
}

std::shared_ptr<const PackedConv8> pack_conv8(const ConvShape& shape, ConvAlgorithm algorithm, const int8_t* weight,
                                              const int32_t* bias, const float* scale, int scales, int input_zero,
                                              const int8_t* weight_zero, int weight_zeros) {
  auto packed = std::make_shared<PackedConv8>();
  packed->shape = shape;
  packed->algorithm = algorithm;
  packed->input_zero = input_zero;
  const auto zero_of = [=](int m) { return weight_zeros == 0 ? 0 : weight_zero[weight_zeros == 1 ? 0 : m]; };
  const size_t k = static_cast<size_t>(shape.in_channels / shape.groups) * shape.kernel_h * shape.kernel_w;
  const auto sum_of_weights = [&](int m) { return sum_of(weight + m * k, k, 1) - zero_of(m) * static_cast<int32_t>(k); };
  packed->bias = packed_bias8(shape.out_channels, bias, input_zero, sum_of_weights, [](int) { return 0; });
  packed->scale = packed_scale8(shape.out_channels, scale, scales);
  switch (algorithm) {
    case ConvAlgorithm::kDepthwise:
      pack_depthwise(weight, zero_of, *packed);
      break;
    case ConvAlgorithm::kPlanar:
      pack_planar(weight, *packed);
      break;
    case ConvAlgorithm::kWinograd4:
      pack_winograd(weight, *packed);
      break;
    default:
      pack_direct(weight, *packed);
  }
  return packed;
}

size_t conv8_scratch_bytes(const PackedConv8& conv, Isa isa) {
  if (conv.algorithm == ConvAlgorithm::kWinograd4) return WinogradConv8(conv.shape).scratch_bytes;
  return isa == Isa::kAmx && matrices_suit(conv) ? MatrixConv8(conv).scratch_bytes : 0;
}

std::shared_ptr<const PackedConv8> rebind_conv8(const PackedConv8& conv, const ConvShape& shape) {
  auto bound = std::make_shared<PackedConv8>(conv);
  bound->shape = shape;
  return bound;
}

}  // namespace rskip
