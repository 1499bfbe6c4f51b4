// Column-by-column rounding with error feedback. See include/gptq.h.
#include "gptq.h"

#include <math.h>
#include <string.h>

#include "vector.h"

#pragma STDC FP_CONTRACT OFF

enum { LANES = PARE_GPTQ_LANES };

/// Adding 1.5 * 2^23 leaves no fraction bits: the sum is rounded half to even.
#define MAGIC 12582912.0f

PARE_KERNEL void pare_gptq_round(const struct pare_gptq_block *block, size_t first, size_t last) {
  const float low = -(float)(1 << (block->bits - 1)), high = -low - 1;
  const size_t columns = block->columns;
  for (size_t slab = 0; slab < block->slabs; slab++) {
    float *weights = block->weights + slab * columns * LANES;
    int8_t *codes = block->codes + slab * columns * LANES;
    for (size_t i = first; i < last; i++) {
      const float *u = block->factor + i * block->factor_stride;
      const size_t at =
          (slab * block->groups + (size_t)block->column_groups[i]) * LANES;
      const float *scales = block->scales + at, *zeros = block->zeros + at;
      float *w = weights + i * LANES;
      float e[LANES];
      const float diagonal = u[i];
      for (int r = 0; r < LANES; r++) {
        float q = w[r] / scales[r] + zeros[r];
        // A weight that is no number goes to the lowest code.
        q = q > low ? q : low;
        q = q < high ? q : high;
        q = (q + MAGIC) - MAGIC;
        codes[i * LANES + r] = (int8_t)q;
        const float value = (q - zeros[r]) * scales[r];
        e[r] = (w[r] - value) / diagonal;
      }
      memcpy(w, e, sizeof e);
      size_t j = i + 1;
      // Four columns at a time share what was loaded of e.
      for (; j + 4 <= columns; j += 4) {
        float *after = weights + j * LANES;
        const float u0 = u[j], u1 = u[j + 1], u2 = u[j + 2], u3 = u[j + 3];
        for (int r = 0; r < LANES; r++) after[r] -= e[r] * u0;
        for (int r = 0; r < LANES; r++) after[LANES + r] -= e[r] * u1;
        for (int r = 0; r < LANES; r++) after[2 * LANES + r] -= e[r] * u2;
        for (int r = 0; r < LANES; r++) after[3 * LANES + r] -= e[r] * u3;
      }
      for (; j < columns; j++) {
        float *after = weights + j * LANES;
        for (int r = 0; r < LANES; r++) after[r] -= e[r] * u[j];
      }
    }
  }
}

void pare_gptq_round_reference(const struct pare_gptq_block *block, size_t first, size_t last) {
  const float low = -(float)(1 << (block->bits - 1)), high = -low - 1;
  for (size_t row = 0; row < block->slabs * LANES; row++) {
    const size_t slab = row / LANES, lane = row % LANES;
    float *w = block->weights + slab * block->columns * LANES + lane;
    for (size_t i = first; i < last; i++) {
      const float *u = block->factor + i * block->factor_stride;
      const size_t at =
          (slab * block->groups + (size_t)block->column_groups[i]) * LANES + lane;
      const float scale = block->scales[at], zero = block->zeros[at];
      const float steps = w[i * LANES] / scale + zero;
      const float q = rintf(fminf(fmaxf(steps, low), high));
      block->codes[(slab * block->columns + i) * LANES + lane] = (int8_t)q;
      const float value = (q - zero) * scale;
      const float e = (w[i * LANES] - value) / u[i];
      w[i * LANES] = e;
      for (size_t j = i + 1; j < block->columns; j++) {
        const float carried = e * u[j];
        w[j * LANES] -= carried;
      }
    }
  }
}

typedef float lanes4 __attribute__((ext_vector_type(4)));

void pare_gptq_gather(
    const float *source, size_t stride, size_t rows, size_t columns, float *lanes) {
  for (size_t start = 0; start < rows; start += LANES, lanes += columns * LANES) {
    const size_t count = rows - start < LANES ? rows - start : LANES;
    if (count < LANES) memset(lanes, 0, columns * LANES * sizeof *lanes);
    const float *from = source + start * stride;
    size_t r = 0;
    for (; r + 4 <= count; r += 4) {
      const float *a = from + r * stride;
      size_t c = 0;
      for (; c + 4 <= columns; c += 4) {
        lanes4 x0, x1, x2, x3;
        memcpy(&x0, a + c, 16);
        memcpy(&x1, a + stride + c, 16);
        memcpy(&x2, a + 2 * stride + c, 16);
        memcpy(&x3, a + 3 * stride + c, 16);
        lanes4 low0 = __builtin_shufflevector(x0, x1, 0, 4, 1, 5);
        lanes4 low1 = __builtin_shufflevector(x2, x3, 0, 4, 1, 5);
        lanes4 high0 = __builtin_shufflevector(x0, x1, 2, 6, 3, 7);
        lanes4 high1 = __builtin_shufflevector(x2, x3, 2, 6, 3, 7);
        lanes4 y0 = __builtin_shufflevector(low0, low1, 0, 1, 4, 5);
        lanes4 y1 = __builtin_shufflevector(low0, low1, 2, 3, 6, 7);
        lanes4 y2 = __builtin_shufflevector(high0, high1, 0, 1, 4, 5);
        lanes4 y3 = __builtin_shufflevector(high0, high1, 2, 3, 6, 7);
        memcpy(lanes + c * LANES + r, &y0, 16);
        memcpy(lanes + (c + 1) * LANES + r, &y1, 16);
        memcpy(lanes + (c + 2) * LANES + r, &y2, 16);
        memcpy(lanes + (c + 3) * LANES + r, &y3, 16);
      }
      for (; c < columns; c++) {
        for (size_t k = 0; k < 4; k++) lanes[c * LANES + r + k] = a[k * stride + c];
      }
    }
    for (; r < count; r++) {
      for (size_t c = 0; c < columns; c++) lanes[c * LANES + r] = from[r * stride + c];
    }
  }
}

void pare_gptq_scatter(
    const float *lanes, size_t rows, size_t columns, size_t first, size_t last, float *target,
    size_t stride) {
  for (size_t start = 0; start < rows; start += LANES, lanes += columns * LANES) {
    const size_t count = rows - start < LANES ? rows - start : LANES;
    for (size_t r = 0; r < count; r++) {
      float *row = target + (start + r) * stride;
      for (size_t c = first; c < last; c++) row[c - first] = lanes[c * LANES + r];
    }
  }
}

void pare_gptq_columns(const float *lanes, size_t slabs, size_t columns, float *target) {
  for (size_t c = 0; c < columns; c++) {
    for (size_t slab = 0; slab < slabs; slab++) {
      memcpy(
          target + (c * slabs + slab) * LANES, lanes + (slab * columns + c) * LANES,
          LANES * sizeof *target);
    }
  }
}

PARE_KERNEL void pare_gptq_add_squares(
    const float *lanes, size_t slabs, size_t columns, double *sums) {
  for (size_t slab = 0; slab < slabs; slab++, sums += LANES) {
    for (size_t c = 0; c < columns; c++, lanes += LANES) {
      for (int r = 0; r < LANES; r++) sums[r] += (double)lanes[r] * (double)lanes[r];
    }
  }
}

void pare_gptq_scatter_codes(
    const int8_t *lanes, size_t rows, size_t columns, const int32_t *positions, int8_t *target,
    size_t stride) {
  for (size_t start = 0; start < rows; start += LANES, lanes += columns * LANES) {
    const size_t count = rows - start < LANES ? rows - start : LANES;
    for (size_t r = 0; r < count; r++) {
      int8_t *row = target + (start + r) * stride;
      for (size_t c = 0; c < columns; c++) row[positions[c]] = lanes[c * LANES + r];
    }
  }
}

PARE_KERNEL void pare_gptq_difference(
    const float *weights, const int8_t *codes, size_t columns, const float *scales,
    const int8_t *zeros, const int32_t *groups, float *difference, double *squared_error,
    double *squared_weight, float *largest_error) {
  double errors[16] = {0}, sizes[16] = {0};
  float largest[16] = {0};
  size_t c = 0;
  while (c < columns) {
    // Neighbours mostly share a group.
    size_t end = c + 1;
    while (end < columns && groups[end] == groups[c]) end++;
    const float scale = scales[groups[c]], zero = (float)zeros[groups[c]];
    for (; c + 16 <= end; c += 16) {
      for (int lane = 0; lane < 16; lane++) {
        const float w = weights[c + lane];
        const float value = ((float)codes[c + lane] - zero) * scale;
        const float d = value - w, size = fabsf(d);
        difference[c + lane] = d;
        errors[lane] += (double)d * (double)d;
        sizes[lane] += (double)w * (double)w;
        largest[lane] = size > largest[lane] ? size : largest[lane];
      }
    }
    for (; c < end; c++) {
      const float w = weights[c];
      const float value = ((float)codes[c] - zero) * scale;
      const float d = value - w, size = fabsf(d);
      difference[c] = d;
      errors[0] += (double)d * (double)d;
      sizes[0] += (double)w * (double)w;
      largest[0] = size > largest[0] ? size : largest[0];
    }
  }
  for (int lane = 0; lane < 16; lane++) {
    *squared_error += errors[lane];
    *squared_weight += sizes[lane];
    *largest_error = largest[lane] > *largest_error ? largest[lane] : *largest_error;
  }
}

size_t pare_gptq_first_not_finite(const float *values, size_t count) {
  size_t i = 0;
  for (; i + 64 <= count; i += 64) {
    uint32_t largest = 0;
    for (size_t k = 0; k < 64; k++) {
      uint32_t bits;
      memcpy(&bits, values + i + k, 4);
      bits &= 0x7fffffffu;
      largest = bits > largest ? bits : largest;
    }
    if (largest >= 0x7f800000u) break;
  }
  for (; i < count; i++) {
    if (!isfinite(values[i])) return i;
  }
  return count;
}

PARE_KERNEL double pare_gptq_dot(const float *a, const float *b, size_t count) {
  double sums[16] = {0};
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int lane = 0; lane < 16; lane++) {
      sums[lane] += (double)a[i + lane] * (double)b[i + lane];
    }
  }
  for (; i < count; i++) sums[i % 16] += (double)a[i] * (double)b[i];
  for (int half = 8; half > 0; half /= 2) {
    for (int lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
  }
  return sums[0];
}
