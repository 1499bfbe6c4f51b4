// A few rows of activations times packed rows, in one pass over the codes: the body for one
// instruction set, included by quantize_groups.c.

/// Most rows of activations that share one pass.
#undef AFFINE_TOKENS
#define AFFINE_TOKENS 4

TARGET static float NAME(sum_lanes)(const affine_f32 *lanes) {
  affine_f32x8 eight = lanes->lo + lanes->hi;
  affine_f32x4 four = eight.lo + eight.hi;
  affine_f32x2 two = four.lo + four.hi;
  return two.x + two.y;
}

__attribute__((always_inline)) TARGET static inline void NAME(multiply_some)(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride) {
  _Pragma("clang fp contract(fast)")
  enum { block = 1024 };
  const size_t columns = source->columns, group = source->group;
  const int offset = source->packed ? 1 << (source->bits - 1) : 128;
  uint8_t codes[block + 64];
  for (size_t row = first; row < last; row++) {
    const uint8_t *stream = (const uint8_t *)source->codes + row * source->code_stride;
    affine_f32 total[AFFINE_TOKENS] = {0};
    float rest[AFFINE_TOKENS] = {0};
    for (size_t start = 0; start < columns; start += block) {
      const size_t end = start + block < columns ? start + block : columns;
      NAME(open_codes)(source, stream, start, end, codes);
      for (size_t i = start; i < end;) {
        const size_t g = i / group, stop = (g + 1) * group < end ? (g + 1) * group : end;
        const size_t at = row * source->scale_stride + (source->scale_stride ? g : 0);
        const float scale = affine_load(source->scales, at, source->scale_type);
        const int32_t zero = offset + (source->zeros ? source->zeros[at] : 0);
        affine_f32 part[AFFINE_TOKENS] = {0};
        for (; i + 16 <= stop; i += 16) {
          affine_u8 bytes;
          memcpy(&bytes, codes + (i - start), 16);
          const affine_f32 steps =
              __builtin_convertvector(__builtin_convertvector(bytes, affine_i32) - zero, affine_f32);
          for (size_t t = 0; t < tokens; t++) {
            affine_f32 inputs;
            memcpy(&inputs, x + t * columns + i, 64);
            part[t] += steps * inputs;
          }
        }
        for (size_t t = 0; t < tokens; t++) total[t] += part[t] * scale;
        for (; i < stop; i++) {
          const float value = (float)((int32_t)codes[i - start] - zero) * scale;
          for (size_t t = 0; t < tokens; t++) rest[t] += value * x[t * columns + i];
        }
      }
    }
    for (size_t t = 0; t < tokens; t++) {
      y[t * y_stride + row - first] = NAME(sum_lanes)(total + t) + rest[t];
    }
  }
}

TARGET static void NAME(multiply_rows)(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride) {
  // The token loop unrolls where its count is a constant.
  switch (tokens) {
    case 1: return NAME(multiply_some)(source, first, last, x, 1, y, y_stride);
    case 2: return NAME(multiply_some)(source, first, last, x, 2, y, y_stride);
    case 3: return NAME(multiply_some)(source, first, last, x, 3, y, y_stride);
    default: return NAME(multiply_some)(source, first, last, x, 4, y, y_stride);
  }
}
