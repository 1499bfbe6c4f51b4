#ifndef PARE_PACKED_FORMS_H
#define PARE_PACKED_FORMS_H
#include "packed.h"

// What tells one layout from another, as constants that every kernel is specialized by.

/// How a unit's header gives its scales. The sizes are those of headers for eight rows.
enum {
  SCALES_F16,      // d                            16 bytes, for 32 columns
  SCALES_F16_MIN,  // d, m                         32 bytes
  SCALES_E8M0,     // e                             8 bytes
  SCALES_F16_256,  // d                            16 bytes, for 256 columns, as are the rest
  SCALES_K2,       // d, dmin, 16 x (4 + 4) bits  160 bytes
  SCALES_K3,       // d, 16 x 6 bits              112 bytes
  SCALES_K4,       // d, dmin, 8 x (6 + 6) bits   128 bytes
  SCALES_K6,       // d, 16 x 8 bits              144 bytes
  SCALES_XS,       // d, 8 x 8 bits                80 bytes
  SCALES_AFFINE,   // scale, zero: for `group` columns
  SCALES_FINE,     // two of those, for 16 columns each
};

/// What is taken from a product of codes.
enum {
  BIAS_CODE,  // the same code everywhere, as an integer
  BIAS_MIN,   // a float per scale
  BIAS_ZERO,  // a code per scale, as an integer
};

enum { CODES_NL = 14, CODES_FP4 = 24 };  // nibbles that index a table; others are bits

// X(form, codes, scales, columns per scale within a block, bias, biased code, blocks of 32 per unit)
#define PARE_PACKED_FORMS_LIST(X)                                    \
  X(Q4_0, 4, SCALES_F16, 32, BIAS_CODE, 8, 1)                        \
  X(Q4_1, 4, SCALES_F16_MIN, 32, BIAS_MIN, 0, 1)                     \
  X(Q5_0, 5, SCALES_F16, 32, BIAS_CODE, 16, 1)                       \
  X(Q5_1, 5, SCALES_F16_MIN, 32, BIAS_MIN, 0, 1)                     \
  X(Q8_0, 8, SCALES_F16, 32, BIAS_CODE, 128, 1)                      \
  X(Q2_K, 2, SCALES_K2, 16, BIAS_MIN, 0, 8)                          \
  X(Q3_K, 3, SCALES_K3, 16, BIAS_CODE, 4, 8)                         \
  X(Q4_K, 4, SCALES_K4, 32, BIAS_MIN, 0, 8)                          \
  X(Q5_K, 5, SCALES_K4, 32, BIAS_MIN, 0, 8)                          \
  X(Q6_K, 6, SCALES_K6, 16, BIAS_CODE, 32, 8)                        \
  X(IQ4_NL, CODES_NL, SCALES_F16, 32, BIAS_CODE, 128, 1)             \
  X(IQ4_XS, CODES_NL, SCALES_XS, 32, BIAS_CODE, 128, 8)              \
  X(MXFP4, CODES_FP4, SCALES_E8M0, 32, BIAS_CODE, 128, 1)            \
  X(TQ2_0, 2, SCALES_F16_256, 32, BIAS_CODE, 1, 8)                   \
  X(AFFINE2, 2, SCALES_AFFINE, 32, BIAS_ZERO, 2, 0)                  \
  X(AFFINE3, 3, SCALES_AFFINE, 32, BIAS_ZERO, 4, 0)                  \
  X(AFFINE4, 4, SCALES_AFFINE, 32, BIAS_ZERO, 8, 0)                  \
  X(AFFINE5, 5, SCALES_AFFINE, 32, BIAS_ZERO, 16, 0)                 \
  X(AFFINE6, 6, SCALES_AFFINE, 32, BIAS_ZERO, 32, 0)                 \
  X(AFFINE8, 8, SCALES_AFFINE, 32, BIAS_ZERO, 128, 0)                \
  X(FINE2, 2, SCALES_FINE, 16, BIAS_ZERO, 2, 1)                      \
  X(FINE3, 3, SCALES_FINE, 16, BIAS_ZERO, 4, 1)                      \
  X(FINE4, 4, SCALES_FINE, 16, BIAS_ZERO, 8, 1)                      \
  X(FINE5, 5, SCALES_FINE, 16, BIAS_ZERO, 16, 1)                     \
  X(FINE6, 6, SCALES_FINE, 16, BIAS_ZERO, 32, 1)                     \
  X(FINE8, 8, SCALES_FINE, 16, BIAS_ZERO, 128, 1)

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

/// Bytes of a unit's header.
static inline size_t packed_header_bytes(
    int scales, enum pare_affine_type scale_type, int has_zeros) {
  switch (scales) {
    case SCALES_F16: return 16;
    case SCALES_F16_MIN: return 32;
    case SCALES_E8M0: return 8;
    case SCALES_F16_256: return 16;
    case SCALES_K2: return 32 + 128;
    case SCALES_K3: return 16 + 96;
    case SCALES_K4: return 32 + 96;
    case SCALES_K6: return 16 + 128;
    case SCALES_XS: return 16 + 64;
    default: {
      const size_t one = 8 * packed_scale_bytes(scale_type) + (has_zeros ? 8 : 0);
      return scales == SCALES_FINE ? 2 * one : one;
    }
  }
}

#endif
