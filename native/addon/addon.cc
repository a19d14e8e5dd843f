// Node-API face of the native core: Engine, info() and sha256(); the other files of this folder have the rest. Arguments
// come from lib/backends/native.ts, which has checked what users give; here only what keeps memory safe is checked again.
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
#include "addon/constants.h"
#include "addon/convert.h"
#include "addon/drawing.h"
#include "addon/engine_host.h"
#include "addon/messages.h"
#include "addon/process_memory.h"
#include "addon/program_wrap.h"
#include "hash/sha256.h"
#include "kernels/peak.h"
#include "run/cpu_budget.h"

namespace rskip {
namespace {

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

// What compile() was given; the arrays must stay alive while it is read.
struct CompileRequest {
  std::vector<int32_t> words;
  std::vector<Napi::Value> arrays;  // of the constants
  std::vector<ConstantData> constants;
  Precision precision = Precision::kFloat32;
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
  if (info.Length() > 4 && !info[4].IsUndefined()) {
    const int32_t precision = info[4].ToNumber().Int32Value();
    if (precision < 0 || precision > static_cast<int32_t>(Precision::kBfloat16Amx)) {
      throw_js(env, EngineError(ErrorCode::kInvalidArgument, "compile: unknown precision"));
    }
    request.precision = static_cast<Precision>(precision);
  }
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

// A compilation on a thread of the event loop's pool, so that neither the loop nor the engine's workers wait for it.
class Compilation final : public Napi::AsyncWorker {
 public:
  Compilation(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<Engine> engine, CompileRequest request)
      : Napi::AsyncWorker(env, "residual-skip compile"),
        host_(std::move(host)),
        engine_(std::move(engine)),
        words_(std::move(request.words)),
        constants_(std::move(request.constants)),
        precision_(request.precision),
        progress_(request.progress),
        pinned_(Napi::Reference<Napi::Value>::New(list_of(env, request.arrays), 1)),
        deferred_(Napi::Promise::Deferred::New(env)) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 private:
  void Execute() override {
    try {
      program_ = engine_->compile(words_, constants_, precision_, progress_);
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
  const Precision precision_;
  int32_t* const progress_;
  const Napi::Reference<Napi::Value> pinned_;  // keeps the arrays
  const Napi::Promise::Deferred deferred_;
  std::shared_ptr<CompiledProgram> program_;  // goes before the engine
  std::optional<EngineError> error_;
};

// new Engine(threads: 0 for the CPU budget, isa: '' for the best, maxMemory: bytes, 0 for the memory budget)
// engine.compile(words: Int32Array, constants: TypedArray[], ids: Int32Array of [id, data type] pairs,
//                progress?: Int32Array of [weights packed, all weights], which it fills as it goes, precision?: number,
//                places?: Float64Array of [file descriptor or -1, offset] pairs: where constants without memory are read):
//                Promise<Program>.
// Nobody may write to the arrays, or close the files, until it settles.
// engine.compileSync(words, constants, ids, undefined, precision?, places?): Program.
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
      return wrap_program(env, host_, engine->compile(request.words, request.constants, request.precision));
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

// info(): { isas, best, threads, fastestPrecision, peakGflops(isa) }
Napi::Value info(const Napi::CallbackInfo& call) {
  const Napi::Env env = call.Env();
  const std::vector<const KernelTable*> tables = available_tables();
  Napi::Array isas = Napi::Array::New(env, tables.size());
  for (size_t i = 0; i < tables.size(); ++i) isas.Set(static_cast<uint32_t>(i), tables[i]->name);
  Napi::Object out = Napi::Object::New(env);
  out.Set("isas", isas);
  out.Set("best", best_table()->name);
  out.Set("threads", cpu_budget());
  constexpr const char* kPrecisions[] = {"float32", "bfloat16", "bfloat16-amx"};
  out.Set("fastestPrecision", kPrecisions[static_cast<size_t>(fastest_precision())]);
  out.Set("peakGflops", Napi::Function::New(env, peak_gflops, "peakGflops"));
  return out;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  stay_loaded();
  define_program(env);
  exports.Set("Engine", EngineWrap::define(env));
  exports.Set("info", Napi::Function::New(env, info, "info"));
  exports.Set("discard", Napi::Function::New(env, discard, "discard"));
  exports.Set("forget", Napi::Function::New(env, forget, "forget"));
  exports.Set("returnFreed", Napi::Function::New(env, return_freed, "returnFreed"));
  exports.Set("decodeFields", Napi::Function::New(env, decode_fields, "decodeFields"));
  exports.Set("extremes", Napi::Function::New(env, extremes, "extremes"));
  exports.Set("scale", Napi::Function::New(env, scale, "scale"));
  exports.Set("toBytes", Napi::Function::New(env, to_bytes, "toBytes"));
  exports.Set("fromBytes", Napi::Function::New(env, from_bytes, "fromBytes"));
  exports.Set("inUnits", Napi::Function::New(env, in_units, "inUnits"));
  exports.Set("draw", Napi::Function::New(env, draw, "draw"));
  exports.Set("decodeJpeg", Napi::Function::New(env, decode_jpeg, "decodeJpeg"));
  if (can_sha256()) {
    exports.Set("sha256", Napi::Function::New(env, sha256_all, "sha256"));
    exports.Set("auditLinesSync", Napi::Function::New(env, audit_lines_sync, "auditLinesSync"));
  }
  return exports;
}

}  // namespace

NODE_API_MODULE(residual_skip, init)

}  // namespace rskip
