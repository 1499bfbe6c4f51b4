// Products of float32 matrices for training. See include/gemm.h.
#include "gemm.h"

#include <string.h>

// Vectors pass between functions that are always inlined, so no calling convention is at stake.
#pragma clang diagnostic ignored "-Wpsabi"

enum {
  /// Terms of a sum that are added in registers before they go to C: a tile's rows of A then stay
  /// in the first-level cache.
  GEMM_DEPTH = 256,
  /// Columns of B that are used together, a multiple of every panel's width: GEMM_DEPTH rows of
  /// them stay in the second-level cache.
  GEMM_COLUMNS = 288,
  /// Rows of A a multiple of so many numbers apart fall into few sets of the first-level cache, and
  /// are copied before they are used.
  GEMM_ALIASED = 512,
};

static inline size_t least(size_t a, size_t b) { return a < b ? a : b; }

void pare_gemm_ref(const struct pare_gemm_product *g) {
  for (size_t i = 0; i < g->m; i++) {
    for (size_t j = 0; j < g->n; j++) {
      double sum = 0;
      for (size_t p = 0; p < g->k; p++) {
        const float a = g->a_transposed ? g->a[p * g->a_stride + i] : g->a[i * g->a_stride + p];
        const float b = g->b_transposed ? g->b[j * g->b_stride + p] : g->b[p * g->b_stride + j];
        sum += (double)a * b;
      }
      float *c = g->c + i * g->c_stride + j;
      *c = (float)(g->scale * sum + (g->adding ? *c : 0));
    }
  }
}

// Two vectors of a row's 16 registers: 6 rows leave room for B and for one number of A.
#define LANES 4
#define ROWS 6
#define TARGET
#define NAME(x) portable_##x
#include "gemm_body.h"

#if defined(__x86_64__)
#define LANES 8
#define ROWS 6
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) avx2_##x
#include "gemm_body.h"

#define LANES 16
#define ROWS 14
#define TARGET __attribute__((target("avx512f,avx512vl,avx2,fma"), min_vector_width(512)))
#define NAME(x) avx512_##x
#include "gemm_body.h"
#endif

void pare_gemm(const struct pare_gemm_product *product) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")) {
    return avx512_gemm(product);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return avx2_gemm(product);
  }
#endif
  portable_gemm(product);
}
