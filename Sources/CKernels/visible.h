#ifndef PARE_VISIBLE_H
#define PARE_VISIBLE_H
#include <stddef.h>

// The columns start ..< end of a tile of keys that a query sees: keys in (query - window, query].
static inline void visible_columns(
    size_t query, size_t first_key, size_t columns, size_t window, size_t *start, size_t *end) {
  *end = query < first_key ? 0 : query - first_key + 1;
  if (*end > columns) *end = columns;
  *start = 0;
  if (window && query >= window) {
    const size_t first_visible = query - window + 1;
    if (first_visible > first_key) *start = first_visible - first_key;
    if (*start > *end) *start = *end;
  }
}

#endif
