#include "fake_quantize.h"

#include <math.h>

#include "quantize_groups_grid.h"
#include "vector.h"

// A fused multiply-add would move values that lie near a half, and the codes would no longer be those
// of quantize_groups.c.
#pragma STDC FP_CONTRACT OFF

/// round(u) as far as one step beyond the grid, where it is exact and tells inside from outside.
static inline float nearby(float u, float low, float high) {
  float c = u < low - 1 ? low - 1 : u;
  c = c > high + 1 ? high + 1 : c;
  return (c + AFFINE_MAGIC) - AFFINE_MAGIC;
}

static inline float onto(float r, float low, float high) {
  const float q = r < low ? low : r;
  return q > high ? high : q;
}

PARE_KERNEL static void quantize_group(
    const float *restrict w, const float *restrict v, float scale, float zero, float low,
    float high, float *restrict y, size_t count) {
  if (v) {
    for (size_t i = 0; i < count; i++) {
      y[i] = (onto(nearby(w[i] / scale + zero + v[i], low, high), low, high) - zero) * scale;
    }
  } else {
    for (size_t i = 0; i < count; i++) {
      y[i] = (onto(nearby(w[i] / scale + zero, low, high), low, high) - zero) * scale;
    }
  }
}

struct group_gradient {
  float scale, zero;
};

PARE_KERNEL static struct group_gradient quantize_group_gradient(
    const float *restrict w, const float *restrict v, float scale, float zero, float low,
    float high, const float *restrict dy, float *restrict dw, float *restrict dv, size_t count) {
  // Sums run in lanes of a fixed number, so that every machine adds in the same order.
  float d_scale[AFFINE_LANES] = {0}, d_zero[AFFINE_LANES] = {0};
  const size_t whole = count / AFFINE_LANES * AFFINE_LANES;
  for (size_t i = 0; i < count; i += AFFINE_LANES) {
    const size_t lanes = i < whole ? AFFINE_LANES : count - whole;
    for (size_t lane = 0; lane < lanes; lane++) {
      const size_t at = i + lane;
      const float steps = w[at] / scale;
      const float u = v ? steps + zero + v[at] : steps + zero;
      const float r = nearby(u, low, high);
      const float inside = r >= low && r <= high ? 1.0f : 0.0f;
      const float passed = dy[at] * inside;
      const float code = onto(r, low, high) - zero;
      d_scale[lane] += dy[at] * (code - inside * steps);
      d_zero[lane] += (dy[at] - passed) * scale;
      if (dw) dw[at] = passed;
      if (dv) dv[at] = passed * scale;
    }
  }
  struct group_gradient sum = {0, 0};
  for (int lane = 0; lane < AFFINE_LANES; lane++) {
    sum.scale += d_scale[lane];
    sum.zero -= d_zero[lane];
  }
  return sum;
}

static inline size_t group_end(size_t start, size_t group, size_t columns) {
  return columns - start < group ? columns : start + group;
}

void pare_fake_quantize_row(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, float *y) {
  const float low = -(float)(1 << (f->bits - 1)), high = (float)((1 << (f->bits - 1)) - 1);
  for (size_t start = 0, g = 0; start < f->columns; start += f->group, g++) {
    quantize_group(
        w + start, v ? v + start : 0, scales[g], zeros[g], low, high, y + start,
        group_end(start, f->group, f->columns) - start);
  }
}

void pare_fake_quantize_row_gradient(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, const float *dy, float *dw, float *dv, float *d_scale, float *d_zero) {
  const float low = -(float)(1 << (f->bits - 1)), high = (float)((1 << (f->bits - 1)) - 1);
  for (size_t start = 0, g = 0; start < f->columns; start += f->group, g++) {
    const struct group_gradient sum = quantize_group_gradient(
        w + start, v ? v + start : 0, scales[g], zeros[g], low, high, dy + start,
        dw ? dw + start : 0, dv ? dv + start : 0, group_end(start, f->group, f->columns) - start);
    d_scale[g] = sum.scale;
    d_zero[g] = sum.zero;
  }
}

void pare_fake_quantize_row_reference(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, float *y) {
  const float low = -(float)(1 << (f->bits - 1)), high = (float)((1 << (f->bits - 1)) - 1);
  for (size_t i = 0; i < f->columns; i++) {
    const float scale = scales[i / f->group], zero = zeros[i / f->group];
    const float u = w[i] / scale + zero + (v ? v[i] : 0);
    const float q = u < low ? low : u > high ? high : rintf(u);
    y[i] = (q - zero) * scale;
  }
}

void pare_fake_quantize_row_gradient_reference(
    const struct pare_fake_quantization *f, const float *scales, const float *zeros, const float *w,
    const float *v, const float *dy, float *dw, float *dv, float *d_scale, float *d_zero) {
  const float low = -(float)(1 << (f->bits - 1)), high = (float)((1 << (f->bits - 1)) - 1);
  for (size_t start = 0, g = 0; start < f->columns; start += f->group, g++) {
    const double scale = scales[g], zero = zeros[g];
    double of_scale = 0, of_zero = 0;
    for (size_t i = start; i < group_end(start, f->group, f->columns); i++) {
      const float u = w[i] / scales[g] + zeros[g] + (v ? v[i] : 0);
      const float r = rintf(u);
      const int inside = r >= low && r <= high;
      const double q = r < low ? low : r > high ? high : r;
      of_scale += dy[i] * (q - zero - (inside ? w[i] / scale : 0));
      if (!inside) of_zero -= dy[i] * scale;
      if (dw) dw[i] = inside ? dy[i] : 0;
      if (dv) dv[i] = inside ? (float)(dy[i] * scale) : 0;
    }
    d_scale[g] = (float)of_scale;
    d_zero[g] = (float)of_zero;
  }
}

PARE_KERNEL void pare_group_ranges_row(
    const float *w, size_t columns, size_t group, float *lows, float *highs, int32_t *low_columns,
    int32_t *high_columns) {
  for (size_t start = 0, g = 0; start < columns; start += group, g++) {
    const size_t end = group_end(start, group, columns);
    float low = 0, high = 0;
    for (size_t i = start; i < end; i++) {
      low = w[i] < low ? w[i] : low;
      high = w[i] > high ? w[i] : high;
    }
    int32_t at_low = -1, at_high = -1;
    for (size_t i = end; i-- > start;) {
      if (low < 0 && w[i] == low) at_low = (int32_t)i;
      if (high > 0 && w[i] == high) at_high = (int32_t)i;
    }
    lows[g] = low;
    highs[g] = high;
    low_columns[g] = at_low;
    high_columns[g] = at_high;
  }
}

PARE_KERNEL void pare_sign_step(
    const float *g, float rate, float low, float high, float *x, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float step = g[i] > 0 ? rate : g[i] < 0 ? -rate : 0.0f;
    float moved = x[i] - step;
    moved = moved < low ? low : moved;
    x[i] = moved > high ? high : moved;
  }
}

PARE_KERNEL float pare_fake_quantize_token(const float *x, float high, float *y, size_t count) {
  float largest = 0;
  for (size_t i = 0; i < count; i++) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  const float scale = largest > 0 ? largest / high : 1.0f;
  for (size_t i = 0; i < count; i++) {
    float r = (x[i] / scale + AFFINE_MAGIC) - AFFINE_MAGIC;
    r = r < -high ? -high : r;
    r = r > high ? high : r;
    y[i] = r * scale;
  }
  return scale;
}
