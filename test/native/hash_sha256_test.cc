// SHA-256 against digests that FIPS 180-4's own examples and other implementations give.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "hash/sha256.h"

namespace rskip::test {
namespace {

std::vector<std::string> digests_of(const std::vector<std::string>& texts) {
  std::vector<Message> messages;
  for (const std::string& text : texts) {
    messages.push_back({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  std::vector<uint8_t> digests(texts.size() * kDigestBytes);
  sha256(messages, digests.data());
  std::vector<std::string> hex(texts.size());
  for (size_t i = 0; i < digests.size(); ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", digests[i]);
    hex[i / kDigestBytes] += two;
  }
  return hex;
}

class Sha256 : public testing::Test {
 protected:
  void SetUp() override {
    if (!can_sha256()) GTEST_SKIP() << "this machine has no instructions for it";
  }
};

const std::string kEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const std::string kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const std::string kTwoBlocks = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
const std::string kMillion = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST_F(Sha256, KnowsTheExamplesOfTheStandard) {
  const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  const std::string million(1'000'000, 'a');
  EXPECT_EQ(digests_of({"", "abc", two_blocks, million, "abc"}),
            (std::vector{kEmpty, kAbc, kTwoBlocks, kMillion, kAbc}));
  EXPECT_EQ(digests_of({million, "", million, million}), (std::vector{kMillion, kEmpty, kMillion, kMillion}));
}

TEST_F(Sha256, GivesAMessageTheSameDigestWhateverItsNeighbour) {
  for (size_t length = 0; length < 300; ++length) {
    const std::string text(length, static_cast<char>(length)), other(300 - length, 'x');
    const std::string alone = digests_of({text})[0];
    EXPECT_EQ(digests_of({text, other})[0], alone);
    EXPECT_EQ(digests_of({other, text})[1], alone);
    EXPECT_EQ(digests_of({text, text})[1], alone);
  }
}

}  // namespace
}  // namespace rskip::test
