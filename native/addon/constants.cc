#include "addon/constants.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "addon/convert.h"

namespace rskip {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
};

template <class T>
Range range_of(const TypedBytes& array) {
  Range range;
  for (const T element : std::span(static_cast<const T*>(array.data), array.elements)) {
    const double v = element;
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(v)) return {v, v};
      if (v == 0) {
        if (range.low > 0 || (range.low == 0 && std::signbit(v))) range.low = v;
        if (range.high < 0 || (range.high == 0 && !std::signbit(v))) range.high = v;
        continue;
      }
    }
    if (v < range.low) range.low = v;
    if (v > range.high) range.high = v;
  }
  return range;
}

// Throws if the arrays have different lengths.
void require_same(Napi::Env env, size_t from, size_t to) {
  if (from != to) throw_js(env, EngineError(ErrorCode::kInvalidArgument, "constants: their lengths differ"));
}

TypedBytes typed_as_bytes(Napi::Env env, Napi::Value value) {
  const TypedBytes array = typed_bytes(env, value, "The bytes");
  if (array.type == napi_uint8_array || array.type == napi_int8_array) return array;
  throw_js(env, EngineError(ErrorCode::kInvalidArgument, "constants: expected bytes"));
}

// Halves are rounded up, as in JavaScript.
double rounded(double v) {
  const double above = std::ceil(v);
  return above - 0.5 > v ? above - 1 : above;
}

}  // namespace

Napi::Value extremes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const TypedBytes array = typed_bytes(env, info[0], "The elements");
  const std::span<double> found = typed_span<double>(env, info[1], "The extremes");
  if (found.size() < 2) throw_js(env, EngineError(ErrorCode::kInvalidArgument, "extremes: there is no room for them"));
  Range range;
  switch (array.type) {
    case napi_int8_array: range = range_of<int8_t>(array); break;
    case napi_uint8_array:
    case napi_uint8_clamped_array: range = range_of<uint8_t>(array); break;
    case napi_int16_array: range = range_of<int16_t>(array); break;
    case napi_uint16_array: range = range_of<uint16_t>(array); break;
    case napi_int32_array: range = range_of<int32_t>(array); break;
    case napi_uint32_array: range = range_of<uint32_t>(array); break;
    case napi_float32_array: range = range_of<float>(array); break;
    case napi_float64_array: range = range_of<double>(array); break;
    default: return Napi::Boolean::New(env, false);
  }
  found[0] = range.low;
  found[1] = range.high;
  return Napi::Boolean::New(env, true);
}

void scale(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double by = info[1].ToNumber();
  const bool divided = info[2].ToBoolean();
  const std::span<const float> numbers = typed_span<float>(env, info[0], "The numbers");
  const std::span<float> results = typed_span<float>(env, info[3], "The results");
  require_same(env, numbers.size(), results.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double number = numbers[i];
    results[i] = static_cast<float>(divided ? number / by : number * by);
  }
}

void to_bytes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double factor = info[1].ToNumber();
  const double zero = info[2].ToNumber();
  const double low = info[3].ToNumber();
  const double high = info[4].ToNumber();
  const std::span<const float> numbers = typed_span<float>(env, info[0], "The numbers");
  const TypedBytes bytes = typed_as_bytes(env, info[5]);
  require_same(env, numbers.size(), bytes.elements);
  if (!(low >= -128 && low <= high && high <= 255 && zero >= -128 && zero <= 255)) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "constants: these bounds aren't those of bytes"));
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    // Halves are rounded to the even one.
    const double steps = std::nearbyint(static_cast<float>(numbers[i] / factor));
    const double byte = std::isnan(steps) ? zero : std::min(std::max(steps, low - zero), high - zero) + zero;
    static_cast<uint8_t*>(bytes.data)[i] = static_cast<uint8_t>(static_cast<int>(byte));
  }
}

void from_bytes(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double zero = info[1].ToNumber();
  const double factor = info[2].ToNumber();
  const TypedBytes bytes = typed_as_bytes(env, info[0]);
  const std::span<float> numbers = typed_span<float>(env, info[3], "The numbers");
  require_same(env, bytes.elements, numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    const uint8_t bits = static_cast<const uint8_t*>(bytes.data)[i];
    const double byte = bytes.type == napi_int8_array ? static_cast<int8_t>(bits) : bits;
    numbers[i] = static_cast<float>(static_cast<float>(byte - zero) * factor);
  }
}

void in_units(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double limit = info[3].ToNumber();
  const std::span<const double> numbers = typed_span<double>(env, info[0], "The numbers");
  const std::span<const float> own =
      info[1].IsNull() ? std::span<const float>() : typed_span<float>(env, info[1], "Their units");
  const std::span<const float> units = typed_span<float>(env, info[2], "The units");
  const std::span<int32_t> results = typed_span<int32_t>(env, info[4], "The results");
  require_same(env, numbers.size(), results.size());
  if (units.size() != 1) require_same(env, numbers.size(), units.size());
  if (own.size() > 1) require_same(env, numbers.size(), own.size());
  if (!(limit >= 0 && limit <= std::numeric_limits<int32_t>::max())) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "constants: this limit isn't one of integers"));
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double unit = units[units.size() == 1 ? 0 : i];
    const double mine = own.empty() ? 1 : own[own.size() == 1 ? 0 : i];
    const bool same = !own.empty() && std::abs(mine - unit) <= 1e-6 * mine;
    const double v = same ? numbers[i] : rounded(numbers[i] * mine / unit);
    results[i] = std::isnan(v) ? 0 : static_cast<int32_t>(std::clamp(v, -limit, limit));
  }
}

}  // namespace rskip
