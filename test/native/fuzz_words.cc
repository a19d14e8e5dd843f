#include "fuzz_words.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "program/error.h"
#include "program/geometry.h"
#include "program_writer.h"

namespace rskip::test {
namespace {

// Programs beyond these are too slow to be worth a round.
constexpr int64_t kMaxMemory = 4 << 20, kMaxConstants = 1 << 18, kMaxWork = 1 << 22;
constexpr size_t kMaxWords = 1 << 12;

[[noreturn]] void defect(const char* what, const char* detail = "") {
  std::fprintf(stderr, "fuzz_program: %s %s\n", what, detail);
  std::abort();
}

// Data for the constants that the words ask for, as far as the words of the values can be read.
struct Constants {
  std::vector<std::vector<float>> data;
  std::vector<ConstantData> list;
  bool fit = true;  // within kMaxConstants

  explicit Constants(std::span<const int32_t> words) {
    constexpr size_t kHeader = 8;
    if (words.size() < kHeader) return;
    int64_t room = kMaxConstants;
    size_t at = kHeader;
    for (int32_t v = 0; v < words[2] && at + 3 <= words.size(); ++v) {
      const int32_t type = words[at], constant = words[at + 1], rank = words[at + 2];
      at += 3;
      if (type < 0 || type > 4 || rank < 0 || static_cast<size_t>(rank) > words.size() - at) return;
      int64_t elements = 1;
      for (int32_t d = 0; d < rank; ++d) {
        const int32_t extent = words[at++];
        if (extent < 0) return;
        elements = saturating_mul(elements, extent);
      }
      if (constant < 0) continue;
      room -= std::min(room + 1, elements);
      // Constants are numbered in the order of their values.
      if (room < 0 || static_cast<size_t>(constant) > list.size()) {
        fit = room >= 0;
        return;
      }
      if (static_cast<size_t>(constant) < list.size()) continue;
      const DType dtype = static_cast<DType>(type);
      const size_t bytes = static_cast<size_t>(elements) * dtype_size(dtype);
      Random random(static_cast<uint32_t>(constant) + 1);
      data.push_back(random.reals(bytes / sizeof(float) + 1));
      if (dtype != DType::kFloat32) make_small_integers(data.back(), bytes, dtype);
      static int64_t next_id = 0;
      list.push_back({next_id++, dtype, data.back().data(), bytes});
    }
  }
  // Such as indices and conditions are.
  static void make_small_integers(std::vector<float>& floats, size_t bytes, DType dtype) {
    unsigned char* const raw = reinterpret_cast<unsigned char*>(floats.data());
    std::fill_n(raw, floats.size() * sizeof(float), static_cast<unsigned char>(0));
    const size_t size = dtype_size(dtype);
    for (size_t i = 0; i * size < bytes; ++i) raw[i * size] = static_cast<unsigned char>(i % 2);
  }
};

// About how many elements a step reads.
int64_t work_of(const Program& program, const Step& step) {
  if (step.outputs.empty()) return 0;
  const Value& y = program.value(step.outputs[0]);
  int64_t taps = 1;
  if (step.op == Op::kConv) {
    const Value& weight = program.value(step.inputs[1]);
    taps = weight.shape[0] == 0 ? 0 : weight.elements / weight.shape[0];
  } else if (step.op == Op::kGemm || step.op == Op::kMatmul) {
    taps = program.value(step.inputs[0]).shape.back();
  } else if (step.op == Op::kPool) {
    const Ints& x = program.value(step.inputs[0]).shape;
    for (size_t d = 0; d < step.window.kernel.size(); ++d) {
      taps = saturating_mul(taps, std::min(step.window.kernel[d], x[d + 2]));
    }
  } else if (step.op == Op::kReduceMean || step.op == Op::kGlobalPool) {
    return program.value(step.inputs[0]).elements;
  }
  return saturating_mul(y.elements, std::max<int64_t>(taps, 1));
}

bool quick(const Program& program) {
  int64_t work = 0;
  for (const Step& step : program.steps) work = saturating_add(work, work_of(program, step));
  for (const Value& value : program.values) work = saturating_add(work, value.elements);
  return work <= kMaxWork;
}

// An engine whose memory can be filled with a number.
class Machine {
 public:
  Machine(const KernelTable* table, int threads, float stain) : engine_({threads, table, kMaxMemory}), stain_(stain) {}

  // Null when it is refused.
  std::unique_ptr<CompiledProgram> compile(std::span<const int32_t> words, const Constants& constants) {
    try {
      return engine_.compile(words, constants.list);
    } catch (const EngineError&) {
      return nullptr;
    }
  }

  // The results of a run in memory that holds the stain.
  std::unique_ptr<TestRun> run(CompiledProgram& program, uint32_t policy) {
    fill(program.plan().arena_bytes);
    const int64_t items = program.plan().whole ? 1 : 2;
    auto run = std::make_unique<TestRun>(program.plan(), items, BlockMode::kRun, 0.0f, 1);
    for (size_t b = 0; b < program.plan().blocks.size(); ++b, policy /= 3) {
      const PlanBlock& block = program.plan().blocks[b];
      BlockMode mode = static_cast<BlockMode>(policy % 3);
      if (mode == BlockMode::kGate && !block.has_gate) mode = BlockMode::kSkip;
      if (mode == BlockMode::kSkip && !block.skippable) mode = BlockMode::kRun;
      run->request.modes[b] = mode;
    }
    const RunResult result = program.run_here(run->request);
    if (result.error && result.error->code() == ErrorCode::kInternal) defect("a run failed:", result.error->what());
    return result.error ? nullptr : std::move(run);
  }

 private:
  void fill(size_t bytes) {
    const int32_t floats = static_cast<int32_t>(bytes / sizeof(float));
    if (floats == 0) return;
    ProgramWriter w;
    const int32_t x = w.input({1, 1});
    const int32_t all = w.step(Op::kExpand, {x}, {1, floats});
    w.output(w.step(Op::kGlobalPool, {w.step(Op::kReshape, {all}, {1, 1, floats})}, {1, 1}, {1}));
    const auto program = engine_.compile(w.words(), w.constants());
    TestRun run(program->plan(), 1, BlockMode::kRun);
    std::memcpy(run.inputs[0].data(), &stain_, sizeof(stain_));
    program->run_here(std::move(run.request));
  }

  Engine engine_;
  const float stain_;
};

// NaNs have no agreed bits; where bytes are compared as floats only the numbers count.
bool same(const std::vector<char>& a, const std::vector<char>& b) {
  if (a == b) return true;
  if (a.size() % sizeof(float) != 0) return false;
  for (size_t at = 0; at < a.size(); at += sizeof(float)) {
    float x, y;
    std::memcpy(&x, a.data() + at, sizeof(x));
    std::memcpy(&y, b.data() + at, sizeof(y));
    if (std::memcmp(&x, &y, sizeof(x)) != 0 && !(x != x && y != y)) return false;
  }
  return true;
}

}  // namespace

void fuzz_program(std::span<const int32_t> words) {
  if (words.size() > kMaxWords) return;
  const Constants constants(words);
  if (!constants.fit) return;
  try {
    const Program program = decode_program(words, constants.list);
    if (!quick(program)) return;
  } catch (const EngineError&) {
    return;
  }
  static Machine machines[] = {{table_for(Isa::kScalar), 1, 3.0e38f}, {best_table(), 2, -7.0f}};
  std::unique_ptr<CompiledProgram> programs[2];
  for (size_t i = 0; i < 2; ++i) programs[i] = machines[i].compile(words, constants);
  if ((programs[0] == nullptr) != (programs[1] == nullptr)) defect("only one engine refuses the program");
  if (programs[0] == nullptr) return;
  for (uint32_t policy : {0u, 0xfffffffeu, static_cast<uint32_t>(words.back()) * 2654435761u}) {
    const auto a = machines[0].run(*programs[0], policy), b = machines[1].run(*programs[1], policy);
    if ((a == nullptr) != (b == nullptr)) defect("only one engine's run fails");
    if (a == nullptr) continue;
    if (a->outcomes != b->outcomes) defect("decisions differ");
    for (size_t i = 0; i < a->outputs.size(); ++i) {
      if (!same(a->outputs[i], b->outputs[i])) defect("outputs differ");
    }
    if (programs[0]->plan().blocks.empty()) break;
  }
}

}  // namespace rskip::test
