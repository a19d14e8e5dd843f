#include "hash/sha256.h"

#include <algorithm>
#include <cstring>

#include "simd/target.h"

#if RSKIP_X86
#include <cpuid.h>
#include <immintrin.h>

namespace rskip {
namespace {

constexpr size_t kBlock = 64;

alignas(16) constexpr uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

RSKIP_TARGET_BEGIN("sha,sse4.1")

// The eight words of a hash value as the instructions take them, the first letter in the highest lane.
struct State {
  __m128i abef = _mm_set_epi32(0x6a09e667, static_cast<int>(0xbb67ae85), 0x510e527f, static_cast<int>(0x9b05688c));
  __m128i cdgh = _mm_set_epi32(0x3c6ef372, static_cast<int>(0xa54ff53a), 0x1f83d9ab, 0x5be0cd19);
};

// Takes `blocks` blocks of each message into its state, the messages in step.
template <int kMessages>
RSKIP_INLINE void absorb(State* states, const uint8_t* const* messages, size_t blocks) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  __m128i abef[kMessages], cdgh[kMessages];
  RSKIP_UNROLL(2)
  for (int m = 0; m < kMessages; ++m) {
    abef[m] = states[m].abef;
    cdgh[m] = states[m].cdgh;
  }
  for (size_t block = 0; block < blocks; ++block) {
    __m128i words[kMessages][4];
    RSKIP_UNROLL(2)
    for (int m = 0; m < kMessages; ++m) {
      RSKIP_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        const uint8_t* from = messages[m] + block * kBlock + 16 * static_cast<size_t>(i);
        words[m][i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)), big_endian);
      }
    }
    RSKIP_UNROLL(16)
    for (int i = 0; i < 16; ++i) {
      const __m128i constants = _mm_load_si128(reinterpret_cast<const __m128i*>(kRoundConstants + 4 * i));
      RSKIP_UNROLL(2)
      for (int m = 0; m < kMessages; ++m) {
        __m128i& oldest = words[m][i % 4];
        const __m128i newest = words[m][(i + 3) % 4];
        const __m128i sum = _mm_add_epi32(oldest, constants);
        cdgh[m] = _mm_sha256rnds2_epu32(cdgh[m], abef[m], sum);
        abef[m] = _mm_sha256rnds2_epu32(abef[m], cdgh[m], _mm_shuffle_epi32(sum, 0x0e));
        if (i >= 12) continue;
        const __m128i middle = _mm_alignr_epi8(newest, words[m][(i + 2) % 4], 4);
        oldest = _mm_sha256msg2_epu32(
            _mm_add_epi32(_mm_sha256msg1_epu32(oldest, words[m][(i + 1) % 4]), middle), newest);
      }
    }
    RSKIP_UNROLL(2)
    for (int m = 0; m < kMessages; ++m) {
      states[m].abef = abef[m] = _mm_add_epi32(abef[m], states[m].abef);
      states[m].cdgh = cdgh[m] = _mm_add_epi32(cdgh[m], states[m].cdgh);
    }
  }
}

RSKIP_INLINE void write_digest(const State& state, uint8_t* digest) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  const __m128i feba = _mm_shuffle_epi32(state.abef, 0x1b);
  const __m128i hgdc = _mm_shuffle_epi32(state.cdgh, 0x1b);
  const __m128i abcd = _mm_unpacklo_epi64(feba, hgdc);
  const __m128i efgh = _mm_unpackhi_epi64(feba, hgdc);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(digest), _mm_shuffle_epi8(abcd, big_endian));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(digest + 16), _mm_shuffle_epi8(efgh, big_endian));
}

// What follows the last whole block of a message: the rest, a one, zeros, and the length in bits.
struct Tail {
  uint8_t data[2 * kBlock] = {};
  size_t blocks;

  explicit Tail(const Message& message) {
    const size_t rest = message.bytes % kBlock;
    if (rest > 0) std::memcpy(data, message.data + message.bytes - rest, rest);
    data[rest] = 0x80;
    blocks = rest + 9 <= kBlock ? 1 : 2;
    const uint64_t bits = 8 * static_cast<uint64_t>(message.bytes);
    for (size_t i = 0; i < 8; ++i) data[blocks * kBlock - 1 - i] = static_cast<uint8_t>(bits >> (8 * i));
  }
};

void finish(State& state, const Message& message, size_t absorbed, uint8_t* digest) {
  const uint8_t* rest = message.data + absorbed * kBlock;
  absorb<1>(&state, &rest, message.bytes / kBlock - absorbed);
  const Tail tail(message);
  const uint8_t* last = tail.data;
  absorb<1>(&state, &last, tail.blocks);
  write_digest(state, digest);
}

void sha256_pair(const Message* messages, uint8_t* digests) {
  State states[2];
  const uint8_t* const data[2] = {messages[0].data, messages[1].data};
  const size_t blocks = std::min(messages[0].bytes, messages[1].bytes) / kBlock;
  absorb<2>(states, data, blocks);
  for (size_t m = 0; m < 2; ++m) finish(states[m], messages[m], blocks, digests + m * kDigestBytes);
}

RSKIP_TARGET_END

}  // namespace

bool can_sha256() {
  static const bool can = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    const bool sse41 = __get_cpuid(1, &a, &b, &c, &d) && (c >> 19 & 1);
    return sse41 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
  }();
  return can;
}

void sha256(std::span<const Message> messages, uint8_t* digests) {
  size_t m = 0;
  for (; m + 1 < messages.size(); m += 2) sha256_pair(&messages[m], digests + m * kDigestBytes);
  if (m == messages.size()) return;
  State state;
  finish(state, messages[m], 0, digests + m * kDigestBytes);
}

}  // namespace rskip
#else
namespace rskip {
bool can_sha256() { return false; }
void sha256(std::span<const Message>, uint8_t*) {}
}  // namespace rskip
#endif
