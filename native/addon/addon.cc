// Node-API face of the native core: Engine, Program, draw(), info(), discard() and sha256(). Arguments come from lib/backends/native.ts, which has
// checked what users give; here only what keeps memory safe is checked again.
#include <napi.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "addon/audit_lines.h"
#include "addon/convert.h"
#include "addon/drawing.h"
#include "addon/engine_host.h"
#include "hash/sha256.h"
#include "kernels/peak.h"
#include "run/cpu_budget.h"
#include "run/item_state.h"

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <sys/mman.h>
#include <unistd.h>
#endif

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
                            "isa: '" + name + "' can't run on this machine; expected one of " + names));
}

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

// What compile() was given; the arrays must stay alive while it is read.
struct CompileRequest {
  std::vector<int32_t> words;
  std::vector<Napi::Value> arrays;  // of the constants
  std::vector<ConstantData> constants;
  bool bfloat16 = false;
  int32_t* progress = nullptr;
};

CompileRequest read_compile_request(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 3 || !info[1].IsArray()) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: wrong arguments"));
  }
  CompileRequest request;
  request.arrays = read_elements(info[1].As<Napi::Array>());
  const std::span<const int32_t> words = typed_span<int32_t>(env, info[0], "The program");
  const std::span<const int32_t> ids = typed_span<int32_t>(env, info[2], "The list of constants");
  if (ids.size() != 2 * request.arrays.size()) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: expected as many ids as constants"));
  }
  request.words.assign(words.begin(), words.end());
  const int32_t* id = ids.data();
  for (const Napi::Value& value : request.arrays) {
    const TypedBytes array = typed_bytes(env, value, "A constant");
    request.constants.push_back({id[0], static_cast<DType>(id[1]), array.data, array.bytes});
    id += 2;
  }
  request.bfloat16 = info[4].ToBoolean();
  if (info.Length() > 5 && !info[5].IsUndefined()) {
    const std::span<const double> places = typed_span<double>(env, info[5], "The places in files");
    if (places.size() != 2 * request.constants.size()) {
      throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: expected as many places in files as constants"));
    }
    for (size_t i = 0; i < request.constants.size(); ++i) {
      request.constants[i].file = static_cast<int>(places[2 * i]);
      request.constants[i].offset = static_cast<int64_t>(places[2 * i + 1]);
    }
  }
  if (info.Length() > 3 && !info[3].IsUndefined()) {
    const TypedBytes progress = typed_bytes(env, info[3], napi_int32_array, "The progress");
    if (progress.elements != 2) {
      throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: the progress must be two numbers"));
    }
    request.progress = static_cast<int32_t*>(progress.data);
    request.arrays.push_back(info[3]);
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
  Compilation(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<Engine> engine, CompileRequest request)
      : Napi::AsyncWorker(env, "residual-skip compile"),
        host_(std::move(host)),
        engine_(std::move(engine)),
        words_(std::move(request.words)),
        constants_(std::move(request.constants)),
        bfloat16_(request.bfloat16),
        progress_(request.progress),
        pinned_(Napi::Reference<Napi::Value>::New(list_of(env, request.arrays), 1)),
        deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    try {
      program_ = engine_->compile(words_, constants_, bfloat16_, progress_);
    } catch (...) {
      error_.emplace(current_error());
    }
  }

  void OnOK() override {
    settle(Env(), deferred_, [&]() -> Napi::Value {
      host_->work_settled(Env());
      if (error_) throw *error_;
      return wrap_program(Env(), host_, std::move(program_));
    });
  }

  const std::shared_ptr<EngineHost> host_;
  const std::shared_ptr<Engine> engine_;
  const std::vector<int32_t> words_;
  const std::vector<ConstantData> constants_;
  const bool bfloat16_;
  int32_t* const progress_;
  const Napi::Reference<Napi::Value> pinned_;  // keeps the arrays
  const Napi::Promise::Deferred deferred_;
  std::shared_ptr<CompiledProgram> program_;  // goes before the engine
  std::optional<EngineError> error_;
};

// new Engine(threads: 0 for the CPU budget, isa: '' for the best, maxMemory: bytes, 0 for the memory budget)
// engine.compile(words: Int32Array, constants: TypedArray[], ids: Int32Array of [id, data type] pairs,
//                progress?: Int32Array of [weights packed, all weights], which it fills as it goes, bfloat16?: boolean,
//                places?: Float64Array of [file descriptor or -1, offset] pairs: where constants without memory are read):
//                Promise<Program>.
// Nobody may write to the arrays, or close the files, until it settles.
// engine.compileSync(words, constants, ids, undefined, bfloat16?, places?): Program.
// engine.auditLines(...): Promise<Buffer>, see addon/audit_lines.h.
// engine.awaitEnd(microseconds): void. Spins until some work has ended, for at most that long, and settles its promise.
// engine.expectCaller(expected: boolean): void. Whether runSync() of a program will be called soon, maybe again and again.
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
    options.memory_limit = info[2].ToNumber().Int64Value();
    translated(env, [&] {
      try {
        host_ = EngineHost::make(env, options);
      } catch (const std::system_error& error) {
        throw EngineError(ErrorCode::kOutOfMemory, std::string("threads: they can't be started: ") + error.what());
      }
    });
    isa_ = host_->engine()->table().name;
    threads_ = host_->engine()->threads();
  }

 private:
  Napi::Value isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), isa_); }
  Napi::Value threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), threads_); }
  void release(const Napi::CallbackInfo&) { host_->release(); }

  Napi::Value compile(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return translated(env, [&]() -> Napi::Value {
      CompileRequest request = read_compile_request(info);
      std::shared_ptr<Engine> engine = host_->require_engine();
      auto compilation = std::make_unique<Compilation>(env, host_, std::move(engine), std::move(request));
      const Napi::Promise promise = compilation->promise();
      host_->work_started(env);
      compilation.release()->Queue();  // deletes itself
      return promise;
    });
  }

  Napi::Value compile_sync(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    return translated(env, [&]() -> Napi::Value {
      const CompileRequest request = read_compile_request(info);
      const std::shared_ptr<Engine> engine = host_->require_engine();
      return wrap_program(env, host_, engine->compile(request.words, request.constants, request.bfloat16));
    });
  }

  Napi::Value audit_lines(const Napi::CallbackInfo& info) {
    return translated(info.Env(), [&] { return start_audit_lines(info, host_); });
  }

  void await_end(const Napi::CallbackInfo& info) {
    // What it settles may let go of the engine.
    const std::shared_ptr<EngineHost> host = host_;
    const std::chrono::microseconds limit(info[0].ToNumber().Int64Value());
    translated(info.Env(), [&] { host->await_end(info.Env(), limit); });
  }

  void expect_caller(const Napi::CallbackInfo& info) {
    if (const std::shared_ptr<Engine> engine = host_->engine()) engine->expect_caller(info[0].ToBoolean());
  }

  std::shared_ptr<EngineHost> host_;
  std::string isa_;
  int threads_ = 0;
};

// discard(buffer: ArrayBuffer): void. Detaches it, which frees its memory now rather than when garbage is collected.
void discard(const Napi::CallbackInfo& info) {
  if (info.Length() > 0 && info[0].IsArrayBuffer()) info[0].As<Napi::ArrayBuffer>().Detach();
}

// forget(array: TypedArray): boolean. Gives the memory of its whole pages back to the system, which loses their elements; false where that can't be done.
Napi::Value forget(const Napi::CallbackInfo& info) {
  const TypedBytes array = typed_bytes(info.Env(), info[0], "An array");
  bool done = false;
#if defined(__linux__)
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(array.data);
  const uintptr_t first = (start + page - 1) / page * page, end = (start + array.bytes) / page * page;
  done = first < end && madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED) == 0;
#endif
  return Napi::Boolean::New(info.Env(), done);
}

// returnFreed(): void. From now on, blocks of 4 MiB or more are given back to the system as soon as they are freed. Otherwise the C library keeps blocks
// of up to 32 MiB, for each of its threads, once one of that size has been freed.
void return_freed(const Napi::CallbackInfo&) {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);
#endif
}

// sha256(messages: TypedArray[], digests: Uint8Array): void. Fills in 32 bytes for each message.
void sha256_all(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 2 || !info[0].IsArray()) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "sha256: wrong arguments"));
  }
  translated(env, [&] {
    const std::vector<Napi::Value> arrays = read_elements(info[0].As<Napi::Array>());
    const std::span<uint8_t> digests = typed_span<uint8_t>(env, info[1], "The digests");
    if (digests.size() < arrays.size() * kDigestBytes) {
      throw EngineError(ErrorCode::kInvalidArgument, "sha256: there is too little room for the digests");
    }
    std::vector<Message> messages;
    for (const Napi::Value& array : arrays) {
      const TypedBytes message = typed_bytes(env, array, "A message");
      messages.push_back({static_cast<const uint8_t*>(message.data), message.bytes});
    }
    sha256(messages, digests.data());
  });
}

Napi::Value peak_gflops(const Napi::CallbackInfo& call) {
  const KernelTable* table = require_table(call.Env(), call[0].ToString());
  return Napi::Number::New(call.Env(), measure_fma_peak_gflops(table->isa));
}

// info(): { isas, best, threads, bfloat16, peakGflops(isa) }
Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const std::vector<const KernelTable*> tables = available_tables();
  Napi::Array isas = Napi::Array::New(env, tables.size());
  for (size_t i = 0; i < tables.size(); ++i) isas.Set(static_cast<uint32_t>(i), tables[i]->name);
  Napi::Object out = Napi::Object::New(env);
  out.Set("isas", isas);
  out.Set("best", best_table()->name);
  out.Set("threads", cpu_budget());
  out.Set("bfloat16", multiplies_bfloat16());
  out.Set("peakGflops", Napi::Function::New(env, peak_gflops, "peakGflops"));
  return out;
}

// Keeps the addon in memory until the process ends. Node unloads it with the last worker that uses it, but a C++
// library that is linked into it has registered functions that run when a thread or the process ends.
void stay_loaded() {
#if defined(_WIN32)
  HMODULE self;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                     reinterpret_cast<LPCSTR>(&stay_loaded), &self);
#else
  Dl_info self;
  if (dladdr(reinterpret_cast<const void*>(&stay_loaded), &self) != 0) {
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
  }
#endif
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  auto data = std::make_unique<AddonData>();
  data->program_constructor = Napi::Persistent(ProgramWrap::define(env));
  env.SetInstanceData(data.get());
  static_cast<void>(data.release());
  exports.Set("Engine", EngineWrap::define(env));
  exports.Set("info", Napi::Function::New(env, info, "info"));
  exports.Set("discard", Napi::Function::New(env, discard, "discard"));
  exports.Set("forget", Napi::Function::New(env, forget, "forget"));
  exports.Set("returnFreed", Napi::Function::New(env, return_freed, "returnFreed"));
  exports.Set("draw", Napi::Function::New(env, draw, "draw"));
  if (can_sha256()) {
    exports.Set("sha256", Napi::Function::New(env, sha256_all, "sha256"));
    exports.Set("auditLinesSync", Napi::Function::New(env, audit_lines_sync, "auditLinesSync"));
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(residual_skip, init)

}  // namespace rskip
