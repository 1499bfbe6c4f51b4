#ifndef PARE_PACKED_H
#define PARE_PACKED_H
#include <stddef.h>
#include <stdint.h>

#include "blocks.h"
#include "quantize_groups.h"

/// Matrices packed for multiplication, times activations of 8 bits.
///
/// Rows lie in groups of sixteen. A 64-byte vector of a group holds four neighbouring columns of each
/// row, row r in bytes 4r ..< 4r + 4, so one multiply-add instruction advances all rows by four columns
/// against four activations that are broadcast: no sum across lanes is ever taken, and a group is one
/// stream of memory. Narrower machines take the halves of a vector. Codes and scales keep the bits
/// they have in the stored form.
///
/// A group is a row of units, each a header of scales, padded to 64 bytes, followed by the codes of its
/// blocks of 32 columns. Codes of b bits take 64 b bytes a block: a low part (4 bits: the low nibbles
/// of four vectors are columns 0 ..< 16, the high ones 16 ..< 32; 2 bits: two vectors of four fields)
/// and, for 3, 5 and 6 bits, a high part of one or two bits. A unit has the blocks of a stored
/// super-block, or enough small ones to fill the header; the last of a row may be shorter.
///
/// Sums over 32 columns (16 where scales are that fine) are exact integers; everything after is
/// float32 with fused multiply-adds in one fixed order. A result is therefore the same bits for every
/// instruction set, number of threads, and number of tokens computed with it.

/// Layouts. Names are those of the stored types with the same scales and codes.
enum pare_packed_form {
  PARE_PACKED_NONE = 0,
  PARE_PACKED_Q4_0,
  PARE_PACKED_Q4_1,
  PARE_PACKED_Q5_0,
  PARE_PACKED_Q5_1,
  PARE_PACKED_Q8_0,
  PARE_PACKED_Q2_K,
  PARE_PACKED_Q3_K,
  PARE_PACKED_Q4_K,
  PARE_PACKED_Q5_K,
  PARE_PACKED_Q6_K,
  PARE_PACKED_IQ4_NL,
  PARE_PACKED_IQ4_XS,
  PARE_PACKED_MXFP4,
  PARE_PACKED_TQ2_0,
  /// Affine groups of a multiple of 32 columns, by bits.
  PARE_PACKED_AFFINE2,
  PARE_PACKED_AFFINE3,
  PARE_PACKED_AFFINE4,
  PARE_PACKED_AFFINE5,
  PARE_PACKED_AFFINE6,
  PARE_PACKED_AFFINE8,
  /// Affine groups of 16 columns, by bits.
  PARE_PACKED_FINE2,
  PARE_PACKED_FINE3,
  PARE_PACKED_FINE4,
  PARE_PACKED_FINE5,
  PARE_PACKED_FINE6,
  PARE_PACKED_FINE8,
  PARE_PACKED_FORMS,
};

enum { PARE_PACKED_ROWS = 16 };

struct pare_packed {
  enum pare_packed_form form;
  /// Of the matrix; the last group's missing rows are zeros.
  size_t rows;
  /// A multiple of 32, and of 256 where the stored type has such blocks.
  size_t columns;
  /// Columns that share a scale; affine forms only.
  size_t group;
  /// How an affine form stores its scales, and whether it has zero points.
  enum pare_affine_type scale_type;
  int has_zeros;
  /// Bytes from one group of rows to the next.
  size_t stride;
  const uint8_t *data;
};

/// The layout of GGUF blocks of `type`, for a matrix of this shape: every field but `data`.
/// `form` is PARE_PACKED_NONE where none fits.
struct pare_packed pare_packed_blocks_layout(
    enum pare_block_type type, size_t rows, size_t columns);
/// The same for affine groups.
struct pare_packed pare_packed_affine_layout(
    size_t rows, size_t columns, size_t group, int bits, enum pare_affine_type scale_type,
    int has_zeros);

/// Groups of sixteen rows.
size_t pare_packed_groups(const struct pare_packed *matrix);

/// Packs row group `group` from GGUF blocks; `row_bytes` from one row of blocks to the next.
/// `target`: `stride` bytes.
void pare_pack_blocks(
    const struct pare_packed *layout, enum pare_block_type type, const void *blocks,
    size_t row_bytes, size_t group, uint8_t *target);
/// Packs row group `group` from affine groups. `scratch`: 16 * columns floats.
void pare_pack_affine(
    const struct pare_packed *layout, const struct pare_affine_codes *source, size_t group,
    float *scratch, uint8_t *target);

/// Writes one row as float32: the values the stored form's own decoder gives.
void pare_packed_decode_row(const struct pare_packed *matrix, size_t row, float *target);
/// One element of the same.
float pare_packed_decode_at(const struct pare_packed *matrix, size_t row, size_t column);

/// 32 activations of one token: codes q = roundHalfEven(x / scale), scale = max |x| / 127.
struct pare_activations {
  int8_t codes[32];
  float scale;
  /// -(sum of codes): all, columns 0 ..< 16, columns 16 ..< 32.
  int32_t sum[3];
  /// `sum` times `scale`.
  float scaled[3];
  /// Whether a code is -128, which some kernels have to multiply more slowly.
  int32_t lowest;
};

/// Tokens whose blocks lie side by side: block b of token t of a tile that holds `n` tokens is
/// tile[b * n + t].
enum { PARE_PACKED_TILE = 16 };

/// Quantizes `tokens` rows of x (`columns` a multiple of 32), at most PARE_PACKED_TILE, to one tile.
void pare_quantize_activations(
    const float *x, size_t columns, size_t tokens, struct pare_activations *tile);
/// The same on grids that are given, one for a whole token:
/// q = roundHalfEven(clamp(x / scales[t], low, high)), -128 <= low, high <= 127.
void pare_quantize_activations_on_grid(
    const float *x, size_t columns, size_t tokens, const float *scales, int low, int high,
    struct pare_activations *tile);

/// y[t * y_stride + row] = row · x_t for the rows of groups first ..< last. `x` holds `tokens` tokens
/// in tiles of PARE_PACKED_TILE, the last one shorter.
void pare_packed_multiply(
    const struct pare_packed *matrix, size_t first, size_t last, const struct pare_activations *x,
    size_t tokens, float *y, size_t y_stride);

/// Instruction sets, best last. Level 0 is plain C, the reference.
enum pare_packed_level {
  PARE_LEVEL_PLAIN = 0,
  PARE_LEVEL_AVX2 = 1,
  PARE_LEVEL_VNNI = 2,
  PARE_LEVEL_DOTPROD = 3,
};
/// Whether this processor has a level.
int pare_packed_has_level(enum pare_packed_level level);
/// Uses a level from now on; for tests and measurements. A level that is missing changes nothing.
void pare_packed_use_level(enum pare_packed_level level);

#endif
