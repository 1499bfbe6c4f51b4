#ifndef PARE_EXPONENTIAL_H
#define PARE_EXPONENTIAL_H
#include <math.h>
#include <stdint.h>
#include <string.h>

// e^x by 2^n * e^r with |r| <= ln2/2 and a polynomial for e^r. Below -87.3 the result is 0, above
// 88.7 infinity; NaN stays NaN.
static inline __attribute__((always_inline)) float exp_fast(float x) {
  const float clamped = x < -88.0f ? -88.0f : (x > 89.0f ? 89.0f : x);
  const float n = rintf(clamped * 1.44269504088896341f);
  const float r = fmaf(n, -1.42860682030941723212e-6f, fmaf(n, -0.693145751953125f, clamped));
  float p = 1.9875691500e-4f;
  p = fmaf(p, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p * r, r, r) + 1.0f;
  // Two steps, so that neither factor leaves the range of exponents.
  const int32_t half = (int32_t)n / 2, rest = (int32_t)n - half;
  const uint32_t first = (uint32_t)(half + 127) << 23, second = (uint32_t)(rest + 127) << 23;
  float a, b;
  memcpy(&a, &first, 4);
  memcpy(&b, &second, 4);
  const float y = p * a * b;
  return x != x ? x : (x < -87.33f ? 0.0f : (x > 88.72f ? INFINITY : y));
}

static inline __attribute__((always_inline)) float tanh_fast(float x) {
  // 1 - 2 / (e^2x + 1), and the series near zero where that cancels.
  const float e = exp_fast(2.0f * x);
  const float far = 1.0f - 2.0f / (e + 1.0f);
  const float x2 = x * x;
  const float near = x * (1.0f + x2 * (-1.0f / 3 + x2 * (2.0f / 15 + x2 * (-17.0f / 315))));
  return fabsf(x) < 0.15f ? near : far;
}

#endif
