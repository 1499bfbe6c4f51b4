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

PARE_KERNEL void pare_attend_span(const struct pare_attention_span *s) {
  const size_t width = padded(s->dim), blocks = padded(s->count);
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
    pare_cache_widen(&s->keys, k, here, s->dim, rows, width);
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
    pare_cache_widen(&s->values, k, here, s->dim, rows, width);
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
  float row[s->dim];
  double scores[s->count], mixture[s->dim];
  for (size_t g = 0; g < s->group; g++) {
    double top = -INFINITY;
    for (size_t k = 0; k < s->count; k++) {
      pare_cache_widen(&s->keys, k, 1, s->dim, row, s->dim);
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
      pare_cache_widen(&s->values, k, 1, s->dim, row, s->dim);
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
