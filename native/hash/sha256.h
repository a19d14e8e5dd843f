// SHA-256 (FIPS 180-4) of many messages at once. One message leaves the processor's SHA unit idle half of the time, for
// each round waits for the one before it; two of them keep it busy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace rskip {

struct Message {
  const uint8_t* data;
  size_t bytes;
};

constexpr size_t kDigestBytes = 32;

// Whether this machine has the instructions that sha256() is written in.
bool can_sha256();

// Writes the digest of each message, one after another. `digests` holds kDigestBytes for each and overlaps no message.
// Requires can_sha256().
void sha256(std::span<const Message> messages, uint8_t* digests);

}  // namespace rskip
