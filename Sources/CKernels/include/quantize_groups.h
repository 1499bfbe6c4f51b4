#ifndef PARE_QUANTIZE_GROUPS_H
#define PARE_QUANTIZE_GROUPS_H
#include <stddef.h>
#include <stdint.h>

/// Rounding a matrix to affine groups: range, clipping search, codes and packing in one pass over
/// the rows, so that a weight is read from memory once.
///
/// A group is `group` neighbouring columns of one row (the last may be shorter); it has one scale
/// and one zero point. Codes are q = roundHalfEven(clamp(w / scale + zero, low, high)) in float32
/// with low = -2^(bits-1), high = 2^(bits-1) - 1; values are (q - zero) * scale.

enum pare_affine_type {
  PARE_AFFINE_F32 = 0,
  PARE_AFFINE_F16 = 1,
  PARE_AFFINE_BF16 = 2,
};

enum pare_affine_status {
  PARE_AFFINE_OK = 0,
  /// A weight is NaN or infinite: `fault_row`, `fault_column`.
  PARE_AFFINE_NOT_FINITE = 1,
  /// A scale does not fit its stored type: `fault_row`, `fault_column` (the group's first).
  PARE_AFFINE_SCALE_OVERFLOW = 2,
};

struct pare_affine_job {
  /// [rows, columns], row-major, of `source_type`; any alignment.
  const void *source;
  enum pare_affine_type source_type;
  size_t columns;
  size_t group;
  int bits;
  int symmetric;
  /// What a scale is rounded to before any code is computed.
  enum pare_affine_type scale_type;

  /// Clipping search: candidate i of `candidates` shrinks the range to 1 - i / `grid` of itself;
  /// the smallest sum of squared errors wins, the widest range among equals. 1 means min-max.
  int candidates;
  float grid;

  /// When not null, these scales and zero points are used and nothing is searched:
  /// `given_stride` of each per row (0: one for the whole matrix).
  const float *given_scales;
  const int8_t *given_zeros;
  size_t given_stride;

  /// 1: codes leave as an LSB-first stream of q + 2^(bits-1), padded with zero bits to 32-bit words.
  /// 0: codes leave as int8.
  int packed;
  void *codes;
  /// Bytes from one row of codes to the next.
  size_t code_stride;
  /// [rows, groups] of `scale_type`, and int8 [rows, groups]; unused when `given_scales` is set.
  void *scales;
  int8_t *zeros;

  /// Per row, each may be null: sum of (decoded - w)^2, sum of w^2, largest |decoded - w|.
  double *squared_error;
  double *squared_weight;
  float *largest_error;
};

struct pare_affine_fault {
  size_t row;
  size_t column;
};

/// Floats of scratch that one call of the functions below needs.
size_t pare_affine_scratch_floats(size_t columns, size_t group);

/// Quantizes rows first ..< last. Calls for disjoint rows may run at the same time.
enum pare_affine_status pare_affine_quantize_rows(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    struct pare_affine_fault *fault);
/// The same function written plainly; equal bytes and equal sums, whatever the machine.
enum pare_affine_status pare_affine_quantize_rows_reference(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    struct pare_affine_fault *fault);

/// Smallest and largest value of each row, extended to include zero: low[row], high[row].
enum pare_affine_status pare_affine_range_rows(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch, float *low,
    float *high, struct pare_affine_fault *fault);

/// Sums of squared errors over rows first ..< last for `count` grids that each cover the whole
/// matrix: one pass serves the clipping search of a single scale per tensor.
void pare_affine_candidate_errors(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    const float *scales, const int8_t *zeros, size_t count, double *errors);

/// The grid of a range that includes zero: scale rounded to `scale_type` (a zero scale becomes that
/// type's epsilon), zero point 0 when symmetric. Returns the scale; infinite when it does not fit.
float pare_affine_grid(
    float low, float high, int bits, int symmetric, enum pare_affine_type scale_type,
    int8_t *zero);

/// A matrix of codes as it lies in memory or in a mapped file (any alignment).
struct pare_affine_codes {
  size_t columns;
  size_t group;
  int bits;
  /// 1: an LSB-first stream of q + 2^(bits-1) per row, whole 32-bit words; 0: int8.
  int packed;
  /// 1: the stream has no gaps; 0: the older layout, floor(32 / bits) codes a word and the top bits
  /// empty. The same for 2, 4 and 8 bits.
  int dense;
  const void *codes;
  size_t code_stride;
  /// `scale_stride` of each per row (0: one for the whole matrix); zeros may be null.
  const void *scales;
  enum pare_affine_type scale_type;
  const int8_t *zeros;
  size_t scale_stride;
};

/// Writes rows first ..< last as float32, row after row: (q - zero) * scale.
void pare_affine_decode_rows(
    const struct pare_affine_codes *source, size_t first, size_t last, float *target);

/// y[t][row - first] = rows first ..< last times x[t], in float32, for `tokens` rows x of `columns`
/// values each; `y_stride` floats from one row of y to the next. Codes are opened a kilobyte at a
/// time, never a whole row of floats. The order of a sum depends on the instruction set only.
void pare_affine_multiply_rows(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride);
/// The same in double precision, one weight at a time.
void pare_affine_multiply_rows_reference(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride);

/// Lays codes [rows, columns], one signed byte each, down as LSB-first streams of q + 2^(bits-1), a
/// row in whole 32-bit words: words [rows, ceil(columns * bits / 32)].
void pare_affine_pack_codes(
    const int8_t *codes, size_t rows, size_t columns, int bits, uint32_t *words);

/// Stores `count` scales as `type` (exactly, when they came from such a type), and reads them.
void pare_affine_store(
    const float *scales, size_t count, enum pare_affine_type type, void *target);
void pare_affine_load(
    const void *scales, size_t count, enum pare_affine_type type, float *target);

/// Packs int8 zero points [rows, groups] along the rows: words [ceil(rows * bits / 32), groups],
/// one LSB-first stream of zero + 2^(bits-1) per column.
void pare_affine_pack_zeros(
    const int8_t *zeros, size_t rows, size_t groups, int bits, uint32_t *words);
/// The inverse; `words` may have any alignment.
void pare_affine_unpack_zeros(
    const void *words, size_t rows, size_t groups, int bits, int8_t *zeros);

#endif
