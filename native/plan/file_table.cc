#include "plan/file_table.h"

#include <cerrno>
#include <new>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "program/error.h"

namespace rskip {

#if !defined(_WIN32)

namespace {

[[noreturn]] void fail() {
  throw EngineError(ErrorCode::kReadFailed,
                    "model: its file changed after it was loaded, and weights in it are needed; create another session");
}

}  // namespace

void read_file(int file, int64_t offset, void* to, size_t bytes) {
  for (auto* at = static_cast<std::byte*>(to); bytes > 0;) {
    const ssize_t read = ::pread(file, at, bytes, static_cast<off_t>(offset));
    if (read < 0 && errno == EINTR) continue;
    if (read <= 0) fail();
    at += read;
    offset += read;
    bytes -= static_cast<size_t>(read);
  }
}

FileTable::Stamp FileTable::stamp_of(int file) {
  struct stat status;
  if (::fstat(file, &status) != 0) fail();
#if defined(__APPLE__)
  const timespec& changed = status.st_mtimespec;
#else
  const timespec& changed = status.st_mtim;
#endif
  return {status.st_size, changed.tv_sec, changed.tv_nsec};
}

FileTable::FileTable(int file, int64_t offset, int64_t rows, size_t row_bytes)
    : offset_(offset), rows_(rows), row_bytes_(row_bytes), stamp_(stamp_of(file)), present_(static_cast<size_t>(rows)) {
  const size_t bytes = static_cast<size_t>(rows) * row_bytes;
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
#if defined(MADV_NOHUGEPAGE)
  ::madvise(memory_, bytes, MADV_NOHUGEPAGE);
#endif
  file_ = ::fcntl(file, F_DUPFD_CLOEXEC, 0);
  if (file_ >= 0) return;
  ::munmap(memory_, bytes);
  throw EngineError(ErrorCode::kReadFailed, "model: its file can't be kept open; close other files");
}

FileTable::~FileTable() {
  ::close(file_);
  ::munmap(memory_, static_cast<size_t>(rows_) * row_bytes_);
}

void FileTable::read(int64_t index) const {
  std::lock_guard lock(mutex_);
  std::atomic<bool>& present = present_[static_cast<size_t>(index)];
  if (present.load(std::memory_order_relaxed)) return;
  const size_t at = static_cast<size_t>(index) * row_bytes_;
  read_file(file_, offset_ + static_cast<int64_t>(at), memory_ + at, row_bytes_);
  if (stamp_of(file_) != stamp_) fail();
  present.store(true, std::memory_order_release);
}

#else  // Programs for Windows come with all of their constants.

namespace {

[[noreturn]] void fail() {
  throw EngineError(ErrorCode::kInternal, "model: weights aren't read from files on this system");
}

}  // namespace

void read_file(int, int64_t, void*, size_t) { fail(); }
FileTable::Stamp FileTable::stamp_of(int) { fail(); }
FileTable::FileTable(int file, int64_t offset, int64_t rows, size_t row_bytes)
    : offset_(offset), rows_(rows), row_bytes_(row_bytes), stamp_(stamp_of(file)) {}
FileTable::~FileTable() = default;
void FileTable::read(int64_t) const { fail(); }

#endif

}  // namespace rskip
