// A divergence over the teacher's most probable tokens and the rest as one. See
// include/divergence_losses.h.
#include <math.h>
#include <string.h>

#include "divergence_losses.h"
#include "divergence_losses_body.h"
#include "vector.h"

PARE_KERNEL static float largest(const float *x, size_t count) { return largest_body(x, count); }

// x = e^(x - shift); returns the sum.
PARE_KERNEL static double shifted(float *x, float shift, size_t count) {
  PARE_REASSOCIATE
  double sum = 0;
  for (size_t first = 0; first < count; first += BLOCK) {
    float part = 0;
    for (size_t i = first; i < block_end(first, count); i++) {
      x[i] = probability(x[i] - shift);
      part += x[i];
    }
    sum += part;
  }
  return sum;
}

PARE_KERNEL static void spread(float a, const float *restrict x, float *restrict y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] += a * x[i];
}

// The logit of "any other token" is the log of the sum of their exponentials: softmax over the k +
// 1 gives each token the probability it has among all. The derivative of that logit spreads over
// its tokens by their shares. The k are left out of the sum rather than taken off it: where they
// hold nearly everything, a difference would be rounding.
double pare_divergence_loss_top(
    struct pare_divergence_loss loss, const float *student, size_t count, const int32_t *ids,
    const float *log_probabilities, size_t k, float weight, float *gradient, float *scratch) {
  const size_t outcomes = k + 1;
  float *others = scratch, *coarse = others + count, *target = coarse + outcomes;
  float *derivative = target + outcomes, *rest = derivative + outcomes;
  memcpy(others, student, count * sizeof(float));
  double listed = 0;
  for (size_t i = 0; i < k; i++) {
    others[ids[i]] = -INFINITY;
    coarse[i] = student[ids[i]];
    target[i] = log_probabilities[i];
    listed += exp(log_probabilities[i]);
  }
  const float top = largest(others, count);
  const double sum = shifted(others, top, count);
  // With no other token, what the k lack to 1 is rounding.
  const int has_others = sum != 0;
  coarse[k] = has_others ? (float)(top + log(sum)) : -INFINITY;
  target[k] = has_others ? (float)log(fmax(1 - listed, PARE_LEAST_REST)) : -INFINITY;
  memset(derivative, 0, outcomes * sizeof(float));
  const double value =
      pare_divergence_loss(loss, coarse, target, outcomes, weight, derivative, rest);
  for (size_t i = 0; i < k; i++) gradient[ids[i]] += derivative[i];
  if (has_others) spread((float)(derivative[k] / sum), others, gradient, count);
  return value;
}
