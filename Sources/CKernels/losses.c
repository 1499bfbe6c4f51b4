// Losses on rows of logits. See include/losses.h.
#include "losses.h"

#include <math.h>

#include "rows.h"
#include "vector.h"

double pare_cross_entropy(
    const float *logits, size_t count, size_t target, float weight, float *gradient) {
  if (!gradient) return pare_log_sum_exp(logits, count) - logits[target];
  const float top = pare_max(logits, count);
  const float sum = pare_exp_shifted(logits, top, gradient, count);
  pare_scale(gradient, weight / sum, gradient, count);
  gradient[target] -= weight;
  return (double)top + log((double)sum) - logits[target];
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
