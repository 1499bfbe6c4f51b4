// New codes in blocks whose scales stay. Included once per instruction set.

/// `blocks` blocks of any type in sub-blocks of `n`, no more than fill the sixteen lanes. `top`
/// above 0: codes 0 ... top with an offset; otherwise levels of `ladder`.
TARGET static inline __attribute__((always_inline)) void NAME(recode)(
    enum pare_block_type type, const float *x, int blocks, int n, float top,
    enum lane_ladder ladder, uint8_t *target) {
  const int length = (int)pare_block_length(type), per_block = length / n;
  const size_t bytes = pare_block_bytes(type);
  const int lanes = blocks * per_block;
  lane_f32 t[32], levels[32], scale = 0, below = 0;
  uint8_t codes[512];
  for (int i = 0; i < n; i += 16) NAME(transpose)(x + i, (size_t)n, lanes, t + i);
  for (int lane = 0; lane < lanes; lane++) {
    const struct pare_block_point point = pare_block_point(
        type, target + (size_t)(lane / per_block) * bytes, (size_t)(lane % per_block * n));
    scale[lane] = point.scale;
    below[lane] = -point.offset;
  }
  if (top > 0) {
    NAME(line_error)(t, (const lane_f32 *)0, n, top, scale, below, levels);
  } else {
    NAME(scale_error)(t, (const lane_f32 *)0, n, ladder, scale, levels);
    for (int i = 0; i < n; i++) levels[i] = NAME(stored)(ladder, levels[i]);
  }
  for (int i = 0; i < n; i += 16) {
    NAME(transpose_codes)(levels + i, codes + i, (size_t)n, lanes);
  }
  for (int k = 0; k < blocks; k++) {
    NAME(pack)(type, codes + k * length, target + (size_t)k * bytes);
  }
}

TARGET static enum pare_block_status NAME(recode_row)(
    enum pare_block_type type, const float *x, size_t count, void *into, size_t *fault) {
  uint8_t *target = into;
  const size_t length = pare_block_length(type), bytes = pare_block_bytes(type);
  const size_t bad = NAME(first_not_finite)(x, count);
  if (bad < count) {
    *fault = bad;
    return PARE_BLOCK_NOT_FINITE;
  }
#define RECODE(type, n, top, ladder)                                                        \
  case type:                                                                                \
    NAME(recode)(type, x + i, some, n, top, ladder, target + i / length * bytes);           \
    break
  for (size_t i = 0; i < count;) {
    size_t most = length == 32 ? 16 : 1;
    if (type == PARE_BLOCK_Q4_K || type == PARE_BLOCK_Q5_K || type == PARE_BLOCK_IQ4_XS) most = 2;
    const size_t left = (count - i) / length;
    const int some = (int)(left < most ? left : most);
    switch (type) {
      RECODE(PARE_BLOCK_Q4_0, 32, 0, LADDER_8);
      RECODE(PARE_BLOCK_Q4_1, 32, 15, LADDER_8);
      RECODE(PARE_BLOCK_Q5_0, 32, 0, LADDER_16);
      RECODE(PARE_BLOCK_Q5_1, 32, 31, LADDER_16);
      RECODE(PARE_BLOCK_Q8_0, 32, 0, LADDER_128);
      RECODE(PARE_BLOCK_Q2_K, 16, 3, LADDER_4);
      RECODE(PARE_BLOCK_Q3_K, 16, 0, LADDER_4);
      RECODE(PARE_BLOCK_Q4_K, 32, 15, LADDER_8);
      RECODE(PARE_BLOCK_Q5_K, 32, 31, LADDER_16);
      RECODE(PARE_BLOCK_Q6_K, 16, 0, LADDER_32);
      RECODE(PARE_BLOCK_IQ4_NL, 32, 0, LADDER_IQ4);
      RECODE(PARE_BLOCK_IQ4_XS, 32, 0, LADDER_IQ4);
      RECODE(PARE_BLOCK_TQ1_0, 16, 0, LADDER_TRIT);
      RECODE(PARE_BLOCK_TQ2_0, 16, 0, LADDER_TRIT);
      RECODE(PARE_BLOCK_MXFP4, 32, 0, LADDER_FP4);
      default: return PARE_BLOCK_OK;
    }
    i += (size_t)some * length;
  }
#undef RECODE
  return PARE_BLOCK_OK;
}
