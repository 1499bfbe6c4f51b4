// Products of packed rows and quantized activations, for one instruction set. packed.c includes this
// after defining
//   TARGET       the function attribute
//   NAME(x)      the names here
//   PANEL        row groups that the many-token kernel takes together
//   TOKENS       tokens it keeps in registers
//   WIDE_BIAS    what is added to signed byte codes (128 where dot products want them unsigned)
//   DOTS, DOTS_PANEL, LOOKUP
// See include/packed.h for the layout.

typedef float NAME(f32p) __attribute__((ext_vector_type(8 * PANEL)));
typedef int32_t NAME(i32p) __attribute__((ext_vector_type(8 * PANEL)));

#define INLINE __attribute__((always_inline)) TARGET static inline

/// The scales of eight rows, as far as they can be prepared for a whole unit.
struct NAME(header) {
  packed_f32 d[2], m;
  packed_i32 zero[2];
  packed_u32 w[4];
};

INLINE packed_f32 NAME(load_f16)(const uint8_t *p) {
  packed_f16 half;
  memcpy(&half, p, 16);
  return __builtin_convertvector(half, packed_f32);
}

INLINE packed_u32 NAME(load_words)(const uint8_t *p) {
  packed_u32 words;
  memcpy(&words, p, 32);
  return words;
}

INLINE packed_f32 NAME(load_scale)(const uint8_t *p, enum pare_affine_type type) {
  packed_f32 scale;
  if (type == PARE_AFFINE_F16) return NAME(load_f16)(p);
  if (type == PARE_AFFINE_BF16) {
    packed_u16 half;
    memcpy(&half, p, 16);
    const packed_u32 bits = __builtin_convertvector(half, packed_u32) << 16;
    memcpy(&scale, &bits, 32);
    return scale;
  }
  memcpy(&scale, p, 32);
  return scale;
}

INLINE void NAME(open_header)(
    const struct pare_packed *matrix, int scales, int bias_code, const uint8_t *p,
    struct NAME(header) * h) {
  switch (scales) {
    case SCALES_F16:
    case SCALES_F16_256:
    case SCALES_F16_MIN:
      h->d[0] = NAME(load_f16)(p);
      if (scales == SCALES_F16_MIN) h->m = -NAME(load_f16)(p + 16);
      break;
    case SCALES_E8M0: {
      // 2^(e - 128): the exponent field is e - 1, and below that the two subnormal powers.
      packed_u8x8 bytes;
      memcpy(&bytes, p, 8);
      const packed_i32 e = __builtin_convertvector(bytes, packed_i32);
      const packed_i32 low = (packed_i32)(0x00200000 << (e & 1)), high = (e - 1) << 23;
      const packed_i32 is_low = e < 2;
      const packed_i32 bits = (low & is_low) | (high & ~is_low);
      memcpy(&h->d[0], &bits, 32);
      break;
    }
    case SCALES_K2:
      h->d[0] = NAME(load_f16)(p);
      h->m = NAME(load_f16)(p + 16);
      for (int i = 0; i < 4; i++) h->w[i] = NAME(load_words)(p + 32 + 32 * i);
      break;
    case SCALES_K3: {
      h->d[0] = NAME(load_f16)(p);
      const packed_u32 low = NAME(load_words)(p + 16), middle = NAME(load_words)(p + 48);
      const packed_u32 top = NAME(load_words)(p + 80);
      h->w[0] = (low & 0x0f0f0f0fu) | ((top & 0x03030303u) << 4);
      h->w[1] = (middle & 0x0f0f0f0fu) | ((top & 0x0c0c0c0cu) << 2);
      h->w[2] = ((low >> 4) & 0x0f0f0f0fu) | (top & 0x30303030u);
      h->w[3] = ((middle >> 4) & 0x0f0f0f0fu) | ((top >> 2) & 0x30303030u);
      break;
    }
    case SCALES_K4: {
      h->d[0] = NAME(load_f16)(p);
      h->m = NAME(load_f16)(p + 16);
      const packed_u32 a = NAME(load_words)(p + 32), b = NAME(load_words)(p + 64);
      const packed_u32 c = NAME(load_words)(p + 96);
      h->w[0] = a & 0x3f3f3f3fu;
      h->w[1] = (c & 0x0f0f0f0fu) | ((a >> 2) & 0x30303030u);
      h->w[2] = b & 0x3f3f3f3fu;
      h->w[3] = ((c >> 4) & 0x0f0f0f0fu) | ((b >> 2) & 0x30303030u);
      break;
    }
    case SCALES_K6:
      h->d[0] = NAME(load_f16)(p);
      for (int i = 0; i < 4; i++) h->w[i] = NAME(load_words)(p + 16 + 32 * i);
      break;
    case SCALES_XS:
      h->d[0] = NAME(load_f16)(p);
      for (int i = 0; i < 2; i++) h->w[i] = NAME(load_words)(p + 16 + 32 * i);
      break;
    case SCALES_AFFINE:
    case SCALES_FINE:
      for (int i = 0; i < (scales == SCALES_FINE ? 2 : 1); i++) {
        h->d[i] = NAME(load_scale)(p, matrix->scale_type);
        p += 8 * packed_scale_bytes(matrix->scale_type);
        h->zero[i] = (packed_i32)bias_code;
        if (matrix->has_zeros) {
          packed_i8x8 bytes;
          memcpy(&bytes, p, 8);
          h->zero[i] += __builtin_convertvector(bytes, packed_i32);
          p += 8;
        }
      }
      break;
  }
}

INLINE packed_f32 NAME(byte_of)(packed_u32 words, int shift, uint32_t mask) {
  return __builtin_convertvector((packed_i32)((words >> (uint32_t)shift) & mask), packed_f32);
}
INLINE packed_f32 NAME(signed_byte_of)(packed_u32 words, int shift) {
  return __builtin_convertvector(
      (packed_i32)(words << (uint32_t)(24 - shift)) >> 24, packed_f32);
}

/// Scales `s` and, where the layout has them, minima `m` of block `b` of a unit: one of each for 32
/// columns, or two. Products of the stored parts are exact in float32.
INLINE void NAME(block_scales)(
    const struct NAME(header) * h, int scales, int b, packed_f32 *s, packed_f32 *m) {
  switch (scales) {
    case SCALES_F16_MIN: m[0] = h->m; s[0] = h->d[0]; break;
    case SCALES_K2:
      for (int i = 0; i < 2; i++) {
        const int shift = 16 * (b % 2) + 8 * i;
        s[i] = h->d[0] * NAME(byte_of)(h->w[b / 2], shift, 15);
        m[i] = h->m * NAME(byte_of)(h->w[b / 2], shift + 4, 15);
      }
      break;
    case SCALES_K3:
      for (int i = 0; i < 2; i++) {
        s[i] = h->d[0] * (NAME(byte_of)(h->w[b / 2], 16 * (b % 2) + 8 * i, 255) - 32.0f);
      }
      break;
    case SCALES_K4:
      s[0] = h->d[0] * NAME(byte_of)(h->w[b / 4], 8 * (b % 4), 255);
      m[0] = h->m * NAME(byte_of)(h->w[2 + b / 4], 8 * (b % 4), 255);
      break;
    case SCALES_K6:
      for (int i = 0; i < 2; i++) {
        s[i] = h->d[0] * NAME(signed_byte_of)(h->w[b / 2], 16 * (b % 2) + 8 * i);
      }
      break;
    case SCALES_XS: s[0] = h->d[0] * NAME(signed_byte_of)(h->w[b / 4], 8 * (b % 4)); break;
    case SCALES_FINE: s[0] = h->d[0]; s[1] = h->d[1]; break;
    default: s[0] = h->d[0]; break;
  }
}

INLINE packed_u8 NAME(load_codes)(const uint8_t *p) {
  packed_u8 codes;
  memcpy(&codes, p, 32);
  return codes;
}

/// The codes of 32 columns: vector k holds columns 4k ..< 4k + 4.
INLINE void NAME(open_codes)(const uint8_t *p, int codes, packed_u8 *c) {
  if (codes == 8) {
    for (int k = 0; k < 8; k++) c[k] = NAME(load_codes)(p + 32 * k) ^ (uint8_t)(0x80 ^ WIDE_BIAS);
    return;
  }
  if (codes == 2 || codes == 3) {
    for (int j = 0; j < 2; j++) {
      const packed_u8 v = NAME(load_codes)(p + 32 * j);
      for (int f = 0; f < 4; f++) c[4 * j + f] = (v >> (uint8_t)(2 * f)) & 3;
    }
  } else {
    for (int k = 0; k < 4; k++) {
      const packed_u8 v = NAME(load_codes)(p + 32 * k);
      c[k] = v & 15;
      c[k + 4] = v >> 4;
    }
  }
  if (codes == 3) {
    const packed_u8 h = NAME(load_codes)(p + 64);
    for (int k = 0; k < 8; k++) {
      c[k] |= (k < 2 ? h << (uint8_t)(2 - k) : h >> (uint8_t)(k - 2)) & 4;
    }
  }
  if (codes == 5) {
    const packed_u8 h = NAME(load_codes)(p + 128);
    for (int k = 0; k < 8; k++) {
      c[k] |= (k < 4 ? h << (uint8_t)(4 - k) : h >> (uint8_t)(k - 4)) & 16;
    }
  }
  if (codes == 6) {
    for (int j = 0; j < 2; j++) {
      const packed_u8 h = NAME(load_codes)(p + 128 + 32 * j);
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

/// total += s (dot - bias) x.scale - m x.scale sum, where `dot` starts at minus what the bias takes.
#define FINISH(F32, I32, total, columns_per_scale, bias_kind, dot, s, m, x)                   \
  do {                                                                                         \
    const F32 first = __builtin_convertvector(dot[0], F32);                                    \
    if (columns_per_scale == 32 && bias_kind != BIAS_MIN) {                                    \
      total = __builtin_elementwise_fma(first, s[0] * (x)->scale, total);                      \
    } else if (columns_per_scale == 32) {                                                      \
      const F32 part = m[0] * (x)->scaled[0];                                                  \
      total += __builtin_elementwise_fma(first, s[0] * (x)->scale, part);                      \
    } else {                                                                                   \
      const F32 second = __builtin_convertvector(dot[1], F32);                                 \
      F32 part = first * (s[0] * (x)->scale);                                                  \
      part = __builtin_elementwise_fma(second, s[1] * (x)->scale, part);                       \
      if (bias_kind == BIAS_MIN) {                                                             \
        part = __builtin_elementwise_fma(m[0], (F32)(x)->scaled[1], part);                     \
        part = __builtin_elementwise_fma(m[1], (F32)(x)->scaled[2], part);                     \
      }                                                                                        \
      total += part;                                                                           \
    }                                                                                          \
  } while (0)

/// One block of 32 columns times one token.
INLINE packed_f32 NAME(multiply_block)(
    const struct NAME(header) * h, int codes, int scales, int columns_per_scale, int bias_kind,
    int bias_code, int b, const uint8_t *p, const struct pare_activations *x, packed_f32 total) {
  packed_u8 c[8];
  packed_f32 s[2], m[2];
  packed_i32 dot[2];
  NAME(open_codes)(p, codes, c);
  NAME(block_scales)(h, scales, b, s, m);
  const int bias = NAME(bias)(codes, bias_code);
  if (columns_per_scale == 32) {
    dot[0] = (packed_i32)0;
    if (bias_kind == BIAS_CODE && bias != 0) dot[0] = (packed_i32)x->sum[0] * bias;
    if (bias_kind == BIAS_ZERO) dot[0] = h->zero[0] * x->sum[0];
    dot[0] = DOTS(dot[0], c, x->codes, 8, codes);
  } else {
    for (int i = 0; i < 2; i++) {
      dot[i] = (packed_i32)0;
      if (bias_kind == BIAS_CODE && bias != 0) dot[i] = (packed_i32)x->sum[1 + i] * bias;
      if (bias_kind == BIAS_ZERO) dot[i] = h->zero[i] * x->sum[1 + i];
      dot[i] = DOTS(dot[i], c + 4 * i, x->codes + 16 * i, 4, codes);
    }
  }
  FINISH(packed_f32, packed_i32, total, columns_per_scale, bias_kind, dot, s, m, x);
  return total;
}

/// Row groups first ..< last times one token.
INLINE void NAME(multiply_vector)(
    const struct pare_packed *matrix, size_t first, size_t last, const struct pare_activations *x,
    float *y, int codes, int scales, int columns_per_scale, int bias_kind, int bias_code,
    size_t blocks_per_unit) {
  const size_t blocks = matrix->columns / 32;
  const size_t header =
      packed_header_bytes(scales, matrix->scale_type, matrix->has_zeros);
  const size_t block_bytes = 32 * (size_t)packed_bits(codes);
  const int bias = NAME(bias)(codes, bias_code);
  for (size_t group = first; group < last; group++) {
    const uint8_t *p = matrix->data + group * matrix->stride;
    packed_f32 total = (packed_f32)0;
    struct NAME(header) h;
    if (blocks_per_unit == 0) {
      const size_t per_unit = matrix->group / 32;
      for (size_t start = 0; start < blocks; start += per_unit) {
        const size_t end = start + per_unit < blocks ? start + per_unit : blocks;
        NAME(open_header)(matrix, scales, bias, p, &h);
        p += header;
        for (size_t b = start; b < end; b++) {
          total = NAME(multiply_block)(
              &h, codes, scales, columns_per_scale, bias_kind, bias_code, 0, p, x + b, total);
          p += block_bytes;
        }
      }
    } else {
      for (size_t start = 0; start < blocks; start += blocks_per_unit) {
        for (size_t line = 0; line < header + (blocks_per_unit == 1 ? block_bytes : 0); line += 64) {
          __builtin_prefetch(p + PREFETCH + line);
        }
        NAME(open_header)(matrix, scales, bias, p, &h);
        p += header;
        _Pragma("unroll")
        for (size_t b = 0; b < blocks_per_unit; b++) {
          if (blocks_per_unit > 1) {
            for (size_t line = 0; line < block_bytes; line += 64) {
              __builtin_prefetch(p + PREFETCH + line);
            }
          }
          total = NAME(multiply_block)(
              &h, codes, scales, columns_per_scale, bias_kind, bias_code, (int)b, p,
              x + start + b, total);
          p += block_bytes;
        }
      }
    }
    const size_t row = group * 8;
    const size_t count = matrix->rows - row < 8 ? matrix->rows - row : 8;
    memcpy(y + row, &total, count * 4);
  }
}

// Many tokens: some columns of a few row groups are opened once into a panel of bytes and floats,
// which stays in the second-level cache while tile after tile of tokens goes by.

/// A block of a panel: codes as `open_codes` gives them, side by side for all its rows.
struct NAME(panel_block) {
  uint8_t codes[8][32 * PANEL];
  float scale[2][8 * PANEL];
  /// Minima, or zero codes.
  union {
    float minimum[2][8 * PANEL];
    int32_t zero[2][8 * PANEL];
  };
};

/// Opens blocks start ..< end, both multiples of the blocks of a unit.
INLINE void NAME(open_panel)(
    const struct pare_packed *matrix, size_t group, int lane, size_t start, size_t end, int codes,
    int scales, int columns_per_scale, int bias_kind, int bias_code, size_t blocks_per_unit,
    struct NAME(panel_block) * panel) {
  const size_t header =
      packed_header_bytes(scales, matrix->scale_type, matrix->has_zeros);
  const size_t block_bytes = 32 * (size_t)packed_bits(codes);
  const size_t per_unit = blocks_per_unit ? blocks_per_unit : matrix->group / 32;
  const int bias = NAME(bias)(codes, bias_code);
  const uint8_t *unit =
      matrix->data + group * matrix->stride + start / per_unit * (header + per_unit * block_bytes);
  for (size_t b = start; b < end;) {
    struct NAME(header) h;
    NAME(open_header)(matrix, scales, bias, unit, &h);
    unit += header + b % per_unit * block_bytes;
    const size_t stop = b - b % per_unit + per_unit < end ? b - b % per_unit + per_unit : end;
    for (int within = (int)(b % per_unit); b < stop; b++, within++, panel++) {
      packed_u8 c[8];
      packed_f32 s[2], m[2];
      NAME(open_codes)(unit, codes, c);
      unit += block_bytes;
      for (int k = 0; k < 8; k++) memcpy(panel->codes[k] + 32 * lane, &c[k], 32);
      // The switch over constants keeps shifts immediate.
      switch (blocks_per_unit == 8 ? within : 0) {
        case 0: NAME(block_scales)(&h, scales, 0, s, m); break;
        case 1: NAME(block_scales)(&h, scales, 1, s, m); break;
        case 2: NAME(block_scales)(&h, scales, 2, s, m); break;
        case 3: NAME(block_scales)(&h, scales, 3, s, m); break;
        case 4: NAME(block_scales)(&h, scales, 4, s, m); break;
        case 5: NAME(block_scales)(&h, scales, 5, s, m); break;
        case 6: NAME(block_scales)(&h, scales, 6, s, m); break;
        default: NAME(block_scales)(&h, scales, 7, s, m); break;
      }
      for (int i = 0; i < 32 / columns_per_scale; i++) {
        memcpy(panel->scale[i] + 8 * lane, &s[i], 32);
        if (bias_kind == BIAS_MIN) memcpy(panel->minimum[i] + 8 * lane, &m[i], 32);
        if (bias_kind == BIAS_ZERO) memcpy(panel->zero[i] + 8 * lane, &h.zero[i], 32);
      }
    }
  }
}

/// A panel of `blocks` blocks times `tokens` tokens (a constant), added to y when `adds`.
/// `x_stride` tokens lie side by side in a tile.
INLINE void NAME(multiply_tile)(
    const struct NAME(panel_block) * panel, size_t blocks, const struct pare_activations *x,
    size_t x_stride, size_t tokens, int adds, float *y, size_t y_stride, size_t rows, int codes,
    int columns_per_scale, int bias_kind, int bias_code) {
  const int bias = NAME(bias)(codes, bias_code);
  NAME(f32p) total[TOKENS];
  _Pragma("unroll")
  for (size_t t = 0; t < tokens; t++) {
    total[t] = (NAME(f32p))0;
    if (adds) memcpy(&total[t], y + t * y_stride, rows == 8 * PANEL ? 32 * PANEL : rows * 4);
  }
  for (size_t b = 0; b < blocks; b++, panel++, x += x_stride) {
    NAME(f32p) s[2], m[2];
    NAME(i32p) zero[2];
    for (int i = 0; i < 32 / columns_per_scale; i++) {
      memcpy(&s[i], panel->scale[i], 32 * PANEL);
      if (bias_kind == BIAS_MIN) memcpy(&m[i], panel->minimum[i], 32 * PANEL);
      if (bias_kind == BIAS_ZERO) memcpy(&zero[i], panel->zero[i], 32 * PANEL);
    }
    _Pragma("unroll")
    for (size_t t = 0; t < tokens; t++) {
      const struct pare_activations *one = x + t;
      NAME(i32p) dot[2];
      for (int i = 0; i < 32 / columns_per_scale; i++) {
        const int32_t sum = one->sum[columns_per_scale == 32 ? 0 : 1 + i];
        dot[i] = (NAME(i32p))0;
        if (bias_kind == BIAS_CODE && bias != 0) dot[i] = (NAME(i32p))sum * bias;
        if (bias_kind == BIAS_ZERO) dot[i] = zero[i] * sum;
        dot[i] = DOTS_PANEL(
            dot[i], panel->codes + columns_per_scale / 4 * i, one->codes + columns_per_scale * i,
            columns_per_scale / 4, codes);
      }
      FINISH(
          NAME(f32p), NAME(i32p), total[t], columns_per_scale, bias_kind, dot, s, m, one);
    }
  }
  _Pragma("unroll")
  for (size_t t = 0; t < tokens; t++) {
    memcpy(y + t * y_stride, &total[t], rows == 8 * PANEL ? 32 * PANEL : rows * 4);
  }
}

/// Row groups first ..< last times several tokens.
INLINE void NAME(multiply_matrix)(
    const struct pare_packed *matrix, size_t first, size_t last, const struct pare_activations *x,
    size_t tokens, float *y, size_t y_stride, int codes, int scales, int columns_per_scale,
    int bias_kind, int bias_code, size_t blocks_per_unit) {
  struct NAME(panel_block) panel[PANEL_BLOCKS] __attribute__((aligned(64)));
  const size_t blocks = matrix->columns / 32;
  const size_t groups = pare_packed_groups(matrix);
  const size_t per_unit = blocks_per_unit ? blocks_per_unit : matrix->group / 32;
  // Whole units, unless one alone is larger: its header then serves every part of it.
  const size_t step = per_unit > PANEL_BLOCKS ? PANEL_BLOCKS : PANEL_BLOCKS / per_unit * per_unit;
  for (size_t group = first; group < last; group += PANEL) {
    const size_t row = group * 8;
    const size_t rows = matrix->rows - row < 8 * PANEL ? matrix->rows - row : 8 * PANEL;
    for (size_t start = 0; start < blocks; start += step) {
      const size_t end = start + step < blocks ? start + step : blocks;
      for (int lane = 0; lane < PANEL; lane++) {
        const size_t wanted = group + (size_t)lane < groups ? group + (size_t)lane : group;
        NAME(open_panel)(
            matrix, wanted, lane, start, end, codes, scales, columns_per_scale, bias_kind,
            bias_code, blocks_per_unit, panel);
      }
      for (size_t token = 0; token < tokens; token += PARE_PACKED_TILE) {
        const size_t width =
            tokens - token < PARE_PACKED_TILE ? tokens - token : PARE_PACKED_TILE;
        const struct pare_activations *tile = x + token * blocks + start * width;
        size_t t = 0;
#define TILES(count)                                                                          \
  for (; t + count <= width; t += count) {                                                    \
    NAME(multiply_tile)(                                                                      \
        panel, end - start, tile + t, width, count, start > 0, y + (token + t) * y_stride + row, \
        y_stride, rows, codes, columns_per_scale, bias_kind, bias_code);                      \
  }
#if TOKENS == 16
        TILES(16)
#endif
#if TOKENS >= 8
        TILES(8)
#endif
        TILES(4)
        TILES(1)
#undef TILES
      }
    }
  }
}

#define KERNELS(form, codes, scales, per_scale, bias_kind, bias_code, blocks_per_unit)          \
  TARGET static void NAME(vector_##form)(                                                       \
      const struct pare_packed *matrix, size_t first, size_t last,                              \
      const struct pare_activations *x, float *y) {                                             \
    NAME(multiply_vector)(                                                                      \
        matrix, first, last, x, y, codes, scales, per_scale, bias_kind, bias_code,              \
        blocks_per_unit);                                                                       \
  }                                                                                             \
  TARGET static void NAME(matrix_##form)(                                                       \
      const struct pare_packed *matrix, size_t first, size_t last,                              \
      const struct pare_activations *x, size_t tokens, float *y, size_t y_stride) {             \
    NAME(multiply_matrix)(                                                                      \
        matrix, first, last, x, tokens, y, y_stride, codes, scales, per_scale, bias_kind,       \
        bias_code, blocks_per_unit);                                                            \
  }
PARE_PACKED_FORMS_LIST(KERNELS)
#undef KERNELS

static const struct packed_kernels NAME(kernels)[PARE_PACKED_FORMS] = {
#define ENTRY(form, ...) [PARE_PACKED_##form] = {NAME(vector_##form), NAME(matrix_##form)},
    PARE_PACKED_FORMS_LIST(ENTRY)
#undef ENTRY
};

#undef INLINE
#undef FINISH
