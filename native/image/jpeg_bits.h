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

  // From now on, at least kFilled bits can be read.
  static constexpr int kFilled = 56;
  void fill() {
    if (end_ - at_ >= 8) {
      uint64_t next;
      std::memcpy(&next, at_, sizeof next);
      if constexpr (std::endian::native == std::endian::little) next = __builtin_bswap64(next);
      const uint64_t has_ff = (~next - kEach) & next & (kEach << 7);
      if (has_ff == 0) {
        // Bits behind `count_` are read again, as the same.
        bits_ |= next >> count_;
        at_ += (63 - count_) >> 3;
        count_ |= kFilled;
        return;
      }
    }
    fill_by_bytes();
  }
  // The same, of kMost.
  void fill_some() {
    if (count_ < kFilled / 2) fill();
  }
  int peek(int n) const { return static_cast<int>(bits_ >> (64 - n)); }
  // The coefficient of which `size` bits follow behind the next `length`. The highest of them is 0 if it is negative.
  int32_t value(int length, int size) const {
    const uint64_t rest = bits_ << length;
    const int32_t number = static_cast<int32_t>(rest >> 1 >> (63 - size)), negative = static_cast<int32_t>(~rest >> 63);
    return number - (-negative & ((1 << size) - 1));
  }
  void drop(int n) {
    bits_ <<= n;
    count_ -= n;
  }
  // Whether bits were read that aren't there.
  bool damaged() const { return zeros_ > count_; }
  // Whether all bits were read, but for those that fill the last byte; then the next marker, of which the data ends.
  bool ends_with(uint8_t marker) {
    const int64_t left = count_ - zeros_;
    if (left < 0 || left > 7) return false;
    while (end_ - at_ >= 2 && at_[0] == 0xff && at_[1] == 0xff) ++at_;
    if (end_ - at_ < 2 || at_[0] != 0xff || at_[1] != marker) return false;
    at_ += 2;
    bits_ = 0, count_ = 0, zeros_ = 0;
    return true;
  }

 private:
  static constexpr uint64_t kEach = 0x0101010101010101;

  [[gnu::noinline]] void fill_by_bytes() {
    if (count_ == 0) bits_ = 0;
    else bits_ &= ~uint64_t{0} << (64 - count_);
    for (; count_ < kFilled; count_ += 8) {
      uint64_t byte = 0;
      if (at_ < end_ && *at_ != 0xff) {
        byte = *at_++;
      } else if (end_ - at_ >= 2 && at_[1] == 0) {
        byte = 0xff;
        at_ += 2;
      } else {
        zeros_ += 8;
      }
      bits_ |= byte << (kFilled - count_);
    }
  }

  const uint8_t* at_;
  const uint8_t* end_;
  uint64_t bits_ = 0;  // the next is the highest
  // Of a type that no coefficient has, so that it stays in a register while these are stored.
  int64_t count_ = 0;
  int64_t zeros_ = 0;  // how many of the bits lie behind the data
};

// A Huffman code of coefficients, or of the differences of means. A symbol is how many coefficients before it are zero (its upper four bits)
// and how many bits of its value follow (its lower four).
class JpegCode {
 public:
  // Bits of a code and a value at most.
  static constexpr int kMost = 16 + 11;

  // By how many coefficients a symbol moves on, 0 at the end of a block, and its value.
  struct Symbol {
    int advance;
    int32_t value;
  };

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
        std::fill_n(short_.begin() + (code << shift), size_t{1} << shift, static_cast<uint16_t>(entry_of(length, symbol)));
      }
      end_[static_cast<size_t>(length)] = code;
      code <<= 1;
    }
    known_ = true;
    return true;
  }
  bool is_known() const { return known_; }

  // The next symbol, of at most kMost bits. A code that there isn't leads past the end of any block.
  Symbol next(JpegBits& bits) const {
    int entry = short_[static_cast<size_t>(bits.peek(kShort))];
    if (entry == 0) entry = long_entry(bits);
    const int size = entry >> 5 & 15, all = entry & 31;
    const Symbol symbol{entry >> 9, bits.value(all - size, size)};
    bits.drop(all);
    return symbol;
  }

  // Moves on from coefficient k, at least 1, to behind the end of the block. Returns false if no block ends like this. At first, at least
  // kFilled - kMost bits can be read.
  bool skip_block(JpegBits& bits, int k) const {
    for (int steps = (JpegBits::kFilled - kMost) / kSkipBits;; steps = JpegBits::kFilled / kSkipBits) {
      for (; steps > 0; --steps) {
        const int skip = skips_[static_cast<size_t>(bits.peek(kWindow))], to = k + (skip >> 5);
        if (to >= kPastEnd) {
          if (to == kPastEnd || (to >= kEnds && to < kEnds + kPastEnd)) {
            bits.drop(skip & 31);
            return true;
          }
          bits.fill();
          const int advance = next(bits).advance;
          if (advance == 0) return true;
          k += advance;
          if (k >= kPastEnd) return k == kPastEnd;
          break;
        }
        bits.drop(skip & 31);
        k = to;
      }
      bits.fill();
    }
  }

  // For skip_block: what the next kWindow bits begin with.
  void make_skips() {
    if (!skips_.empty()) return;
    skips_.resize(size_t{1} << kWindow);
    for (int window = 0; window < 1 << kWindow; ++window) {
      int used = 0, advance = 0;
      uint16_t& skip = skips_[static_cast<size_t>(window)];
      skip = static_cast<uint16_t>(kUnknown << 5);
      while (used < kWindow) {
        const int rest = window << used & ((1 << kWindow) - 1);
        const int entry = short_[static_cast<size_t>(rest >> (kWindow - kShort))];
        const int all = entry & 31, size = entry >> 5 & 15, moves = entry >> 9;
        if (entry == 0 || used + all - size > kWindow || used + all > kSkipBits) break;
        used += all;
        advance += moves;
        if (advance >= kPastEnd) break;
        skip = static_cast<uint16_t>((moves == 0 ? kEnds + advance : advance) << 5 | used);
        if (moves == 0) break;
      }
    }
  }

 private:
  static constexpr int kPastEnd = 64;
  static constexpr int kShort = 10;     // bits of codes that are looked up
  static constexpr int kWindow = 12;    // bits in which symbols to be skipped begin
  static constexpr int kSkipBits = 14;  // of such symbols and their values at most
  // By how many coefficients a window moves on is added to kEnds if the block ends in it. kUnknown leads to neither end.
  static constexpr int kEnds = 128, kUnknown = 64;

  // Bits of the code and the value, those of the value, and `advance`, from the lowest bits on.
  static int entry_of(int length, int symbol) {
    const int size = symbol & 15, advance = symbol == 0 ? 0 : (symbol >> 4) + 1;
    return advance << 9 | size << 5 | (length + size);
  }

  [[gnu::noinline]] int long_entry(const JpegBits& bits) const {
    for (int length = kShort + 1; length <= 16; ++length) {
      const int code = bits.peek(length);
      if (code >= end_[static_cast<size_t>(length)]) continue;
      return entry_of(length, symbols_[static_cast<size_t>(code - first_[static_cast<size_t>(length)])]);
    }
    return 2 * kPastEnd << 9;
  }

  std::array<uint8_t, 256> symbols_{};
  std::array<uint16_t, 1 << kShort> short_{};  // 0 for a longer code
  std::array<int, 17> first_{}, end_{};        // by length: what turns a code into an index, and the first code behind
  std::vector<uint16_t> skips_;                // coefficients, and bits below
  bool known_ = false;
};

}  // namespace rskip
