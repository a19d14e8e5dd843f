#include "addon/program_wrap.h"

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "run/item_state.h"

namespace rskip {
namespace {

struct AddonData {
  Napi::FunctionReference program_constructor;
};

class PendingRun final : public Pending {
 public:
  PendingRun(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program, Napi::Value pinned)
      : Pending(env, std::move(host), pinned), program_(std::move(program)) {}
  RunResult run;

 private:
  Napi::Value result(Napi::Env env) override {
    if (run.error) throw *run.error;
    return Napi::Number::New(env, run.longest_ms);
  }

  const std::shared_ptr<CompiledProgram> program_;
};

// program.run(items, arrays, inputs, outputs, modes, thresholds): Promise<number>, the milliseconds that an item takes at
// most: with every block, and no exit. program.runSync(...): number, the same.
// `arrays` holds inputs, outputs, outcomes, scores and, for run(), the abort flag (Int32Array of one). A Float64Array of times may
// follow `thresholds`: the run is profiled then.
// A list of states may follow those: for each item an Uint8Array of program.stateBytes, or undefined; see run/item_state.h.
// program.profiled: Int32Array, the value that each code computes; -1 for none. `times` has begin and end for each, by item.
class ProgramWrap : public Napi::ObjectWrap<ProgramWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Program",
                       {InstanceMethod("run", &ProgramWrap::run), InstanceMethod("runSync", &ProgramWrap::run_sync),
                        InstanceMethod("release", &ProgramWrap::release),
                        InstanceAccessor<&ProgramWrap::profiled>("profiled"),
                        InstanceAccessor<&ProgramWrap::state_size>("stateBytes")});
  }
  explicit ProgramWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProgramWrap>(info) {}

  void adopt(std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program) {
    host_ = std::move(host);
    program_ = std::move(program);
  }

 private:
  Napi::Value run(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return translated(env, [&]() -> Napi::Value {
      Arguments arguments = read_arguments(info);
      EngineHost* const host = arguments.host.get();  // lives as long as what is pending
      auto pending = std::make_unique<PendingRun>(env, arguments.host, arguments.program, list_of(env, arguments.arrays));
      return host->start(env, std::move(pending), [&](PendingRun& run) {
        arguments.program->run(std::move(arguments.request), [&run, host](const RunResult& result) {
          run.run = result;
          host->work_ended(&run);
        });
      });
    });
  }

  Napi::Value run_sync(const Napi::CallbackInfo& info) {
    return translated(info.Env(), [&]() -> Napi::Value {
      Arguments arguments = read_arguments(info);
      const RunResult result = arguments.program->run_here(std::move(arguments.request));
      if (result.error) throw *result.error;
      return Napi::Number::New(info.Env(), result.longest_ms);
    });
  }

  Napi::Value profiled(const Napi::CallbackInfo& info) {
    const std::vector<Code> none;
    const std::vector<Code>& code = program_ ? program_->plan().code : none;
    Napi::Int32Array values = Napi::Int32Array::New(info.Env(), code.size());
    for (size_t i = 0; i < code.size(); ++i) values[i] = code[i].value.number();
    return values;
  }

  Napi::Value state_size(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), program_ ? static_cast<double>(state_bytes(program_->plan())) : 0);
  }

  void release(const Napi::CallbackInfo&) {
    program_.reset();
    host_.reset();
  }

  struct Arguments {
    std::shared_ptr<EngineHost> host;
    std::shared_ptr<Engine> engine;
    std::shared_ptr<CompiledProgram> program;  // goes before the engine
    std::vector<Napi::Value> arrays;
    RunRequest request;
  };

  Arguments read_arguments(const Napi::CallbackInfo& info) const {
    const Napi::Env env = info.Env();
    Arguments out{host_, nullptr, program_, {}, {}};
    if (info.Length() < 6 || !info[1].IsArray()) {
      throw_js(env, EngineError(ErrorCode::kInvalidArgument, "run: wrong arguments"));
    }
    RunRequest& request = out.request;
    request.items = info[0].ToNumber().Int64Value();
    const uint32_t inputs = info[2].ToNumber().Uint32Value(), outputs = info[3].ToNumber().Uint32Value();
    out.arrays = read_elements(info[1].As<Napi::Array>());
    std::vector<Napi::Value> states;
    if (info.Length() > 7 && info[7].IsArray()) states = read_elements(info[7].As<Napi::Array>());
    if (out.host == nullptr) throw EngineError(ErrorCode::kSessionReleased, "program: it was released; compile it again");
    out.engine = out.host->require_engine();
    const uint64_t ports = static_cast<uint64_t>(inputs) + outputs;
    if (out.arrays.size() < ports + 2) {
      throw_js(env, EngineError(ErrorCode::kInvalidArgument, "run: missing arrays"));
    }
    size_t at = 0;
    for (uint32_t i = 0; i < inputs; ++i) {
      const TypedBytes array = typed_bytes(env, out.arrays[at++], "An input");
      request.inputs.push_back({array.data, array.bytes});
    }
    for (uint32_t i = 0; i < outputs; ++i) {
      const TypedBytes array = typed_bytes(env, out.arrays[at++], "An output");
      request.outputs.push_back({array.data, array.bytes});
    }
    request.outcomes = typed_span<uint8_t>(env, out.arrays[at++], "The trace");
    request.scores = typed_span<float>(env, out.arrays[at++], "The trace");
    if (at < out.arrays.size()) {
      const std::span<const int32_t> flag = typed_span<int32_t>(env, out.arrays[at], "The abort flag");
      if (!flag.empty()) request.abort_flag = flag.data();
    }
    for (const uint8_t mode : typed_span<uint8_t>(env, info[4], "The policy")) request.modes.push_back(BlockMode{mode});
    const std::span<const float> thresholds = typed_span<float>(env, info[5], "The policy");
    request.thresholds.assign(thresholds.begin(), thresholds.end());
    if (info.Length() > 6 && !info[6].IsUndefined()) {
      request.times = typed_span<double>(env, info[6], "The profile");
      out.arrays.push_back(info[6]);
    }
    for (const Napi::Value& state : states) {
      const TypedBytes bytes = state.IsUndefined() ? TypedBytes{} : typed_bytes(env, state, napi_uint8_array, "A state");
      request.states.push_back({bytes.data, bytes.bytes});
      out.arrays.push_back(state);
    }
    return out;
  }

  std::shared_ptr<EngineHost> host_;
  std::shared_ptr<CompiledProgram> program_;
};

}  // namespace

void define_program(Napi::Env env) {
  auto data = std::make_unique<AddonData>();
  data->program_constructor = Napi::Persistent(ProgramWrap::define(env));
  env.SetInstanceData(data.get());
  static_cast<void>(data.release());
}

Napi::Object wrap_program(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program) {
  const Napi::Object wrapped = env.GetInstanceData<AddonData>()->program_constructor.New({});
  ProgramWrap::Unwrap(wrapped)->adopt(std::move(host), std::move(program));
  return wrapped;
}

}  // namespace rskip
