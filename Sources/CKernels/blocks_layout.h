// What encoder, decoder and its reference agree on. Not a public header.
#ifndef PARE_BLOCKS_LAYOUT_H
#define PARE_BLOCKS_LAYOUT_H
#include <stdint.h>
#include <string.h>

#include "blocks.h"

/// The levels of IQ4_NL and IQ4_XS.
#define BLOCK_IQ4_LEVELS \
  {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
/// Twice the values of FP4 (E2M1), whose block scale is then half. Code 8 is no negative zero.
#define BLOCK_FP4_LEVELS {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}

static inline __attribute__((always_inline)) float block_f16(const uint8_t *bytes) {
  _Float16 half;
  memcpy(&half, bytes, 2);
  return (float)half;
}

static inline __attribute__((always_inline)) void block_set_f16(uint8_t *bytes, float value) {
  const _Float16 half = (_Float16)value;
  memcpy(bytes, &half, 2);
}

/// 2^(e - 128): half of what the exponent byte of MXFP4 says.
static inline __attribute__((always_inline)) float block_half_e8m0(uint8_t e) {
  const uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/// Six-bit scale and minimum of sub-block j of Q4_K and Q5_K.
static inline __attribute__((always_inline)) void block_scale_min(
    const uint8_t *s, int j, uint8_t *scale, uint8_t *minimum) {
  if (j < 4) {
    *scale = s[j] & 63;
    *minimum = s[j + 4] & 63;
  } else {
    *scale = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
    *minimum = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
  }
}

/// Six-bit scale of sub-block k of Q3_K, -32 to 31.
static inline __attribute__((always_inline)) int block_q3_scale(const uint8_t *s, int k) {
  const int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
  return (low | (s[8 + k % 4] >> 2 * (k / 4) & 3) << 4) - 32;
}

#endif
