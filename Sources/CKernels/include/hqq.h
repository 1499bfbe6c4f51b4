#ifndef PARE_HQQ_H
#define PARE_HQQ_H
#include <stddef.h>
#include <stdint.h>

#include "quantize_groups.h"

/// Half-quadratic fitting of affine grids (Badri and Shaji 2023, "Half-Quadratic Quantization of Large
/// Machine Learning Models"), each group by itself:
///
///     minimize over the grid   sum |w - (q - zero) scale|^p
///
/// by turns of a shrinkage of the errors, W_e, and a least-squares fit of the grid to w - W_e.
/// Grids hold what is stored at every turn: the scale rounded to its type, the zero point an integer.
struct pare_hqq_job {
  /// [rows, columns] float32, row-major; any alignment.
  const float *source;
  size_t columns;
  /// Columns that share a grid; a row's last group may be shorter.
  size_t group;
  int bits;
  /// 1: the zero point stays 0.
  int symmetric;
  enum pare_affine_type scale_type;
  /// p of the norm, above 0 and at most 1; beta in units of the covering grid's step; kappa is what
  /// multiplies beta after each turn.
  float p, beta, kappa;
  /// Turns from each start at most; a start ends when its objective no longer falls.
  int iterations;
  /// Start i shrinks the covering range to 1 - i * `shrink` of itself.
  int starts;
  float shrink;
  /// [rows, groups] each.
  float *scales;
  int8_t *zeros;
};

/// Floats of scratch that one call of the functions below needs.
size_t pare_hqq_scratch_floats(size_t group);

/// Grids of rows first ..< last: the least objective found among those whose sum of squared errors
/// is not above the covering grid's, so neither is ever worse than with that. A group that holds a
/// number that is not finite keeps whatever its covering grid is.
void pare_hqq_rows(const struct pare_hqq_job *job, size_t first, size_t last, float *scratch);
/// The same function one number at a time; equal results bit for bit.
void pare_hqq_rows_reference(
    const struct pare_hqq_job *job, size_t first, size_t last, float *scratch);

#endif
