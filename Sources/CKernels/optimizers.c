#include "optimizers.h"

#include <math.h>
#include <string.h>

#include "vector.h"

// Settings are read into locals: through the pointer they might change with every store.

PARE_KERNEL void pare_adamw(
    const struct pare_adamw_step *s, const float *restrict g, float *restrict w, float *restrict m,
    float *restrict v, size_t count) {
  const struct pare_adamw_step a = *s;
  const float unit = 1.0f / a.correction;
  for (size_t i = 0; i < count; i++) {
    const float gradient = g[i] * a.gradient_factor;
    const float first = m[i] + a.beta1_rest * (gradient - m[i]);
    const float second = a.beta2 * v[i] + a.beta2_rest * gradient * gradient;
    m[i] = first;
    v[i] = second;
    const float step = first / (__builtin_elementwise_sqrt(second) * unit + a.epsilon);
    w[i] = w[i] * a.decay - a.step_size * step;
  }
}

void pare_adamw_reference(
    const struct pare_adamw_step *s, const float *g, float *w, float *m, float *v, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double gradient = (double)g[i] * s->gradient_factor;
    const double first = m[i] + s->beta1_rest * (gradient - m[i]);
    const double second = (double)s->beta2 * v[i] + s->beta2_rest * gradient * gradient;
    m[i] = (float)first;
    v[i] = (float)second;
    const double step = first / (sqrt(second) / s->correction + s->epsilon);
    w[i] = (float)((double)w[i] * s->decay - s->step_size * step);
  }
}

PARE_KERNEL static void sgd_plain(
    const struct pare_sgd_step *s, const float *restrict g, float *restrict w, size_t count) {
  const struct pare_sgd_step a = *s;
  for (size_t i = 0; i < count; i++) {
    w[i] -= a.rate * (g[i] * a.gradient_factor + a.decay * w[i]);
  }
}

PARE_KERNEL static void sgd_momentum(
    const struct pare_sgd_step *s, const float *restrict g, float *restrict w, float *restrict b,
    size_t count) {
  const struct pare_sgd_step a = *s;
  for (size_t i = 0; i < count; i++) {
    const float gradient = g[i] * a.gradient_factor + a.decay * w[i];
    const float momentum = a.momentum * b[i] + a.arriving * gradient;
    b[i] = momentum;
    w[i] -= a.rate * (a.nesterov ? gradient + a.momentum * momentum : momentum);
  }
}

void pare_sgd(const struct pare_sgd_step *s, const float *g, float *w, float *b, size_t count) {
  if (b) {
    sgd_momentum(s, g, w, b, count);
  } else {
    sgd_plain(s, g, w, count);
  }
}

void pare_sgd_reference(
    const struct pare_sgd_step *s, const float *g, float *w, float *b, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double gradient = (double)g[i] * s->gradient_factor + (double)s->decay * w[i];
    double step = gradient;
    if (b) {
      const double momentum = (double)s->momentum * b[i] + s->arriving * gradient;
      b[i] = (float)momentum;
      step = s->nesterov ? gradient + s->momentum * momentum : momentum;
    }
    w[i] = (float)(w[i] - s->rate * step);
  }
}

PARE_KERNEL void pare_lion(
    const struct pare_lion_step *s, const float *restrict g, float *restrict w, float *restrict m,
    size_t count) {
  const struct pare_lion_step a = *s;
  for (size_t i = 0; i < count; i++) {
    const float gradient = g[i] * a.gradient_factor;
    const float mixed = a.beta1 * m[i] + a.beta1_rest * gradient;
    const float rate = mixed > 0 ? a.rate : (mixed < 0 ? -a.rate : 0.0f);
    w[i] = w[i] * a.decay - rate;
    m[i] = a.beta2 * m[i] + a.beta2_rest * gradient;
  }
}

void pare_lion_reference(
    const struct pare_lion_step *s, const float *g, float *w, float *m, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double gradient = (double)g[i] * s->gradient_factor;
    const double mixed = (double)s->beta1 * m[i] + s->beta1_rest * gradient;
    const int sign = (mixed > 0) - (mixed < 0);
    w[i] = (float)((double)w[i] * s->decay - (double)s->rate * sign);
    m[i] = (float)((double)s->beta2 * m[i] + s->beta2_rest * gradient);
  }
}

PARE_KERNEL void pare_muon_momentum(
    const struct pare_muon_step *s, const float *restrict g, float *restrict b, float *restrict u,
    size_t count) {
  const struct pare_muon_step a = *s;
  for (size_t i = 0; i < count; i++) {
    const float gradient = g[i] * a.gradient_factor;
    const float momentum = b[i] + a.rest * (gradient - b[i]);
    b[i] = momentum;
    u[i] = a.nesterov ? momentum - a.rest * (momentum - gradient) : momentum;
  }
}

void pare_muon_momentum_reference(
    const struct pare_muon_step *s, const float *g, float *b, float *u, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const double gradient = (double)g[i] * s->gradient_factor;
    const double momentum = b[i] + s->rest * (gradient - b[i]);
    b[i] = (float)momentum;
    u[i] = (float)(s->nesterov ? momentum - s->rest * (momentum - gradient) : momentum);
  }
}

PARE_KERNEL void pare_scaled_add(
    float decay, float a, const float *restrict x, float *restrict y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = y[i] * decay + a * x[i];
}

void pare_scaled_add_reference(float decay, float a, const float *x, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) y[i] = (float)((double)y[i] * decay + (double)a * x[i]);
}

PARE_KERNEL void pare_average(
    float rest, const float *restrict x, float *restrict average, size_t count) {
  for (size_t i = 0; i < count; i++) average[i] += rest * (x[i] - average[i]);
}

void pare_average_reference(float rest, const float *x, float *average, size_t count) {
  for (size_t i = 0; i < count; i++) {
    average[i] = (float)(average[i] + rest * ((double)x[i] - average[i]));
  }
}

// A product of two floats is exact in double, so that fused and separate additions agree.
PARE_KERNEL double pare_sum_of_squares(const float *x, size_t count) {
  double sums[16] = {0};
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int j = 0; j < 16; j++) {
      const double value = x[i + j];
      sums[j] += value * value;
    }
  }
  for (int j = 0; i < count; i++, j++) sums[j] += (double)x[i] * x[i];
  double total = 0;
  for (int j = 0; j < 16; j++) total += sums[j];
  return total;
}

double pare_sum_of_squares_reference(const float *x, size_t count) {
  double total = 0;
  for (size_t i = 0; i < count; i++) total += (double)x[i] * x[i];
  return total;
}

PARE_KERNEL void pare_clamp(const float *x, float limit, float *y, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float value = x[i];
    y[i] = value > limit ? limit : (value < -limit ? -limit : value);
  }
}

// The finalizer of MurmurHash3 (Appleby), twice, each time with half of the key.
static inline __attribute__((always_inline)) uint32_t mixed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  return x ^ x >> 16;
}

static inline __attribute__((always_inline)) uint16_t rounded_at_random(
    float x, uint32_t random) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t up = bits + (random >> 16);
  return (uint16_t)((magnitude < 0x7f800000 ? up : (magnitude > 0x7f800000 ? bits | 0x400000 : bits))
                    >> 16);
}

// Stretches of 2^32 elements, each with a key of its own.
PARE_KERNEL static void stochastic(
    const float *x, uint32_t low, uint32_t high, uint32_t first, char *target, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const uint32_t random = mixed(mixed(first + (uint32_t)i + low) ^ high);
    const uint16_t half = rounded_at_random(x[i], random);
    memcpy(target + 2 * i, &half, 2);
  }
}

static uint32_t high_key(uint64_t key, uint64_t index) {
  return mixed((uint32_t)(key >> 32) + mixed((uint32_t)(index >> 32)));
}

void pare_f32_to_bf16_stochastic(
    const float *x, uint64_t key, uint64_t first, void *target, size_t count) {
  char *bytes = target;
  while (count > 0) {
    const uint64_t left = ((uint64_t)1 << 32) - (uint32_t)first;
    const size_t length = count < left ? count : (size_t)left;
    stochastic(x, (uint32_t)key, high_key(key, first), (uint32_t)first, bytes, length);
    x += length;
    first += length;
    bytes += 2 * length;
    count -= length;
  }
}

void pare_f32_to_bf16_stochastic_reference(
    const float *x, uint64_t key, uint64_t first, void *target, size_t count) {
  char *bytes = target;
  for (size_t i = 0; i < count; i++) {
    const uint64_t index = first + i;
    const uint32_t random = mixed(mixed((uint32_t)index + (uint32_t)key) ^ high_key(key, index));
    uint16_t half;
    if (isnan(x[i]) || isinf(x[i])) {
      uint32_t bits;
      memcpy(&bits, x + i, 4);
      half = (uint16_t)((isnan(x[i]) ? bits | 0x400000 : bits) >> 16);
    } else {
      // Down to the neighbour toward zero; up from it when the cut part outweighs the random one.
      uint32_t bits;
      memcpy(&bits, x + i, 4);
      const uint32_t cut = bits & 0xffff;
      half = (uint16_t)((bits >> 16) + (cut + (random >> 16) >= 0x10000));
    }
    memcpy(bytes + 2 * i, &half, 2);
  }
}
