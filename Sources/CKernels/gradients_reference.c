// The backward rules as calculus has them, number by number in double: what gradients.c is held to.
#include "gradients.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

static double value_of(enum pare_activation kind, double x) {
  switch (kind) {
    case PARE_SILU: return x / (1 + exp(-x));
    case PARE_GELU: return x * (1 + erf(x / sqrt(2))) / 2;
    case PARE_GELU_TANH: return x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))) / 2;
    case PARE_RELU: break;
  }
  return x > 0 ? x : 0;
}

static double derivative_of(enum pare_activation kind, double x) {
  switch (kind) {
    case PARE_SILU: {
      const double sigmoid = 1 / (1 + exp(-x));
      return sigmoid + x * sigmoid * (1 - sigmoid);
    }
    case PARE_GELU: return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * M_PI);
    case PARE_GELU_TANH: {
      const double t = tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
      return (1 + t) / 2 + x / 2 * (1 - t * t) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
    }
    case PARE_RELU: break;
  }
  return x > 0 ? 1 : 0;
}

void pare_activate_gradient_ref(
    enum pare_activation kind, const float *x, const float *dy, float *dx, size_t count) {
  for (size_t i = 0; i < count; i++) dx[i] = (float)(dy[i] * derivative_of(kind, x[i]));
}

void pare_gated_gradient_ref(
    enum pare_activation kind, const float *gate, const float *up, const float *dy, float *d_gate,
    float *d_up, size_t count) {
  for (size_t i = 0; i < count; i++) {
    d_gate[i] = (float)((double)dy[i] * up[i] * derivative_of(kind, gate[i]));
    d_up[i] = (float)(dy[i] * value_of(kind, gate[i]));
  }
}

void pare_soft_cap_gradient_ref(
    const float *y, float cap, const float *dy, float *dx, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double t = (double)y[i] / cap;
    dx[i] = (float)(dy[i] * (1 - t * t));
  }
}

void pare_rms_norm_gradient_ref(
    const float *x, const float *w, float offset, float epsilon, const float *dy, float *dx,
    float *dw, size_t count) {
  double squares = 0, along = 0;
  for (size_t i = 0; i < count; i++) {
    squares += (double)x[i] * x[i];
    along += (double)dy[i] * (w ? (double)offset + w[i] : 1) * x[i];
  }
  const double r = 1 / sqrt(squares / (double)count + epsilon);
  for (size_t i = 0; i < count; i++) {
    const double u = (double)dy[i] * (w ? (double)offset + w[i] : 1);
    dx[i] = (float)(r * u - r * r * r * x[i] * along / (double)count);
    if (dw) dw[i] = (float)(dw[i] + (double)dy[i] * x[i] * r);
  }
}

void pare_layer_norm_gradient_ref(
    const float *x, const float *w, float epsilon, const float *dy, float *dx, float *dw, float *db,
    size_t count) {
  double mean = 0, variance = 0, total = 0, along = 0;
  for (size_t i = 0; i < count; i++) mean += (double)x[i] / (double)count;
  for (size_t i = 0; i < count; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)count;
  const double r = 1 / sqrt(variance + epsilon);
  for (size_t i = 0; i < count; i++) {
    const double u = (double)dy[i] * (w ? w[i] : 1);
    total += u / (double)count;
    along += u * (x[i] - mean) * r / (double)count;
  }
  for (size_t i = 0; i < count; i++) {
    const double u = (double)dy[i] * (w ? w[i] : 1), n = (x[i] - mean) * r;
    dx[i] = (float)(r * (u - total - n * along));
    if (dw) dw[i] = (float)(dw[i] + dy[i] * n);
    if (db) db[i] += dy[i];
  }
}

void pare_rotate_ref(
    const float *x, const float *cosines, const float *sines, float direction, size_t half,
    size_t dim, float *y) {
  for (size_t i = 0; i < dim; i++) {
    if (i < half) {
      y[i] = (float)((double)x[i] * cosines[i] - (double)x[i + half] * direction * sines[i]);
    } else if (i < 2 * half) {
      const size_t p = i - half;
      y[i] = (float)((double)x[i] * cosines[p] + (double)x[p] * direction * sines[p]);
    } else {
      y[i] = x[i];
    }
  }
}

void pare_softmax_gradient_ref(const struct pare_score_gradient *t) {
  for (size_t r = 0; r < t->rows; r++) {
    for (size_t c = 0; c < t->columns; c++) {
      float *score = t->scores + r * t->stride + c, *gradient = t->gradient + r * t->stride + c;
      const size_t query = t->first_query + r, key = t->first_key + c;
      if (key > query || (t->window && query - key >= t->window)) {
        *score = *gradient = 0;
        continue;
      }
      double s = *score, derivative = 1;
      if (t->soft_cap > 0) {
        const double capped = tanh(s / t->soft_cap);
        s = t->soft_cap * capped;
        derivative = 1 - capped * capped;
      }
      const double p = exp(s + t->slope * ((double)key - (double)query) - t->log_sum[r]);
      *gradient = (float)(p * (*gradient - (double)t->mean[r]) * derivative);
      *score = (float)p;
    }
  }
}
