// An engine in a Node environment: keeps the event loop alive while runs are under way, brings their ends back to it,
// and goes away before the environment does.
#pragma once

#include <napi.h>

#include <memory>
#include <optional>

#include "engine/engine.h"

namespace rskip {

class EngineHost;

// A run under way. Made and destroyed on the environment's thread.
struct PendingRun {
  PendingRun(Napi::Env env, std::shared_ptr<EngineHost> host, Napi::Value pinned);
  std::shared_ptr<EngineHost> host;
  std::shared_ptr<CompiledProgram> program;
  Napi::Promise::Deferred deferred;
  Napi::Reference<Napi::Value> pinned;  // keeps the buffers of the run
  std::optional<EngineError> error;
};

void settle(Napi::Env env, Napi::Function callback, std::nullptr_t* context, PendingRun* run);
using RunChannel = Napi::TypedThreadSafeFunction<std::nullptr_t, PendingRun, settle>;

class EngineHost : public std::enable_shared_from_this<EngineHost> {
 public:
  static std::shared_ptr<EngineHost> make(Napi::Env env, const EngineOptions& options);
  ~EngineHost();

  // Null after release(), and when the environment ends.
  std::shared_ptr<Engine> engine() { return released_ ? nullptr : engine_; }
  // The engine goes when the runs under way have ended. Idempotent.
  void release();

  // Called around every asynchronous run and compilation, on the environment's thread.
  void run_started(Napi::Env env);
  void run_settled(Napi::Env env);
  // From a worker's thread: takes the run back to the event loop.
  void run_ended(PendingRun* run);

 private:
  EngineHost() = default;
  static void environment_ends(void* host);
  // Cancels, waits for the workers, and lets go of the event loop.
  void shut_down();

  napi_env env_ = nullptr;
  std::shared_ptr<Engine> engine_;  // a compilation under way holds it, too
  RunChannel channel_;
  int pending_ = 0;
  bool released_ = false;
};

}  // namespace rskip
