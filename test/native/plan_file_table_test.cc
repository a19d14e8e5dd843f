// Tables whose rows are read from a file when they are first picked.
#if !defined(_WIN32)
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "plan/file_table.h"
#include "program/error.h"

namespace rskip {
namespace {

constexpr int64_t kOffset = 100;
constexpr int64_t kRows = 500;
constexpr size_t kRowBytes = 1536;

std::byte expected(int64_t row, size_t at) { return static_cast<std::byte>(row * 31 + static_cast<int64_t>(at) * 7); }

// A file of a prefix and the rows; gone with the object.
class TableFile {
 public:
  TableFile() : file_(std::tmpfile()) {
    std::vector<std::byte> bytes(kOffset);
    for (int64_t row = 0; row < kRows; ++row) {
      for (size_t at = 0; at < kRowBytes; ++at) bytes.push_back(expected(row, at));
    }
    std::fwrite(bytes.data(), 1, bytes.size(), file_);
    std::fflush(file_);
  }
  ~TableFile() { close(); }
  int descriptor() const { return ::fileno(file_); }
  void close() {
    if (file_ != nullptr) std::fclose(file_);
    file_ = nullptr;
  }

 private:
  std::FILE* file_;
};

void expect_row(const FileTable& table, int64_t row) {
  const std::byte* const bytes = table.row(row);
  for (size_t at = 0; at < kRowBytes; ++at) ASSERT_EQ(bytes[at], expected(row, at)) << "row " << row << ", byte " << at;
}

ErrorCode code_of_row(const FileTable& table, int64_t row) {
  try {
    table.row(row);
  } catch (const EngineError& error) {
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kInternal;
}

TEST(FileTable, HasTheFilesRowsAfterTheDescriptorIsClosed) {
  TableFile file;
  const FileTable table(file.descriptor(), kOffset, kRows, kRowBytes);
  file.close();
  for (int64_t row : {int64_t{0}, kRows - 1, int64_t{7}, int64_t{7}}) expect_row(table, row);
}

TEST(FileTable, IsReadByManyThreads) {
  TableFile file;
  const FileTable table(file.descriptor(), kOffset, kRows, kRowBytes);
  std::vector<std::thread> threads;
  for (int64_t step : {1, 3, 7, 9}) {
    threads.emplace_back([&table, step] {
      for (int64_t i = 0; i < kRows; ++i) expect_row(table, i * step % kRows);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(FileTable, RefusesRowsOfAFileThatHasChanged) {
  TableFile file;
  const FileTable table(file.descriptor(), kOffset, kRows, kRowBytes);
  expect_row(table, 3);
  ASSERT_EQ(::ftruncate(file.descriptor(), kOffset + static_cast<int64_t>(kRowBytes) * 10 + 5), 0);
  EXPECT_EQ(code_of_row(table, 4), ErrorCode::kReadFailed);
  EXPECT_EQ(code_of_row(table, 10), ErrorCode::kReadFailed);
  EXPECT_EQ(code_of_row(table, kRows - 1), ErrorCode::kReadFailed);
  expect_row(table, 3);
}

TEST(FileTable, NeedsAnOpenFile) {
  TableFile file;
  const int descriptor = file.descriptor();
  file.close();
  EXPECT_THROW(FileTable(descriptor, kOffset, kRows, kRowBytes), EngineError);
}

}  // namespace
}  // namespace rskip
#endif
