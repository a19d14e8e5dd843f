// The encoder of the audit log for JavaScript.
#pragma once

#include <napi.h>

#include <memory>

#include "addon/engine_host.h"

namespace rskip {

// engine.auditLines(arrays: TypedArray[], items, capacity, blocks, outputLength, top, meaning): Promise<Buffer>, the lines of
// a batch of items, encoded by workers with nothing else to do. `meaning` is "logits" or "probabilities". Nobody may write to
// the arrays until it settles. auditLinesSync(...): Buffer. Both require can_sha256().
//
// `arrays` holds Uint8Arrays: columns, texts of the exits one after the other, a record to begin with or nothing, the
// link before (16 digits); then the inputs of those items that have one. Columns have room for `capacity` items each and follow
// one another: seven numbers (float64: time, run, item, milliseconds, multiply-adds saved or NaN, length of its part of the
// exits' text, whether it has an input), scores of the blocks (float32), outputs (float32), whether the blocks ran, and why
// (a byte each, see ItemRow).
Napi::Value start_audit_lines(const Napi::CallbackInfo& info, const std::shared_ptr<EngineHost>& host);
Napi::Value audit_lines_sync(const Napi::CallbackInfo& info);

}  // namespace rskip
