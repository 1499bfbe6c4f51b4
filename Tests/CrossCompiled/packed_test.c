// The packed kernels on a machine that Swift's tests do not run on (Scripts/test-neon): packing keeps
// every value, every instruction set gives the bits of plain C, and those are the product.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "packed.h"

static uint64_t state = 12345;
static double unit(void) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(state >> 11) * 0x1p-53;
}

static const struct {
  const char *name;
  enum pare_block_type type;
  int f16[2];
} types[] = {
    {"Q4_0", PARE_BLOCK_Q4_0, {0, -1}},     {"Q4_1", PARE_BLOCK_Q4_1, {0, 2}},
    {"Q5_0", PARE_BLOCK_Q5_0, {0, -1}},     {"Q5_1", PARE_BLOCK_Q5_1, {0, 2}},
    {"Q8_0", PARE_BLOCK_Q8_0, {0, -1}},     {"Q2_K", PARE_BLOCK_Q2_K, {80, 82}},
    {"Q3_K", PARE_BLOCK_Q3_K, {108, -1}},   {"Q4_K", PARE_BLOCK_Q4_K, {0, 2}},
    {"Q5_K", PARE_BLOCK_Q5_K, {0, 2}},      {"Q6_K", PARE_BLOCK_Q6_K, {208, -1}},
    {"IQ4_NL", PARE_BLOCK_IQ4_NL, {0, -1}}, {"IQ4_XS", PARE_BLOCK_IQ4_XS, {0, -1}},
    {"MXFP4", PARE_BLOCK_MXFP4, {-1, -1}},  {"TQ1_0", PARE_BLOCK_TQ1_0, {52, -1}},
    {"TQ2_0", PARE_BLOCK_TQ2_0, {64, -1}},
};

static int failures;
static void expect(int condition, const char *what, const char *name, size_t rows, size_t columns) {
  if (condition) return;
  failures++;
  printf("%s: %s [%zu, %zu]\n", name, what, rows, columns);
}

static void *room(size_t bytes) {
  void *memory = calloc(bytes + 1, 1);
  if (!memory) exit(2);
  return memory;
}

/// Checks a packed matrix whose values are `W`.
static void check(const struct pare_packed *matrix, const float *W, const char *name) {
  enum { TOKENS = 19 };
  const size_t rows = matrix->rows, columns = matrix->columns, groups = pare_packed_groups(matrix);
  float *x = room(TOKENS * columns * sizeof *x);
  for (size_t i = 0; i < TOKENS * columns; i++) x[i] = (float)(unit() - 0.5) * 3;
  struct pare_activations *quantized = room(TOKENS * (columns / 32) * sizeof *quantized);
  float *row = room(columns * sizeof *row);
  for (size_t r = 0; r < rows; r++) {
    pare_packed_decode_row(matrix, r, row);
    expect(!memcmp(row, W + r * columns, columns * 4), "decoded values differ", name, r, columns);
  }
  float *first = room(TOKENS * rows * sizeof *first), *y = room(TOKENS * rows * sizeof *y);
  for (int level = PARE_LEVEL_PLAIN; level <= PARE_LEVEL_DOTPROD; level++) {
    if (!pare_packed_has_level((enum pare_packed_level)level)) continue;
    pare_packed_use_level((enum pare_packed_level)level);
    for (size_t tokens = 1; tokens <= TOKENS; tokens += tokens < 9 ? 1 : 5) {
      for (size_t t = 0; t < tokens; t += PARE_PACKED_TILE) {
        const size_t width = tokens - t < PARE_PACKED_TILE ? tokens - t : PARE_PACKED_TILE;
        pare_quantize_activations(x + t * columns, columns, width, quantized + t * (columns / 32));
      }
      pare_packed_multiply(matrix, 0, groups, quantized, tokens, y, rows);
      if (level == PARE_LEVEL_PLAIN && tokens == 1) {
        for (size_t r = 0; r < rows; r++) {
          double sum = 0, size = 0;
          for (size_t i = 0; i < columns; i++) {
            const double term =
                (double)W[r * columns + i] * quantized[i / 32].codes[i % 32] * quantized[i / 32].scale;
            sum += term;
            size += fabs(term);
          }
          expect(fabs(y[r] - sum) <= 4e-6 * size + 1e-7, "product differs", name, r, columns);
        }
      }
      if (level == PARE_LEVEL_PLAIN && tokens == TOKENS) memcpy(first, y, TOKENS * rows * 4);
    }
    expect(!memcmp(first, y, TOKENS * rows * 4), "levels differ", name, rows, columns);
    for (size_t t = 0; t < TOKENS; t++) {
      pare_quantize_activations(x + t * columns, columns, 1, quantized);
      pare_packed_multiply(matrix, 0, groups, quantized, 1, y, rows);
      expect(!memcmp(first + t * rows, y, rows * 4), "one token differs", name, rows, columns);
    }
  }
  free(x), free(quantized), free(row), free(first), free(y);
}

static void check_blocks(size_t k, size_t rows, size_t columns) {
  const size_t length = pare_block_length(types[k].type), bytes = pare_block_bytes(types[k].type);
  const size_t count = rows * columns / length;
  uint8_t *blocks = room(count * bytes);
  for (size_t i = 0; i < count * bytes; i++) blocks[i] = (uint8_t)(unit() * 256);
  for (size_t b = 0; b < count; b++) {
    for (int i = 0; i < 2; i++) {
      const _Float16 scale = (_Float16)((unit() - 0.5) * 0.1);
      if (types[k].f16[i] >= 0) memcpy(blocks + b * bytes + types[k].f16[i], &scale, 2);
    }
    if (types[k].type == PARE_BLOCK_MXFP4) blocks[b * bytes] = (uint8_t)(b % 7 ? 118 + b % 9 : b % 3);
  }
  float *W = room(rows * columns * sizeof *W);
  pare_block_decode(types[k].type, blocks, rows * columns, W);
  struct pare_packed matrix = pare_packed_blocks_layout(types[k].type, rows, columns);
  uint8_t *data = room(matrix.stride * pare_packed_groups(&matrix));
  for (size_t g = 0; g < pare_packed_groups(&matrix); g++) {
    pare_pack_blocks(
        &matrix, types[k].type, blocks, columns / length * bytes, g, data + g * matrix.stride);
  }
  matrix.data = data;
  check(&matrix, W, types[k].name);
  free(blocks), free(W), free(data);
}

static void check_affine(int bits, size_t group, int has_zeros, size_t rows, size_t columns) {
  const size_t groups = (columns + group - 1) / group, stride = (columns * (size_t)bits + 31) / 32 * 4;
  uint8_t *codes = room(rows * stride);
  float *scales = room(rows * groups * sizeof *scales);
  int8_t *zeros = room(rows * groups);
  for (size_t i = 0; i < rows * stride; i++) codes[i] = (uint8_t)(unit() * 256);
  for (size_t i = 0; i < rows * groups; i++) {
    scales[i] = (float)(unit() - 0.5);
    zeros[i] = (int8_t)((int)(unit() * (1 << bits)) - (1 << (bits - 1)));
  }
  const struct pare_affine_codes source = {
      .columns = columns, .group = group, .bits = bits, .packed = 1, .dense = 1, .codes = codes,
      .code_stride = stride, .scales = scales, .scale_type = PARE_AFFINE_F32,
      .zeros = has_zeros ? zeros : NULL, .scale_stride = groups};
  float *W = room(rows * columns * sizeof *W);
  pare_affine_decode_rows(&source, 0, rows, W);
  struct pare_packed matrix =
      pare_packed_affine_layout(rows, columns, group, bits, PARE_AFFINE_F32, has_zeros);
  uint8_t *data = room(matrix.stride * pare_packed_groups(&matrix));
  float *scratch = room(PARE_PACKED_ROWS * columns * sizeof *scratch);
  for (size_t g = 0; g < pare_packed_groups(&matrix); g++) {
    pare_pack_affine(&matrix, &source, g, scratch, data + g * matrix.stride);
  }
  matrix.data = data;
  check(&matrix, W, "affine");
  free(codes), free(scales), free(zeros), free(W), free(data), free(scratch);
}

int main(void) {
  for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
    const int is_long = pare_block_length(types[k].type) == 256;
    check_blocks(k, 17, is_long ? 256 : 32);
    check_blocks(k, 9, is_long ? 768 : 416);
    check_blocks(k, 1, 2304);
  }
  for (int bits = 2; bits <= 8; bits += bits == 6 ? 2 : 1) {
    for (int has_zeros = 0; has_zeros < 2; has_zeros++) {
      check_affine(bits, 16, has_zeros, 17, 96);
      check_affine(bits, 32, has_zeros, 7, 160);
      check_affine(bits, 128, has_zeros, 16, 640);
      check_affine(bits, 2336, has_zeros, 3, 2336);
    }
  }
  const char *names[] = {"plain C", "AVX2", "AVX-512 VNNI", "NEON dotprod"};
  printf("packed kernels:");
  for (int level = 0; level <= PARE_LEVEL_DOTPROD; level++) {
    if (pare_packed_has_level((enum pare_packed_level)level)) printf(" %s,", names[level]);
  }
  printf(" %d failures\n", failures);
  return failures != 0;
}
