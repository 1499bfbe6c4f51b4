#ifndef PARE_ROWS_H
#define PARE_ROWS_H
#include <stddef.h>
#include <stdint.h>

/// Operations on one row or one run of float32 values. Pointers need no alignment.

/// Half formats: widening is exact, narrowing rounds half to even and keeps NaN.
void pare_bf16_to_f32(const void *source, float *target, size_t count);
void pare_f16_to_f32(const void *source, float *target, size_t count);
void pare_f32_to_bf16(const float *source, void *target, size_t count);
void pare_f32_to_f16(const float *source, void *target, size_t count);

void pare_add(const float *a, const float *b, float *sum, size_t count);
void pare_multiply(const float *a, const float *b, float *product, size_t count);
void pare_scale(const float *x, float factor, float *y, size_t count);
/// cap * tanh(x / cap)
void pare_soft_cap(const float *x, float cap, float *y, size_t count);

enum pare_activation {
  PARE_SILU = 0,       ///< x / (1 + e^-x)
  PARE_GELU = 1,       ///< x/2 (1 + erf(x / sqrt 2))
  PARE_GELU_TANH = 2,  ///< the tanh approximation of GPT-2
  PARE_RELU = 3,
};
void pare_activate(enum pare_activation kind, const float *x, float *y, size_t count);
void pare_activate_ref(enum pare_activation kind, const float *x, float *y, size_t count);

/// y = x / sqrt(mean x^2 + epsilon) * (offset + w); w may be null for factors of one.
void pare_rms_norm(
    const float *x, const float *w, float offset, float epsilon, float *y, size_t count);
/// y = (x - mean) / sqrt(variance + epsilon) * w + b; w and b may be null.
void pare_layer_norm(
    const float *x, const float *w, const float *b, float epsilon, float *y, size_t count);

/// Largest value.
float pare_max(const float *x, size_t count);
/// log of the sum of exponentials, summed in double relative to the largest.
double pare_log_sum_exp(const float *x, size_t count);
/// y = e^(x - shift); returns the sum of y. The exponentials err at most 2 ulp.
float pare_exp_shifted(const float *x, float shift, float *y, size_t count);
/// Index of the largest value, the lowest of equals.
size_t pare_argmax(const float *x, size_t count);

/// y += a * x
void pare_accumulate(float a, const float *x, float *y, size_t count);
float pare_dot_f32(const void *w, const float *x, size_t count);
/// The same sum in double, in order: the reference.
double pare_dot_ref(const float *w, const float *x, size_t count);

#endif
