#include "addon/engine_host.h"

#include <cassert>
#include <utility>

#include "addon/convert.h"
#include "run/spin.h"

namespace rskip {

Pending::Pending(Napi::Env env, std::shared_ptr<EngineHost> host, Napi::Value pinned)
    : deferred_(Napi::Promise::Deferred::New(env)),
      host_(std::move(host)),
      pinned_(Napi::Reference<Napi::Value>::New(pinned, 1)) {}

void Pending::settle_now(Napi::Env env) {
  settled_ = true;
  const Napi::HandleScope scope(env);
  pinned_.Reset();
  settle(env, deferred_, [&] {
    host_->work_settled(env);
    return result(env);
  });
}

// On the event loop. `env` is null when the environment is ending: nobody waits any more, and its references are
// no longer to be touched.
void settle_pending(Napi::Env env, Napi::Function, std::nullptr_t*, Pending* raw) {
  const std::unique_ptr<Pending> pending(raw);
  if (static_cast<napi_env>(env) == nullptr) {
    pending->pinned_.SuppressDestruct();
  } else if (!pending->settled_) {
    pending->host_->forget_end(raw);
    pending->settle_now(env);
  }
}

std::shared_ptr<EngineHost> EngineHost::make(Napi::Env env, const EngineOptions& options) {
  std::shared_ptr<EngineHost> host(new EngineHost());
  host->engine_ = std::make_shared<Engine>(options);
  // Throws when the environment is ending; there is nothing to shut down then.
  host->channel_ = SettleChannel::New(env, "residual-skip run", 0, 1);
  host->env_ = env;
  host->channel_.Unref(env);
  // Hooks run in reverse order: this one before the channel's own, so that workers never call a closed channel.
  napi_add_env_cleanup_hook(env, environment_ends, host.get());
  return host;
}

std::shared_ptr<Engine> EngineHost::require_engine() {
  if (std::shared_ptr<Engine> found = engine()) return found;
  throw EngineError(ErrorCode::kSessionReleased, "session: it was released; create another");
}

EngineHost::~EngineHost() { shut_down(); }

void EngineHost::environment_ends(void* host) { static_cast<EngineHost*>(host)->shut_down(); }

void EngineHost::shut_down() {
  if (env_ == nullptr) return;
  napi_remove_env_cleanup_hook(env_, environment_ends, this);
  env_ = nullptr;
  released_ = true;
  engine_.reset();
  channel_.Release();
}

void EngineHost::release() {
  released_ = true;
  if (pending_ == 0) shut_down();
}

void EngineHost::work_started(Napi::Env env) {
  {
    // Workers report the end without taking memory.
    std::lock_guard lock(ended_mutex_);
    ended_.reserve(static_cast<size_t>(pending_) + 1);
  }
  if (pending_ == 0) channel_.Ref(env);
  ++pending_;
}

void EngineHost::work_settled(Napi::Env env) {
  if (--pending_ > 0) return;
  if (env_ != nullptr) channel_.Unref(env);
  if (released_) shut_down();
}

void EngineHost::work_ended(Pending* pending) {
  {
    std::lock_guard lock(ended_mutex_);
    assert(ended_.size() < ended_.capacity());
    ended_.push_back(pending);
    any_ended_.store(true, std::memory_order_release);
  }
  // await_end() may have settled it already, but only settle_pending(), which this calls, deletes it.
  channel_.NonBlockingCall(pending);
}

void EngineHost::forget_end(Pending* pending) {
  std::lock_guard lock(ended_mutex_);
  std::erase(ended_, pending);
  any_ended_.store(!ended_.empty(), std::memory_order_relaxed);
}

void EngineHost::await_end(Napi::Env env, std::chrono::microseconds limit) {
  if (!spin(limit, [&] { return any_ended_.load(std::memory_order_acquire); })) return;
  std::vector<Pending*> ended;
  {
    std::lock_guard lock(ended_mutex_);
    ended = ended_;
    ended_.clear();  // and keeps its memory
    any_ended_.store(false, std::memory_order_relaxed);
  }
  for (Pending* pending : ended) pending->settle_now(env);
}

}  // namespace rskip
