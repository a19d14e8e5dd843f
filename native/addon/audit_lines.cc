#include "addon/audit_lines.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "addon/convert.h"
#include "audit/item_lines.h"

namespace rskip {
namespace {

constexpr size_t kNumbers = 8;
constexpr size_t kMaxItems = 1 << 12;

// Items that are encoded in one step.
constexpr size_t kStepItems = 2;

class Batch {
 public:
  std::vector<ItemRow> rows;
  std::string_view record;
  Link link{};
  int top = 0;
  Meaning meaning = Meaning::kLogits;

  // True when there is more to encode.
  bool step() {
    if (done_ == 0 && !record.empty()) append_record(text_, link, record);
    const size_t items = std::min(kStepItems, rows.size() - done_);
    append_items(text_, link, {&rows[done_], items}, top, meaning);
    done_ += items;
    return done_ < rows.size();
  }

  Napi::Value lines(Napi::Env env) const { return Napi::Buffer<char>::Copy(env, text_.data(), text_.size()); }

 private:
  std::string text_;
  size_t done_ = 0;
};

std::string_view text_of(const TypedBytes& bytes) { return {static_cast<const char*>(bytes.data), bytes.bytes}; }

// `arrays` gets what the batch points into.
Batch read_batch(const Napi::CallbackInfo& info, std::vector<Napi::Value>& arrays) {
  const Napi::Env env = info.Env();
  const auto check = [&](bool ok) {
    if (!ok) throw_js(env, EngineError(ErrorCode::kInvalidArgument, "auditLines: wrong arguments"));
  };
  check(info.Length() == 7 && info[0].IsArray() && info[6].IsString());
  const auto argument = [&](size_t index) { return size_t{info[index].ToNumber().Uint32Value()}; };
  const size_t items = argument(1), capacity = argument(2), blocks = argument(3), outputs = argument(4);
  const int top = info[5].ToNumber().Int32Value();
  const std::string meaning = info[6].As<Napi::String>();
  check(meaning == "logits" || meaning == "probabilities");
  arrays = read_elements(info[0].As<Napi::Array>());
  size_t at = 0;
  const auto next = [&] {
    check(at < arrays.size());
    return typed_bytes(env, arrays[at++], "A part of the batch");
  };
  const TypedBytes columns = next(), texts = next(), record = next(), link = next();
  Batch batch;
  batch.top = top;
  if (meaning == "probabilities") batch.meaning = Meaning::kProbabilities;
  check(link.bytes == batch.link.size() && items > 0 && items <= capacity && capacity <= kMaxItems && batch.top > 0);
  // Below 2^48: the numbers of blocks and outputs are below 2^32.
  check(columns.bytes >= capacity * (kNumbers * sizeof(double) + blocks * (sizeof(float) + 2) + outputs * sizeof(float)));
  check(reinterpret_cast<uintptr_t>(columns.data) % alignof(double) == 0);
  std::memcpy(batch.link.data(), link.data, link.bytes);
  batch.record = text_of(record);
  const auto* numbers = static_cast<const double*>(columns.data);
  const auto* scores = reinterpret_cast<const float*>(numbers + capacity * kNumbers);
  const float* answers = scores + capacity * blocks;
  const auto* ran = reinterpret_cast<const uint8_t*>(answers + capacity * outputs);
  const uint8_t* reasons = ran + capacity * blocks;
  std::string_view text = text_of(texts);
  batch.rows.resize(items);
  for (size_t i = 0; i < items; ++i, numbers += kNumbers) {
    ItemRow& row = batch.rows[i];
    row.time = numbers[0];
    row.run = numbers[1];
    row.item = numbers[2];
    row.milliseconds = numbers[3];
    row.saved = numbers[4];
    row.scores = {scores + i * blocks, blocks};
    row.answer = {answers + i * outputs, outputs};
    row.ran = {ran + i * blocks, blocks};
    row.reasons = {reasons + i * blocks, blocks};
    check(std::ranges::all_of(row.reasons, [](uint8_t reason) { return reason < kReasons; }));
    for (const auto& [length, part] : {std::pair{numbers[5], &row.exits}, {numbers[6], &row.request}}) {
      check(length >= 0 && length <= static_cast<double>(text.size()));
      *part = text.substr(0, static_cast<size_t>(length));
      text.remove_prefix(part->size());
    }
    if (numbers[7] == 0) continue;
    const TypedBytes input = next();
    // Empty data may be null, which would mean that there is none.
    static constexpr uint8_t kNothing = 0;
    row.input = {input.bytes == 0 ? &kNothing : static_cast<const uint8_t*>(input.data), input.bytes};
  }
  return batch;
}

class PendingLines final : public Pending {
 public:
  PendingLines(Napi::Env env, std::shared_ptr<EngineHost> host, Batch batch, const std::vector<Napi::Value>& arrays)
      : Pending(env, std::move(host), list_of(env, arrays)), batch_(std::move(batch)) {}

  bool step() noexcept {
    try {
      return batch_.step();
    } catch (...) {
      error_.emplace(current_error());
      return false;
    }
  }

 private:
  Napi::Value result(Napi::Env env) override {
    if (error_) throw *error_;
    return batch_.lines(env);
  }

  Batch batch_;
  std::optional<EngineError> error_;
};

class LinesJob final : public BackgroundJob {
 public:
  LinesJob(PendingLines* pending, EngineHost* host) : pending_(pending), host_(host) {}
  bool step() noexcept override {
    const bool more = pending_->step();
    if (!more) host_->work_ended(pending_);
    return more;
  }

 private:
  PendingLines* const pending_;
  EngineHost* const host_;  // lives as long as what is pending
};

}  // namespace

Napi::Value start_audit_lines(const Napi::CallbackInfo& info, const std::shared_ptr<EngineHost>& host) {
  const Napi::Env env = info.Env();
  std::vector<Napi::Value> arrays;
  Batch batch = read_batch(info, arrays);
  const std::shared_ptr<Engine> engine = host->require_engine();
  auto pending = std::make_unique<PendingLines>(env, host, std::move(batch), arrays);
  return host->start(env, std::move(pending), [&](PendingLines& lines) {
    engine->submit_background(std::make_shared<LinesJob>(&lines, host.get()));
  });
}

Napi::Value audit_lines_sync(const Napi::CallbackInfo& info) {
  return translated(info.Env(), [&] {
    std::vector<Napi::Value> arrays;
    Batch batch = read_batch(info, arrays);
    while (batch.step()) {
    }
    return batch.lines(info.Env());
  });
}

}  // namespace rskip
