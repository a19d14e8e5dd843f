// Programs that once failed under fuzzing, and those that fuzzing starts from.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz_words.h"
#include "fuzz_seeds.h"

namespace rskip::test {
namespace {

TEST(Fuzzing, WhatOnceFailedNoLongerDoes) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(RSKIP_FUZZ_CORPUS)) {
    SCOPED_TRACE(entry.path().filename());
    std::ifstream in(entry.path(), std::ios::binary);
    const std::vector<char> bytes(std::istreambuf_iterator<char>(in), {});
    Words words(bytes.size() / sizeof(int32_t));
    std::memcpy(words.data(), bytes.data(), words.size() * sizeof(int32_t));
    fuzz_program(words);
    ++files;
  }
  EXPECT_GT(files, 0);
}

TEST(Fuzzing, SeedsAreProgramsThatRun) {
  Engine engine({.threads = 1});
  for (const auto& [name, writer] : fuzz_seeds()) {
    SCOPED_TRACE(name);
    std::unique_ptr<CompiledProgram> program;
    ASSERT_NO_THROW(program = engine.compile(writer.words(), writer.constants()));
    TestRun run(program->plan(), 1, BlockMode::kRun);
    EXPECT_FALSE(program->run_here(std::move(run.request)).error);
    fuzz_program(writer.words());
  }
}

}  // namespace
}  // namespace rskip::test
