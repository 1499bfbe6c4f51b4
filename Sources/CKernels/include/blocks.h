#ifndef PARE_BLOCKS_H
#define PARE_BLOCKS_H
#include <stddef.h>

/// The element types of GGUF files by their numbers there. All but the plain ones are blocks: a run
/// of neighbouring weights of one row with its own scales.
enum pare_block_type {
  PARE_BLOCK_F32 = 0,
  PARE_BLOCK_F16 = 1,
  PARE_BLOCK_Q4_0 = 2,
  PARE_BLOCK_Q4_1 = 3,
  PARE_BLOCK_Q5_0 = 6,
  PARE_BLOCK_Q5_1 = 7,
  PARE_BLOCK_Q8_0 = 8,
  PARE_BLOCK_Q2_K = 10,
  PARE_BLOCK_Q3_K = 11,
  PARE_BLOCK_Q4_K = 12,
  PARE_BLOCK_Q5_K = 13,
  PARE_BLOCK_Q6_K = 14,
  PARE_BLOCK_IQ4_NL = 20,
  PARE_BLOCK_IQ4_XS = 23,
  PARE_BLOCK_BF16 = 30,
  PARE_BLOCK_TQ1_0 = 34,
  PARE_BLOCK_TQ2_0 = 35,
  PARE_BLOCK_MXFP4 = 39,
};

#endif
