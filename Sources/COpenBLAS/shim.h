#include <cblas.h>
#include <stddef.h>

// LAPACK's routines as gfortran exports them from OpenBLAS: every argument by address, matrices column
// by column, and the length of each character argument after all others. Debian's package has no
// header of them.

/// Singular values and vectors of a general matrix, divide and conquer.
void dgesdd_(
    const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u,
    const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork,
    int *info, size_t jobz_length);

/// Eigenvalues and eigenvectors of a symmetric matrix, divide and conquer.
void dsyevd_(
    const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
    double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length,
    size_t uplo_length);
