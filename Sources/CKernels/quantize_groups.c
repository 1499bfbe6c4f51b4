// Rounding to affine groups at the speed of memory. See include/quantize_groups.h for the contract.
//
// One body over portable 16-lane vectors serves every instruction set; the compiler lowers a lane
// operation to AVX-512, AVX2, SSE2 or NEON. Division is kept (a reciprocal would move codes that
// lie near a half), and rounding uses the addition trick because no baseline x86 instruction does it.
#include "quantize_groups_grid.h"

#pragma STDC FP_CONTRACT OFF

typedef float affine_f32 __attribute__((ext_vector_type(16)));
typedef uint32_t affine_u32 __attribute__((ext_vector_type(16)));
typedef int32_t affine_i32 __attribute__((ext_vector_type(16)));
typedef uint16_t affine_u16 __attribute__((ext_vector_type(16)));
typedef uint8_t affine_u8 __attribute__((ext_vector_type(16)));
typedef uint64_t affine_u64 __attribute__((ext_vector_type(8)));
typedef uint32_t affine_u32x8 __attribute__((ext_vector_type(8)));
typedef float affine_f32x8 __attribute__((ext_vector_type(8)));
typedef float affine_f32x4 __attribute__((ext_vector_type(4)));
typedef float affine_f32x2 __attribute__((ext_vector_type(2)));

/// A row's sums: float32 per lane, emptied into double every few hundred elements.
struct affine_sums {
  float squared_error[16], squared_weight[16], largest_error[16];
  double total_error, total_weight;
  size_t count;
};

static void affine_flush(struct affine_sums *sums) {
  for (int lane = 0; lane < 16; lane++) {
    sums->total_error += (double)sums->squared_error[lane];
    sums->total_weight += (double)sums->squared_weight[lane];
  }
  memset(sums->squared_error, 0, sizeof sums->squared_error);
  memset(sums->squared_weight, 0, sizeof sums->squared_weight);
  sums->count = 0;
}

static float affine_largest(const struct affine_sums *sums) {
  float largest = 0;
  for (int lane = 0; lane < 16; lane++) {
    if (sums->largest_error[lane] > largest) largest = sums->largest_error[lane];
  }
  return largest;
}

static size_t affine_padded(size_t count) { return (count + 63) / 64 * 64; }

static size_t affine_first_fault(const void *source, size_t count, enum pare_affine_type type) {
  for (size_t i = 0; i < count; i++) {
    if ((affine_bits(affine_load(source, i, type)) & 0x7f800000u) == 0x7f800000u) return i;
  }
  return 0;
}

size_t pare_affine_scratch_floats(size_t columns, size_t group) {
  if (columns == 0) return 64;
  group = group < columns ? group : columns;
  const size_t groups = (columns + group - 1) / group;
  // Widened values, four numbers a group, a row of codes, each with room for whole vectors.
  return groups * ((group + 15) / 16 * 16) + 4 * (groups + 16) + affine_padded(columns) / 4 + 64;
}

/// Codes `start` ..< `end` of the older layout: floor(32 / bits) to a word.
static void affine_unpack_gapped(
    const uint8_t *stream, int bits, size_t start, size_t end, uint8_t *codes) {
  const size_t perWord = 32 / (size_t)bits;
  for (size_t i = start; i < end; i++) {
    uint32_t word;
    memcpy(&word, stream + i / perWord * 4, 4);
    codes[i - start] = (uint8_t)((word >> (i % perWord * (size_t)bits)) & ((1u << bits) - 1));
  }
}

#define TARGET
#define NAME(x) portable_##x
#include "quantize_groups_body.h"
#include "multiply_groups_body.h"
#undef TARGET
#undef NAME

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma,f16c,bmi,bmi2")))
#define NAME(x) avx2_##x
#include "quantize_groups_body.h"
#include "multiply_groups_body.h"
#undef TARGET
#undef NAME

#define TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2"), \
                 min_vector_width(512)))
#define NAME(x) avx512_##x
#include "quantize_groups_body.h"
#include "multiply_groups_body.h"
#undef TARGET
#undef NAME

static int affine_level(void) {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return 2;
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
}
#define DISPATCH(function, ...)                               \
  switch (affine_level()) {                                   \
    case 2: return avx512_##function(__VA_ARGS__);            \
    case 1: return avx2_##function(__VA_ARGS__);              \
    default: return portable_##function(__VA_ARGS__);         \
  }
#else
#define DISPATCH(function, ...) return portable_##function(__VA_ARGS__);
#endif

enum pare_affine_status pare_affine_quantize_rows(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    struct pare_affine_fault *fault) {
  DISPATCH(quantize_rows, job, first, last, scratch, fault)
}

enum pare_affine_status pare_affine_range_rows(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch, float *low,
    float *high, struct pare_affine_fault *fault) {
  DISPATCH(range_rows, job, first, last, scratch, low, high, fault)
}

void pare_affine_candidate_errors(
    const struct pare_affine_job *job, size_t first, size_t last, float *scratch,
    const float *scales, const int8_t *zeros, size_t count, double *errors) {
  DISPATCH(candidate_errors, job, first, last, scratch, scales, zeros, count, errors)
}

void pare_affine_decode_rows(
    const struct pare_affine_codes *source, size_t first, size_t last, float *target) {
  DISPATCH(decode_rows, source, first, last, target)
}

static void multiply_rows(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride) {
  DISPATCH(multiply_rows, source, first, last, x, tokens, y, y_stride)
}

void pare_affine_multiply_rows(
    const struct pare_affine_codes *source, size_t first, size_t last, const float *x,
    size_t tokens, float *y, size_t y_stride) {
  for (size_t t = 0; t < tokens; t += AFFINE_TOKENS) {
    const size_t some = tokens - t < AFFINE_TOKENS ? tokens - t : AFFINE_TOKENS;
    multiply_rows(
        source, first, last, x + t * source->columns, some, y + t * y_stride, y_stride);
  }
}

static void pack(const uint8_t *codes, size_t count, int bits, uint8_t *stream, size_t size) {
  DISPATCH(pack, codes, count, bits, stream, size)
}

void pare_affine_pack_codes(
    const int8_t *codes, size_t rows, size_t columns, int bits, uint32_t *words) {
  // A multiple of 64 codes, and of the bits that make whole words.
  enum { piece = 1024 };
  uint8_t unsigned_codes[piece];
  const size_t size = (columns * (size_t)bits + 31) / 32 * 4;
  for (size_t row = 0; row < rows; row++) {
    uint8_t *stream = (uint8_t *)words + row * size;
    memset(stream, 0, size);
    for (size_t start = 0; start < columns; start += piece) {
      const size_t count = columns - start < piece ? columns - start : piece;
      const int8_t *source = codes + row * columns + start;
      for (size_t i = 0; i < count; i++) {
        unsigned_codes[i] = (uint8_t)(source[i] + (1 << (bits - 1)));
      }
      memset(unsigned_codes + count, 0, affine_padded(count) - count);
      const size_t at = start / 8 * (size_t)bits;
      const size_t bytes = (count * (size_t)bits + 7) / 8;
      if (bits == 8) {
        memcpy(stream + at, unsigned_codes, count);
      } else {
        pack(unsigned_codes, count, bits, stream + at, bytes);
      }
    }
  }
}

float pare_affine_grid(
    float low, float high, int bits, int symmetric, enum pare_affine_type scale_type,
    int8_t *zero) {
  struct affine_grid grid = affine_choose(low, high, bits, symmetric, scale_type);
  if (zero) *zero = (int8_t)grid.zero;
  return grid.scale;
}

void pare_affine_store(
    const float *scales, size_t count, enum pare_affine_type type, void *target) {
  for (size_t i = 0; i < count; i++) affine_store(target, i, scales[i], type);
}

void pare_affine_load(
    const void *scales, size_t count, enum pare_affine_type type, float *target) {
  for (size_t i = 0; i < count; i++) target[i] = affine_load(scales, i, type);
}

void pare_affine_pack_zeros(
    const int8_t *zeros, size_t rows, size_t groups, int bits, uint32_t *words) {
  const size_t count = (rows * (size_t)bits + 31) / 32;
  memset(words, 0, count * groups * 4);
  for (size_t row = 0; row < rows; row++) {
    const size_t bit = row * (size_t)bits, word = bit / 32, shift = bit % 32;
    for (size_t g = 0; g < groups; g++) {
      uint32_t code = (uint32_t)(zeros[row * groups + g] + (1 << (bits - 1)));
      words[word * groups + g] |= code << shift;
      if (shift + (size_t)bits > 32) words[(word + 1) * groups + g] |= code >> (32 - shift);
    }
  }
}

static uint32_t affine_word(const void *words, size_t index) {
  uint32_t word;
  memcpy(&word, (const char *)words + 4 * index, 4);
  return word;
}

void pare_affine_unpack_zeros(
    const void *words, size_t rows, size_t groups, int bits, int8_t *zeros) {
  const uint32_t mask = (1u << bits) - 1;
  for (size_t row = 0; row < rows; row++) {
    const size_t bit = row * (size_t)bits, word = bit / 32, shift = bit % 32;
    for (size_t g = 0; g < groups; g++) {
      uint32_t code = affine_word(words, word * groups + g) >> shift;
      if (shift + (size_t)bits > 32) {
        code |= affine_word(words, (word + 1) * groups + g) << (32 - shift);
      }
      zeros[row * groups + g] = (int8_t)((int)(code & mask) - (1 << (bits - 1)));
    }
  }
}
