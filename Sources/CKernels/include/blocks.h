#ifndef PARE_BLOCKS_H
#define PARE_BLOCKS_H
#include <stddef.h>
#include <stdint.h>

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

/// Weights of a block (1 for the plain types), and its bytes; 0 for a number that is no such type.
size_t pare_block_length(enum pare_block_type type);
size_t pare_block_bytes(enum pare_block_type type);

/// Writes `count` weights, a multiple of the block length, as float32. Any alignment.
void pare_block_decode(
    enum pare_block_type type, const void *blocks, size_t count, float *target);
/// The same written plainly, weight by weight; equal bits.
void pare_block_decode_reference(
    enum pare_block_type type, const void *blocks, size_t count, float *target);

enum pare_block_status {
  PARE_BLOCK_OK = 0,
  /// A weight is NaN or infinite: `fault` is its index.
  PARE_BLOCK_NOT_FINITE = 1,
  /// A scale does not fit its float16: `fault` is the index of the block's first weight.
  PARE_BLOCK_SCALE_OVERFLOW = 2,
};

/// Encodes one row of `count` weights, a multiple of the block length.
///
/// `importance`, when not null, holds one finite number >= 0 for each of the `count` columns (the
/// mean square of what the column is multiplied by): the scales are then chosen for the least
/// sum of importance * error^2, otherwise (k-quants and IQ4) for the least sum of error^2.
/// Q4_0, Q4_1, Q5_0 and Q5_1 without importance, and Q8_0, TQ1_0, TQ2_0 and MXFP4 always, follow
/// the format's own rule instead, so that their bytes are what every writer gives.
/// The bytes do not depend on the instruction set.
enum pare_block_status pare_block_encode(
    enum pare_block_type type, const float *x, size_t count, const float *importance,
    void *blocks, size_t *fault);

/// The same on instruction set `level`, or the best below it that this machine has: 0 portable
/// vectors, 1 AVX2, 2 AVX-512.
enum pare_block_status pare_block_encode_at(
    int level, enum pare_block_type type, const float *x, size_t count, const float *importance,
    void *blocks, size_t *fault);

/// Replaces the codes of a row's blocks by those nearest to `x`; the scales stay. Values that an
/// encoder's blocks decode to give the same blocks, as long as float32 tells the values apart.
/// `fault` is the index of a NaN or infinity.
enum pare_block_status pare_block_recode(
    enum pare_block_type type, const float *x, size_t count, void *blocks, size_t *fault);

/// Weight i of a block is scale * level + offset, where the level is what its code stands for.
struct pare_block_point {
  float scale, offset;
  int level;
};
struct pare_block_point pare_block_point(enum pare_block_type type, const void *block, size_t i);
/// Half the distance between the two values around `x` that weight i of a block can take, or -1 when
/// `x` lies outside them. Block types only.
float pare_block_half_step(enum pare_block_type type, const void *block, size_t i, float x);

/// Sums over a row, added to what is there.
struct pare_block_error {
  double squared_error, squared_weight;
  float largest_error;
};
void pare_block_compare(
    const float *x, const float *decoded, size_t count, struct pare_block_error *sums);

#endif
