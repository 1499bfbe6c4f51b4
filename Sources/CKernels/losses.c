// Losses on rows of logits. See include/losses.h.
#include "losses.h"

#include <math.h>

#include "exponential.h"
#include "rows.h"
#include "vector.h"

// exp(x - top), which may take the place of x, and its sum.
PARE_KERNEL static float exponentials(const float *x, float top, float *y, size_t count) {
  PARE_REASSOCIATE
  float sum = 0;
  // A number of y depends on the number of x at its place only, so that they may be one.
#pragma clang loop vectorize(assume_safety)
  for (size_t i = 0; i < count; i++) {
    const float e = exp_fast(x[i] - top);
    y[i] = e;
    sum += e;
  }
  return sum;
}

PARE_KERNEL static void scale_in_place(float *y, float factor, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] *= factor;
}

double pare_cross_entropy(
    const float *logits, size_t count, size_t target, float weight, float *gradient) {
  if (!gradient) return pare_log_sum_exp(logits, count) - logits[target];
  const float top = pare_max(logits, count), chosen = logits[target];
  const float sum = exponentials(logits, top, gradient, count);
  scale_in_place(gradient, weight / sum, count);
  gradient[target] -= weight;
  return (double)top + log((double)sum) - chosen;
}

double pare_cross_entropy_ref(
    const float *logits, size_t count, size_t target, float weight, float *gradient) {
  double top = -INFINITY, sum = 0;
  for (size_t i = 0; i < count; i++) top = logits[i] > top ? logits[i] : top;
  for (size_t i = 0; i < count; i++) sum += exp(logits[i] - top);
  for (size_t i = 0; gradient && i < count; i++) {
    gradient[i] = (float)(weight * (exp(logits[i] - top) / sum - (i == target)));
  }
  return top + log(sum) - logits[target];
}
