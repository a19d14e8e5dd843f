// libFuzzer's side of fuzz_program(): files of words, little-endian, changed word by word. scripts/ci/native.sh fuzz builds
// and runs it.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "fuzz_words.h"
#include "program_writer.h"

namespace {

using rskip::test::Random;

std::vector<int32_t> words_of(const uint8_t* data, size_t size) {
  std::vector<int32_t> words(size / sizeof(int32_t));
  if (!words.empty()) std::memcpy(words.data(), data, words.size() * sizeof(int32_t));
  return words;
}

// Extents, indices and counts are small; what overflows is next to a power of two.
int32_t interesting(Random& random) {
  switch (random.below(4)) {
    case 0: return static_cast<int32_t>(random.below(6)) - 1;
    case 1: return static_cast<int32_t>(random.below(40));
    case 2: return static_cast<int32_t>((1u << random.below(32)) + random.below(3) - 1);
    default: return static_cast<int32_t>(random.next());
  }
}

void change(std::vector<int32_t>& words, size_t most, Random& random) {
  if (words.empty()) words.push_back(0);
  const size_t at = random.below(static_cast<uint32_t>(words.size()));
  switch (random.below(7)) {
    case 0: words[at] = interesting(random); break;
    case 1: words[at] = static_cast<int32_t>(static_cast<uint32_t>(words[at]) + random.below(3) - 1); break;
    case 2: words[at] = words[random.below(static_cast<uint32_t>(words.size()))]; break;
    case 3: {  // the same change wherever the number is: an extent of several values
      const int32_t from = words[at], to = interesting(random);
      for (int32_t& word : words) word = word == from ? to : word;
      break;
    }
    case 4: words.insert(words.begin() + static_cast<ptrdiff_t>(at), interesting(random)); break;
    case 5: words.erase(words.begin() + static_cast<ptrdiff_t>(at)); break;
    default: {  // a run of words once more, such as a step
      const size_t length = std::min<size_t>(1 + random.below(24), words.size() - at);
      const std::vector<int32_t> run(words.begin() + static_cast<ptrdiff_t>(at),
                                     words.begin() + static_cast<ptrdiff_t>(at + length));
      const size_t to = random.below(static_cast<uint32_t>(words.size()));
      words.insert(words.begin() + static_cast<ptrdiff_t>(to), run.begin(), run.end());
    }
  }
  if (words.size() > most) words.resize(most);
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  rskip::test::fuzz_program(words_of(data, size));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  Random random(seed);
  if (random.below(4) == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<int32_t> words = words_of(data, size);
  for (uint32_t n = 1 + random.below(3); n > 0; --n) change(words, max_size / sizeof(int32_t), random);
  if (!words.empty()) std::memcpy(data, words.data(), words.size() * sizeof(int32_t));
  return words.size() * sizeof(int32_t);
}
