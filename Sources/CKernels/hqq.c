// Half-quadratic fitting of affine grids. See include/hqq.h for the contract.
//
// A turn is one pass over a group: round, take the errors, shrink them, and add up what the
// least-squares fit needs. Sums run in sixteen lanes on every machine, so grids are the same too.
#include "hqq.h"

#include "quantize_groups_grid.h"
#include "vector.h"

#pragma STDC FP_CONTRACT OFF

typedef float hqq_f32 __attribute__((ext_vector_type(16)));
typedef uint32_t hqq_u32 __attribute__((ext_vector_type(16)));
typedef int32_t hqq_i32 __attribute__((ext_vector_type(16)));

/// Vectors after which lanes are emptied into double.
#define HQQ_CHUNK 32
/// Errors below this have no logarithm that matters.
#define HQQ_TINY 1e-20f
#define HQQ_SQRT_HALF 0x3f3504f3u

/// What a pass over a group adds up, with c = q - zero and t = w - W_e.
struct hqq_sums {
  double c, cc, t, ct;
  /// sum |error|^p in units of the covering grid's step, and sum error^2.
  double objective, squared;
};

struct hqq_turn {
  float scale, zero, lowest, highest;
  /// The covering grid's step and its reciprocal.
  float unit, per_unit;
  /// p - 1, and 1 / beta.
  float power, threshold;
};

typedef void hqq_pass(
    const float *w, size_t vectors, const struct hqq_turn *turn, struct hqq_sums *sums);

#define HQQ_FOLD(lanes, total)                                                    \
  do {                                                                            \
    for (int width = 8; width > 0; width /= 2) {                                  \
      for (int i = 0; i < width; i++) (lanes)[i] = (lanes)[i] + (lanes)[i + width]; \
    }                                                                             \
    (total) += (double)(lanes)[0];                                                \
  } while (0)

PARE_KERNEL static void hqq_pass_fast(
    const float *w, size_t vectors, const struct hqq_turn *turn, struct hqq_sums *sums) {
  const float scale = turn->scale, zero = turn->zero, inverse = 1 / scale;
  const float lowest = turn->lowest, highest = turn->highest;
  struct hqq_sums all = {0, 0, 0, 0, 0, 0};
  for (size_t start = 0; start < vectors; start += HQQ_CHUNK) {
    const size_t end = start + HQQ_CHUNK < vectors ? start + HQQ_CHUNK : vectors;
    hqq_f32 sc = 0, scc = 0, st = 0, sct = 0, objective = 0, squared = 0;
    for (size_t v = start; v < end; v++) {
      hqq_f32 value;
      memcpy(&value, w + 16 * v, 64);
      hqq_f32 q = value * inverse + zero;
      q = q < lowest ? (hqq_f32)lowest : q;
      q = q > highest ? (hqq_f32)highest : q;
      q = (q + AFFINE_MAGIC) - AFFINE_MAGIC;
      const hqq_f32 c = q - zero, error = value - c * scale;
      const hqq_f32 steps = error * turn->per_unit;
      const hqq_f32 size = (hqq_f32)((hqq_u32)steps & 0x7fffffffu);
      // size^(p-1) by logarithm and exponential.
      const hqq_f32 above = size < HQQ_TINY ? (hqq_f32)HQQ_TINY : size;
      const hqq_i32 n = (hqq_i32)((hqq_u32)above - HQQ_SQRT_HALF) >> 23;
      const hqq_f32 m = (hqq_f32)((hqq_u32)above - ((hqq_u32)n << 23));
      const hqq_f32 s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
      hqq_f32 p = s2 * (2.0f / 9) + 2.0f / 7;
      p = p * s2 + 2.0f / 5;
      p = p * s2 + 2.0f / 3;
      p = p * s2 + 2.0f;
      const hqq_f32 binary = __builtin_convertvector(n, hqq_f32) + p * s * 1.44269504f;
      const hqq_f32 exponent = binary * turn->power;
      const hqq_f32 whole = (exponent + AFFINE_MAGIC) - AFFINE_MAGIC;
      const hqq_f32 r = (exponent - whole) * 0.693147181f;
      hqq_f32 e = r * (1.0f / 720) + 1.0f / 120;
      e = e * r + 1.0f / 24;
      e = e * r + 1.0f / 6;
      e = e * r + 0.5f;
      e = e * r + 1.0f;
      e = e * r + 1.0f;
      const hqq_i32 shift = __builtin_convertvector(whole, hqq_i32) << 23;
      const hqq_f32 raised = (hqq_f32)((hqq_i32)e + shift);
      hqq_f32 kept = size - turn->threshold * raised;
      kept = kept > 0.0f ? kept : (hqq_f32)0.0f;
      const hqq_u32 sign = (hqq_u32)steps & 0x80000000u;
      const hqq_f32 t = value - (hqq_f32)((hqq_u32)(kept * turn->unit) | sign);
      sc = sc + c;
      scc = scc + c * c;
      st = st + t;
      sct = sct + c * t;
      objective = objective + size * raised;
      squared = squared + error * error;
    }
    HQQ_FOLD(sc, all.c);
    HQQ_FOLD(scc, all.cc);
    HQQ_FOLD(st, all.t);
    HQQ_FOLD(sct, all.ct);
    HQQ_FOLD(objective, all.objective);
    HQQ_FOLD(squared, all.squared);
  }
  *sums = all;
}

/// size^power for a positive, normal size.
static float hqq_power(float size, float power) {
  const int32_t n = (int32_t)(affine_bits(size) - HQQ_SQRT_HALF) >> 23;
  const float m = affine_float(affine_bits(size) - ((uint32_t)n << 23));
  const float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  // 2 (s + s^3/3 + s^5/5 + ...) = log m.
  const float series =
      (((s2 * (2.0f / 9) + 2.0f / 7) * s2 + 2.0f / 5) * s2 + 2.0f / 3) * s2 + 2.0f;
  const float exponent = ((float)n + series * s * 1.44269504f) * power;
  const float whole = (exponent + AFFINE_MAGIC) - AFFINE_MAGIC;
  const float r = (exponent - whole) * 0.693147181f;
  const float e =
      (((((r * (1.0f / 720) + 1.0f / 120) * r + 1.0f / 24) * r + 1.0f / 6) * r + 0.5f) * r + 1.0f) * r +
      1.0f;
  return affine_float(affine_bits(e) + ((uint32_t)(int32_t)whole << 23));
}

static void hqq_pass_reference(
    const float *w, size_t vectors, const struct hqq_turn *turn, struct hqq_sums *sums) {
  struct hqq_sums all = {0, 0, 0, 0, 0, 0};
  const float inverse = 1 / turn->scale;
  for (size_t start = 0; start < vectors; start += HQQ_CHUNK) {
    const size_t end = start + HQQ_CHUNK < vectors ? start + HQQ_CHUNK : vectors;
    float lanes[6][16] = {{0}};
    for (size_t i = 16 * start; i < 16 * end; i++) {
      float q = w[i] * inverse + turn->zero;
      q = q < turn->lowest ? turn->lowest : q > turn->highest ? turn->highest : q;
      q = (q + AFFINE_MAGIC) - AFFINE_MAGIC;
      const float c = q - turn->zero, error = w[i] - c * turn->scale;
      const float steps = error * turn->per_unit, size = fabsf(steps);
      const float raised = hqq_power(size < HQQ_TINY ? HQQ_TINY : size, turn->power);
      float kept = size - turn->threshold * raised;
      kept = kept > 0 ? kept : 0;
      const float t = w[i] - copysignf(kept * turn->unit, steps);
      const float terms[6] = {c, c * c, t, c * t, size * raised, error * error};
      for (int k = 0; k < 6; k++) lanes[k][i % 16] = lanes[k][i % 16] + terms[k];
    }
    double *totals[6] = {&all.c, &all.cc, &all.t, &all.ct, &all.objective, &all.squared};
    for (int k = 0; k < 6; k++) HQQ_FOLD(lanes[k], *totals[k]);
  }
  *sums = all;
}

/// The grid that fits t = scale * (c - delta) best, as it can be stored.
static void hqq_fit(
    const struct pare_hqq_job *job, const struct hqq_sums *sums, double count,
    struct hqq_turn *turn) {
  double c = sums->c, cc = sums->cc, ct = sums->ct;
  if (!job->symmetric) {
    const double spread = count * cc - c * c, common = count * ct - c * sums->t;
    if (spread > 0 && common > 0) {
      const double delta = c / count - sums->t / count * (spread / common);
      double zero = (double)turn->zero + delta;
      const double low = (double)turn->lowest, high = (double)turn->highest;
      zero = zero < low ? low : zero > high ? high : zero;
      const double moved = rint(zero) - (double)turn->zero;
      turn->zero = (float)rint(zero);
      ct -= moved * sums->t;
      cc -= 2 * moved * c - count * moved * moved;
    }
  }
  if (!(cc > 0) || !(ct > 0)) return;
  const float scale = affine_round_to((float)(ct / cc), job->scale_type);
  if (scale > 0 && scale < INFINITY) turn->scale = scale;
}

static struct affine_grid hqq_group(
    const struct pare_hqq_job *job, const float *w, size_t count, hqq_pass *pass) {
  float low = 0, high = 0;
  for (size_t i = 0; i < count; i++) {
    low = w[i] < low ? w[i] : low;
    high = w[i] > high ? w[i] : high;
  }
  const size_t vectors = (count + 15) / 16;
  struct affine_grid best = affine_choose(low, high, job->bits, job->symmetric, job->scale_type);
  struct hqq_turn turn;
  turn.lowest = -(float)(1 << (job->bits - 1));
  turn.highest = (float)((1 << (job->bits - 1)) - 1);
  turn.unit = best.scale;
  turn.per_unit = 1 / best.scale;
  turn.power = job->p - 1;
  // Nothing to fit where all weights are 0, and no arithmetic where steps overflow.
  if (low == high || !(turn.unit < INFINITY) || !(turn.per_unit < INFINITY)) return best;
  double objective = INFINITY, bound = INFINITY;
  for (int start = 0; start < job->starts; start++) {
    const float part = 1 - (float)start * job->shrink;
    const struct affine_grid grid =
        affine_choose(low * part, high * part, job->bits, job->symmetric, job->scale_type);
    turn.scale = grid.scale;
    turn.zero = grid.zero;
    turn.threshold = 1 / job->beta;
    double previous = INFINITY;
    for (int i = 0; i <= job->iterations; i++) {
      struct hqq_sums sums;
      pass(w, vectors, &turn, &sums);
      if (start == 0 && i == 0) bound = sums.squared;
      if (sums.objective < objective && sums.squared <= bound) {
        objective = sums.objective;
        best.scale = turn.scale;
        best.zero = turn.zero;
      }
      if (!(sums.objective < previous)) break;
      previous = sums.objective;
      hqq_fit(job, &sums, (double)count, &turn);
      turn.threshold /= job->kappa;
    }
  }
  return best;
}

static void hqq_rows(
    const struct pare_hqq_job *job, size_t first, size_t last, float *scratch, hqq_pass *pass) {
  const size_t groups = (job->columns + job->group - 1) / job->group;
  for (size_t row = first; row < last; row++) {
    for (size_t g = 0; g < groups; g++) {
      const size_t begin = g * job->group;
      const size_t count =
          job->columns - begin < job->group ? job->columns - begin : job->group;
      memcpy(scratch, job->source + row * job->columns + begin, count * 4);
      // Zeros have a code of their own on every grid: they err by nothing and add to no sum.
      memset(scratch + count, 0, (count + 15) / 16 * 64 - count * 4);
      const struct affine_grid grid = hqq_group(job, scratch, count, pass);
      job->scales[row * groups + g] = grid.scale;
      job->zeros[row * groups + g] = (int8_t)grid.zero;
    }
  }
}

size_t pare_hqq_scratch_floats(size_t group) { return (group + 15) / 16 * 16; }

void pare_hqq_rows(const struct pare_hqq_job *job, size_t first, size_t last, float *scratch) {
  hqq_rows(job, first, last, scratch, hqq_pass_fast);
}

void pare_hqq_rows_reference(
    const struct pare_hqq_job *job, size_t first, size_t last, float *scratch) {
  hqq_rows(job, first, last, scratch, hqq_pass_reference);
}
