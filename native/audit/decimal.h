// Numbers as the audit log writes them, the same text as lib/audit/line.ts makes of them.
#pragma once

#include <string>

namespace rskip {

// A number rounded to so many decimals, 9 at most, without zeros at its end; null where it isn't finite.
void append_fixed(std::string& text, double value, int decimals);

// The shortest decimal of 6 to 9 digits that is the same float32, without zeros at its end, as JSON has it; null where it
// isn't finite.
void append_float(std::string& text, float value);

}  // namespace rskip
