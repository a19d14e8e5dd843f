#include "addon/engine_host.h"

#include <utility>

#include "addon/convert.h"

namespace rskip {

PendingRun::PendingRun(Napi::Env env, std::shared_ptr<EngineHost> run_host, Napi::Value value)
    : host(std::move(run_host)),
      deferred(Napi::Promise::Deferred::New(env)),
      pinned(Napi::Reference<Napi::Value>::New(value, 1)) {}

// On the event loop. `env` is null when the environment is ending: nobody waits any more, and its references are
// no longer to be touched.
void settle(Napi::Env env, Napi::Function, std::nullptr_t*, PendingRun* raw) {
  std::unique_ptr<PendingRun> run(raw);
  if (static_cast<napi_env>(env) == nullptr) {
    run->pinned.SuppressDestruct();
    return;
  }
  const Napi::HandleScope scope(env);
  run->pinned.Reset();
  try {
    run->host->run_settled(env);
    if (run->error) {
      run->deferred.Reject(to_js(env, *run->error).Value());
    } else {
      run->deferred.Resolve(env.Undefined());
    }
  } catch (const Napi::Error&) {
    // The environment is ending and takes no more calls: nobody waits.
  }
}

std::shared_ptr<EngineHost> EngineHost::make(Napi::Env env, const EngineOptions& options) {
  std::shared_ptr<EngineHost> host(new EngineHost());
  host->engine_ = std::make_shared<Engine>(options);
  host->env_ = env;
  host->channel_ = RunChannel::New(env, "residual-skip run", 0, 1);
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

void EngineHost::run_started(Napi::Env env) {
  if (pending_++ == 0) channel_.Ref(env);
}

void EngineHost::run_settled(Napi::Env env) {
  if (--pending_ > 0) return;
  if (env_ != nullptr) channel_.Unref(env);
  if (released_) shut_down();
}

void EngineHost::run_ended(PendingRun* run) { channel_.NonBlockingCall(run); }

}  // namespace rskip
