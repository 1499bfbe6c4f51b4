// The fast quantizer, written once over 16-lane vectors and included once per instruction set with
// TARGET (an attribute) and NAME(x) defined. Lanes, order and operations are those of
// quantize_groups_reference.c, so the bytes are too.

/// Widens `count` elements to float32, zero-pads to a multiple of 16 and returns the largest
/// magnitude's bits; at least 0x7f800000 when something is not finite. low and high include zero;
/// a symmetric range is that magnitude on both sides.
TARGET static uint32_t NAME(widen)(
    const void *source, enum pare_affine_type type, size_t count, float *target, int symmetric,
    float *low, float *high) {
  affine_u32 largest = 0;
  affine_f32 least = 0, most = 0;
  size_t index = 0;
#define RANGE(values)                                                  \
  do {                                                                 \
    affine_u32 magnitude = (affine_u32)(values) & 0x7fffffffu;         \
    largest = magnitude > largest ? magnitude : largest;               \
    if (!symmetric) {                                                  \
      least = (values) < least ? (values) : least;                     \
      most = (values) > most ? (values) : most;                        \
    }                                                                  \
  } while (0)
  if (type == PARE_AFFINE_BF16) {
    for (; index + 16 <= count; index += 16) {
      affine_u16 halves;
      memcpy(&halves, (const char *)source + 2 * index, 32);
      affine_f32 values = (affine_f32)(__builtin_convertvector(halves, affine_u32) << 16);
      memcpy(target + index, &values, 64);
      RANGE(values);
    }
  } else if (type == PARE_AFFINE_F32) {
    for (; index + 16 <= count; index += 16) {
      affine_f32 values;
      memcpy(&values, (const char *)source + 4 * index, 64);
      memcpy(target + index, &values, 64);
      RANGE(values);
    }
  } else {
    for (; index + 16 <= count; index += 16) {
      affine_u16 halves;
      memcpy(&halves, (const char *)source + 2 * index, 32);
      affine_u32 bits = __builtin_convertvector(halves, affine_u32);
      affine_u32 sign = (bits & 0x8000u) << 16;
      bits &= 0x7fffu;
      affine_u32 finite = (affine_u32)((affine_f32)(bits << 13) * 0x1p112f);
      affine_u32 infinite = (bits << 13) | 0x7f800000u;
      affine_f32 values = (affine_f32)(sign | (bits >= 0x7c00u ? infinite : finite));
      memcpy(target + index, &values, 64);
      RANGE(values);
    }
  }
  if (index < count) {
    affine_f32 values = 0;
    float tail[16] = {0};
    for (size_t i = index; i < count; i++) tail[i - index] = affine_load(source, i, type);
    memcpy(&values, tail, 64);
    memcpy(target + index, &values, 64);
    RANGE(values);
  }
#undef RANGE
  const uint32_t bits = __builtin_reduce_max(largest);
  *low = symmetric ? -affine_float(bits) : __builtin_reduce_min(least);
  *high = symmetric ? affine_float(bits) : __builtin_reduce_max(most);
  return bits;
}

/// The grids of `count` ranges: affine_choose for sixteen groups at a time.
TARGET static void NAME(choose)(
    const struct pare_affine_job *job, const float *low, const float *high, size_t count,
    float *scales, float *zeros) {
  const float lowest = -(float)(1 << (job->bits - 1));
  const float highest = (float)((1 << (job->bits - 1)) - 1);
  const float epsilon = affine_epsilon(job->scale_type);
  for (size_t i = 0; i < count; i += 16) {
    affine_f32 least, most, scale, zero = 0;
    memcpy(&least, low + i, 64);
    memcpy(&most, high + i, 64);
    if (job->symmetric) {
      affine_f32 largest = -least > most ? -least : most;
      scale = largest / ((highest - lowest) / 2);
    } else {
      scale = (most - least) / (highest - lowest);
    }
    if (job->scale_type == PARE_AFFINE_BF16) {
      affine_u32 bits = (affine_u32)scale;
      scale = (affine_f32)((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
    } else if (job->scale_type == PARE_AFFINE_F16) {
      for (int lane = 0; lane < 16; lane++) {
        scale[lane] = affine_round_to(scale[lane], PARE_AFFINE_F16);
      }
    }
    scale = scale == 0 ? (affine_f32)epsilon : scale;
    if (!job->symmetric) {
      zero = lowest - least / scale;
      zero = zero < lowest ? (affine_f32)lowest : zero;
      zero = zero > highest ? (affine_f32)highest : zero;
      zero = (zero + AFFINE_MAGIC) - AFFINE_MAGIC;
    }
    memcpy(scales + i, &scale, 64);
    memcpy(zeros + i, &zero, 64);
  }
}

/// Sum of squared errors on a grid; stops early once it reaches `bound`. A search compares many
/// grids, so this multiplies by the reciprocal: near a half either code errs equally.
TARGET static double NAME(error)(
    const float *w, size_t count, struct affine_grid grid, int bits, double bound) {
  const float lowest = -(float)(1 << (bits - 1)), highest = (float)((1 << (bits - 1)) - 1);
  const float inverse = 1 / grid.scale;
  double total = 0;
  for (size_t start = 0; start < count; start += AFFINE_CHUNK) {
    size_t end = start + AFFINE_CHUNK < count ? start + AFFINE_CHUNK : count;
    affine_f32 sum = 0;
    for (size_t i = start; i < end; i += 16) {
      affine_f32 values;
      memcpy(&values, w + i, 64);
      affine_f32 q = values * inverse;
      q = q + grid.zero;
      q = q < lowest ? (affine_f32)lowest : q;
      q = q > highest ? (affine_f32)highest : q;
      q = (q + AFFINE_MAGIC) - AFFINE_MAGIC;
      affine_f32 error = (q - grid.zero) * grid.scale;
      error = error - values;
      affine_f32 squared = error * error;
      sum = sum + squared;
    }
    affine_f32x8 eight = sum.lo + sum.hi;
    affine_f32x4 four = eight.lo + eight.hi;
    affine_f32x2 two = four.lo + four.hi;
    total += (double)(two[0] + two[1]);
    if (total >= bound) return total;
  }
  return total;
}

/// Codes of one group and its part in the row's sums. Writes whole vectors of codes.
TARGET static void NAME(encode)(
    const float *w, size_t count, struct affine_grid grid, int bits, int offset, uint8_t *codes,
    struct affine_sums *sums) {
  const float lowest = -(float)(1 << (bits - 1)), highest = (float)((1 << (bits - 1)) - 1);
  const int32_t base = offset - AFFINE_MAGIC_BITS;
  for (size_t start = 0; start < count; start += AFFINE_CHUNK) {
    size_t end = start + AFFINE_CHUNK < count ? start + AFFINE_CHUNK : count;
    affine_f32 squared_error, squared_weight, worst;
    memcpy(&squared_error, sums->squared_error, 64);
    memcpy(&squared_weight, sums->squared_weight, 64);
    memcpy(&worst, sums->largest_error, 64);
    for (size_t i = start; i < end; i += 16) {
      affine_f32 values;
      memcpy(&values, w + i, 64);
      affine_f32 q = values / grid.scale + grid.zero;
      q = q < lowest ? (affine_f32)lowest : q;
      q = q > highest ? (affine_f32)highest : q;
      q = q + AFFINE_MAGIC;
      affine_u8 bytes = __builtin_convertvector((affine_i32)q + base, affine_u8);
      memcpy(codes + i, &bytes, 16);
      affine_f32 error = ((q - AFFINE_MAGIC) - grid.zero) * grid.scale;
      error = error - values;
      affine_f32 product = error * error;
      squared_error = squared_error + product;
      product = values * values;
      squared_weight = squared_weight + product;
      error = (affine_f32)((affine_u32)error & 0x7fffffffu);
      worst = error > worst ? error : worst;
    }
    memcpy(sums->squared_error, &squared_error, 64);
    memcpy(sums->squared_weight, &squared_weight, 64);
    memcpy(sums->largest_error, &worst, 64);
    sums->count += end - start;
    if (sums->count >= AFFINE_CHUNK * 4) affine_flush(sums);
  }
}

/// Packs bytes below 2^bits into an LSB-first stream of `size` bytes: eight codes become `bits`
/// bytes by closing the gaps between neighbours, pairs, then fours. `codes` is padded to 64.
TARGET static void NAME(pack)(
    const uint8_t *codes, size_t count, int bits, uint8_t *stream, size_t size) {
  const uint64_t one = 0x0101010101010101ull * ((1ull << bits) - 1) & 0x00ff00ff00ff00ffull;
  const uint64_t two = 0x0000000100000001ull * ((1ull << (2 * bits)) - 1);
  const uint64_t four = (1ull << (4 * bits)) - 1;
  size_t written = 0;
  for (size_t i = 0; i < count && written < size; i += 64) {
    affine_u64 x;
    memcpy(&x, codes + i, 64);
    x = (x & one) | ((x >> (8 - bits)) & (one << bits));
    x = (x & two) | ((x >> (16 - 2 * bits)) & (two << (2 * bits)));
    x = (x & four) | ((x >> (32 - 4 * bits)) & (four << (4 * bits)));
    uint8_t packed[72];
    if (bits == 4) {
      affine_u32x8 words = __builtin_convertvector(x, affine_u32x8);
      memcpy(packed, &words, 32);
    } else {
      for (int lane = 0; lane < 8; lane++) {
        uint64_t word = x[lane];
        memcpy(packed + lane * bits, &word, 8);
      }
    }
    size_t bytes = 8 * (size_t)bits < size - written ? 8 * (size_t)bits : size - written;
    if (bits == 4 && bytes == 32) {
      memcpy(stream + written, packed, 32);
    } else {
      memcpy(stream + written, packed, bytes);
    }
    written += bytes;
  }
}

/// The grid with the smallest error among the shrunken ranges of one group.
TARGET static struct affine_grid NAME(search)(
    const struct pare_affine_job *job, const float *w, size_t count, float low, float high,
    struct affine_grid widest) {
  struct affine_grid best = widest, previous = widest;
  double least = NAME(error)(w, count, widest, job->bits, INFINITY);
  for (int candidate = 1; candidate < job->candidates; candidate++) {
    float shrink = affine_shrink(job, candidate);
    struct affine_grid grid =
        affine_choose(low * shrink, high * shrink, job->bits, job->symmetric, job->scale_type);
    if (grid.scale == previous.scale && grid.zero == previous.zero) continue;
    previous = grid;
    double error = NAME(error)(w, count, grid, job->bits, least);
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

TARGET static enum pare_affine_status NAME(quantize_rows)(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    struct pare_affine_fault *fault) {
  const size_t columns = job->columns, group = job->group < columns ? job->group : columns;
  const size_t groups = columns == 0 ? 0 : (columns + group - 1) / group;
  const size_t size = affine_type_size(job->source_type);
  const int offset = job->packed ? 1 << (job->bits - 1) : 0;
  // Each group starts on a whole vector.
  const size_t stride = (group + 15) / 16 * 16, ranges = (groups + 15) / 16 * 16;
  float *values = scratch, *low = values + groups * stride, *high = low + ranges;
  float *scales = high + ranges, *zeros = scales + ranges;
  uint8_t *codes = (uint8_t *)(zeros + ranges);
  const size_t used = job->packed ? (columns * (size_t)job->bits + 31) / 32 * 4 : columns;
  memset(low, 0, 2 * ranges * sizeof(float));
  for (size_t row = first; row < last; row++) {
    const char *source = (const char *)job->source + row * columns * size;
    uint32_t largest = 0;
    for (size_t g = 0; g < groups; g++) {
      const size_t start = g * group, count = start + group < columns ? group : columns - start;
      uint32_t magnitude = NAME(widen)(
          source + start * size, job->source_type, count, values + g * stride, job->symmetric,
          low + g, high + g);
      largest = magnitude > largest ? magnitude : largest;
    }
    if (largest >= 0x7f800000u) {
      fault->row = row;
      fault->column = affine_first_fault(source, columns, job->source_type);
      return PARE_AFFINE_NOT_FINITE;
    }
    if (job->given_scales) {
      for (size_t g = 0; g < groups; g++) {
        const size_t at = row * job->given_stride + (job->given_stride ? g : 0);
        scales[g] = job->given_scales[at];
        zeros[g] = job->given_zeros ? (float)job->given_zeros[at] : 0;
      }
    } else {
      NAME(choose)(job, low, high, groups, scales, zeros);
      for (size_t g = 0; g < groups; g++) {
        if (!(scales[g] <= 0x1.fffffep127f)) {
          fault->row = row;
          fault->column = g * group;
          return PARE_AFFINE_SCALE_OVERFLOW;
        }
        if (job->candidates > 1) {
          const size_t start = g * group;
          const size_t count = start + group < columns ? group : columns - start;
          struct affine_grid grid = NAME(search)(
              job, values + g * stride, count, low[g], high[g],
              (struct affine_grid){scales[g], zeros[g]});
          scales[g] = grid.scale;
          zeros[g] = grid.zero;
        }
        affine_store(job->scales, row * groups + g, scales[g], job->scale_type);
        if (job->zeros) job->zeros[row * groups + g] = (int8_t)zeros[g];
      }
    }
    struct affine_sums sums;
    memset(&sums, 0, sizeof sums);
    for (size_t g = 0; g < groups; g++) {
      const size_t start = g * group, count = start + group < columns ? group : columns - start;
      NAME(encode)(
          values + g * stride, count, (struct affine_grid){scales[g], zeros[g]}, job->bits,
          offset, codes + start, &sums);
    }
    affine_flush(&sums);
    if (job->squared_error) job->squared_error[row] = sums.total_error;
    if (job->squared_weight) job->squared_weight[row] = sums.total_weight;
    if (job->largest_error) job->largest_error[row] = affine_largest(&sums);
    uint8_t *target = (uint8_t *)job->codes + row * job->code_stride;
    if (job->packed && job->bits < 8) {
      memset(codes + columns, 0, affine_padded(columns) - columns);
      NAME(pack)(codes, columns, job->bits, target, used);
    } else {
      memcpy(target, codes, columns);
      memset(target + columns, 0, used - columns);
    }
  }
  return PARE_AFFINE_OK;
}

TARGET static enum pare_affine_status NAME(range_rows)(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch, float *low,
    float *high, struct pare_affine_fault *fault) {
  const size_t size = affine_type_size(job->source_type);
  for (size_t row = first; row < last; row++) {
    const char *source = (const char *)job->source + row * job->columns * size;
    uint32_t largest = NAME(widen)(
        source, job->source_type, job->columns, scratch, job->symmetric, low + row, high + row);
    if (largest >= 0x7f800000u) {
      fault->row = row;
      fault->column = affine_first_fault(source, job->columns, job->source_type);
      return PARE_AFFINE_NOT_FINITE;
    }
  }
  return PARE_AFFINE_OK;
}

TARGET static void NAME(candidate_errors)(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    const float *scales, const int8_t *zeros, size_t count, double *errors) {
  const size_t size = affine_type_size(job->source_type);
  for (size_t i = 0; i < count; i++) errors[i] = 0;
  for (size_t row = first; row < last; row++) {
    const char *source = (const char *)job->source + row * job->columns * size;
    float low, high;
    NAME(widen)(
        source, job->source_type, job->columns, scratch, job->symmetric, &low, &high);
    for (size_t i = 0; i < count; i++) {
      struct affine_grid grid = {scales[i], zeros ? (float)zeros[i] : 0};
      errors[i] += NAME(error)(scratch, job->columns, grid, job->bits, INFINITY);
    }
  }
}

/// Opens `count` codes (rounded up to 64) of a dense stream of `size` bytes into bytes: the inverse
/// of pack, bits apart to fours, pairs and single bytes.
TARGET static void NAME(unpack)(
    const uint8_t *stream, size_t size, int bits, size_t count, uint8_t *codes) {
  const uint64_t one = 0x0101010101010101ull * ((1ull << bits) - 1) & 0x00ff00ff00ff00ffull;
  const uint64_t two = 0x0000000100000001ull * ((1ull << (2 * bits)) - 1);
  const uint64_t four = (1ull << (4 * bits)) - 1;
  const size_t step = 8 * (size_t)bits;
  for (size_t i = 0, read = 0; i < count; i += 64, read += step) {
    affine_u64 x = 0;
    if (bits == 4 && read + 32 <= size) {
      affine_u32x8 words;
      memcpy(&words, stream + read, 32);
      x = __builtin_convertvector(words, affine_u64);
    } else if (read + step + 8 <= size) {
      for (int lane = 0; lane < 8; lane++) {
        uint64_t word;
        memcpy(&word, stream + read + lane * bits, 8);
        x[lane] = word;
      }
    } else {
      uint8_t tail[72] = {0};
      if (read < size) memcpy(tail, stream + read, step < size - read ? step : size - read);
      for (int lane = 0; lane < 8; lane++) {
        uint64_t word;
        memcpy(&word, tail + lane * bits, 8);
        x[lane] = word;
      }
    }
    x = (x & four) | ((x << (32 - 4 * bits)) & (four << 32));
    x = (x & two) | ((x << (16 - 2 * bits)) & (two << 16));
    x = (x & one) | ((x << (8 - bits)) & (one << 8));
    memcpy(codes + i, &x, 64);
  }
}

/// Opens columns `start` ..< `end` (start a multiple of 64) of a row into bytes.
TARGET static void NAME(open_codes)(
    const struct pare_affine_codes *source, const uint8_t *stream, size_t start, size_t end,
    uint8_t *codes) {
  const size_t size = (source->columns * (size_t)source->bits + 31) / 32 * 4;
  if (!source->packed) {
    for (size_t i = start; i < end; i++) codes[i - start] = stream[i] ^ 0x80u;
  } else if (!source->dense) {
    affine_unpack_gapped(stream, source->bits, start, end, codes);
  } else if (source->bits == 8) {
    memcpy(codes, stream + start, end - start);
  } else {
    const size_t skipped = start / 8 * (size_t)source->bits;
    NAME(unpack)(stream + skipped, size - skipped, source->bits, end - start, codes);
  }
}

TARGET static void NAME(decode_rows)(
    const struct pare_affine_codes *source, size_t first, size_t last, float *target) {
  enum { block = 1024 };
  const size_t columns = source->columns, group = source->group;
  const int offset = source->packed ? 1 << (source->bits - 1) : 128;
  uint8_t codes[block + 64];
  for (size_t row = first; row < last; row++, target += columns) {
    const uint8_t *stream = (const uint8_t *)source->codes + row * source->code_stride;
    for (size_t start = 0; start < columns; start += block) {
      const size_t end = start + block < columns ? start + block : columns;
      NAME(open_codes)(source, stream, start, end, codes);
      for (size_t i = start; i < end;) {
        const size_t g = i / group, stop = (g + 1) * group < end ? (g + 1) * group : end;
        const size_t at = row * source->scale_stride + (source->scale_stride ? g : 0);
        const float scale = affine_load(source->scales, at, source->scale_type);
        const int32_t zero = offset + (source->zeros ? source->zeros[at] : 0);
        for (; i + 16 <= stop; i += 16) {
          affine_u8 bytes;
          memcpy(&bytes, codes + (i - start), 16);
          affine_i32 steps = __builtin_convertvector(bytes, affine_i32) - zero;
          affine_f32 values = __builtin_convertvector(steps, affine_f32) * scale;
          memcpy(target + i, &values, 64);
        }
        for (; i < stop; i++) target[i] = (float)((int32_t)codes[i - start] - zero) * scale;
      }
    }
  }
}
