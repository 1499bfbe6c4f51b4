// Dense matrices times a few tokens, at the speed of memory. See include/dense.h.
#include "dense.h"

#include <stdint.h>
#include <string.h>

// Vectors pass between functions that are always inlined, so no calling convention is at stake.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float dense_f32 __attribute__((ext_vector_type(16)));
typedef uint32_t dense_u32 __attribute__((ext_vector_type(16)));
typedef uint16_t dense_u16 __attribute__((ext_vector_type(16)));
typedef _Float16 dense_f16 __attribute__((ext_vector_type(16)));
typedef float dense_f32x8 __attribute__((ext_vector_type(8)));
typedef float dense_f32x4 __attribute__((ext_vector_type(4)));
typedef float dense_f32x2 __attribute__((ext_vector_type(2)));

/// Rows that share a pass over the activations.
enum { DENSE_ROWS = 4 };

static inline float dense_value(enum pare_dense_type type, const char *p) {
  if (type == PARE_DENSE_F32) {
    float value;
    memcpy(&value, p, 4);
    return value;
  }
  uint16_t half;
  memcpy(&half, p, 2);
  if (type == PARE_DENSE_BF16) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
  }
  _Float16 value;
  memcpy(&value, &half, 2);
  return (float)value;
}

void pare_dense_multiply_rows_reference(
    enum pare_dense_type type, const void *matrix, size_t columns, size_t first, size_t last,
    const float *x, size_t tokens, float *y, size_t y_stride) {
  const size_t size = type == PARE_DENSE_F32 ? 4 : 2;
  for (size_t row = first; row < last; row++) {
    const char *p = (const char *)matrix + row * columns * size;
    for (size_t t = 0; t < tokens; t++) {
      double sum = 0;
      for (size_t i = 0; i < columns; i++) {
        sum += (double)dense_value(type, p + i * size) * x[t * columns + i];
      }
      y[t * y_stride + row] = (float)sum;
    }
  }
}

#define TARGET
#define NAME(x) portable_##x
#include "dense_body.h"

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma,f16c")))
#define NAME(x) avx2_##x
#include "dense_body.h"

#define TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"), min_vector_width(512)))
#define NAME(x) avx512_##x
#include "dense_body.h"
#endif

void pare_dense_multiply_rows(
    enum pare_dense_type type, const void *matrix, size_t columns, size_t first, size_t last,
    const float *x, size_t tokens, float *y, size_t y_stride) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512_multiply_rows(type, matrix, columns, first, last, x, tokens, y, y_stride);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c")) {
    return avx2_multiply_rows(type, matrix, columns, first, last, x, tokens, y, y_stride);
  }
#endif
  portable_multiply_rows(type, matrix, columns, first, last, x, tokens, y, y_stride);
}
