// An engine in a Node environment: keeps the event loop alive while work is under way, brings its end back to it,
// and goes away before the environment does.
#pragma once

#include <napi.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/engine.h"

namespace rskip {

class EngineHost;

// Work under way for a promise. Made and destroyed on the environment's thread.
class Pending {
 public:
  // `pinned` keeps the buffers that the work needs.
  Pending(Napi::Env env, std::shared_ptr<EngineHost> host, Napi::Value pinned);
  virtual ~Pending() = default;
  Napi::Promise promise() const { return deferred.Promise(); }

 protected:
  // Resolves or rejects; may throw Napi::Error.
  virtual void settle(Napi::Env env) = 0;
  Napi::Promise::Deferred deferred;

 private:
  friend void settle_pending(Napi::Env, Napi::Function, std::nullptr_t*, Pending*);
  friend class EngineHost;
  void settle_now(Napi::Env env);
  std::shared_ptr<EngineHost> host_;
  Napi::Reference<Napi::Value> pinned_;
  bool settled_ = false;
};

void settle_pending(Napi::Env env, Napi::Function callback, std::nullptr_t* context, Pending* pending);
using SettleChannel = Napi::TypedThreadSafeFunction<std::nullptr_t, Pending, settle_pending>;

class EngineHost : public std::enable_shared_from_this<EngineHost> {
 public:
  static std::shared_ptr<EngineHost> make(Napi::Env env, const EngineOptions& options);
  ~EngineHost();

  // Null after release(), and when the environment ends.
  std::shared_ptr<Engine> engine() { return released_ ? nullptr : engine_; }
  // The engine goes when the runs under way have ended. Idempotent.
  void release();

  // Called around all asynchronous work, on the environment's thread; what is pending calls the second one.
  void work_started(Napi::Env env);
  void work_settled(Napi::Env env);
  // From a worker's thread: takes it back to the event loop. It must have been started, or be so in this turn of the loop.
  void work_ended(Pending* pending);
  // On the environment's thread: waits awake until some work has ended, for at most `limit`, and settles it.
  void await_end(Napi::Env env, std::chrono::microseconds limit);

 private:
  friend void settle_pending(Napi::Env, Napi::Function, std::nullptr_t*, Pending*);
  EngineHost() = default;
  // `pending` is settled by others than await_end().
  void forget_end(Pending* pending);
  static void environment_ends(void* host);
  // Cancels, waits for the workers, and lets go of the event loop.
  void shut_down();

  napi_env env_ = nullptr;
  std::shared_ptr<Engine> engine_;  // a compilation under way holds it, too
  SettleChannel channel_;
  int pending_ = 0;
  std::mutex ended_mutex_;
  std::vector<Pending*> ended_;  // and not settled
  std::atomic<bool> any_ended_{false};
  bool released_ = false;
};

}  // namespace rskip
