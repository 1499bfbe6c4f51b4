#include "rows.h"

#include <math.h>
#include <string.h>

#include "exponential.h"
#include "vector.h"

PARE_KERNEL void pare_bf16_to_f32(const void *source, float *target, size_t count) {
  const char *bytes = source;
  for (size_t i = 0; i < count; i++) {
    uint16_t half;
    memcpy(&half, bytes + 2 * i, 2);
    const uint32_t bits = (uint32_t)half << 16;
    memcpy(target + i, &bits, 4);
  }
}

PARE_KERNEL void pare_f16_to_f32(const void *source, float *target, size_t count) {
  const char *bytes = source;
  for (size_t i = 0; i < count; i++) {
    _Float16 half;
    memcpy(&half, bytes + 2 * i, 2);
    target[i] = (float)half;
  }
}

PARE_KERNEL void pare_f32_to_bf16(const float *source, void *target, size_t count) {
  char *bytes = target;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, source + i, 4);
    const uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
    const int is_nan = (bits & 0x7fffffff) > 0x7f800000;
    const uint16_t half = (uint16_t)((is_nan ? bits | 0x400000 : rounded) >> 16);
    memcpy(bytes + 2 * i, &half, 2);
  }
}

PARE_KERNEL void pare_f32_to_f16(const float *source, void *target, size_t count) {
  char *bytes = target;
  for (size_t i = 0; i < count; i++) {
    const _Float16 half = (_Float16)source[i];
    memcpy(bytes + 2 * i, &half, 2);
  }
}

PARE_KERNEL void pare_add(const float *a, const float *b, float *sum, size_t count) {
  for (size_t i = 0; i < count; i++) sum[i] = a[i] + b[i];
}

PARE_KERNEL void pare_multiply(const float *a, const float *b, float *product, size_t count) {
  for (size_t i = 0; i < count; i++) product[i] = a[i] * b[i];
}

PARE_KERNEL void pare_scale(const float *x, float factor, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] * factor;
}

PARE_KERNEL void pare_soft_cap(const float *x, float cap, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = cap * tanh_fast(x[i] / cap);
}

PARE_KERNEL static void silu(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] / (1.0f + exp_fast(-x[i]));
}

PARE_KERNEL static void gelu_tanh(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float v = x[i];
    const float inner = 0.797884560802865f * (v + 0.044715f * v * v * v);
    y[i] = 0.5f * v * (1.0f + tanh_fast(inner));
  }
}

PARE_KERNEL static void relu(const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] < 0 ? 0 : x[i];
}

void pare_activate(enum pare_activation kind, const float *x, float *y, size_t count) {
  switch (kind) {
    case PARE_SILU: silu(x, y, count); break;
    case PARE_GELU:
      for (size_t i = 0; i < count; i++) y[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
      break;
    case PARE_GELU_TANH: gelu_tanh(x, y, count); break;
    case PARE_RELU: relu(x, y, count); break;
  }
}

void pare_activate_ref(enum pare_activation kind, const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double v = x[i];
    switch (kind) {
      case PARE_SILU: y[i] = (float)(v / (1 + exp(-v))); break;
      case PARE_GELU: y[i] = (float)(0.5 * v * (1 + erf(v / sqrt(2)))); break;
      case PARE_GELU_TANH:
        y[i] = (float)(0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))));
        break;
      case PARE_RELU: y[i] = (float)(v < 0 ? 0 : v); break;
    }
  }
}

PARE_KERNEL void pare_rms_norm(
    const float *x, const float *w, float offset, float epsilon, float *y, size_t count) {
  PARE_REASSOCIATE
  float sum = 0;
  for (size_t i = 0; i < count; i++) sum += x[i] * x[i];
  const float factor = 1.0f / sqrtf(sum / (float)count + epsilon);
  if (w) {
    for (size_t i = 0; i < count; i++) y[i] = x[i] * factor * (offset + w[i]);
  } else {
    for (size_t i = 0; i < count; i++) y[i] = x[i] * factor;
  }
}

PARE_KERNEL void pare_layer_norm(
    const float *x, const float *w, const float *b, float epsilon, float *y, size_t count) {
  PARE_REASSOCIATE
  float sum = 0;
  for (size_t i = 0; i < count; i++) sum += x[i];
  const float mean = sum / (float)count;
  float squares = 0;
  for (size_t i = 0; i < count; i++) squares += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0f / sqrtf(squares / (float)count + epsilon);
  for (size_t i = 0; i < count; i++) y[i] = (x[i] - mean) * factor;
  if (w) pare_multiply(y, w, y, count);
  if (b) pare_add(y, b, y, count);
}

PARE_KERNEL float pare_max(const float *x, size_t count) {
  float top = -INFINITY;
  for (size_t i = 0; i < count; i++) top = x[i] > top ? x[i] : top;
  return top;
}

PARE_KERNEL double pare_log_sum_exp(const float *x, size_t count) {
  PARE_REASSOCIATE
  const float top = pare_max(x, count);
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += exp_fast(x[i] - top);
  return top + log(sum);
}

PARE_KERNEL float pare_exp_shifted(const float *x, float shift, float *y, size_t count) {
  PARE_REASSOCIATE
  float sum = 0;
  for (size_t i = 0; i < count; i++) {
    y[i] = exp_fast(x[i] - shift);
    sum += y[i];
  }
  return sum;
}

size_t pare_argmax(const float *x, size_t count) {
  size_t top = 0;
  for (size_t i = 1; i < count; i++) {
    if (x[i] > x[top]) top = i;
  }
  return top;
}

PARE_KERNEL void pare_accumulate(float a, const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] += a * x[i];
}

PARE_KERNEL float pare_dot_f32(const void *w, const float *x, size_t count) {
  PARE_REASSOCIATE
  const char *bytes = w;
  float sum = 0;
  for (size_t i = 0; i < count; i++) {
    float value;
    memcpy(&value, bytes + 4 * i, 4);
    sum += value * x[i];
  }
  return sum;
}

double pare_dot_ref(const float *w, const float *x, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += (double)w[i] * x[i];
  return sum;
}
