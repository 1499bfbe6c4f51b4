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

struct pare_block_point pare_block_point(
    enum pare_block_type type, const void *block, size_t i) {
  const uint8_t *b = block;
  uint8_t scale, minimum;
  uint32_t fifth;
  switch (type) {
    case PARE_BLOCK_Q4_0:
      return (struct pare_block_point){block_f16(b), 0, split_nibble(b + 2, i) - 8};
    case PARE_BLOCK_Q4_1:
      return (struct pare_block_point){block_f16(b), block_f16(b + 2), split_nibble(b + 4, i)};
    case PARE_BLOCK_Q5_0:
      memcpy(&fifth, b + 2, 4);
      return (struct pare_block_point){
          block_f16(b), 0, (split_nibble(b + 6, i) | (int)(fifth >> i & 1) << 4) - 16};
    case PARE_BLOCK_Q5_1:
      memcpy(&fifth, b + 4, 4);
      return (struct pare_block_point){
          block_f16(b), block_f16(b + 2), split_nibble(b + 8, i) | (int)(fifth >> i & 1) << 4};
    case PARE_BLOCK_Q8_0: return (struct pare_block_point){block_f16(b), 0, (int8_t)b[2 + i]};
    case PARE_BLOCK_Q2_K:
      return (struct pare_block_point){
          block_f16(b + 80) * (float)(b[i / 16] & 15),
          -block_f16(b + 82) * (float)(b[i / 16] >> 4), pair(b + 16, i)};
    case PARE_BLOCK_Q3_K:
      return (struct pare_block_point){
          block_f16(b + 108) * (float)block_q3_scale(b + 96, (int)(i / 16)), 0,
          pair(b + 32, i) - (b[i % 32] >> i / 32 & 1 ? 0 : 4)};
    case PARE_BLOCK_Q4_K:
      block_scale_min(b + 4, (int)(i / 32), &scale, &minimum);
      return (struct pare_block_point){
          block_f16(b) * (float)scale, -block_f16(b + 2) * (float)minimum,
          q4_k_code(b + 16, i)};
    case PARE_BLOCK_Q5_K:
      block_scale_min(b + 4, (int)(i / 32), &scale, &minimum);
      return (struct pare_block_point){
          block_f16(b) * (float)scale, -block_f16(b + 2) * (float)minimum,
          q4_k_code(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4};
    case PARE_BLOCK_Q6_K:
      return (struct pare_block_point){
          block_f16(b + 208) * (float)(int8_t)b[192 + i / 16], 0, q6_k_code(b, i)};
    case PARE_BLOCK_IQ4_NL:
      return (struct pare_block_point){block_f16(b), 0, iq4_levels[split_nibble(b + 2, i)]};
    case PARE_BLOCK_IQ4_XS: {
      const size_t k = i / 32;
      uint16_t high;
      memcpy(&high, b + 2, 2);
      const int low = k % 2 ? b[4 + k / 2] >> 4 : b[4 + k / 2] & 15;
      const int sub_scale = (low | (high >> 2 * k & 3) << 4) - 32;
      return (struct pare_block_point){
          block_f16(b) * (float)sub_scale, 0,
          iq4_levels[split_nibble(b + 8 + 16 * k, i % 32)]};
    }
    case PARE_BLOCK_TQ1_0: return (struct pare_block_point){block_f16(b + 52), 0, tq1_value(b, i)};
    case PARE_BLOCK_TQ2_0: return (struct pare_block_point){block_f16(b + 64), 0, pair(b, i) - 1};
    case PARE_BLOCK_MXFP4:
      return (struct pare_block_point){
          block_half_e8m0(b[0]), 0, fp4_levels[split_nibble(b + 1, i)]};
    default: return (struct pare_block_point){NAN, 0, 0};
  }
}

/// Lowest and highest level of a type that an encoder writes.
static void level_range(enum pare_block_type type, int *lowest, int *highest) {
  switch (type) {
    case PARE_BLOCK_Q4_0: *lowest = -8, *highest = 7; break;
    case PARE_BLOCK_Q4_1:
    case PARE_BLOCK_Q4_K: *lowest = 0, *highest = 15; break;
    case PARE_BLOCK_Q5_0: *lowest = -16, *highest = 15; break;
    case PARE_BLOCK_Q5_1:
    case PARE_BLOCK_Q5_K: *lowest = 0, *highest = 31; break;
    case PARE_BLOCK_Q8_0: *lowest = -128, *highest = 127; break;
    case PARE_BLOCK_Q2_K: *lowest = 0, *highest = 3; break;
    case PARE_BLOCK_Q3_K: *lowest = -4, *highest = 3; break;
    case PARE_BLOCK_Q6_K: *lowest = -32, *highest = 31; break;
    case PARE_BLOCK_IQ4_NL:
    case PARE_BLOCK_IQ4_XS: *lowest = -127, *highest = 113; break;
    case PARE_BLOCK_MXFP4: *lowest = -12, *highest = 12; break;
    default: *lowest = -1, *highest = 1; break;
  }
}

float pare_block_half_step(enum pare_block_type type, const void *block, size_t i, float x) {
  const struct pare_block_point point = pare_block_point(type, block, i);
  const float steps = (x - point.offset) / point.scale;
  int lowest, highest;
  level_range(type, &lowest, &highest);
  if (!(steps >= (float)lowest && steps <= (float)highest)) return -1;
  float gap = 1;
  if (type == PARE_BLOCK_IQ4_NL || type == PARE_BLOCK_IQ4_XS) {
    int k = 1;
    while (k < 15 && (float)iq4_levels[k] < steps) k++;
    gap = (float)(iq4_levels[k] - iq4_levels[k - 1]);
  } else if (type == PARE_BLOCK_MXFP4) {
    int k = 1;
    while (k < 7 && (float)fp4_levels[k] < fabsf(steps)) k++;
    gap = (float)(fp4_levels[k] - fp4_levels[k - 1]);
  }
  return fabsf(point.scale) * gap / 2;
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
    const struct pare_block_point point =
        pare_block_point(type, (const uint8_t *)blocks + i / length * bytes, i % length);
    const float product = point.scale * (float)point.level;
    target[i] = point.offset == 0 ? product : product + point.offset;
  }
}
