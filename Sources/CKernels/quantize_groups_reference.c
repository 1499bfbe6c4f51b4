// The plain twin of quantize_groups.c: one element at a time, the same arithmetic, the same sixteen
// partial sums. Tests compare the two byte for byte.
#include "quantize_groups_grid.h"

#pragma STDC FP_CONTRACT OFF

static float affine_code(float steps, struct affine_grid grid, int bits) {
  const float lowest = -(float)(1 << (bits - 1)), highest = (float)((1 << (bits - 1)) - 1);
  float q = steps + grid.zero;
  q = q < lowest ? lowest : q;
  q = q > highest ? highest : q;
  return rintf(q);
}

static double affine_error(
    const float *w, size_t count, struct affine_grid grid, int bits, double bound) {
  double total = 0;
  for (size_t start = 0; start < count; start += AFFINE_CHUNK) {
    size_t end = start + AFFINE_CHUNK < count ? start + AFFINE_CHUNK : count;
    float lanes[AFFINE_LANES] = {0};
    for (size_t i = start; i < end; i++) {
      float steps = w[i] * (1 / grid.scale);
      float decoded = (affine_code(steps, grid, bits) - grid.zero) * grid.scale;
      float error = decoded - w[i];
      float squared = error * error;
      lanes[i % AFFINE_LANES] += squared;
    }
    for (int half = AFFINE_LANES / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
    }
    total += (double)lanes[0];
    if (total >= bound) return total;
  }
  return total;
}

static struct affine_grid affine_search(
    const struct pare_affine_job *job, const float *w, size_t count, float low, float high) {
  struct affine_grid best =
      affine_choose(low, high, job->bits, job->symmetric, job->scale_type);
  if (job->candidates <= 1 || !isfinite(best.scale)) return best;
  double least = affine_error(w, count, best, job->bits, INFINITY);
  for (int candidate = 1; candidate < job->candidates; candidate++) {
    float shrink = affine_shrink(job, candidate);
    struct affine_grid grid = affine_choose(
        low * shrink, high * shrink, job->bits, job->symmetric, job->scale_type);
    double error = affine_error(w, count, grid, job->bits, least);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

enum pare_affine_status pare_affine_quantize_rows_reference(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    struct pare_affine_fault *fault) {
  const size_t columns = job->columns;
  const size_t groups = columns == 0 ? 0 : (columns + job->group - 1) / job->group;
  for (size_t row = first; row < last; row++) {
    uint8_t *target = (uint8_t *)job->codes + row * job->code_stride;
    memset(target, 0, job->packed ? (columns * (size_t)job->bits + 31) / 32 * 4 : columns);
    for (size_t i = 0; i < columns; i++) {
      scratch[i] = affine_load(job->source, row * columns + i, job->source_type);
      if (!isfinite(scratch[i])) {
        fault->row = row;
        fault->column = i;
        return PARE_AFFINE_NOT_FINITE;
      }
    }
    // Sums run per lane over the elements seen, emptied like those of the fast version.
    float error_lanes[AFFINE_LANES] = {0}, weight_lanes[AFFINE_LANES] = {0}, worst = 0;
    double total_error = 0, total_weight = 0;
    size_t seen = 0;
    for (size_t g = 0; g < groups; g++) {
      const size_t start = g * job->group;
      const size_t count = start + job->group < columns ? job->group : columns - start;
      const float *w = scratch + start;
      struct affine_grid grid;
      if (job->given_scales) {
        size_t at = row * job->given_stride + (job->given_stride ? g : 0);
        grid.scale = job->given_scales[at];
        grid.zero = job->given_zeros ? (float)job->given_zeros[at] : 0;
      } else {
        float low = 0, high = 0;
        for (size_t i = 0; i < count; i++) {
          low = w[i] < low ? w[i] : low;
          high = w[i] > high ? w[i] : high;
        }
        grid = affine_search(job, w, count, low, high);
        if (!isfinite(grid.scale)) {
          fault->row = row;
          fault->column = start;
          return PARE_AFFINE_SCALE_OVERFLOW;
        }
        affine_store(job->scales, row * groups + g, grid.scale, job->scale_type);
        if (job->zeros) job->zeros[row * groups + g] = (int8_t)grid.zero;
      }
      for (size_t i = 0; i < count; i++) {
        float q = affine_code(w[i] / grid.scale, grid, job->bits);
        if (job->packed) {
          uint32_t code = (uint32_t)((int)q + (1 << (job->bits - 1)));
          size_t bit = (start + i) * (size_t)job->bits;
          uint32_t shifted = code << (bit % 8);
          target[bit / 8] |= (uint8_t)shifted;
          if (bit % 8 + (size_t)job->bits > 8) target[bit / 8 + 1] |= (uint8_t)(shifted >> 8);
        } else {
          target[start + i] = (uint8_t)(int8_t)q;
        }
        float error = (q - grid.zero) * grid.scale;
        error = error - w[i];
        float squared = error * error;
        error_lanes[i % AFFINE_LANES] += squared;
        squared = w[i] * w[i];
        weight_lanes[i % AFFINE_LANES] += squared;
        error = error < 0 ? -error : error;
        worst = error > worst ? error : worst;
        if (i % AFFINE_CHUNK != AFFINE_CHUNK - 1 && i + 1 != count) continue;
        seen += i % AFFINE_CHUNK + 1;
        if (seen < 4 * AFFINE_CHUNK && (g + 1 != groups || i + 1 != count)) continue;
        for (int lane = 0; lane < AFFINE_LANES; lane++) {
          total_error += (double)error_lanes[lane];
          total_weight += (double)weight_lanes[lane];
          error_lanes[lane] = weight_lanes[lane] = 0;
        }
        seen = 0;
      }
    }
    if (job->squared_error) job->squared_error[row] = total_error;
    if (job->squared_weight) job->squared_weight[row] = total_weight;
    if (job->largest_error) job->largest_error[row] = worst;
  }
  return PARE_AFFINE_OK;
}

static int32_t reference_code(
    const struct pare_affine_codes *source, const uint8_t *stream, size_t column) {
  if (!source->packed) return (int8_t)stream[column];
  const size_t bits = (size_t)source->bits, perWord = 32 / bits;
  int32_t code = 0;
  for (size_t b = 0; b < bits; b++) {
    const size_t at = source->dense ? column * bits + b
                                    : column / perWord * 32 + column % perWord * bits + b;
    code |= (stream[at / 8] >> (at % 8) & 1) << b;
  }
  return code - (1 << (bits - 1));
}

void pare_affine_multiply_rows_reference(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride) {
  for (size_t row = first; row < last; row++) {
    const uint8_t *stream = (const uint8_t *)source->codes + row * source->code_stride;
    for (size_t t = 0; t < tokens; t++) {
      double sum = 0;
      for (size_t i = 0; i < source->columns; i++) {
        const size_t at =
            row * source->scale_stride + (source->scale_stride ? i / source->group : 0);
        const int32_t zero = source->zeros ? source->zeros[at] : 0;
        const double scale = affine_load(source->scales, at, source->scale_type);
        sum += (reference_code(source, stream, i) - zero) * scale * x[t * source->columns + i];
      }
      y[t * y_stride + row - first] = (float)sum;
    }
  }
}
