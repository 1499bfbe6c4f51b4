#ifndef PARE_NF4_H
#define PARE_NF4_H
#include <stddef.h>
#include <stdint.h>

/// NormalFloat-4 (Dettmers et al. 2023, arXiv:2305.14314, section 3): each weight is one of sixteen
/// levels, quantiles of a normal distribution, times the largest magnitude of its block. A matrix
/// is one run of numbers in row order; blocks of it share a scale, whatever the rows' length.
///
/// Codes are two to a byte, the first in the high nibble. Scales are float32, or 8-bit codes of a table
/// of 256 values ("double quantization"):
///
///     scale[b] = levels[scale_codes[b]] * scale_scales[b / scale_block] + offset
struct pare_nf4 {
  /// Numbers that share a scale: a multiple of 16.
  size_t block;
  const uint8_t *codes;
  /// One for each block, any alignment; NULL where the scales are quantized.
  const void *scales;
  const uint8_t *scale_codes;
  /// The 256 values of scale codes and one scale for each `scale_block` of them, any alignment.
  const void *scale_levels, *scale_scales;
  size_t scale_block;
  float offset;
};

/// The sixteen levels, ascending from -1 to 1.
extern const float pare_nf4_levels[16];

/// The scale of a block, float32 arithmetic without contraction.
float pare_nf4_scale(const struct pare_nf4 *matrix, size_t block);

/// target[i] = level * scale of number first + i, for i < count: any first and count.
void pare_nf4_decode(const struct pare_nf4 *matrix, size_t first, size_t count, float *target);
/// The same, one number at a time; equal bit for bit.
void pare_nf4_decode_reference(
    const struct pare_nf4 *matrix, size_t first, size_t count, float *target);

/// scales[b] = largest magnitude of block b of `count` numbers.
/// - Returns: the index of the first number that is NaN or infinite, else `count`.
size_t pare_nf4_scales(const float *source, size_t count, size_t block, float *scales);

/// Codes of `count` numbers that begin a block: the nearest level to source[i] * (1 / scale) clamped
/// to ±1, the lower one of two equally near; the level 0 where a scale is 0, and beside the last of an
/// odd count. A scale may be negative, as quantized ones near 0 can become. Writes (count + 1) / 2
/// bytes.
void pare_nf4_encode(
    const float *source, size_t count, size_t block, const float *scales, uint8_t *codes);
/// The same, by comparing the distances to all levels.
void pare_nf4_encode_reference(
    const float *source, size_t count, size_t block, const float *scales, uint8_t *codes);

#endif
