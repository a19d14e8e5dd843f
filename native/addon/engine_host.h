// An engine in a Node environment: keeps the event loop alive while work is under way, settles its promises there, and
// ends before the environment does.
#pragma once

#include <napi.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "run/engine.h"

namespace rskip {

class EngineHost;

// Work under way for a promise. Made and destroyed on the environment's thread.
class Pending {
 public:
  // `pinned` keeps the buffers that the work needs.
  Pending(Napi::Env env, std::shared_ptr<EngineHost> host, Napi::Value pinned);
  virtual ~Pending() = default;

 private:
  // Returns what the promise resolves to, or throws what it rejects with. Called once, after the work has ended.
  virtual Napi::Value result(Napi::Env env) = 0;
  friend void settle_pending(Napi::Env, Napi::Function, std::nullptr_t*, Pending*);
  friend class EngineHost;
  void settle_now(Napi::Env env);
  const Napi::Promise::Deferred deferred_;
  const std::shared_ptr<EngineHost> host_;
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
  // Throws EngineError(kSessionReleased).
  std::shared_ptr<Engine> require_engine();
  // Destroys the engine once the runs under way have ended. Idempotent.
  void release();

  // Called around all asynchronous work, on the environment's thread.
  void work_started(Napi::Env env);
  void work_settled(Napi::Env env);
  // Starts work by start(*pending), after which a worker calls work_ended(). Returns the work's promise.
  template <class Work, class Start>
  Napi::Promise start(Napi::Env env, std::unique_ptr<Work> pending, const Start& start);
  // On a worker's thread: has the event loop settle work that was started.
  void work_ended(Pending* pending);
  // On the environment's thread: spins until some work has ended, for at most `limit`, and settles it.
  void await_end(Napi::Env env, std::chrono::microseconds limit);

 private:
  friend void settle_pending(Napi::Env, Napi::Function, std::nullptr_t*, Pending*);
  EngineHost() = default;
  // await_end() must not settle `pending`.
  void forget_end(Pending* pending);
  static void environment_ends(void* host);
  // Cancels the work, waits for the workers, and releases the event loop.
  void shut_down();

  napi_env env_ = nullptr;
  std::shared_ptr<Engine> engine_;  // a compilation under way holds it, too
  SettleChannel channel_;
  int pending_ = 0;  // work that was started and is not settled
  std::mutex ended_mutex_;
  std::vector<Pending*> ended_;  // of them; has room for all
  std::atomic<bool> any_ended_{false};
  bool released_ = false;
};

template <class Work, class Start>
Napi::Promise EngineHost::start(Napi::Env env, std::unique_ptr<Work> pending, const Start& start) {
  const Napi::Promise promise = pending->deferred_.Promise();
  work_started(env);
  try {
    start(*pending);
  } catch (...) {
    work_settled(env);
    throw;
  }
  // settle_pending() deletes it, once this thread is back in the event loop.
  static_cast<void>(pending.release());
  return promise;
}

}  // namespace rskip
