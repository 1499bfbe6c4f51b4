#ifndef PARE_GPTQ_H
#define PARE_GPTQ_H
#include <stddef.h>
#include <stdint.h>

/// Rounding a block of columns one after another, each column's error carried into the columns
/// after it. Rows are independent of each other, so weights lie by columns and PARE_GPTQ_LANES rows
/// are worked on together: "lanes of" a matrix [rows, columns] are [slabs][columns][PARE_GPTQ_LANES]
/// with slabs = ceil(rows / PARE_GPTQ_LANES), rows that do not exist being zero.
///
/// No operation here is fused or reordered, so results are the same on every machine.
enum { PARE_GPTQ_LANES = 32 };

struct pare_gptq_block {
  size_t slabs;
  size_t columns;
  /// Lanes of the weights; a column that was rounded holds its errors e instead.
  float *weights;
  /// U from the block's first row and column on, rows `factor_stride` apart; only what lies on and
  /// above the diagonal is read.
  const float *factor;
  size_t factor_stride;
  /// Lanes of scales and zero points [rows, groups], and the group of each column of the block.
  const float *scales;
  const float *zeros;
  size_t groups;
  const int32_t *column_groups;
  int bits;
  /// Lanes of the codes.
  int8_t *codes;
};

/// For columns i = first ..< last in turn, with s and z of the column's group:
///   q = roundHalfEven(clamp(w_i / s + z, low, high)),   e = (w_i - (q - z) s) / U_ii,
///   w_j -= e U_ij for all columns j of the block after i.
void pare_gptq_round(const struct pare_gptq_block *block, size_t first, size_t last);
/// The same, one row at a time; equal bits.
void pare_gptq_round_reference(const struct pare_gptq_block *block, size_t first, size_t last);

/// Lanes of a matrix whose rows lie `stride` numbers apart, and columns first ..< last of them back
/// in rows.
void pare_gptq_gather(
    const float *source, size_t stride, size_t rows, size_t columns, float *lanes);
void pare_gptq_scatter(
    const float *lanes, size_t rows, size_t columns, size_t first, size_t last, float *target,
    size_t stride);

/// The lanes of a block by columns: target [columns][slabs * PARE_GPTQ_LANES].
void pare_gptq_columns(const float *lanes, size_t slabs, size_t columns, float *target);

/// Adds each row's sum of squares over the block to sums [slabs * PARE_GPTQ_LANES].
void pare_gptq_add_squares(const float *lanes, size_t slabs, size_t columns, double *sums);

/// Codes of a block in rows: column i goes to positions[i] of its row.
void pare_gptq_scatter_codes(
    const int8_t *lanes, size_t rows, size_t columns, const int32_t *positions, int8_t *target,
    size_t stride);

/// What one row's codes stand for less the weights they came from: difference[i] =
/// (q_i - zero) * scale - w_i with the grid of group groups[i]. Sums of squares and the largest
/// magnitude are added to, or raised in, what the pointers hold.
void pare_gptq_difference(
    const float *weights, const int8_t *codes, size_t columns, const float *scales,
    const int8_t *zeros, const int32_t *groups, float *difference, double *squared_error,
    double *squared_weight, float *largest_error);

/// The first place of a number that is NaN or infinite; `count` when there is none.
size_t pare_gptq_first_not_finite(const float *values, size_t count);

/// Sum of a[i] * b[i] in double precision.
double pare_gptq_dot(const float *a, const float *b, size_t count);

#endif
