// The one exception of the native core; its code is one of lib/errors.ts.
#pragma once

#include <stdexcept>
#include <string>

namespace rskip {

enum class ErrorCode { kInvalidArgument, kIsaUnavailable, kSessionReleased, kAborted, kOutOfMemory, kInternal };

inline const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "INVALID_ARGUMENT";
    case ErrorCode::kIsaUnavailable: return "ISA_UNAVAILABLE";
    case ErrorCode::kSessionReleased: return "SESSION_RELEASED";
    case ErrorCode::kAborted: return "ABORTED";
    case ErrorCode::kOutOfMemory: return "OUT_OF_MEMORY";
    case ErrorCode::kInternal: return "INTERNAL";
  }
  return "INTERNAL";
}

class EngineError : public std::runtime_error {
 public:
  EngineError(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace rskip
