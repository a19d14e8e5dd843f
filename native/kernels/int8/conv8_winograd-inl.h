// Winograd convolution F(4x4, 3x3) on 8-bit numbers (Lavin and Gray, 2016). Transformed inputs and weights are 16-bit integers,
// products are summed modulo 2^32, and so is all that follows: the sums are those of direct convolution (WinogradConv8).
#pragma once

#include "kernels/int8/tile8-inl.h"

// Only products differ where an instruction set extends another.
namespace rskip::RSKIP_BASE {
void conv8_winograd(const ConvArgs8& args, int part, int parts, WinogradProductsFn8 products);
}

namespace rskip::RSKIP_ISA {

// Runs of P tiles from `first` on. Returns the tile that follows.
template <int P, int N>
[[gnu::noinline]] int winograd_multiply8(const WinogradProducts8& t, int first) {
  const int end = first + (t.tiles - first) / P * P;
  const int16_t* w = t.weights;
  for (int point = 0; point < WinogradConv8::kPoints; ++point, w += t.weight_point) {
    for (int tile = first; tile < end; tile += P) {
      const int16_t* v = t.v + point * t.v_point + tile * kLanes;
      const int16_t* factors = w;
      Bits acc[P][N];
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
        RSKIP_UNROLL(2) for (int n = 0; n < N; ++n) acc[p][n] = bits(splat(0.0f));
      }
      for (int in = t.in_blocks; in > 0; --in, v += t.v_block, factors += kLanes * kLanes) {
        RSKIP_UNROLL(8) for (int i = 0; i < kLanes; i += 2) {
          PairFactors factor[N];
          RSKIP_UNROLL(2) for (int n = 0; n < N; ++n) factor[n] = load_pair_factors(factors + n * t.weight_block + i * kLanes);
          RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) add_pair_dots(acc[p], v + p * kLanes + i, factor);
        }
      }
      int32_t* to = t.product + point * t.product_point + tile * kLanes;
      RSKIP_UNROLL(16) for (int p = 0; p < P; ++p) {
        RSKIP_UNROLL(2) for (int n = 0; n < N; ++n) store_bits(to + n * t.product_block + p * kLanes, acc[p][n]);
      }
    }
  }
  return end;
}
inline void winograd_products8(const WinogradProducts8& t) {
#if RSKIP_TILE_BLOCKS >= 2
  if (t.blocks == 2) winograd_multiply8<4, 2>(t, 0);
  else winograd_multiply8<4, 1>(t, winograd_multiply8<8, 1>(t, 0));
#else
  winograd_multiply8<4, 1>(t, 0);
#endif
}

#if !RSKIP_EXTENDS
// B^T for the points 0, 1, -1, 2, -2 and infinity.
RSKIP_INLINE void winograd_input8(const Shorts (&d)[6], Shorts (&v)[6]) {
  const Shorts even = d[4] - d[2], odd = d[3] - d[1], twice = odd + odd;
  const Shorts even_far = d[4] - (d[2] << 2), odd_far = d[3] - (d[1] << 2);
  v[0] = ((d[0] - d[2]) << 2) + even;
  v[1] = even_far + odd_far;
  v[2] = even_far - odd_far;
  v[3] = even + twice;
  v[4] = even - twice;
  v[5] = (d[5] - d[3]) - (twice + twice);
}

// A^T, times 24, of products with weights as pack_winograd() scales them.
RSKIP_INLINE void winograd_output8(const Bits (&p)[6], Bits (&y)[4]) {
  const auto twice = [](Bits a) { return add_bits(a, a); };
  const Bits sum_a = add_bits(p[1], p[2]), difference_a = sub_bits(p[1], p[2]);
  const Bits sum_b = add_bits(p[3], p[4]), difference_b = twice(sub_bits(p[3], p[4]));
  y[0] = add_bits(add_bits(p[0], sum_a), sum_b);
  y[1] = add_bits(difference_a, difference_b);
  y[2] = add_bits(sum_a, shift_left<2>(sum_b));
  y[3] = add_bits(difference_a, twice(add_bits(twice(difference_b), p[5])));
}

// Where the outputs of a tile go: `rows` x `columns`, of 16 channels.
struct WinogradTarget8 {
  const int32_t* bias;
  const float* scale;
  uint8_t* y;
  ptrdiff_t y_row;
  const uint8_t* residual;
  ptrdiff_t residual_row;
  int rows, columns;
};
enum class Added8 { kNothing, kFirst, kSecond };  // which operand the residual is

template <Added8 kAdded>
[[gnu::noinline]] void winograd_output8(const int32_t* product, ptrdiff_t point, const WinogradTarget8& t, const Epilogue8& epilogue) {
  const Rounder8 rounder = rounder_of(kAdded == Added8::kNothing ? epilogue.rounding : epilogue.addition.rounding);
  Bits half[4][6];
  RSKIP_UNROLL(6) for (int j = 0; j < 6; ++j) {
    Bits p[6], y[4];
    RSKIP_UNROLL(6) for (int i = 0; i < 6; ++i) p[i] = load_bits(product + (i * 6 + j) * point);
    winograd_output8(p, y);
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) half[i][j] = y[i];
  }
  const Bits bias = load_bits(t.bias);
  const Vec factor = load(t.scale);
  const int rows = t.rows, columns = t.columns;
  uint8_t* y = t.y;
  const uint8_t* residual = t.residual;
  RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
    if (i == rows) break;
    Bits sum[4], value[4];
    winograd_output8(half[i], sum);
    RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) sum[j] = add_bits(shift_right<6>(mul_bits(sum[j], WinogradConv8::kInverse)), bias);
    if constexpr (kAdded == Added8::kNothing) {
      RSKIP_UNROLL(4) for (int j = 0; j < 4; ++j) value[j] = rounder.round(to_float(sum[j]) * factor);
    } else {
      add_residuals<kAdded == Added8::kFirst, 1>(value, sum, residual, nullptr, columns, factor, epilogue, rounder);
      residual += t.residual_row;
    }
    store_four(rounder, value, y, nullptr, 0, columns);
    y += t.y_row;
  }
}

// One worker's share of a convolution: runs of tiles, for which inputs are transformed, multiplied with one or two blocks of
// weights at a time, and transformed back.
class WinogradRun8 {
 public:
  WinogradRun8(const ConvArgs8& args, const WinogradConv8& plan, WinogradProductsFn8 products)
      : args_(args),
        plan_(plan),
        products_(products),
        in_blocks_(channel_blocks(args.conv->shape.in_channels)),
        v_(static_cast<int16_t*>(args.scratch)),
        product_(reinterpret_cast<int32_t*>(static_cast<uint8_t*>(args.scratch) + plan.transformed_bytes)) {}

  // Output blocks [first_block, end_block) of `count` tiles from `tile` on.
  void run(int tile, int count, int first_block, int end_block) {
    tile_ = tile;
    count_ = count;
    transform_inputs();
    for (int block = first_block; block < end_block; block += kTileBlocks) {
      const int n = std::min(kTileBlocks, end_block - block);
      multiply(block, n);
      for (int i = 0; i < n; ++i) transform_outputs(block + i, product_ + i * plan_.chunk * kLanes);
    }
  }

 private:
  void transform_inputs() const {
    const ConvShape& s = args_.conv->shape;
    const BlockedView8& x = args_.x;
    for (int block = 0; block < x.blocks(); ++block) {
      const uint8_t* base = x.data + block * x.block_stride - s.pad.top * x.row_stride - ptrdiff_t{s.pad.left} * kLanes;
      for (int t = 0; t < count_; ++t) {
        const int row = (tile_ + t) / plan_.tile_columns * 4, column = (tile_ + t) % plan_.tile_columns * 4;
        transform_input(base + row * x.row_stride + column * kLanes, x.row_stride, v_ + (block * plan_.chunk + t) * kLanes, plan_.v_point);
      }
    }
  }

  [[gnu::noinline]] static void transform_input(const uint8_t* x, ptrdiff_t x_row, int16_t* v, ptrdiff_t point) {
    Shorts columns[6][6];
    RSKIP_UNROLL(6) for (int j = 0; j < 6; ++j) {
      Shorts d[6], t[6];
      RSKIP_UNROLL(6) for (int i = 0; i < 6; ++i) d[i] = load_shorts(x + i * x_row + j * kLanes);
      winograd_input8(d, t);
      RSKIP_UNROLL(6) for (int i = 0; i < 6; ++i) columns[i][j] = t[i];
    }
    RSKIP_UNROLL(6) for (int i = 0; i < 6; ++i) {
      Shorts t[6];
      winograd_input8(columns[i], t);
      RSKIP_UNROLL(6) for (int j = 0; j < 6; ++j) store_shorts(opaque(v) + j * point, t[j]);
      v += 6 * point;
    }
  }

  // Tiles behind the last are computed in vain.
  void multiply(int block, int blocks) const {
    const PackedConv8& conv = *args_.conv;
    WinogradProducts8 t;
    t.v = v_;
    t.weights = reinterpret_cast<const int16_t*>(conv.weights.data() + conv.blocks[static_cast<size_t>(block)].offset);
    t.product = product_;
    t.tiles = WinogradConv8::padded(count_);
    t.in_blocks = in_blocks_;
    t.blocks = blocks;
    t.v_point = plan_.v_point;
    t.v_block = ptrdiff_t{plan_.chunk} * kLanes;
    t.weight_point = ptrdiff_t{in_blocks_} * kLanes * kLanes;
    t.weight_block = WinogradConv8::kPoints * t.weight_point;
    t.product_point = plan_.product_point;
    t.product_block = t.v_block;
    products_(t);
  }

  void transform_outputs(int block, const int32_t* from) const {
    const PackedConv8& conv = *args_.conv;
    const BlockedView8& y = args_.y;
    const Epilogue8 epilogue{args_.rounding, args_.addition};
    const bool added = args_.residual != nullptr;
    const auto output = !added ? winograd_output8<Added8::kNothing>
                        : args_.addition.residual_first ? winograd_output8<Added8::kFirst>
                                                        : winograd_output8<Added8::kSecond>;
    WinogradTarget8 target{};
    target.bias = bias_of(conv.bias) + block * kLanes;
    target.scale = conv.scale.data() + block * kLanes;
    target.y_row = y.row_stride;
    if (added) target.residual_row = args_.residual->row_stride;
    for (int t = 0; t < count_; ++t, from += kLanes) {
      const int row = (tile_ + t) / plan_.tile_columns * 4, column = (tile_ + t) % plan_.tile_columns * 4;
      target.y = y.data + block * y.block_stride + row * y.row_stride + column * kLanes;
      if (added) {
        const BlockedView8& r = *args_.residual;
        target.residual = r.data + block * r.block_stride + row * r.row_stride + column * kLanes;
      }
      target.rows = std::min(4, y.height - row);
      target.columns = std::min(4, y.width - column);
      output(from, plan_.product_point, target, epilogue);
    }
  }

  const ConvArgs8& args_;
  const WinogradConv8& plan_;
  const WinogradProductsFn8 products_;
  const int in_blocks_;
  int16_t* const v_;
  int32_t* const product_;
  int tile_ = 0, count_ = 0;
};

// Workers share tiles, or, where those are few, output blocks, for which each of them transforms all inputs.
void conv8_winograd(const ConvArgs8& args, int part, int parts, WinogradProductsFn8 products) {
  const WinogradConv8 plan(args.conv->shape);
  const int blocks = args.y.blocks(), pairs = (blocks + kTileBlocks - 1) / kTileBlocks;
  const bool by_tiles = plan.tiles() >= 8 * parts;
  const Share<int> tiles = by_tiles ? share_of(plan.tiles(), part, parts) : Share<int>{0, plan.tiles()};
  const Share<int> share = by_tiles ? Share<int>{0, pairs} : share_of(pairs, part, parts);
  if (share.begin == share.end) return;
  WinogradRun8 run(args, plan, products);
  for (int tile = tiles.begin; tile < tiles.end; tile += plan.chunk) {
    run.run(tile, std::min(plan.chunk, tiles.end - tile), share.begin * kTileBlocks, std::min(blocks, share.end * kTileBlocks));
  }
}
#endif

}  // namespace rskip::RSKIP_ISA
