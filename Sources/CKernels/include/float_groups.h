#ifndef PARE_FLOAT_GROUPS_H
#define PARE_FLOAT_GROUPS_H
#include <stddef.h>
#include <stdint.h>

/// Small floating-point numbers under the scale of a group:
///
///     E4M3   sign, 4 bits of exponent (bias 7), 3 of mantissa: 0, ±2^-9 ... ±448, 0x7f is NaN
///     E2M1   sign, 2 bits of exponent (bias 1), 1 of mantissa: 0, .5, 1, 1.5, 2, 3, 4, 6 and negatives
///
/// (OCP, "8-bit Floating Point Specification" and "Microscaling Formats Specification".) A number is
/// rounded half to even after division by its scale, and saturates. The sign of 0 is kept. E4M3
/// codes take a byte each, E2M1 codes half of one, the even column in the low nibble.
enum pare_float_kind {
  PARE_FLOAT_E4M3 = 0,
  PARE_FLOAT_E2M1 = 1,
};

/// Bytes of `count` codes.
size_t pare_float_bytes(enum pare_float_kind kind, size_t count);

/// codes[i] of values[i] / scale for a scale above 0 and finite values. An odd count of E2M1 codes
/// leaves the last high nibble 0.
void pare_float_encode(
    enum pare_float_kind kind, const float *values, size_t count, float scale, uint8_t *codes);
/// The same by looking for the nearest of all values.
void pare_float_encode_reference(
    enum pare_float_kind kind, const float *values, size_t count, float scale, uint8_t *codes);

/// values[i] = value of codes[i] * scale in float32.
void pare_float_decode(
    enum pare_float_kind kind, const uint8_t *codes, size_t count, float scale, float *values);
/// The same from the definition, one code at a time.
void pare_float_decode_reference(
    enum pare_float_kind kind, const uint8_t *codes, size_t count, float scale, float *values);

/// The nearest value a code can have, times the scale: what encoding and decoding give.
float pare_float_round(enum pare_float_kind kind, float value, float scale);

/// Sum of (decoded - values)^2, and through the pointers, if not null, sum of values^2 and the largest
/// |decoded - values|. Sums run in sixteen lanes on every machine.
double pare_float_error(
    enum pare_float_kind kind, const float *values, size_t count, float scale, double *squares,
    float *largest);

/// The largest magnitude of `count` values: NaN or infinite where one is.
float pare_float_largest(const float *values, size_t count);

#endif
