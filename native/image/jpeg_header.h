// What a JPEG file says before its scan.
#pragma once

#include <cstdint>
#include <span>

#include "image/jpeg.h"
#include "image/jpeg_bits.h"

namespace rskip {

inline constexpr int kJpegBlock = 64;  // coefficients of a block
inline constexpr int kJpegComponents = 3;

enum JpegMarker : uint8_t { kSof0 = 0xc0, kSof1 = 0xc1, kDht = 0xc4, kRst0 = 0xd0, kSoi = 0xd8, kEoi = 0xd9, kSos = 0xda, kDqt = 0xdb, kDri = 0xdd };

struct JpegComponent {
  int id = 0, across = 1, down = 1;  // blocks of a unit
  int table = 0;                     // of quantisation
  const int32_t* factors = nullptr;  // its numbers
  const JpegCode* means = nullptr;   // of the differences of means
  JpegCode* others = nullptr;
};

// Holds what its components point to.
class JpegHeader {
 public:
  // Returns false if the file is damaged up to the scan, isn't what was requested, or is of a kind that isn't decoded here.
  bool read(std::span<const uint8_t> file, const JpegRequest& request);

  std::span<const JpegComponent> components() const { return {component_, static_cast<size_t>(components_)}; }
  // Units after which the scan restarts; 0 for never.
  int restart() const { return restart_; }
  // From the scan's data on.
  std::span<const uint8_t> scan() const { return scan_; }

 private:
  bool read_quantisation(std::span<const uint8_t> segment);
  bool read_codes(std::span<const uint8_t> segment);
  bool read_frame(std::span<const uint8_t> segment, const JpegRequest& request);
  bool read_scan_header(std::span<const uint8_t> segment);

  std::span<const uint8_t> scan_;
  int32_t quantisation_[4][kJpegBlock] = {};
  JpegCode codes_[2][4];
  JpegComponent component_[kJpegComponents];
  int components_ = 0, restart_ = 0;
};

}  // namespace rskip
