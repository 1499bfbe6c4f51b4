#include "activations.h"

#include <math.h>

#include "vector.h"

#pragma STDC FP_CONTRACT OFF

PARE_KERNEL void pare_range_with_zero(
    const float *x, size_t count, float *lowest, float *highest) {
  // Selections, unlike fmin, have no case for NaN that would keep them out of vectors.
  enum { LANES = 16 };
  float low[LANES] = {0}, high[LANES] = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    for (int k = 0; k < LANES; k++) {
      low[k] = x[i + k] < low[k] ? x[i + k] : low[k];
      high[k] = x[i + k] > high[k] ? x[i + k] : high[k];
    }
  }
  for (; i < count; i++) {
    low[0] = x[i] < low[0] ? x[i] : low[0];
    high[0] = x[i] > high[0] ? x[i] : high[0];
  }
  *lowest = low[0];
  *highest = high[0];
  for (int k = 1; k < LANES; k++) {
    *lowest = low[k] < *lowest ? low[k] : *lowest;
    *highest = high[k] > *highest ? high[k] : *highest;
  }
}

void pare_range_with_zero_ref(const float *x, size_t count, float *lowest, float *highest) {
  *lowest = *highest = 0;
  for (size_t i = 0; i < count; i++) {
    *lowest = fminf(*lowest, x[i]);
    *highest = fmaxf(*highest, x[i]);
  }
}

PARE_KERNEL void pare_round_to_grid(
    const float *x, size_t count, float scale, float zero, float low, float high, float *y) {
  for (size_t i = 0; i < count; i++) {
    float value = x[i] / scale + zero;
    value = value < low ? low : value;
    value = value > high ? high : value;
    // Adding 1.5 * 2^23 leaves the nearest integer, half to even.
    const float code = (value + 12582912.0f) - 12582912.0f;
    y[i] = (code - zero) * scale;
  }
}

void pare_round_to_grid_ref(
    const float *x, size_t count, float scale, float zero, float low, float high, float *y) {
  for (size_t i = 0; i < count; i++) {
    if (isnan(x[i])) {
      y[i] = x[i];
      continue;
    }
    const float code = rintf(fminf(fmaxf(x[i] / scale + zero, low), high));
    y[i] = (code - zero) * scale;
  }
}

PARE_KERNEL void pare_grid_gradient(
    const float *x, const float *dy, size_t count, float scale, float zero, float low, float high,
    float *y) {
  for (size_t i = 0; i < count; i++) {
    const float value = x[i] / scale + zero;
    y[i] = value >= low && value <= high ? dy[i] : 0;
  }
}
