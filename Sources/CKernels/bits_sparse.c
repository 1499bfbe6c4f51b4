// Single weights, and codes whose scales are codes. See include/bits.h.
#include <string.h>

#include "bits.h"

#pragma STDC FP_CONTRACT OFF

static inline size_t sparse_column(const struct pare_sparse *matrix, size_t index) {
  if (matrix->is_wide) {
    int32_t column;
    memcpy(&column, (const char *)matrix->indices + 4 * index, 4);
    return (size_t)column;
  }
  uint16_t column;
  memcpy(&column, (const char *)matrix->indices + 2 * index, 2);
  return column;
}

void pare_sparse_multiply_rows(
    const struct pare_sparse *matrix, size_t first, size_t last, const float *x, size_t tokens,
    float *y, size_t y_stride) {
  for (size_t row = first; row < last; row++) {
    const size_t start = (size_t)matrix->offsets[row], end = (size_t)matrix->offsets[row + 1];
    for (size_t token = 0; token < tokens; token++) {
      const float *input = x + token * matrix->columns;
      float sum = 0;
      for (size_t i = start; i < end; i++) sum += matrix->values[i] * input[sparse_column(matrix, i)];
      y[token * y_stride + row - first] = sum;
    }
  }
}

void pare_sparse_add_row(const struct pare_sparse *matrix, size_t row, float *target) {
  const size_t end = (size_t)matrix->offsets[row + 1];
  for (size_t i = (size_t)matrix->offsets[row]; i < end; i++) {
    target[sparse_column(matrix, i)] += matrix->values[i];
  }
}

uint32_t pare_stream_code(const uint8_t *stream, size_t bytes, int bits, size_t index) {
  const size_t bit = index * (size_t)bits, at = bit / 8;
  const uint32_t word = stream[at] | (at + 1 < bytes ? (uint32_t)stream[at + 1] << 8 : 0);
  return word >> bit % 8 & ((1u << bits) - 1);
}

void pare_stream_put(uint8_t *stream, int bits, size_t index, uint32_t code) {
  const size_t bit = index * (size_t)bits, at = bit / 8;
  const uint32_t word = code << bit % 8;
  stream[at] |= (uint8_t)word;
  if (word > 255) stream[at + 1] |= (uint8_t)(word >> 8);
}

void pare_bilevel_decode_row(const struct pare_bilevel *matrix, size_t row, float *target) {
  const uint8_t *codes = matrix->codes + row * matrix->code_stride;
  const size_t row_groups = (matrix->rows + matrix->level_rows - 1) / matrix->level_rows;
  for (size_t g = 0; g < matrix->groups; g++) {
    const size_t stream = g * matrix->level_stride;
    const size_t level = 2 * (g * row_groups + row / matrix->level_rows);
    const float scale_code = (float)pare_stream_code(
        matrix->scale_codes + stream, matrix->level_stride, matrix->level_bits, row);
    const float zero_code = (float)pare_stream_code(
        matrix->zero_codes + stream, matrix->level_stride, matrix->level_bits, row);
    const float scale = matrix->scale_levels[level] + matrix->scale_levels[level + 1] * scale_code;
    const float zero = matrix->zero_levels[level] + matrix->zero_levels[level + 1] * zero_code;
    const size_t start = g * matrix->group;
    const size_t end =
        start + matrix->group < matrix->columns ? start + matrix->group : matrix->columns;
    for (size_t c = start; c < end; c++) {
      const float code =
          (float)pare_stream_code(codes, matrix->code_stride, matrix->bits, c);
      target[c] = scale * (code - zero);
    }
  }
}
