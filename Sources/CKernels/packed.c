// Products of packed matrices. See include/packed.h for the layout and the contract, packed_body.h
// for the kernels, packed_rows.c for packing and decoding.
#include "packed.h"

#include <stdatomic.h>
#include <string.h>

#include "packed_forms.h"

#pragma STDC FP_CONTRACT OFF
// Vectors pass between functions that are always inlined, so no calling convention is at stake.
#pragma clang diagnostic ignored "-Wpsabi"

/// 64 blocks of a panel, 2048 columns of 16 rows, are 56 KB: with a tile of activations they leave
/// room in a second-level cache of 256 KB.
enum { PANEL_BLOCKS = 64 };
/// Asks for the weights that come next. Measured on Zen 4: arithmetic fills the reorder window before
/// loads run far enough ahead, so hardware alone reaches 70 % of the bandwidth of plain reading;
/// asking 4 KB ahead reaches 75 to 97 %. Where a byte holds most arithmetic, a second request further
/// ahead into the second-level cache adds 10 to 30 %; with more bits it costs more than it gives.
__attribute__((always_inline)) static inline void packed_ask(const uint8_t *p, int codes) {
  if (codes <= 3) __builtin_prefetch(p + 16384, 0, 2);
  __builtin_prefetch(p + 4096, 0, 3);
}

struct packed_kernels {
  void (*vector)(
      const struct pare_packed *matrix, size_t first, size_t last,
      const struct pare_activations *x, float *y);
  void (*matrix)(
      const struct pare_packed *matrix, size_t first, size_t last,
      const struct pare_activations *x, size_t tokens, float *y, size_t y_stride);
};

static inline int32_t word_at(const int8_t *codes, int k) {
  int32_t word;
  memcpy(&word, codes + 4 * k, 4);
  return word;
}

// One body over portable vectors; only dot products, table look-ups and widths are chosen by hand.

// Plain C: the reference.

#define TARGET
#define NAME(x) plain_##x
#define LANES 8
#define TOKENS 4
#define WIDE_BIAS 0
typedef int32_t plain_sums __attribute__((ext_vector_type(8)));
typedef uint8_t plain_bytes __attribute__((ext_vector_type(32)));

static inline plain_sums plain_dots(
    plain_sums sum, const plain_bytes *c, const int8_t *x, int count, int codes) {
  for (int k = 0; k < count; k++) {
    for (int i = 0; i < 32; i++) {
      const int32_t code = packed_is_wide(codes) ? (int8_t)c[k][i] : c[k][i];
      sum[i / 4] += code * x[4 * k + i % 4];
    }
  }
  return sum;
}
static inline plain_bytes plain_lookup(const int8_t *table, plain_bytes indices) {
  for (int i = 0; i < 32; i++) indices[i] = (uint8_t)table[indices[i]];
  return indices;
}
#define DOTS(sum, c, x, count, codes, lowest) ((void)(lowest), plain_dots(sum, c, x, count, codes))
#define LOOKUP plain_lookup
#include "packed_body.h"

#if defined(__x86_64__)
#include <immintrin.h>

// AVX2: pairs of products in 16 bits, several before they are widened, as far as the codes allow.

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define NAME(x) avx2_##x
#define LANES 8
#define TOKENS 4
#define WIDE_BIAS 0
typedef int32_t avx2_sums __attribute__((ext_vector_type(8)));
typedef uint8_t avx2_bytes __attribute__((ext_vector_type(32)));

// Signed bytes in 16-bit lanes: never out of range, but twice the work.
__attribute__((always_inline)) TARGET static inline avx2_sums avx2_dots_of_words(
    avx2_sums sum, const avx2_bytes *c, const int8_t *x, int count) {
  __m256i total = (__m256i)sum;
  for (int k = 0; k < count; k++) {
    const __m256i code = (__m256i)c[k], word = _mm256_set1_epi32(word_at(x, k));
    const __m256i even = _mm256_madd_epi16(
        _mm256_srai_epi16(_mm256_slli_epi16(code, 8), 8),
        _mm256_srai_epi16(_mm256_slli_epi16(word, 8), 8));
    const __m256i odd =
        _mm256_madd_epi16(_mm256_srai_epi16(code, 8), _mm256_srai_epi16(word, 8));
    total = _mm256_add_epi32(total, _mm256_add_epi32(even, odd));
  }
  return (avx2_sums)total;
}
__attribute__((always_inline)) TARGET static inline avx2_sums avx2_dots(
    avx2_sums sum, const avx2_bytes *c, const int8_t *x, int count, int codes, int32_t lowest) {
  // -128 has no negative.
  if (packed_is_wide(codes) && __builtin_expect(lowest, 0)) {
    return avx2_dots_of_words(sum, c, x, count);
  }
  // A 16-bit lane holds 2 * 128 * (largest code) from each vector.
  const int run = packed_is_wide(codes) ? 1 : codes == 6 ? 2 : codes == 5 ? 4 : 8;
  __m256i total = (__m256i)sum;
  for (int k = 0; k < count; k += run) {
    __m256i pairs = _mm256_setzero_si256();
    for (int i = k; i < k + run && i < count; i++) {
      const __m256i code = (__m256i)c[i], word = _mm256_set1_epi32(word_at(x, i));
      const __m256i products =
          packed_is_wide(codes)
              ? _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(word, code))
              : _mm256_maddubs_epi16(code, word);
      pairs = i == k ? products : _mm256_add_epi16(pairs, products);
    }
    total = _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  return (avx2_sums)total;
}
__attribute__((always_inline)) TARGET static inline avx2_bytes avx2_lookup(
    const int8_t *table, avx2_bytes indices) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
  return (avx2_bytes)_mm256_shuffle_epi8(both, (__m256i)indices);
}
#define DOTS avx2_dots
#define LOOKUP avx2_lookup
#include "packed_body.h"

// AVX-512 with VNNI: four products a lane in one instruction, of an unsigned and a signed byte.

#define TARGET                                                             \
  __attribute__((                                                          \
      target("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c"), \
      min_vector_width(512)))
#define NAME(x) vnni_##x
#define LANES 16
#define TOKENS 16
#define WIDE_BIAS 128
typedef int32_t vnni_sums __attribute__((ext_vector_type(16)));
typedef uint8_t vnni_bytes __attribute__((ext_vector_type(64)));

__attribute__((always_inline)) TARGET static inline vnni_sums vnni_dots(
    vnni_sums sum, const vnni_bytes *c, const int8_t *x, int count) {
  for (int k = 0; k < count; k++) {
    sum = (vnni_sums)_mm512_dpbusd_epi32(
        (__m512i)sum, (__m512i)c[k], _mm512_set1_epi32(word_at(x, k)));
  }
  return sum;
}
__attribute__((always_inline)) TARGET static inline vnni_bytes vnni_lookup(
    const int8_t *table, vnni_bytes indices) {
  const __m128i biased =
      _mm_xor_si128(_mm_loadu_si128((const __m128i *)table), _mm_set1_epi8((char)0x80));
  return (vnni_bytes)_mm512_shuffle_epi8(_mm512_broadcast_i32x4(biased), (__m512i)indices);
}
#define DOTS(sum, c, x, count, codes, lowest) \
  ((void)(codes), (void)(lowest), vnni_dots(sum, c, x, count))
#define LOOKUP vnni_lookup
#include "packed_body.h"
#endif

#if defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

// NEON with the dot product extension: four products a lane, both bytes signed.

#define TARGET __attribute__((target("dotprod")))
#define NAME(x) dotprod_##x
#define LANES 8
#define TOKENS 8
#define WIDE_BIAS 0
typedef int32_t dotprod_sums __attribute__((ext_vector_type(8)));
typedef uint8_t dotprod_bytes __attribute__((ext_vector_type(32)));

__attribute__((always_inline)) TARGET static inline dotprod_sums dotprod_dots(
    dotprod_sums sum, const dotprod_bytes *c, const int8_t *x, int count) {
  int32x4_t low, high;
  memcpy(&low, &sum, 16);
  memcpy(&high, (char *)&sum + 16, 16);
  for (int k = 0; k < count; k++) {
    const int8x16_t word = vreinterpretq_s8_s32(vdupq_n_s32(word_at(x, k)));
    int8x16_t codes[2];
    memcpy(codes, c + k, 32);
    low = vdotq_s32(low, codes[0], word);
    high = vdotq_s32(high, codes[1], word);
  }
  memcpy(&sum, &low, 16);
  memcpy((char *)&sum + 16, &high, 16);
  return sum;
}
__attribute__((always_inline)) TARGET static inline dotprod_bytes dotprod_lookup(
    const int8_t *table, dotprod_bytes indices) {
  const uint8x16_t entries = vreinterpretq_u8_s8(vld1q_s8(table));
  uint8x16_t halves[2];
  memcpy(halves, &indices, 32);
  for (int i = 0; i < 2; i++) halves[i] = vqtbl1q_u8(entries, halves[i]);
  memcpy(&indices, halves, 32);
  return indices;
}
#define DOTS(sum, c, x, count, codes, lowest) \
  ((void)(codes), (void)(lowest), dotprod_dots(sum, c, x, count))
#define LOOKUP dotprod_lookup
#include "packed_body.h"
#endif

int pare_packed_has_level(enum pare_packed_level level) {
  switch (level) {
    case PARE_LEVEL_PLAIN: return 1;
#if defined(__x86_64__)
    case PARE_LEVEL_AVX2:
      __builtin_cpu_init();
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case PARE_LEVEL_VNNI:
      __builtin_cpu_init();
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
#endif
#if defined(__aarch64__)
    case PARE_LEVEL_DOTPROD:
#if defined(__linux__)
      return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP
#else
      return 1;  // every Apple processor that runs macOS
#endif
#endif
    default: return 0;
  }
}

static _Atomic int chosen = -1;

static int level(void) {
  int now = atomic_load_explicit(&chosen, memory_order_relaxed);
  if (now >= 0) return now;
  for (now = PARE_LEVEL_DOTPROD; now > 0 && !pare_packed_has_level(now); now--) {
  }
  atomic_store_explicit(&chosen, now, memory_order_relaxed);
  return now;
}

void pare_packed_use_level(enum pare_packed_level wanted) {
  if (pare_packed_has_level(wanted)) {
    atomic_store_explicit(&chosen, (int)wanted, memory_order_relaxed);
  }
}

static const struct packed_kernels *kernels(enum pare_packed_form form) {
  switch (level()) {
#if defined(__x86_64__)
    case PARE_LEVEL_AVX2: return &avx2_kernels[form];
    case PARE_LEVEL_VNNI: return &vnni_kernels[form];
#endif
#if defined(__aarch64__)
    case PARE_LEVEL_DOTPROD: return &dotprod_kernels[form];
#endif
    default: return &plain_kernels[form];
  }
}

size_t pare_packed_groups(const struct pare_packed *matrix) {
  return (matrix->rows + PARE_PACKED_ROWS - 1) / PARE_PACKED_ROWS;
}

void pare_packed_multiply(
    const struct pare_packed *matrix, size_t first, size_t last, const struct pare_activations *x,
    size_t tokens, float *y, size_t y_stride) {
  if (first >= last || tokens == 0) return;
  const struct packed_kernels *two = kernels(matrix->form);
  if (tokens == 1) {
    two->vector(matrix, first, last, x, y);
  } else {
    two->matrix(matrix, first, last, x, tokens, y, y_stride);
  }
}

// The sums of the codes are exact, and so is each code: this needs no variants by hand.
__attribute__((always_inline)) static inline void quantize(
    const float *x, size_t columns, size_t tokens, struct pare_activations *tile) {
  for (size_t t = 0; t < tokens; t++) {
    for (size_t b = 0; b < columns / 32; b++) {
      const float *values = x + t * columns + 32 * b;
      struct pare_activations *one = tile + b * tokens + t;
      float largest = 0;
      for (int i = 0; i < 32; i++) {
        const float size = __builtin_fabsf(values[i]);
        largest = size > largest ? size : largest;
      }
      // Below this the inverse may overflow, and nothing such numbers add to is changed by them.
      if (largest < 1e-30f) largest = 0;
      const float inverse = largest > 0 ? 127.0f / largest : 0;
      // Adding 1.5 * 2^23 leaves the nearest integer, half to even, in the low bits.
      int32_t sums[2] = {0, 0};
      for (int half = 0; half < 2; half++) {
        for (int i = 16 * half; i < 16 * half + 16; i++) {
          const float shifted = values[i] * inverse + 12582912.0f;
          int32_t bits;
          memcpy(&bits, &shifted, 4);
          one->codes[i] = (int8_t)(bits - 0x4b400000);
          sums[half] -= bits - 0x4b400000;
        }
      }
      one->scale = largest / 127.0f;
      one->sum[0] = sums[0] + sums[1];
      one->sum[1] = sums[0];
      one->sum[2] = sums[1];
      for (int i = 0; i < 3; i++) one->scaled[i] = (float)one->sum[i] * one->scale;
      one->lowest = 0;
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void quantize_avx2(
    const float *x, size_t columns, size_t tokens, struct pare_activations *tile) {
  quantize(x, columns, tokens, tile);
}
#endif

void pare_quantize_activations(
    const float *x, size_t columns, size_t tokens, struct pare_activations *tile) {
#if defined(__x86_64__)
  if (level() >= PARE_LEVEL_AVX2) return quantize_avx2(x, columns, tokens, tile);
#endif
  quantize(x, columns, tokens, tile);
}

__attribute__((always_inline)) static inline void quantize_on_grid(
    const float *x, size_t columns, size_t tokens, const float *scales, int low, int high,
    struct pare_activations *tile) {
  for (size_t t = 0; t < tokens; t++) {
    const float scale = scales[t];
    for (size_t b = 0; b < columns / 32; b++) {
      const float *values = x + t * columns + 32 * b;
      struct pare_activations *one = tile + b * tokens + t;
      int32_t sums[2] = {0, 0}, lowest = 0;
      for (int half = 0; half < 2; half++) {
        for (int i = 16 * half; i < 16 * half + 16; i++) {
          float value = values[i] / scale;
          value = value > (float)low ? value : (float)low;
          value = value < (float)high ? value : (float)high;
          const float shifted = value + 12582912.0f;
          int32_t bits;
          memcpy(&bits, &shifted, 4);
          const int32_t code = bits - 0x4b400000;
          one->codes[i] = (int8_t)code;
          sums[half] -= code;
          lowest |= code == -128;
        }
      }
      one->scale = scale;
      one->sum[0] = sums[0] + sums[1];
      one->sum[1] = sums[0];
      one->sum[2] = sums[1];
      for (int i = 0; i < 3; i++) one->scaled[i] = (float)one->sum[i] * scale;
      one->lowest = lowest;
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void quantize_on_grid_avx2(
    const float *x, size_t columns, size_t tokens, const float *scales, int low, int high,
    struct pare_activations *tile) {
  quantize_on_grid(x, columns, tokens, scales, low, high, tile);
}
#endif

void pare_quantize_activations_on_grid(
    const float *x, size_t columns, size_t tokens, const float *scales, int low, int high,
    struct pare_activations *tile) {
#if defined(__x86_64__)
  if (level() >= PARE_LEVEL_AVX2) {
    return quantize_on_grid_avx2(x, columns, tokens, scales, low, high, tile);
  }
#endif
  quantize_on_grid(x, columns, tokens, scales, low, high, tile);
}
