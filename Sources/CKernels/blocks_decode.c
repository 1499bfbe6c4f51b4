// Blocks to float32. Loops over a run of equal shifts, so that the compiler opens 8 to 16 codes at a
// time; products of a float16 scale, a sub-scale and a code are exact in float32, so the bits are
// those of the reference on every instruction set.
#include "blocks_layout.h"
#include "rows.h"
#include "vector.h"

#pragma STDC FP_CONTRACT OFF

size_t pare_block_length(enum pare_block_type type) {
  switch (type) {
    case PARE_BLOCK_F32:
    case PARE_BLOCK_F16:
    case PARE_BLOCK_BF16: return 1;
    case PARE_BLOCK_Q4_0:
    case PARE_BLOCK_Q4_1:
    case PARE_BLOCK_Q5_0:
    case PARE_BLOCK_Q5_1:
    case PARE_BLOCK_Q8_0:
    case PARE_BLOCK_IQ4_NL:
    case PARE_BLOCK_MXFP4: return 32;
    case PARE_BLOCK_Q2_K:
    case PARE_BLOCK_Q3_K:
    case PARE_BLOCK_Q4_K:
    case PARE_BLOCK_Q5_K:
    case PARE_BLOCK_Q6_K:
    case PARE_BLOCK_IQ4_XS:
    case PARE_BLOCK_TQ1_0:
    case PARE_BLOCK_TQ2_0: return 256;
  }
  return 0;
}

size_t pare_block_bytes(enum pare_block_type type) {
  switch (type) {
    case PARE_BLOCK_F32: return 4;
    case PARE_BLOCK_F16:
    case PARE_BLOCK_BF16: return 2;
    case PARE_BLOCK_Q4_0: return 2 + 16;
    case PARE_BLOCK_Q4_1: return 2 + 2 + 16;
    case PARE_BLOCK_Q5_0: return 2 + 4 + 16;
    case PARE_BLOCK_Q5_1: return 2 + 2 + 4 + 16;
    case PARE_BLOCK_Q8_0: return 2 + 32;
    case PARE_BLOCK_IQ4_NL: return 2 + 16;
    case PARE_BLOCK_MXFP4: return 1 + 16;
    case PARE_BLOCK_Q2_K: return 16 + 64 + 2 + 2;
    case PARE_BLOCK_Q3_K: return 32 + 64 + 12 + 2;
    case PARE_BLOCK_Q4_K: return 2 + 2 + 12 + 128;
    case PARE_BLOCK_Q5_K: return 2 + 2 + 12 + 32 + 128;
    case PARE_BLOCK_Q6_K: return 128 + 64 + 16 + 2;
    case PARE_BLOCK_IQ4_XS: return 2 + 2 + 4 + 128;
    case PARE_BLOCK_TQ1_0: return 48 + 4 + 2;
    case PARE_BLOCK_TQ2_0: return 64 + 2;
  }
  return 0;
}

/// The 32 codes of sixteen bytes whose low nibbles are the first half. Split into bytes before they
/// are widened: the compiler makes better vectors of the two steps than of one.
static inline __attribute__((always_inline)) void split(
    const uint8_t *restrict qs, uint8_t *restrict codes) {
  for (int j = 0; j < 16; j++) codes[j] = qs[j] & 15;
  for (int j = 0; j < 16; j++) codes[16 + j] = qs[j] >> 4;
}

PARE_KERNEL static void decode_q4_0(
    const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 18, y += 32) {
    const float d = block_f16(b);
    uint8_t codes[32];
    split(b + 2, codes);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(codes[j] - 8);
  }
}

PARE_KERNEL static void decode_q4_1(
    const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 20, y += 32) {
    const float d = block_f16(b), m = block_f16(b + 2);
    uint8_t codes[32];
    split(b + 4, codes);
    for (int j = 0; j < 32; j++) y[j] = d * (float)codes[j] + m;
  }
}

PARE_KERNEL static void decode_q5_0(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 22, y += 32) {
    const float d = block_f16(b);
    uint32_t fifth;
    memcpy(&fifth, b + 2, 4);
    for (int j = 0; j < 16; j++) {
      y[j] = d * (float)(((b[6 + j] & 15) | (int)(fifth >> j << 4 & 16)) - 16);
    }
    for (int j = 0; j < 16; j++) {
      y[16 + j] = d * (float)((b[6 + j] >> 4 | (int)(fifth >> (j + 16) << 4 & 16)) - 16);
    }
  }
}

PARE_KERNEL static void decode_q5_1(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 24, y += 32) {
    const float d = block_f16(b), m = block_f16(b + 2);
    uint32_t fifth;
    memcpy(&fifth, b + 4, 4);
    for (int j = 0; j < 16; j++) {
      y[j] = d * (float)((b[8 + j] & 15) | (int)(fifth >> j << 4 & 16)) + m;
    }
    for (int j = 0; j < 16; j++) {
      y[16 + j] = d * (float)(b[8 + j] >> 4 | (int)(fifth >> (j + 16) << 4 & 16)) + m;
    }
  }
}

PARE_KERNEL static void decode_q8_0(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 34, y += 32) {
    const float d = block_f16(b);
    for (int j = 0; j < 32; j++) y[j] = d * (float)(int8_t)b[2 + j];
  }
}

/// Sixteen levels in one cache line, looked up.
static inline __attribute__((always_inline)) void look_up(
    const float *restrict levels, const uint8_t *restrict qs, float d, float *restrict y) {
  uint8_t codes[32];
  split(qs, codes);
  for (int j = 0; j < 32; j++) y[j] = d * levels[codes[j]];
}

static const float iq4_levels[16] = BLOCK_IQ4_LEVELS;
static const float fp4_levels[16] = BLOCK_FP4_LEVELS;

PARE_KERNEL static void decode_iq4_nl(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 18, y += 32) look_up(iq4_levels, b + 2, block_f16(b), y);
}

PARE_KERNEL static void decode_mxfp4(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 17, y += 32) look_up(fp4_levels, b + 1, block_half_e8m0(b[0]), y);
}

PARE_KERNEL static void decode_iq4_xs(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 136, y += 256) {
    const float d = block_f16(b);
    uint16_t high;
    memcpy(&high, b + 2, 2);
    for (int k = 0; k < 8; k++) {
      const int low = b[4 + k / 2] >> 4 * (k % 2) & 15;
      const int scale = (low | (high >> 2 * k & 3) << 4) - 32;
      look_up(iq4_levels, b + 8 + 16 * k, d * (float)scale, y + 32 * k);
    }
  }
}

PARE_KERNEL static void decode_q2_k(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 84, y += 256) {
    const float d = block_f16(b + 80), least = block_f16(b + 82);
    for (int k = 0; k < 16; k++) {
      const float scale = d * (float)(b[k] & 15), minimum = least * (float)(b[k] >> 4);
      const uint8_t *qs = b + 16 + 32 * (k / 8) + 16 * (k % 2);
      const int shift = k % 8 / 2 * 2;
      for (int j = 0; j < 16; j++) {
        y[16 * k + j] = scale * (float)(qs[j] >> shift & 3) - minimum;
      }
    }
  }
}

PARE_KERNEL static void decode_q3_k(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 110, y += 256) {
    const float d = block_f16(b + 108);
    for (int k = 0; k < 16; k++) {
      const float scale = d * (float)block_q3_scale(b + 96, k);
      const uint8_t *high = b + 16 * (k % 2);
      const uint8_t *qs = b + 32 + 32 * (k / 8) + 16 * (k % 2);
      const int shift = k % 8 / 2 * 2;
      for (int j = 0; j < 16; j++) {
        const int code = (qs[j] >> shift & 3) | (high[j] >> k / 2 & 1) << 2;
        y[16 * k + j] = scale * (float)(code - 4);
      }
    }
  }
}

PARE_KERNEL static void decode_q4_k(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 144, y += 256) {
    const float d = block_f16(b), least = block_f16(b + 2);
    for (int k = 0; k < 8; k++) {
      uint8_t sub_scale, sub_minimum;
      block_scale_min(b + 4, k, &sub_scale, &sub_minimum);
      const float scale = d * (float)sub_scale, minimum = least * (float)sub_minimum;
      const uint8_t *qs = b + 16 + 32 * (k / 2);
      const int shift = 4 * (k % 2);
      for (int j = 0; j < 32; j++) {
        y[32 * k + j] = scale * (float)(qs[j] >> shift & 15) - minimum;
      }
    }
  }
}

PARE_KERNEL static void decode_q5_k(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 176, y += 256) {
    const float d = block_f16(b), least = block_f16(b + 2);
    for (int k = 0; k < 8; k++) {
      uint8_t sub_scale, sub_minimum;
      block_scale_min(b + 4, k, &sub_scale, &sub_minimum);
      const float scale = d * (float)sub_scale, minimum = least * (float)sub_minimum;
      const uint8_t *qs = b + 48 + 32 * (k / 2);
      const int shift = 4 * (k % 2);
      for (int j = 0; j < 32; j++) {
        const int code = (qs[j] >> shift & 15) | (b[16 + j] >> k & 1) << 4;
        y[32 * k + j] = scale * (float)code - minimum;
      }
    }
  }
}

PARE_KERNEL static void decode_q6_k(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 210, y += 256) {
    const float d = block_f16(b + 208);
    for (int k = 0; k < 16; k++) {
      const float scale = d * (float)(int8_t)b[192 + k];
      const int quarter = k % 8 / 2;
      const uint8_t *low = b + 64 * (k / 8) + 32 * (quarter % 2) + 16 * (k % 2);
      const uint8_t *high = b + 128 + 32 * (k / 8) + 16 * (k % 2);
      const int low_shift = quarter / 2 * 4, high_shift = 2 * quarter;
      for (int j = 0; j < 16; j++) {
        const int code = (low[j] >> low_shift & 15) | (high[j] >> high_shift & 3) << 4;
        y[16 * k + j] = scale * (float)(code - 32);
      }
    }
  }
}

/// `count` bytes of trits, `trits` of each, trit n of byte m at y[n * count + m].
static inline __attribute__((always_inline)) void open_trits(
    const uint8_t *bytes, int count, int trits, float d, float *y) {
  uint8_t power = 1;
  for (int n = 0; n < trits; n++, power = (uint8_t)(power * 3)) {
    for (int m = 0; m < count; m++) {
      const uint8_t rest = (uint8_t)(bytes[m] * power);
      y[n * count + m] = d * (float)((rest * 3 >> 8) - 1);
    }
  }
}

PARE_KERNEL static void decode_tq1_0(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 54, y += 256) {
    const float d = block_f16(b + 52);
    open_trits(b, 32, 5, d, y);
    open_trits(b + 32, 16, 5, d, y + 160);
    open_trits(b + 48, 4, 4, d, y + 240);
  }
}

PARE_KERNEL static void decode_tq2_0(const uint8_t *restrict b, size_t blocks, float *restrict y) {
  for (; blocks--; b += 66, y += 256) {
    const float d = block_f16(b + 64);
    for (int k = 0; k < 8; k++) {
      const uint8_t *qs = b + 32 * (k / 4);
      const int shift = 2 * (k % 4);
      for (int j = 0; j < 32; j++) y[32 * k + j] = d * (float)((qs[j] >> shift & 3) - 1);
    }
  }
}

void pare_block_decode(
    enum pare_block_type type, const void *blocks, size_t count, float *target) {
  const size_t length = pare_block_length(type);
  if (length == 0) return;
  const size_t n = count / length;
  switch (type) {
    case PARE_BLOCK_F32: memcpy(target, blocks, 4 * n); break;
    case PARE_BLOCK_F16: pare_f16_to_f32(blocks, target, n); break;
    case PARE_BLOCK_BF16: pare_bf16_to_f32(blocks, target, n); break;
    case PARE_BLOCK_Q4_0: decode_q4_0(blocks, n, target); break;
    case PARE_BLOCK_Q4_1: decode_q4_1(blocks, n, target); break;
    case PARE_BLOCK_Q5_0: decode_q5_0(blocks, n, target); break;
    case PARE_BLOCK_Q5_1: decode_q5_1(blocks, n, target); break;
    case PARE_BLOCK_Q8_0: decode_q8_0(blocks, n, target); break;
    case PARE_BLOCK_Q2_K: decode_q2_k(blocks, n, target); break;
    case PARE_BLOCK_Q3_K: decode_q3_k(blocks, n, target); break;
    case PARE_BLOCK_Q4_K: decode_q4_k(blocks, n, target); break;
    case PARE_BLOCK_Q5_K: decode_q5_k(blocks, n, target); break;
    case PARE_BLOCK_Q6_K: decode_q6_k(blocks, n, target); break;
    case PARE_BLOCK_IQ4_NL: decode_iq4_nl(blocks, n, target); break;
    case PARE_BLOCK_IQ4_XS: decode_iq4_xs(blocks, n, target); break;
    case PARE_BLOCK_TQ1_0: decode_tq1_0(blocks, n, target); break;
    case PARE_BLOCK_TQ2_0: decode_tq2_0(blocks, n, target); break;
    case PARE_BLOCK_MXFP4: decode_mxfp4(blocks, n, target); break;
  }
}

PARE_KERNEL void pare_block_compare(
    const float *x, const float *decoded, size_t count, struct pare_block_error *sums) {
  // Sixteen running sums in double, so that the order is fixed whatever the vectors are.
  double error[16] = {0}, weight[16] = {0};
  float largest[16] = {0};
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; j++) {
      const float gap = decoded[i + j] - x[i + j];
      const float size = gap < 0 ? -gap : gap;
      error[j] += (double)gap * (double)gap;
      weight[j] += (double)x[i + j] * (double)x[i + j];
      largest[j] = size > largest[j] ? size : largest[j];
    }
  }
  for (; i < count; i++) {
    const float gap = decoded[i] - x[i], size = gap < 0 ? -gap : gap;
    error[0] += (double)gap * (double)gap;
    weight[0] += (double)x[i] * (double)x[i];
    largest[0] = size > largest[0] ? size : largest[0];
  }
  for (int j = 0; j < 16; j++) {
    sums->squared_error += error[j];
    sums->squared_weight += weight[j];
    if (largest[j] > sums->largest_error) sums->largest_error = largest[j];
  }
}
