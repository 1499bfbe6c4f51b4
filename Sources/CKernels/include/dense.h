#ifndef PARE_DENSE_H
#define PARE_DENSE_H
#include <stddef.h>

/// How a dense matrix stores its numbers.
enum pare_dense_type {
  PARE_DENSE_F32 = 0,
  PARE_DENSE_F16 = 1,
  PARE_DENSE_BF16 = 2,
};

/// Most tokens that one pass over the matrix serves.
enum { PARE_DENSE_TOKENS = 4 };

/// y[t * y_stride + row] = row · x_t in float32, for rows first ..< last of a row-major matrix of
/// `columns` columns (any alignment) and up to PARE_DENSE_TOKENS tokens of `columns` values each.
/// The order of a sum depends on the instruction set only.
void pare_dense_multiply_rows(
    enum pare_dense_type type, const void *matrix, size_t columns, size_t first, size_t last,
    const float *x, size_t tokens, float *y, size_t y_stride);
/// The same in double precision, one weight at a time.
void pare_dense_multiply_rows_reference(
    enum pare_dense_type type, const void *matrix, size_t columns, size_t first, size_t last,
    const float *x, size_t tokens, float *y, size_t y_stride);

#endif
