// Packing rows into the layouts of include/packed.h.
#include <string.h>

#include "packed_forms.h"
#include "vector.h"

#pragma STDC FP_CONTRACT OFF

const struct form_traits packed_traits[PARE_PACKED_FORMS] = {
#define TRAITS(form, ...) [PARE_PACKED_##form] = {__VA_ARGS__},
    PARE_PACKED_FORMS_LIST(TRAITS)
#undef TRAITS
};

static enum pare_packed_form form_of(enum pare_block_type type) {
  switch (type) {
    case PARE_BLOCK_Q4_0: return PARE_PACKED_Q4_0;
    case PARE_BLOCK_Q4_1: return PARE_PACKED_Q4_1;
    case PARE_BLOCK_Q5_0: return PARE_PACKED_Q5_0;
    case PARE_BLOCK_Q5_1: return PARE_PACKED_Q5_1;
    case PARE_BLOCK_Q8_0: return PARE_PACKED_Q8_0;
    case PARE_BLOCK_Q2_K: return PARE_PACKED_Q2_K;
    case PARE_BLOCK_Q3_K: return PARE_PACKED_Q3_K;
    case PARE_BLOCK_Q4_K: return PARE_PACKED_Q4_K;
    case PARE_BLOCK_Q5_K: return PARE_PACKED_Q5_K;
    case PARE_BLOCK_Q6_K: return PARE_PACKED_Q6_K;
    case PARE_BLOCK_IQ4_NL: return PARE_PACKED_IQ4_NL;
    case PARE_BLOCK_IQ4_XS: return PARE_PACKED_IQ4_XS;
    case PARE_BLOCK_MXFP4: return PARE_PACKED_MXFP4;
    case PARE_BLOCK_TQ1_0:
    case PARE_BLOCK_TQ2_0: return PARE_PACKED_TQ2_0;
    default: return PARE_PACKED_NONE;
  }
}

static size_t row_group_bytes(const struct pare_packed *layout) {
  const struct form_traits *form = &packed_traits[layout->form];
  const size_t blocks = layout->columns / 32;
  const size_t per_unit = packed_unit_blocks(layout, form->blocks_per_unit);
  size_t bytes = blocks * 64 * (size_t)packed_bits(form->codes);
  bytes += blocks / per_unit * packed_header_bytes(layout, form->scales, per_unit);
  if (blocks % per_unit) {
    bytes += packed_header_bytes(layout, form->scales, blocks % per_unit);
  }
  return bytes;
}

struct pare_packed pare_packed_blocks_layout(
    enum pare_block_type type, size_t rows, size_t columns) {
  struct pare_packed layout = {.form = form_of(type), .rows = rows, .columns = columns};
  if (layout.form == PARE_PACKED_NONE || rows == 0 || columns == 0 ||
      columns % (packed_traits[layout.form].blocks_per_unit < 8 ? 32 : 256) != 0) {
    layout.form = PARE_PACKED_NONE;
    return layout;
  }
  layout.stride = row_group_bytes(&layout);
  return layout;
}

struct pare_packed pare_packed_affine_layout(
    size_t rows, size_t columns, size_t group, int bits, enum pare_affine_type scale_type,
    int has_zeros) {
  static const enum pare_packed_form coarse[9] = {
      [2] = PARE_PACKED_AFFINE2, [3] = PARE_PACKED_AFFINE3, [4] = PARE_PACKED_AFFINE4,
      [5] = PARE_PACKED_AFFINE5, [6] = PARE_PACKED_AFFINE6, [8] = PARE_PACKED_AFFINE8};
  static const enum pare_packed_form fine[9] = {
      [2] = PARE_PACKED_FINE2, [3] = PARE_PACKED_FINE3, [4] = PARE_PACKED_FINE4,
      [5] = PARE_PACKED_FINE5, [6] = PARE_PACKED_FINE6, [8] = PARE_PACKED_FINE8};
  struct pare_packed layout = {
      .rows = rows, .columns = columns, .group = group, .scale_type = scale_type,
      .has_zeros = has_zeros};
  if (rows == 0 || columns == 0 || columns % 32 != 0 || bits < 2 || bits > 8) return layout;
  // One group that is longer than the row is the row.
  if (group > columns) layout.group = group = columns;
  if (group == 16) layout.form = fine[bits];
  if (group != 0 && group % 32 == 0) layout.form = coarse[bits];
  if (layout.form != PARE_PACKED_NONE) layout.stride = row_group_bytes(&layout);
  return layout;
}

// Codes of one stored block in the order of its columns, as unsigned bytes.

__attribute__((always_inline)) static inline void halves(const uint8_t *q, uint8_t *codes) {
  for (int j = 0; j < 16; j++) {
    codes[j] = q[j] & 15;
    codes[j + 16] = q[j] >> 4;
  }
}

__attribute__((always_inline)) static inline void fifth_bits(const uint8_t *h, uint8_t *codes) {
  uint32_t bits;
  memcpy(&bits, h, 4);
  for (int j = 0; j < 32; j++) codes[j] |= (uint8_t)((bits >> j & 1) << 4);
}

__attribute__((always_inline)) static inline void two_bits(const uint8_t *q, uint8_t *codes) {
  for (int half = 0; half < 2; half++) {
    for (int j = 0; j < 4; j++) {
      for (int l = 0; l < 32; l++) {
        codes[128 * half + 32 * j + l] = (uint8_t)(q[32 * half + l] >> (2 * j)) & 3;
      }
    }
  }
}

__attribute__((always_inline)) static inline void nibbles_of_64(
    const uint8_t *q, uint8_t *codes) {
  for (int k = 0; k < 4; k++) {
    for (int l = 0; l < 32; l++) {
      codes[64 * k + l] = q[32 * k + l] & 15;
      codes[64 * k + 32 + l] = q[32 * k + l] >> 4;
    }
  }
}

/// Five ternary digits a byte, the first the most significant.
static uint8_t trit(uint8_t byte, int n) {
  static const uint8_t powers[5] = {1, 3, 9, 27, 81};
  return (uint8_t)((uint16_t)((uint8_t)(byte * powers[n]) * 3) >> 8);
}

static void trits(const uint8_t *block, uint8_t *codes) {
  for (int n = 0; n < 5; n++) {
    for (int m = 0; m < 32; m++) codes[32 * n + m] = trit(block[m], n);
    for (int m = 0; m < 16; m++) codes[160 + 16 * n + m] = trit(block[32 + m], n);
  }
  for (int n = 0; n < 4; n++) {
    for (int m = 0; m < 4; m++) codes[240 + 4 * n + m] = trit(block[48 + m], n);
  }
}

__attribute__((always_inline)) static inline void unpack_block(
    enum pare_block_type type, const uint8_t *p, uint8_t *codes) {
  switch (type) {
    case PARE_BLOCK_Q4_0:
    case PARE_BLOCK_IQ4_NL: halves(p + 2, codes); break;
    case PARE_BLOCK_Q4_1: halves(p + 4, codes); break;
    case PARE_BLOCK_MXFP4: halves(p + 1, codes); break;
    case PARE_BLOCK_Q5_0:
      halves(p + 6, codes);
      fifth_bits(p + 2, codes);
      break;
    case PARE_BLOCK_Q5_1:
      halves(p + 8, codes);
      fifth_bits(p + 4, codes);
      break;
    case PARE_BLOCK_Q8_0:
      for (int j = 0; j < 32; j++) codes[j] = p[2 + j] ^ 0x80;
      break;
    case PARE_BLOCK_Q2_K: two_bits(p + 16, codes); break;
    case PARE_BLOCK_Q3_K:
      two_bits(p + 32, codes);
      for (int k = 0; k < 8; k++) {
        for (int l = 0; l < 32; l++) codes[32 * k + l] |= (uint8_t)((p[l] >> k & 1) << 2);
      }
      break;
    case PARE_BLOCK_Q4_K: nibbles_of_64(p + 16, codes); break;
    case PARE_BLOCK_Q5_K:
      nibbles_of_64(p + 48, codes);
      for (int k = 0; k < 8; k++) {
        for (int l = 0; l < 32; l++) codes[32 * k + l] |= (uint8_t)((p[16 + l] >> k & 1) << 4);
      }
      break;
    case PARE_BLOCK_Q6_K:
      for (int half = 0; half < 2; half++) {
        const uint8_t *low = p + 64 * half, *high = p + 128 + 32 * half;
        uint8_t *target = codes + 128 * half;
        for (int l = 0; l < 32; l++) {
          target[l] = (uint8_t)((low[l] & 15) | (high[l] & 3) << 4);
          target[l + 32] = (uint8_t)((low[l + 32] & 15) | (high[l] >> 2 & 3) << 4);
          target[l + 64] = (uint8_t)(low[l] >> 4 | (high[l] >> 4 & 3) << 4);
          target[l + 96] = (uint8_t)(low[l + 32] >> 4 | (high[l] >> 6) << 4);
        }
      }
      break;
    case PARE_BLOCK_IQ4_XS:
      for (int k = 0; k < 8; k++) halves(p + 8 + 16 * k, codes + 32 * k);
      break;
    case PARE_BLOCK_TQ1_0: trits(p, codes); break;
    case PARE_BLOCK_TQ2_0: two_bits(p, codes); break;
    default: break;
  }
}

/// Writes what stored block `at` of a unit says of row `r` to the header, which starts as zeros.
static void pack_header(
    enum pare_block_type type, const uint8_t *p, int r, size_t at, uint8_t *header) {
  // A 4-byte word per row in each vector that follows the f16 numbers.
  uint8_t bytes[16];
  int words = 0, offset = 32;
  uint8_t *half = header + 32 * at + 2 * r;
  switch (type) {
    case PARE_BLOCK_MXFP4: header[16 * at + (size_t)r] = p[0]; return;
    case PARE_BLOCK_Q4_0:
    case PARE_BLOCK_Q5_0:
    case PARE_BLOCK_Q8_0:
    case PARE_BLOCK_IQ4_NL: memcpy(half, p, 2); return;
    case PARE_BLOCK_TQ1_0: memcpy(half, p + 52, 2); return;
    case PARE_BLOCK_TQ2_0: memcpy(half, p + 64, 2); return;
    case PARE_BLOCK_Q4_1:
    case PARE_BLOCK_Q5_1:
      memcpy(header + 64 * at + 2 * r, p, 2);
      memcpy(header + 64 * at + 32 + 2 * r, p + 2, 2);
      return;
    case PARE_BLOCK_Q2_K:
      memcpy(half, p + 80, 2);
      memcpy(half + 32, p + 82, 2);
      memcpy(bytes, p, 16);
      words = 4;
      offset = 64;
      break;
    case PARE_BLOCK_Q3_K:
      memcpy(half, p + 108, 2);
      memcpy(bytes, p + 96, 12);
      words = 3;
      break;
    case PARE_BLOCK_Q4_K:
    case PARE_BLOCK_Q5_K:
      memcpy(half, p, 2);
      memcpy(half + 32, p + 2, 2);
      memcpy(bytes, p + 4, 12);
      words = 3;
      offset = 64;
      break;
    case PARE_BLOCK_Q6_K:
      memcpy(half, p + 208, 2);
      memcpy(bytes, p + 192, 16);
      words = 4;
      break;
    case PARE_BLOCK_IQ4_XS: {
      memcpy(half, p, 2);
      const uint32_t high = p[2] | (uint32_t)p[3] << 8;
      for (int k = 0; k < 8; k++) {
        const uint32_t low = (p[4 + k / 2] >> (4 * (k % 2))) & 15u;
        bytes[k] = (uint8_t)((int)(low | ((high >> (2 * k)) & 3u) << 4) - 32);
      }
      words = 2;
      break;
    }
    default: break;
  }
  for (int w = 0; w < words; w++) memcpy(header + offset + 64 * w + 4 * r, bytes + 4 * w, 4);
}

/// 32 columns of sixteen rows, `row_stride` bytes apart, to interleaved codes.
__attribute__((always_inline)) static inline uint8_t *pack_codes(
    const uint8_t *codes, size_t row_stride, int bits, uint8_t *target) {
  uint8_t v[8][64];
  for (int k = 0; k < 8; k++) {
    for (int r = 0; r < 16; r++) memcpy(v[k] + 4 * r, codes + (size_t)r * row_stride + 4 * k, 4);
  }
  if (bits == 8) {
    memcpy(target, v, 512);
    return target + 512;
  }
  if (bits <= 3) {
    for (int j = 0; j < 2; j++) {
      for (int i = 0; i < 64; i++) {
        target[64 * j + i] =
            (uint8_t)((v[4 * j][i] & 3) | (v[4 * j + 1][i] & 3) << 2 | (v[4 * j + 2][i] & 3) << 4 |
                      (v[4 * j + 3][i] & 3) << 6);
      }
    }
    target += 128;
    if (bits == 2) return target;
    for (int i = 0; i < 64; i++) {
      uint8_t high = 0;
      for (int k = 0; k < 8; k++) high |= (uint8_t)((v[k][i] >> 2 & 1) << k);
      target[i] = high;
    }
    return target + 64;
  }
  for (int k = 0; k < 4; k++) {
    for (int i = 0; i < 64; i++) {
      target[64 * k + i] = (uint8_t)((v[k][i] & 15) | (v[k + 4][i] & 15) << 4);
    }
  }
  target += 256;
  if (bits == 5) {
    for (int i = 0; i < 64; i++) {
      uint8_t high = 0;
      for (int k = 0; k < 8; k++) high |= (uint8_t)((v[k][i] >> 4 & 1) << k);
      target[i] = high;
    }
    target += 64;
  }
  if (bits == 6) {
    for (int j = 0; j < 2; j++) {
      for (int i = 0; i < 64; i++) {
        uint8_t high = 0;
        for (int f = 0; f < 4; f++) high |= (uint8_t)((v[4 * j + f][i] >> 4 & 3) << (2 * f));
        target[64 * j + i] = high;
      }
    }
    target += 128;
  }
  return target;
}

__attribute__((always_inline)) static inline void pack_group(
    const struct pare_packed *layout, enum pare_block_type type, const uint8_t *blocks,
    size_t row_bytes, size_t group, uint8_t *target, int bits, size_t length,
    size_t block_bytes) {
  uint8_t codes[PARE_PACKED_ROWS][256];
  const struct form_traits *form = &packed_traits[layout->form];
  const size_t first = group * PARE_PACKED_ROWS;
  const int rows = layout->rows - first < PARE_PACKED_ROWS ? (int)(layout->rows - first)
                                                           : PARE_PACKED_ROWS;
  const size_t all = layout->columns / 32;
  memset(codes, 0, sizeof codes);
  for (size_t start = 0; start < all; start += form->blocks_per_unit) {
    const size_t count = all - start < form->blocks_per_unit ? all - start : form->blocks_per_unit;
    const size_t header_bytes = packed_header_bytes(layout, form->scales, count);
    uint8_t *header = target;
    memset(header, 0, header_bytes);
    target += header_bytes;
    for (size_t at = 0; at < 32 * count / length; at++) {
      for (int r = 0; r < rows; r++) {
        const uint8_t *block =
            blocks + (first + (size_t)r) * row_bytes + (32 * start / length + at) * block_bytes;
        pack_header(type, block, r, at, header);
        unpack_block(type, block, codes[r]);
      }
      for (size_t b = 0; b < length / 32; b++) {
        target = pack_codes(&codes[0][32 * b], 256, bits, target);
      }
    }
  }
}

PARE_KERNEL void pare_pack_blocks(
    const struct pare_packed *layout, enum pare_block_type type, const void *blocks,
    size_t row_bytes, size_t group, uint8_t *target) {
#define PACK(name, bits, length, block)                                             \
  case PARE_BLOCK_##name:                                                                   \
    pack_group(                                                                             \
        layout, PARE_BLOCK_##name, blocks, row_bytes, group, target, bits, length, block);  \
    break;
  switch (type) {
    PACK(Q4_0, 4, 32, 18)
    PACK(Q4_1, 4, 32, 20)
    PACK(Q5_0, 5, 32, 22)
    PACK(Q5_1, 5, 32, 24)
    PACK(Q8_0, 8, 32, 34)
    PACK(Q2_K, 2, 256, 84)
    PACK(Q3_K, 3, 256, 110)
    PACK(Q4_K, 4, 256, 144)
    PACK(Q5_K, 5, 256, 176)
    PACK(Q6_K, 6, 256, 210)
    PACK(IQ4_NL, 4, 32, 18)
    PACK(IQ4_XS, 4, 256, 136)
    PACK(MXFP4, 4, 32, 17)
    PACK(TQ1_0, 2, 256, 54)
    PACK(TQ2_0, 2, 256, 66)
    default: break;
  }
#undef PACK
}

/// The scales and zero points of one group of columns, `at` in each row; missing rows get zeros.
static void pack_affine_scales(
    const struct pare_packed *layout, const struct pare_affine_codes *source, size_t first,
    int rows, size_t at, uint8_t *target) {
  const size_t size = packed_scale_bytes(layout->scale_type);
  for (int r = 0; r < rows; r++) {
    const size_t index =
        source->scale_stride ? (first + (size_t)r) * source->scale_stride + at : 0;
    memcpy(target + (size_t)r * size, (const uint8_t *)source->scales + index * size, size);
    if (layout->has_zeros && source->zeros) {
      target[PARE_PACKED_ROWS * size + (size_t)r] = (uint8_t)source->zeros[index];
    }
  }
}

void pare_pack_affine(
    const struct pare_packed *layout, const struct pare_affine_codes *source, size_t group,
    float *scratch, uint8_t *target) {
  const struct form_traits *form = &packed_traits[layout->form];
  const size_t first = group * PARE_PACKED_ROWS, columns = layout->columns;
  const int rows = layout->rows - first < PARE_PACKED_ROWS ? (int)(layout->rows - first)
                                                           : PARE_PACKED_ROWS;
  // The decoder on a grid of whole numbers gives the codes.
  static const float unit_scale = 1;
  struct pare_affine_codes plain = *source;
  plain.scales = &unit_scale;
  plain.scale_type = PARE_AFFINE_F32;
  plain.scale_stride = 0;
  plain.zeros = NULL;
  uint8_t *codes = (uint8_t *)scratch;
  for (int r = 0; r < PARE_PACKED_ROWS; r++) {
    // Row r's bytes end before the floats they come from are overwritten.
    float *values = scratch + (size_t)r * columns;
    uint8_t *bytes = codes + (size_t)r * columns;
    if (r < rows) {
      pare_affine_decode_rows(&plain, first + (size_t)r, first + (size_t)r + 1, values);
      for (size_t i = 0; i < columns; i++) {
        bytes[i] = (uint8_t)((int)values[i] + form->bias_code);
      }
    } else {
      memset(bytes, form->bias_code, columns);
    }
  }
  const size_t blocks = columns / 32, size = packed_scale_bytes(layout->scale_type);
  const size_t one = PARE_PACKED_ROWS * (size + (layout->has_zeros ? 1 : 0));
  const size_t per_unit = packed_unit_blocks(layout, form->blocks_per_unit);
  for (size_t start = 0; start < blocks; start += per_unit) {
    const size_t count = blocks - start < per_unit ? blocks - start : per_unit;
    const size_t header_bytes = packed_header_bytes(layout, form->scales, count);
    memset(target, 0, header_bytes);
    const size_t columns_per_scale = form->scales == SCALES_FINE ? 16 : layout->group;
    for (size_t i = 0; i * columns_per_scale < 32 * count; i++) {
      pack_affine_scales(
          layout, source, first, rows, 32 * start / columns_per_scale + i, target + i * one);
    }
    target += header_bytes;
    for (size_t b = start; b < start + count; b++) {
      target = pack_codes(codes + 32 * b, columns, form->codes, target);
    }
  }
}
