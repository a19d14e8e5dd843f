// The native backend without Node: an engine owns workers and packed weights; compiled programs run on it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "plan/plan.h"
#include "plan/weight_cache.h"
#include "program/error.h"
#include "program/program.h"
#include "run/executor.h"
#include "run/path_time.h"
#include "run/worker_pool.h"

namespace rskip {

struct EngineOptions {
  int threads = 0;                     // 0: cpu_budget()
  const KernelTable* table = nullptr;  // null: the best that this machine can run
  int64_t memory_limit = 0;            // bytes that runs may need at a time; 0: half of memory_budget(), all for one item
  std::chrono::milliseconds keep_memory = kKeepMemory;  // that isn't needed
};

// A span of bytes that the caller keeps alive during a run.
struct InputBytes {
  const void* data = nullptr;
  size_t bytes = 0;
};
struct OutputBytes {
  void* data = nullptr;
  size_t bytes = 0;
};

// As RunRequest in lib/backends/backend.ts. Everything pointed to must live until the run has ended.
struct RunRequest {
  int64_t items = 1;
  std::vector<InputBytes> inputs;
  std::vector<OutputBytes> outputs;
  std::vector<BlockMode> modes;  // of every decision: of the blocks, then kGate for each exit
  std::vector<float> thresholds;
  std::span<uint8_t> outcomes;  // items x decisions
  std::span<float> scores;
  std::vector<OutputBytes> states;  // of each item, state_bytes() of the plan, or none; empty for none of all
  std::span<double> times;  // items x code x [begin, end], for a profile; empty without
  const int32_t* abort_flag = nullptr;  // not 0: stop
};

// How a run ended.
struct RunResult {
  std::optional<EngineError> error;
  uint64_t instructions = 0;  // that were executed, over all items
  int64_t cost = 0;           // of their code, as in Plan
  double longest_ms = 0;      // as PathTime::longest() of the program, this run included
};

class Engine;
class ProgramRun;

class CompiledProgram {
 public:
  // Checks the request: throws EngineError(kInvalidArgument) when a length or a mode doesn't fit.
  // `done` is called once, on a worker's thread.
  void run(RunRequest request, std::function<void(const RunResult&)> done);
  // The calling thread works too.
  RunResult run_here(RunRequest request);
  const Plan& plan() const { return *plan_; }

 private:
  friend class Engine;
  friend class ProgramRun;
  CompiledProgram(Engine& engine, std::unique_ptr<const Plan> plan);
  void check(const RunRequest& request) const;
  std::shared_ptr<ProgramRun> begin(RunRequest request, int max_workers, std::function<void(const RunResult&)> done);
  Engine& engine_;
  std::shared_ptr<const Plan> plan_;
  // What runs share, with the mutex held.
  struct Shared {
    std::mutex mutex;
    std::vector<std::unique_ptr<Frame>> idle_frames;
    PathTime path_time;
  };
  std::shared_ptr<Shared> shared_;
};

class Engine {
 public:
  explicit Engine(const EngineOptions& options);
  // Cancels the runs under way and waits for them. Their `done` is still called.
  ~Engine() = default;

  const KernelTable& table() const { return *table_; }
  int threads() const { return pool_.threads(); }
  // Thread-safe. Weights are packed by as many threads as the process may use, however many the engine runs with.
  // Programs must not outlive the engine. Throws EngineError.
  // `precision` and `progress` are those of PlanContext.
  std::unique_ptr<CompiledProgram> compile(std::span<const int32_t> words, std::span<const ConstantData> constants,
                                           Precision precision = Precision::kFloat32, int32_t* progress = nullptr);
  void cancel_all() { pool_.cancel_all(); }
  // For workers with nothing else to do; see WorkerPool.
  void submit_background(std::shared_ptr<BackgroundJob> job) { pool_.submit_background(std::move(job)); }
  // Whether run_here() of a program will be called soon; see WorkerPool.
  void expect_caller(bool expected) { pool_.expect_caller(expected); }
  // Bytes that runs hold, or held and may need again soon. Weights, inputs and outputs aren't among them.
  int64_t memory() { return pool_.memory(); }
  // Packed weights and constants in use.
  size_t cached_weights() { return weights_.size(); }

 private:
  friend class CompiledProgram;
  const KernelTable* table_;
  WeightCache weights_;
  const int load_threads_;
  const MemoryLimits limits_;
  std::mutex here_mutex_;  // of run_here()
  WorkerPool pool_;  // last: its threads end before the rest goes
};

}  // namespace rskip
