#ifndef PARE_LOSSES_H
#define PARE_LOSSES_H
#include <stddef.h>

/// Losses on one row of logits, each with its gradient with respect to them.

/// -log softmax(logits)[target]; gradient = weight * (softmax - one_hot(target)), null for none,
/// or the logits' own memory.
double pare_cross_entropy(
    const float *logits, size_t count, size_t target, float weight, float *gradient);
/// The same in double precision, in order.
double pare_cross_entropy_ref(
    const float *logits, size_t count, size_t target, float weight, float *gradient);

#endif
