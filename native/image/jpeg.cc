#include "image/jpeg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "image/jpeg_bits.h"
#include "image/jpeg_header.h"
#include "kernels/int8/table8.h"

namespace rskip {
namespace {

constexpr int kBlock = kJpegBlock;
constexpr std::array<uint8_t, kBlock> kZigzag = [] {
  std::array<uint8_t, kBlock> order{};
  int at = 0;
  for (int sum = 0; sum < 15; ++sum) {
    for (int i = 0; i <= sum; ++i) {
      const int row = sum % 2 == 0 ? sum - i : i, column = sum - row;
      if (row < 8 && column < 8) order[static_cast<size_t>(at++)] = static_cast<uint8_t>(8 * row + column);
    }
  }
  return order;
}();

struct Component : JpegComponent {
  int columns = 8, rows = 8;          // pixels of a block
  int last = 63;                      // coefficient that is needed
  int cleared = 0;                    // how many of a block are before the next is read
  int width = 0, height = 0;          // pixels
  ptrdiff_t stride = 0;
  std::vector<uint8_t> pixels;        // a row of those before, then the rows of a row of units
  std::vector<int32_t> coefficients;  // of kLanes units, [down][across][kBlock][kLanes]
  int32_t mean = 0;

  uint8_t* row(int y) { return pixels.data() + (y + 1) * stride + kLanes; }
};

// One of a unit, and where its first coefficient goes.
struct Block {
  Component* part;
  int32_t* to;
};

class Decoder {
 public:
  Decoder(JpegHeader& header, const JpegRequest& request, const KernelTable& table) : header_(header), request_(request), table_(table) {}

  bool decode(uint8_t* pixels) { return prepare() && read_scan(pixels); }

 private:
  // How many pixels a block becomes, and memory for a row of units.
  bool prepare() {
    for (const JpegComponent& part : header_.components()) static_cast<JpegComponent&>(component_[components_++]) = part;
    const int shrink = request_.shrink, across = component_[0].across, down = component_[0].down;
    units_ = (request_.width + 8 * across - 1) / (8 * across);
    unit_rows_ = (request_.height + 8 * down - 1) / (8 * down);
    const int whole_units = (units_ + kLanes - 1) / kLanes * kLanes;
    halves_ = shrink == 1 && across == 2;
    lag_ = shrink == 1 && down == 2 ? 1 : 0;
    for (Component& part : components()) {
      part.columns = std::min(8, 8 / shrink * across / part.across);
      part.rows = std::min(8, 8 / shrink * down / part.down);
      part.last = 0;
      for (int i = 0; i < kBlock; ++i) {
        const int at = kZigzag[static_cast<size_t>(i)];
        if (at / 8 < part.rows && at % 8 < part.columns) part.last = i;
      }
      if (part.last > 0) part.cleared = 1 + *std::max_element(kZigzag.begin(), kZigzag.begin() + part.last + 1);
      const auto share = [](int all, int part_of, int whole) { return (all * part_of + whole - 1) / whole; };
      part.width = halves_ ? share(request_.width, part.across, across) : request_.columns();
      part.height = lag_ ? share(request_.height, part.down, down) : request_.rows();
      // Smoothing needs neighbours.
      if (halves_ && part.width < 3) return false;
      part.stride = static_cast<ptrdiff_t>(whole_units) * part.across * part.columns + 4 * kLanes;
      part.pixels.resize(static_cast<size_t>(part.stride) * static_cast<size_t>(part.down * part.rows + 2));
      part.coefficients.resize(static_cast<size_t>(part.down * part.across) * kBlock * kLanes);
      if (part.last < 63) part.others->make_skips();
    }
    for (int unit = 0; unit < kLanes; ++unit) {
      for (Component& part : components()) {
        for (int y = 0; y < part.down; ++y) {
          for (int x = unit * part.across; x < (unit + 1) * part.across; ++x) {
            blocks_.push_back({&part, group(part, y, x / kLanes) + x % kLanes});
          }
        }
      }
    }
    line_.resize(3 * (static_cast<size_t>(request_.columns()) + 3 * kLanes));
    return true;
  }

  bool read_scan(uint8_t* pixels) {
    JpegBits bits(header_.scan());
    const int restart = header_.restart();
    const size_t each = blocks_.size() / kLanes;
    int left = restart, restarts = 0;
    for (int row = 0; row < unit_rows_; ++row) {
      for (int first = 0; first < units_; first += kLanes) {
        for (Component& part : components()) {
          for (int i = 0; i < part.down * part.across; ++i) std::fill_n(group(part, 0, i), part.cleared * kLanes, 0);
        }
        const int count = std::min(kLanes, units_ - first);
        for (int unit = 0; unit < count;) {
          if (restart > 0 && left == 0) {
            if (!bits.ends_with(static_cast<uint8_t>(kRst0 + restarts++ % 8))) return false;
            left = restart;
            for (Component& part : components()) part.mean = 0;
          }
          const int units = restart > 0 ? std::min(left, count - unit) : count - unit;
          for (const Block& block : std::span(blocks_).subspan(static_cast<size_t>(unit) * each, static_cast<size_t>(units) * each)) {
            if (!read_block(bits, block)) return false;
          }
          unit += units, left -= units;
        }
        if (bits.damaged()) return false;
        for (Component& part : components()) transform(part, first);
      }
      write_rows(row, pixels);
    }
    return bits.ends_with(kEoi);
  }

  bool read_block(JpegBits& bits, const Block& block) {
    Component& part = *block.part;
    const int32_t* const factors = part.factors;
    bits.fill();
    const JpegCode::Symbol mean = part.means->next(bits);
    if (mean.advance > 1) return false;
    // A damaged file may add up to anything.
    part.mean = static_cast<int16_t>(part.mean + mean.value);
    block.to[0] = part.mean * factors[0];
    int k = 1;
    while (k <= part.last) {
      const JpegCode::Symbol symbol = part.others->next(bits);
      if (symbol.advance == 0) return true;
      k += symbol.advance;
      if (k > kBlock) return false;
      const size_t at = static_cast<size_t>(k - 1);
      block.to[kZigzag[at] * kLanes] = symbol.value * factors[at];
      bits.fill_some();
    }
    return k == kBlock || part.others->skip_block(bits, k);
  }

  int32_t* group(Component& part, int y, int x) {
    return part.coefficients.data() + static_cast<ptrdiff_t>(y * part.across + x) * kBlock * kLanes;
  }

  void transform(Component& part, int first) {
    for (int y = 0; y < part.down; ++y) {
      for (int x = 0; x < part.across; ++x) {
        const ptrdiff_t column = static_cast<ptrdiff_t>(first * part.across + x * kLanes) * part.columns;
        table_.inverse8({group(part, y, x), part.columns, part.rows, part.row(y * part.rows) + column, part.stride});
      }
    }
  }

  // The rows of the result of which all is known now.
  void write_rows(int unit_row, uint8_t* pixels) {
    const int rows = component_[0].down * component_[0].rows, first = unit_row * rows;
    const bool is_last = unit_row == unit_rows_ - 1;
    for (Component& part : components()) {
      if (!halves_ || part.across == 2) continue;
      for (int y = 0; y < part.down * part.rows; ++y) {
        part.row(y)[-1] = part.row(y)[0];
        part.row(y)[part.width] = part.row(y)[part.width - 1];
      }
    }
    const int end = is_last ? request_.rows() : first + rows - lag_;
    for (int y = std::max(0, first - lag_); y < end; ++y) write_row(y, first, pixels);
    if (lag_ == 0) return;
    for (Component& part : components()) {
      std::memcpy(part.row(-1) - 1, part.row(part.down * part.rows - 1) - 1, static_cast<size_t>(part.stride) - kLanes);
    }
  }

  void write_row(int y, int first, uint8_t* pixels) {
    const ptrdiff_t width = request_.columns();
    uint8_t* line = line_.data();
    if (components_ == 1) {
      line = component_[0].row(y - first);
    } else {
      PaintArgs8 args{component_[0].row(y - first), {}, {}, halves_, request_.columns(), line};
      for (int c = 0; c < 2; ++c) {
        Component& part = component_[1 + c];
        const int near = lag_ ? y / 2 : y, far = y % 2 ? near + 1 : near - 1, top = lag_ ? first / 2 : first;
        args.near[c] = part.row(near - top);
        if (lag_) args.far[c] = part.row((far < 0 || far >= part.height ? near : far) - top);
      }
      table_.paint8(args);
    }
    // Where pixel x of row y goes: at first + x * step.
    const ptrdiff_t height = request_.rows(), channels = request_.channels, turn = request_.orientation - 1;
    const bool swaps = turn >= 4;
    // Which axes of the upright image run backwards, by orientation.
    constexpr bool kFlipsX[8] = {false, true, true, false, false, true, true, false};
    constexpr bool kFlipsY[8] = {false, false, true, true, false, false, true, true};
    const ptrdiff_t wide = swaps ? height : width, high = swaps ? width : height;
    const bool flips_x = kFlipsX[turn], flips_y = kFlipsY[turn];
    const ptrdiff_t to_x = flips_x ? -1 : 1, to_y = (flips_y ? -1 : 1) * wide;
    const ptrdiff_t origin = (flips_x ? wide - 1 : 0) + (flips_y ? (high - 1) * wide : 0);
    const ptrdiff_t step = (swaps ? to_y : to_x) * channels, at = (origin + y * (swaps ? to_x : to_y)) * channels;
    if (turn == 0) {
      std::memcpy(pixels + at, line, static_cast<size_t>(width * channels));
      return;
    }
    for (ptrdiff_t x = 0; x < width; ++x) std::copy_n(line + x * channels, channels, pixels + at + x * step);
  }

  std::span<Component> components() { return {component_, static_cast<size_t>(components_)}; }

  JpegHeader& header_;
  const JpegRequest& request_;
  const KernelTable& table_;
  Component component_[kJpegComponents];
  int components_ = 0, units_ = 0, unit_rows_ = 0;
  bool halves_ = false;
  int lag_ = 0;  // rows that wait for the next row of units
  std::vector<Block> blocks_;  // of kLanes units, as in the file
  std::vector<uint8_t> line_;
};

}  // namespace

const int32_t* inverse_factors(int pixels) {
  using Factors = std::array<std::array<int32_t, kBlock>, 4>;
  static const Factors factors = [] {
    Factors all{};
    for (size_t i = 0; i < 4; ++i) {
      const int n = 1 << i, each = 8 / n;
      for (int u = 0; u < n; ++u) {
        const double angle = u * std::numbers::pi / 16;
        // Of the mean of `each` pixels.
        const double mean = u == 0 ? std::sqrt(0.125) : std::sin(each * angle) / std::sin(angle) / each / 2;
        for (int x = 0; x < n; ++x) {
          const double value = mean * std::cos((2 * x + 1) * each * angle);
          all[i][static_cast<size_t>(u * n + x)] = static_cast<int32_t>(std::lround(value * (1 << 13)));
        }
      }
    }
    return all;
  }();
  return factors[static_cast<size_t>(pixels == 8 ? 3 : pixels / 2)].data();
}

bool decode_jpeg(std::span<const uint8_t> file, const JpegRequest& request, const KernelTable& table, uint8_t* pixels) {
  JpegHeader header;
  return header.read(file, request) && Decoder(header, request, table).decode(pixels);
}

}  // namespace rskip
