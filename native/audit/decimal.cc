#include "audit/decimal.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace rskip {
namespace {

constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int kMaxDecimals = 22;
constexpr double kBillion = 1e9;
constexpr double kMaxInteger = 9007199254740991;  // above it, not every integer is a double
constexpr int kMaxDigits = 9;

// To the nearest integer, halves upwards: as Math.round does with what isn't negative.
double round_half_up(double value) {
  const double up = std::ceil(value);
  return up - 0.5 > value ? up - 1 : up;
}

void append_integer(std::string& text, uint64_t value, int width) {
  char digits[20];
  int at = 20;
  for (; value > 0 || 20 - at < width; value /= 10) digits[--at] = static_cast<char>('0' + value % 10);
  text.append(digits + at, static_cast<size_t>(20 - at));
}

// `whole` / 10^`decimals`.
void append_quotient(std::string& text, bool negative, uint64_t whole, int decimals) {
  for (; decimals > 0 && whole % 10 == 0; --decimals) whole /= 10;
  if (negative && whole > 0) text += '-';
  const auto power = static_cast<uint64_t>(kPowers[decimals]);
  append_integer(text, whole / power, 1);
  if (decimals == 0) return;
  text += '.';
  append_integer(text, whole % power, decimals);
}

// How many decimals make the shortest decimal of 6 to 9 digits that is the same float32; -1 where that is not to be
// written as a quotient of two exact doubles.
int decimals_of(double size) {
  int decimals = 0;
  while (size * kPowers[decimals] < 1e5) ++decimals;
  for (const int most = decimals + 3; decimals <= most && decimals <= kMaxDecimals; ++decimals) {
    const double whole = round_half_up(size * kPowers[decimals]);
    if (whole < kBillion && static_cast<double>(static_cast<float>(whole / kPowers[decimals])) == size) {
      return decimals;
    }
  }
  return -1;
}

// As JavaScript writes the number 0.DIGITS * 10^`point` (ECMA-262, Number::toString).
void append_number(std::string& text, const std::string& digits, int point) {
  const int n = static_cast<int>(digits.size());
  if (n <= point && point <= 21) {
    text.append(digits).append(static_cast<size_t>(point - n), '0');
    return;
  }
  if (-6 < point && point <= 0) {
    text.append("0.").append(static_cast<size_t>(-point), '0').append(digits);
    return;
  }
  text += digits[0];
  if (n > 1) text.append(1, '.').append(digits, 1, std::string::npos);
  text.append(point > 0 ? "e+" : "e").append(std::to_string(point - 1));
}

// A float32 below 10^-6 or from 10^9 on, which is rare. Its point does not come between its digits.
void append_extreme(std::string& text, double size) {
  for (int count = 6; count <= kMaxDigits; ++count) {
    char scientific[40];
    std::snprintf(scientific, sizeof scientific, "%.*e", count - 1, size);
    // The character of the decimal point depends on the locale.
    std::string digits;
    const char* at = scientific;
    for (; *at != 'e'; ++at) {
      if (*at >= '0' && *at <= '9') digits += *at;
    }
    const int exponent = std::atoi(at + 1);
    const std::string same = digits + "e" + std::to_string(exponent - (count - 1));
    if (count < kMaxDigits && static_cast<double>(static_cast<float>(std::strtod(same.c_str(), nullptr))) != size) {
      continue;
    }
    digits.erase(digits.find_last_not_of('0') + 1);
    return append_number(text, digits, exponent + 1);
  }
}

}  // namespace

void append_fixed(std::string& text, double value, int decimals) {
  const double whole = round_half_up(std::fabs(value) * kPowers[decimals]);
  if (whole <= kMaxInteger) {
    append_quotient(text, value < 0, static_cast<uint64_t>(whole), decimals);
  } else if (!std::isfinite(value)) {
    text += "null";
  } else {
    // No time, count or probability is that large.
    char digits[400];
    text.append(digits, static_cast<size_t>(std::snprintf(digits, sizeof digits, "%.0f", value)));
  }
}

void append_float(std::string& text, float value) {
  if (!std::isfinite(value)) {
    text += "null";
    return;
  }
  const double size = std::fabs(static_cast<double>(value));
  const int decimals = size >= 1e-6 && size < kBillion ? decimals_of(size) : -1;
  if (decimals >= 0) {
    const double whole = round_half_up(size * kPowers[decimals]);
    append_quotient(text, value < 0, static_cast<uint64_t>(whole), decimals);
  } else if (size == 0) {
    text += '0';
  } else {
    if (value < 0) text += '-';
    append_extreme(text, size);
  }
}

}  // namespace rskip
