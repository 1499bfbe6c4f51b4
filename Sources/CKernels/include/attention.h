#ifndef PARE_ATTENTION_H
#define PARE_ATTENTION_H
#include <stddef.h>

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

/// One query against `count` keys and values that lie `stride` floats apart: scores, softmax and
/// mixture. `scores` has room for `count` floats; `target` and the query have `dim` values.
/// The caller passes only visible keys; `first_distance` is the query's position minus the first
/// key's.
void pare_attend_one(
    const float *query, const float *keys, const float *values, size_t count, size_t dim,
    float scale, float soft_cap, float slope, size_t first_distance, float *scores, float *target);

#endif
