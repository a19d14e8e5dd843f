// Items of runs as lines of the audit log: the same bytes as lib/audit/items.ts and record.ts make of them, away from the
// event loop.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "hash/sha256.h"

namespace rskip {

constexpr uint8_t kReasons = 6;

// One item. Views stay valid while it is encoded.
struct ItemRow {
  double time = 0, run = 0, item = 0, milliseconds = 0;
  // Multiply-adds saved; NaN where the line says nothing of them.
  double saved = 0;
  // One for each block: 1 where it ran; why, by index in SKIP_REASONS of lib/skip/compiled-policy.ts, below kReasons.
  std::span<const uint8_t> ran, reasons;
  // One for each block; NaN where no gate was asked.
  std::span<const float> scores;
  // The text between the brackets of `exits`.
  std::string_view exits;
  // What follows them: the fields of the request, each after a comma. Empty if there is none.
  std::string_view request;
  // Null data where its hash is not recorded.
  Message input{nullptr, 0};
  // The output: class scores, one for each class.
  std::span<const float> answer;
};

// SHA-256 over the link before and a line, in hexadecimal digits.
using Link = std::array<char, 2 * kDigestBytes>;

// What class scores mean, as lib/skip/scores.ts has it.
enum class Meaning { kLogits, kProbabilities };

// Appends the items to `text`, a line each, which ends in its link. `top` is how many of the best classes are written.
// Requires can_sha256().
void append_items(std::string& text, Link& link, std::span<const ItemRow> rows, int top, Meaning meaning);

// Appends a line that holds `record`, a JSON object.
void append_record(std::string& text, Link& link, std::string_view record);

}  // namespace rskip
