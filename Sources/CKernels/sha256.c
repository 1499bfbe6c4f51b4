#include "CKernels.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

// FIPS 180-4, section 4.2.2: fractional parts of the cube roots of the first 64 primes.
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

static uint32_t big_endian_word(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

// FIPS 180-4, section 6.2.2.
void pare_sha256_blocks_ref(uint32_t *state, const uint8_t *blocks, size_t block_count) {
  for (; block_count > 0; block_count--, blocks += 64) {
    uint32_t W[64];
    for (int t = 0; t < 16; t++) W[t] = big_endian_word(blocks + 4 * t);
    for (int t = 16; t < 64; t++) {
      uint32_t s0 = rotate(W[t - 15], 7) ^ rotate(W[t - 15], 18) ^ (W[t - 15] >> 3);
      uint32_t s1 = rotate(W[t - 2], 17) ^ rotate(W[t - 2], 19) ^ (W[t - 2] >> 10);
      W[t] = W[t - 16] + s0 + W[t - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
      uint32_t S1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      uint32_t T1 = h + S1 + ((e & f) ^ (~e & g)) + K[t] + W[t];
      uint32_t S0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      uint32_t T2 = S0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + T1, d = c, c = b, b = a, a = T1 + T2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
  }
}

#if defined(__x86_64__)
// The instructions keep the eight words as (a, b, e, f) and (c, d, g, h), highest lane first, and
// do two rounds at a time; a group of four rounds also advances the message schedule by four words.
__attribute__((target("sha,sse4.1,ssse3"))) void pare_sha256_blocks_fast(uint32_t *state,
                                                                         const uint8_t *blocks,
                                                                         size_t block_count) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
  __m128i dcba = _mm_loadu_si128((const __m128i *)state);
  __m128i hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
  __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1);
  __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1B);
  __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
  __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);
  for (; block_count > 0; block_count--, blocks += 64) {
    const __m128i abef_start = abef, cdgh_start = cdgh;
    __m128i w[4];  // the last sixteen words of the schedule
    for (int i = 0; i < 4; i++)
      w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(blocks + 16 * i)), swap);
#pragma clang loop unroll(full)
    for (int group = 0; group < 16; group++) {
      __m128i *now = &w[group & 3];
      if (group >= 4) {
        __m128i before = w[(group + 3) & 3];
        __m128i middle = _mm_alignr_epi8(before, w[(group + 2) & 3], 4);
        __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(*now, w[(group + 1) & 3]), middle);
        *now = _mm_sha256msg2_epu32(sum, before);
      }
      __m128i rounds = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(K + 4 * group)));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, rounds);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(rounds, 0x0E));
    }
    abef = _mm_add_epi32(abef, abef_start);
    cdgh = _mm_add_epi32(cdgh, cdgh_start);
  }
  __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
  __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
  _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
  _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

static int has_instructions(void) {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  return (b >> 29) & 1;
}

int pare_sha256_is_fast(void) {
  // Asked once: a virtual machine's host answers cpuid itself, which takes microseconds.
  static atomic_int answer = -1;
  int known = atomic_load_explicit(&answer, memory_order_relaxed);
  if (known < 0) {
    known = has_instructions();
    atomic_store_explicit(&answer, known, memory_order_relaxed);
  }
  return known;
}
#else
void pare_sha256_blocks_fast(uint32_t *state, const uint8_t *blocks, size_t block_count) {
  pare_sha256_blocks_ref(state, blocks, block_count);
}
int pare_sha256_is_fast(void) { return 0; }
#endif

static void mix(uint32_t *state, const uint8_t *blocks, size_t block_count) {
  if (block_count == 0) return;
  if (pare_sha256_is_fast())
    pare_sha256_blocks_fast(state, blocks, block_count);
  else
    pare_sha256_blocks_ref(state, blocks, block_count);
}

void pare_sha256_start(pare_sha256 *hash) {
  // Section 5.3.3: fractional parts of the square roots of the first eight primes.
  static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  memcpy(hash->state, start, sizeof start);
  hash->byte_count = 0;
}

void pare_sha256_update(pare_sha256 *hash, const void *bytes, size_t byte_count) {
  const uint8_t *next = bytes;
  size_t waiting = hash->byte_count % 64;
  hash->byte_count += byte_count;
  if (waiting > 0) {
    size_t taken = 64 - waiting < byte_count ? 64 - waiting : byte_count;
    if (taken > 0) memcpy(hash->block + waiting, next, taken);
    next += taken;
    byte_count -= taken;
    if (waiting + taken < 64) return;
    mix(hash->state, hash->block, 1);
  }
  mix(hash->state, next, byte_count / 64);
  next += byte_count / 64 * 64;
  if (byte_count % 64 > 0) memcpy(hash->block, next, byte_count % 64);
}

void pare_sha256_finish(pare_sha256 *hash, uint8_t *digest) {
  uint64_t bit_count = hash->byte_count * 8;
  static const uint8_t padding[64] = {0x80};
  pare_sha256_update(hash, padding, 1 + (119 - hash->byte_count % 64) % 64);
  uint8_t length[8];
  for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bit_count >> (56 - 8 * i));
  pare_sha256_update(hash, length, 8);
  for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}
