#include "run/engine.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "ops/ops.h"
#include "run/cpu_budget.h"
#include "run/item_state.h"

namespace rskip {
namespace {

// Made at load, so that an abort takes no memory.
const EngineError kAbortedError(ErrorCode::kAborted, "The run was aborted.");

// Weights, inputs, outputs and the rest of the process need memory, too.
MemoryLimits limits_of(int64_t limit) {
  if (limit > 0) return {limit, limit};
  const int64_t budget = memory_budget();
  return {budget, budget / 2};
}

// Most items that a thread runs together. More would hardly be faster, but take more memory and longer.
constexpr int64_t kMostTogether = 8;

// How a batch is divided: into groups of items that run together, each on one thread.
struct Groups {
  int64_t items, count;

  Groups(const Plan& plan, int64_t all, int threads, bool apart, const MemoryLimits& limits) : items(all), count(all) {
    if (plan.join < 0 || apart) return;
    const int64_t lanes = std::min<int64_t>(all, threads);
    for (int64_t size = std::min(kMostTogether, (all + lanes - 1) / lanes); size > 1; --size) {
      const int64_t bytes = static_cast<int64_t>(arena_bytes(plan, size) + scratch_bytes(plan, size));
      if (bytes > limits.items / lanes) continue;
      count = (all + size - 1) / size;
      return;
    }
  }
  int64_t begin(int64_t group) const { return items * group / count; }
  int64_t most() const { return (items + count - 1) / count; }

  // What a group needs: the arena in which one item after the other begins, then one for each.
  static size_t arena_bytes(const Plan& plan, int64_t size) {
    return plan.arena_bytes + (size > 1 ? static_cast<size_t>(size) * plan.joined_bytes : 0);
  }
  static size_t scratch_bytes(const Plan& plan, int64_t size) {
    return std::max(plan.scratch_bytes, size > 1 ? static_cast<size_t>(size) * plan.joint_scratch_bytes : 0);
  }
};

[[noreturn]] void invalid(const std::string& what) { throw EngineError(ErrorCode::kInvalidArgument, what); }

}  // namespace

// All items of one request; a unit is a group of them.
class ProgramRun final : public Job {
 public:
  ProgramRun(const CompiledProgram& program, RunRequest request, const Groups& groups, int max_workers,
             std::function<void(const RunResult&)> done)
      : Job(groups.count, max_workers, Groups::scratch_bytes(*program.plan_, groups.most()),
            Groups::arena_bytes(*program.plan_, groups.most())),
        plan_(program.plan_),
        shared_(program.shared_),
        groups_(groups),
        table_(program.engine_.table()),
        lanes_(static_cast<double>(std::min<int64_t>(request.items, program.engine_.threads()))),
        request_(std::move(request)),
        done_(std::move(done)) {}

  void run_unit(int64_t unit, Workspace& workspace, Team& team) noexcept override {
    if (unit == 0) began_ = std::chrono::steady_clock::now();
    if (stopped_.load(std::memory_order_relaxed)) return;
    try {
      run_group(static_cast<size_t>(groups_.begin(unit)), static_cast<size_t>(groups_.begin(unit + 1)), workspace, team);
    } catch (const Cancelled&) {
      fail(kAbortedError);
    } catch (...) {
      fail(current_error());
    }
  }

  void finished() noexcept override {
    if (!result_.error && cancelled_) result_.error = kAbortedError;
    result_.instructions = instructions_.load();
    result_.cost = cost_.load();
    if (!result_.error) see_time();
    if (done_) done_(result_);
  }

  void cancel() noexcept override {
    cancelled_ = true;
    stopped_ = true;
  }

  RunResult take_result() { return std::move(result_); }

 private:
  void see_time() {
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - began_;
    const double items = static_cast<double>(request_.items);
    const double share = plan_->cost > 0 ? static_cast<double>(result_.cost) / (static_cast<double>(plan_->cost) * items) : 1;
    std::lock_guard lock(shared_->mutex);
    shared_->path_time.see(time.count() * lanes_ / items, share);
    result_.longest_ms = shared_->path_time.longest();
  }

  void run_group(size_t first, size_t end, Workspace& workspace, Team& team) {
    workspace.arena.reserve(Groups::arena_bytes(*plan_, groups_.most()));
    workspace.scratch.reserve(Groups::scratch_bytes(*plan_, groups_.most()));
    std::vector<std::unique_ptr<Frame>> frames;
    std::vector<ItemRun> runs;
    for (size_t item = first; item < end; ++item) {
      frames.push_back(frame_of(item, workspace));
      runs.push_back({.frame = frames.back().get(), .item = context_of(item)});
      if (end - first == 1) break;
      char* const own = reinterpret_cast<char*>(workspace.arena.data()) + plan_->arena_bytes;
      runs.back().arena = own + (item - first) * plan_->joined_bytes;
    }
    execute(*plan_, runs, workspace, team);
    for (ItemRun& run : runs) {
      instructions_ += run.executed.instructions;
      cost_ += run.executed.cost;
      for (size_t i = 0; i < request_.outputs.size(); ++i) {
        const PlanPort& port = plan_->outputs[i];
        if (port.dtype != DType::kFloat32 || !(port.batched || run.item.shared_outputs)) continue;
        const std::span<float> output(run.frame->at<float>(Place::at_port(request_.inputs.size() + i)), port.item_bytes / sizeof(float));
        if (port.rounded && !run.left && worst_rounded(*plan_, run) == Numbers::kNan) {
          std::fill(output.begin(), output.end(), std::numeric_limits<float>::quiet_NaN());
        }
        table_.unify_nans(output.data(), output.size());
      }
    }
    std::lock_guard lock(shared_->mutex);
    for (std::unique_ptr<Frame>& frame : frames) shared_->idle_frames.push_back(std::move(frame));
  }

  std::unique_ptr<Frame> frame_of(size_t item, Workspace& workspace) {
    std::unique_ptr<Frame> frame = take_frame();
    const auto bytes = [&](const PlanPort& port) { return port.batched ? item * port.item_bytes : 0; };
    size_t base = 0;
    frame->bases[base++] = 0;
    frame->bases[base++] = reinterpret_cast<uintptr_t>(workspace.arena.data());
    for (size_t i = 0; i < request_.inputs.size(); ++i) {
      frame->bases[base++] = reinterpret_cast<uintptr_t>(request_.inputs[i].data) + bytes(plan_->inputs[i]);
    }
    for (size_t i = 0; i < request_.outputs.size(); ++i) {
      frame->bases[base++] = reinterpret_cast<uintptr_t>(request_.outputs[i].data) + bytes(plan_->outputs[i]);
    }
    frame->cancellation = {&stopped_, request_.abort_flag};
    return frame;
  }

  ItemContext context_of(size_t item) const {
    const size_t row = item * plan_->decisions();
    ItemContext context;
    context.modes = request_.modes.data();
    context.thresholds = request_.thresholds.data();
    context.outcomes = request_.outcomes.data() + row;
    context.scores = request_.scores.data() + row;
    if (!request_.times.empty()) context.times = request_.times.data() + item * 2 * plan_->code.size();
    context.shared_outputs = item == 0;
    if (!request_.states.empty()) context.state = static_cast<char*>(request_.states[item].data);
    return context;
  }

  std::unique_ptr<Frame> take_frame() {
    {
      std::lock_guard lock(shared_->mutex);
      if (!shared_->idle_frames.empty()) {
        std::unique_ptr<Frame> frame = std::move(shared_->idle_frames.back());
        shared_->idle_frames.pop_back();
        return frame;
      }
    }
    return std::make_unique<Frame>(plan_->make_frame());
  }

  // The first error counts; the items that are left see `stopped_`.
  void fail(EngineError error) {
    std::lock_guard lock(error_mutex_);
    if (!stopped_.exchange(true) && !result_.error) result_.error.emplace(std::move(error));
  }

  const std::shared_ptr<const Plan> plan_;
  const std::shared_ptr<CompiledProgram::Shared> shared_;
  const Groups groups_;
  const KernelTable& table_;
  const double lanes_;  // items at a time
  const RunRequest request_;
  const std::function<void(const RunResult&)> done_;
  std::atomic<bool> stopped_{false}, cancelled_{false};
  std::atomic<uint64_t> instructions_{0};
  std::atomic<int64_t> cost_{0};
  std::chrono::steady_clock::time_point began_;
  std::mutex error_mutex_;
  RunResult result_;
};

CompiledProgram::CompiledProgram(Engine& engine, std::unique_ptr<const Plan> plan)
    : engine_(engine), plan_(std::move(plan)), shared_(std::make_shared<Shared>()) {}

void CompiledProgram::check(const RunRequest& request) const {
  const Plan& plan = *plan_;
  if (request.items < 1 || request.items > (int64_t{1} << 31)) invalid("items: their number is out of range");
  if (plan.whole && request.items != 1) invalid("items: this program takes its batch as one");
  const size_t items = static_cast<size_t>(request.items), blocks = plan.blocks.size();
  const size_t decisions = plan.decisions();
  const auto check_ports = [&](const auto& given, const std::vector<PlanPort>& ports, const char* what) {
    if (given.size() != ports.size()) invalid(std::string(what) + "s: their number is wrong");
    for (size_t i = 0; i < ports.size(); ++i) {
      // Both factors are below 2^43 and 2^31: compare by division.
      const size_t count = ports[i].batched ? items : 1;
      const size_t bytes = ports[i].item_bytes;
      if (given[i].bytes % count != 0 || given[i].bytes / count != bytes) {
        invalid(std::string(what) + " " + std::to_string(i) + ": its buffer holds " +
                std::to_string(given[i].bytes) + " bytes; expected " + std::to_string(count) + " x " +
                std::to_string(bytes));
      }
      if (bytes > 0 && given[i].data == nullptr) invalid(std::string(what) + " " + std::to_string(i) + ": its buffer is detached");
    }
  };
  check_ports(request.inputs, plan.inputs, "input");
  check_ports(request.outputs, plan.outputs, "output");
  if (request.modes.size() != decisions || request.thresholds.size() != decisions) {
    invalid("policy: it must have as many blocks and exits as the program");
  }
  const size_t columns = std::max<size_t>(decisions, 1);
  if (request.outcomes.size() / columns != (decisions == 0 ? 0 : items) || request.outcomes.size() % columns != 0 ||
      request.scores.size() != request.outcomes.size()) {
    invalid("trace: it must have items x (blocks + exits) entries");
  }
  if (!request.states.empty() && request.states.size() != items) invalid("states: there must be one for each item");
  for (const OutputBytes& state : request.states) {
    if (state.data != nullptr && state.bytes != state_bytes(plan)) invalid("states: a length is wrong");
  }
  if (!request.times.empty() && request.times.size() != items * plan.code.size() * 2) {
    invalid("profile: it must have items x code x 2 entries");
  }
  for (size_t b = 0; b < blocks; ++b) {
    const PlanBlock& block = plan.blocks[b];
    const BlockMode mode = request.modes[b];
    const bool ok = mode == BlockMode::kRun || (mode == BlockMode::kSkip && block.skippable) ||
                    (mode == BlockMode::kGate && block.has_gate);
    if (!ok) invalid("policy: the mode of block " + std::to_string(b) + " doesn't fit the block");
  }
  if (!std::all_of(request.modes.begin() + static_cast<ptrdiff_t>(blocks), request.modes.end(),
                   [](BlockMode mode) { return mode == BlockMode::kGate; })) {
    invalid("policy: the mode of an exit must be that of a gate");
  }
}

std::shared_ptr<ProgramRun> CompiledProgram::begin(RunRequest request, int max_workers,
                                                   std::function<void(const RunResult&)> done) {
  check(request);
  const Groups groups(*plan_, request.items, engine_.threads(), !request.states.empty(), engine_.limits_);
  return std::make_shared<ProgramRun>(*this, std::move(request), groups, max_workers, std::move(done));
}

void CompiledProgram::run(RunRequest request, std::function<void(const RunResult&)> done) {
  engine_.pool_.submit(begin(std::move(request), engine_.threads(), std::move(done)));
}

RunResult CompiledProgram::run_here(RunRequest request) {
  const std::shared_ptr<ProgramRun> run = begin(std::move(request), engine_.threads() - 1, nullptr);
  std::lock_guard lock(engine_.here_mutex_);
  engine_.pool_.run_here(run);
  return run->take_result();
}

Engine::Engine(const EngineOptions& options)
    : table_(options.table != nullptr ? options.table : best_table()),
      load_threads_(cpu_budget()),
      limits_(limits_of(options.memory_limit)),
      pool_(options.threads > 0 ? options.threads : load_threads_, load_threads_, limits_, options.keep_memory) {}

std::unique_ptr<CompiledProgram> Engine::compile(std::span<const int32_t> words,
                                                 std::span<const ConstantData> constants, Precision precision,
                                                 int32_t* progress) {
  try {
    const Program program = decode_program(words, constants);
    const PlanContext context{*table_, weights_, load_threads_, limits_.item, progress, precision};
    return std::unique_ptr<CompiledProgram>(new CompiledProgram(*this, make_plan(program, constants, context)));
  } catch (...) {
    throw current_error();
  }
}

}  // namespace rskip
