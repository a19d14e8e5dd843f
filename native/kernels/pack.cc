#include "kernels/pack.h"

#include <algorithm>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rskip {

AlignedFloats::AlignedFloats(size_t size) : size_(size) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t bytes = size * sizeof(float);
  const bool huge = bytes >= 2 * kHugePage;
  const std::align_val_t alignment{huge ? kHugePage : 64};
  data_.reset(static_cast<float*>(::operator new(bytes, alignment)), Delete{alignment});
#if defined(__linux__)
  // A hint: fewer page faults while packing, fewer TLB misses later. Refusal changes nothing.
  if (huge) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
}

namespace {

int blocks_of(int channels) { return (channels + kLanes - 1) / kLanes; }

// Calls fn(output channel, lane) for the real channels of output block b.
template <class F>
void each_lane(int block, int channels, F fn) {
  const int end = std::min(channels, (block + 1) * kLanes);
  for (int m = block * kLanes; m < end; ++m) fn(m, m - block * kLanes);
}

void pack_direct(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const int group_in = s.in_channels / s.groups;
  const int group_out = s.out_channels / s.groups;
  const size_t taps = static_cast<size_t>(s.kernel_h) * s.kernel_w;
  size_t size = 0;
  for (int b = 0; b < blocks_of(s.out_channels); ++b) {
    const int last = std::min(s.out_channels, (b + 1) * kLanes) - 1;
    const int begin = b * kLanes / group_out * group_in;
    const int end = (last / group_out + 1) * group_in;
    ConvBlock block;
    block.first_block = begin / kLanes;
    block.blocks = blocks_of(end) - block.first_block;
    block.last_channels = end - (blocks_of(end) - 1) * kLanes;
    block.offset = size;
    packed.blocks.push_back(block);
    size += taps * kLanes * (static_cast<size_t>(block.blocks - 1) * kLanes + block.last_channels);
  }
  packed.weights = AlignedFloats(size);
  packed.weights.zero_from(s.groups > 1 ? 0 : packed.blocks.back().offset);
  for (size_t b = 0; b < packed.blocks.size(); ++b) {
    const ConvBlock& block = packed.blocks[b];
    float* out = packed.weights.data() + block.offset;
    for (int i = 0; i < block.blocks; ++i) {
      const int lanes = i + 1 == block.blocks ? block.last_channels : kLanes;
      for (size_t tap = 0; tap < taps; ++tap) {
        for (int lane = 0; lane < lanes; ++lane, out += kLanes) {
          const int c = (block.first_block + i) * kLanes + lane;
          each_lane(static_cast<int>(b), s.out_channels, [&](int m, int out_lane) {
            const int in_group = c - m / group_out * group_in;
            if (in_group < 0 || in_group >= group_in) return;
            out[out_lane] = weight[(static_cast<size_t>(m) * group_in + in_group) * taps + tap];
          });
        }
      }
    }
  }
}

// Serves kDepthwise too: there the kernel has one input channel.
void pack_planar(const float* weight, PackedConv& packed) {
  const ConvShape& s = packed.shape;
  const size_t k = static_cast<size_t>(s.in_channels / s.groups) * s.kernel_h * s.kernel_w;
  packed.weights = AlignedFloats(k * kLanes * blocks_of(s.out_channels));
  packed.weights.zero();
  for (int b = 0; b < blocks_of(s.out_channels); ++b) {
    ConvBlock block;
    block.offset = b * k * kLanes;
    packed.blocks.push_back(block);
    float* out = packed.weights.data() + block.offset;
    each_lane(b, s.out_channels, [&](int m, int lane) {
      for (size_t i = 0; i < k; ++i) out[i * kLanes + lane] = weight[m * k + i];
    });
  }
}

}  // namespace

bool winograd_applies(const ConvShape& s) {
  return s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 &&
         s.dilation_w == 1 && s.groups == 1;
}

// F(4x4) does the least work, but on small maps few tiles share its weights, which are four times those of
// direct convolution.
ConvAlgorithm choose_conv_algorithm(const ConvShape& s) {
  if (s.groups > 1 && s.groups == s.in_channels && s.groups == s.out_channels) return ConvAlgorithm::kDepthwise;
  if (s.groups == 1 && s.in_channels <= 4) return ConvAlgorithm::kPlanar;
  if (winograd_applies(s) && s.in_channels >= kLanes && s.out_channels >= kLanes) {
    const int smaller = std::min(s.out_height, s.out_width);
    if (smaller >= 8) return ConvAlgorithm::kWinograd4;
    if (smaller >= 4) return ConvAlgorithm::kWinograd2;
  }
  return ConvAlgorithm::kDirect;
}

std::shared_ptr<const PackedConv> pack_conv(const ConvShape& shape, ConvAlgorithm algorithm, const float* weight,
                                            const float* bias) {
  auto packed = std::make_shared<PackedConv>();
  packed->shape = shape;
  packed->algorithm = algorithm;
  packed->bias = AlignedFloats(static_cast<size_t>(blocks_of(shape.out_channels)) * kLanes);
  packed->bias.zero();
  if (bias != nullptr) std::copy_n(bias, shape.out_channels, packed->bias.data());
  if (is_winograd(algorithm)) {
    pack_winograd(weight, *packed);
  } else if (algorithm == ConvAlgorithm::kDirect) {
    pack_direct(weight, *packed);
  } else {
    pack_planar(weight, *packed);
  }
  return packed;
}

std::shared_ptr<const PackedConv> rebind_conv(const PackedConv& conv, const ConvShape& shape) {
  auto bound = std::make_shared<PackedConv>(conv);
  bound->shape = shape;
  return bound;
}

Halo conv_input_halo(const ConvShape& s, ConvAlgorithm algorithm) {
  Halo halo;
  halo.top = s.pad.top;
  halo.left = s.pad.left;
  if (is_winograd(algorithm)) {
    // Whole tiles are read, also where the output ends inside one.
    const WinogradPlan plan(s, algorithm);
    halo.bottom = std::max(0, plan.tile_rows * plan.m + 2 - s.pad.top - s.in_height);
    halo.right = std::max(0, plan.tile_columns * plan.m + 2 - s.pad.left - s.in_width);
    return halo;
  }
  const int last_row = (s.out_height - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h - s.pad.top;
  const int last_column = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w - s.pad.left;
  halo.bottom = std::max(0, last_row + 1 - s.in_height);
  halo.right = std::max(0, last_column + 1 - s.in_width);
  return halo;
}

size_t conv_packed_bytes(const PackedConv& conv) {
  return (conv.weights.size() + conv.bias.size()) * sizeof(float);
}

std::shared_ptr<const PackedGemm> pack_gemm(int k, int n, const float* b, bool trans_b, const float* c) {
  auto packed = std::make_shared<PackedGemm>();
  packed->k = k;
  packed->n = n;
  packed->weights = AlignedFloats(static_cast<size_t>(packed->blocks()) * k * kLanes);
  packed->weights.zero_from(static_cast<size_t>(packed->blocks() - 1) * k * kLanes);
  packed->bias = AlignedFloats(static_cast<size_t>(packed->blocks()) * kLanes);
  packed->bias.zero();
  if (c != nullptr) std::copy_n(c, n, packed->bias.data());
  const size_t row = trans_b ? 1 : n;
  const size_t column = trans_b ? k : 1;
  for (int block = 0; block < packed->blocks(); ++block) {
    float* out = packed->weights.data() + static_cast<size_t>(block) * k * kLanes;
    for (int i = 0; i < k; ++i, out += kLanes) {
      each_lane(block, n, [&](int j, int lane) { out[lane] = b[i * row + j * column]; });
    }
  }
  return packed;
}

size_t gemm_packed_bytes(const PackedGemm& gemm) {
  return (gemm.weights.size() + gemm.bias.size()) * sizeof(float);
}

}  // namespace rskip
