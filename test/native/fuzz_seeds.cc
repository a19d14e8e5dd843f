// Writes the programs of fuzz_seeds.h to files: fuzz_seeds FOLDER.
#include "fuzz_seeds.h"

#include <cstdio>
#include <fstream>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  for (const auto& [name, writer] : rskip::test::fuzz_seeds()) {
    const rskip::test::Words words = writer.words();
    std::ofstream out(std::string(argv[1]) + "/" + name, std::ios::binary);
    out.write(reinterpret_cast<const char*>(words.data()), static_cast<std::streamsize>(words.size() * sizeof(int32_t)));
    if (!out) return 1;
  }
  return 0;
}
