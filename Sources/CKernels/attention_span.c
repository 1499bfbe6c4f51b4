// One token's attention over the cache. Sixteen keys at a time: their products with a query are
// reduced together by a tree of shuffles, so no key pays for a horizontal sum of its own.
#include <math.h>
#include <string.h>

#include "attention.h"
#include "rows.h"
#include "vector.h"

typedef float f32x16 __attribute__((ext_vector_type(16)));

enum { LANES = 16 };

static size_t padded(size_t dim) { return (dim + LANES - 1) / LANES * LANES; }

void pare_cache_store(
    enum pare_cache_type type, const float *x, size_t dim, void *row, float *scale) {
  switch (type) {
    case PARE_CACHE_F32: memcpy(row, x, dim * sizeof(float)); break;
    case PARE_CACHE_F16: pare_f32_to_f16(x, row, dim); break;
    case PARE_CACHE_I8: {
      float top = 0;
      for (size_t i = 0; i < dim; i++) top = fmaxf(top, fabsf(x[i]));
      *scale = top / 127;
      const float inverse = top > 0 ? 127 / top : 0;
      signed char *codes = row;
      for (size_t i = 0; i < dim; i++) codes[i] = (signed char)rintf(x[i] * inverse);
      break;
    }
  }
}

PARE_KERNEL void pare_cache_widen(
    enum pare_cache_type type, const void *rows, const float *scales, size_t count, size_t dim,
    float *target, size_t stride) {
  for (size_t r = 0; r < count; r++) {
    float *y = target + r * stride;
    switch (type) {
      case PARE_CACHE_F32: memcpy(y, (const float *)rows + r * dim, dim * sizeof(float)); break;
      case PARE_CACHE_F16: pare_f16_to_f32((const char *)rows + r * dim * 2, y, dim); break;
      case PARE_CACHE_I8: {
        const signed char *codes = (const signed char *)rows + r * dim;
        const float scale = scales[r];
        for (size_t i = 0; i < dim; i++) y[i] = (float)codes[i] * scale;
        break;
      }
    }
    for (size_t i = dim; i < stride; i++) y[i] = 0;
  }
}

/// Sixteen rows' products with one query, in the order of the rows.
__attribute__((always_inline)) static inline void products(
    const float *rows, const float *query, size_t width, float *target) {
  f32x16 part[LANES];
  for (size_t k = 0; k < LANES; k++) part[k] = 0;
  for (size_t d = 0; d < width; d += LANES) {
    f32x16 q;
    memcpy(&q, query + d, sizeof q);
    for (size_t k = 0; k < LANES; k++) {
      f32x16 row;
      memcpy(&row, rows + k * width + d, sizeof row);
      part[k] = __builtin_elementwise_fma(row, q, part[k]);
    }
  }
  // Neighbours are added until each row's sixteen sums are one; the order of rows is kept.
  for (size_t left = LANES / 2; left > 0; left /= 2) {
    for (size_t k = 0; k < left; k++) {
      const f32x16 a = part[2 * k], b = part[2 * k + 1];
      part[k] = __builtin_shufflevector(
                    a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
                __builtin_shufflevector(
                    a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    }
  }
  memcpy(target, &part[0], sizeof part[0]);
}

size_t pare_attention_scratch_floats(size_t count, size_t dim, size_t group) {
  // Scores of whole blocks, one block of widened rows, the queries padded, the mixtures padded.
  return group * padded(count) + LANES * padded(dim) + 2 * group * padded(dim);
}

static size_t row_bytes(enum pare_cache_type type, size_t dim) {
  return type == PARE_CACHE_F32 ? dim * 4 : type == PARE_CACHE_F16 ? dim * 2 : dim;
}

PARE_KERNEL void pare_attend_span(const struct pare_attention_span *s) {
  const size_t width = padded(s->dim), blocks = padded(s->count), bytes = row_bytes(s->type, s->dim);
  float *scores = s->scratch;  // [group, blocks]
  float *rows = scores + s->group * blocks;
  float *queries = rows + LANES * width;      // [group, width]
  float *mixture = queries + s->group * width;  // [group, width]
  for (size_t g = 0; g < s->group; g++) {
    for (size_t d = 0; d < s->dim; d++) queries[g * width + d] = s->queries[g * s->dim + d] * s->scale;
    for (size_t d = s->dim; d < width; d++) queries[g * width + d] = 0;
  }
  for (size_t k = 0; k < s->count; k += LANES) {
    const size_t here = s->count - k < LANES ? s->count - k : LANES;
    const char *keys = (const char *)s->keys + k * bytes;
    pare_cache_widen(
        s->type, keys, s->key_scales ? s->key_scales + k : NULL, here, s->dim, rows, width);
    memset(rows + here * width, 0, (LANES - here) * width * sizeof(float));
    for (size_t g = 0; g < s->group; g++) {
      products(rows, queries + g * width, width, scores + g * blocks + k);
    }
  }
  for (size_t g = 0; g < s->group; g++) {
    float *row = scores + g * blocks;
    if (s->soft_cap > 0) pare_soft_cap(row, s->soft_cap, row, s->count);
    if (s->slopes) {
      for (size_t k = 0; k < s->count; k++) {
        row[k] += s->slopes[g] * ((float)k - (float)s->first_distance);
      }
    }
    s->maximum[g] = pare_max(row, s->count);
    s->sum[g] = pare_exp_shifted(row, s->maximum[g], row, s->count);
    for (size_t k = s->count; k < blocks; k++) row[k] = 0;
  }
  memset(mixture, 0, s->group * width * sizeof(float));
  for (size_t k = 0; k < s->count; k += LANES) {
    const size_t here = s->count - k < LANES ? s->count - k : LANES;
    const char *values = (const char *)s->values + k * bytes;
    pare_cache_widen(
        s->type, values, s->value_scales ? s->value_scales + k : NULL, here, s->dim, rows, width);
    memset(rows + here * width, 0, (LANES - here) * width * sizeof(float));
    for (size_t g = 0; g < s->group; g++) {
      const float *weight = scores + g * blocks + k;
      for (size_t d = 0; d < width; d += LANES) {
        f32x16 total;
        memcpy(&total, mixture + g * width + d, sizeof total);
        for (size_t i = 0; i < LANES; i++) {
          f32x16 row;
          memcpy(&row, rows + i * width + d, sizeof row);
          total = __builtin_elementwise_fma(row, (f32x16)weight[i], total);
        }
        memcpy(mixture + g * width + d, &total, sizeof total);
      }
    }
  }
  for (size_t g = 0; g < s->group; g++) {
    memcpy(s->mixture + g * s->dim, mixture + g * width, s->dim * sizeof(float));
  }
}

void pare_attend_span_ref(const struct pare_attention_span *s) {
  const size_t bytes = row_bytes(s->type, s->dim);
  float row[s->dim];
  double scores[s->count], mixture[s->dim];
  for (size_t g = 0; g < s->group; g++) {
    double top = -INFINITY;
    for (size_t k = 0; k < s->count; k++) {
      pare_cache_widen(
          s->type, (const char *)s->keys + k * bytes, s->key_scales ? s->key_scales + k : NULL, 1,
          s->dim, row, s->dim);
      double score = 0;
      for (size_t d = 0; d < s->dim; d++) score += (double)s->queries[g * s->dim + d] * row[d];
      score *= s->scale;
      if (s->soft_cap > 0) score = s->soft_cap * tanh(score / s->soft_cap);
      if (s->slopes) score += s->slopes[g] * ((double)k - (double)s->first_distance);
      scores[k] = score;
      if (score > top) top = score;
    }
    double sum = 0;
    for (size_t d = 0; d < s->dim; d++) mixture[d] = 0;
    for (size_t k = 0; k < s->count; k++) {
      const double weight = exp(scores[k] - top);
      sum += weight;
      pare_cache_widen(
          s->type, (const char *)s->values + k * bytes,
          s->value_scales ? s->value_scales + k : NULL, 1, s->dim, row, s->dim);
      for (size_t d = 0; d < s->dim; d++) mixture[d] += weight * row[d];
    }
    s->maximum[g] = (float)top;
    s->sum[g] = (float)sum;
    for (size_t d = 0; d < s->dim; d++) s->mixture[g * s->dim + d] = (float)mixture[d];
  }
}

void pare_attention_join(
    const float *mixture, const float *maximum, const float *sum, size_t parts, size_t group,
    size_t dim, float *target) {
  for (size_t g = 0; g < group; g++) {
    float top = -INFINITY, total = 0;
    for (size_t p = 0; p < parts; p++) top = fmaxf(top, maximum[p * group + g]);
    float *y = target + g * dim;
    memset(y, 0, dim * sizeof(float));
    for (size_t p = 0; p < parts; p++) {
      const float factor = expf(maximum[p * group + g] - top);
      total += sum[p * group + g] * factor;
      pare_accumulate(factor, mixture + (p * group + g) * dim, y, dim);
    }
    pare_scale(y, 1 / total, y, dim);
  }
}
