// E4M3 and E2M1 codes. See include/float_groups.h for the contract.
//
// Rounding works on the bits of float32: above the smallest normal number, adding half of what is cut
// off and cutting rounds half to even; below it, codes are multiples of one step, which an addition
// that leaves no finer bits rounds to.
#include "float_groups.h"

#include <math.h>
#include <string.h>

#include "vector.h"

#pragma STDC FP_CONTRACT OFF

static inline __attribute__((always_inline)) uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static inline __attribute__((always_inline)) float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/// Code of a number already divided by its scale.
static inline __attribute__((always_inline)) uint32_t e4m3_code(float y) {
  const uint32_t sign = float_bits(y) >> 31 << 7;
  float a = float_of(float_bits(y) & 0x7fffffffu);
  a = a > 448.0f ? 448.0f : a;
  const uint32_t bits = float_bits(a);
  const uint32_t normal = ((bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20) - (120u << 3);
  // The step of 2^14 in float32 is 2^-9.
  const uint32_t small = float_bits(a + 0x1p14f) - float_bits(0x1p14f);
  return sign | (a < 0x1p-6f ? small : normal);
}

static inline __attribute__((always_inline)) uint32_t e2m1_code(float y) {
  const uint32_t sign = float_bits(y) >> 31 << 3;
  float a = float_of(float_bits(y) & 0x7fffffffu);
  a = a > 6.0f ? 6.0f : a;
  const uint32_t bits = float_bits(a);
  const uint32_t normal = ((bits + 0x1fffffu + (bits >> 22 & 1u)) >> 22) - (126u << 1);
  const uint32_t small = float_bits(a + 0x1p22f) - float_bits(0x1p22f);
  return sign | (a < 1.0f ? small : normal);
}

static inline __attribute__((always_inline)) float e4m3_value(uint32_t code) {
  const uint32_t magnitude = code & 0x7fu, sign = (code & 0x80u) << 24;
  const uint32_t normal = (magnitude << 20) + (120u << 23);
  const uint32_t small = float_bits((float)(int32_t)magnitude * 0x1p-9f);
  uint32_t bits = magnitude < 8 ? small : normal;
  bits = magnitude == 0x7f ? 0x7fc00000u : bits;
  return float_of(bits | sign);
}

static inline __attribute__((always_inline)) float e2m1_value(uint32_t code) {
  const uint32_t magnitude = code & 7u, sign = (code & 8u) << 28;
  const uint32_t normal = (magnitude << 22) + (126u << 23);
  const uint32_t small = float_bits((float)(int32_t)magnitude * 0.5f);
  return float_of((magnitude < 2 ? small : normal) | sign);
}

size_t pare_float_bytes(enum pare_float_kind kind, size_t count) {
  return kind == PARE_FLOAT_E4M3 ? count : (count + 1) / 2;
}

PARE_KERNEL void pare_float_encode(
    enum pare_float_kind kind, const float *values, size_t count, float scale, uint8_t *codes) {
  if (kind == PARE_FLOAT_E4M3) {
    for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)e4m3_code(values[i] / scale);
    return;
  }
  for (size_t i = 0; i < count / 2; i++) {
    const uint32_t low = e2m1_code(values[2 * i] / scale);
    const uint32_t high = e2m1_code(values[2 * i + 1] / scale);
    codes[i] = (uint8_t)(low | high << 4);
  }
  if (count % 2 == 1) codes[count / 2] = (uint8_t)e2m1_code(values[count - 1] / scale);
}

PARE_KERNEL void pare_float_decode(
    enum pare_float_kind kind, const uint8_t *codes, size_t count, float scale, float *values) {
  if (kind == PARE_FLOAT_E4M3) {
    for (size_t i = 0; i < count; i++) values[i] = e4m3_value(codes[i]) * scale;
    return;
  }
  for (size_t i = 0; i < count / 2; i++) {
    values[2 * i] = e2m1_value(codes[i]) * scale;
    values[2 * i + 1] = e2m1_value(codes[i] >> 4) * scale;
  }
  if (count % 2 == 1) values[count - 1] = e2m1_value(codes[count / 2]) * scale;
}

float pare_float_round(enum pare_float_kind kind, float value, float scale) {
  return kind == PARE_FLOAT_E4M3 ? e4m3_value(e4m3_code(value / scale)) * scale
                                 : e2m1_value(e2m1_code(value / scale)) * scale;
}

PARE_KERNEL double pare_float_error(
    enum pare_float_kind kind, const float *values, size_t count, float scale, double *squares,
    float *largest) {
  double error = 0, square = 0;
  float worst[16] = {0};
  for (size_t start = 0; start < count; start += 512) {
    const size_t end = start + 512 < count ? start + 512 : count;
    float errors[16] = {0}, sizes[16] = {0};
    for (size_t at = start; at < end; at += 16) {
      float part[16] = {0};
      const size_t some = end - at < 16 ? end - at : 16;
      memcpy(part, values + at, some * 4);
      for (int k = 0; k < 16; k++) {
        const float y = part[k] / scale;
        const float decoded =
            (kind == PARE_FLOAT_E4M3 ? e4m3_value(e4m3_code(y)) : e2m1_value(e2m1_code(y))) * scale;
        const float off = fabsf(decoded - part[k]);
        errors[k] = errors[k] + off * off;
        sizes[k] = sizes[k] + part[k] * part[k];
        worst[k] = off > worst[k] ? off : worst[k];
      }
    }
    for (int k = 0; k < 16; k++) {
      error += (double)errors[k];
      square += (double)sizes[k];
    }
  }
  if (squares) *squares = square;
  if (largest) {
    *largest = 0;
    for (int k = 0; k < 16; k++) *largest = worst[k] > *largest ? worst[k] : *largest;
  }
  return error;
}

PARE_KERNEL float pare_float_largest(const float *values, size_t count) {
  // As integers, magnitudes order like the numbers, and infinity and NaN come above all.
  uint32_t largest = 0;
  for (size_t i = 0; i < count; i++) {
    const uint32_t bits = float_bits(values[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  return float_of(largest);
}

/// The value of a code from its fields.
static double float_defined(enum pare_float_kind kind, unsigned code) {
  const int mantissa_bits = kind == PARE_FLOAT_E4M3 ? 3 : 1;
  const int exponent_bits = kind == PARE_FLOAT_E4M3 ? 4 : 2, bias = kind == PARE_FLOAT_E4M3 ? 7 : 1;
  const int mantissa = (int)(code & ((1u << mantissa_bits) - 1));
  const int exponent = (int)(code >> mantissa_bits & ((1u << exponent_bits) - 1));
  const int is_negative = code >> (mantissa_bits + exponent_bits) & 1;
  const double fraction = ldexp(mantissa, -mantissa_bits);
  const double size = exponent == 0 ? ldexp(fraction, 1 - bias) : ldexp(1 + fraction, exponent - bias);
  if (kind == PARE_FLOAT_E4M3 && (code & 0x7f) == 0x7f) return NAN;
  return is_negative ? -size : size;
}

void pare_float_encode_reference(
    enum pare_float_kind kind, const float *values, size_t count, float scale, uint8_t *codes) {
  const unsigned top = kind == PARE_FLOAT_E4M3 ? 0x7e : 7, sign = kind == PARE_FLOAT_E4M3 ? 0x80 : 8;
  memset(codes, 0, pare_float_bytes(kind, count));
  for (size_t i = 0; i < count; i++) {
    const float y = values[i] / scale;
    const double size = fmin(fabs((double)y), float_defined(kind, top));
    unsigned best = 0;
    for (unsigned code = 1; code <= top; code++) {
      const double mine = fabs(float_defined(kind, code) - size);
      const double other = fabs(float_defined(kind, best) - size);
      // Of two equally near the even one: neighbours differ in their last bit.
      if (mine < other || (mine == other && code % 2 == 0)) best = code;
    }
    if (signbit(y)) best |= sign;
    if (kind == PARE_FLOAT_E4M3) {
      codes[i] = (uint8_t)best;
    } else {
      codes[i / 2] |= (uint8_t)(best << (i % 2 == 0 ? 0 : 4));
    }
  }
}

void pare_float_decode_reference(
    enum pare_float_kind kind, const uint8_t *codes, size_t count, float scale, float *values) {
  for (size_t i = 0; i < count; i++) {
    const unsigned code =
        kind == PARE_FLOAT_E4M3 ? codes[i] : codes[i / 2] >> (i % 2 == 0 ? 0 : 4) & 15u;
    values[i] = (float)float_defined(kind, code) * scale;
  }
}
