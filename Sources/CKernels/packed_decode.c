// Single rows of packed matrices, for embeddings: the parts that packed_body.h reads by vectors, read
// by hand. See include/packed.h for the layouts.
#include <string.h>

#include "packed_forms.h"

#pragma STDC FP_CONTRACT OFF

static float f16_at(const uint8_t *p) {
  _Float16 half;
  memcpy(&half, p, 2);
  return (float)half;
}

static uint32_t byte_at(const uint8_t *vectors, int word, int r, int byte) {
  return vectors[64 * word + 4 * r + byte];
}

/// The scales and minima of block `b` of a unit in row `r`.
static void row_scales(
    const struct pare_packed *matrix, const struct form_traits *form, const uint8_t *header, int r,
    int b, float *s, float *m, int *zero) {
  m[0] = m[1] = 0;
  zero[0] = zero[1] = 0;
  switch (form->scales) {
    case SCALES_F16: s[0] = s[1] = f16_at(header + 32 * b + 2 * r); break;
    case SCALES_F16_256: s[0] = s[1] = f16_at(header + 32 * (b / 8) + 2 * r); break;
    case SCALES_F16_MIN:
      s[0] = s[1] = f16_at(header + 64 * b + 2 * r);
      m[0] = m[1] = -f16_at(header + 64 * b + 32 + 2 * r);
      break;
    case SCALES_E8M0: {
      const int e = header[16 * b + r];
      const uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
      memcpy(&s[0], &bits, 4);
      s[1] = s[0];
      break;
    }
    case SCALES_K2:
      for (int i = 0; i < 2; i++) {
        const uint32_t both = byte_at(header + 64, b / 2, r, 2 * (b % 2) + i);
        s[i] = f16_at(header + 2 * r) * (float)(both & 15);
        m[i] = f16_at(header + 32 + 2 * r) * (float)(both >> 4);
      }
      break;
    case SCALES_K3:
      for (int i = 0; i < 2; i++) {
        const int k = 2 * b + i;
        const uint32_t low = byte_at(header + 32, k / 4 % 2, r, k % 4) >> (k < 8 ? 0 : 4);
        const uint32_t high = byte_at(header + 32, 2, r, k % 4) >> (2 * (k / 4));
        s[i] = f16_at(header + 2 * r) * (float)((int)((low & 15) | (high & 3) << 4) - 32);
      }
      break;
    case SCALES_K4: {
      const uint8_t *v = header + 64;
      const int k = b % 4;
      uint32_t sc = byte_at(v, 0, r, k) & 63, mn = byte_at(v, 1, r, k) & 63;
      if (b >= 4) {
        sc = (byte_at(v, 2, r, k) & 15) | (byte_at(v, 0, r, k) >> 6) << 4;
        mn = byte_at(v, 2, r, k) >> 4 | (byte_at(v, 1, r, k) >> 6) << 4;
      }
      s[0] = s[1] = f16_at(header + 2 * r) * (float)sc;
      m[0] = m[1] = f16_at(header + 32 + 2 * r) * (float)mn;
      break;
    }
    case SCALES_K6:
      for (int i = 0; i < 2; i++) {
        const int8_t sc = (int8_t)byte_at(header + 32, b / 2, r, 2 * (b % 2) + i);
        s[i] = f16_at(header + 2 * r) * (float)sc;
      }
      break;
    case SCALES_XS: {
      const int8_t sc = (int8_t)byte_at(header + 32, b / 4, r, b % 4);
      s[0] = s[1] = f16_at(header + 2 * r) * (float)sc;
      break;
    }
    default: {
      const size_t size = packed_scale_bytes(matrix->scale_type);
      const size_t one = PARE_PACKED_ROWS * (size + (matrix->has_zeros ? 1 : 0));
      for (int i = 0; i < 2; i++) {
        const size_t at = form->scales == SCALES_FINE ? (size_t)(2 * b + i)
                                                      : (size_t)b / (matrix->group / 32);
        const uint8_t *p = header + one * at;
        pare_affine_load(p + (size_t)r * size, 1, matrix->scale_type, &s[i]);
        if (matrix->has_zeros) zero[i] = (int8_t)p[PARE_PACKED_ROWS * size + (size_t)r];
      }
    }
  }
}

static int code_at(const uint8_t *p, int codes, int r, int column) {
  const int k = column / 4, byte = 4 * r + column % 4;
  if (codes == 8) return p[64 * k + byte];
  if (codes <= 3) {
    const int low = p[64 * (k / 4) + byte] >> (2 * (k % 4)) & 3;
    return codes == 2 ? low : low | (p[128 + byte] >> k & 1) << 2;
  }
  const int low = p[64 * (k % 4) + byte] >> (k < 4 ? 0 : 4) & 15;
  if (codes == 5) return low | (p[256 + byte] >> k & 1) << 4;
  if (codes == 6) return low | (p[256 + 64 * (k / 4) + byte] >> (2 * (k % 4)) & 3) << 4;
  if (codes == CODES_NL) return packed_table_nl[low] + 128;
  if (codes == CODES_FP4) return packed_table_fp4[low] + 128;
  return low;
}

void pare_packed_decode_row(const struct pare_packed *matrix, size_t row, float *target) {
  const struct form_traits *form = &packed_traits[matrix->form];
  const size_t blocks = matrix->columns / 32;
  const size_t per_unit = packed_unit_blocks(matrix, form->blocks_per_unit);
  const uint8_t *p = matrix->data + row / PARE_PACKED_ROWS * matrix->stride;
  const int r = (int)(row % PARE_PACKED_ROWS);
  const uint8_t *header = p;
  for (size_t b = 0; b < blocks; b++) {
    if (b % per_unit == 0) {
      header = p;
      p += packed_header_bytes(
          matrix, form->scales, blocks - b < per_unit ? blocks - b : per_unit);
    }
    float s[2], m[2];
    int zero[2];
    row_scales(matrix, form, header, r, (int)(b % per_unit), s, m, zero);
    for (int i = 0; i < 32; i++) {
      const int half = i / 16;
      const int code = code_at(p, form->codes, r, i) - form->bias_code - zero[half];
      target[32 * b + (size_t)i] =
          form->bias_kind == BIAS_MIN ? s[half] * (float)code - m[half] : s[half] * (float)code;
    }
    p += 64 * (size_t)packed_bits(form->codes);
  }
}

float pare_packed_decode_at(const struct pare_packed *matrix, size_t row, size_t column) {
  const struct form_traits *form = &packed_traits[matrix->form];
  const size_t blocks = matrix->columns / 32, b = column / 32, i = column % 32;
  const size_t per_unit = packed_unit_blocks(matrix, form->blocks_per_unit);
  const size_t block_bytes = 64 * (size_t)packed_bits(form->codes);
  const size_t unit = b / per_unit, left = blocks - unit * per_unit;
  const uint8_t *header =
      matrix->data + row / PARE_PACKED_ROWS * matrix->stride +
      unit * (packed_header_bytes(matrix, form->scales, per_unit) + per_unit * block_bytes);
  const uint8_t *p =
      header + packed_header_bytes(matrix, form->scales, left < per_unit ? left : per_unit) +
      b % per_unit * block_bytes;
  const int r = (int)(row % PARE_PACKED_ROWS);
  float s[2], m[2];
  int zero[2];
  row_scales(matrix, form, header, r, (int)(b % per_unit), s, m, zero);
  const int half = (int)i / 16;
  const int code = code_at(p, form->codes, r, (int)i) - form->bias_code - zero[half];
  return form->bias_kind == BIAS_MIN ? s[half] * (float)code - m[half] : s[half] * (float)code;
}
