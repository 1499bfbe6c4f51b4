// Sixteen groups of weights side by side, one in each lane, so that a search over scales needs no
// sum across lanes. Included once per instruction set with TARGET and NAME(x) defined.
//
// x[i] and w[i] hold weight i and its importance of all sixteen groups; `w` is null when every
// weight counts alike. Nothing is contracted or reassociated: equal bytes on every machine.

/// Columns become rows: t[i][lane] = x[lane * stride + i] for i < 16. Lanes from `lanes` on are 0.
TARGET static inline void NAME(transpose)(
    const float *x, size_t stride, int lanes, lane_f32 *t) {
  lane_f32 a[16], b[16];
  for (int lane = 0; lane < 16; lane++) {
    if (lane < lanes) {
      memcpy(&a[lane], x + (size_t)lane * stride, 64);
    } else {
      a[lane] = 0;
    }
  }
  // Four rounds of a perfect shuffle of rows i and i + 8.
  for (int round = 0; round < 4; round++) {
    lane_f32 *from = round % 2 ? b : a, *to = round % 2 ? a : b;
    for (int i = 0; i < 8; i++) {
      to[2 * i] = __builtin_shufflevector(
          from[i], from[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      to[2 * i + 1] = __builtin_shufflevector(
          from[i], from[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
  }
  memcpy(t, a, sizeof a);
}

/// The same for codes, which leave the lanes: codes[lane * stride + i] for i < 16.
TARGET static inline void NAME(transpose_codes)(
    const lane_f32 *t, uint8_t *codes, size_t stride, int lanes) {
  lane_u8 a[16], b[16];
  for (int i = 0; i < 16; i++) {
    a[i] = __builtin_convertvector(__builtin_convertvector(t[i], lane_i32), lane_u8);
  }
  for (int round = 0; round < 4; round++) {
    lane_u8 *from = round % 2 ? b : a, *to = round % 2 ? a : b;
    for (int i = 0; i < 8; i++) {
      to[2 * i] = __builtin_shufflevector(
          from[i], from[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      to[2 * i + 1] = __builtin_shufflevector(
          from[i], from[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
  }
  for (int lane = 0; lane < lanes; lane++) memcpy(codes + (size_t)lane * stride, &a[lane], 16);
}

/// Half to even, for |x| below 2^22: no baseline x86 instruction rounds, adding 1.5 * 2^23 does.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(nearest)(lane_f32 x) {
  return (x + 12582912.0f) - 12582912.0f;
}

TARGET static inline __attribute__((always_inline)) lane_f32 NAME(clamp)(
    lane_f32 x, float low, float high) {
  x = x < low ? (lane_f32)low : x;
  return x > high ? (lane_f32)high : x;
}

/// 1 / x, and 0 where that could overflow.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(inverse)(lane_f32 x) {
  const lane_f32 size = x < 0 ? -x : x;
  const lane_i32 is_tiny = size < 0x1p-126f;
  const lane_f32 safe = is_tiny ? (lane_f32)1 : x;
  return is_tiny ? (lane_f32)0 : 1 / safe;
}

/// Float32 values after a trip through float16; infinite when too large.
TARGET static inline lane_f32 NAME(through_f16)(lane_f32 x) {
  lane_f32 y;
  for (int lane = 0; lane < 16; lane++) y[lane] = (float)(_Float16)x[lane];
  return y;
}

/// The nearest code of t for one of the ladders of levels.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(level)(
    enum lane_ladder ladder, lane_f32 t) {
  switch (ladder) {
    case LADDER_4: return NAME(nearest)(NAME(clamp)(t, -4, 3));
    case LADDER_8: return NAME(nearest)(NAME(clamp)(t, -8, 7));
    case LADDER_16: return NAME(nearest)(NAME(clamp)(t, -16, 15));
    case LADDER_32: return NAME(nearest)(NAME(clamp)(t, -32, 31));
    case LADDER_128: return NAME(nearest)(NAME(clamp)(t, -128, 127));
    case LADDER_TRIT: return NAME(nearest)(NAME(clamp)(t, -1, 1));
    case LADDER_FP4: {
      const lane_f32 size = t < 0 ? -t : t;
      lane_f32 value = 0;
      for (int k = 0; k < 7; k++) {
        const lane_i32 above = size > 0.5f * (lane_fp4[k] + lane_fp4[k + 1]);
        value += (lane_f32)(above & (lane_i32)(lane_f32)(lane_fp4[k + 1] - lane_fp4[k]));
      }
      return t < 0 ? -value : value;
    }
    case LADDER_IQ4: break;
  }
  // The level is the lowest plus the steps whose middle lies below.
  lane_f32 value = lane_iq4[0];
  for (int k = 0; k < 15; k++) {
    const lane_i32 above = t >= 0.5f * (lane_iq4[k] + lane_iq4[k + 1]);
    value += (lane_f32)(above & (lane_i32)(lane_f32)(lane_iq4[k + 1] - lane_iq4[k]));
  }
  return value;
}

/// What a code stores for a level: an offset, or the index of the level.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(stored)(
    enum lane_ladder ladder, lane_f32 level) {
  switch (ladder) {
    case LADDER_4: return level + 4;
    case LADDER_8: return level + 8;
    case LADDER_16: return level + 16;
    case LADDER_32: return level + 32;
    case LADDER_128: return level + 128;
    case LADDER_TRIT: return level + 1;
    case LADDER_FP4: {
      const lane_f32 size = level < 0 ? -level : level;
      lane_f32 index = 0;
      for (int k = 1; k < 8; k++) {
        index -= __builtin_convertvector(size >= lane_fp4[k], lane_f32);
      }
      return level < 0 ? index + 8 : index;
    }
    case LADDER_IQ4: break;
  }
  lane_f32 index = 0;
  for (int k = 1; k < 16; k++) index -= __builtin_convertvector(level >= lane_iq4[k], lane_f32);
  return index;
}

/// Importance of sixteen groups, divided by the largest of each `share` neighbouring lanes (which
/// are compared with one another), with a floor so that columns never used still get near codes.
TARGET static inline void NAME(load_importance)(
    const float *importance, size_t stride, int lanes, int n, int share, lane_f32 *w) {
  for (int i = 0; i < n; i += 16) {
    NAME(transpose)(importance + i, stride, lanes, w + i);
  }
  lane_f32 largest = 0;
  for (int i = 0; i < n; i++) largest = w[i] > largest ? w[i] : largest;
  for (int first = 0; first < 16; first += share) {
    float top = 0;
    for (int lane = first; lane < first + share; lane++) {
      top = largest[lane] > top ? largest[lane] : top;
    }
    for (int lane = first; lane < first + share; lane++) largest[lane] = top;
  }
  const lane_f32 divisor = largest == 0 ? (lane_f32)1 : largest;
  for (int i = 0; i < n; i++) {
    lane_f32 share_of_top = w[i] / divisor;
    share_of_top = share_of_top < 1e-7f ? (lane_f32)1e-7f : share_of_top;
    w[i] = share_of_top;
  }
}

// --- Levels with an offset: x ~ scale * code + minimum, code 0 ... top --------------------------

/// Sums over a group that decide scale and offset for given codes l.
struct NAME(line_sums) {
  lane_f32 l, ll, yl;
};

/// The least squares line for `sums`, its offset at most `bound`; returns its squared error.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(solve_line)(
    struct NAME(line_sums) s, lane_f32 count, lane_f32 y, lane_f32 yy, lane_f32 bound,
    lane_f32 *slope, lane_f32 *offset) {
  // Without a second code in use (a constant group) the line is not determined: its offset goes to
  // the bound, which is where a minimum of 0 lies.
  const lane_f32 product = count * s.ll, determinant = product - s.l * s.l;
  lane_f32 a = (count * s.yl - s.l * y) / determinant;
  lane_f32 b = (y - a * s.l) / count;
  const lane_i32 is_over = (determinant <= 1e-6f * product) | (b > bound);
  b = is_over ? bound : b;
  a = is_over ? (s.yl - bound * s.l) / s.ll : a;
  *slope = a;
  *offset = b;
  return yy - 2 * (a * s.yl + b * y) + a * a * s.ll + 2 * a * b * s.l + b * b * count;
}

/// Scale and minimum of sixteen groups of `n`: rounds on `steps` grids whose `top` code stands for
/// the range times top / (top + first + step * k), takes each one's least squares line, then lets
/// the best one's codes and line improve each other twice.
/// `minimum` is at most 0 when `is_below_zero`.
TARGET static inline __attribute__((always_inline)) void NAME(fit_line)(
    const lane_f32 *x, const lane_f32 *w, int n, float top, float first, float step, int steps,
    int rounds, int is_below_zero, lane_f32 *scale, lane_f32 *minimum) {
  lane_f32 low = x[0], high = x[0];
  for (int i = 1; i < n; i++) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  if (is_below_zero) low = low > 0 ? (lane_f32)0 : low;
  const lane_f32 range = high - low, per_range = NAME(inverse)(range);
  // y runs from 0 to 1: candidates are the same for all groups.
  lane_f32 y[32], total = 0, squares = 0, count = 0;
  for (int i = 0; i < n; i++) {
    y[i] = (x[i] - low) * per_range;
    const lane_f32 wi = w ? w[i] : (lane_f32)1;
    total += wi * y[i];
    squares += wi * y[i] * y[i];
    count += wi;
  }
  const lane_f32 bound = is_below_zero ? -low * per_range : (lane_f32)1e30f;
  lane_f32 best_slope = 0, best_offset = total / count;
  best_offset = best_offset > bound ? bound : best_offset;
  lane_f32 best = squares - best_offset * (2 * total - best_offset * count);
  for (int k = 0; k < steps; k += 2) {
    const float grid[2] = {
        top + first + step * (float)k, top + first + step * (float)(k + 1 < steps ? k + 1 : k)};
    struct NAME(line_sums) s[2] = {{0, 0, 0}, {0, 0, 0}};
    for (int i = 0; i < n; i++) {
      for (int u = 0; u < 2; u++) {
        lane_f32 l = NAME(nearest)(y[i] * grid[u]);
        l = l > top ? (lane_f32)top : l;
        const lane_f32 wl = w ? w[i] * l : l;
        s[u].l += wl;
        s[u].ll += wl * l;
        s[u].yl += wl * y[i];
      }
    }
    for (int u = 0; u < 2; u++) {
      lane_f32 slope, offset;
      const lane_f32 error =
          NAME(solve_line)(s[u], count, total, squares, bound, &slope, &offset);
      const lane_i32 is_better = error < best;
      best = is_better ? error : best;
      best_slope = is_better ? slope : best_slope;
      best_offset = is_better ? offset : best_offset;
    }
  }
  for (int round = 0; round < rounds; round++) {
    const lane_f32 grid = NAME(inverse)(best_slope);
    struct NAME(line_sums) s = {0, 0, 0};
    for (int i = 0; i < n; i++) {
      const lane_f32 l = NAME(nearest)(NAME(clamp)((y[i] - best_offset) * grid, 0, top));
      const lane_f32 wl = w ? w[i] * l : l;
      s.l += wl;
      s.ll += wl * l;
      s.yl += wl * y[i];
    }
    lane_f32 slope, offset;
    const lane_f32 error = NAME(solve_line)(s, count, total, squares, bound, &slope, &offset);
    const lane_i32 is_better = error < best;
    best = is_better ? error : best;
    best_slope = is_better ? slope : best_slope;
    best_offset = is_better ? offset : best_offset;
  }
  *scale = best_slope * range;
  *minimum = low + best_offset * range;
}

/// Squared error of x rounded to scale * l - below, l in 0 ... top. Codes are left in `l` when it
/// is not null.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(line_error)(
    const lane_f32 *x, const lane_f32 *w, int n, float top, lane_f32 scale, lane_f32 below,
    lane_f32 *codes) {
  const lane_f32 grid = NAME(inverse)(scale);
  lane_f32 error[2] = {0, 0};
  for (int i = 0; i < n; i += 2) {
    for (int u = 0; u < 2; u++) {
      const lane_f32 t = x[i + u] + below;
      const lane_f32 l = NAME(nearest)(NAME(clamp)(t * grid, 0, top));
      const lane_f32 gap = t - scale * l;
      error[u] += w ? w[i + u] * (gap * gap) : gap * gap;
      if (codes) codes[i + u] = l;
    }
  }
  return error[0] + error[1];
}

// --- Levels around zero: x ~ scale * level ------------------------------------------------------

/// Scale of sixteen groups of `n`: rounds with the largest weight at each of `grids`, takes each
/// one's least squares scale, then lets the best one's levels and scale improve each other.
TARGET static inline __attribute__((always_inline)) lane_f32 NAME(fit_scale)(
    const lane_f32 *x, const lane_f32 *w, int n, enum lane_ladder ladder, const float *grids,
    int grid_count, int rounds) {
  lane_f32 largest = 0, extreme = 0;
  for (int i = 0; i < n; i++) {
    const lane_f32 size = x[i] < 0 ? -x[i] : x[i];
    const lane_i32 is_larger = size > largest;
    largest = is_larger ? size : largest;
    extreme = is_larger ? x[i] : extreme;
  }
  const lane_f32 per_extreme = NAME(inverse)(extreme);
  lane_f32 y[32];
  for (int i = 0; i < n; i++) y[i] = x[i] * per_extreme;
  lane_f32 best = 0, best_scale = 0;
  for (int k = 0; k < grid_count + rounds; k++) {
    const lane_f32 grid = k < grid_count ? (lane_f32)grids[k] : NAME(inverse)(best_scale);
    lane_f32 ll = 0, yl = 0;
    for (int i = 0; i < n; i++) {
      const lane_f32 l = NAME(level)(ladder, y[i] * grid);
      const lane_f32 wl = w ? w[i] * l : l;
      ll += wl * l;
      yl += wl * y[i];
    }
    // The error is sum y^2 - yl^2 / ll.
    const lane_f32 scale = yl * NAME(inverse)(ll), gain = scale * yl;
    const lane_i32 is_better = gain > best;
    best = is_better ? gain : best;
    best_scale = is_better ? scale : best_scale;
  }
  return best_scale * extreme;
}

TARGET static inline __attribute__((always_inline)) lane_f32 NAME(scale_error)(
    const lane_f32 *x, const lane_f32 *w, int n, enum lane_ladder ladder, lane_f32 scale,
    lane_f32 *levels) {
  const lane_f32 grid = NAME(inverse)(scale);
  lane_f32 error[2] = {0, 0};
  for (int i = 0; i < n; i += 2) {
    for (int u = 0; u < 2; u++) {
      const lane_f32 l = NAME(level)(ladder, x[i + u] * grid);
      const lane_f32 gap = x[i + u] - scale * l;
      error[u] += w ? w[i + u] * (gap * gap) : gap * gap;
      if (levels) levels[i + u] = l;
    }
  }
  return error[0] + error[1];
}

/// Sum over the `share` lanes from `first` on, in order, in double.
TARGET static inline double NAME(lane_sum)(lane_f32 x, int first, int share) {
  double sum = 0;
  for (int lane = first; lane < first + share; lane++) sum += (double)x[lane];
  return sum;
}
