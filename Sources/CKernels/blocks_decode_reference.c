// The block formats weight by weight: what blocks_decode.c is held to, and where to read them.
#include <math.h>

#include "blocks_layout.h"
#include "rows.h"

#pragma STDC FP_CONTRACT OFF

static const int8_t iq4_levels[16] = BLOCK_IQ4_LEVELS;
static const int8_t fp4_levels[16] = BLOCK_FP4_LEVELS;

/// Four bits of element i where the first half of a block has the low nibbles.
static int split_nibble(const uint8_t *qs, size_t i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }

/// Two bits of element i of 256: per half of 128, the bytes' four pairs of bits one after another.
static int pair(const uint8_t *qs, size_t i) {
  return qs[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3;
}

static int q4_k_code(const uint8_t *qs, size_t i) {
  const uint8_t byte = qs[32 * (i / 64) + i % 32];
  return i % 64 < 32 ? byte & 15 : byte >> 4;
}

static int q6_k_code(const uint8_t *b, size_t i) {
  const size_t half = i / 128, quarter = i % 128 / 32, l = i % 32;
  const uint8_t low = b[64 * half + l + (quarter % 2) * 32];
  const uint8_t high = b[128 + 32 * half + l];
  return ((quarter < 2 ? low & 15 : low >> 4) | (high >> 2 * quarter & 3) << 4) - 32;
}

/// Trit n of a byte that holds five, the first most significant: bytes are fractions of 256.
static int trit(uint8_t byte, int n) {
  static const uint8_t power[5] = {1, 3, 9, 27, 81};
  const uint8_t rest = (uint8_t)(byte * power[n]);
  return (rest * 3 >> 8) - 1;
}

static int tq1_value(const uint8_t *b, size_t i) {
  if (i < 160) return trit(b[i % 32], (int)(i / 32));
  if (i < 240) return trit(b[32 + i % 16], (int)((i - 160) / 16));
  return trit(b[48 + i % 4], (int)((i - 240) / 4));
}

static float value(enum pare_block_type type, const uint8_t *b, size_t i) {
  uint8_t scale, minimum;
  uint32_t fifth;
  switch (type) {
    case PARE_BLOCK_Q4_0: return block_f16(b) * (float)(split_nibble(b + 2, i) - 8);
    case PARE_BLOCK_Q4_1:
      return block_f16(b) * (float)split_nibble(b + 4, i) + block_f16(b + 2);
    case PARE_BLOCK_Q5_0:
      memcpy(&fifth, b + 2, 4);
      return block_f16(b) *
          (float)((split_nibble(b + 6, i) | (int)(fifth >> i & 1) << 4) - 16);
    case PARE_BLOCK_Q5_1:
      memcpy(&fifth, b + 4, 4);
      return block_f16(b) * (float)(split_nibble(b + 8, i) | (int)(fifth >> i & 1) << 4) +
          block_f16(b + 2);
    case PARE_BLOCK_Q8_0: return block_f16(b) * (float)(int8_t)b[2 + i];
    case PARE_BLOCK_Q2_K:
      return block_f16(b + 80) * (float)(b[i / 16] & 15) * (float)pair(b + 16, i) -
          block_f16(b + 82) * (float)(b[i / 16] >> 4);
    case PARE_BLOCK_Q3_K:
      return block_f16(b + 108) * (float)block_q3_scale(b + 96, (int)(i / 16)) *
          (float)(pair(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4));
    case PARE_BLOCK_Q4_K:
      block_scale_min(b + 4, (int)(i / 32), &scale, &minimum);
      return block_f16(b) * (float)scale * (float)q4_k_code(b + 16, i) -
          block_f16(b + 2) * (float)minimum;
    case PARE_BLOCK_Q5_K:
      block_scale_min(b + 4, (int)(i / 32), &scale, &minimum);
      return block_f16(b) * (float)scale *
          (float)(q4_k_code(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4) -
          block_f16(b + 2) * (float)minimum;
    case PARE_BLOCK_Q6_K:
      return block_f16(b + 208) * (float)(int8_t)b[192 + i / 16] * (float)q6_k_code(b, i);
    case PARE_BLOCK_IQ4_NL: return block_f16(b) * (float)iq4_levels[split_nibble(b + 2, i)];
    case PARE_BLOCK_IQ4_XS: {
      const size_t k = i / 32;
      uint16_t high;
      memcpy(&high, b + 2, 2);
      const int low = k % 2 ? b[4 + k / 2] >> 4 : b[4 + k / 2] & 15;
      const int sub_scale = (low | (high >> 2 * k & 3) << 4) - 32;
      return block_f16(b) * (float)sub_scale *
          (float)iq4_levels[split_nibble(b + 8 + 16 * k, i % 32)];
    }
    case PARE_BLOCK_TQ1_0: return block_f16(b + 52) * (float)tq1_value(b, i);
    case PARE_BLOCK_TQ2_0: return block_f16(b + 64) * (float)(pair(b, i) - 1);
    case PARE_BLOCK_MXFP4:
      return block_half_e8m0(b[0]) * (float)fp4_levels[split_nibble(b + 1, i)];
    default: return NAN;
  }
}

void pare_block_decode_reference(
    enum pare_block_type type, const void *blocks, size_t count, float *target) {
  const size_t length = pare_block_length(type), bytes = pare_block_bytes(type);
  switch (type) {
    case PARE_BLOCK_F32: memcpy(target, blocks, 4 * count); return;
    case PARE_BLOCK_F16: pare_f16_to_f32(blocks, target, count); return;
    case PARE_BLOCK_BF16: pare_bf16_to_f32(blocks, target, count); return;
    default: break;
  }
  for (size_t i = 0; i < count; i++) {
    target[i] = value(type, (const uint8_t *)blocks + i / length * bytes, i % length);
  }
}
