// The one exception of the native core; its code is one of lib/errors.ts.
#pragma once

#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

namespace rskip {

enum class ErrorCode { kInvalidArgument, kIsaUnavailable, kSessionReleased, kAborted, kOutOfMemory, kReadFailed, kInternal };

inline const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "INVALID_ARGUMENT";
    case ErrorCode::kIsaUnavailable: return "ISA_UNAVAILABLE";
    case ErrorCode::kSessionReleased: return "SESSION_RELEASED";
    case ErrorCode::kAborted: return "ABORTED";
    case ErrorCode::kOutOfMemory: return "OUT_OF_MEMORY";
    case ErrorCode::kReadFailed: return "READ_FAILED";
    case ErrorCode::kInternal: return "INTERNAL";
  }
  return "INTERNAL";
}

class EngineError : public std::runtime_error {
 public:
  EngineError(ErrorCode code, const std::string& message, int32_t value = -1)
      : std::runtime_error(message), code_(code), value_(value) {}
  ErrorCode code() const { return code_; }
  // The value of the program that the message calls "value N", whose name the engine doesn't know; -1 for none.
  int32_t value() const { return value_; }

 private:
  ErrorCode code_;
  int32_t value_;
};

// Made at load: constructing an error takes memory, copying one doesn't.
inline const EngineError kOutOfMemoryError(
    ErrorCode::kOutOfMemory, "memory: there is not enough; run fewer items at once, or use fewer threads or a smaller network");
inline const EngineError kUnknownError(ErrorCode::kInternal, "engine: an unknown exception was thrown");

// The exception that is being handled.
inline EngineError current_error() noexcept {
  try {
    throw;
  } catch (const EngineError& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return kOutOfMemoryError;
  } catch (const std::exception& error) {
    try {
      return EngineError(ErrorCode::kInternal, error.what());
    } catch (const std::bad_alloc&) {
      return kOutOfMemoryError;
    }
  } catch (...) {
    return kUnknownError;
  }
}

}  // namespace rskip
