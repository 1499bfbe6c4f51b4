// Blocks with one scale, by the format's own rule: a block of 32 is two vectors. Included once per
// instruction set. Each function encodes one block and returns whether its scale fits float16.

/// Half away from zero.
TARGET static inline __attribute__((always_inline)) lane_i32 NAME(rounded)(lane_f32 x) {
  const lane_i32 whole = __builtin_convertvector(x, lane_i32);
  const lane_f32 rest = x - __builtin_convertvector(whole, lane_f32);
  return whole - (rest >= 0.5f) + (rest <= -0.5f);
}

TARGET static inline __attribute__((always_inline)) lane_u8 NAME(bytes)(lane_i32 codes) {
  return __builtin_convertvector(codes, lane_u8);
}

/// 0 where the inverse would not be finite: such a scale is 0 as float16 anyway.
TARGET static inline float NAME(finite_inverse)(float d) {
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  return __builtin_fabsf(inverse) <= 3.4e38f ? inverse : 0.0f;
}

/// The weight of the largest magnitude with its sign, the first of equals.
TARGET static inline float NAME(extreme)(const float *x, lane_f32 a, lane_f32 b) {
  // Magnitude first, sign last: one unsigned maximum finds both, a negative weight among equals.
  const lane_u32 p = (lane_u32)a << 1 | (lane_u32)a >> 31;
  const lane_u32 q = (lane_u32)b << 1 | (lane_u32)b >> 31;
  const uint32_t top = __builtin_reduce_max(p > q ? p : q);
  if (top <= 1) return 0;  // whatever the zeros' signs
  const uint32_t bits = top >> 1 | top << 31;
  float value;
  memcpy(&value, &bits, 4);
  if ((top & 1) && __builtin_reduce_or((p == top - 1) | (q == top - 1))) {
    for (int i = 0; i < 32; i++) {
      if (__builtin_fabsf(x[i]) == -value) return x[i];
    }
  }
  return value;
}

TARGET static inline int NAME(fits_f16)(float d) {
  const float stored = (float)(_Float16)d;
  return stored <= 65504.0f && stored >= -65504.0f;
}

TARGET static int NAME(rule_q4_0)(const float *x, uint8_t *target) {
  lane_f32 a, b;
  memcpy(&a, x, 64);
  memcpy(&b, x + 16, 64);
  const float d = NAME(extreme)(x, a, b) * -0.125f, inverse = NAME(finite_inverse)(d);
  lane_i32 p = __builtin_convertvector(a * inverse + 8.5f, lane_i32);
  lane_i32 q = __builtin_convertvector(b * inverse + 8.5f, lane_i32);
  p = p > 15 ? (lane_i32)15 : p;
  q = q > 15 ? (lane_i32)15 : q;
  block_set_f16(target, d);
  NAME(store_split)(NAME(bytes)(p), NAME(bytes)(q), target + 2);
  return NAME(fits_f16)(d);
}

TARGET static int NAME(rule_q5_0)(const float *x, uint8_t *target) {
  lane_f32 a, b;
  memcpy(&a, x, 64);
  memcpy(&b, x + 16, 64);
  const float d = NAME(extreme)(x, a, b) * -0.0625f, inverse = NAME(finite_inverse)(d);
  lane_i32 p = __builtin_convertvector(a * inverse + 16.5f, lane_i32);
  lane_i32 q = __builtin_convertvector(b * inverse + 16.5f, lane_i32);
  p = p > 31 ? (lane_i32)31 : p;
  q = q > 31 ? (lane_i32)31 : q;
  block_set_f16(target, d);
  NAME(store_fifth)(NAME(bytes)(p), NAME(bytes)(q), target + 2);
  NAME(store_split)(NAME(bytes)(p), NAME(bytes)(q), target + 6);
  return NAME(fits_f16)(d);
}

TARGET static inline float NAME(unsorted)(int32_t key) {
  const int32_t bits = key ^ (key >> 31 & 0x7fffffff);
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

/// Codes 0 ... top of the range from the least to the largest weight.
TARGET static inline __attribute__((always_inline)) int NAME(range_codes)(
    const float *x, float top, float *d, float *least, lane_u8 *low, lane_u8 *high) {
  lane_f32 a, b;
  memcpy(&a, x, 64);
  memcpy(&b, x + 16, 64);
  // As integers that sort like the numbers, whose extremes every instruction set finds.
  const lane_i32 s = (lane_i32)a ^ ((lane_i32)a >> 31 & 0x7fffffff);
  const lane_i32 t = (lane_i32)b ^ ((lane_i32)b >> 31 & 0x7fffffff);
  *least = NAME(unsorted)(__builtin_reduce_min(s < t ? s : t));
  *d = (NAME(unsorted)(__builtin_reduce_max(s > t ? s : t)) - *least) / top;
  if (*least == 0) {
    // The sign of the first zero is what is stored.
    for (int i = 31; i >= 0; i--) *least = x[i] == 0 ? x[i] : *least;
  }
  const float inverse = NAME(finite_inverse)(*d);
  lane_i32 p = __builtin_convertvector((a - *least) * inverse + 0.5f, lane_i32);
  lane_i32 q = __builtin_convertvector((b - *least) * inverse + 0.5f, lane_i32);
  const int most = (int)top;
  p = p > most ? (lane_i32)most : p;
  q = q > most ? (lane_i32)most : q;
  *low = NAME(bytes)(p);
  *high = NAME(bytes)(q);
  return NAME(fits_f16)(*d) && NAME(fits_f16)(*least);
}

TARGET static int NAME(rule_q4_1)(const float *x, uint8_t *target) {
  float d, least;
  lane_u8 low, high;
  const int fits = NAME(range_codes)(x, 15, &d, &least, &low, &high);
  block_set_f16(target, d);
  block_set_f16(target + 2, least);
  NAME(store_split)(low, high, target + 4);
  return fits;
}

TARGET static int NAME(rule_q5_1)(const float *x, uint8_t *target) {
  float d, least;
  lane_u8 low, high;
  const int fits = NAME(range_codes)(x, 31, &d, &least, &low, &high);
  block_set_f16(target, d);
  block_set_f16(target + 2, least);
  NAME(store_fifth)(low, high, target + 4);
  NAME(store_split)(low, high, target + 8);
  return fits;
}

TARGET static inline float NAME(largest)(const float *x, int count) {
  lane_u32 largest = 0;
  for (int i = 0; i < count; i += 16) {
    lane_u32 bits;
    memcpy(&bits, x + i, 64);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  const uint32_t top = __builtin_reduce_max(largest);
  float value;
  memcpy(&value, &top, 4);
  return value;
}

TARGET static int NAME(rule_q8_0)(const float *x, uint8_t *target) {
  const float d = NAME(largest)(x, 32) / 127, inverse = NAME(finite_inverse)(d);
  for (int i = 0; i < 32; i += 16) {
    lane_f32 a;
    memcpy(&a, x + i, 64);
    const lane_u8 codes = NAME(bytes)(NAME(rounded)(a * inverse));
    memcpy(target + 2 + i, &codes, 16);
  }
  block_set_f16(target, d);
  return NAME(fits_f16)(d);
}

TARGET static int NAME(rule_mxfp4)(const float *x, uint8_t *target) {
  const float largest = NAME(largest)(x, 32);
  int e = largest > 0 ? (int)floorf(log2f(largest)) - 2 + 127 : 0;
  if (e < 0) e = 0;
  const float half = block_half_e8m0((uint8_t)e);
  lane_i32 codes[2];
  for (int i = 0; i < 2; i++) {
    lane_f32 a;
    memcpy(&a, x + 16 * i, 64);
    const lane_f32 size = a < 0 ? -a : a;
    // The number of midpoints below; a value on one takes the smaller magnitude.
    static const float middles[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};
    lane_i32 magnitude = 0;
    for (int k = 0; k < 7; k++) magnitude -= size > middles[k] * half;
    codes[i] = magnitude + ((a < 0) & (magnitude > 0) & 8);
  }
  target[0] = (uint8_t)e;
  NAME(store_split)(NAME(bytes)(codes[0]), NAME(bytes)(codes[1]), target + 1);
  return 1;
}

/// Trits + 1 of 256 weights.
TARGET static inline float NAME(trits)(const float *x, uint8_t *codes) {
  const float d = NAME(largest)(x, 256), inverse = NAME(finite_inverse)(d);
  for (int i = 0; i < 256; i += 16) {
    lane_f32 a;
    memcpy(&a, x + i, 64);
    const lane_u8 c = NAME(bytes)(NAME(rounded)(a * inverse) + 1);
    memcpy(codes + i, &c, 16);
  }
  return d;
}

TARGET static int NAME(rule_tq1_0)(const float *x, uint8_t *target) {
  uint8_t c[256];
  const float d = NAME(trits)(x, c);
  NAME(pack)(PARE_BLOCK_TQ1_0, c, target);
  block_set_f16(target + 52, d);
  return NAME(fits_f16)(d);
}

TARGET static int NAME(rule_tq2_0)(const float *x, uint8_t *target) {
  uint8_t c[256];
  const float d = NAME(trits)(x, c);
  NAME(pack)(PARE_BLOCK_TQ2_0, c, target);
  block_set_f16(target + 64, d);
  return NAME(fits_f16)(d);
}

// --- The same types searched, sixteen blocks at a time ------------------------------------------

/// x ~ d * level: Q4_0, Q5_0, IQ4_NL. Returns the first block whose scale is too large, or -1.
TARGET static inline __attribute__((always_inline)) int NAME(search_blocks)(
    const float *x, const float *importance, int blocks, enum lane_ladder ladder,
    const float *grids, int grid_count, int rounds, uint8_t codes[512], lane_f32 *d) {
  lane_f32 t[32], w[32], levels[32];
  for (int i = 0; i < 32; i += 16) NAME(transpose)(x + i, 32, blocks, t + i);
  if (importance) {
    NAME(load_importance)(importance, 32, blocks, 32, 1, w);
    *d = NAME(fit_scale)(t, w, 32, ladder, grids, grid_count, rounds);
  } else {
    *d = NAME(fit_scale)(t, (const lane_f32 *)0, 32, ladder, grids, grid_count, rounds);
  }
  *d = NAME(through_f16)(*d);
  const int lane = NAME(overflows)(*d, blocks);
  if (lane >= 0) return lane;
  NAME(scale_error)(t, (const lane_f32 *)0, 32, ladder, *d, levels);
  for (int i = 0; i < 32; i++) levels[i] = NAME(stored)(ladder, levels[i]);
  for (int i = 0; i < 32; i += 16) NAME(transpose_codes)(levels + i, codes + i, 32, blocks);
  return -1;
}

TARGET static int NAME(encode_iq4_nl)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  uint8_t codes[512];
  lane_f32 d;
  const int fault = NAME(search_blocks)(
      x, importance, blocks, LADDER_IQ4, lane_iq4_grids, LANE_IQ4_GRIDS, 2, codes, &d);
  if (fault >= 0) return fault * 32;
  for (int k = 0; k < blocks; k++, target += 18) {
    block_set_f16(target, d[k]);
    NAME(pack)(PARE_BLOCK_IQ4_NL, codes + 32 * k, target);
  }
  return -1;
}

TARGET static int NAME(encode_q4_0)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  static const float grids[12] = {-8,    -7.6f, -7.2f, -6.8f, -8.4f, -8.8f,
                                  -9.2f, -9.6f, -10,   7,     7.4f,  6.6f};
  uint8_t codes[512];
  lane_f32 d;
  const int fault =
      NAME(search_blocks)(x, importance, blocks, LADDER_8, grids, 12, 2, codes, &d);
  if (fault >= 0) return fault * 32;
  for (int k = 0; k < blocks; k++, target += 18) {
    block_set_f16(target, d[k]);
    NAME(pack)(PARE_BLOCK_Q4_0, codes + 32 * k, target);
  }
  return -1;
}

TARGET static int NAME(encode_q5_0)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  static const float grids[12] = {-16,    -15.6f, -15.2f, -14.8f, -16.4f, -16.8f,
                                  -17.2f, -17.6f, -18,    15,     15.4f,  14.6f};
  uint8_t codes[512];
  lane_f32 d;
  const int fault =
      NAME(search_blocks)(x, importance, blocks, LADDER_16, grids, 12, 2, codes, &d);
  if (fault >= 0) return fault * 32;
  for (int k = 0; k < blocks; k++, target += 22) {
    block_set_f16(target, d[k]);
    NAME(pack)(PARE_BLOCK_Q5_0, codes + 32 * k, target);
  }
  return -1;
}

/// x ~ d * code + least: Q4_1 and Q5_1 with importance.
TARGET static inline __attribute__((always_inline)) int NAME(search_ranges)(
    const float *x, const float *importance, int blocks, float top, uint8_t codes[512],
    lane_f32 *d, lane_f32 *least) {
  lane_f32 t[32], w[32], levels[32];
  for (int i = 0; i < 32; i += 16) NAME(transpose)(x + i, 32, blocks, t + i);
  NAME(load_importance)(importance, 32, blocks, 32, 1, w);
  NAME(fit_line)(t, w, 32, top, -1, 0.125f, 24, 2, 0, d, least);
  *d = NAME(through_f16)(*d);
  *least = NAME(through_f16)(*least);
  int lane = NAME(overflows)(*d, blocks);
  if (lane < 0) lane = NAME(overflows)(*least, blocks);
  if (lane >= 0) return lane;
  NAME(line_error)(t, w, 32, top, *d, -*least, levels);
  for (int i = 0; i < 32; i += 16) NAME(transpose_codes)(levels + i, codes + i, 32, blocks);
  return -1;
}

TARGET static int NAME(encode_q4_1)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  uint8_t codes[512];
  lane_f32 d, least;
  const int fault = NAME(search_ranges)(x, importance, blocks, 15, codes, &d, &least);
  if (fault >= 0) return fault * 32;
  for (int k = 0; k < blocks; k++, target += 20) {
    block_set_f16(target, d[k]);
    block_set_f16(target + 2, least[k]);
    NAME(pack)(PARE_BLOCK_Q4_1, codes + 32 * k, target);
  }
  return -1;
}

TARGET static int NAME(encode_q5_1)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  uint8_t codes[512];
  lane_f32 d, least;
  const int fault = NAME(search_ranges)(x, importance, blocks, 31, codes, &d, &least);
  if (fault >= 0) return fault * 32;
  for (int k = 0; k < blocks; k++, target += 24) {
    block_set_f16(target, d[k]);
    block_set_f16(target + 2, least[k]);
    NAME(pack)(PARE_BLOCK_Q5_1, codes + 32 * k, target);
  }
  return -1;
}
