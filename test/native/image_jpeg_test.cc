// JPEG files that are damaged in every place: the decoder says so, or gives pixels, and touches no other memory.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "image/jpeg.h"

namespace rskip::test {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes file_of(const std::string& name) {
  std::ifstream file(std::string(RSKIP_JPEG_FILES) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Size and channels that the frame header says, for any of its markers; none for a damaged header.
JpegRequest request_of(const Bytes& file, int shrink, int orientation) {
  for (size_t at = 2; at + 10 <= file.size() && file[at] == 0xff;) {
    const auto word = [&](size_t i) { return file[i] << 8 | file[i + 1]; };
    if (file[at + 1] == 0xc0 || file[at + 1] == 0xc1) return {word(at + 7), word(at + 5), file[at + 9], shrink, orientation};
    at += 2 + static_cast<size_t>(word(at + 2));
  }
  return {};
}

// Whether it was decoded. Memory is as large as the result, so that a sanitizer sees what lies beyond.
bool decodes(const Bytes& file, const JpegRequest& request, const KernelTable& table, Bytes* pixels = nullptr) {
  const bool is_image = request.width > 0 && request.height > 0 && (request.channels == 1 || request.channels == 3);
  const int64_t size = int64_t{request.width} * request.height;
  if (!is_image || size > 1 << 20) return false;
  Bytes result(static_cast<size_t>(request.columns()) * static_cast<size_t>(request.rows()) * static_cast<size_t>(request.channels));
  const bool done = decode_jpeg(file, request, table, result.data());
  if (pixels) *pixels = std::move(result);
  return done;
}

class Jpeg : public testing::TestWithParam<const char*> {
 protected:
  const Bytes file_ = file_of(GetParam());
  std::mt19937 random_{7};

  int below(int end) { return std::uniform_int_distribution<int>(0, end - 1)(random_); }
  JpegRequest request(const Bytes& file) { return request_of(file, 1 << below(4), 1 + below(8)); }
};

TEST_P(Jpeg, IsDecodedToTheSamePixelsEverywhere) {
  for (const int shrink : {1, 2, 4, 8}) {
    for (int orientation = 1; orientation <= 8; ++orientation) {
      const JpegRequest request = request_of(file_, shrink, orientation);
      Bytes expected;
      ASSERT_TRUE(decodes(file_, request, *best_table(), &expected));
      for (const KernelTable* table : available_tables()) {
        Bytes pixels;
        EXPECT_TRUE(decodes(file_, request, *table, &pixels));
        EXPECT_EQ(pixels, expected);
      }
    }
  }
}

TEST_P(Jpeg, CutAnywhereIsDamaged) {
  const JpegRequest whole = request_of(file_, 1, 1);
  for (size_t end = 0; end < file_.size(); end += end < 1000 ? 1 : 97) {
    EXPECT_FALSE(decodes({file_.begin(), file_.begin() + static_cast<ptrdiff_t>(end)}, whole, *best_table())) << end;
  }
}

TEST_P(Jpeg, WithOtherBytesTouchesNoOtherMemory) {
  const std::vector<const KernelTable*> tables = available_tables();
  int decoded = 0;
  for (int trial = 0; trial < 1500; ++trial) {
    Bytes file = file_;
    // Most of a file is the scan, but most decisions are before.
    const int end = static_cast<int>(trial % 2 ? file.size() : std::min<size_t>(file.size(), 700));
    for (int changes = 1 + below(4); changes > 0; --changes) {
      uint8_t& byte = file[static_cast<size_t>(below(end))];
      byte = static_cast<uint8_t>(below(2) ? byte ^ (1 << below(8)) : below(256));
    }
    const KernelTable& table = *tables[static_cast<size_t>(below(static_cast<int>(tables.size())))];
    // As of the damaged file, or of the whole one.
    decoded += decodes(file, request(below(2) ? file : file_), table);
  }
  EXPECT_GT(decoded, 0);
}

INSTANTIATE_TEST_SUITE_P(Files, Jpeg, testing::Values("photo.jpg", "restarts.jpg"));

}  // namespace
}  // namespace rskip::test
