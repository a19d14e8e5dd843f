#include "addon/engine_host.h"

#include <utility>

#include "addon/convert.h"
#include "engine/spin.h"

namespace rskip {

Pending::Pending(Napi::Env env, std::shared_ptr<EngineHost> host, Napi::Value pinned)
    : deferred(Napi::Promise::Deferred::New(env)),
      host_(std::move(host)),
      pinned_(Napi::Reference<Napi::Value>::New(pinned, 1)) {}

// On the event loop. `env` is null when the environment is ending: nobody waits any more, and its references are
// no longer to be touched.
void settle_pending(Napi::Env env, Napi::Function, std::nullptr_t*, Pending* raw) {
  const std::unique_ptr<Pending> pending(raw);
  if (static_cast<napi_env>(env) == nullptr) {
    pending->pinned_.SuppressDestruct();
    return;
  }
  pending->host_->unsettled_.fetch_sub(1, std::memory_order_relaxed);
  const Napi::HandleScope scope(env);
  pending->pinned_.Reset();
  try {
    pending->host_->work_settled(env);
    pending->settle(env);
  } catch (const Napi::Error&) {
    // The environment is ending and takes no more calls: nobody waits.
  }
}

std::shared_ptr<EngineHost> EngineHost::make(Napi::Env env, const EngineOptions& options) {
  std::shared_ptr<EngineHost> host(new EngineHost());
  host->engine_ = std::make_shared<Engine>(options);
  host->env_ = env;
  host->channel_ = SettleChannel::New(env, "residual-skip run", 0, 1);
  host->channel_.Unref(env);
  // Hooks run in reverse order: this one before the channel's own, so that workers never call a closed channel.
  napi_add_env_cleanup_hook(env, environment_ends, host.get());
  return host;
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
  if (pending_++ == 0) channel_.Ref(env);
}

void EngineHost::work_settled(Napi::Env env) {
  if (--pending_ > 0) return;
  if (env_ != nullptr) channel_.Unref(env);
  if (released_) shut_down();
}

void EngineHost::work_ended(Pending* pending) {
  unsettled_.fetch_add(1, std::memory_order_release);
  channel_.NonBlockingCall(pending);
}

void EngineHost::await_end(std::chrono::microseconds limit) {
  spin(limit, [&] { return unsettled_.load(std::memory_order_acquire) > 0; });
}

}  // namespace rskip
