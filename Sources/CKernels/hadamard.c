// The fast Walsh-Hadamard transform. See include/hadamard.h.
#include "hadamard.h"

#include <string.h>

#include "vector.h"

void pare_hadamard_reference(float *x, size_t n, size_t width) {
  for (size_t half = 1; half < n; half *= 2) {
    for (size_t first = 0; first < n; first += 2 * half) {
      for (size_t i = first * width; i < (first + half) * width; i++) {
        const float a = x[i], b = x[i + half * width];
        x[i] = a + b;
        x[i + half * width] = a - b;
      }
    }
  }
}

// Vectors never pass between functions, so no calling convention is at stake.
typedef float hadamard_f32 __attribute__((ext_vector_type(16)));
static const size_t vector_bytes = sizeof(hadamard_f32);

/// One step of a line of numbers, within 16 neighbours: partners change places, signs tell which.
#define WITHIN(v, signs, ...) \
  v = __builtin_shufflevector(v, v, __VA_ARGS__) + v * signs

#define SIGNS_1 {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1}
#define SIGNS_2 {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1}
#define SIGNS_4 {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1}
#define SIGNS_8 {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}

PARE_KERNEL void pare_hadamard(float *x, size_t n, size_t width) {
  size_t half = 1;
  if (width == 1 && n >= 16) {
    const hadamard_f32 s1 = SIGNS_1, s2 = SIGNS_2, s4 = SIGNS_4, s8 = SIGNS_8;
    for (size_t i = 0; i < n; i += 16) {
      hadamard_f32 v;
      memcpy(&v, x + i, vector_bytes);
      WITHIN(v, s1, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
      WITHIN(v, s2, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
      WITHIN(v, s4, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
      WITHIN(v, s8, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
      memcpy(x + i, &v, vector_bytes);
    }
    half = 16;
  }
  for (; half < n; half *= 2) {
    const size_t distance = half * width;
    for (size_t first = 0; first < n * width; first += 2 * distance) {
      float *a = x + first, *b = a + distance;
      for (size_t i = 0; i < distance; i++) {
        const float low = a[i], high = b[i];
        a[i] = low + high;
        b[i] = low - high;
      }
    }
  }
}

PARE_KERNEL void pare_hadamard_core(
    const float *core, size_t m, int transposed, const float *x, float scale, float *y,
    size_t width) {
  const size_t step = transposed ? m : 1, row = transposed ? 1 : m;
  size_t column = 0;
  for (; column + 16 <= width; column += 16) {
    for (size_t a = 0; a < m; a++) {
      hadamard_f32 sum = 0;
      for (size_t b = 0; b < m; b++) {
        hadamard_f32 v;
        memcpy(&v, x + b * width + column, vector_bytes);
        sum += v * core[a * row + b * step];
      }
      sum *= scale;
      memcpy(y + a * width + column, &sum, vector_bytes);
    }
  }
  for (; column < width; column++) {
    for (size_t a = 0; a < m; a++) {
      float sum = 0;
      for (size_t b = 0; b < m; b++) sum += x[b * width + column] * core[a * row + b * step];
      y[a * width + column] = sum * scale;
    }
  }
}

void pare_hadamard_core_reference(
    const float *core, size_t m, int transposed, const float *x, float scale, float *y,
    size_t width) {
  for (size_t a = 0; a < m; a++) {
    for (size_t column = 0; column < width; column++) {
      double sum = 0;
      for (size_t b = 0; b < m; b++) {
        sum += (double)x[b * width + column] * core[transposed ? b * m + a : a * m + b];
      }
      y[a * width + column] = (float)(sum * scale);
    }
  }
}
