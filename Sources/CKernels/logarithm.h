#ifndef PARE_LOGARITHM_H
#define PARE_LOGARITHM_H
#include <stdint.h>
#include <string.h>

// log x of a positive, normal x: x = 2^n * m with m in [sqrt 1/2, sqrt 2), and with s = (m-1)/(m+1)
// log m = 2 (s + s^3/3 + s^5/5 + ...). |s| <= 0.172, so that the first term left out, s^11/11, is
// below 4e-9 of the sum. Near x = 1 nothing cancels: m - 1 is exact. NaN stays NaN.
static inline __attribute__((always_inline)) float log_fast(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  // Subtracting the bits of sqrt 1/2 makes the exponent field round at sqrt 2 instead of at 2.
  const uint32_t shifted = bits - 0x3f3504f3u;
  const int32_t n = (int32_t)shifted >> 23;
  const uint32_t mantissa = bits - ((uint32_t)n << 23);
  float m;
  memcpy(&m, &mantissa, 4);
  const float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  float p = 1.0f / 9;
  p = p * s2 + 1.0f / 7;
  p = p * s2 + 1.0f / 5;
  p = p * s2 + 1.0f / 3;
  const float near = 2.0f * s + 2.0f * s * s2 * p;
  const float y = (float)n * 0.693147180559945f + near;
  return x != x ? x : y;
}

#endif
