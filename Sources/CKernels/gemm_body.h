// Products of float32 matrices for one instruction set; gemm.c includes this after defining TARGET,
// NAME(x), LANES (of a vector) and ROWS (of a tile).
//
// A tile of C, ROWS by two vectors, stays in registers while the depth runs: each step loads two
// vectors of B and ROWS single numbers of A for 2 ROWS fused multiply-adds. Both are read as they
// lie where that can be: B is packed, into panels as wide as a tile, only where it is transposed or
// ends within a vector, and A where its rows are so far apart that they push each other out of the
// cache.

#define INLINE __attribute__((always_inline)) TARGET static inline
#define WIDTH (2 * LANES)
#define SPAN ((ROWS + LANES - 1) / LANES * LANES)

typedef float NAME(vector) __attribute__((ext_vector_type(LANES)));

/// `rows` by `vectors` vectors of C, both constants, from `depth` terms of each number.
///
/// Number (r, p) of A lies at r * a_row + p * a_column, of which one is the constant 1; the vectors
/// of B for p at p * b_row.
INLINE void NAME(sums)(
    size_t rows, size_t vectors, const float *a, size_t a_row, size_t a_column, const float *b,
    size_t b_row, size_t depth, float scale, int adding, float *c, size_t c_stride) {
  _Pragma("clang fp contract(fast)")
  NAME(vector) sums[ROWS][2] = {{0}};
  for (size_t p = 0; p < depth; p++) {
    NAME(vector) terms[2];
    _Pragma("unroll") for (size_t v = 0; v < vectors; v++) {
      memcpy(&terms[v], b + p * b_row + v * LANES, sizeof terms[v]);
    }
    _Pragma("unroll") for (size_t r = 0; r < rows; r++) {
      const float x = a[r * a_row + p * a_column];
      _Pragma("unroll") for (size_t v = 0; v < vectors; v++) sums[r][v] += x * terms[v];
    }
  }
  {
    // Not fused here, where a compiler fuses some rows and leaves others: a number must not depend on
    // its place in a tile.
    _Pragma("clang fp contract(off)")
    _Pragma("unroll") for (size_t r = 0; r < rows; r++) {
      _Pragma("unroll") for (size_t v = 0; v < vectors; v++) {
        float *at = c + r * c_stride + v * LANES;
        NAME(vector) value = sums[r][v] * scale;
        if (adding) {
          NAME(vector) old;
          memcpy(&old, at, sizeof old);
          value = old + value;
        }
        memcpy(at, &value, sizeof value);
      }
    }
  }
}

#define SUMS(rows, vectors, a_row, a_column) \
  NAME(sums)(rows, vectors, a, a_row, a_column, b, b_row, depth, scale, adding, c, c_stride)
#define CASE(rows)                          \
  case rows:                                \
    if (transposed && vectors == 1) {       \
      SUMS(rows, 1, 1, a_stride);           \
    } else if (transposed) {                \
      SUMS(rows, 2, 1, a_stride);           \
    } else if (vectors == 1) {              \
      SUMS(rows, 1, a_stride, 1);           \
    } else {                                \
      SUMS(rows, 2, a_stride, 1);           \
    }                                       \
    break;

TARGET static void NAME(tile)(
    size_t rows, size_t vectors, int transposed, const float *a, size_t a_stride,
    const float *b, size_t b_row, size_t depth, float scale, int adding, float *c,
    size_t c_stride) {
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#endif
  }
}
#undef CASE
#undef SUMS

/// LANES rows of LANES numbers, of which the first `count` exist, become columns: every round
/// interleaves rows that are half of them apart, which moves one bit of a number's place from the
/// row to the column.
INLINE void NAME(transpose)(
    const float *source, size_t stride, size_t count, float *target, size_t target_stride) {
  NAME(vector) rows[LANES] = {{0}}, next[LANES];
  _Pragma("unroll") for (size_t r = 0; r < LANES; r++) {
    if (r < count) memcpy(&rows[r], source + r * stride, sizeof rows[r]);
  }
  _Pragma("unroll") for (size_t round = 1; round < LANES; round *= 2) {
    _Pragma("unroll") for (size_t r = 0; r < LANES / 2; r++) {
      next[2 * r].even = rows[r].lo;
      next[2 * r].odd = rows[r + LANES / 2].lo;
      next[2 * r + 1].even = rows[r].hi;
      next[2 * r + 1].odd = rows[r + LANES / 2].hi;
    }
    _Pragma("unroll") for (size_t r = 0; r < LANES; r++) rows[r] = next[r];
  }
  _Pragma("unroll") for (size_t r = 0; r < LANES; r++) {
    memcpy(target + r * target_stride, &rows[r], sizeof rows[r]);
  }
}

/// `columns` columns of op(B) at `b`, `depth` rows of them, as rows of WIDTH with zeros at the end.
TARGET static void NAME(pack)(
    const float *b, size_t stride, int transposed, size_t depth, size_t columns, float *panel) {
  size_t p = 0;
  if (columns < WIDTH) memset(panel, 0, depth * WIDTH * sizeof *panel);
  if (!transposed) {
    for (; p < depth; p++) memcpy(panel + p * WIDTH, b + p * stride, columns * sizeof *panel);
    return;
  }
  for (; columns == WIDTH && p + LANES <= depth; p += LANES) {
    NAME(transpose)(b + p, stride, LANES, panel + p * WIDTH, WIDTH);
    NAME(transpose)(
        b + p + LANES * stride, stride, LANES, panel + p * WIDTH + LANES, WIDTH);
  }
  for (; p < depth; p++) {
    for (size_t j = 0; j < columns; j++) panel[p * WIDTH + j] = b[j * stride + p];
  }
}

/// `rows` rows of op(A) at `a`, number (r, p) at p * SPAN + r.
TARGET static void NAME(pack_rows)(
    const float *a, size_t stride, int transposed, size_t rows, size_t depth, float *packed) {
  size_t p = 0;
  if (transposed) {
    for (; rows == ROWS && p < depth; p++) {
      memcpy(packed + p * SPAN, a + p * stride, ROWS * sizeof *a);
    }
    for (; p < depth; p++) memcpy(packed + p * SPAN, a + p * stride, rows * sizeof *a);
    return;
  }
  for (; p + LANES <= depth; p += LANES) {
    for (size_t r = 0; r < rows; r += LANES) {
      NAME(transpose)(
          a + r * stride + p, stride, least(LANES, rows - r), packed + p * SPAN + r, SPAN);
    }
  }
  for (; p < depth; p++) {
    for (size_t r = 0; r < rows; r++) packed[p * SPAN + r] = a[r * stride + p];
  }
}

/// Asks for a part of the next tile's rows of A, `part` of `parts`.
INLINE void NAME(prefetch)(
    const float *a, size_t stride, int transposed, size_t depth, size_t part, size_t parts) {
  if (transposed) {
    for (size_t p = part * depth / parts; p < (part + 1) * depth / parts; p++) {
      __builtin_prefetch(a + p * stride + ROWS - 1, 0, 3);
    }
  } else {
    for (size_t r = part * ROWS / parts; r < (part + 1) * ROWS / parts; r++) {
      for (size_t p = 0; p < depth; p += 16) __builtin_prefetch(a + r * stride + p, 0, 3);
    }
  }
}

/// Rows of C, `rows` of them at `i`, from `depth` terms: all panels one after another.
TARGET static void NAME(strip)(
    const struct pare_gemm_product *g, size_t i, size_t rows, size_t p0, size_t depth, size_t j0,
    size_t columns, const float *panels) {
  _Alignas(64) float packed[GEMM_DEPTH * SPAN], edge[ROWS * WIDTH];
  const int adding = g->adding || p0 > 0, packs = g->a_stride % GEMM_ALIASED == 0;
  const int transposed = g->a_transposed;
  const float *a = g->a + (transposed ? p0 * g->a_stride + i : i * g->a_stride + p0);
  const float *next = a + ROWS * (transposed ? 1 : g->a_stride);
  if (packs) NAME(pack_rows)(a, g->a_stride, transposed, rows, depth, packed);
  for (size_t j = 0; j < columns; j += WIDTH) {
    const size_t width = least(WIDTH, columns - j);
    const int whole = width % LANES == 0;
    float *c = g->c + i * g->c_stride + j0 + j;
    for (size_t r = 0; r < rows; r++) {
      __builtin_prefetch(c + r * g->c_stride, 1, 3);
      __builtin_prefetch(c + r * g->c_stride + width - 1, 1, 3);
      if (!whole && adding) memcpy(edge + r * WIDTH, c + r * g->c_stride, width * sizeof *c);
    }
    if (i + ROWS < g->m) {
      const size_t panels = (columns + WIDTH - 1) / WIDTH;
      NAME(prefetch)(next, g->a_stride, transposed, depth, j / WIDTH, panels);
    }
    const int lies = whole && !g->b_transposed;
    NAME(tile)(
        rows, 1 + (width > LANES), packs || transposed, packs ? packed : a,
        packs ? SPAN : g->a_stride, lies ? g->b + p0 * g->b_stride + j0 + j : panels + j * depth,
        lies ? g->b_stride : WIDTH, depth, g->scale, adding, whole ? c : edge,
        whole ? g->c_stride : WIDTH);
    for (size_t r = 0; !whole && r < rows; r++) {
      memcpy(c + r * g->c_stride, edge + r * WIDTH, width * sizeof *c);
    }
  }
}

TARGET static void NAME(gemm)(const struct pare_gemm_product *g) {
  _Alignas(64) float panels[GEMM_DEPTH * GEMM_COLUMNS];
  for (size_t j0 = 0; j0 < g->n; j0 += GEMM_COLUMNS) {
    const size_t columns = least(GEMM_COLUMNS, g->n - j0);
    size_t p0 = 0;
    do {
      const size_t depth = least(GEMM_DEPTH, g->k - p0);
      for (size_t j = 0; j < columns; j += WIDTH) {
        const size_t width = least(WIDTH, columns - j), at = j0 + j;
        if (!g->b_transposed && width % LANES == 0) continue;
        const float *b =
            g->b + (g->b_transposed ? at * g->b_stride + p0 : p0 * g->b_stride + at);
        NAME(pack)(b, g->b_stride, g->b_transposed, depth, width, panels + j * depth);
      }
      for (size_t i = 0; i < g->m; i += ROWS) {
        NAME(strip)(g, i, least(ROWS, g->m - i), p0, depth, j0, columns, panels);
      }
      p0 += depth;
    } while (p0 < g->k);
  }
}

#undef INLINE
#undef WIDTH
#undef SPAN
#undef TARGET
#undef NAME
#undef LANES
#undef ROWS
