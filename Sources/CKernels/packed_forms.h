#ifndef PARE_PACKED_FORMS_H
#define PARE_PACKED_FORMS_H
#include "packed.h"

// What tells one layout from another, as constants that every kernel is specialized by.

/// How a unit's header gives its scales; the sizes are bytes per row.
enum {
  SCALES_F16,      // d                       2, for each block of 32 columns
  SCALES_F16_MIN,  // d, m                    4, for each block
  SCALES_E8M0,     // e                       1, for each block
  SCALES_F16_256,  // d                       2, for each 8 blocks
  SCALES_K2,       // d, dmin, 16 (4 + 4)    20, for 8 blocks, as are the next four
  SCALES_K3,       // d, 16 of 6 bits        14
  SCALES_K4,       // d, dmin, 8 (6 + 6)     16
  SCALES_K6,       // d, 16 of 8 bits        18
  SCALES_XS,       // d, 8 of 8 bits         10
  SCALES_AFFINE,   // scale, zero: for each `group` columns
  SCALES_FINE,     // the same for each 16 columns
};

/// What is taken from a product of codes.
enum {
  BIAS_CODE,  // the same code everywhere, as an integer
  BIAS_MIN,   // a float per scale
  BIAS_ZERO,  // a code per scale, as an integer
};

enum { CODES_NL = 14, CODES_FP4 = 24 };  // nibbles that index a table; others are bits

// X(form, codes, scales, columns per scale within a block, bias, biased code, blocks per unit)
#define PARE_PACKED_FORMS_LIST(X)                                    \
  X(Q4_0, 4, SCALES_F16, 32, BIAS_CODE, 8, 4)                        \
  X(Q4_1, 4, SCALES_F16_MIN, 32, BIAS_MIN, 0, 4)                     \
  X(Q5_0, 5, SCALES_F16, 32, BIAS_CODE, 16, 4)                       \
  X(Q5_1, 5, SCALES_F16_MIN, 32, BIAS_MIN, 0, 4)                     \
  X(Q8_0, 8, SCALES_F16, 32, BIAS_CODE, 128, 4)                      \
  X(Q2_K, 2, SCALES_K2, 16, BIAS_MIN, 0, 8)                          \
  X(Q3_K, 3, SCALES_K3, 16, BIAS_CODE, 4, 8)                         \
  X(Q4_K, 4, SCALES_K4, 32, BIAS_MIN, 0, 8)                          \
  X(Q5_K, 5, SCALES_K4, 32, BIAS_MIN, 0, 8)                          \
  X(Q6_K, 6, SCALES_K6, 16, BIAS_CODE, 32, 8)                        \
  X(IQ4_NL, CODES_NL, SCALES_F16, 32, BIAS_CODE, 128, 4)             \
  X(IQ4_XS, CODES_NL, SCALES_XS, 32, BIAS_CODE, 128, 8)              \
  X(MXFP4, CODES_FP4, SCALES_E8M0, 32, BIAS_CODE, 128, 4)            \
  X(TQ2_0, 2, SCALES_F16_256, 32, BIAS_CODE, 1, 16)                  \
  X(AFFINE2, 2, SCALES_AFFINE, 32, BIAS_ZERO, 2, 0)                  \
  X(AFFINE3, 3, SCALES_AFFINE, 32, BIAS_ZERO, 4, 0)                  \
  X(AFFINE4, 4, SCALES_AFFINE, 32, BIAS_ZERO, 8, 0)                  \
  X(AFFINE5, 5, SCALES_AFFINE, 32, BIAS_ZERO, 16, 0)                 \
  X(AFFINE6, 6, SCALES_AFFINE, 32, BIAS_ZERO, 32, 0)                 \
  X(AFFINE8, 8, SCALES_AFFINE, 32, BIAS_ZERO, 128, 0)                \
  X(FINE2, 2, SCALES_FINE, 16, BIAS_ZERO, 2, 4)                      \
  X(FINE3, 3, SCALES_FINE, 16, BIAS_ZERO, 4, 4)                      \
  X(FINE4, 4, SCALES_FINE, 16, BIAS_ZERO, 8, 4)                      \
  X(FINE5, 5, SCALES_FINE, 16, BIAS_ZERO, 16, 4)                     \
  X(FINE6, 6, SCALES_FINE, 16, BIAS_ZERO, 32, 4)                     \
  X(FINE8, 8, SCALES_FINE, 16, BIAS_ZERO, 128, 4)

/// Bits a code takes.
static inline int packed_bits(int codes) {
  return codes == CODES_NL || codes == CODES_FP4 ? 4 : codes;
}
/// Whether codes are bytes that need their sign, so that products of two pairs overflow 16 bits.
static inline int packed_is_wide(int codes) { return codes >= 8; }

static const int8_t packed_table_nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                           1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t packed_table_fp4[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

static inline size_t packed_scale_bytes(enum pare_affine_type type) {
  return type == PARE_AFFINE_F32 ? 4 : 2;
}

/// Blocks of a unit.
static inline size_t packed_unit_blocks(const struct pare_packed *matrix, size_t constant) {
  if (constant) return constant;
  const size_t group = matrix->group / 32;
  return group < 8 && 8 % group == 0 ? 8 : group;
}

/// Bytes of the header of a unit of `blocks` blocks.
static inline size_t packed_header_bytes(
    const struct pare_packed *matrix, int scales, size_t blocks) {
  size_t bytes = 0;
  const size_t one = packed_scale_bytes(matrix->scale_type) + (matrix->has_zeros ? 1 : 0);
  switch (scales) {
    case SCALES_F16: bytes = 2 * blocks; break;
    case SCALES_F16_MIN: bytes = 4 * blocks; break;
    case SCALES_E8M0: bytes = blocks; break;
    case SCALES_F16_256: bytes = 2 * (blocks / 8); break;
    case SCALES_K2: bytes = 20; break;
    case SCALES_K3: bytes = 14; break;
    case SCALES_K4: bytes = 16; break;
    case SCALES_K6: bytes = 18; break;
    case SCALES_XS: bytes = 10; break;
    case SCALES_AFFINE: {
      const size_t group = matrix->group / 32;
      bytes = (blocks + group - 1) / group * one;
      break;
    }
    case SCALES_FINE: bytes = 2 * blocks * one; break;
  }
  return (bytes * PARE_PACKED_ROWS + 63) / 64 * 64;
}

/// What a form is made of.
struct form_traits {
  int codes, scales, columns_per_scale, bias_kind, bias_code;
  size_t blocks_per_unit;
};

extern const struct form_traits packed_traits[PARE_PACKED_FORMS];

#endif
