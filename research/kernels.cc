// Fused kernels for training: batch normalisation with ReLU and residual, and weight gradients of 3x3 convolutions.
//
// Maps are bfloat16 in the order [N, H, W, C], with C a multiple of 16; all else is float. One thread. Needs AVX-512
// with bfloat16, and AMX for `weight_gradient`.

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;

constexpr int LANES = 16;
// Rows whose sums are taken in float before they are added in double.
constexpr long BLOCK = 256;

inline __m512 load(const bf16* from) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}

inline void store(bf16* to, __m512 value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}

// Calls `body` with the index and the first channel of each vector in a group of channels; it adds to two vectors,
// whose sums over the rows are added to `sums`, first all of the one and then all of the other.
template <int V, class Body>
void sum_group(long rows, int channels, int first, double* sums, Body body) {
  constexpr int U = V == 1 ? 4 : V == 2 ? 2 : 1;
  for (long begin = 0; begin < rows; begin += BLOCK) {
    const long end = std::min(begin + BLOCK, rows);
    __m512 one[U][V], two[U][V];
    for (int u = 0; u < U; ++u)
      for (int v = 0; v < V; ++v) one[u][v] = two[u][v] = _mm512_setzero_ps();
    long row = begin;
    for (; row + U <= end; row += U)
      for (int u = 0; u < U; ++u)
        for (int v = 0; v < V; ++v)
          body((row + u) * channels + first + v * LANES, first + v * LANES, one[u][v], two[u][v]);
    for (; row < end; ++row)
      for (int v = 0; v < V; ++v) body(row * channels + first + v * LANES, first + v * LANES, one[0][v], two[0][v]);
    alignas(64) float lanes[LANES];
    for (int u = 0; u < U; ++u)
      for (int v = 0; v < V; ++v) {
        _mm512_store_ps(lanes, one[u][v]);
        for (int i = 0; i < LANES; ++i) sums[first + v * LANES + i] += lanes[i];
        _mm512_store_ps(lanes, two[u][v]);
        for (int i = 0; i < LANES; ++i) sums[channels + first + v * LANES + i] += lanes[i];
      }
  }
}

template <class Body>
std::vector<double> sums_of(long rows, int channels, Body body) {
  std::vector<double> sums(2 * channels, 0.0);
  int first = 0;
  for (; channels - first >= 4 * LANES; first += 4 * LANES) sum_group<4>(rows, channels, first, sums.data(), body);
  switch ((channels - first) / LANES) {
    case 3: sum_group<3>(rows, channels, first, sums.data(), body); break;
    case 2: sum_group<2>(rows, channels, first, sums.data(), body); break;
    case 1: sum_group<1>(rows, channels, first, sums.data(), body); break;
  }
  return sums;
}

struct Normalised {
  const bf16* x;
  const float *mean, *deviation, *weight;
  bf16* dx;
  float *dweight, *dbias;
  long rows;
  int channels;
};

// Gradients of a batch normalisation. `first` and then `second` give the gradient of its output at an index and a
// channel.
template <class First, class Second>
void backward(const Normalised& layer, First first, Second second) {
  const auto [x, mean, deviation, weight, dx, dweight, dbias, rows, channels] = layer;
  const auto sums = sums_of(rows, channels, [&first, x = x](long at, int c, __m512& sum, __m512& products) {
    const __m512 value = first(at, c);
    sum = _mm512_add_ps(sum, value);
    products = _mm512_fmadd_ps(value, load(x + at), products);
  });
  // dx = scale * gradient + slope * x + shift.
  std::vector<float> scale(channels), slope(channels), shift(channels);
  for (int c = 0; c < channels; ++c) {
    const double inverse = 1.0 / deviation[c], bias = sums[c];
    const double product = (sums[channels + c] - mean[c] * bias) * inverse;
    dweight[c] = static_cast<float>(product);
    dbias[c] = static_cast<float>(bias);
    const double a = weight[c] * inverse, b = -a * inverse * product / rows;
    scale[c] = static_cast<float>(a);
    slope[c] = static_cast<float>(b);
    shift[c] = static_cast<float>(-a * bias / rows - b * mean[c]);
  }
  for (long begin = 0; begin < rows; begin += BLOCK) {
    const long end = std::min(begin + BLOCK, rows);
    for (int c = 0; c < channels; c += LANES) {
      const __m512 a = _mm512_loadu_ps(scale.data() + c), b = _mm512_loadu_ps(slope.data() + c),
                   s = _mm512_loadu_ps(shift.data() + c);
      for (long row = begin; row < end; ++row) {
        const long at = row * channels + c;
        store(dx + at, _mm512_fmadd_ps(a, second(at, c), _mm512_fmadd_ps(b, load(x + at), s)));
      }
    }
  }
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Transposes 16 rows of 16 numbers of 32 bits.
inline void transpose(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// The same 16 channels of two images, side by side: what a tile multiplication adds up.
inline __m512i paired(const bf16* one, const bf16* two) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(one)));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(two)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Adds to M x N tiles of `to` the products of M tiles of `a` and N tiles of `b`, over `steps` of 16 pixels of two
// images.
template <int M, int N>
void multiply(const uint32_t* a, long a_stride, const uint32_t* const* b, long b_stride, long steps, float* to,
              long to_stride) {
  const long to_bytes = to_stride * 4, a_bytes = a_stride * 4, b_bytes = b_stride * 4;
  float* const below = to + 16 * to_stride;
  _tile_loadd(0, to, to_bytes);
  if constexpr (N > 1) _tile_loadd(1, to + 16, to_bytes);
  if constexpr (M > 1) _tile_loadd(2, below, to_bytes);
  if constexpr (M > 1 && N > 1) _tile_loadd(3, below + 16, to_bytes);
  for (long step = 0; step < steps; ++step) {
    _tile_loadd(4, a + step * 16, a_bytes);
    _tile_loadd(6, b[0] + step * 16 * b_stride, b_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N > 1) _tile_loadd(7, b[1] + step * 16 * b_stride, b_bytes);
    if constexpr (N > 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (M > 1) _tile_loadd(5, a + 16 * a_stride + step * 16, a_bytes);
    if constexpr (M > 1) _tile_dpbf16ps(2, 5, 6);
    if constexpr (M > 1 && N > 1) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, to, to_bytes);
  if constexpr (N > 1) _tile_stored(1, to + 16, to_bytes);
  if constexpr (M > 1) _tile_stored(2, below, to_bytes);
  if constexpr (M > 1 && N > 1) _tile_stored(3, below + 16, to_bytes);
}

// Memory that is kept between calls, aligned to a line of the cache.
struct Scratch {
  std::vector<uint32_t> memory;

  uint32_t* zeros(long count) {
    memory.assign(count + 16, 0);
    return reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t{63});
  }
};

}  // namespace

extern "C" {

// Asks the system for AMX; returns 0 if this process doesn't get it. Call it first.
int allow_amx() {
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// Means and biased variances [C] of `x` [rows, C].
void moments(const bf16* x, long rows, int channels, float* mean, float* variance) {
  const auto sums = sums_of(rows, channels, [x](long at, int, __m512& sum, __m512& squares) {
    const __m512 value = load(x + at);
    sum = _mm512_add_ps(sum, value);
    squares = _mm512_fmadd_ps(value, value, squares);
  });
  for (int c = 0; c < channels; ++c) {
    const double average = sums[c] / rows, spread = sums[channels + c] / rows - average * average;
    mean[c] = static_cast<float>(average);
    variance[c] = static_cast<float>(std::max(spread, 0.0));
  }
}

// y = scale x + shift (+ skip), then a ReLU where `relu` is set.
void normalise(const bf16* x, const bf16* skip, const float* scale, const float* shift, bf16* y, long rows,
               int channels, int relu) {
  const __m512 least = _mm512_set1_ps(relu ? 0.0f : -__builtin_inff());
  for (long begin = 0; begin < rows; begin += BLOCK) {
    const long end = std::min(begin + BLOCK, rows);
    for (int c = 0; c < channels; c += LANES) {
      const __m512 a = _mm512_loadu_ps(scale + c), b = _mm512_loadu_ps(shift + c);
      for (long row = begin; row < end; ++row) {
        const long at = row * channels + c;
        __m512 value = _mm512_fmadd_ps(load(x + at), a, b);
        if (skip) value = _mm512_add_ps(value, load(skip + at));
        store(y + at, _mm512_max_ps(value, least));
      }
    }
  }
}

// Gradients of `normalise`, whose `scale` and `shift` come from batch statistics and from `weight` and the bias: `dx`,
// those of weight and bias [C], and, where there was a `skip`, `dskip`. `y` is the output; it is read only where a ReLU
// followed a skip.
void normalise_backward(const bf16* dy, const bf16* y, const bf16* x, const float* mean, const float* deviation,
                        const float* weight, const float* scale, const float* shift, bf16* dskip, bf16* dx,
                        float* dweight, float* dbias, long rows, int channels, int relu) {
  const Normalised layer{x, mean, deviation, weight, dx, dweight, dbias, rows, channels};
  const auto plain = [dy](long at, int) { return load(dy + at); };
  if (dskip) {
    const auto stored = [dskip](long at, int) { return load(dskip + at); };
    const auto masked = [=](long at, int c) {
      const __m256i output = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(y + at));
      const __m512 all = plain(at, c);
      const __m512 value =
          relu ? _mm512_maskz_mov_ps(_mm256_cmpgt_epi16_mask(output, _mm256_setzero_si256()), all) : all;
      store(dskip + at, value);
      return value;
    };
    backward(layer, masked, stored);
  } else if (relu) {
    const auto masked = [=](long at, int c) {
      const __m512 before = _mm512_fmadd_ps(load(x + at), _mm512_loadu_ps(scale + c), _mm512_loadu_ps(shift + c));
      return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(before, _mm512_setzero_ps(), _CMP_GT_OQ), plain(at, c));
    };
    backward(layer, masked, masked);
  } else {
    backward(layer, plain, plain);
  }
}

// Gradient [outputs, side, side, inputs] of the weights of a convolution, from its input `x`
// [n, stride height, stride width, inputs] and the gradient `dy` [n, height, width, outputs] of its output; `n` is
// even. `side` is 1 or 3, padding `side` / 2, `stride` 1 or 2.
void weight_gradient(const bf16* x, const bf16* dy, long n, long height, long width, int inputs, int outputs, int side,
                     int stride, float* dw) {
  // Pairs of images, a group of them at a time, are laid out with an empty row above each and an empty column beside
  // it: then each tap is a constant distance. With a stride, the pixels of even and odd rows and columns are apart.
  const long pairs = n / 2, wide = width + 1, tall = height + 1, area = height * width;
  long group = 1;
  while (pairs % (2 * group) == 0 && group * tall * wide < 400) group *= 2;
  const long steps = ((group * tall + 1) * wide + 1 + 15) / 16, length = steps * 16, margin = wide + 1;
  std::vector<long> pixels(length, -1);   // Of `dy`, in the first image of a pair, within the group; -1 is empty.
  std::vector<long> sources(length, -1);  // Of `x`, likewise.
  const long source_wide = width * stride, source_area = area * stride * stride;
  for (long pair = 0; pair < group; ++pair)
    for (long row = 0; row < height; ++row)
      for (long column = 0; column < width; ++column) {
        const long q = (pair * tall + 1 + row) * wide + 1 + column;
        pixels[q] = 2 * pair * area + row * width + column;
        sources[q] = 2 * pair * source_area + row * stride * source_wide + column * stride;
      }

  static thread_local Scratch left_scratch, right_scratch;
  const long left_stride = length + 16;  // Rows don't share a set of the cache.
  const long part = (length + 2 * margin) * inputs;
  uint32_t* const left = left_scratch.zeros(outputs * left_stride);     // [outputs, length]
  uint32_t* const right = right_scratch.zeros(stride * stride * part);  // [parts, margin + length + margin, inputs]
  const long columns = 1L * side * side * inputs;
  const int tiles_m = outputs / 16, tiles_n = columns / 16;
  std::vector<const uint32_t*> taps(tiles_n);
  for (int tile = 0; tile < tiles_n; ++tile) {
    const long tap = tile * 16 / inputs, down = tap / side - side / 2, across = tap % side - side / 2;
    // With a stride of 2, tap -1 is the odd pixel in front, and tap 1 the odd pixel beside the even one.
    const long odd = stride == 2 ? 2 * (down & 1) + (across & 1) : 0;
    const long rows = stride == 2 ? std::min(down, 0L) : down, places = stride == 2 ? std::min(across, 0L) : across;
    taps[tile] = right + odd * part + (margin + rows * wide + places) * inputs + tile * 16 % inputs;
  }
  std::memset(dw, 0, sizeof(float) * outputs * columns);
  const TileConfig config;
  _tile_loadconfig(&config);
  for (long first = 0; first < pairs; first += group) {
    for (int odd = 0; odd < stride * stride; ++odd)
      for (long q = 0; q < length; ++q) {
        if (sources[q] < 0) continue;
        const long source = 2 * first * source_area + sources[q] + odd / 2 * source_wide + odd % 2;
        const bf16* const one = x + source * inputs;
        uint32_t* const to = right + odd * part + (margin + q) * inputs;
        for (int c = 0; c < inputs; c += 16)
          _mm512_store_si512(to + c, paired(one + c, one + source_area * inputs + c));
      }
    for (long q = 0; q < length; q += 16)
      for (int c = 0; c < outputs; c += 16) {
        __m512i rows[16];
        for (int i = 0; i < 16; ++i) {
          const bf16* const one = dy + (2 * first * area + pixels[q + i]) * outputs + c;
          rows[i] = pixels[q + i] < 0 ? _mm512_setzero_si512() : paired(one, one + area * outputs);
        }
        transpose(rows);
        for (int i = 0; i < 16; ++i) _mm512_store_si512(left + (c + i) * left_stride + q, rows[i]);
      }
    for (int m = 0; m < tiles_m; m += 2)
      for (int tile = 0; tile < tiles_n; tile += 2) {
        const bool two_m = m + 1 < tiles_m, two_n = tile + 1 < tiles_n;
        const auto add = two_m && two_n ? multiply<2, 2>
                         : two_m        ? multiply<2, 1>
                         : two_n        ? multiply<1, 2>
                                        : multiply<1, 1>;
        add(left + m * 16 * left_stride, left_stride, &taps[tile], inputs, steps, dw + m * 16 * columns + tile * 16,
            columns);
      }
  }
  _tile_release();
}

// What an exit sees of maps [n, height, width, channels]: [n, 5, channels], the averages of four overlapping quarters,
// each of half the height and width, rounded up, and the maxima. `places` [n, channels] gets the pixel of each maximum.
void grid(const bf16* x, long n, long height, long width, int channels, float* seen, int32_t* places) {
  const long tall = (height + 1) / 2, wide = (width + 1) / 2;
  const __m512 share = _mm512_set1_ps(1.0f / static_cast<float>(tall * wide));
  for (long image = 0; image < n; ++image)
    for (int c = 0; c < channels; c += LANES) {
      const bf16* const from = x + image * height * width * channels + c;
      __m512 sums[2][2] = {}, highest = _mm512_set1_ps(-__builtin_inff());
      __m512i place = _mm512_setzero_si512();
      for (long row = 0; row < height; ++row) {
        __m512 left = _mm512_setzero_ps(), right = _mm512_setzero_ps();
        for (long column = 0; column < width; ++column) {
          const long pixel = row * width + column;
          const __m512 value = load(from + pixel * channels);
          if (column < wide) left = _mm512_add_ps(left, value);
          if (column >= width - wide) right = _mm512_add_ps(right, value);
          const __mmask16 higher = _mm512_cmp_ps_mask(value, highest, _CMP_GT_OQ);
          highest = _mm512_mask_mov_ps(highest, higher, value);
          place = _mm512_mask_mov_epi32(place, higher, _mm512_set1_epi32(static_cast<int>(pixel)));
        }
        for (int half = 0; half < 2; ++half) {
          if (half == 0 ? row >= tall : row < height - tall) continue;
          sums[half][0] = _mm512_add_ps(sums[half][0], left);
          sums[half][1] = _mm512_add_ps(sums[half][1], right);
        }
      }
      float* const to = seen + image * 5 * channels + c;
      for (int quarter = 0; quarter < 4; ++quarter)
        _mm512_storeu_ps(to + quarter * channels, _mm512_mul_ps(sums[quarter / 2][quarter % 2], share));
      _mm512_storeu_ps(to + 4 * channels, highest);
      _mm512_storeu_si512(places + image * channels + c, place);
    }
}

// The gradient `dx` of the maps of `grid`, from that of what is seen.
void grid_backward(const float* dseen, const int32_t* places, long n, long height, long width, int channels, bf16* dx) {
  const long tall = (height + 1) / 2, wide = (width + 1) / 2;
  const __m512 share = _mm512_set1_ps(1.0f / static_cast<float>(tall * wide));
  for (long image = 0; image < n; ++image)
    for (int c = 0; c < channels; c += LANES) {
      const float* const from = dseen + image * 5 * channels + c;
      const __m512 highest = _mm512_loadu_ps(from + 4 * channels);
      const __m512i place = _mm512_loadu_si512(places + image * channels + c);
      bf16* const to = dx + image * height * width * channels + c;
      for (long row = 0; row < height; ++row)
        for (long column = 0; column < width; ++column) {
          __m512 sum = _mm512_setzero_ps();
          for (int quarter = 0; quarter < 4; ++quarter) {
            const bool down = quarter / 2 ? row >= height - tall : row < tall;
            const bool across = quarter % 2 ? column >= width - wide : column < wide;
            if (down && across) sum = _mm512_add_ps(sum, _mm512_loadu_ps(from + quarter * channels));
          }
          const long pixel = row * width + column;
          const __mmask16 here = _mm512_cmpeq_epi32_mask(place, _mm512_set1_epi32(static_cast<int>(pixel)));
          sum = _mm512_mul_ps(sum, share);
          store(to + pixel * channels, _mm512_mask_add_ps(sum, here, sum, highest));
        }
    }
}

}  // extern "C"
