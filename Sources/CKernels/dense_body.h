// Dense rows times a few tokens, for one instruction set; dense.c includes this after defining TARGET
// and NAME(x).

#define INLINE __attribute__((always_inline)) TARGET static inline

INLINE dense_f32 NAME(load)(enum pare_dense_type type, const char *p) {
  dense_f32 values;
  if (type == PARE_DENSE_F16) {
    dense_f16 half;
    memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, dense_f32);
  }
  if (type == PARE_DENSE_BF16) {
    dense_u16 half;
    memcpy(&half, p, sizeof half);
    const dense_u32 bits = __builtin_convertvector(half, dense_u32) << 16;
    memcpy(&values, &bits, sizeof values);
    return values;
  }
  memcpy(&values, p, sizeof values);
  return values;
}

INLINE float NAME(sum)(const dense_f32 *lanes) {
  dense_f32x8 eight = lanes->lo + lanes->hi;
  dense_f32x4 four = eight.lo + eight.hi;
  dense_f32x2 two = four.lo + four.hi;
  return two.x + two.y;
}

/// `rows` rows at `p` times `tokens` tokens, both constants: a vector of activations serves all rows,
/// which is what keeps long ones from being bound by the first-level cache.
INLINE void NAME(some)(
    enum pare_dense_type type, const char *p, size_t columns, size_t rows, const float *x,
    size_t tokens, float *y, size_t y_stride) {
  _Pragma("clang fp contract(fast)")
  const size_t size = type == PARE_DENSE_F32 ? 4 : 2, row_bytes = columns * size;
  dense_f32 sums[DENSE_ROWS][PARE_DENSE_TOKENS] = {{0}};
  size_t i = 0;
  for (; i + 16 <= columns; i += 16) {
    dense_f32 inputs[PARE_DENSE_TOKENS];
    _Pragma("unroll") for (size_t t = 0; t < tokens; t++) {
      memcpy(&inputs[t], x + t * columns + i, sizeof inputs[t]);
    }
    _Pragma("unroll") for (size_t r = 0; r < rows; r++) {
      const char *at = p + r * row_bytes + i * size;
      if (rows > 1 && i * size % 64 == 0) {
        // The same place in the rows that come next, for the second-level cache, and what this row
        // needs soon for the first. On Zen 4: 26 instead of 22 GB/s with one thread.
        __builtin_prefetch(at + rows * row_bytes, 0, 2);
        __builtin_prefetch(at + 512, 0, 3);
      }
      const dense_f32 weights = NAME(load)(type, at);
      _Pragma("unroll") for (size_t t = 0; t < tokens; t++) sums[r][t] += weights * inputs[t];
    }
  }
  for (size_t r = 0; r < rows; r++) {
    for (size_t t = 0; t < tokens; t++) {
      float total = NAME(sum)(&sums[r][t]);
      for (size_t j = i; j < columns; j++) {
        total += dense_value(type, p + r * row_bytes + j * size) * x[t * columns + j];
      }
      y[t * y_stride + r] = total;
    }
  }
}

#define SOME(type, tokens)                                                              \
  for (; row + DENSE_ROWS <= last; row += DENSE_ROWS) {                                 \
    NAME(some)(                                                                         \
        type, p + row * row_bytes, columns, DENSE_ROWS, x, tokens, y + row, y_stride);  \
  }                                                                                     \
  for (; row < last; row++) {                                                           \
    NAME(some)(type, p + row * row_bytes, columns, 1, x, tokens, y + row, y_stride);    \
  }
#define FOR_TYPE(type)              \
  switch (tokens) {                 \
    case 1: SOME(type, 1) break;    \
    case 2: SOME(type, 2) break;    \
    case 3: SOME(type, 3) break;    \
    default: SOME(type, 4) break;   \
  }

TARGET static void NAME(multiply_rows)(
    enum pare_dense_type type, const char *p, size_t columns, size_t first, size_t last,
    const float *x, size_t tokens, float *y, size_t y_stride) {
  const size_t row_bytes = columns * (type == PARE_DENSE_F32 ? 4 : 2);
  size_t row = first;
  switch (type) {
    case PARE_DENSE_F32: FOR_TYPE(PARE_DENSE_F32) break;
    case PARE_DENSE_F16: FOR_TYPE(PARE_DENSE_F16) break;
    case PARE_DENSE_BF16: FOR_TYPE(PARE_DENSE_BF16) break;
  }
}

#undef FOR_TYPE
#undef SOME
#undef INLINE
#undef TARGET
#undef NAME
