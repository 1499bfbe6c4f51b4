#ifndef PARE_BITS_H
#define PARE_BITS_H
#include <stddef.h>
#include <stdint.h>

/// Matrices of very few bits, multiplied as they lie. A row's bits are one stream, least significant
/// first, that may be read from any bit on. Sums run in 32 lanes, number i of a run in lane i % 32, which
/// are then added in one order: the same bits on every instruction set.

/// sum of ±x[i], plus where bit `first + i` of the stream is set, i < count.
float pare_sign_dot(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count);
/// The same, one number at a time; equal bit for bit.
float pare_sign_dot_reference(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count);

/// sum of code * x[i] of 2-bit codes in two's complement (0, 1, 3 for -1), the first being number `first`
/// of the stream.
float pare_ternary_dot(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count);
float pare_ternary_dot_reference(
    const uint8_t *stream, size_t bytes, size_t first, const float *x, size_t count);

/// Planes of signs with scales for runs of columns:
///
///     W[row, c] = sum over planes p of scales[p][row][g] * (bit c of signs[p][row] ? 1 : -1)
///
/// where run g holds the columns offsets[g]..<offsets[g + 1].
struct pare_binary {
  size_t rows, columns, planes, groups;
  /// `[planes, rows, stride]` bytes, any alignment.
  const uint8_t *signs;
  size_t stride;
  /// `[planes, rows, groups]`.
  const float *scales;
  /// `groups + 1` numbers rising from 0 to `columns`.
  const int32_t *offsets;
};

/// y[t][row - first] = dot(W[row], x[t]) for rows first..<last; rows of y are `y_stride` apart.
void pare_binary_multiply_rows(
    const struct pare_binary *matrix, size_t first, size_t last, const float *x, size_t tokens,
    float *y, size_t y_stride);
void pare_binary_decode_row(const struct pare_binary *matrix, size_t row, float *target);

enum pare_ternary_packing {
  /// Four codes a byte, as `pare_ternary_dot` reads them.
  PARE_TERNARY_BITS,
  /// Five codes a byte in base three: with B = ceil(columns / 5), byte b of a row holds columns b, B + b,
  /// 2B + b, 3B + b and 4B + b, the first as the lowest digit, each code plus one.
  PARE_TERNARY_DIGITS,
};

/// W[row, c] = scales[row][c / group] * code, code in -1, 0, 1.
struct pare_ternary {
  size_t rows, columns, group, groups;
  enum pare_ternary_packing packing;
  /// `[rows, stride]` bytes, any alignment.
  const uint8_t *codes;
  size_t stride;
  /// `[rows, groups]`.
  const float *scales;
};

void pare_ternary_multiply_rows(
    const struct pare_ternary *matrix, size_t first, size_t last, const float *x, size_t tokens,
    float *y, size_t y_stride);
/// Codes of columns first..<first + count of a row.
void pare_ternary_codes(
    const struct pare_ternary *matrix, size_t row, size_t first, size_t count, int8_t *target);
void pare_ternary_decode_row(const struct pare_ternary *matrix, size_t row, float *target);
/// Packs a row's codes into `stride` bytes; what is left of the last byte is code 0.
void pare_ternary_pack(
    enum pare_ternary_packing packing, const int8_t *codes, size_t columns, uint8_t *target);
/// The first byte that no writer makes, else `count`.
size_t pare_ternary_check(enum pare_ternary_packing packing, const uint8_t *codes, size_t count);

/// Single weights: row r holds values[i] at columns[i] for offsets[r] <= i < offsets[r + 1].
struct pare_sparse {
  size_t rows, columns;
  const int32_t *offsets;
  /// 16 or 32 bits each, any alignment.
  const void *indices;
  int is_wide;
  const float *values;
};

void pare_sparse_multiply_rows(
    const struct pare_sparse *matrix, size_t first, size_t last, const float *x, size_t tokens,
    float *y, size_t y_stride);
/// Adds a row to `target`.
void pare_sparse_add_row(const struct pare_sparse *matrix, size_t row, float *target);

/// Integer codes on affine grids whose scales and zero points are codes on affine grids themselves:
///
///     W[row, c] = scale * (code - zero),  group g = c / group
///     scale = scale_levels[g][row / level_rows].base + .step * scale_code[g][row],  zero likewise
///
/// float32 arithmetic without contraction. Codes are unsigned streams of `bits` and `level_bits` each.
struct pare_bilevel {
  size_t rows, columns, group, groups;
  int bits, level_bits;
  size_t level_rows;
  /// `[rows, code_stride]` bytes.
  const uint8_t *codes;
  size_t code_stride;
  /// `[groups, level_stride]` bytes, one code for each row.
  const uint8_t *scale_codes, *zero_codes;
  size_t level_stride;
  /// `[groups, ceil(rows / level_rows), 2]`: base and step.
  const float *scale_levels, *zero_levels;
};

void pare_bilevel_decode_row(const struct pare_bilevel *matrix, size_t row, float *target);

/// Number `index` of a stream of codes of `bits` <= 8 each.
uint32_t pare_stream_code(const uint8_t *stream, size_t bytes, int bits, size_t index);
/// Adds a code to a stream that was zero there.
void pare_stream_put(uint8_t *stream, int bits, size_t index, uint32_t code);

#endif
