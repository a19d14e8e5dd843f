// The entropy-coded data of a JPEG file: bits and Huffman codes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace rskip {

// Reads the bits in front of the next marker. Behind them come zeros: damaged() says whether any was read.
class JpegBits {
 public:
  explicit JpegBits(std::span<const uint8_t> bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  // From now on, at least 32 bits can be read.
  void fill() {
    if (count_ >= 32) return;
    if (end_ - at_ >= 8) {
      uint64_t next;
      std::memcpy(&next, at_, sizeof next);
      if constexpr (std::endian::native == std::endian::little) next = __builtin_bswap64(next);
      const uint64_t has_ff = (~next - kEach) & next & (kEach << 7);
      if (has_ff == 0) {
        // Bits behind `count_` are read again, as the same.
        bits_ |= next >> count_;
        const int taken = (63 - count_) >> 3;
        at_ += taken;
        count_ += taken * 8;
        return;
      }
    }
    fill_by_bytes();
  }
  int peek(int n) const { return static_cast<int>(bits_ >> (64 - n)); }
  void drop(int n) {
    bits_ <<= n;
    count_ -= n;
  }
  // Whether bits were read that aren't there.
  bool damaged() const { return zeros_ > count_; }
  // Whether all bits were read, but for those that fill the last byte; then the next marker, of which the data ends.
  bool ends_with(uint8_t marker) {
    const int left = count_ - static_cast<int>(zeros_);
    if (left < 0 || left > 7) return false;
    while (end_ - at_ >= 2 && at_[0] == 0xff && at_[1] == 0xff) ++at_;
    if (end_ - at_ < 2 || at_[0] != 0xff || at_[1] != marker) return false;
    at_ += 2;
    bits_ = 0, count_ = 0, zeros_ = 0;
    return true;
  }

 private:
  static constexpr uint64_t kEach = 0x0101010101010101;

  void fill_by_bytes() {
    if (count_ == 0) bits_ = 0;
    else bits_ &= ~uint64_t{0} << (64 - count_);
    for (; count_ < 56; count_ += 8) {
      uint64_t byte = 0;
      if (at_ < end_ && *at_ != 0xff) {
        byte = *at_++;
      } else if (end_ - at_ >= 2 && at_[1] == 0) {
        byte = 0xff;
        at_ += 2;
      } else {
        zeros_ += 8;
      }
      bits_ |= byte << (56 - count_);
    }
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t bits_ = 0;  // the next is the highest
  int count_ = 0;
  int64_t zeros_ = 0;  // how many of the bits lie behind the data
};

// The value of `size` bits, at least 1, that were read as a number.
inline int32_t jpeg_value(int32_t number, int size) { return number < 1 << (size - 1) ? number - (1 << size) + 1 : number; }

// A Huffman code of coefficients, or of the differences of means. A symbol is how many coefficients before it are zero (its upper four bits)
// and how many bits of its value follow (its lower four).
class JpegCode {
 public:
  // One symbol with its value, in one number: bits in the file, coefficients that it moves on by (0 at the end of a block), and the value.
  struct Symbol {
    int32_t word;
    int length() const { return word & 255; }
    int advance() const { return word >> 8 & 255; }
    int32_t value() const { return word >> 16; }
  };
  // Several symbols whose values don't matter.
  struct Skip {
    uint8_t bits;
    uint8_t advance;  // kPastEnd at the end of a block
    int16_t last;     // the last coefficient from which on all of them belong to one block
  };
  static constexpr int kPastEnd = 64;

  // Of a table's 16 counts of codes by length, and their symbols. Returns false if there is no such code.
  bool read(std::span<const uint8_t> counts, std::span<const uint8_t> symbols, bool of_means) {
    if (symbols.size() > symbols_.size()) return false;
    std::ranges::copy(symbols, symbols_.begin());
    short_.fill(0);
    skips_.clear();
    int code = 0, index = 0;
    for (int length = 1; length <= 16; ++length) {
      const int count = counts[static_cast<size_t>(length - 1)];
      first_[static_cast<size_t>(length)] = code - index;
      // The counts may have changed since their symbols were counted: the file is JavaScript's.
      if (code + count > 1 << length || static_cast<size_t>(index + count) > symbols.size()) return false;
      for (int i = 0; i < count; ++i, ++code, ++index) {
        const int symbol = symbols_[static_cast<size_t>(index)];
        const int size = symbol & 15;
        if (of_means ? symbol > 11 : size > 10 || (size == 0 && symbol != 0 && symbol != 0xf0)) return false;
        if (length > kShort) continue;
        const int shift = kShort - length;
        std::fill_n(short_.begin() + (code << shift), size_t{1} << shift, static_cast<uint16_t>(length << 8 | symbol));
      }
      end_[static_cast<size_t>(length)] = code;
      code <<= 1;
    }
    find_symbols();
    known_ = true;
    return true;
  }
  bool is_known() const { return known_; }

  // The next symbol, 0 to 255; -1 if there is none. Takes at most 16 bits.
  int next(JpegBits& bits) const {
    const int entry = short_[static_cast<size_t>(bits.peek(kShort))];
    if (entry != 0) {
      bits.drop(entry >> 8);
      return entry & 255;
    }
    for (int length = kShort + 1; length <= 16; ++length) {
      const int code = bits.peek(length);
      if (code >= end_[static_cast<size_t>(length)]) continue;
      bits.drop(length);
      return symbols_[static_cast<size_t>(code - first_[static_cast<size_t>(length)])];
    }
    return -1;
  }
  // The next symbol and its value. A code that there isn't leads past the end of any block. Takes at most 27 bits.
  Symbol next_with_value(JpegBits& bits) const {
    const Symbol known = whole_[static_cast<size_t>(bits.peek(kShort))];
    if (known.length() != 0) {
      bits.drop(known.length());
      return known;
    }
    const int symbol = next(bits);
    if (symbol < 0) return {2 * kPastEnd << 8};
    const int size = symbol & 15;
    if (size == 0) return {symbol == 0 ? 0 : 16 << 8};
    const int32_t value = jpeg_value(bits.peek(size), size);
    bits.drop(size);
    return symbol_of(0, (symbol >> 4) + 1, value);
  }

  // Moves on from coefficient k to behind the end of the block. Returns false if no block ends like this.
  bool skip_block(JpegBits& bits, int k) const {
    while (true) {
      bits.fill();
      const Skip skip = skips_[static_cast<size_t>(bits.peek(kWindow))];
      if (k <= skip.last) {
        bits.drop(skip.bits);
        k += skip.advance;
      } else {
        const int symbol = next(bits);
        if (symbol <= 0) return symbol == 0;
        bits.drop(symbol & 15);
        k += (symbol >> 4) + 1;
        if (k > kPastEnd) return false;
      }
      if (k >= kPastEnd) return true;
    }
  }

  // For skip_block: what the next kWindow bits begin with.
  void make_skips() {
    if (!skips_.empty()) return;
    skips_.resize(size_t{1} << kWindow);
    for (int window = 0; window < 1 << kWindow; ++window) {
      Skip& skip = skips_[static_cast<size_t>(window)];
      int used = 0, advance = 0;
      skip.last = -1;
      while (used < kWindow) {
        const int rest = window << used & ((1 << kWindow) - 1);
        const int entry = short_[static_cast<size_t>(rest >> (kWindow - kShort))];
        const int length = entry >> 8, symbol = entry & 255;
        if (length == 0 || used + length > kWindow) break;
        if (symbol == 0) {
          skip = {static_cast<uint8_t>(used + length), kPastEnd, static_cast<int16_t>(kPastEnd - 1 - advance)};
          break;
        }
        advance += (symbol >> 4) + 1;
        used += length + (symbol & 15);
        if (advance >= kPastEnd) break;
        skip = {static_cast<uint8_t>(used), static_cast<uint8_t>(advance), static_cast<int16_t>(kPastEnd - advance)};
      }
    }
  }

 private:
  static constexpr int kShort = 10;   // bits of codes that are looked up
  static constexpr int kWindow = 12;  // bits in which symbols to be skipped begin

  static Symbol symbol_of(int length, int advance, int32_t value) {
    return {static_cast<int32_t>(static_cast<uint32_t>(value) << 16 | static_cast<uint32_t>(advance << 8 | length))};
  }
  void find_symbols() {
    for (int window = 0; window < 1 << kShort; ++window) {
      const int entry = short_[static_cast<size_t>(window)];
      const int symbol = entry & 255, size = symbol & 15, length = (entry >> 8) + size;
      Symbol& whole = whole_[static_cast<size_t>(window)];
      whole = {0};
      if (entry == 0 || length > kShort) continue;
      const int32_t value = size == 0 ? 0 : jpeg_value(window >> (kShort - length) & ((1 << size) - 1), size);
      whole = symbol_of(length, symbol == 0 ? 0 : (symbol >> 4) + 1, value);
    }
  }

  std::array<uint8_t, 256> symbols_{};
  std::array<uint16_t, 1 << kShort> short_{};  // length and symbol; 0 for a longer code
  std::array<Symbol, 1 << kShort> whole_{};    // with their values; length 0 for those that are longer
  std::array<int, 17> first_{}, end_{};        // by length: what turns a code into an index, and the first code behind
  std::vector<Skip> skips_;
  bool known_ = false;
};

}  // namespace rskip
