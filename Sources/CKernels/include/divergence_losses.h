#ifndef PARE_DIVERGENCE_LOSSES_H
#define PARE_DIVERGENCE_LOSSES_H
#include <stddef.h>
#include <stdint.h>

/// Divergences between a teacher's distribution p and a student's q, both the softmax of logits
/// over a temperature, as losses on one row of the student's logits.

enum pare_divergence_kind {
  PARE_FORWARD_KL = 0,       ///< sum p log(p/q)
  PARE_REVERSE_KL = 1,       ///< sum q log(q/p)
  PARE_JEFFREYS = 2,         ///< the sum of both
  PARE_MIXTURE = 3,          ///< A sum p log(p/m) + B sum q log(q/m), m = share p + (1 - share) q
  PARE_TOTAL_VARIATION = 4,  ///< 1/2 sum |p - q|; its derivative is 0 where p = q to 4e-7
};

struct pare_divergence_loss {
  enum pare_divergence_kind kind;
  float temperature;
  /// Of a mixture only: the teacher's share in m, above 0 and below 1, and A and B.
  float share, teacher_part, student_part;
  /// The target is softmax((1 - t) student + t teacher), a constant; 1 for the teacher itself.
  float target_share;
};

/// Teacher logits count as no less than the row's largest - 200 temperatures, so that a masked
/// token (-infinity) costs a student that likes it much, but not everything; student logits as no
/// less than the largest - 10000 temperatures, so that none is a probability whose logarithm is
/// infinite. NaN in either gives NaN, and so does a row without any finite logit.
///
/// gradient += weight * temperature^2 * d divergence / d student; the result is temperature^2 times
/// the divergence, without the weight. The squared temperature keeps gradients alike at every
/// temperature (Hinton et al. 2015, section 2).
///
/// scratch: 3 * count floats.
double pare_divergence_loss(
    struct pare_divergence_loss loss, const float *student, const float *teacher, size_t count,
    float weight, float *gradient, float *scratch);
/// The same in double precision, in order.
double pare_divergence_loss_ref(
    struct pare_divergence_loss loss, const float *student, const float *teacher, size_t count,
    float weight, float *gradient);

/// What a teacher's other tokens have at least: less is lost in float32 log-probabilities.
#define PARE_LEAST_REST 1e-7

/// The same over k + 1 outcomes: k tokens, and all the others as one, which have what the k lack
/// to 1. The teacher's numbers are log-probabilities at temperature 1; a temperature is applied to
/// the k + 1 outcomes of both sides.
///
/// ids: different from one another, below count. scratch: count + 6 * (k + 1) floats.
double pare_divergence_loss_top(
    struct pare_divergence_loss loss, const float *student, size_t count, const int32_t *ids,
    const float *log_probabilities, size_t k, float weight, float *gradient, float *scratch);
double pare_divergence_loss_top_ref(
    struct pare_divergence_loss loss, const float *student, size_t count, const int32_t *ids,
    const float *log_probabilities, size_t k, float weight, float *gradient);

#endif
