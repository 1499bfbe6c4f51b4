#include "attention.h"

#include <math.h>

#include "rows.h"
#include "visible.h"

void pare_online_softmax(const struct pare_score_tile *t) {
  for (size_t r = 0; r < t->rows; r++) {
    float *row = t->scores + r * t->stride;
    const size_t query = t->first_query + r;
    size_t start, end;
    visible_columns(query, t->first_key, t->columns, t->window, &start, &end);
    for (size_t c = 0; c < start; c++) row[c] = 0;
    for (size_t c = end; c < t->columns; c++) row[c] = 0;
    if (start == end) {
      t->rescale[r] = 1;
      continue;
    }
    const size_t visible = end - start;
    if (t->soft_cap > 0) pare_soft_cap(row + start, t->soft_cap, row + start, visible);
    if (t->slope != 0) {
      for (size_t c = start; c < end; c++) {
        row[c] += t->slope * ((float)(t->first_key + c) - (float)query);
      }
    }
    const float before = t->maximum[r];
    const float top = fmaxf(before, pare_max(row + start, visible));
    const float rescale = before == -INFINITY ? 0 : expf(before - top);
    t->rescale[r] = rescale;
    t->maximum[r] = top;
    t->sum[r] = t->sum[r] * rescale + pare_exp_shifted(row + start, top, row + start, visible);
  }
}

void pare_scale_rows(float *y, const float *factor, size_t rows, size_t columns) {
  for (size_t r = 0; r < rows; r++) {
    if (factor[r] != 1) pare_scale(y + r * columns, factor[r], y + r * columns, columns);
  }
}
