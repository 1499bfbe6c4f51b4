// Divergences between two rows of logits, with derivatives. See include/divergence_losses.h.
//
// With a = (teacher - largest) / T, b = (student - largest) / T and Z the sums of their
// exponentials, log p = a - log Zp and log q = b - log Zq. One pass finds the largest, one writes
// e^a and e^b with the sums that both KLs are made of, and one adds the derivative. For a loss D(q)
// with h = dD/dq
//
//   T^2 dD/d logit_j = T q_j (h_j - sum_i q_i h_i),
//
// so that a third pass, where h takes more than a difference of logits, writes q h and its sum.
#include "divergence_losses.h"

#include <math.h>

#include "divergence_losses_body.h"
#include "logarithm.h"
#include "vector.h"

PARE_KERNEL static float largest(const float *x, size_t count) { return largest_body(x, count); }

struct sums {
  double student, teacher;  // Zq, Zp
  double forward, reverse;  // sum e^a (a - b), sum e^b (b - a)
};

struct rows {
  const float *restrict student, *restrict teacher;
  float top_student, top_teacher, scale;
};

// e^b to q, e^a to p and, where asked for, e^b (b - a) to difference.
static inline __attribute__((always_inline)) struct sums exponentials_body(
    struct rows rows, float *restrict q, float *restrict p, float *restrict difference,
    int keeps_difference, size_t count) {
  PARE_REASSOCIATE
  struct sums s = {0, 0, 0, 0};
  for (size_t first = 0; first < count; first += BLOCK) {
    float sum_q = 0, sum_p = 0, forward = 0, reverse = 0;
    for (size_t i = first; i < block_end(first, count); i++) {
      float a = (rows.teacher[i] - rows.top_teacher) * rows.scale;
      float b = (rows.student[i] - rows.top_student) * rows.scale;
      a = a < lowest_teacher ? lowest_teacher : a;
      b = b < lowest_student ? lowest_student : b;
      const float ea = probability(a), eb = probability(b), x = eb * (b - a);
      sum_p += ea;
      sum_q += eb;
      forward += ea * (a - b);
      reverse += x;
      q[i] = eb;
      p[i] = ea;
      if (keeps_difference) difference[i] = x;
    }
    s.student += sum_q;
    s.teacher += sum_p;
    s.forward += forward;
    s.reverse += reverse;
  }
  return s;
}

PARE_KERNEL static struct sums exponentials(
    struct rows rows, float *q, float *p, size_t count) {
  return exponentials_body(rows, q, p, q, 0, count);
}

PARE_KERNEL static struct sums exponentials_difference(
    struct rows rows, float *q, float *p, float *difference, size_t count) {
  return exponentials_body(rows, q, p, difference, 1, count);
}

// (1 - t) student + t teacher, both from their largest.
PARE_KERNEL static void blend(
    struct rows rows, float share, float *restrict target, size_t count) {
  const float floor = lowest_teacher / rows.scale, rest = 1.0f - share;
  for (size_t i = 0; i < count; i++) {
    const float a = rows.teacher[i] - rows.top_teacher;
    const float b = rows.student[i] - rows.top_student;
    target[i] = share * (a < floor ? floor : a) + rest * (b < lowest_student ? lowest_student : b);
  }
}

struct mixed {
  double value, mean;  // the divergence, sum q h
};

// With d = (p - q) / m: p/m - 1 = (1 - s) d and q/m - 1 = -s d, so that up to a constant
//   h = B log(q/m) - (1 - s) (A p/m + B q/m) = B log(q/m) - (1 - s) (A (1 - s) - B s) d.
static inline __attribute__((always_inline)) struct mixed mixture_body(
    const float *restrict q, const float *restrict p, float factor_q, float factor_p, float share,
    float teacher_part, float student_part, float *restrict qh, size_t count) {
  PARE_REASSOCIATE
  const float slope = (1 - share) * (teacher_part * (1 - share) - student_part * share);
  struct mixed sums = {0, 0};
  for (size_t first = 0; first < count; first += BLOCK) {
    float value = 0, mean = 0;
    for (size_t i = first; i < block_end(first, count); i++) {
      const float pi = p[i] * factor_p, qi = q[i] * factor_q;
      const float inverse = 1.0f / (share * pi + (1 - share) * qi + 1e-37f);
      float h = slope * (qi - pi) * inverse;
      if (student_part != 0) {
        const float ratio = qi * inverse;
        const float l = log_fast(ratio < 1e-37f ? 1e-37f : ratio);
        h += student_part * l;
        value += student_part * qi * l;
      }
      if (teacher_part != 0) {
        const float ratio = pi * inverse;
        value += teacher_part * pi * log_fast(ratio < 1e-37f ? 1e-37f : ratio);
      }
      qh[i] = qi * h;
      mean += qi * h;
    }
    sums.value += value;
    sums.mean += mean;
  }
  return sums;
}

PARE_KERNEL static struct mixed mixture_both(
    const float *q, const float *p, float factor_q, float factor_p, float share, float teacher_part,
    float student_part, float *qh, size_t count) {
  return mixture_body(
      q, p, factor_q, factor_p, share, teacher_part, student_part, qh, count);
}

PARE_KERNEL static struct mixed mixture_of_teacher(
    const float *q, const float *p, float factor_q, float factor_p, float share, float *qh,
    size_t count) {
  return mixture_body(q, p, factor_q, factor_p, share, 1, 0, qh, count);
}

PARE_KERNEL static struct mixed mixture_of_student(
    const float *q, const float *p, float factor_q, float factor_p, float share, float *qh,
    size_t count) {
  return mixture_body(q, p, factor_q, factor_p, share, 0, 1, qh, count);
}

PARE_KERNEL static struct mixed total_variation(
    const float *restrict q, const float *restrict p, float factor_q, float factor_p,
    float *restrict qh, size_t count) {
  PARE_REASSOCIATE
  struct mixed sums = {0, 0};
  for (size_t first = 0; first < count; first += BLOCK) {
    float value = 0, mean = 0;
    for (size_t i = first; i < block_end(first, count); i++) {
      const float qi = q[i] * factor_q, pi = p[i] * factor_p, d = qi - pi;
      const float equal = 4e-7f * (qi + pi);  // as far as float32 can tell
      const float x = d > equal ? 0.5f * qi : (d < -equal ? -0.5f * qi : 0.0f);
      value += 0.5f * fabsf(d);
      mean += x;
      qh[i] = x;
    }
    sums.value += value;
    sums.mean += mean;
  }
  return sums;
}

// y += a u + b v
PARE_KERNEL static void add_two(
    float a, const float *restrict u, float b, const float *restrict v, float *restrict y,
    size_t count) {
  for (size_t i = 0; i < count; i++) y[i] += a * u[i] + b * v[i];
}

// Rounding can leave a few ulps below zero; NaN passes through.
static double not_negative(double x) { return x < 0 ? 0 : x; }

double pare_divergence_loss(
    struct pare_divergence_loss loss, const float *student, const float *teacher, size_t count,
    float weight, float *gradient, float *scratch) {
  float *q = scratch, *p = q + count, *third = p + count;
  struct rows rows = {
      student, teacher, largest(student, count), largest(teacher, count), 1 / loss.temperature};
  if (loss.target_share != 1) {
    blend(rows, loss.target_share, third, count);
    rows.teacher = third;
    rows.top_teacher = largest(third, count);
    // Later passes write what they find for an element after they have read it, but the compiler
    // may count on arrays that are apart; only the forward KL leaves the third one alone.
    loss.kind = PARE_FORWARD_KL;
  }
  const int keeps = loss.kind == PARE_REVERSE_KL || loss.kind == PARE_JEFFREYS;
  const struct sums e = keeps ? exponentials_difference(rows, q, p, third, count)
                                      : exponentials(rows, q, p, count);
  const double log_zp_zq = log(e.teacher) - log(e.student);
  const double forward = not_negative(e.forward / e.teacher - log_zp_zq);
  const double reverse = not_negative(e.reverse / e.student + log_zp_zq);
  const double factor_q = 1 / e.student, factor_p = 1 / e.teacher;
  const double c = (double)weight * loss.temperature;
  const double square = (double)loss.temperature * loss.temperature;

  double value = 0;
  if (loss.kind == PARE_FORWARD_KL || loss.kind == PARE_JEFFREYS) {
    value += forward;
    add_two((float)(c * factor_q), q, (float)(-c * factor_p), p, gradient, count);
  }
  if (keeps) {
    value += reverse;
    const double shift = log_zp_zq - reverse;
    add_two((float)(c * factor_q), third, (float)(c * factor_q * shift), q, gradient, count);
  }
  if (loss.kind == PARE_MIXTURE || loss.kind == PARE_TOTAL_VARIATION) {
    const float fq = (float)factor_q, fp = (float)factor_p;
    struct mixed m;
    if (loss.kind == PARE_TOTAL_VARIATION) {
      m = total_variation(q, p, fq, fp, third, count);
    } else if (loss.student_part == 0 && loss.teacher_part == 1) {
      m = mixture_of_teacher(q, p, fq, fp, loss.share, third, count);
    } else if (loss.teacher_part == 0 && loss.student_part == 1) {
      m = mixture_of_student(q, p, fq, fp, loss.share, third, count);
    } else {
      m = mixture_both(
          q, p, fq, fp, loss.share, loss.teacher_part, loss.student_part, third, count);
    }
    value = not_negative(m.value);
    add_two((float)c, third, (float)(-c * m.mean * factor_q), q, gradient, count);
  }
  return square * value;
}
