#include "addon/extremes.h"

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

}  // namespace rskip
