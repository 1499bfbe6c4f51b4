// NormalFloat-4: sixteen levels times the scale of a block. See include/nf4.h.
#include "nf4.h"

#include <math.h>
#include <string.h>

#include "vector.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#pragma STDC FP_CONTRACT OFF

// Dettmers et al. 2023, appendix E, in float32.
const float pare_nf4_levels[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static inline float nf4_load(const void *base, size_t index) {
  float value;
  memcpy(&value, (const char *)base + 4 * index, 4);
  return value;
}

float pare_nf4_scale(const struct pare_nf4 *matrix, size_t block) {
  if (matrix->scales) return nf4_load(matrix->scales, block);
  const float product = nf4_load(matrix->scale_levels, matrix->scale_codes[block]) *
      nf4_load(matrix->scale_scales, block / matrix->scale_block);
  return product + matrix->offset;
}

void pare_nf4_decode_reference(
    const struct pare_nf4 *matrix, size_t first, size_t count, float *target) {
  for (size_t i = 0; i < count; i++) {
    const size_t at = first + i;
    const int code = matrix->codes[at / 2] >> (at % 2 == 0 ? 4 : 0) & 15;
    target[i] = pare_nf4_levels[code] * pare_nf4_scale(matrix, at / matrix->block);
  }
}

/// `bytes` whole bytes of codes under one scale.
typedef void nf4_run(const uint8_t *codes, size_t bytes, float scale, float *target);

static inline void nf4_run_tail(const uint8_t *codes, size_t bytes, float scale, float *target) {
  for (size_t i = 0; i < bytes; i++) {
    target[2 * i] = pare_nf4_levels[codes[i] >> 4] * scale;
    target[2 * i + 1] = pare_nf4_levels[codes[i] & 15] * scale;
  }
}

#if defined(__x86_64__)
/// Sixteen codes index a register of sixteen levels.
__attribute__((target("avx512f,avx512bw,avx512vl"), min_vector_width(512))) static void nf4_run_avx512(
    const uint8_t *codes, size_t bytes, float scale, float *target) {
  const __m512 levels = _mm512_mul_ps(_mm512_loadu_ps(pare_nf4_levels), _mm512_set1_ps(scale));
  const __m128i low = _mm_set1_epi8(15);
  size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    const __m128i eight = _mm_loadl_epi64((const __m128i *)(codes + i));
    const __m128i high = _mm_and_si128(_mm_srli_epi16(eight, 4), low);
    const __m512i index =
        _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(high, _mm_and_si128(eight, low)));
    _mm512_storeu_ps(target + 2 * i, _mm512_permutexvar_ps(index, levels));
  }
  nf4_run_tail(codes + i, bytes - i, scale, target + 2 * i);
}

/// Two registers of eight levels; the code's top bit chooses between them.
__attribute__((target("avx2"))) static void nf4_run_avx2(
    const uint8_t *codes, size_t bytes, float scale, float *target) {
  const __m256 factor = _mm256_set1_ps(scale);
  const __m256 lower = _mm256_mul_ps(_mm256_loadu_ps(pare_nf4_levels), factor);
  const __m256 upper = _mm256_mul_ps(_mm256_loadu_ps(pare_nf4_levels + 8), factor);
  const __m128i low = _mm_set1_epi8(15);
  size_t i = 0;
  for (; i + 4 <= bytes; i += 4) {
    int four;
    memcpy(&four, codes + i, 4);
    const __m128i packed = _mm_cvtsi32_si128(four);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(packed, 4), low);
    const __m256i index =
        _mm256_cvtepu8_epi32(_mm_unpacklo_epi8(high, _mm_and_si128(packed, low)));
    const __m256 is_upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    _mm256_storeu_ps(
        target + 2 * i,
        _mm256_blendv_ps(
            _mm256_permutevar8x32_ps(lower, index), _mm256_permutevar8x32_ps(upper, index),
            is_upper));
  }
  nf4_run_tail(codes + i, bytes - i, scale, target + 2 * i);
}
#endif

static void nf4_run_portable(const uint8_t *codes, size_t bytes, float scale, float *target) {
  float levels[16];
  for (int i = 0; i < 16; i++) levels[i] = pare_nf4_levels[i] * scale;
  for (size_t i = 0; i < bytes; i++) {
    target[2 * i] = levels[codes[i] >> 4];
    target[2 * i + 1] = levels[codes[i] & 15];
  }
}

static nf4_run *nf4_best_run(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return nf4_run_avx512;
  }
  if (__builtin_cpu_supports("avx2")) return nf4_run_avx2;
#endif
  return nf4_run_portable;
}

void pare_nf4_decode(const struct pare_nf4 *matrix, size_t first, size_t count, float *target) {
  nf4_run *run = nf4_best_run();
  size_t done = 0;
  if (first % 2 == 1 && count > 0) {
    pare_nf4_decode_reference(matrix, first, 1, target);
    done = 1;
  }
  while (count - done >= 2) {
    const size_t at = first + done, block = at / matrix->block;
    // A block is an even number of codes, so a run within it is whole bytes.
    const size_t left = (block + 1) * matrix->block - at;
    const size_t bytes = (left < count - done ? left : count - done) / 2;
    run(matrix->codes + at / 2, bytes, pare_nf4_scale(matrix, block), target + done);
    done += 2 * bytes;
  }
  if (done < count) pare_nf4_decode_reference(matrix, first + done, 1, target + done);
}

PARE_KERNEL static float nf4_largest(const float *source, size_t count) {
  // As integers, magnitudes order like the numbers, and NaN and infinity come above all.
  uint32_t largest = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, source + i, 4);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  float result;
  memcpy(&result, &largest, 4);
  return result;
}

size_t pare_nf4_scales(const float *source, size_t count, size_t block, float *scales) {
  for (size_t start = 0; start < count; start += block) {
    const size_t end = start + block < count ? start + block : count;
    const float largest = nf4_largest(source + start, end - start);
    if (!(largest < INFINITY)) {
      for (size_t i = start; i < end; i++) {
        if (!isfinite(source[i])) return i;
      }
    }
    scales[start / block] = largest;
  }
  return count;
}

/// What a scale and its numbers are multiplied by first, so that 1 / scale does not overflow.
static inline float nf4_lift(float scale) { return fabsf(scale) < 0x1p-120f ? 0x1p100f : 1; }

static inline float nf4_scaled(float value, float scale) {
  const float lift = nf4_lift(scale);
  const float scaled = value * lift * (1 / (scale * lift));
  return scaled < -1 ? -1 : scaled > 1 ? 1 : scaled;
}

void pare_nf4_encode_reference(
    const float *source, size_t count, size_t block, const float *scales, uint8_t *codes) {
  memset(codes, 0, (count + 1) / 2);
  for (size_t i = 0; i < count; i++) {
    const float scale = scales[i / block];
    int best = 7;
    if (scale != 0) {
      const double scaled = (double)nf4_scaled(source[i], scale);
      best = 0;
      for (int code = 1; code < 16; code++) {
        if (fabs(scaled - (double)pare_nf4_levels[code]) <
            fabs(scaled - (double)pare_nf4_levels[best])) {
          best = code;
        }
      }
    }
    codes[i / 2] |= (uint8_t)(best << (i % 2 == 0 ? 4 : 0));
  }
  if (count % 2 == 1) codes[count / 2] |= 7;
}

/// thresholds[k] is the largest float32 not above the middle of levels k and k + 1, so that a float32
/// number is nearer to k + 1 exactly if it is greater.
static void nf4_thresholds(float *thresholds) {
  for (int k = 0; k < 15; k++) {
    // The sum of two float32 numbers of these sizes is exact in double.
    const double middle = ((double)pare_nf4_levels[k] + (double)pare_nf4_levels[k + 1]) / 2;
    float rounded = (float)middle;
    if ((double)rounded > middle) rounded = nextafterf(rounded, -INFINITY);
    thresholds[k] = rounded;
  }
}

/// One code a byte.
PARE_KERNEL static void nf4_codes(
    const float *source, size_t count, float scale, const float *thresholds, uint8_t *codes) {
  const float lift = nf4_lift(scale), inverse = 1 / (scale * lift);
  for (size_t i = 0; i < count; i++) {
    const float scaled = source[i] * lift * inverse;
    int code = 0;
    _Pragma("unroll") for (int k = 0; k < 15; k++) code += scaled > thresholds[k];
    codes[i] = (uint8_t)code;
  }
}

void pare_nf4_encode(
    const float *source, size_t count, size_t block, const float *scales, uint8_t *codes) {
  float thresholds[15];
  nf4_thresholds(thresholds);
  for (size_t start = 0; start < count; start += block) {
    const size_t end = start + block < count ? start + block : count;
    const float scale = scales[start / block];
    for (size_t part = start; part < end; part += 64) {
      const size_t size = end - part < 64 ? end - part : 64;
      uint8_t wide[64];
      if (scale != 0) {
        nf4_codes(source + part, size, scale, thresholds, wide);
      } else {
        memset(wide, 7, size);
      }
      if (size % 2 == 1) wide[size] = 7;
      for (size_t i = 0; i < (size + 1) / 2; i++) {
        codes[part / 2 + i] = (uint8_t)(wide[2 * i] << 4 | wide[2 * i + 1]);
      }
    }
  }
}
