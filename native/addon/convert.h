// JavaScript values to plain C++ and back; throws Napi::Error.
#pragma once

#include <napi.h>

#include "engine/engine.h"
#include "engine/error.h"

namespace rskip {

// Throws a JavaScript error with the `code` of `error`.
[[noreturn]] void throw_js(Napi::Env env, const EngineError& error);
Napi::Error to_js(Napi::Env env, const EngineError& error);

// The bytes of a typed array; null data and 0 bytes when it is detached.
struct TypedBytes {
  napi_typedarray_type type = napi_uint8_array;
  void* data = nullptr;
  size_t elements = 0;
  size_t bytes = 0;
};
TypedBytes typed_bytes(Napi::Env env, Napi::Value value, const char* what);
// The same, of one element type.
TypedBytes typed_bytes(Napi::Env env, Napi::Value value, napi_typedarray_type type, const char* what);

}  // namespace rskip
