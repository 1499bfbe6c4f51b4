// Super-blocks of 256 weights whose sub-blocks' scales are themselves small integers. Sixteen lanes
// hold sixteen sub-blocks: one super-block of sub-blocks of 16, or two of sub-blocks of 32.
//
// Three steps: fit each sub-block alone; choose the super-block's scale; then try the neighbours of
// each sub-block's integer scale with the codes they lead to, and improve the super-block's scale
// by least squares given everything else, as long as the error falls.

/// Scales of up to two super-blocks, as stored, and integers and codes per sub-block.
struct NAME(super) {
  lane_f32 x[32], w[32], codes[32];
  lane_f32 d, least;          ///< of the super-block, through float16, in each of its lanes
  lane_f32 scale, minimum;    ///< integers
};

/// Whether every lane's super-block scale can be stored; otherwise the first lane that cannot.
TARGET static inline int NAME(overflows)(lane_f32 d, int lanes) {
  for (int lane = 0; lane < lanes; lane++) {
    if (!(d[lane] <= 65504.0f && d[lane] >= -65504.0f)) return lane;
  }
  return -1;
}

/// The largest value of each super-block's lanes, in all of them.
TARGET static inline lane_f32 NAME(shared_largest)(lane_f32 x, int share) {
  for (int first = 0; first < 16; first += share) {
    float top = x[first];
    for (int lane = first; lane < first + share; lane++) top = x[lane] > top ? x[lane] : top;
    for (int lane = first; lane < first + share; lane++) x[lane] = top;
  }
  return x;
}

/// Integer scales and minimums nearest to the fitted ones or beside them, whichever err least.
/// `minimum_width`: minimums to each side that are tried; 0 solves for the minimum instead.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(choose_lines)(
    struct NAME(super) *b, const lane_f32 *w, int n, float top, float most, int scale_width,
    int minimum_width) {
  lane_f32 best = __builtin_inff(), best_scale = b->scale, best_minimum = b->minimum;
  for (int j = -scale_width; j <= scale_width; j++) {
    const lane_f32 scale = NAME(clamp)(b->scale + (float)j, 0, most);
    for (int k = -minimum_width; k <= minimum_width; k++) {
      const lane_f32 minimum = NAME(clamp)(b->minimum + (float)k, 0, most);
      const lane_f32 error =
          NAME(line_error)(b->x, w, n, top, b->d * scale, b->least * minimum, (lane_f32 *)0);
      const lane_i32 is_better = error < best;
      best = is_better ? error : best;
      best_scale = is_better ? scale : best_scale;
      best_minimum = is_better ? minimum : best_minimum;
    }
  }
  b->scale = best_scale;
  b->minimum = best_minimum;
  return best;
}

/// d and least of each super-block by least squares, given integers and codes.
TARGET static inline __attribute__((always_inline)) void NAME(solve_lines)(
    struct NAME(super) *b, const lane_f32 *w, int n, int share) {
  lane_f32 count = 0, total = 0, l = 0, ll = 0, xl = 0;
  for (int i = 0; i < n; i++) {
    const lane_f32 wi = w ? w[i] : (lane_f32)1, code = b->codes[i], wl = wi * code;
    count += wi;
    total += wi * b->x[i];
    l += wl;
    ll += wl * code;
    xl += wl * b->x[i];
  }
  // x ~ d * scale * code - least * minimum
  const lane_f32 aa = b->scale * b->scale * ll, ab = b->scale * b->minimum * l;
  const lane_f32 bb = b->minimum * b->minimum * count;
  const lane_f32 xa = b->scale * xl, xb = b->minimum * total;
  for (int first = 0; first < 16; first += share) {
    const double AA = NAME(lane_sum)(aa, first, share), AB = NAME(lane_sum)(ab, first, share);
    const double BB = NAME(lane_sum)(bb, first, share);
    const double XA = NAME(lane_sum)(xa, first, share), XB = NAME(lane_sum)(xb, first, share);
    const double determinant = AA * BB - AB * AB;
    double d, least;
    if (determinant > 1e-9 * AA * BB) {
      d = (XA * BB - XB * AB) / determinant;
      least = (XA * AB - XB * AA) / determinant;
    } else if (AA > 0) {
      d = XA / AA;
      least = (double)b->least[first];
    } else {
      continue;
    }
    if (!(d >= 0 && d <= 65504 && least >= 0 && least <= 65504)) continue;
    for (int lane = first; lane < first + share; lane++) {
      b->d[lane] = (float)(_Float16)(float)d;
      b->least[lane] = (float)(_Float16)(float)least;
    }
  }
}

/// Takes the super-blocks of `candidate` whose error is lower.
TARGET static inline void NAME(keep_better)(
    struct NAME(super) *best, lane_f32 *best_error, const struct NAME(super) *candidate,
    lane_f32 error, int share) {
  for (int first = 0; first < 16; first += share) {
    if (!(NAME(lane_sum)(error, first, share) < NAME(lane_sum)(*best_error, first, share))) {
      continue;
    }
    for (int lane = first; lane < first + share; lane++) {
      (*best_error)[lane] = error[lane];
      best->d[lane] = candidate->d[lane];
      best->least[lane] = candidate->least[lane];
      best->scale[lane] = candidate->scale[lane];
      best->minimum[lane] = candidate->minimum[lane];
    }
  }
}

/// How hard a type with offsets is searched.
struct NAME(line_search) {
  float top, most;          ///< largest code, largest integer scale and minimum
  float first, step;        ///< grids of a sub-block alone: top + first + step * k
  int steps, rounds;
  int scale_width, minimum_width, passes;
  const float *stretch;     ///< super-block scales tried, over the one that covers all sub-blocks
  int stretches;
};

/// Q2_K, Q4_K, Q5_K: fills `b` from `x`. Returns the lane whose scale is too large, or -1.
TARGET static inline __attribute__((always_inline)) int NAME(search_lines)(
    struct NAME(super) *b, const lane_f32 *w, int n, int share, int lanes,
    const struct NAME(line_search) s) {
  lane_f32 scale, minimum;
  NAME(fit_line)(b->x, w, n, s.top, s.first, s.step, s.steps, s.rounds, 1, &scale, &minimum);
  minimum = -minimum;
  const lane_f32 largest_scale = NAME(shared_largest)(scale, share);
  const lane_f32 largest_minimum = NAME(shared_largest)(minimum, share);
  struct NAME(super) *best = b;
  struct NAME(super) trial;
  memcpy(trial.x, b->x, sizeof trial.x);
  lane_f32 best_error = __builtin_inff();
  for (int t = 0; t < s.stretches; t++) {
    trial.d = NAME(through_f16)(largest_scale * (s.stretch[t] / s.most));
    trial.least = NAME(through_f16)(largest_minimum * (s.stretch[t] / s.most));
    if (t == 0) {
      int lane = NAME(overflows)(trial.d, lanes);
      if (lane < 0) lane = NAME(overflows)(trial.least, lanes);
      if (lane >= 0) return lane;
    }
    trial.scale = NAME(nearest)(NAME(clamp)(scale * NAME(inverse)(trial.d), 0, s.most));
    trial.minimum = NAME(nearest)(NAME(clamp)(minimum * NAME(inverse)(trial.least), 0, s.most));
    for (int pass = 0; pass < s.passes; pass++) {
      const lane_f32 error =
          NAME(choose_lines)(&trial, w, n, s.top, s.most, s.scale_width, s.minimum_width);
      NAME(keep_better)(best, &best_error, &trial, error, share);
      NAME(line_error)(
          trial.x, w, n, s.top, trial.d * trial.scale, trial.least * trial.minimum, trial.codes);
      NAME(solve_lines)(&trial, w, n, share);
    }
    const lane_f32 error = NAME(line_error)(
        trial.x, w, n, s.top, trial.d * trial.scale, trial.least * trial.minimum,
        (lane_f32 *)0);
    NAME(keep_better)(best, &best_error, &trial, error, share);
  }
  NAME(line_error)(b->x, w, n, s.top, b->d * b->scale, b->least * b->minimum, b->codes);
  return -1;
}

/// How hard a type without offsets is searched.
struct NAME(scale_search) {
  enum lane_ladder ladder;
  float least, most;  ///< of the integer scales
  const float *grids;
  int grid_count, rounds;
  int width, passes;
  const float *stretch;
  int stretches;
};

/// Q3_K, Q6_K, IQ4_XS: the same without offsets.
TARGET static inline __attribute__((always_inline)) int NAME(search_scales)(
    struct NAME(super) *b, const lane_f32 *w, int n, int share, int lanes,
    const struct NAME(scale_search) s) {
  const lane_f32 scale =
      NAME(fit_scale)(b->x, w, n, s.ladder, s.grids, s.grid_count, s.rounds);
  // The sub-block with the largest scale gets the lowest integer, which reaches furthest.
  lane_f32 extreme;
  for (int first = 0; first < 16; first += share) {
    float top = 0;
    for (int lane = first; lane < first + share; lane++) {
      if (__builtin_fabsf(scale[lane]) > __builtin_fabsf(top)) top = scale[lane];
    }
    for (int lane = first; lane < first + share; lane++) extreme[lane] = top;
  }
  struct NAME(super) trial;
  memcpy(trial.x, b->x, sizeof trial.x);
  trial.least = trial.minimum = 0;
  lane_f32 best_error = __builtin_inff();
  for (int t = 0; t < s.stretches; t++) {
    trial.d = NAME(through_f16)(extreme * (s.stretch[t] / s.least));
    if (t == 0) {
      const int lane = NAME(overflows)(trial.d, lanes);
      if (lane >= 0) return lane;
    }
    trial.scale =
        NAME(nearest)(NAME(clamp)(scale * NAME(inverse)(trial.d), s.least, s.most));
    for (int pass = 0; pass <= s.passes; pass++) {
      lane_f32 error = __builtin_inff(), chosen = trial.scale;
      const int width = pass < s.passes ? s.width : 0;
      for (int j = -width; j <= width; j++) {
        const lane_f32 integer = NAME(clamp)(trial.scale + (float)j, s.least, s.most);
        const lane_f32 gap =
            NAME(scale_error)(trial.x, w, n, s.ladder, trial.d * integer, (lane_f32 *)0);
        const lane_i32 is_better = gap < error;
        error = is_better ? gap : error;
        chosen = is_better ? integer : chosen;
      }
      trial.scale = chosen;
      NAME(keep_better)(b, &best_error, &trial, error, share);
      if (pass == s.passes) break;
      NAME(scale_error)(trial.x, w, n, s.ladder, trial.d * trial.scale, trial.codes);
      lane_f32 ll = 0, xl = 0;
      for (int i = 0; i < n; i++) {
        const lane_f32 level = trial.scale * trial.codes[i];
        const lane_f32 wl = w ? w[i] * level : level;
        ll += wl * level;
        xl += wl * trial.x[i];
      }
      for (int first = 0; first < 16; first += share) {
        const double LL = NAME(lane_sum)(ll, first, share);
        const double d = LL > 0 ? NAME(lane_sum)(xl, first, share) / LL : 0;
        if (!(LL > 0 && d <= 65504 && d >= -65504)) continue;
        for (int lane = first; lane < first + share; lane++) {
          trial.d[lane] = (float)(_Float16)(float)d;
        }
      }
    }
  }
  NAME(scale_error)(b->x, w, n, s.ladder, b->d * b->scale, b->codes);
  for (int i = 0; i < n; i++) b->codes[i] = NAME(stored)(s.ladder, b->codes[i]);
  return -1;
}

// --- The types: search, then pack ---------------------------------------------------------------

/// Loads `blocks` super-blocks (1 or 2) and their importance. Returns `w` or null.
TARGET static inline const lane_f32 *NAME(load_super)(
    struct NAME(super) *b, const float *x, const float *importance, int n, int blocks) {
  const int lanes = 256 / n * blocks;
  for (int i = 0; i < n; i += 16) NAME(transpose)(x + i, (size_t)n, lanes, b->x + i);
  if (!importance) return (const lane_f32 *)0;
  NAME(load_importance)(importance, (size_t)n, lanes, n, 256 / n, b->w);
  return b->w;
}

TARGET static inline void NAME(store_codes)(
    const struct NAME(super) *b, int n, int blocks, uint8_t *codes) {
  for (int i = 0; i < n; i += 16) {
    NAME(transpose_codes)(b->codes + i, codes + i, (size_t)n, 256 / n * blocks);
  }
}

TARGET static void NAME(pack_scale_mins)(
    const struct NAME(super) *b, int first, uint8_t *target) {
  memset(target, 0, 12);
  for (int j = 0; j < 8; j++) {
    const uint8_t scale = (uint8_t)b->scale[first + j], minimum = (uint8_t)b->minimum[first + j];
    if (j < 4) {
      target[j] |= scale;
      target[j + 4] |= minimum;
    } else {
      target[j + 4] = (uint8_t)((scale & 15) | (minimum & 15) << 4);
      target[j - 4] |= (uint8_t)(scale >> 4 << 6);
      target[j] |= (uint8_t)(minimum >> 4 << 6);
    }
  }
}

static const float NAME(covering)[1] = {1};

TARGET static int NAME(encode_q2_k)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  static const float stretch[5] = {1, 0.9f, 0.95f, 1.05f, 0.85f};
  struct NAME(super) b;
  const lane_f32 *w = NAME(load_super)(&b, x, importance, 16, blocks);
  const struct NAME(line_search) search = {
      3, 15, -0.9f, 0.1f, 22, 2, 1, 1, 2, stretch, 5};
  const int fault = w ? NAME(search_lines)(&b, b.w, 16, 16, 16, search)
                      : NAME(search_lines)(&b, (const lane_f32 *)0, 16, 16, 16, search);
  if (fault >= 0) return fault * 16;
  uint8_t codes[256];
  NAME(store_codes)(&b, 16, 1, codes);
  for (int k = 0; k < 16; k++) {
    target[k] = (uint8_t)((uint8_t)b.scale[k] | (uint8_t)b.minimum[k] << 4);
  }
  NAME(pack)(PARE_BLOCK_Q2_K, codes, target);
  block_set_f16(target + 80, b.d[0]);
  block_set_f16(target + 82, b.least[0]);
  return -1;
}

TARGET static int NAME(encode_q3_k)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  static const float grids[16] = {-4,    -3.4f, -3.7f, -4.3f, -4.6f, -3.1f, -5,   -5.5f,
                                  3.0f, 2.7f,  3.3f,  3.6f,  -2.8f, 2.4f,  -6.2f, 4.2f};
  static const float stretch[3] = {1, 0.94f, 1.06f};
  struct NAME(super) b;
  const lane_f32 *w = NAME(load_super)(&b, x, importance, 16, blocks);
  const struct NAME(scale_search) search = {
      LADDER_4, -32, 31, grids, 16, 2, 1, 2, stretch, 3};
  const int fault = w ? NAME(search_scales)(&b, b.w, 16, 16, 16, search)
                      : NAME(search_scales)(&b, (const lane_f32 *)0, 16, 16, 16, search);
  if (fault >= 0) return fault * 16;
  uint8_t codes[256];
  NAME(store_codes)(&b, 16, 1, codes);
  NAME(pack)(PARE_BLOCK_Q3_K, codes, target);
  memset(target + 96, 0, 12);
  for (int k = 0; k < 16; k++) {
    const int scale = (int)b.scale[k] + 32;
    target[96 + k % 8] |= (uint8_t)((scale & 15) << 4 * (k / 8));
    target[104 + k % 4] |= (uint8_t)(scale >> 4 << 2 * (k / 4));
  }
  block_set_f16(target + 108, b.d[0]);
  return -1;
}

TARGET static int NAME(encode_q4_k)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  struct NAME(super) b;
  const lane_f32 *w = NAME(load_super)(&b, x, importance, 32, blocks);
  const struct NAME(line_search) search = {
      15, 63, -1.0f, 0.25f, 18, 2, 1, 1, 2, NAME(covering), 1};
  const int fault =
      w ? NAME(search_lines)(&b, b.w, 32, 8, 8 * blocks, search)
        : NAME(search_lines)(&b, (const lane_f32 *)0, 32, 8, 8 * blocks, search);
  if (fault >= 0) return fault * 32;
  uint8_t codes[512];
  NAME(store_codes)(&b, 32, blocks, codes);
  for (int s = 0; s < blocks; s++, target += 144) {
    block_set_f16(target, b.d[8 * s]);
    block_set_f16(target + 2, b.least[8 * s]);
    NAME(pack_scale_mins)(&b, 8 * s, target + 4);
    NAME(pack)(PARE_BLOCK_Q4_K, codes + 256 * s, target);
  }
  return -1;
}

TARGET static int NAME(encode_q5_k)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  struct NAME(super) b;
  const lane_f32 *w = NAME(load_super)(&b, x, importance, 32, blocks);
  const struct NAME(line_search) search = {
      31, 63, -1.0f, 0.25f, 14, 2, 1, 1, 2, NAME(covering), 1};
  const int fault =
      w ? NAME(search_lines)(&b, b.w, 32, 8, 8 * blocks, search)
        : NAME(search_lines)(&b, (const lane_f32 *)0, 32, 8, 8 * blocks, search);
  if (fault >= 0) return fault * 32;
  uint8_t codes[512];
  NAME(store_codes)(&b, 32, blocks, codes);
  for (int s = 0; s < blocks; s++, target += 176) {
    block_set_f16(target, b.d[8 * s]);
    block_set_f16(target + 2, b.least[8 * s]);
    NAME(pack_scale_mins)(&b, 8 * s, target + 4);
    NAME(pack)(PARE_BLOCK_Q5_K, codes + 256 * s, target);
  }
  return -1;
}

TARGET static int NAME(encode_q6_k)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  static const float grids[13] = {-32,    -31.6f, -31.2f, -30.8f, -30.4f, -32.4f, -32.8f,
                                  -33.2f, -33.6f, -31.8f, -31.4f, -31.0f, -30.6f};
  struct NAME(super) b;
  const lane_f32 *w = NAME(load_super)(&b, x, importance, 16, blocks);
  const struct NAME(scale_search) search = {
      LADDER_32, -128, 127, grids, 13, 1, 1, 1, NAME(covering), 1};
  const int fault = w ? NAME(search_scales)(&b, b.w, 16, 16, 16, search)
                      : NAME(search_scales)(&b, (const lane_f32 *)0, 16, 16, 16, search);
  if (fault >= 0) return fault * 16;
  uint8_t codes[256];
  NAME(store_codes)(&b, 16, 1, codes);
  NAME(pack)(PARE_BLOCK_Q6_K, codes, target);
  for (int k = 0; k < 16; k++) target[192 + k] = (uint8_t)(int8_t)b.scale[k];
  block_set_f16(target + 208, b.d[0]);
  return -1;
}

TARGET static int NAME(encode_iq4_xs)(
    const float *x, const float *importance, int blocks, uint8_t *target) {
  struct NAME(super) b;
  const lane_f32 *w = NAME(load_super)(&b, x, importance, 32, blocks);
  const struct NAME(scale_search) search = {
      LADDER_IQ4, -32, 31, lane_iq4_grids, LANE_IQ4_GRIDS, 1, 1, 1, NAME(covering), 1};
  const int fault =
      w ? NAME(search_scales)(&b, b.w, 32, 8, 8 * blocks, search)
        : NAME(search_scales)(&b, (const lane_f32 *)0, 32, 8, 8 * blocks, search);
  if (fault >= 0) return fault * 32;
  uint8_t codes[512];
  NAME(store_codes)(&b, 32, blocks, codes);
  for (int s = 0; s < blocks; s++, target += 136) {
    uint16_t high = 0;
    block_set_f16(target, b.d[8 * s]);
    memset(target + 4, 0, 4);
    for (int k = 0; k < 8; k++) {
      const int scale = (int)b.scale[8 * s + k] + 32;
      target[4 + k / 2] |= (uint8_t)((scale & 15) << 4 * (k % 2));
      high |= (uint16_t)(scale >> 4 << 2 * k);
    }
    NAME(pack)(PARE_BLOCK_IQ4_XS, codes + 256 * s, target);
    memcpy(target + 2, &high, 2);
  }
  return -1;
}
