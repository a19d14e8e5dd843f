#include "addon/messages.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "addon/convert.h"

namespace rskip {
namespace {

constexpr size_t kFieldWords = 4;
constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;
constexpr int kMaxDepth = 32;
// More than any message of ONNX has.
constexpr size_t kMaxFields = 16;

enum Type : int32_t { kString, kBytes, kInt32, kInt64, kUint64, kFloat, kDouble, kMessage };
enum WireType : uint32_t { kVarint = 0, kEightBytes = 1, kDelimited = 2, kFourBytes = 5 };

uint32_t wire_type_of(int32_t type) {
  switch (type) {
    case kInt32:
    case kInt64:
    case kUint64: return kVarint;
    case kFloat: return kFourBytes;
    case kDouble: return kEightBytes;
    default: return kDelimited;
  }
}

// Whether no other byte of a number follows.
bool is_last_byte(uint8_t byte) { return byte < 0x80; }

struct Field {
  int32_t name = -1;
  int32_t type = 0;
  bool repeated = false;
  int32_t message = 0;
  bool is_packed_list() const { return repeated && wire_type_of(type) != kDelimited; }
};

// A packed list, which no value is added to.
constexpr uint32_t kWhole = UINT32_MAX;

// A field that a message has, with how many values if it is a list.
struct Found {
  int32_t name;
  napi_value value;
  uint32_t count;
};

struct Fields {
  std::array<Found, kMaxFields> list;
  size_t size = 0;

  Found* find(int32_t name) {
    for (size_t i = 0; i < size; ++i) {
      if (list[i].name == name) return &list[i];
    }
    return nullptr;
  }
  // Null if there are too many.
  Found* add(int32_t name, napi_value value, uint32_t count) {
    if (size == kMaxFields) return nullptr;
    list[size] = {name, value, count};
    return &list[size++];
  }
};

// Methods that return false have met something that isn't plain, and leave `at` anywhere.
class MessageDecoder {
 public:
  MessageDecoder(Napi::Env env, std::span<const int32_t> table, Napi::Array names, Napi::Uint8Array bytes)
      : env_(env), table_(table), names_(names), memory_(bytes.ArrayBuffer()), offset_(bytes.ByteOffset()),
        data_(bytes.Data()), keys_(names.Length()) {}

  size_t decode(int32_t message, size_t start, size_t end, size_t piece, Napi::Object target) {
    Fields fields;
    size_t done = start;
    while (done < end && done - start < piece) {
      size_t at = done;
      if (!add_field(message, at, end, 0, piece, target, fields)) break;
      done = at;
    }
    define(target, fields);
    return done;
  }

 private:
  void check(napi_status status) const {
    if (status != napi_ok) throw Napi::Error::New(env_);
  }

  napi_value key(int32_t name) {
    napi_value& known = keys_[static_cast<size_t>(name)];
    if (known == nullptr) check(napi_get_element(env_, names_, static_cast<uint32_t>(name), &known));
    return known;
  }

  // A number without a field has no name, and neither has what is outside of the table.
  Field field_of(int32_t message, uint64_t number) const {
    const size_t at = static_cast<size_t>(message);
    if (message < 0 || at + 1 >= table_.size()) return {};
    const int64_t begin = table_[at];
    const int64_t end = table_[at + 1];
    if (begin < 0 || begin > end || end > static_cast<int64_t>(table_.size())) return {};
    if (number >= static_cast<uint64_t>(end - begin) / kFieldWords) return {};
    const int32_t* words = &table_[static_cast<size_t>(begin) + number * kFieldWords];
    if (words[0] >= static_cast<int32_t>(keys_.size())) return {};
    return {words[0], words[1], words[2] != 0, words[3]};
  }

  bool varint(size_t& at, size_t end, uint64_t& value) const {
    value = 0;
    for (int shift = 0; shift < 70 && at < end; shift += 7) {
      const uint8_t byte = data_[at++];
      value |= static_cast<uint64_t>(byte & 0x7f) << std::min(shift, 63);
      if (is_last_byte(byte)) return true;
    }
    return false;
  }

  bool length(size_t& at, size_t end, size_t& last) const {
    uint64_t value = 0;
    if (!varint(at, end, value) || value > end - at) return false;
    last = at + value;
    return true;
  }

  bool skip(uint32_t wire_type, size_t& at, size_t end) const {
    uint64_t ignored = 0;
    switch (wire_type) {
      case kVarint: return varint(at, end, ignored);
      case kEightBytes: at += 8; return at <= end;
      case kFourBytes: at += 4; return at <= end;
      case kDelimited: return length(at, end, at);
      default: return false;
    }
  }

  // Adds one field to `fields`. `target` is what the whole message is added to, or null inside of it.
  bool add_field(int32_t message, size_t& at, size_t end, int depth, size_t piece, napi_value target, Fields& fields) {
    uint64_t tag = 0;
    if (!varint(at, end, tag) || tag > UINT32_MAX) return false;
    const uint32_t wire_type = tag & 7;
    const Field field = field_of(message, tag >> 3);
    if (field.name < 0) return skip(wire_type, at, end);
    const bool packed = field.is_packed_list() && wire_type == kDelimited;
    if (!packed && wire_type != wire_type_of(field.type)) return skip(wire_type, at, end);
    if (packed || field.type == kMessage) {
      size_t begin = at;
      size_t last = 0;
      if (!length(begin, end, last) || last - begin >= piece) return false;
    }
    Found* found = fields.find(field.name);
    if (found == nullptr && target != nullptr && field.repeated) {
      if (!add_known(target, field.name, fields, found)) return false;
    }
    if (packed) return found == nullptr && add_packed(field, at, end, fields);
    if (found != nullptr && found->count == kWhole) return false;
    napi_value value = nullptr;
    if (!read(field, at, end, depth, &value)) return false;
    if (!field.repeated) {
      if (found == nullptr) return fields.add(field.name, value, 0) != nullptr;
      found->value = value;
      return true;
    }
    if (found == nullptr) {
      napi_value list = nullptr;
      check(napi_create_array(env_, &list));
      found = fields.add(field.name, list, 0);
      if (found == nullptr) return false;
    }
    check(napi_set_element(env_, found->value, found->count++, value));
    return true;
  }

  // The list that `target` has already; false if it has something else.
  bool add_known(napi_value target, int32_t name, Fields& fields, Found*& found) {
    napi_value known = nullptr;
    check(napi_get_property(env_, target, key(name), &known));
    napi_valuetype type = napi_undefined;
    check(napi_typeof(env_, known, &type));
    if (type == napi_undefined) return true;
    bool is_list = false;
    check(napi_is_array(env_, known, &is_list));
    if (!is_list) return false;
    uint32_t count = 0;
    check(napi_get_array_length(env_, known, &count));
    found = fields.add(name, known, count);
    return found != nullptr;
  }

  bool add_packed(const Field& field, size_t& at, size_t end, Fields& fields) {
    size_t last = 0;
    if (!length(at, end, last)) return false;
    const size_t bytes = last - at;
    napi_value list = nullptr;
    if (field.type == kFloat) {
      if (bytes % sizeof(float) != 0) return false;
      list = copied(napi_float32_array, at, bytes, bytes / sizeof(float));
      at = last;
    } else if (field.type == kInt32 && std::all_of(data_ + at, data_ + last, is_last_byte)) {
      list = copied(napi_uint8_array, at, bytes, bytes);
      at = last;
    } else {
      check(napi_create_array(env_, &list));
      for (uint32_t i = 0; at < last; ++i) {
        napi_value value = nullptr;
        if (!read(field, at, last, 0, &value)) return false;
        check(napi_set_element(env_, list, i, value));
      }
    }
    return fields.add(field.name, list, kWhole) != nullptr;
  }

  napi_value copied(napi_typedarray_type type, size_t at, size_t bytes, size_t elements) {
    void* memory = nullptr;
    napi_value buffer = nullptr;
    napi_value array = nullptr;
    check(napi_create_arraybuffer(env_, bytes, &memory, &buffer));
    if (bytes > 0) std::memcpy(memory, data_ + at, bytes);
    check(napi_create_typedarray(env_, type, elements, buffer, 0, &array));
    return array;
  }

  bool read(const Field& field, size_t& at, size_t end, int depth, napi_value* value) {
    switch (field.type) {
      case kString:
      case kBytes: {
        size_t last = 0;
        if (!length(at, end, last)) return false;
        if (field.type == kString) {
          check(napi_create_string_utf8(env_, reinterpret_cast<const char*>(data_ + at), last - at, value));
        } else {
          check(napi_create_typedarray(env_, napi_uint8_array, last - at, memory_, offset_ + at, value));
        }
        at = last;
        return true;
      }
      case kInt32:
      case kInt64:
      case kUint64: return integer(field.type, at, end, value);
      case kFloat: return floating<float>(at, end, value);
      case kDouble: return floating<double>(at, end, value);
      default: return nested(field.message, at, end, depth + 1, value);
    }
  }

  bool integer(int32_t type, size_t& at, size_t end, napi_value* value) {
    uint64_t bits = 0;
    if (!varint(at, end, bits)) return false;
    const int64_t number = type == kInt32 ? static_cast<int32_t>(bits) : static_cast<int64_t>(bits);
    if (number > kMaxSafeInteger || number < -kMaxSafeInteger) return false;
    check(napi_create_int64(env_, number, value));
    return true;
  }

  template <class T>
  bool floating(size_t& at, size_t end, napi_value* value) {
    T number = 0;
    if (end - at < sizeof(T)) return false;
    std::memcpy(&number, data_ + at, sizeof(T));
    at += sizeof(T);
    check(napi_create_double(env_, number, value));
    return true;
  }

  bool nested(int32_t message, size_t& at, size_t end, int depth, napi_value* value) {
    size_t last = 0;
    if (depth > kMaxDepth || !length(at, end, last)) return false;
    Fields fields;
    while (at < last) {
      if (!add_field(message, at, last, depth, SIZE_MAX, nullptr, fields)) return false;
    }
    check(napi_create_object(env_, value));
    define(*value, fields);
    return true;
  }

  void define(napi_value target, const Fields& fields) {
    std::array<napi_property_descriptor, kMaxFields> properties{};
    for (size_t i = 0; i < fields.size; ++i) {
      properties[i].name = key(fields.list[i].name);
      properties[i].value = fields.list[i].value;
      properties[i].attributes = napi_default_jsproperty;
    }
    check(napi_define_properties(env_, target, fields.size, properties.data()));
  }

  const Napi::Env env_;
  const std::span<const int32_t> table_;
  const Napi::Array names_;
  const Napi::ArrayBuffer memory_;
  const size_t offset_;
  const uint8_t* const data_;
  std::vector<napi_value> keys_;
};

}  // namespace

Napi::Value decode_fields(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::span<const int32_t> table = typed_span<int32_t>(env, info[0], "The table of fields");
  const TypedBytes bytes = typed_bytes(env, info[3], napi_uint8_array, "The messages");
  const int64_t start = info[4].ToNumber().Int64Value();
  const int64_t end = info[5].ToNumber().Int64Value();
  const bool fits = start >= 0 && start <= end && end <= static_cast<int64_t>(bytes.bytes);
  if (!info[1].IsArray() || !info[7].IsObject() || !fits) {
    throw_js(env, EngineError(ErrorCode::kInvalidArgument, "decodeFields: wrong arguments"));
  }
  return translated(env, [&]() -> Napi::Value {
    MessageDecoder decoder(env, table, info[1].As<Napi::Array>(), info[3].As<Napi::Uint8Array>());
    const size_t piece = static_cast<size_t>(info[6].ToNumber().Int64Value());
    const int32_t message = info[2].ToNumber().Int32Value();
    const size_t at = decoder.decode(message, static_cast<size_t>(start), static_cast<size_t>(end), piece,
                                     info[7].As<Napi::Object>());
    return Napi::Number::New(env, static_cast<double>(at));
  });
}

}  // namespace rskip
