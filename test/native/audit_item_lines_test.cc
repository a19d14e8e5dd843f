// Lines of the audit log; that they are the ones of lib/audit is shown by test/unit/audit/batch.test.ts.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "audit/decimal.h"
#include "audit/item_lines.h"

namespace rskip::test {
namespace {

std::string fixed(double value, int decimals) {
  std::string text;
  append_fixed(text, value, decimals);
  return text;
}

std::string shortest(float value) {
  std::string text;
  append_float(text, value);
  return text;
}

TEST(Decimal, FixedHasNoZerosAtItsEnd) {
  EXPECT_EQ(fixed(0, 0), "0");
  EXPECT_EQ(fixed(1'790'000'000'123.0, 0), "1790000000123");
  EXPECT_EQ(fixed(9007199254740991.0, 0), "9007199254740991");
  EXPECT_EQ(fixed(0.21234567, 4), "0.2123");
  EXPECT_EQ(fixed(0.99999999, 6), "1");
  EXPECT_EQ(fixed(-0.00001, 4), "0");
  EXPECT_EQ(fixed(-2.5, 4), "-2.5");
  EXPECT_EQ(fixed(0.0625, 4), "0.0625");
  EXPECT_EQ(fixed(std::numeric_limits<double>::quiet_NaN(), 4), "null");
}

TEST(Decimal, FloatsAreShortAndReadBack) {
  EXPECT_EQ(shortest(0.1F), "0.1");
  EXPECT_EQ(shortest(-12.5F), "-12.5");
  EXPECT_EQ(shortest(1e-6F), "0.000001");
  EXPECT_EQ(shortest(-0.0F), "0");
  EXPECT_EQ(shortest(1e-10F), "1e-10");
  EXPECT_EQ(shortest(1.5e20F), "150000000000000000000");
  EXPECT_EQ(shortest(1e30F), "1e+30");
  EXPECT_EQ(shortest(std::numeric_limits<float>::denorm_min()), "1.4013e-45");
  EXPECT_EQ(shortest(std::numeric_limits<float>::infinity()), "null");
  for (uint32_t i = 1; i < 20'000; ++i) {
    const auto value = std::ldexp(static_cast<float>(i * 2654435761U), static_cast<int>(i % 180) - 110);
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(std::strtof(shortest(value).c_str(), nullptr), value) << shortest(value);
  }
}

class ItemLines : public testing::Test {
 protected:
  void SetUp() override {
    if (!can_sha256()) GTEST_SKIP() << "this machine has no instructions for it";
  }
};

TEST_F(ItemLines, AreLinkedAndWhole) {
  const std::vector<float> answer{0, 1, 1}, scores{0.25F, std::numeric_limits<float>::quiet_NaN()};
  const std::vector<uint8_t> ran{1, 0}, reasons{0, 4}, input{1, 2, 3};
  ItemRow row{1000, 2, 0, 0.5, std::numeric_limits<double>::quiet_NaN(), ran, reasons, scores, "[\"a\",0.5]", ",\"request\":\"r\"", {}, answer};
  std::string text;
  Link link;
  link.fill('0');
  append_record(text, link, "{\"type\":\"header\"}");
  append_items(text, link, {&row, 1}, 2, Meaning::kLogits);
  row.input = {input.data(), input.size()};
  append_items(text, link, {&row, 1}, 9, Meaning::kProbabilities);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0].substr(0, 26), "{\"type\":\"header\",\"link\":\"" + lines[0].substr(25, 1));
  const std::string begin =
      "{\"type\":\"item\",\"time\":1000,\"run\":2,\"item\":0,\"input\":null,\"ran\":\"10\",\"reasons\":\"gx\","
      "\"scores\":[0.25,null],\"exits\":[[\"a\",0.5]],\"request\":\"r\",\"output\":\"";
  EXPECT_EQ(lines[1].substr(0, begin.size()), begin);
  EXPECT_NE(lines[1].find("\"top\":[[1,0.422319],[2,0.422319]],\"milliseconds\":0.5,\"link\":\""), std::string::npos);
  EXPECT_NE(lines[2].find("\"input\":\"039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81\""),
            std::string::npos);
  EXPECT_EQ(std::string(link.data(), link.size()), lines[2].substr(lines[2].size() - 66, 64));
}

}  // namespace
}  // namespace rskip::test
