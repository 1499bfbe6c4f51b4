#include "divergence.h"

#include <math.h>

// Terms are summed relative to each row's maximum, so nothing overflows. With a = p - max p and
// b = q - max q:  KL = sum e^a (a - b) / sum e^a - log sum e^a + log sum e^b.
struct pare_divergence pare_divergence(const float *p, const float *q, size_t count) {
  size_t top_p = 0, top_q = 0;
  for (size_t i = 1; i < count; i++) {
    if (p[i] > p[top_p]) top_p = i;
    if (q[i] > q[top_q]) top_q = i;
  }
  const float max_p = p[top_p], max_q = q[top_q];
  double sum_p = 0, sum_q = 0, weighted = 0;
  for (size_t i = 0; i < count; i++) {
    const float a = p[i] - max_p, b = q[i] - max_q;
    const double e = expf(a);
    sum_p += e;
    sum_q += expf(b);
    weighted += e * ((double)a - (double)b);
  }
  const double kl = weighted / sum_p - log(sum_p) + log(sum_q);
  return (struct pare_divergence){
      .kl = kl < 0 ? 0 : kl,  // rounding can leave a few ulps below zero; NaN passes through
      .log_sum_p = max_p + log(sum_p),
      .log_sum_q = max_q + log(sum_q),
      .top_p = top_p,
      .top_q = top_q,
  };
}
