#ifndef PARE_DIVERGENCE_LOSSES_BODY_H
#define PARE_DIVERGENCE_LOSSES_BODY_H
#include <math.h>
#include <stddef.h>

#include "exponential.h"

// Sums run in float lanes over this many elements and in double over the blocks.
enum { BLOCK = 1024, LANES = 32 };

static const float lowest_teacher = -200.0f;
// No infinity, which times a probability of zero would be NaN.
static const float lowest_student = -1e4f;

// Below this, e^x counts as zero; what is left stays clear of slow subnormal numbers.
static inline __attribute__((always_inline)) float probability(float x) {
  return x < -69.0f ? 0.0f : exp_fast(x);
}

static inline __attribute__((always_inline)) size_t block_end(size_t first, size_t count) {
  return count - first < BLOCK ? count : first + BLOCK;
}

// The largest, or 0 where all are -infinity.
static inline __attribute__((always_inline)) float largest_body(const float *x, size_t count) {
  float lanes[LANES];
  for (size_t l = 0; l < LANES; l++) lanes[l] = -INFINITY;
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    for (size_t l = 0; l < LANES; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  }
  float top = -INFINITY;
  for (; i < count; i++) top = x[i] > top ? x[i] : top;
  for (size_t l = 0; l < LANES; l++) top = lanes[l] > top ? lanes[l] : top;
  return top == -INFINITY ? 0 : top;
}

#endif
