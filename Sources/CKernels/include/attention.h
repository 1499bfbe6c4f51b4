#ifndef PARE_ATTENTION_H
#define PARE_ATTENTION_H
#include <stddef.h>

/// How rows of keys or values are kept.
enum pare_cache_type {
  PARE_CACHE_F32 = 0,
  PARE_CACHE_F16 = 1,
  /// Bytes, and a float32 scale per row: largest magnitude over 127.
  PARE_CACHE_I8 = 2,
  /// One sign, four exponent and three mantissa bits, without a scale; beyond 448 it saturates.
  PARE_CACHE_E4M3 = 3,
  /// Four bits, a scale and a minimum (float16 both) for 32 neighbours of a row: how values are kept.
  PARE_CACHE_I4_ROWS = 4,
  /// Four bits, a scale and a minimum (float16 both) for 32 tokens of a column: how keys are kept.
  PARE_CACHE_I4_COLUMNS = 5,
};

/// Neighbours, or tokens, that share a scale in the forms of four bits:
///     scale = (max - min) / 15        code = roundHalfEven((x - min) / scale)
/// with scale and min rounded to float16 before any code is computed.
enum { PARE_CACHE_GROUP = 32 };

/// Bytes of one row; with PARE_CACHE_I4_COLUMNS of PARE_CACHE_GROUP rows, which are kept together.
size_t pare_cache_row_bytes(enum pare_cache_type type, size_t dim);

/// Stores one row of `dim` values; `scale` is written for int8 only.
void pare_cache_store(
    enum pare_cache_type type, const float *x, size_t dim, void *row, float *scale);
/// Stores PARE_CACHE_GROUP rows `[PARE_CACHE_GROUP, dim]` as PARE_CACHE_I4_COLUMNS.
void pare_cache_store_columns(const float *x, size_t dim, void *group);

/// Rows of one head: token t of a run lies at row first + t.
struct pare_cache_rows {
  enum pare_cache_type type;
  const void *rows;     ///< row 0
  const float *scales;  ///< of row 0, for int8, else null
  size_t first;
};

/// Widens `count` rows of `dim` values from token `start` on; rows of `target` lie `stride` floats
/// apart, and what lies between `dim` and `stride` is set to zero.
void pare_cache_widen(
    const struct pare_cache_rows *from, size_t start, size_t count, size_t dim, float *target,
    size_t stride);

/// Soft cap, ALiBi bias and causal window on a tile of scores, then one step of the online softmax
/// (Milakov and Gimelshein 2018): scores become weights e^(s - m), and each row's running maximum m
/// and sum are updated.
struct pare_score_tile {
  float *scores;   ///< [rows, stride]; scaled products of queries and keys on entry
  size_t rows, columns, stride;
  size_t first_query;  ///< position of row 0
  size_t first_key;    ///< position of column 0
  size_t window;       ///< keys at or before query - window are hidden; 0: no window
  float soft_cap;      ///< 0: none
  float slope;         ///< ALiBi: slope * (key - query) is added
  float *maximum;      ///< [rows], -infinity at first
  float *sum;          ///< [rows], 0 at first
  float *rescale;      ///< [rows] out: factor for what was accumulated before
};
void pare_online_softmax(const struct pare_score_tile *tile);

/// y[r] *= factor[r], for rows of `columns` values.
void pare_scale_rows(float *y, const float *factor, size_t rows, size_t columns);

/// One token's queries that share a key and value head, against a run of its keys: what decoding
/// does. Keys and values are read once for the whole group.
struct pare_attention_span {
  struct pare_cache_rows keys, values;
  size_t count;  ///< all visible; at least 1
  size_t dim;
  const float *queries;  ///< [group, dim]
  size_t group;
  float scale;             ///< factor on query * key
  float soft_cap;          ///< 0: none
  const float *slopes;     ///< [group] of ALiBi, or null
  size_t first_distance;   ///< the query's position minus the first key's
  float *scratch;          ///< pare_attention_scratch_floats
  float *mixture;          ///< [group, dim] out: sum over keys of e^(s - maximum) * value
  float *maximum;          ///< [group] out
  float *sum;              ///< [group] out: sum over keys of e^(s - maximum)
};
size_t pare_attention_scratch_floats(size_t count, size_t dim, size_t group);
void pare_attend_span(const struct pare_attention_span *span);
/// The same in double precision, key by key.
void pare_attend_span_ref(const struct pare_attention_span *span);

/// Joins `parts` consecutive spans of one group: mixture [parts, group, dim], maximum and sum
/// [parts, group] become target [group, dim], normalized.
void pare_attention_join(
    const float *mixture, const float *maximum, const float *sum, size_t parts, size_t group,
    size_t dim, float *target);

#endif
