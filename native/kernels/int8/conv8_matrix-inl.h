// Convolution on 8-bit numbers where the processor multiplies matrices. The input is copied in bands of rows to where all
// channels of a pixel, or of planar input all numbers of a window, lie side by side (MatrixConv8), so that a product takes 64 of
// them of 16 neighbouring pixels.
#pragma once

#include "kernels/int8/conv8-inl.h"

namespace rskip::RSKIP_ISA {

// Sums of N blocks of output channels for some pixels that lie side by side, and where they go.
template <int N>
struct MatrixTile8 {
  Bits sums[kMatrixTileRows][N];
  TileTarget<uint8_t> out;
  const ptrdiff_t *y_offset = nullptr, *residual_offset = nullptr;  // of each pixel
  const float* scale = nullptr;
  int pixels = 0;
};
template <int N>
[[gnu::noinline]] void finish_matrix8(const MatrixTile8<N>& t, const Epilogue8& epilogue) {
  const bool added = t.out.residual != nullptr, residual_first = epilogue.addition.residual_first;
  const Rounder8 rounder = rounder_of(added ? epilogue.addition.rounding : epilogue.rounding);
  for (int p = 0; p < t.pixels; p += 4) {
    const int count = std::min(4, t.pixels - p);
    RSKIP_UNROLL(2) for (int n = 0; n < N; ++n) {
      const Vec factor = load(t.scale + n * kLanes);
      Bits value[4];
      if (added) {
        const uint8_t* residual = t.out.residual + n * t.out.residual_block;
        const ptrdiff_t* offset = t.residual_offset + p;
        residual_first ? add_residuals<true, N>(value, &t.sums[p][n], residual, offset, count, factor, epilogue, rounder)
                       : add_residuals<false, N>(value, &t.sums[p][n], residual, offset, count, factor, epilogue, rounder);
      } else {
        RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) value[i] = rounder.round(to_float(t.sums[p + i][n]) * factor);
      }
      store_four(rounder, value, t.out.y + n * t.out.y_block, t.y_offset, p, count);
    }
  }
}

// A band of rows of the output, and where the input of its pixels lies.
class MatrixBand8 {
 public:
  MatrixBand8(const ConvArgs8& args, const MatrixConv8& plan) : args_(args), plan_(plan) {
    uint8_t* at = static_cast<uint8_t*>(args.scratch);
    packed_ = at;
    at += plan.packed_bytes;
    y_offset_ = reinterpret_cast<ptrdiff_t*>(at);
    residual_offset_ = y_offset_ + plan.offsets;
    taps_ = residual_offset_ + plan.offsets;
    const ConvShape& s = args.conv->shape;
    planar_ = args.conv->algorithm == ConvAlgorithm::kPlanar;
    if (planar_) {
      // What a window lacks stays zero.
      std::memset(packed_, 0, plan.packed_bytes);
      taps_[0] = 0;
      return;
    }
    for (int kh = 0; kh < s.kernel_h; ++kh) {
      for (int kw = 0; kw < s.kernel_w; ++kw) {
        const int row = kh * s.dilation_h, column = kw * s.dilation_w;
        const ptrdiff_t image = row % s.stride_h * plan.images_w + column % s.stride_w;
        taps_[kh * s.kernel_w + kw] =
            (image * plan.image + ptrdiff_t{row / s.stride_h} * plan.pitch + column / s.stride_w) * plan.pixel;
      }
    }
  }

  // Output rows [first, end), at most plan.band of them.
  void read(int first, int end) {
    const ConvShape& s = args_.conv->shape;
    pixels_ = (end - first - 1) * plan_.pitch + s.out_width;
    write_offsets(args_.y, first, end, y_offset_);
    if (args_.residual != nullptr) write_offsets(*args_.residual, first, end, residual_offset_);
    if (planar_) return read_windows(first, end);
    const int reach_h = (end - first - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h;
    const int reach_w = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w;
    for (int i = 0; i < plan_.images_h; ++i) {
      for (int j = 0; j < plan_.images_w; ++j) {
        uint8_t* to = packed_ + (ptrdiff_t{i} * plan_.images_w + j) * plan_.image * plan_.pixel;
        for (int row = i; row <= reach_h; row += s.stride_h, to += plan_.pitch * plan_.pixel) {
          read_row(first * s.stride_h - s.pad.top + row, j - s.pad.left, (reach_w - j) / s.stride_w + 1, to);
        }
      }
    }
  }

  // Blocks of output channels b to b + N.
  template <int N>
  void multiply(int b, const Epilogue8& epilogue) {
    const PackedConv8& conv = *args_.conv;
    MatrixTile8<N> t;
    t.out.y = args_.y.data + b * args_.y.block_stride;
    t.out.y_block = args_.y.block_stride;
    if (args_.residual != nullptr) {
      t.out.residual = args_.residual->data + b * args_.residual->block_stride;
      t.out.residual_block = args_.residual->block_stride;
    }
    t.scale = conv.scale.data() + b * kLanes;
    const int32_t* bias = bias_of(conv.bias) + b * kLanes;
    const int8_t* w = conv.weights.data() + conv.blocks[b].offset;
    const ptrdiff_t w_block = N == 1 ? 0 : static_cast<ptrdiff_t>(conv.blocks[b + 1].offset - conv.blocks[b].offset);
    for (int first = 0; first < pixels_; first += kMatrixTileRows) {
      const int pixels = std::min(kMatrixTileRows, pixels_ - first);
      const bool two = pixels > kMatrixRows;
      two ? add_products<2, N>(first, w, w_block, bias) : add_products<1, N>(first, w, w_block, bias);
      // The tile before is finished while these products are under way.
      if (first > 0) finish_matrix8(t, epilogue);
      t.pixels = pixels;
      t.y_offset = y_offset_ + first;
      t.residual_offset = residual_offset_ + first;
      two ? store_sums<2, N>(&t.sums[0][0]) : store_sums<1, N>(&t.sums[0][0]);
    }
    finish_matrix8(t, epilogue);
  }

 private:
  // Rows of windows, as pack_conv8() has their weights: two groups of four columns each. Up to four rows of a window at a time, which go to
  // one line of the cache. What the loops read is copied, or the compiler would read it again after every store.
  void read_windows(int first, int end) {
    constexpr int kRow = 2 * kQuad;
    const ConvShape& s = args_.conv->shape;
    const PlanarView8& x = args_.x_planar;
    const ptrdiff_t step = s.stride_w, pixel = plan_.pixel, down = s.dilation_h * x.row_stride;
    uint8_t* to = packed_;
    for (int row = first; row < end; ++row, to += plan_.pitch * pixel) {
      const uint8_t* top = x.data + (row * s.stride_h - s.pad.top) * x.row_stride - s.pad.left;
      uint8_t* numbers = to;
      for (int c = 0; c < s.in_channels; ++c, top += x.plane_stride) {
        const uint8_t* from = top;
        for (int kh = 0, count; kh < s.kernel_h; kh += count, from += count * down, numbers += count * kRow) {
          count = std::min(4, s.kernel_h - kh);
          const uint8_t* window = from;
          uint8_t* out = numbers;
          for (int w = s.out_width; w > 0; --w, window += step, out += pixel) {
            std::memcpy(out, window, kRow);
            if (count == 1) continue;
            std::memcpy(out + kRow, window + down, kRow);
            if (count == 2) continue;
            std::memcpy(out + 2 * kRow, window + 2 * down, kRow);
            if (count == 3) continue;
            std::memcpy(out + 3 * kRow, window + 3 * down, kRow);
          }
        }
      }
    }
  }

  // One row of an image.
  void read_row(int row, int column, int pixels, uint8_t* to) const {
    const BlockedView8& x = args_.x;
    const uint8_t* from = x.data + row * x.row_stride + ptrdiff_t{column} * kLanes;
    const ptrdiff_t step = ptrdiff_t{args_.conv->shape.stride_w} * kLanes, b = x.block_stride, pixel = plan_.pixel;
    const int bytes = plan_.products * plan_.steps * kQuad;
    for (int done = 0, blocks = x.blocks(); done < bytes; done += 64, blocks -= 4, from += 4 * b, to += 64) {
      const int real = x.channels - done, stored = bytes - done;
      if (blocks <= 0) {
        gather_channels<1>(x.data, 0, 0, to, pixel, pixels, 0, stored);
      } else if (blocks == 1) {
        gather_channels<1>(from, step, b, to, pixel, pixels, real, stored);
      } else if (blocks == 2) {
        gather_channels<2>(from, step, b, to, pixel, pixels, real, stored);
      } else if (blocks == 3) {
        gather_channels<3>(from, step, b, to, pixel, pixels, real, stored);
      } else {
        gather_channels<4>(from, step, b, to, pixel, pixels, real, stored);
      }
    }
  }

  // Of the band's pixels and, as negative ones, of what lies between its rows.
  void write_offsets(const BlockedView8& v, int first, int end, ptrdiff_t* offset) const {
    for (int row = first; row < end; ++row) {
      for (int w = 0; w < plan_.pitch; ++w) *offset++ = w < v.width ? row * v.row_stride + ptrdiff_t{w} * kLanes : -1;
    }
  }

  template <int kHalves, int N>
  void add_products(int first, const int8_t* w, ptrdiff_t w_block, const int32_t* bias) const {
    load_sums<kHalves, N>(bias, 0);
    const uint8_t* x = packed_ + first * plan_.pixel;
    const ptrdiff_t half = kMatrixRows * plan_.pixel, step = ptrdiff_t{plan_.steps} * kQuad;
    for (int tap = 0; tap < plan_.taps; ++tap, w += plan_.tap_bytes) {
      const uint8_t* from = x + taps_[tap];
      const int8_t* factors = w;
      for (int i = plan_.products; i > 0; --i, from += step, factors += step * kLanes) {
        add_matrix_products<false, kHalves, N>(from, half, plan_.pixel, factors, w_block);
      }
    }
  }

  const ConvArgs8& args_;
  const MatrixConv8& plan_;
  uint8_t* packed_;
  ptrdiff_t *y_offset_, *residual_offset_, *taps_;
  int pixels_ = 0;
  bool planar_ = false;
};

// Workers share rows where the weights, which each of them then reads, are no more than input and output; otherwise blocks.
inline void conv8_matrix(const ConvArgs8& args, int part, int parts) {
  const PackedConv8& conv = *args.conv;
  const MatrixConv8 plan(conv);
  const Epilogue8 epilogue{args.rounding, args.addition};
  const int rows = rows_of(args), pairs = (channel_blocks(conv.shape.out_channels) + 1) / 2;
  const int64_t input = conv.algorithm == ConvAlgorithm::kPlanar ? args.x_planar.plane_stride * conv.shape.in_channels
                                                                 : args.x.block_stride * args.x.blocks();
  const int64_t maps = input + args.y.block_stride * args.y.blocks();
  const bool by_rows = static_cast<int64_t>(conv.weights.size()) <= maps && shares_evenly(rows, parts);
  const Share<int> band_rows = by_rows ? share_of(rows, part, parts) : Share<int>{0, rows};
  const Share<int> blocks = by_rows ? Share<int>{0, pairs} : share_of(pairs, part, parts);
  if (band_rows.begin == band_rows.end || blocks.begin == blocks.end) return;
  int configured = 0;
  configure_matrices(kMatrixRows, kMatrixRows, plan.steps, configured);
  MatrixBand8 band(args, plan);
  const Split bands(band_rows.end - band_rows.begin, plan.band);
  for (int i = 0; i < bands.chunks; ++i) {
    const int first = band_rows.begin + bands.begin(i);
    band.read(first, first + bands.size(i));
    for (int pair = blocks.begin; pair < blocks.end; ++pair) {
      const bool both = 2 * pair + 1 < static_cast<int>(conv.blocks.size());
      both ? band.multiply<2>(2 * pair, epilogue) : band.multiply<1>(2 * pair, epilogue);
    }
  }
  release_matrices();
}

}  // namespace rskip::RSKIP_ISA
