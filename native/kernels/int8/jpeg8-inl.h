// The arithmetic of JPEG files: inverse cosine transforms, upsampled colours, and RGB. Integers alone, so every instruction set has the same.
#pragma once

#include "kernels/int8/draw8-inl.h"

namespace rskip::RSKIP_ISA {

inline constexpr int kInverseBits = 13;     // of factors
inline constexpr int kInverseFraction = 2;  // of numbers between the columns and the rows
inline constexpr int kInverseColumns = kInverseBits - kInverseFraction;
inline constexpr int kInverseRows = kInverseBits + kInverseFraction;
// Of eight numbers, whose transform multiplies by 8, too.
inline constexpr int kInverseEight = kInverseRows + 3;

template <int K>
RSKIP_INLINE Bits rounded(Bits a) {
  return shift_right<K>(add_bits(a, 1 << (K - 1)));
}

// Eight numbers from eight coefficients, eight times, by the factorisation of Loeffler, Ligtenberg and Moschytz (1989): 12
// multiplications. Coefficients, and what comes of them, lie `step` vectors apart, the next eight `next`. Results are shifted as in
// `rounded<kInverseColumns>`, with `half` added before.
[[gnu::noinline]] inline void inverse_eights(const int32_t* x, int32_t* y, int step, int next, int32_t half) {
  const auto plus = [](Bits a, Bits b) { return add_bits(a, b); };
  const auto minus = [](Bits a, Bits b) { return sub_bits(a, b); };
  for (int times = 0; times < 8; ++times, x += next * kLanes, y += next * kLanes) {
    Bits a[8];
    RSKIP_UNROLL(8) for (int i = 0; i < 8; ++i) a[i] = load_bits(x + i * step * kLanes);
    const Bits even = mul_bits(plus(a[2], a[6]), 4433);
    const Bits even2 = plus(even, mul_bits(a[6], -15137)), even3 = plus(even, mul_bits(a[2], 6270));
    const Bits sum = add_bits(shift_left<kInverseBits>(plus(a[0], a[4])), half);
    const Bits difference = add_bits(shift_left<kInverseBits>(minus(a[0], a[4])), half);
    const Bits inner[4] = {plus(sum, even3), plus(difference, even2), minus(difference, even2), minus(sum, even3)};

    const Bits both = mul_bits(plus(plus(a[7], a[3]), plus(a[5], a[1])), 9633);
    const Bits z1 = mul_bits(plus(a[7], a[1]), -7373), z2 = mul_bits(plus(a[5], a[3]), -20995);
    const Bits z3 = plus(mul_bits(plus(a[7], a[3]), -16069), both), z4 = plus(mul_bits(plus(a[5], a[1]), -3196), both);
    const Bits outer[4] = {plus(mul_bits(a[1], 12299), plus(z1, z4)), plus(mul_bits(a[3], 25172), plus(z2, z3)),
                           plus(mul_bits(a[5], 16819), plus(z2, z4)), plus(mul_bits(a[7], 2446), plus(z1, z3))};
    RSKIP_UNROLL(4) for (int i = 0; i < 4; ++i) {
      store_bits(y + i * step * kLanes, shift_right<kInverseColumns>(plus(inner[i], outer[i])));
      store_bits(y + (7 - i) * step * kLanes, shift_right<kInverseColumns>(minus(inner[i], outer[i])));
    }
  }
}

// A pixel's 16 values as bytes.
RSKIP_INLINE void store_pixels(uint8_t* y, Bits value) {
  const Vec centred = to_float(add_bits(value, 128));
  store_bytes(y, round_to_bits(min(splat(255.0f), max(splat(0.0f), centred))));
}

// The pixels of 16 blocks, [row][column][block].
inline void inverse_whole(const int32_t* x, uint8_t* y) {
  int32_t between[64 * kLanes];
  inverse_eights(x, between, 8, 1, 1 << (kInverseColumns - 1));
  inverse_eights(between, between, 1, 8, 1 << (kInverseEight - 1));
  for (int i = 0; i < 64; ++i) {
    store_pixels(y + i * kLanes, shift_right<kInverseEight - kInverseColumns>(load_bits(between + i * kLanes)));
  }
}
inline void inverse_means(const InverseArgs8& args, uint8_t* y) {
  const int32_t* const down = inverse_factors(args.rows);
  const int32_t* const along = inverse_factors(args.columns);
  int32_t between[64 * kLanes];
  for (int u = 0; u < args.columns; ++u) {
    for (int row = 0; row < args.rows; ++row) {
      Bits sum = mul_bits(load_bits(args.coefficients + u * kLanes), down[row]);
      for (int v = 1; v < args.rows; ++v) {
        sum = add_bits(sum, mul_bits(load_bits(args.coefficients + (8 * v + u) * kLanes), down[v * args.rows + row]));
      }
      store_bits(between + (row * args.columns + u) * kLanes, rounded<kInverseColumns>(sum));
    }
  }
  for (int row = 0; row < args.rows; ++row) {
    const int32_t* const numbers = between + row * args.columns * kLanes;
    for (int column = 0; column < args.columns; ++column) {
      Bits sum = mul_bits(load_bits(numbers), along[column]);
      for (int u = 1; u < args.columns; ++u) {
        sum = add_bits(sum, mul_bits(load_bits(numbers + u * kLanes), along[u * args.columns + column]));
      }
      store_pixels(y + (row * args.columns + column) * kLanes, rounded<kInverseRows>(sum));
    }
  }
}

inline void inverse8(const InverseArgs8& args) {
  uint8_t pixels[64 * kLanes];
  const bool is_whole = args.columns == 8 && args.rows == 8;
  if (is_whole) inverse_whole(args.coefficients, pixels);
  else inverse_means(args, pixels);
  if (is_whole) {
    // Two rows of all blocks at a time.
    for (int row = 0; row < 8; row += 2) {
      const uint8_t* part[kLanes];
      for (int i = 0; i < kLanes; ++i) part[i] = pixels + (8 * row + i) * kLanes;
      alignas(16) uint8_t blocks[kLanes][kLanes];
      transpose_bytes(part, blocks[0], kLanes, kLanes);
      uint8_t* const to = args.y + row * args.stride;
      for (int block = 0; block < kLanes; ++block) {
        std::memcpy(to + 8 * block, blocks[block], 8);
        std::memcpy(to + args.stride + 8 * block, blocks[block] + 8, 8);
      }
    }
    return;
  }
  for (int row = 0; row < args.rows; ++row) {
    const uint8_t* const from = pixels + row * args.columns * kLanes;
    uint8_t* const to = args.y + row * args.stride;
    if (args.columns == 1) {
      std::memcpy(to, from, kLanes);
      continue;
    }
    for (int column = 0; column < args.columns; ++column) {
      for (int block = 0; block < kLanes; ++block) to[block * args.columns + column] = from[column * kLanes + block];
    }
  }
}

// 32 colours of a row, of which one or two rows of the file's make one.
RSKIP_INLINE void double_colours(const uint8_t* near, const uint8_t* far, uint8_t* y) {
  const auto sum = [&](int at) {
    const Bits bytes = load_bytes(near + at);
    return far ? add_bits(mul_bits(bytes, 3), load_bytes(far + at)) : bytes;
  };
  const Bits middle = mul_bits(sum(0), 3);
  const Bits even = add_bits(middle, sum(-1)), odd = add_bits(middle, sum(1));
  const Bits pair[2] = {far ? shift_right<4>(add_bits(even, 8)) : shift_right<2>(add_bits(even, 1)),
                        far ? shift_right<4>(add_bits(odd, 7)) : shift_right<2>(add_bits(odd, 2))};
  store_pairs(y, or_bits(pair[0], shift_left<8>(pair[1])));
}

// 16 pixels.
RSKIP_INLINE void to_rgb(const uint8_t* y, const uint8_t* blue, const uint8_t* red, uint8_t* rgb) {
  const Bits luminance = load_bytes(y);
  const Bits cb = add_bits(load_bytes(blue), -128), cr = add_bits(load_bytes(red), -128);
  const auto clamped = [](Bits a) { return round_to_bits(min(splat(255.0f), max(splat(0.0f), to_float(a)))); };
  const Bits r = clamped(add_bits(luminance, rounded<16>(mul_bits(cr, 91881))));
  const Bits g = clamped(add_bits(luminance, rounded<16>(add_bits(mul_bits(cb, -22554), mul_bits(cr, -46802)))));
  const Bits b = clamped(add_bits(luminance, rounded<16>(mul_bits(cb, 116130))));
  store_triples(rgb, or_bits(r, or_bits(shift_left<8>(g), shift_left<16>(b))));
}

inline void paint8(const PaintArgs8& a) {
  for (int x = 0; x < a.width; x += 2 * kLanes) {
    uint8_t colours[2][2 * kLanes];
    for (int c = 0; c < 2; ++c) {
      if (a.halves) double_colours(a.near[c] + x / 2, a.far[c] ? a.far[c] + x / 2 : nullptr, colours[c]);
      else std::memcpy(colours[c], a.near[c] + x, sizeof colours[c]);
    }
    for (int i = 0; i < 2 * kLanes; i += kLanes) to_rgb(a.y + x + i, colours[0] + i, colours[1] + i, a.rgb + 3 * (x + i));
  }
}

}  // namespace rskip::RSKIP_ISA
