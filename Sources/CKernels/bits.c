// Signs and ternary codes times activations. See include/bits.h.
#include "bits.h"

#include <string.h>

#include "vector.h"

#pragma STDC FP_CONTRACT OFF

typedef float lanes_f32 __attribute__((vector_size(64)));
typedef uint32_t lanes_u32 __attribute__((vector_size(64)));
typedef int32_t lanes_i32 __attribute__((vector_size(64)));

/// At least 32 bits of a stream from any bit on; zeros beyond its end.
static inline uint32_t bits_from(const uint8_t *stream, size_t bytes, size_t bit) {
  const size_t at = bit / 8, left = bytes > at ? bytes - at : 0;
  uint64_t word = 0;
  if (left >= 8) {
    memcpy(&word, stream + at, 8);
  } else {
    for (size_t i = 0; i < left; i++) word |= (uint64_t)stream[at + i] << 8 * i;
  }
  return (uint32_t)(word >> bit % 8);
}

/// Lanes added in pairs, halves first.
static inline float bits_sum(const float *lanes) {
  float sums[16];
  for (int i = 0; i < 16; i++) sums[i] = lanes[i] + lanes[i + 16];
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) sums[i] += sums[i + width];
  }
  return sums[0];
}

static inline float bits_signed(float value, uint32_t word, size_t bit) {
  return word >> bit & 1 ? value : -value;
}

PARE_KERNEL float pare_sign_dot(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count) {
  const lanes_u32 places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  lanes_f32 low = {0}, high = {0};
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const uint32_t word = ~bits_from(stream, bytes, first + i);
    const lanes_u32 all = {word, word, word, word, word, word, word, word,
                           word, word, word, word, word, word, word, word};
    lanes_u32 a, b;
    memcpy(&a, x + i, 64);
    memcpy(&b, x + i + 16, 64);
    // A clear bit turns the sign bit over.
    low += (lanes_f32)(a ^ all >> places << 31);
    high += (lanes_f32)(b ^ all >> (places + 16) << 31);
  }
  float lanes[32];
  memcpy(lanes, &low, 64);
  memcpy(lanes + 16, &high, 64);
  const uint32_t word = bits_from(stream, bytes, first + i);
  for (size_t j = 0; i + j < count; j++) lanes[j] += bits_signed(x[i + j], word, j);
  return bits_sum(lanes);
}

float pare_sign_dot_reference(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count) {
  float lanes[32] = {0};
  (void)bytes;
  for (size_t i = 0; i < count; i++) {
    const size_t bit = first + i;
    lanes[i % 32] += bits_signed(x[i], stream[bit / 8], bit % 8);
  }
  return bits_sum(lanes);
}

/// The code at a place of a word: two bits as a signed number.
static inline int32_t bits_ternary(uint32_t word, size_t place) {
  return (int32_t)(word << (30 - 2 * place)) >> 30;
}

PARE_KERNEL float pare_ternary_dot(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count) {
  const lanes_u32 shifts = {30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0};
  lanes_f32 low = {0}, high = {0};
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    const uint32_t a = bits_from(stream, bytes, 2 * (first + i));
    const uint32_t b = bits_from(stream, bytes, 2 * (first + i + 16));
    const lanes_u32 as = {a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a};
    const lanes_u32 bs = {b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b};
    lanes_f32 left, right;
    memcpy(&left, x + i, 64);
    memcpy(&right, x + i + 16, 64);
    // A product with -1, 0 or 1 is exact, so that contracting it with the sum changes nothing.
    low += left * __builtin_convertvector((lanes_i32)(as << shifts) >> 30, lanes_f32);
    high += right * __builtin_convertvector((lanes_i32)(bs << shifts) >> 30, lanes_f32);
  }
  float lanes[32];
  memcpy(lanes, &low, 64);
  memcpy(lanes + 16, &high, 64);
  for (size_t j = 0; i + j < count; j++) {
    lanes[j] += x[i + j] * (float)bits_ternary(bits_from(stream, bytes, 2 * (first + i + j)), 0);
  }
  return bits_sum(lanes);
}

float pare_ternary_dot_reference(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count) {
  float lanes[32] = {0};
  (void)bytes;
  for (size_t i = 0; i < count; i++) {
    const size_t at = first + i;
    lanes[i % 32] += x[i] * (float)bits_ternary(stream[at / 4], at % 4);
  }
  return bits_sum(lanes);
}

void pare_binary_multiply_rows(
    const struct pare_binary *matrix, size_t first, size_t last, const float *x, size_t tokens,
    float *y, size_t y_stride) {
  for (size_t row = first; row < last; row++) {
    for (size_t token = 0; token < tokens; token++) {
      const float *input = x + token * matrix->columns;
      float sum = 0;
      for (size_t plane = 0; plane < matrix->planes; plane++) {
        const size_t at = plane * matrix->rows + row;
        const uint8_t *signs = matrix->signs + at * matrix->stride;
        const float *scales = matrix->scales + at * matrix->groups;
        for (size_t g = 0; g < matrix->groups; g++) {
          const size_t start = (size_t)matrix->offsets[g], end = (size_t)matrix->offsets[g + 1];
          sum += scales[g] * pare_sign_dot(signs, matrix->stride, start, input + start, end - start);
        }
      }
      y[token * y_stride + row - first] = sum;
    }
  }
}

void pare_binary_decode_row(const struct pare_binary *matrix, size_t row, float *target) {
  for (size_t plane = 0; plane < matrix->planes; plane++) {
    const size_t at = plane * matrix->rows + row;
    const uint8_t *signs = matrix->signs + at * matrix->stride;
    for (size_t g = 0; g < matrix->groups; g++) {
      const float scale = matrix->scales[at * matrix->groups + g];
      for (size_t c = (size_t)matrix->offsets[g]; c < (size_t)matrix->offsets[g + 1]; c++) {
        const float value = bits_signed(scale, signs[c / 8], c % 8);
        target[c] = plane == 0 ? value : target[c] + value;
      }
    }
  }
}

/// Digit `place` of base-three bytes, less one. The divisors are constants, so that the loop runs in
/// vector lanes.
static inline void bits_digits_at(const uint8_t *bytes, size_t count, int divisor, int8_t *target) {
  for (size_t i = 0; i < count; i++) target[i] = (int8_t)(bytes[i] / divisor % 3 - 1);
}

PARE_KERNEL static void bits_digits(
    const uint8_t *bytes, size_t count, size_t place, int8_t *target) {
  switch (place) {
    case 0: bits_digits_at(bytes, count, 1, target); break;
    case 1: bits_digits_at(bytes, count, 3, target); break;
    case 2: bits_digits_at(bytes, count, 9, target); break;
    case 3: bits_digits_at(bytes, count, 27, target); break;
    default: bits_digits_at(bytes, count, 81, target); break;
  }
}

void pare_ternary_codes(
    const struct pare_ternary *matrix, size_t row, size_t first, size_t count, int8_t *target) {
  const uint8_t *codes = matrix->codes + row * matrix->stride;
  if (matrix->packing == PARE_TERNARY_BITS) {
    for (size_t i = 0; i < count; i++) {
      const size_t at = first + i;
      target[i] = (int8_t)bits_ternary(codes[at / 4], at % 4);
    }
    return;
  }
  for (size_t done = 0; done < count;) {
    const size_t at = first + done, place = at / matrix->stride, byte = at % matrix->stride;
    const size_t left = matrix->stride - byte;
    const size_t size = left < count - done ? left : count - done;
    bits_digits(codes + byte, size, place, target + done);
    done += size;
  }
}

PARE_KERNEL static float bits_byte_dot(const int8_t *codes, const float *x, size_t count) {
  float lanes[32] = {0};
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    for (size_t j = 0; j < 32; j++) lanes[j] += x[i + j] * (float)codes[i + j];
  }
  for (size_t j = 0; i + j < count; j++) lanes[j] += x[i + j] * (float)codes[i + j];
  return bits_sum(lanes);
}

void pare_ternary_multiply_rows(
    const struct pare_ternary *matrix, size_t first, size_t last, const float *x, size_t tokens,
    float *y, size_t y_stride) {
  enum { part = 4096 };
  int8_t codes[part];
  for (size_t row = first; row < last; row++) {
    const float *scales = matrix->scales + row * matrix->groups;
    const uint8_t *stream = matrix->codes + row * matrix->stride;
    for (size_t token = 0; token < tokens; token++) y[token * y_stride + row - first] = 0;
    for (size_t g = 0; g < matrix->groups; g++) {
      const size_t group = g * matrix->group;
      const size_t end =
          group + matrix->group < matrix->columns ? group + matrix->group : matrix->columns;
      for (size_t start = group; start < end; start += part) {
        const size_t size = end - start < part ? end - start : part;
        if (matrix->packing == PARE_TERNARY_DIGITS) {
          pare_ternary_codes(matrix, row, start, size, codes);
        }
        for (size_t token = 0; token < tokens; token++) {
          const float *input = x + token * matrix->columns + start;
          const float dot = matrix->packing == PARE_TERNARY_DIGITS
              ? bits_byte_dot(codes, input, size)
              : pare_ternary_dot(stream, matrix->stride, start, input, size);
          y[token * y_stride + row - first] += scales[g] * dot;
        }
      }
    }
  }
}

void pare_ternary_decode_row(const struct pare_ternary *matrix, size_t row, float *target) {
  enum { part = 512 };
  int8_t codes[part];
  for (size_t start = 0; start < matrix->columns; start += part) {
    const size_t size = matrix->columns - start < part ? matrix->columns - start : part;
    pare_ternary_codes(matrix, row, start, size, codes);
    for (size_t i = 0; i < size; i++) {
      const float scale = matrix->scales[row * matrix->groups + (start + i) / matrix->group];
      target[start + i] = (float)codes[i] * scale;
    }
  }
}

void pare_ternary_pack(
    enum pare_ternary_packing packing, const int8_t *codes, size_t columns, uint8_t *target) {
  if (packing == PARE_TERNARY_BITS) {
    memset(target, 0, (columns + 3) / 4);
    for (size_t i = 0; i < columns; i++) {
      target[i / 4] |= (uint8_t)((codes[i] & 3) << i % 4 * 2);
    }
    return;
  }
  const size_t stride = (columns + 4) / 5;
  for (size_t byte = 0; byte < stride; byte++) {
    int value = 0;
    for (size_t place = 5; place-- > 0;) {
      const size_t at = place * stride + byte;
      value = 3 * value + (at < columns ? codes[at] : 0) + 1;
    }
    target[byte] = (uint8_t)value;
  }
}

PARE_KERNEL size_t pare_ternary_check(
    enum pare_ternary_packing packing, const uint8_t *codes, size_t count) {
  for (size_t start = 0; start < count; start += 256) {
    const size_t end = count - start < 256 ? count : start + 256;
    uint8_t bad = 0;
    if (packing == PARE_TERNARY_BITS) {
      // The code -2: its high bit without its low one.
      for (size_t i = start; i < end; i++) bad |= codes[i] >> 1 & ~codes[i] & 0x55;
    } else {
      for (size_t i = start; i < end; i++) bad |= codes[i] > 242;
    }
    if (!bad) continue;
    for (size_t i = start; i < end; i++) {
      if (packing == PARE_TERNARY_BITS ? codes[i] >> 1 & ~codes[i] & 0x55 : codes[i] > 242) {
        return i;
      }
    }
  }
  return count;
}
