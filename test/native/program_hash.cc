// Runs a program that scripts/dump-program.mjs wrote, and prints a hash of outputs and traces: the same on every
// machine, instruction set and number of threads.
//   program_hash FILE [ISA [THREADS]]
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "run/engine.h"

namespace {

using Bytes = std::vector<char>;

class File {
 public:
  explicit File(const char* path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("the file can't be read");
    data_.assign(std::istreambuf_iterator<char>(in), {});
    if (data_.size() < 8 || std::memcmp(data_.data(), "RSKPROG1", 8) != 0) throw std::runtime_error("not a program");
    at_ = 8;
  }
  int32_t next() {
    int32_t value;
    if (data_.size() - at_ < sizeof(value)) throw std::runtime_error("the file ends too early");
    std::memcpy(&value, data_.data() + at_, sizeof(value));
    at_ += sizeof(value);
    return value;
  }
  Bytes bytes() {
    const size_t size = static_cast<uint32_t>(next());
    if (data_.size() - at_ < size) throw std::runtime_error("the file ends too early");
    Bytes out(data_.begin() + static_cast<ptrdiff_t>(at_), data_.begin() + static_cast<ptrdiff_t>(at_ + size));
    at_ += (size + 3) / 4 * 4;
    return out;
  }
  template <class T>
  std::vector<T> array() {
    const Bytes raw = bytes();
    std::vector<T> out(raw.size() / sizeof(T));
    if (!out.empty()) std::memcpy(out.data(), raw.data(), out.size() * sizeof(T));
    return out;
  }

 private:
  Bytes data_;
  size_t at_ = 0;
};

// FNV-1a.
void mix(uint64_t& hash, const void* data, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3;
}

int run(int argc, char** argv) {
  File file(argv[1]);
  rskip::EngineOptions options;
  for (const rskip::KernelTable* table : rskip::available_tables()) {
    if (argc > 2 && std::strcmp(argv[2], table->name) == 0) options.table = table;
  }
  if (argc > 2 && options.table == nullptr) throw std::runtime_error("this instruction set can't run here");
  options.threads = argc > 3 ? std::stoi(argv[3]) : 1;

  const std::vector<int32_t> words = file.array<int32_t>();
  std::vector<Bytes> data;
  std::vector<rskip::ConstantData> constants;
  for (int32_t n = file.next(); n > 0; --n) {
    const int32_t id = file.next(), type = file.next();
    data.push_back(file.bytes());
    constants.push_back({id, static_cast<rskip::DType>(type), data.back().data(), data.back().size()});
  }
  rskip::Engine engine(options);
  const auto program = engine.compile(words, constants);

  rskip::RunRequest request;
  request.items = file.next();
  std::vector<Bytes> inputs, outputs;
  for (int32_t n = file.next(); n > 0; --n) {
    inputs.push_back(file.bytes());
    request.inputs.push_back({inputs.back().data(), inputs.back().size()});
  }
  request.modes = file.array<rskip::BlockMode>();
  request.thresholds = file.array<float>();
  for (const rskip::PlanPort& port : program->plan().outputs) {
    outputs.emplace_back(port.item_bytes * static_cast<size_t>(port.batched ? request.items : 1));
    request.outputs.push_back({outputs.back().data(), outputs.back().size()});
  }
  std::vector<uint8_t> outcomes(static_cast<size_t>(request.items) * request.modes.size());
  std::vector<float> scores(outcomes.size());
  request.outcomes = outcomes;
  request.scores = scores;
  const size_t rows = static_cast<size_t>(request.items);
  const rskip::RunResult result = program->run_here(std::move(request));
  if (result.error) throw *result.error;

  uint64_t hash = 0xcbf29ce484222325;
  for (const Bytes& output : outputs) mix(hash, output.data(), output.size());
  mix(hash, outcomes.data(), outcomes.size());
  // A NaN stands for "not asked" and has no agreed bits.
  for (float score : scores) {
    if (score == score) mix(hash, &score, sizeof(score));
  }
  size_t skipped = 0;
  const size_t blocks = program->plan().blocks.size();
  for (size_t i = 0; i < outcomes.size(); ++i) skipped += i % program->plan().decisions() < blocks && outcomes[i] == 0;
  std::printf("%016" PRIx64 " isa=%s threads=%d items=%zu skipped=%zu instructions=%" PRIu64 "\n", hash,
              engine.table().name, engine.threads(), rows, skipped, result.instructions);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: program_hash FILE [ISA [THREADS]]\n");
    return 2;
  }
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "program_hash: %s\n", error.what());
    return 1;
  }
}
