#ifndef PARE_GEMM_H
#define PARE_GEMM_H
#include <stddef.h>

/// A product of float32 matrices, C = scale * op(A) * op(B), or added to what C holds. Rows of a
/// matrix lie `stride` numbers apart; a transposed operand is stored as the transpose of what it
/// means.
struct pare_gemm_product {
  size_t m, n, k;
  const float *a;  // means [m, k]
  size_t a_stride;
  int a_transposed;
  const float *b;  // means [k, n]
  size_t b_stride;
  int b_transposed;
  float *c;  // [m, n]
  size_t c_stride;
  float scale;
  int adding;
};

/// Computes the product with the calling thread. A number of C depends on its row of op(A), its
/// column of op(B) and the instruction set alone, so a product may be cut along m and n at will.
void pare_gemm(const struct pare_gemm_product *product);
/// The same in double precision, one number at a time.
void pare_gemm_ref(const struct pare_gemm_product *product);

#endif
