// Backward rules of row operations. See include/gradients.h.
#include "gradients.h"

#include <math.h>

#include "exponential.h"
#include "vector.h"
#include "visible.h"

#define INLINE static inline __attribute__((always_inline))

/// A function's value and derivative at one point.
struct slope {
  float value, derivative;
};

INLINE struct slope silu(float x) {
  const float sigmoid = 1.0f / (1.0f + exp_fast(-x));
  return (struct slope){x * sigmoid, sigmoid * (1.0f + x * (1.0f - sigmoid))};
}

INLINE struct slope gelu_tanh(float x) {
  const float c = 0.797884560802865f, a = 0.044715f;
  const float t = tanh_fast(c * (x + a * x * x * x));
  return (struct slope){
      0.5f * x * (1.0f + t),
      0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * c * (1.0f + 3.0f * a * x * x)};
}

INLINE struct slope gelu(float x) {
  const float cumulative = 0.5f * (1.0f + erff(x * 0.70710678f));
  return (struct slope){
      x * cumulative, cumulative + x * 0.39894228f * exp_fast(-0.5f * x * x)};
}

INLINE struct slope relu(float x) {
  return (struct slope){x > 0 ? x : 0, x > 0 ? 1.0f : 0.0f};
}

#define ACTIVATION(name)                                                                     \
  PARE_KERNEL static void name##_gradient(                                                   \
      const float *x, const float *dy, float *dx, size_t count) {                            \
    for (size_t i = 0; i < count; i++) dx[i] = dy[i] * name(x[i]).derivative;                \
  }                                                                                          \
  PARE_KERNEL static void name##_gated_gradient(                                             \
      const float *gate, const float *up, const float *dy, float *d_gate, float *d_up,       \
      size_t count) {                                                                        \
    for (size_t i = 0; i < count; i++) {                                                     \
      const struct slope f = name(gate[i]);                                                  \
      const float arriving = dy[i];                                                          \
      d_gate[i] = arriving * up[i] * f.derivative;                                           \
      d_up[i] = arriving * f.value;                                                          \
    }                                                                                        \
  }
ACTIVATION(silu)
ACTIVATION(gelu)
ACTIVATION(gelu_tanh)
ACTIVATION(relu)

void pare_activate_gradient(
    enum pare_activation kind, const float *x, const float *dy, float *dx, size_t count) {
  switch (kind) {
    case PARE_SILU: silu_gradient(x, dy, dx, count); break;
    case PARE_GELU: gelu_gradient(x, dy, dx, count); break;
    case PARE_GELU_TANH: gelu_tanh_gradient(x, dy, dx, count); break;
    case PARE_RELU: relu_gradient(x, dy, dx, count); break;
  }
}

void pare_gated_gradient(
    enum pare_activation kind, const float *gate, const float *up, const float *dy, float *d_gate,
    float *d_up, size_t count) {
  switch (kind) {
    case PARE_SILU: silu_gated_gradient(gate, up, dy, d_gate, d_up, count); break;
    case PARE_GELU: gelu_gated_gradient(gate, up, dy, d_gate, d_up, count); break;
    case PARE_GELU_TANH: gelu_tanh_gated_gradient(gate, up, dy, d_gate, d_up, count); break;
    case PARE_RELU: relu_gated_gradient(gate, up, dy, d_gate, d_up, count); break;
  }
}

PARE_KERNEL void pare_soft_cap_gradient(
    const float *y, float cap, const float *dy, float *dx, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float t = y[i] / cap;
    dx[i] = dy[i] * (1.0f - t * t);
  }
}

// With u = dy * (offset + w) and r = 1 / sqrt(mean x^2 + epsilon):
// dx = r u - r^3 x mean(u x), dw = dy x r.
PARE_KERNEL void pare_rms_norm_gradient(
    const float *x, const float *w, float offset, float epsilon, const float *dy, float *dx,
    float *dw, size_t count) {
  PARE_REASSOCIATE
  float squares = 0, along = 0;
  if (w) {
    for (size_t i = 0; i < count; i++) {
      squares += x[i] * x[i];
      dx[i] = dy[i] * (offset + w[i]);
      along += dx[i] * x[i];
    }
  } else {
    for (size_t i = 0; i < count; i++) {
      squares += x[i] * x[i];
      dx[i] = dy[i];
      along += dy[i] * x[i];
    }
  }
  const float factor = 1.0f / sqrtf(squares / (float)count + epsilon);
  const float back = factor * factor * factor * along / (float)count;
  for (size_t i = 0; i < count; i++) dx[i] = dx[i] * factor - x[i] * back;
  if (dw) {
    for (size_t i = 0; i < count; i++) dw[i] += dy[i] * x[i] * factor;
  }
}

// With n = (x - mean) r and u = dy * w: dx = r (u - mean(u) - n mean(u n)), dw = dy n, db = dy.
PARE_KERNEL void pare_layer_norm_gradient(
    const float *x, const float *w, float epsilon, const float *dy, float *dx, float *dw, float *db,
    size_t count) {
  PARE_REASSOCIATE
  float sum = 0;
  for (size_t i = 0; i < count; i++) sum += x[i];
  const float mean = sum / (float)count;
  float squares = 0;
  for (size_t i = 0; i < count; i++) squares += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0f / sqrtf(squares / (float)count + epsilon);
  float total = 0, along = 0;
  if (w) {
    for (size_t i = 0; i < count; i++) dx[i] = dy[i] * w[i];
  } else {
    for (size_t i = 0; i < count; i++) dx[i] = dy[i];
  }
  for (size_t i = 0; i < count; i++) {
    total += dx[i];
    along += dx[i] * ((x[i] - mean) * factor);
  }
  total /= (float)count;
  along /= (float)count;
  for (size_t i = 0; i < count; i++) {
    dx[i] = factor * (dx[i] - total - (x[i] - mean) * factor * along);
  }
  if (dw) {
    for (size_t i = 0; i < count; i++) dw[i] += dy[i] * ((x[i] - mean) * factor);
  }
  if (db) {
    for (size_t i = 0; i < count; i++) db[i] += dy[i];
  }
}

PARE_KERNEL void pare_rotate(
    const float *x, const float *cosines, const float *sines, float direction, size_t half,
    size_t dim, float *y) {
  for (size_t i = 0; i < half; i++) {
    const float c = cosines[i], s = direction * sines[i];
    const float a = x[i], b = x[i + half];
    y[i] = a * c - b * s;
    y[i + half] = b * c + a * s;
  }
  for (size_t i = 2 * half; i < dim; i++) y[i] = x[i];
}

PARE_KERNEL static void softmax_gradient_row(
    float *scores, float *gradient, size_t count, float soft_cap, float slope, float distance,
    float log_sum, float mean) {
  for (size_t c = 0; c < count; c++) {
    float score = scores[c], derivative = 1;
    if (soft_cap > 0) {
      const float t = tanh_fast(score / soft_cap);
      score = soft_cap * t;
      derivative = 1 - t * t;
    }
    const float p = exp_fast(score + slope * ((float)c - distance) - log_sum);
    scores[c] = p;
    gradient[c] = p * (gradient[c] - mean) * derivative;
  }
}

void pare_softmax_gradient(const struct pare_score_gradient *t) {
  for (size_t r = 0; r < t->rows; r++) {
    float *scores = t->scores + r * t->stride, *gradient = t->gradient + r * t->stride;
    const size_t query = t->first_query + r;
    size_t start, end;
    visible_columns(query, t->first_key, t->columns, t->window, &start, &end);
    for (size_t c = 0; c < start; c++) scores[c] = gradient[c] = 0;
    for (size_t c = end; c < t->columns; c++) scores[c] = gradient[c] = 0;
    softmax_gradient_row(
        scores + start, gradient + start, end - start, t->soft_cap, t->slope,
        (float)query - (float)(t->first_key + start), t->log_sum[r], t->mean[r]);
  }
}
