// Float32 rows to blocks. See include/blocks.h for the contract.
//
// Blocks with one scale follow the format's rule (blocks_encode_simple_body.h). Where a scale is
// searched for, sixteen groups are searched at once, one per lane (blocks_encode_lanes_body.h,
// blocks_encode_super_body.h). One body over portable 16-lane vectors serves every instruction set;
// nothing is fused or reordered, so the bytes are equal on all of them.
#include <math.h>

#include "blocks_layout.h"
#include "rows.h"

#pragma STDC FP_CONTRACT OFF
// Vectors are passed only among functions of one instruction set in this file.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float lane_f32 __attribute__((ext_vector_type(16)));
typedef int32_t lane_i32 __attribute__((ext_vector_type(16)));
typedef uint32_t lane_u32 __attribute__((ext_vector_type(16)));
typedef uint8_t lane_u8 __attribute__((ext_vector_type(16)));
/// One bit a lane, the first lane's the lowest.
typedef _Bool lane_bits __attribute__((ext_vector_type(16)));

/// What codes stand for before they are scaled: integers around zero, named by how many lie below
/// it, -1 to 1, or the levels of IQ4 and FP4.
enum lane_ladder {
  LADDER_4,
  LADDER_8,
  LADDER_16,
  LADDER_32,
  LADDER_128,
  LADDER_TRIT,
  LADDER_IQ4,
  LADDER_FP4,
};

static const float lane_iq4[16] = BLOCK_IQ4_LEVELS;
static const float lane_fp4[16] = BLOCK_FP4_LEVELS;

/// Levels at which the largest weight of an IQ4 group is tried: near both ends of the ladder.
static const float lane_iq4_grids[] = {-127, -120, -113, -106, -134, -141, -150, -99,
                                       113,  106,  120,  99,   128,  -92,  137,  92};
#define LANE_IQ4_GRIDS 16

/// No weight above this can be reached with float16 scales: a bound, so that squares of what passes
/// stay far from overflow.
static float largest_weight(enum pare_block_type type) {
  const float half = 65504;
  switch (type) {
    case PARE_BLOCK_Q2_K: return half * 15 * 4;
    case PARE_BLOCK_Q3_K: return half * 32 * 5;
    case PARE_BLOCK_Q4_K: return half * 63 * 16;
    case PARE_BLOCK_Q5_K: return half * 63 * 32;
    case PARE_BLOCK_Q6_K: return half * 128 * 33;
    case PARE_BLOCK_IQ4_XS: return half * 32 * 150;
    default: return half * 150;
  }
}

/// Index of the first weight above the bound, or -1.
static int too_large(const float *x, size_t count, float limit) {
  for (size_t i = 0; i < count; i++) {
    if (fabsf(x[i]) > limit) return (int)i;
  }
  return -1;
}

#define TARGET
#define NAME(x) portable_##x
#include "blocks_encode_lanes_body.h"
#include "blocks_encode_pack_body.h"
#include "blocks_encode_super_body.h"
#include "blocks_encode_simple_body.h"
#include "blocks_encode_row_body.h"
#include "blocks_recode_body.h"
#undef TARGET
#undef NAME

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define NAME(x) avx2_##x
#include "blocks_encode_lanes_body.h"
#include "blocks_encode_pack_body.h"
#include "blocks_encode_super_body.h"
#include "blocks_encode_simple_body.h"
#include "blocks_encode_row_body.h"
#include "blocks_recode_body.h"
#undef TARGET
#undef NAME

#define TARGET                                                                       \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2"), \
                 min_vector_width(512)))
#define NAME(x) avx512_##x
#include "blocks_encode_lanes_body.h"
#include "blocks_encode_pack_body.h"
#include "blocks_encode_super_body.h"
#include "blocks_encode_simple_body.h"
#include "blocks_encode_row_body.h"
#include "blocks_recode_body.h"
#undef TARGET
#undef NAME

static int best_level(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return 2;
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
          __builtin_cpu_supports("f16c")
      ? 1
      : 0;
}
#endif

enum pare_block_status pare_block_encode_at(
    int level, enum pare_block_type type, const float *x, size_t count, const float *importance,
    void *blocks, size_t *fault) {
  if (pare_block_length(type) == 0) return PARE_BLOCK_OK;
#if defined(__x86_64__)
  const int best = best_level();
  switch (level < best ? level : best) {
    case 2: return avx512_encode_row(type, x, count, importance, blocks, fault);
    case 1: return avx2_encode_row(type, x, count, importance, blocks, fault);
    default: break;
  }
#else
  (void)level;
#endif
  return portable_encode_row(type, x, count, importance, blocks, fault);
}

enum pare_block_status pare_block_encode(
    enum pare_block_type type, const float *x, size_t count, const float *importance,
    void *blocks, size_t *fault) {
  return pare_block_encode_at(2, type, x, count, importance, blocks, fault);
}

enum pare_block_status pare_block_recode(
    enum pare_block_type type, const float *x, size_t count, void *blocks, size_t *fault) {
#if defined(__x86_64__)
  switch (best_level()) {
    case 2: return avx512_recode_row(type, x, count, blocks, fault);
    case 1: return avx2_recode_row(type, x, count, blocks, fault);
    default: break;
  }
#endif
  return portable_recode_row(type, x, count, blocks, fault);
}
