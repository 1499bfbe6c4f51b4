#ifndef PARE_LOSSES_SORTED_H
#define PARE_LOSSES_SORTED_H
#include <stddef.h>
#include <stdint.h>

/// Distance of two predictions over vocabularies that have nothing in common but what they mean:
/// with p and q sorted each by itself, falling, and the shorter filled up with zeros, the sum of
/// |p_i - q_i| (universal logit distillation, Boizard et al. 2024, arXiv:2402.12030).
///
/// p = softmax(student * inverse_temperature), q the teacher's in the same way. Adds
/// weight * d(distance) / d(student) to gradient, which may be null. Of equal students the first counts
/// as the larger. scratch holds 3 * max(count, teacher_count) numbers.
double pare_sorted_distance(
    const float *student, size_t count, const float *teacher, size_t teacher_count,
    float inverse_temperature, float weight, float *gradient, uint64_t *scratch);
/// The same by insertion sort and in double: the reference.
double pare_sorted_distance_ref(
    const float *student, size_t count, const float *teacher, size_t teacher_count,
    float inverse_temperature, float weight, float *gradient, uint64_t *scratch);

#endif
