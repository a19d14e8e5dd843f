#include "addon/convert.h"

#include <string>

namespace rskip {
namespace {

size_t element_size(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array: return 1;
    case napi_int16_array:
    case napi_uint16_array: return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array: return 4;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array: return 8;
    default: return 0;
  }
}

}  // namespace

Napi::Error to_js(Napi::Env env, const EngineError& error) {
  Napi::Error out = Napi::Error::New(env, error.what());
  out.Set("code", Napi::String::New(env, error_code_name(error.code())));
  if (error.value() >= 0) out.Set("value", Napi::Number::New(env, error.value()));
  return out;
}

void throw_js(Napi::Env env, const EngineError& error) { throw to_js(env, error); }

std::vector<Napi::Value> read_elements(const Napi::Array& list) {
  const uint32_t length = list.Length();
  std::vector<Napi::Value> elements;
  elements.reserve(length);
  for (uint32_t i = 0; i < length; ++i) elements.push_back(list[i]);
  return elements;
}

Napi::Array list_of(Napi::Env env, const std::vector<Napi::Value>& elements) {
  const Napi::Array list = Napi::Array::New(env, elements.size());
  for (size_t i = 0; i < elements.size(); ++i) list.Set(static_cast<uint32_t>(i), elements[i]);
  return list;
}

TypedBytes typed_bytes(Napi::Env env, Napi::Value value, const char* what) {
  TypedBytes out;
  bool is_typed = false;
  napi_value buffer = nullptr;
  size_t offset = 0;
  if (napi_is_typedarray(env, value, &is_typed) != napi_ok || !is_typed ||
      napi_get_typedarray_info(env, value, &out.type, &out.elements, &out.data, &buffer, &offset) != napi_ok) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, std::string(what) + ": it is not a typed array"));
  }
  out.bytes = out.elements * element_size(out.type);
  return out;
}

TypedBytes typed_bytes(Napi::Env env, Napi::Value value, napi_typedarray_type type, const char* what) {
  const TypedBytes out = typed_bytes(env, value, what);
  if (out.type != type) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, std::string(what) + ": its element type is wrong"));
  }
  return out;
}

}  // namespace rskip
