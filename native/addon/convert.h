// JavaScript values to plain C++ and back; throws Napi::Error.
#pragma once

#include <napi.h>

#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "program/error.h"
#include "run/engine.h"

namespace rskip {

// Throws a JavaScript error with the `code` of `error`.
[[noreturn]] void throw_js(Napi::Env env, const EngineError& error);
Napi::Error to_js(Napi::Env env, const EngineError& error);

// Returns body(). Every exception but a JavaScript error becomes one with a code: none may cross Node-API.
template <class Body>
auto translated(Napi::Env env, const Body& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw_js(env, current_error());
  }
}

// Resolves the promise to body(), or rejects it with what that throws.
template <class Body>
void settle(Napi::Env env, const Napi::Promise::Deferred& deferred, const Body& body) {
  try {
    Napi::Value value;
    try {
      value = translated(env, body);
    } catch (const Napi::Error& error) {
      return deferred.Reject(error.Value());
    }
    deferred.Resolve(value);
  } catch (const Napi::Error&) {
    // The environment is ending and takes no more calls: nobody waits.
  }
}

// The elements of a list. Reading them may run getters, which can detach buffers and release engines: take pointers, and
// ask what is there, only after that.
std::vector<Napi::Value> read_elements(const Napi::Array& list);
// A list of the same elements that nobody else holds, to keep them alive.
Napi::Array list_of(Napi::Env env, const std::vector<Napi::Value>& elements);

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

template <class T>
inline constexpr napi_typedarray_type kArrayType = napi_uint8_array;
template <>
inline constexpr napi_typedarray_type kArrayType<int32_t> = napi_int32_array;
template <>
inline constexpr napi_typedarray_type kArrayType<float> = napi_float32_array;
template <>
inline constexpr napi_typedarray_type kArrayType<double> = napi_float64_array;

// The elements of a Uint8Array, Int32Array, Float32Array or Float64Array; none when it is detached.
template <class T>
std::span<T> typed_span(Napi::Env env, Napi::Value value, const char* what) {
  static_assert(std::is_same_v<T, uint8_t> || kArrayType<T> != napi_uint8_array);
  const TypedBytes array = typed_bytes(env, value, kArrayType<T>, what);
  return {static_cast<T*>(array.data), array.elements};
}

}  // namespace rskip
