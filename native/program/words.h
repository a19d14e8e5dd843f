// Reads the words of a program in order. Every read is checked; what doesn't fit throws EngineError(kInternal).
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <string>

#include "program/error.h"
#include "program/program.h"

namespace rskip {

[[noreturn]] inline void fail_program(const std::string& what) {
  throw EngineError(ErrorCode::kInternal, "program: " + what);
}

class Words {
 public:
  explicit Words(std::span<const int32_t> words) : words_(words) {}

  int32_t next() {
    if (at_ >= words_.size()) fail_program("the words end too early");
    return words_[at_++];
  }
  // A word in [low, high].
  int32_t in_range(int32_t low, int32_t high, const char* what) {
    const int32_t word = next();
    if (word < low || word > high) fail_program(std::string(what) + " " + std::to_string(word) + " is out of range");
    return word;
  }
  // A word in [low, high]; sizes of programs fit 31 bits, as they are counted in words.
  size_t position(size_t low, size_t high, const char* what) {
    return static_cast<size_t>(in_range(static_cast<int32_t>(low), static_cast<int32_t>(high), what));
  }
  // The number of things that take at least one word each.
  size_t count(const char* what) {
    const int32_t word = next();
    if (word < 0 || static_cast<size_t>(word) > words_.size() - at_) fail_program(std::string("bad number of ") + what);
    return static_cast<size_t>(word);
  }
  // An enumerator, up to `last`.
  template <class E>
  E one_of(E last, const char* what) {
    return static_cast<E>(in_range(0, static_cast<int32_t>(last), what));
  }
  // An index into a table of `size` entries.
  template <class Id>
  Id id(size_t size, const char* what) {
    if (size == 0) fail_program(std::string(what) + " of nothing");
    return Id(position(0, size - 1, what));
  }
  // The same, or none, which is -1.
  template <class Id>
  Id optional_id(size_t size, const char* what) {
    const int32_t word = in_range(-1, static_cast<int32_t>(size) - 1, what);
    return word < 0 ? Id() : Id(static_cast<size_t>(word));
  }
  bool flag() { return in_range(0, 1, "flag") != 0; }
  float real() { return std::bit_cast<float>(next()); }
  Ints ints(size_t n) {
    if (n > words_.size() - at_) fail_program("a list is longer than the words");
    Ints list(n);
    for (int64_t& value : list) value = next();
    return list;
  }
  Activation activation() {
    Activation act;
    act.kind = one_of(ActivationKind::kCos, "activation");
    act.alpha = real();
    act.beta = real();
    return act;
  }
  bool done() const { return at_ == words_.size(); }

 private:
  std::span<const int32_t> words_;
  size_t at_ = 0;
};

}  // namespace rskip
