// Weights that stay in a file.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace rskip {

// Throws EngineError, kReadFailed, when the file ends before.
void read_file(int file, int64_t offset, void* to, size_t bytes);

// Rows of a constant in a file, each of which is read when it is first picked: runs need few of a table of embeddings. The memory of
// the others is never touched.
class FileTable {
 public:
  // The descriptor may be closed afterwards. Throws EngineError, or std::bad_alloc.
  FileTable(int file, int64_t offset, int64_t rows, size_t row_bytes);
  ~FileTable();
  FileTable(const FileTable&) = delete;
  FileTable& operator=(const FileTable&) = delete;

  int64_t rows() const { return rows_; }
  size_t row_bytes() const { return row_bytes_; }
  // Thread-safe. Throws EngineError, kReadFailed, when the file has changed since.
  const std::byte* row(int64_t index) const {
    if (!present_[static_cast<size_t>(index)].load(std::memory_order_acquire)) read(index);
    return memory_ + static_cast<size_t>(index) * row_bytes_;
  }

 private:
  // What changes with a file's content.
  struct Stamp {
    int64_t size = 0;
    int64_t seconds = 0;
    int64_t nanoseconds = 0;
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp_of(int file);
  void read(int64_t index) const;

  const int64_t offset_;
  const int64_t rows_;
  const size_t row_bytes_;
  const Stamp stamp_;
  int file_ = -1;
  std::byte* memory_ = nullptr;
  mutable std::mutex mutex_;
  mutable std::vector<std::atomic<bool>> present_;
};

}  // namespace rskip
