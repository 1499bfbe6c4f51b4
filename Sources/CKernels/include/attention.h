#ifndef PARE_ATTENTION_H
#define PARE_ATTENTION_H
#include <stddef.h>

/// How keys and values are kept. An int8 row has a float32 scale of its own; the rest have none.
enum pare_cache_type {
  PARE_CACHE_F32 = 0,
  PARE_CACHE_F16 = 1,
  PARE_CACHE_I8 = 2,
};

/// Stores one row of `dim` values; `scale` is written for int8 only (largest magnitude over 127).
void pare_cache_store(
    enum pare_cache_type type, const float *x, size_t dim, void *row, float *scale);

/// Widens `count` rows of `dim` values; rows of `target` lie `stride` floats apart, and what lies
/// between `dim` and `stride` is set to zero.
void pare_cache_widen(
    enum pare_cache_type type, const void *rows, const float *scales, size_t count, size_t dim,
    float *target, size_t stride);

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
  enum pare_cache_type type;
  const void *keys;           ///< [count, dim]
  const void *values;         ///< [count, dim]
  const float *key_scales;    ///< [count] for int8, else null
  const float *value_scales;  ///< as key_scales
  size_t count;               ///< all visible; at least 1
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
