#include "audit/item_lines.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "audit/decimal.h"

namespace rskip {
namespace {

// Of reasons, as lib/audit/items.ts has them.
constexpr char kLetters[kReasons + 1] = "gpftxv";

void append_hex(std::string& text, const uint8_t* bytes, size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
}

void append_digest(std::string& text, const uint8_t* digest) {
  text += '"';
  append_hex(text, digest, kDigestBytes);
  text += '"';
}

// The `top` most probable classes, best first, of equals the one that comes first.
void append_top(std::string& text, std::span<const float> scores, size_t top, Meaning meaning) {
  double peak = -std::numeric_limits<double>::infinity();
  for (const float score : scores) peak = std::isnan(score) ? score : std::max<double>(peak, score);
  double sum = 0;
  for (const float score : scores) sum += std::exp(score - peak);
  const auto probability = [&](float score) {
    return meaning == Meaning::kLogits ? std::exp(score - peak) / sum : score;
  };
  std::vector<size_t> best;
  for (size_t index = 0; index < scores.size(); ++index) {
    const float score = scores[index];
    if (best.size() == top && !(score > scores[best.back()])) continue;
    if (best.size() < top) best.push_back(index);
    size_t place = best.size() - 1;
    for (; place > 0 && score > scores[best[place - 1]]; --place) best[place] = best[place - 1];
    best[place] = index;
  }
  for (size_t i = 0; i < best.size(); ++i) {
    text += i == 0 ? "[" : ",[";
    text += std::to_string(best[i]);
    text += ',';
    append_fixed(text, probability(scores[best[i]]), 6);
    text += ']';
  }
}

// Ends the line that begins at `begin` and whose closing brace is still missing.
void seal(std::string& text, size_t begin, Link& link) {
  std::string linked(link.data(), link.size());
  linked.append(text, begin, std::string::npos).append("}");
  const Message message{reinterpret_cast<const uint8_t*>(linked.data()), linked.size()};
  uint8_t digest[kDigestBytes];
  sha256({&message, 1}, digest);
  text += ",\"link\":\"";
  const size_t at = text.size();
  append_hex(text, digest, link.size() / 2);
  std::memcpy(link.data(), text.data() + at, link.size());
  text += "\"}\n";
}

// `digests` holds that of the input, if there is one, and that of the output.
void append_item(std::string& text, const ItemRow& row, const uint8_t* digests, int top, Meaning meaning) {
  text += "{\"type\":\"item\",\"time\":";
  append_fixed(text, row.time, 0);
  text += ",\"run\":";
  append_fixed(text, row.run, 0);
  text += ",\"item\":";
  append_fixed(text, row.item, 0);
  text += ",\"input\":";
  if (row.input.data == nullptr) {
    text += "null";
  } else {
    append_digest(text, digests);
    digests += kDigestBytes;
  }
  text += ",\"ran\":\"";
  for (const uint8_t ran : row.ran) text += ran == 1 ? '1' : '0';
  text += "\",\"reasons\":\"";
  for (const uint8_t reason : row.reasons) text += kLetters[reason];
  text += "\",\"scores\":[";
  for (size_t i = 0; i < row.scores.size(); ++i) {
    if (i > 0) text += ',';
    append_float(text, row.scores[i]);
  }
  text.append("],\"exits\":[").append(row.exits).append("]").append(row.request).append(",\"output\":");
  append_digest(text, digests);
  text += ",\"top\":[";
  append_top(text, row.answer, static_cast<size_t>(top), meaning);
  text += "],\"milliseconds\":";
  append_fixed(text, row.milliseconds, 4);
  if (!std::isnan(row.saved)) {
    text += ",\"multiplyAddsSkipped\":";
    append_fixed(text, row.saved, 0);
  }
}

}  // namespace

void append_items(std::string& text, Link& link, std::span<const ItemRow> rows, int top, Meaning meaning) {
  // Messages of one length are neighbours: inputs first.
  std::vector<Message> messages;
  for (const ItemRow& row : rows) {
    if (row.input.data != nullptr) messages.push_back(row.input);
  }
  const size_t inputs = messages.size();
  for (const ItemRow& row : rows) {
    messages.push_back({reinterpret_cast<const uint8_t*>(row.answer.data()), row.answer.size_bytes()});
  }
  std::vector<uint8_t> hashed(messages.size() * kDigestBytes);
  sha256(messages, hashed.data());
  size_t input = 0, output = inputs;
  for (const ItemRow& row : rows) {
    uint8_t digests[2 * kDigestBytes];
    size_t used = 0;
    if (row.input.data != nullptr) std::memcpy(digests, &hashed[kDigestBytes * input++], used = kDigestBytes);
    std::memcpy(digests + used, &hashed[kDigestBytes * output++], kDigestBytes);
    const size_t begin = text.size();
    append_item(text, row, digests, top, meaning);
    seal(text, begin, link);
  }
}

void append_record(std::string& text, Link& link, std::string_view record) {
  const size_t begin = text.size();
  text.append(record, 0, record.size() - 1);
  seal(text, begin, link);
}

}  // namespace rskip
