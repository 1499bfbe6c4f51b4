// A row of blocks of any type. Included once per instruction set.

/// Index of the first NaN or infinity below `count`, or `count`.
TARGET static size_t NAME(first_not_finite)(const float *x, size_t count) {
  lane_u32 largest = 0;
  size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    lane_u32 bits;
    memcpy(&bits, x + i, 64);
    bits &= 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  uint32_t top = __builtin_reduce_max(largest);
  for (; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    bits &= 0x7fffffffu;
    top = bits > top ? bits : top;
  }
  if (top < 0x7f800000u) return count;
  for (i = 0; i < count; i++) {
    if (!(__builtin_fabsf(x[i]) <= 3.402823466e38f)) return i;
  }
  return count;
}

/// Groups of `most` blocks through a search.
#define SEARCH(function, most)                                                               \
  for (size_t k = 0; k < blocks; k += (most)) {                                              \
    const int some = (int)(blocks - k < (most) ? blocks - k : (most));                       \
    const float *part = x + k * length;                                                      \
    const int bad = too_large(part, (size_t)some * length, limit);                           \
    const int at = bad >= 0 ? bad                                                            \
                            : NAME(function)(part, importance ? importance + k * length      \
                                                              : (const float *)0,            \
                                             some, target + k * bytes);                      \
    if (at >= 0) {                                                                           \
      *fault = (k * length + (size_t)at) / length * length;                                  \
      return PARE_BLOCK_SCALE_OVERFLOW;                                                      \
    }                                                                                        \
  }                                                                                          \
  return PARE_BLOCK_OK
/// Blocks one by one through the format's rule.
#define RULE(function)                                                                       \
  for (size_t k = 0; k < blocks; k++) {                                                      \
    if (!NAME(function)(x + k * length, target + k * bytes)) {                               \
      *fault = k * length;                                                                   \
      return PARE_BLOCK_SCALE_OVERFLOW;                                                      \
    }                                                                                        \
  }                                                                                          \
  return PARE_BLOCK_OK

TARGET static enum pare_block_status NAME(encode_row)(
    enum pare_block_type type, const float *x, size_t count, const float *importance,
    void *into, size_t *fault) {
  uint8_t *target = into;
  const size_t length = pare_block_length(type), bytes = pare_block_bytes(type);
  const size_t blocks = count / length;
  const size_t bad = NAME(first_not_finite)(x, count);
  if (bad < count) {
    *fault = bad;
    return PARE_BLOCK_NOT_FINITE;
  }
  const float limit = largest_weight(type);
  switch (type) {
    case PARE_BLOCK_Q8_0: RULE(rule_q8_0);
    case PARE_BLOCK_TQ1_0: RULE(rule_tq1_0);
    case PARE_BLOCK_TQ2_0: RULE(rule_tq2_0);
    case PARE_BLOCK_MXFP4: RULE(rule_mxfp4);
    case PARE_BLOCK_Q4_0:
      if (importance) {
        SEARCH(encode_q4_0, 16);
      }
      RULE(rule_q4_0);
    case PARE_BLOCK_Q4_1:
      if (importance) {
        SEARCH(encode_q4_1, 16);
      }
      RULE(rule_q4_1);
    case PARE_BLOCK_Q5_0:
      if (importance) {
        SEARCH(encode_q5_0, 16);
      }
      RULE(rule_q5_0);
    case PARE_BLOCK_Q5_1:
      if (importance) {
        SEARCH(encode_q5_1, 16);
      }
      RULE(rule_q5_1);
    case PARE_BLOCK_IQ4_NL: SEARCH(encode_iq4_nl, 16);
    case PARE_BLOCK_IQ4_XS: SEARCH(encode_iq4_xs, 2);
    case PARE_BLOCK_Q2_K: SEARCH(encode_q2_k, 1);
    case PARE_BLOCK_Q3_K: SEARCH(encode_q3_k, 1);
    case PARE_BLOCK_Q4_K: SEARCH(encode_q4_k, 2);
    case PARE_BLOCK_Q5_K: SEARCH(encode_q5_k, 2);
    case PARE_BLOCK_Q6_K: SEARCH(encode_q6_k, 1);
    case PARE_BLOCK_F32: memcpy(target, x, 4 * count); return PARE_BLOCK_OK;
    case PARE_BLOCK_BF16: pare_f32_to_bf16(x, target, count); return PARE_BLOCK_OK;
    case PARE_BLOCK_F16:
      for (size_t i = 0; i < count; i++) {
        if (!NAME(fits_f16)(x[i])) {
          *fault = i;
          return PARE_BLOCK_SCALE_OVERFLOW;
        }
      }
      pare_f32_to_f16(x, target, count);
      return PARE_BLOCK_OK;
  }
  return PARE_BLOCK_OK;
}
#undef SEARCH
#undef RULE
