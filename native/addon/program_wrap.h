// Program of Node-API: what an engine compiled, to be run.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/engine_host.h"

namespace rskip {

// To be called once for each environment, before wrap_program().
void define_program(Napi::Env env);
Napi::Object wrap_program(Napi::Env env, std::shared_ptr<EngineHost> host, std::shared_ptr<CompiledProgram> program);

}  // namespace rskip
