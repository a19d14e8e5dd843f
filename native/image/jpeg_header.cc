#include "image/jpeg_header.h"

#include <algorithm>

namespace rskip {

bool JpegHeader::read(std::span<const uint8_t> file, const JpegRequest& request) {
  const auto word = [&](size_t at) { return file[at] << 8 | file[at + 1]; };
  if (file.size() < 4 || file[0] != 0xff || file[1] != kSoi) return false;
  for (size_t at = 2; at + 4 <= file.size();) {
    if (file[at] != 0xff) return false;
    const uint8_t marker = file[at + 1];
    if (marker == 0xff) {
      ++at;
      continue;
    }
    const size_t length = static_cast<size_t>(word(at + 2));
    if (length < 2 || at + 2 + length > file.size()) return false;
    const std::span<const uint8_t> segment = file.subspan(at + 4, length - 2);
    at += 2 + length;
    if (marker == kSos) {
      scan_ = file.subspan(at);
      return read_scan_header(segment);
    }
    const bool is_frame = marker >= kSof0 && marker <= 0xcf && marker != kDht && marker != 0xc8 && marker != 0xcc;
    if (is_frame && (marker > kSof1 || !read_frame(segment, request))) return false;
    if (marker == kDht && !read_codes(segment)) return false;
    if (marker == kDqt && !read_quantisation(segment)) return false;
    if (marker == kDri) {
      if (segment.size() != 2) return false;
      restart_ = segment[0] << 8 | segment[1];
    }
    if (marker < kSof0 || (marker >= kRst0 && marker <= kEoi) || marker == 0xcc || marker == 0xdc) return false;
  }
  return false;
}

bool JpegHeader::read_quantisation(std::span<const uint8_t> segment) {
  while (!segment.empty()) {
    const int wide = segment[0] >> 4, id = segment[0] & 15;
    const size_t bytes = 1 + kJpegBlock * (wide ? 2u : 1u);
    if (wide > 1 || id > 3 || segment.size() < bytes) return false;
    for (size_t i = 0; i < kJpegBlock; ++i) {
      quantisation_[id][i] = wide ? segment[1 + 2 * i] << 8 | segment[2 + 2 * i] : segment[1 + i];
      if (quantisation_[id][i] == 0) return false;
    }
    segment = segment.subspan(bytes);
  }
  return true;
}

bool JpegHeader::read_codes(std::span<const uint8_t> segment) {
  while (!segment.empty()) {
    const int kind = segment[0] >> 4, id = segment[0] & 15;
    if (kind > 1 || id > 3 || segment.size() < 17) return false;
    const auto counts = segment.subspan(1, 16);
    size_t symbols = 0;
    for (const uint8_t count : counts) symbols += count;
    if (symbols > 256 || segment.size() < 17 + symbols) return false;
    if (!codes_[kind][id].read(counts, segment.subspan(17, symbols), kind == 0)) return false;
    segment = segment.subspan(17 + symbols);
  }
  return true;
}

bool JpegHeader::read_frame(std::span<const uint8_t> segment, const JpegRequest& request) {
  if (components_ != 0 || segment.size() < 6 || segment[0] != 8) return false;
  const int height = segment[1] << 8 | segment[2], width = segment[3] << 8 | segment[4], count = segment[5];
  if (width != request.width || height != request.height || count != request.channels) return false;
  if ((count != 1 && count != 3) || segment.size() != 6 + 3 * static_cast<size_t>(count)) return false;
  for (int c = 0; c < count; ++c) {
    const uint8_t* const part = segment.data() + 6 + 3 * c;
    JpegComponent& component = component_[c];
    component.id = part[0], component.across = part[1] >> 4, component.down = part[1] & 15, component.table = part[2];
    if (component.table > 3) return false;
    for (int before = 0; before < c; ++before) {
      if (component_[before].id == component.id) return false;
    }
  }
  components_ = count;
  // Of a single component, units are blocks.
  if (count == 1) component_[0].across = component_[0].down = 1;
  const int across = component_[0].across, down = component_[0].down;
  if (across < 1 || across > 2 || down < 1 || down > across) return false;
  return std::all_of(component_ + 1, component_ + count, [](const JpegComponent& c) { return c.across == 1 && c.down == 1; });
}

bool JpegHeader::read_scan_header(std::span<const uint8_t> segment) {
  const size_t count = static_cast<size_t>(components_);
  if (count == 0 || segment.size() != 4 + 2 * count || segment[0] != count) return false;
  for (size_t c = 0; c < count; ++c) {
    JpegComponent& component = component_[c];
    const int means = segment[2 + 2 * c] >> 4, others = segment[2 + 2 * c] & 15;
    if (segment[1 + 2 * c] != component.id || means > 3 || others > 3) return false;
    component.means = &codes_[0][means], component.others = &codes_[1][others], component.factors = quantisation_[component.table];
    if (!component.means->is_known() || !component.others->is_known() || component.factors[0] == 0) return false;
  }
  return segment[1 + 2 * count] == 0 && segment[2 + 2 * count] == 63 && segment[3 + 2 * count] == 0;
}

}  // namespace rskip
