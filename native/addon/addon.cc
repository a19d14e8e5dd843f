// Node-API face of the native core: Engine, Program, info(), discard() and sha256(). Arguments come from lib/backends/native.ts, which has
// checked what users give; here only what keeps memory safe is checked again.
#include <napi.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "addon/audit_lines.h"
#include "addon/convert.h"
#include "addon/engine_host.h"
#include "engine/cpu_budget.h"
#include "hash/sha256.h"
#include "kernels/peak.h"

namespace rskip {
namespace {

struct AddonData {
  Napi::FunctionReference program_constructor;
};

const KernelTable* find_table(const std::string& name) {
  for (const KernelTable* table : available_tables()) {
    if (name == table->name) return table;
  }
  return nullptr;
}

// Throws ISA_UNAVAILABLE.
const KernelTable* require_table(Napi::Env env, const std::string& name) {
  if (const KernelTable* table = find_table(name)) return table;
  std::string names;
  for (const KernelTable* table : available_tables()) names += (names.empty() ? "" : ", ") + std::string(table->name);
  throw_js(env, EngineError(ErrorCode::kIsaUnavailable,
                            "isa '" + name + "' can't run on this machine; available here: " + names + "."));
}

class PendingRun final : public Pending {
 public:
  PendingRun(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program, Napi::Value pinned)
      : Pending(env, std::move(host), pinned), program_(std::move(program)) {}
  RunResult result;

 private:
  void settle(Napi::Env env) override {
    if (result.error) {
      deferred.Reject(to_js(env, *result.error).Value());
    } else {
      deferred.Resolve(Napi::Number::New(env, std::chrono::duration<double, std::milli>(result.time).count()));
    }
  }

  std::shared_ptr<CompiledProgram> program_;
};

// program.run(items, arrays, inputs, outputs, modes, thresholds): Promise<number>, the milliseconds that it took;
// program.runSync(...): void.
// `arrays` holds inputs, outputs, ran, scores and, for run(), the abort flag (Int32Array of one). Nobody else may
// hold this list, so that it pins what it holds.
class ProgramWrap : public Napi::ObjectWrap<ProgramWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Program",
                       {InstanceMethod("run", &ProgramWrap::run), InstanceMethod("runSync", &ProgramWrap::run_sync),
                        InstanceMethod("release", &ProgramWrap::release)});
  }
  explicit ProgramWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProgramWrap>(info) {}

  void adopt(std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program) {
    host_ = std::move(host);
    program_ = std::move(program);
  }

 private:
  Napi::Value run(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    RunRequest request = read_request(info);
    auto pending = std::make_unique<PendingRun>(env, host_, program_, info[1]);
    PendingRun* raw = pending.get();
    const Napi::Promise promise = raw->promise();
    try {
      // Lives as long as the pending run.
      program_->run(std::move(request), [raw, host = host_.get()](const RunResult& result) {
        raw->result = result;
        host->work_ended(raw);
      });
    } catch (const EngineError& error) {
      throw_js(env, error);
    } catch (const std::bad_alloc&) {
      throw_js(env, EngineError(ErrorCode::kOutOfMemory, "Memory for the run could not be had."));
    }
    // The end can't reach this thread before it returns to the event loop.
    static_cast<void>(pending.release());
    host_->work_started(env);
    return promise;
  }

  void run_sync(const Napi::CallbackInfo& info) {
    const RunResult result = [&] {
      try {
        return program_->run_here(read_request(info));
      } catch (const EngineError& error) {
        throw_js(info.Env(), error);
      } catch (const std::bad_alloc&) {
        throw_js(info.Env(), EngineError(ErrorCode::kOutOfMemory, "Memory for the run could not be had."));
      }
    }();
    if (result.error) throw_js(info.Env(), *result.error);
  }

  void release(const Napi::CallbackInfo&) {
    program_.reset();
    host_.reset();
  }

  RunRequest read_request(const Napi::CallbackInfo& info) const {
    const Napi::Env env = info.Env();
    if (!program_ || host_->engine() == nullptr) {
      throw_js(env, EngineError(ErrorCode::kSessionReleased, "The session was released; create a new one."));
    }
    if (info.Length() < 6 || !info[1].IsArray()) {
      throw_js(env, EngineError(ErrorCode::kInvalidArgument, "run: wrong arguments."));
    }
    RunRequest request;
    request.items = info[0].ToNumber().Int64Value();
    const Napi::Array arrays = info[1].As<Napi::Array>();
    const uint32_t inputs = info[2].ToNumber().Uint32Value(), outputs = info[3].ToNumber().Uint32Value();
    const uint64_t ports = static_cast<uint64_t>(inputs) + outputs;
    if (arrays.Length() < ports + 2) throw_js(env, EngineError(ErrorCode::kInvalidArgument, "run: missing arrays."));
    uint32_t at = 0;
    for (uint32_t i = 0; i < inputs; ++i) {
      const TypedBytes array = typed_bytes(env, arrays[at++], "An input");
      request.inputs.push_back({array.data, array.bytes});
    }
    for (uint32_t i = 0; i < outputs; ++i) {
      const TypedBytes array = typed_bytes(env, arrays[at++], "An output");
      request.outputs.push_back({array.data, array.bytes});
    }
    const TypedBytes ran = typed_bytes(env, arrays[at++], napi_uint8_array, "The trace");
    const TypedBytes scores = typed_bytes(env, arrays[at++], napi_float32_array, "The trace");
    request.ran = {static_cast<uint8_t*>(ran.data), ran.elements};
    request.scores = {static_cast<float*>(scores.data), scores.elements};
    if (at < arrays.Length()) {
      const TypedBytes flag = typed_bytes(env, arrays[at], napi_int32_array, "The abort flag");
      if (flag.elements > 0) request.abort_flag = static_cast<const int32_t*>(flag.data);
    }
    const TypedBytes modes = typed_bytes(env, info[4], napi_uint8_array, "The policy");
    const TypedBytes thresholds = typed_bytes(env, info[5], napi_float32_array, "The policy");
    const uint8_t* mode = static_cast<const uint8_t*>(modes.data);
    const float* threshold = static_cast<const float*>(thresholds.data);
    request.modes.assign(mode, mode + modes.elements);
    request.thresholds.assign(threshold, threshold + thresholds.elements);
    return request;
  }

  std::shared_ptr<EngineHost> host_;
  std::shared_ptr<CompiledProgram> program_;
};

// What compile() was given; the arrays must stay alive while it is read.
struct CompileRequest {
  std::vector<int32_t> words;
  std::vector<ConstantData> constants;
};

CompileRequest read_compile_request(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[1].IsArray()) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: wrong arguments."));
  }
  const TypedBytes words = typed_bytes(env, info[0], napi_int32_array, "The program");
  const Napi::Array arrays = info[1].As<Napi::Array>();
  const TypedBytes ids = typed_bytes(env, info[2], napi_int32_array, "The list of constants");
  if (ids.elements != 2 * static_cast<size_t>(arrays.Length())) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: as many ids as constants are needed."));
  }
  CompileRequest request;
  const int32_t* word = static_cast<const int32_t*>(words.data);
  request.words.assign(word, word + words.elements);
  for (uint32_t i = 0; i < arrays.Length(); ++i) {
    const Napi::HandleScope scope(env);
    const TypedBytes array = typed_bytes(env, arrays[i], "A constant");
    const int32_t* id = static_cast<const int32_t*>(ids.data) + 2 * i;
    request.constants.push_back({id[0], static_cast<DType>(id[1]), array.data, array.bytes});
  }
  return request;
}

Napi::Object wrap_program(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program) {
  const Napi::Object wrapped = env.GetInstanceData<AddonData>()->program_constructor.New({});
  ProgramWrap::Unwrap(wrapped)->adopt(std::move(host), std::move(program));
  return wrapped;
}

// A compilation on a thread of the event loop's pool, so that neither the loop nor the engine's workers wait for it.
class Compilation final : public Napi::AsyncWorker {
 public:
  Compilation(const Napi::CallbackInfo& info, std::shared_ptr<EngineHost> host)
      : Napi::AsyncWorker(info.Env(), "residual-skip compile"),
        host_(std::move(host)),
        engine_(host_->engine()),
        request_(read_compile_request(info)),
        pinned_(Napi::Reference<Napi::Value>::New(info[1], 1)),
        deferred_(Napi::Promise::Deferred::New(info.Env())) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    try {
      program_ = engine_->compile(request_.words, request_.constants);
    } catch (const EngineError& error) {
      error_.emplace(error);
    }
  }

  void OnOK() override {
    try {
      host_->work_settled(Env());
      if (error_) {
        deferred_.Reject(to_js(Env(), *error_).Value());
      } else {
        deferred_.Resolve(wrap_program(Env(), host_, std::move(program_)));
      }
    } catch (const Napi::Error&) {
      // The environment is ending and takes no more calls: nobody waits.
    }
  }

  const std::shared_ptr<EngineHost> host_;
  const std::shared_ptr<Engine> engine_;
  const CompileRequest request_;
  const Napi::Reference<Napi::Value> pinned_;  // keeps the constants
  const Napi::Promise::Deferred deferred_;
  std::shared_ptr<CompiledProgram> program_;  // goes before the engine
  std::optional<EngineError> error_;
};

// new Engine(threads: 0 for the CPU budget, isa: '' for the best)
// engine.compile(words: Int32Array, constants: TypedArray[], ids: Int32Array of [id, data type] pairs): Promise<Program>;
// the caller leaves the arrays as they are until it settles. engine.compileSync(...): Program.
// engine.auditLines(...): Promise<Buffer>, see addon/audit_lines.h.
// engine.awaitEnd(microseconds): void. Waits awake until some work has ended, for at most so long, and settles its promise.
// engine.expectCaller(comes: boolean): void. Whether runSync() of a program will be called soon, maybe again and again.
class EngineWrap : public Napi::ObjectWrap<EngineWrap> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "Engine",
        {InstanceMethod("compile", &EngineWrap::compile), InstanceMethod("compileSync", &EngineWrap::compile_sync),
         InstanceMethod("auditLines", &EngineWrap::audit_lines), InstanceMethod("release", &EngineWrap::release),
         InstanceMethod("awaitEnd", &EngineWrap::await_end), InstanceMethod("expectCaller", &EngineWrap::expect_caller),
         InstanceAccessor<&EngineWrap::isa>("isa"),
         InstanceAccessor<&EngineWrap::threads>("threads")});
  }

  explicit EngineWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineWrap>(info) {
    const Napi::Env env = info.Env();
    EngineOptions options;
    options.threads = info[0].ToNumber().Int32Value();
    const std::string isa = info[1].ToString();
    if (!isa.empty()) options.table = require_table(env, isa);
    try {
      host_ = EngineHost::make(env, options);
    } catch (const std::exception& error) {  // no threads or no memory
      throw_js(env, EngineError(ErrorCode::kOutOfMemory,
                                std::string("The worker threads can't be started: ") + error.what()));
    }
    isa_ = host_->engine()->table().name;
    threads_ = host_->engine()->threads();
  }

 private:
  Napi::Value isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), isa_); }
  Napi::Value threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), threads_); }
  void release(const Napi::CallbackInfo&) { host_->release(); }

  Napi::Value compile(const Napi::CallbackInfo& info) {
    require_engine(info.Env());
    auto compilation = std::make_unique<Compilation>(info, host_);
    const Napi::Promise promise = compilation->promise();
    compilation->Queue();
    host_->work_started(info.Env());
    static_cast<void>(compilation.release());  // deletes itself
    return promise;
  }

  Napi::Value audit_lines(const Napi::CallbackInfo& info) {
    require_engine(info.Env());
    return start_audit_lines(info, host_);
  }

  void await_end(const Napi::CallbackInfo& info) {
    // What it settles may let go of the engine.
    const std::shared_ptr<EngineHost> host = host_;
    host->await_end(info.Env(), std::chrono::microseconds(info[0].ToNumber().Int64Value()));
  }

  void expect_caller(const Napi::CallbackInfo& info) {
    if (const std::shared_ptr<Engine> engine = host_->engine()) engine->expect_caller(info[0].ToBoolean());
  }

  Napi::Value compile_sync(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const std::shared_ptr<Engine> engine = require_engine(env);
    const CompileRequest request = read_compile_request(info);
    try {
      return wrap_program(env, host_, engine->compile(request.words, request.constants));
    } catch (const EngineError& error) {
      throw_js(env, error);
    }
  }

  std::shared_ptr<Engine> require_engine(Napi::Env env) const {
    if (std::shared_ptr<Engine> engine = host_->engine()) return engine;
    throw_js(env, EngineError(ErrorCode::kSessionReleased, "The backend was released; create a new one."));
  }

  std::shared_ptr<EngineHost> host_;
  std::string isa_;
  int threads_ = 0;
};

// discard(buffer: ArrayBuffer): void. Detaches it, which frees its memory now rather than when garbage is collected.
void discard(const Napi::CallbackInfo& info) {
  if (info.Length() > 0 && info[0].IsArrayBuffer()) info[0].As<Napi::ArrayBuffer>().Detach();
}

// sha256(messages: TypedArray[], digests: Uint8Array): void. Fills in 32 bytes for each message.
void sha256_all(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 2 || !info[0].IsArray()) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "sha256: wrong arguments."));
  }
  const Napi::Array arrays = info[0].As<Napi::Array>();
  const TypedBytes digests = typed_bytes(env, info[1], napi_uint8_array, "The digests");
  if (digests.bytes < arrays.Length() * kDigestBytes) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "sha256: too little room for the digests."));
  }
  std::vector<Message> messages(arrays.Length());
  for (uint32_t i = 0; i < arrays.Length(); ++i) {
    const TypedBytes message = typed_bytes(env, arrays[i], "A message");
    messages[i] = {static_cast<const uint8_t*>(message.data), message.bytes};
  }
  sha256(messages, static_cast<uint8_t*>(digests.data));
}

Napi::Value peak_gflops(const Napi::CallbackInfo& call) {
  const KernelTable* table = require_table(call.Env(), call[0].ToString());
  return Napi::Number::New(call.Env(), measure_fma_peak_gflops(table->isa));
}

// info(): { isas, best, threads, peakGflops(isa) }
Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const std::vector<const KernelTable*> tables = available_tables();
  Napi::Array isas = Napi::Array::New(env, tables.size());
  for (size_t i = 0; i < tables.size(); ++i) isas.Set(static_cast<uint32_t>(i), tables[i]->name);
  Napi::Object out = Napi::Object::New(env);
  out.Set("isas", isas);
  out.Set("best", best_table()->name);
  out.Set("threads", cpu_budget());
  out.Set("peakGflops", Napi::Function::New(env, peak_gflops, "peakGflops"));
  return out;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData();
  data->program_constructor = Napi::Persistent(ProgramWrap::define(env));
  env.SetInstanceData(data);
  exports.Set("Engine", EngineWrap::define(env));
  exports.Set("info", Napi::Function::New(env, info, "info"));
  exports.Set("discard", Napi::Function::New(env, discard, "discard"));
  if (can_sha256()) {
    exports.Set("sha256", Napi::Function::New(env, sha256_all, "sha256"));
    exports.Set("auditLinesSync", Napi::Function::New(env, audit_lines_sync, "auditLinesSync"));
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(residual_skip, init)

}  // namespace rskip
