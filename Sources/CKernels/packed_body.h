// Products of packed rows and quantized activations, for one instruction set. packed.c includes this
// after defining
//   TARGET       the function attribute
//   NAME(x)      the names here
//   LANES        rows a vector holds, 8 or 16
//   TOKENS       tokens that the kernel for many keeps in registers
//   WIDE_BIAS    what is added to signed byte codes (128 where dot products want them unsigned)
//   DOTS(sum, codes, x, count, form of codes, whether an x is -128), LOOKUP(table, codes)
// See include/packed.h for the layout.

typedef float NAME(f32) __attribute__((ext_vector_type(LANES)));
typedef int32_t NAME(i32) __attribute__((ext_vector_type(LANES)));
typedef uint32_t NAME(u32) __attribute__((ext_vector_type(LANES)));
typedef uint16_t NAME(u16) __attribute__((ext_vector_type(LANES)));
typedef _Float16 NAME(f16) __attribute__((ext_vector_type(LANES)));
typedef uint8_t NAME(u8) __attribute__((ext_vector_type(LANES)));
typedef int8_t NAME(i8) __attribute__((ext_vector_type(LANES)));
typedef uint8_t NAME(codes) __attribute__((ext_vector_type(4 * LANES)));

#define INLINE __attribute__((always_inline)) TARGET static inline
#define STRIPS (PARE_PACKED_ROWS / LANES)

// A strip is what one vector holds of a row group: all of it, or its half number `strip`.

/// The scales of a strip, as far as they can be prepared for a whole unit.
struct NAME(header) {
  const uint8_t *p;
  NAME(f32) d, m;
  NAME(u32) w[4];
};

/// Scales of one block. With scales for 32 columns: code * s[0] - m[0]. With scales for 16 columns:
/// (code * s[i]) d - m[i] dm.
struct NAME(scales) {
  NAME(f32) s[2], m[2], d, dm;
  NAME(i32) zero[2];
};

INLINE NAME(f32) NAME(load_f16)(const uint8_t *p, int strip) {
  NAME(f16) half;
  memcpy(&half, p + 2 * LANES * strip, sizeof half);
  return __builtin_convertvector(half, NAME(f32));
}

INLINE NAME(u32) NAME(load_words)(const uint8_t *p, int strip) {
  NAME(u32) words;
  memcpy(&words, p + 4 * LANES * strip, sizeof words);
  return words;
}

INLINE NAME(f32) NAME(load_scale)(const uint8_t *p, int strip, enum pare_affine_type type) {
  NAME(f32) scale;
  if (type == PARE_AFFINE_F16) return NAME(load_f16)(p, strip);
  if (type == PARE_AFFINE_BF16) {
    NAME(u16) half;
    memcpy(&half, p + 2 * LANES * strip, sizeof half);
    const NAME(u32) bits = __builtin_convertvector(half, NAME(u32)) << 16;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
  }
  memcpy(&scale, p + 4 * LANES * strip, sizeof scale);
  return scale;
}

INLINE void NAME(open_header)(int scales, const uint8_t *p, int strip, struct NAME(header) * h) {
  h->p = p;
  switch (scales) {
    case SCALES_K2:
      h->d = NAME(load_f16)(p, strip);
      h->m = NAME(load_f16)(p + 32, strip);
      for (int i = 0; i < 4; i++) h->w[i] = NAME(load_words)(p + 64 + 64 * i, strip);
      break;
    case SCALES_K3: {
      h->d = NAME(load_f16)(p, strip);
      const NAME(u32) low = NAME(load_words)(p + 32, strip);
      const NAME(u32) middle = NAME(load_words)(p + 96, strip);
      const NAME(u32) top = NAME(load_words)(p + 160, strip);
      h->w[0] = (low & 0x0f0f0f0fu) | ((top & 0x03030303u) << 4);
      h->w[1] = (middle & 0x0f0f0f0fu) | ((top & 0x0c0c0c0cu) << 2);
      h->w[2] = ((low >> 4) & 0x0f0f0f0fu) | (top & 0x30303030u);
      h->w[3] = ((middle >> 4) & 0x0f0f0f0fu) | ((top >> 2) & 0x30303030u);
      break;
    }
    case SCALES_K4: {
      h->d = NAME(load_f16)(p, strip);
      h->m = NAME(load_f16)(p + 32, strip);
      const NAME(u32) a = NAME(load_words)(p + 64, strip);
      const NAME(u32) b = NAME(load_words)(p + 128, strip);
      const NAME(u32) c = NAME(load_words)(p + 192, strip);
      h->w[0] = a & 0x3f3f3f3fu;
      h->w[1] = (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u);
      h->w[2] = b & 0x3f3f3f3fu;
      h->w[3] = ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u);
      break;
    }
    case SCALES_K6:
      h->d = NAME(load_f16)(p, strip);
      for (int i = 0; i < 4; i++) h->w[i] = NAME(load_words)(p + 32 + 64 * i, strip);
      break;
    case SCALES_XS:
      h->d = NAME(load_f16)(p, strip);
      for (int i = 0; i < 2; i++) h->w[i] = NAME(load_words)(p + 32 + 64 * i, strip);
      break;
    default: break;
  }
}

INLINE NAME(f32) NAME(byte_of)(NAME(u32) words, int shift, uint32_t mask) {
  return __builtin_convertvector((NAME(i32))((words >> (uint32_t)shift) & mask), NAME(f32));
}
INLINE NAME(f32) NAME(signed_byte_of)(NAME(u32) words, int shift) {
  return __builtin_convertvector(
      (NAME(i32))(words << (uint32_t)(24 - shift)) >> 24, NAME(f32));
}

/// The scales of block `b` of a unit. Products of the stored parts are exact in float32.
INLINE void NAME(block_scales)(
    const struct pare_packed *matrix, const struct NAME(header) * h, int scales, int bias_code,
    size_t b, int strip, struct NAME(scales) * to) {
  const int byte = 8 * (int)(b % 4), pair = 16 * (int)(b % 2);
  switch (scales) {
    case SCALES_F16: to->s[0] = NAME(load_f16)(h->p + 32 * b, strip); break;
    case SCALES_F16_256: to->s[0] = NAME(load_f16)(h->p + 32 * (b / 8), strip); break;
    case SCALES_F16_MIN:
      to->s[0] = NAME(load_f16)(h->p + 64 * b, strip);
      to->m[0] = -NAME(load_f16)(h->p + 64 * b + 32, strip);
      break;
    case SCALES_E8M0: {
      // 2^(e - 128): the exponent field is e - 1, and below that the two subnormal powers.
      NAME(u8) bytes;
      memcpy(&bytes, h->p + 16 * b + LANES * strip, sizeof bytes);
      const NAME(i32) e = __builtin_convertvector(bytes, NAME(i32));
      const NAME(i32) low = (NAME(i32))0x00200000 << (e & 1), high = (e - 1) << 23;
      const NAME(i32) is_low = e < 2;
      const NAME(i32) bits = (low & is_low) | (high & ~is_low);
      memcpy(&to->s[0], &bits, sizeof bits);
      break;
    }
    case SCALES_K2:
      for (int i = 0; i < 2; i++) {
        to->s[i] = NAME(byte_of)(h->w[b / 2], pair + 8 * i, 15);
        to->m[i] = NAME(byte_of)(h->w[b / 2], pair + 8 * i + 4, 15);
      }
      to->d = h->d;
      to->dm = h->m;
      break;
    case SCALES_K3:
      for (int i = 0; i < 2; i++) {
        to->s[i] = NAME(byte_of)(h->w[b / 2], pair + 8 * i, 255) - 32.0f;
      }
      to->d = h->d;
      break;
    case SCALES_K4:
      to->s[0] = h->d * NAME(byte_of)(h->w[b / 4], byte, 255);
      to->m[0] = h->m * NAME(byte_of)(h->w[2 + b / 4], byte, 255);
      break;
    case SCALES_K6:
      for (int i = 0; i < 2; i++) to->s[i] = NAME(signed_byte_of)(h->w[b / 2], pair + 8 * i);
      to->d = h->d;
      break;
    case SCALES_XS: to->s[0] = h->d * NAME(signed_byte_of)(h->w[b / 4], byte); break;
    default: {
      const size_t size = packed_scale_bytes(matrix->scale_type);
      const size_t one = PARE_PACKED_ROWS * (size + (matrix->has_zeros ? 1 : 0));
      for (size_t i = 0; i < (scales == SCALES_FINE ? 2 : 1); i++) {
        const uint8_t *p =
            h->p + one * (scales == SCALES_FINE ? 2 * b + i : b / (matrix->group / 32));
        to->s[i] = NAME(load_scale)(p, strip, matrix->scale_type);
        to->zero[i] = (NAME(i32))bias_code;
        if (matrix->has_zeros) {
          NAME(i8) bytes;
          memcpy(&bytes, p + PARE_PACKED_ROWS * size + (size_t)(LANES * strip), sizeof bytes);
          to->zero[i] += __builtin_convertvector(bytes, NAME(i32));
        }
      }
      to->d = (NAME(f32))1.0f;
    }
  }
}

INLINE NAME(codes) NAME(load_codes)(const uint8_t *p, int strip) {
  NAME(codes) codes;
  memcpy(&codes, p + 4 * LANES * strip, sizeof codes);
  return codes;
}

/// The codes of 32 columns: vector k holds columns 4k ..< 4k + 4.
INLINE void NAME(open_codes)(const uint8_t *p, int strip, int codes, NAME(codes) * c) {
  if (codes == 8) {
    for (int k = 0; k < 8; k++) {
      c[k] = NAME(load_codes)(p + 64 * k, strip) ^ (uint8_t)(0x80 ^ WIDE_BIAS);
    }
    return;
  }
  if (codes == 2 || codes == 3) {
    for (int j = 0; j < 2; j++) {
      const NAME(codes) v = NAME(load_codes)(p + 64 * j, strip);
      for (int f = 0; f < 4; f++) c[4 * j + f] = (v >> (uint8_t)(2 * f)) & 3;
    }
  } else {
    for (int k = 0; k < 4; k++) {
      const NAME(codes) v = NAME(load_codes)(p + 64 * k, strip);
      c[k] = v & 15;
      c[k + 4] = v >> 4;
    }
  }
  if (codes == 3) {
    const NAME(codes) h = NAME(load_codes)(p + 128, strip);
    for (int k = 0; k < 8; k++) {
      c[k] |= (k < 2 ? h << (uint8_t)(2 - k) : h >> (uint8_t)(k - 2)) & 4;
    }
  }
  if (codes == 5) {
    const NAME(codes) h = NAME(load_codes)(p + 256, strip);
    for (int k = 0; k < 8; k++) {
      c[k] |= (k < 4 ? h << (uint8_t)(4 - k) : h >> (uint8_t)(k - 4)) & 16;
    }
  }
  if (codes == 6) {
    for (int j = 0; j < 2; j++) {
      const NAME(codes) h = NAME(load_codes)(p + 256 + 64 * j, strip);
      for (int f = 0; f < 4; f++) {
        c[4 * j + f] |= (f < 2 ? h << (uint8_t)(4 - 2 * f) : h >> (uint8_t)(2 * f - 4)) & 48;
      }
    }
  }
  if (codes == CODES_NL || codes == CODES_FP4) {
    for (int k = 0; k < 8; k++) {
      c[k] = LOOKUP(codes == CODES_NL ? packed_table_nl : packed_table_fp4, c[k]);
    }
  }
}

/// The constant that is taken from every code, given how `open_codes` returns it.
INLINE int NAME(bias)(int codes, int bias_code) {
  return packed_is_wide(codes) ? WIDE_BIAS : bias_code;
}

/// One block of 32 columns times one token, added to `total`. `chains`: dot products that are summed
/// apart, which hides their latency where no other tokens do.
INLINE NAME(f32) NAME(multiply_block)(
    const struct NAME(scales) * by, int codes, int columns_per_scale, int bias_kind, int bias,
    int chains, const NAME(codes) * c, const struct pare_activations *x, NAME(f32) total) {
  NAME(f32) sums[2];
  for (int i = 0; i < 32 / columns_per_scale; i++) {
    const int32_t taken = x->sum[columns_per_scale == 32 ? 0 : 1 + i];
    NAME(i32) dot = (NAME(i32))0;
    if (bias_kind == BIAS_CODE && bias != 0) dot = (NAME(i32))taken * bias;
    if (bias_kind == BIAS_ZERO) dot = by->zero[i] * taken;
    const int count = columns_per_scale / 4 / chains;
    for (int chain = 0; chain < chains; chain++) {
      const int k = columns_per_scale / 4 * i + count * chain;
      const NAME(i32) part =
          DOTS(chain == 0 ? dot : (NAME(i32))0, c + k, x->codes + 4 * k, count, codes, x->lowest);
      dot = chain == 0 ? part : dot + part;
    }
    sums[i] = __builtin_convertvector(dot, NAME(f32));
  }
  if (columns_per_scale == 32) {
    if (bias_kind != BIAS_MIN) {
      return __builtin_elementwise_fma(sums[0], by->s[0] * x->scale, total);
    }
    const NAME(f32) part = by->m[0] * x->scaled[0];
    return total + __builtin_elementwise_fma(sums[0], by->s[0] * x->scale, part);
  }
  const NAME(f32) part = __builtin_elementwise_fma(sums[1], by->s[1], sums[0] * by->s[0]);
  total = __builtin_elementwise_fma(part, by->d * x->scale, total);
  if (bias_kind == BIAS_MIN) {
    const NAME(f32) below = __builtin_elementwise_fma(
        by->m[1], (NAME(f32))x->scaled[2], by->m[0] * x->scaled[1]);
    total = __builtin_elementwise_fma(below, by->dm, total);
  }
  return total;
}

/// Row groups first ..< last times one token.
INLINE void NAME(multiply_vector)(
    const struct pare_packed *matrix, size_t first, size_t last, const struct pare_activations *x,
    float *y, int codes, int scales, int columns_per_scale, int bias_kind, int bias_code,
    size_t blocks_per_unit) {
  const size_t blocks = matrix->columns / 32;
  const size_t block_bytes = 64 * (size_t)packed_bits(codes);
  const size_t per_unit = packed_unit_blocks(matrix, blocks_per_unit);
  const int bias = NAME(bias)(codes, bias_code), chains = columns_per_scale / 16;
  for (size_t group = first; group < last; group++) {
    const uint8_t *p = matrix->data + group * matrix->stride;
    NAME(f32) total[STRIPS];
    for (int strip = 0; strip < STRIPS; strip++) total[strip] = (NAME(f32))0;
    for (size_t start = 0; start < blocks; start += per_unit) {
      const size_t count = blocks - start < per_unit ? blocks - start : per_unit;
      const size_t header_bytes = packed_header_bytes(matrix, scales, count);
      struct NAME(header) h[STRIPS];
      for (int strip = 0; strip < STRIPS; strip++) NAME(open_header)(scales, p, strip, &h[strip]);
      for (size_t line = 0; line < header_bytes; line += 64) packed_ask(p + line, codes);
      p += header_bytes;
#define BLOCK(b)                                                                         \
  do {                                                                                   \
    _Pragma("unroll") for (size_t line = 0; line < block_bytes; line += 64) {            \
      packed_ask(p + line, codes);                                                       \
    }                                                                                    \
    _Pragma("unroll") for (int strip = 0; strip < STRIPS; strip++) {                     \
      struct NAME(scales) by;                                                            \
      NAME(codes) c[8];                                                                  \
      NAME(block_scales)(matrix, &h[strip], scales, bias, b, strip, &by);                \
      NAME(open_codes)(p, strip, codes, c);                                              \
      total[strip] = NAME(multiply_block)(                                               \
          &by, codes, columns_per_scale, bias_kind, bias, chains, c, x + start + (b),    \
          total[strip]);                                                                 \
    }                                                                                    \
    p += block_bytes;                                                                    \
  } while (0)
      if (blocks_per_unit == 8) {
        // Always whole: the shifts that find a block's scales become constants.
        _Pragma("unroll") for (size_t b = 0; b < 8; b++) BLOCK(b);
      } else {
        for (size_t b = 0; b < count; b++) BLOCK(b);
      }
#undef BLOCK
    }
    const size_t row = group * PARE_PACKED_ROWS;
    const size_t rows =
        matrix->rows - row < PARE_PACKED_ROWS ? matrix->rows - row : PARE_PACKED_ROWS;
    memcpy(y + row, total, rows * 4);
  }
}

// Many tokens: some columns of a strip are opened once into a panel of bytes and floats, which stays
// in the second-level cache while tile after tile of tokens goes by.

/// A block of a panel, as `open_codes` and `block_scales` give it.
struct NAME(panel) {
  NAME(codes) codes[8];
  NAME(f32) s[2], d;
  union {
    struct {
      NAME(f32) m[2], dm;
    };
    NAME(i32) zero[2];
  };
};

/// Opens blocks start ..< end.
INLINE void NAME(open_panel)(
    const struct pare_packed *matrix, size_t group, int strip, size_t start, size_t end, int codes,
    int scales, int columns_per_scale, int bias_kind, int bias_code, size_t blocks_per_unit,
    struct NAME(panel) * panel) {
  const size_t blocks = matrix->columns / 32;
  const size_t block_bytes = 64 * (size_t)packed_bits(codes);
  const size_t per_unit = packed_unit_blocks(matrix, blocks_per_unit);
  const int bias = NAME(bias)(codes, bias_code);
  const size_t whole = packed_header_bytes(matrix, scales, per_unit) + per_unit * block_bytes;
  for (size_t b = start; b < end;) {
    const size_t first = b - b % per_unit;
    const size_t count = blocks - first < per_unit ? blocks - first : per_unit;
    const size_t stop = first + count < end ? first + count : end;
    const uint8_t *p = matrix->data + group * matrix->stride + first / per_unit * whole;
    struct NAME(header) h;
    NAME(open_header)(scales, p, strip, &h);
    p += packed_header_bytes(matrix, scales, count) + (b - first) * block_bytes;
    for (; b < stop; b++, panel++, p += block_bytes) {
      struct NAME(scales) by;
      NAME(open_codes)(p, strip, codes, panel->codes);
      if (blocks_per_unit == 8) {
        // The switch keeps the shifts constant.
        switch (b - first) {
#define CASE(n) \
  case n: NAME(block_scales)(matrix, &h, scales, bias, n, strip, &by); break;
          CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
#undef CASE
        }
      } else {
        NAME(block_scales)(matrix, &h, scales, bias, b - first, strip, &by);
      }
      for (int i = 0; i < 32 / columns_per_scale; i++) {
        panel->s[i] = by.s[i];
        if (bias_kind == BIAS_MIN) panel->m[i] = by.m[i];
        if (bias_kind == BIAS_ZERO) panel->zero[i] = by.zero[i];
      }
      if (columns_per_scale == 16) {
        panel->d = by.d;
        if (bias_kind == BIAS_MIN) panel->dm = by.dm;
      }
    }
  }
}

/// A panel of `blocks` blocks times `tokens` tokens (a constant), added to y when `adds`.
/// `x_stride` tokens lie side by side in a tile.
INLINE void NAME(multiply_tile)(
    const struct NAME(panel) * panel, size_t blocks, const struct pare_activations *x,
    size_t x_stride, size_t tokens, int adds, float *y, size_t y_stride, size_t rows, int codes,
    int columns_per_scale, int bias_kind, int bias_code) {
  const int bias = NAME(bias)(codes, bias_code), chains = tokens < 4 ? columns_per_scale / 16 : 1;
  NAME(f32) total[TOKENS];
  _Pragma("unroll") for (size_t t = 0; t < tokens; t++) {
    total[t] = (NAME(f32))0;
    if (adds) memcpy(&total[t], y + t * y_stride, rows == LANES ? 4 * LANES : 4 * rows);
  }
  for (size_t b = 0; b < blocks; b++, panel++, x += x_stride) {
    struct NAME(scales) by;
    for (int i = 0; i < 32 / columns_per_scale; i++) {
      by.s[i] = panel->s[i];
      if (bias_kind == BIAS_MIN) by.m[i] = panel->m[i];
      if (bias_kind == BIAS_ZERO) by.zero[i] = panel->zero[i];
    }
    if (columns_per_scale == 16) {
      by.d = panel->d;
      if (bias_kind == BIAS_MIN) by.dm = panel->dm;
    }
    _Pragma("unroll") for (size_t t = 0; t < tokens; t++) {
      total[t] = NAME(multiply_block)(
          &by, codes, columns_per_scale, bias_kind, bias, chains, panel->codes, x + t, total[t]);
    }
  }
  _Pragma("unroll") for (size_t t = 0; t < tokens; t++) {
    memcpy(y + t * y_stride, &total[t], rows == LANES ? 4 * LANES : 4 * rows);
  }
}

/// Row groups first ..< last times several tokens.
INLINE void NAME(multiply_matrix)(
    const struct pare_packed *matrix, size_t first, size_t last, const struct pare_activations *x,
    size_t tokens, float *y, size_t y_stride, int codes, int scales, int columns_per_scale,
    int bias_kind, int bias_code, size_t blocks_per_unit) {
  struct NAME(panel) panel[PANEL_BLOCKS] __attribute__((aligned(64)));
  const size_t blocks = matrix->columns / 32;
  for (size_t strip = first * STRIPS; strip < last * STRIPS; strip++) {
    const size_t row = strip * LANES;
    if (row >= matrix->rows) break;
    const size_t rows = matrix->rows - row < LANES ? matrix->rows - row : LANES;
    for (size_t start = 0; start < blocks; start += PANEL_BLOCKS) {
      const size_t end = start + PANEL_BLOCKS < blocks ? start + PANEL_BLOCKS : blocks;
      NAME(open_panel)(
          matrix, strip / STRIPS, (int)(strip % STRIPS), start, end, codes, scales,
          columns_per_scale, bias_kind, bias_code, blocks_per_unit, panel);
      for (size_t token = 0; token < tokens; token += PARE_PACKED_TILE) {
        const size_t width =
            tokens - token < PARE_PACKED_TILE ? tokens - token : PARE_PACKED_TILE;
        const struct pare_activations *tile = x + token * blocks + start * width;
        size_t t = 0;
#define TILES(count)                                                                        \
  for (; t + count <= width; t += count) {                                                  \
    NAME(multiply_tile)(                                                                    \
        panel, end - start, tile + t, width, count, start > 0,                              \
        y + (token + t) * y_stride + row, y_stride, rows, codes, columns_per_scale,         \
        bias_kind, bias_code);                                                              \
  }
#if TOKENS >= 16
        TILES(16)
#endif
#if TOKENS >= 8
        TILES(8)
#endif
        TILES(4)
        TILES(2)
        TILES(1)
#undef TILES
      }
    }
  }
}

#define KERNELS(form, codes, scales, per_scale, bias_kind, bias_code, blocks_per_unit)    \
  TARGET static void NAME(vector_##form)(                                                 \
      const struct pare_packed *matrix, size_t first, size_t last,                        \
      const struct pare_activations *x, float *y) {                                       \
    NAME(multiply_vector)(                                                                \
        matrix, first, last, x, y, codes, scales, per_scale, bias_kind, bias_code,        \
        blocks_per_unit);                                                                 \
  }                                                                                       \
  TARGET static void NAME(matrix_##form)(                                                 \
      const struct pare_packed *matrix, size_t first, size_t last,                        \
      const struct pare_activations *x, size_t tokens, float *y, size_t y_stride) {       \
    NAME(multiply_matrix)(                                                                \
        matrix, first, last, x, tokens, y, y_stride, codes, scales, per_scale, bias_kind, \
        bias_code, blocks_per_unit);                                                      \
  }
PARE_PACKED_FORMS_LIST(KERNELS)
#undef KERNELS

static const struct packed_kernels NAME(kernels)[PARE_PACKED_FORMS] = {
#define ENTRY(form, ...) [PARE_PACKED_##form] = {NAME(vector_##form), NAME(matrix_##form)},
    PARE_PACKED_FORMS_LIST(ENTRY)
#undef ENTRY
};

#undef INLINE
#undef STRIPS
#undef TARGET
#undef NAME
#undef LANES
#undef TOKENS
#undef WIDE_BIAS
#undef DOTS
#undef LOOKUP
