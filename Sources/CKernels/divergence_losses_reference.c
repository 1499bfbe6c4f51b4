// The divergences in double precision, each probability computed anew from the row.
#include <math.h>

#include "divergence_losses.h"

// k tokens and, last, any other one; or all tokens where ids is null.
struct outcomes {
  const float *student, *teacher;
  const int32_t *ids;
  size_t count;
  double other_student, other_teacher;
  double temperature, top_student, top_teacher;
};

static double student_logit(const struct outcomes *o, size_t i) {
  if (!o->ids) return o->student[i];
  return i + 1 < o->count ? o->student[o->ids[i]] : o->other_student;
}

static double teacher_logit(const struct outcomes *o, size_t i) {
  return o->ids && i + 1 == o->count ? o->other_teacher : o->teacher[i];
}

static double student_exponent(const struct outcomes *o, size_t i) {
  return fmax((student_logit(o, i) - o->top_student) / o->temperature, -1e4);
}

static double teacher_exponent(const struct outcomes *o, size_t i) {
  return fmax((teacher_logit(o, i) - o->top_teacher) / o->temperature, -200);
}

struct pair {
  double log_p, log_q, p, q;
};

struct normalizers {
  double share, top, log_zp, log_zq;
};

static double target_exponent(const struct outcomes *o, double share, size_t i) {
  const double b = student_exponent(o, i), a = teacher_exponent(o, i);
  return share == 1 ? a : share * a + (1 - share) * b;
}

static struct normalizers normalize(struct outcomes *o, double share) {
  struct normalizers n = {.share = share, .top = -INFINITY};
  o->top_student = o->top_teacher = -INFINITY;
  for (size_t i = 0; i < o->count; i++) {
    o->top_student = fmax(o->top_student, student_logit(o, i));
    o->top_teacher = fmax(o->top_teacher, teacher_logit(o, i));
  }
  if (isinf(o->top_student)) o->top_student = 0;
  if (isinf(o->top_teacher)) o->top_teacher = 0;
  for (size_t i = 0; i < o->count; i++) n.top = fmax(n.top, target_exponent(o, share, i));
  double zp = 0, zq = 0;
  for (size_t i = 0; i < o->count; i++) {
    zp += exp(fmax(target_exponent(o, share, i) - n.top, -200));
    zq += exp(student_exponent(o, i));
  }
  n.log_zp = log(zp);
  n.log_zq = log(zq);
  return n;
}

static struct pair pair(const struct outcomes *o, const struct normalizers *n, size_t i) {
  const double log_p = fmax(target_exponent(o, n->share, i) - n->top, -200) - n->log_zp;
  const double log_q = student_exponent(o, i) - n->log_zq;
  return (struct pair){log_p, log_q, exp(log_p), exp(log_q)};
}

// One outcome's term of the divergence, and its derivative with respect to q.
static double term(struct pare_divergence_loss loss, struct pair x, double *h) {
  const double s = loss.share, a = loss.teacher_part, b = loss.student_part;
  const double difference = x.log_q - x.log_p;
  switch (loss.kind) {
    case PARE_FORWARD_KL: *h = -x.p / x.q; return -x.p * difference;
    case PARE_REVERSE_KL: *h = difference + 1; return x.q * difference;
    case PARE_JEFFREYS: *h = difference + 1 - x.p / x.q; return (x.q - x.p) * difference;
    case PARE_TOTAL_VARIATION: {
      const double equal = 4e-7 * (x.p + x.q);
      *h = x.q - x.p > equal ? 0.5 : (x.p - x.q > equal ? -0.5 : 0);
      return 0.5 * fabs(x.p - x.q);
    }
    case PARE_MIXTURE: {
      const double m = s * x.p + (1 - s) * x.q;
      if (m == 0) return *h = 0;
      const double p_part = x.p > 0 ? x.p * log(x.p / m) : 0;
      const double q_part = x.q > 0 ? x.q * log(x.q / m) : 0;
      *h = (x.q > 0 ? b * log(x.q / m) : 0) - (1 - s) * (a * x.p + b * x.q) / m;
      return a * p_part + b * q_part;
    }
  }
  return 0;
}

// q h, where h alone may be infinite and q zero.
static double weighted(struct pare_divergence_loss loss, struct pair x, double h) {
  if (loss.kind == PARE_FORWARD_KL) return -x.p;
  if (x.q == 0) return loss.kind == PARE_JEFFREYS ? -x.p : 0;
  return x.q * h;
}

struct derivative {
  double value, mean;
};

static struct derivative sums(
    struct pare_divergence_loss loss, const struct outcomes *o, const struct normalizers *n) {
  struct derivative d = {0, 0};
  for (size_t i = 0; i < o->count; i++) {
    double h;
    const struct pair x = pair(o, n, i);
    d.value += term(loss, x, &h);
    d.mean += weighted(loss, x, h);
  }
  return d;
}

static double at(
    struct pare_divergence_loss loss, const struct outcomes *o, const struct normalizers *n,
    struct derivative d, size_t i) {
  double h;
  const struct pair x = pair(o, n, i);
  term(loss, x, &h);
  return loss.temperature * (weighted(loss, x, h) - x.q * d.mean);
}

double pare_divergence_loss_ref(
    struct pare_divergence_loss loss, const float *student, const float *teacher, size_t count,
    float weight, float *gradient) {
  struct outcomes o = {
      .student = student, .teacher = teacher, .count = count, .temperature = loss.temperature};
  if (loss.target_share != 1) loss.kind = PARE_FORWARD_KL;
  const struct normalizers n = normalize(&o, loss.target_share);
  const struct derivative d = sums(loss, &o, &n);
  for (size_t i = 0; i < count; i++) gradient[i] += (float)(weight * at(loss, &o, &n, d, i));
  return (double)loss.temperature * loss.temperature * fmax(d.value, 0);
}

static int is_listed(const int32_t *ids, size_t k, size_t token) {
  for (size_t i = 0; i < k; i++) {
    if ((size_t)ids[i] == token) return 1;
  }
  return 0;
}

double pare_divergence_loss_top_ref(
    struct pare_divergence_loss loss, const float *student, size_t count, const int32_t *ids,
    const float *log_probabilities, size_t k, float weight, float *gradient) {
  if (loss.target_share != 1) loss.kind = PARE_FORWARD_KL;
  double top = -INFINITY, sum = 0, listed = 0;
  for (size_t j = 0; j < count; j++) {
    if (!is_listed(ids, k, j)) top = fmax(top, student[j]);
  }
  for (size_t j = 0; j < count && top > -INFINITY; j++) {
    if (!is_listed(ids, k, j)) sum += exp(student[j] - top);
  }
  for (size_t i = 0; i < k; i++) listed += exp(log_probabilities[i]);
  struct outcomes o = {
      .student = student,
      .teacher = log_probabilities,
      .ids = ids,
      .count = k + 1,
      .other_student = sum > 0 ? top + log(sum) : -INFINITY,
      .other_teacher = sum > 0 ? log(fmax(1 - listed, PARE_LEAST_REST)) : -INFINITY,
      .temperature = loss.temperature,
  };
  const struct normalizers n = normalize(&o, loss.target_share);
  const struct derivative d = sums(loss, &o, &n);
  for (size_t i = 0; i < k; i++) gradient[ids[i]] += (float)(weight * at(loss, &o, &n, d, i));
  for (size_t j = 0; j < count && sum > 0; j++) {
    if (is_listed(ids, k, j)) continue;
    const double share = exp(student[j] - o.other_student);
    gradient[j] += (float)(weight * share * at(loss, &o, &n, d, k));
  }
  return (double)loss.temperature * loss.temperature * fmax(d.value, 0);
}
