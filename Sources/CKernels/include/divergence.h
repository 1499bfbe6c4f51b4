#ifndef PARE_DIVERGENCE_H
#define PARE_DIVERGENCE_H
#include <stddef.h>

/// Two rows of logits compared as distributions, in double precision.
struct pare_divergence {
  double kl;         ///< KL(p || q), nats, never below zero
  double log_sum_p;  ///< log of the sum of exponentials
  double log_sum_q;
  size_t top_p;  ///< index of the largest logit, the lowest of equals
  size_t top_q;
};

/// p, q: `count` logits each, `count` at least 1.
struct pare_divergence pare_divergence(const float *p, const float *q, size_t count);

#endif
