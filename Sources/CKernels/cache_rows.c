// Rows of keys and values in the forms a cache keeps them. Four bits after Liu et al. 2024, "KIVI"
// (arXiv:2402.02750): keys have a few channels that are large in every token, so a grid runs down a
// channel; values have none, so a grid runs along a token.
#include <math.h>
#include <string.h>

#include "attention.h"
#include "rows.h"
#include "vector.h"

#pragma STDC FP_CONTRACT OFF

enum { GROUP = PARE_CACHE_GROUP, HALF = GROUP / 2, HIGHEST = 15 };

static size_t groups(size_t dim) { return (dim + GROUP - 1) / GROUP; }
/// Sixteen bytes hold 32 neighbours, the first half in the low nibbles; a last group may be shorter.
static size_t code_bytes(size_t dim) { return dim / GROUP * HALF + (dim % GROUP + 1) / 2; }

size_t pare_cache_row_bytes(enum pare_cache_type type, size_t dim) {
  switch (type) {
    case PARE_CACHE_F32: return dim * 4;
    case PARE_CACHE_F16: return dim * 2;
    case PARE_CACHE_I8:
    case PARE_CACHE_E4M3: return dim;
    case PARE_CACHE_I4_ROWS: return groups(dim) * 4 + code_bytes(dim);
    case PARE_CACHE_I4_COLUMNS: return dim * 4 + GROUP * code_bytes(dim);
  }
  return 0;
}

/// The code of eight bits nearest to x, half to even.
static unsigned char e4m3(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  const unsigned char sign = (bits >> 24) & 0x80;
  float size = fabsf(x);
  if (isnan(x)) return sign | 0x7f;
  if (size > 448) size = 448;
  // Below the smallest normal number steps are 2^-9.
  if (size < 0x1p-6f) return sign | (unsigned char)rintf(size * 512);
  memcpy(&bits, &size, 4);
  bits += 0x7ffff + ((bits >> 20) & 1);
  return sign | (unsigned char)((bits >> 20) - (120 << 3));
}

/// A grid of sixteen steps over a range, as float16 keeps it.
static void four_bit_grid(float low, float high, float *scale, float *minimum) {
  unsigned short half[2];
  const float exact[2] = {(high - low) / HIGHEST, low};
  pare_f32_to_f16(exact, half, 2);
  float kept[2];
  pare_f16_to_f32(half, kept, 2);
  *scale = kept[0];
  *minimum = kept[1];
}

static unsigned four_bit_code(float x, float scale, float minimum) {
  // A scale of zero means that all are the minimum; the comparisons also take NaN to a code.
  const float steps = scale > 0 ? rintf((x - minimum) / scale) : 0;
  return steps >= HIGHEST ? HIGHEST : steps > 0 ? (unsigned)steps : 0;
}

/// Puts the code of column i of a row of `dim` in its nibble; bytes start as zeros.
static void put_nibble(unsigned char *codes, size_t dim, size_t i, unsigned code) {
  const size_t group = i / GROUP, in = i % GROUP;
  const size_t left = dim - group * GROUP, half = left < GROUP ? (left + 1) / 2 : HALF;
  codes[group * HALF + (in < half ? in : in - half)] |= (unsigned char)(in < half ? code : code << 4);
}

void pare_cache_store(
    enum pare_cache_type type, const float *x, size_t dim, void *row, float *scale) {
  switch (type) {
    case PARE_CACHE_F32: memcpy(row, x, dim * sizeof(float)); break;
    case PARE_CACHE_F16: pare_f32_to_f16(x, row, dim); break;
    case PARE_CACHE_I8: {
      float top = 0;
      for (size_t i = 0; i < dim; i++) top = fmaxf(top, fabsf(x[i]));
      *scale = top / 127;
      const float inverse = top > 0 ? 127 / top : 0;
      signed char *codes = row;
      for (size_t i = 0; i < dim; i++) codes[i] = (signed char)rintf(x[i] * inverse);
      break;
    }
    case PARE_CACHE_E4M3:
      for (size_t i = 0; i < dim; i++) ((unsigned char *)row)[i] = e4m3(x[i]);
      break;
    case PARE_CACHE_I4_ROWS: {
      unsigned char *codes = (unsigned char *)row + groups(dim) * 4;
      memset(codes, 0, code_bytes(dim));
      for (size_t g = 0; g < groups(dim); g++) {
        const size_t start = g * GROUP, end = start + GROUP < dim ? start + GROUP : dim;
        float low = x[start], high = x[start], grid[2];
        for (size_t i = start; i < end; i++) {
          low = fminf(low, x[i]);
          high = fmaxf(high, x[i]);
        }
        four_bit_grid(low, high, &grid[0], &grid[1]);
        pare_f32_to_f16(grid, (unsigned char *)row + 4 * g, 2);
        for (size_t i = start; i < end; i++) {
          put_nibble(codes, dim, i, four_bit_code(x[i], grid[0], grid[1]));
        }
      }
      break;
    }
    case PARE_CACHE_I4_COLUMNS: break;  // not row by row
  }
}

void pare_cache_store_columns(const float *x, size_t dim, void *group) {
  unsigned char *base = group, *codes = base + dim * 4;
  const size_t bytes = code_bytes(dim);
  memset(codes, 0, GROUP * bytes);
  for (size_t i = 0; i < dim; i++) {
    float low = x[i], high = x[i], scale, minimum;
    for (size_t t = 1; t < GROUP; t++) {
      low = fminf(low, x[t * dim + i]);
      high = fmaxf(high, x[t * dim + i]);
    }
    four_bit_grid(low, high, &scale, &minimum);
    // Scales of all columns, then minima.
    pare_f32_to_f16(&scale, base + 2 * i, 1);
    pare_f32_to_f16(&minimum, base + 2 * (dim + i), 1);
    for (size_t t = 0; t < GROUP; t++) {
      put_nibble(codes + t * bytes, dim, i, four_bit_code(x[t * dim + i], scale, minimum));
    }
  }
}

/// One row of nibbles on a grid for each column.
__attribute__((always_inline)) static inline void widen_nibbles(
    const unsigned char *codes, const float *scale, const float *minimum, size_t dim, float *y) {
  for (; dim >= GROUP; dim -= GROUP, codes += HALF, scale += GROUP, minimum += GROUP, y += GROUP) {
    for (int i = 0; i < HALF; i++) {
      y[i] = (float)(codes[i] & 15) * scale[i] + minimum[i];
      y[HALF + i] = (float)(codes[i] >> 4) * scale[HALF + i] + minimum[HALF + i];
    }
  }
  const size_t half = (dim + 1) / 2;
  for (size_t i = 0; i < half; i++) {
    y[i] = (float)(codes[i] & 15) * scale[i] + minimum[i];
    if (half + i < dim) y[half + i] = (float)(codes[i] >> 4) * scale[half + i] + minimum[half + i];
  }
}

PARE_KERNEL static void widen_row_grids(
    const unsigned char *rows, size_t count, size_t dim, float *target, size_t stride) {
  float grids[2 * groups(dim)], scale[dim], minimum[dim];
  const size_t bytes = pare_cache_row_bytes(PARE_CACHE_I4_ROWS, dim);
  for (size_t r = 0; r < count; r++) {
    const unsigned char *row = rows + r * bytes;
    pare_f16_to_f32(row, grids, 2 * groups(dim));
    for (size_t i = 0; i < dim; i++) {
      scale[i] = grids[i / GROUP * 2];
      minimum[i] = grids[i / GROUP * 2 + 1];
    }
    widen_nibbles(row + groups(dim) * 4, scale, minimum, dim, target + r * stride);
  }
}

PARE_KERNEL static void widen_column_grids(
    const unsigned char *rows, size_t first, size_t count, size_t dim, float *target,
    size_t stride) {
  float grids[2 * dim];
  const size_t bytes = pare_cache_row_bytes(PARE_CACHE_I4_COLUMNS, dim);
  for (size_t r = 0; r < count; r++) {
    const size_t row = first + r;
    const unsigned char *group = rows + row / GROUP * bytes;
    if (r == 0 || row % GROUP == 0) pare_f16_to_f32(group, grids, 2 * dim);
    const unsigned char *codes = group + dim * 4 + row % GROUP * code_bytes(dim);
    widen_nibbles(codes, grids, grids + dim, dim, target + r * stride);
  }
}

/// Eight bits are the upper ones of a float16 but for the exponent's bias.
PARE_KERNEL static void widen_e4m3(const unsigned char *codes, size_t dim, float *y) {
  unsigned short halves[dim];
  for (size_t i = 0; i < dim; i++) {
    halves[i] = (unsigned short)((codes[i] & 0x80) << 8 | (codes[i] & 0x7f) << 7);
  }
  pare_f16_to_f32(halves, y, dim);
  for (size_t i = 0; i < dim; i++) y[i] *= 256;
}

PARE_KERNEL static void widen_bytes(
    const signed char *codes, float scale, size_t dim, float *y) {
  for (size_t i = 0; i < dim; i++) y[i] = (float)codes[i] * scale;
}

void pare_cache_widen(
    const struct pare_cache_rows *from, size_t start, size_t count, size_t dim, float *target,
    size_t stride) {
  const size_t first = from->first + start, bytes = pare_cache_row_bytes(from->type, dim);
  const unsigned char *base = from->rows;
  if (from->type == PARE_CACHE_I4_COLUMNS) {
    widen_column_grids(base, first, count, dim, target, stride);
  } else if (from->type == PARE_CACHE_I4_ROWS) {
    widen_row_grids(base + first * bytes, count, dim, target, stride);
  }
  for (size_t r = 0; r < count; r++) {
    float *y = target + r * stride;
    const unsigned char *row = base + (first + r) * bytes;
    switch (from->type) {
      case PARE_CACHE_F32: memcpy(y, row, dim * sizeof(float)); break;
      case PARE_CACHE_F16: pare_f16_to_f32(row, y, dim); break;
      case PARE_CACHE_I8:
        widen_bytes((const signed char *)row, from->scales[first + r], dim, y);
        break;
      case PARE_CACHE_E4M3: widen_e4m3(row, dim, y); break;
      case PARE_CACHE_I4_ROWS:
      case PARE_CACHE_I4_COLUMNS: break;
    }
    for (size_t i = dim; i < stride; i++) y[i] = 0;
  }
}
