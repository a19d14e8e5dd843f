// What the fuzzer does with the words of a program: the engine must refuse them, or run them within its buffers and with
// the same bits on every instruction set, whatever its memory held before.
#pragma once

#include <cstdint>
#include <span>

namespace rskip::test {

// Aborts the process when a run breaks that. Constants, inputs and policies are made up to fit.
void fuzz_program(std::span<const int32_t> words);

}  // namespace rskip::test
