// Speed of the packed kernels: decode (one token) as GB/s beside a plain read of the same memory, and
// prefill (many tokens) as billions of multiplications and additions a second.
//
//   clang -O2 -ISources/CKernels/include Benchmarks/packed.c \
//     Sources/CKernels/{packed,packed_rows,packed_decode,pool,quantize_groups,quantize_groups_reference}.c \
//     -lm -lpthread -o packed-bench
//   ./packed-bench [--threads N] [--level 0..3] [--type NAME] [--tokens N] [--megabytes N]
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "packed.h"
#include "pool.h"

static const struct {
  const char *name;
  enum pare_block_type type;
  size_t length, bytes;
  int f16[2];  // where scales lie, -1 for none
} types[] = {
    {"Q4_0", PARE_BLOCK_Q4_0, 32, 18, {0, -1}},       {"Q8_0", PARE_BLOCK_Q8_0, 32, 34, {0, -1}},
    {"Q4_K", PARE_BLOCK_Q4_K, 256, 144, {0, 2}},      {"Q6_K", PARE_BLOCK_Q6_K, 256, 210, {208, -1}},
    {"TQ2_0", PARE_BLOCK_TQ2_0, 256, 66, {64, -1}},   {"Q5_K", PARE_BLOCK_Q5_K, 256, 176, {0, 2}},
    {"Q2_K", PARE_BLOCK_Q2_K, 256, 84, {80, 82}},     {"Q3_K", PARE_BLOCK_Q3_K, 256, 110, {108, -1}},
    {"MXFP4", PARE_BLOCK_MXFP4, 32, 17, {-1, -1}},    {"Q4_1", PARE_BLOCK_Q4_1, 32, 20, {0, 2}},
    {"Q5_0", PARE_BLOCK_Q5_0, 32, 22, {0, -1}},       {"Q5_1", PARE_BLOCK_Q5_1, 32, 24, {0, 2}},
    {"IQ4_NL", PARE_BLOCK_IQ4_NL, 32, 18, {0, -1}},   {"IQ4_XS", PARE_BLOCK_IQ4_XS, 256, 136, {0, -1}},
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

enum { ROWS = 2048, COLUMNS = 8192, RUNS = 300, BEST = RUNS / 10 };

struct job {
  struct pare_packed matrix;
  const struct pare_activations *x;
  size_t tokens, chunk, bytes;
  float *y;
  uint64_t sums[1024];
};

static void multiply(void *context, size_t index) {
  struct job *job = context;
  const size_t groups = ROWS / 16, first = index * job->chunk;
  const size_t last = first + job->chunk < groups ? first + job->chunk : groups;
  pare_packed_multiply(&job->matrix, first, last, job->x, job->tokens, job->y, ROWS);
}

static void read_all(void *context, size_t index) {
  struct job *job = context;
  typedef uint64_t lanes __attribute__((ext_vector_type(8)));
  const lanes *p = (const lanes *)(job->matrix.data + index * (job->bytes / 64));
  lanes sum = 0;
  for (size_t i = 0; i < job->bytes / 64 / 64; i++) sum ^= p[i];
  job->sums[index] = sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

static int compare(const void *a, const void *b) {
  return *(const double *)a > *(const double *)b ? 1 : -1;
}

int main(int argc, char **argv) {
  const char *only = NULL;
  int threads = pare_threads();
  size_t tokens = 512, megabytes = 256;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (!strcmp(argv[i], "--threads")) threads = atoi(argv[i + 1]);
    if (!strcmp(argv[i], "--level")) pare_packed_use_level((enum pare_packed_level)atoi(argv[i + 1]));
    if (!strcmp(argv[i], "--type")) only = argv[i + 1];
    if (!strcmp(argv[i], "--tokens")) tokens = (size_t)atoi(argv[i + 1]);
    if (!strcmp(argv[i], "--megabytes")) megabytes = (size_t)atoi(argv[i + 1]);
  }
  pare_set_threads(threads);
  const size_t huge = 2u << 20, room = (megabytes << 20) + (64u << 20);
  uint8_t *memory = mmap(
      NULL, room + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memory = (uint8_t *)(((uintptr_t)memory + huge - 1) / huge * huge);
#ifdef MADV_HUGEPAGE
  madvise(memory, room, MADV_HUGEPAGE);
#endif
  struct pare_activations *x =
      aligned_alloc(64, tokens * (COLUMNS / 32) * sizeof(struct pare_activations));
  float *values = malloc(COLUMNS * PARE_PACKED_TILE * sizeof(float));
  float *y = malloc(ROWS * tokens * sizeof(float));
  srand(1);
  for (size_t i = 0; i < COLUMNS * PARE_PACKED_TILE; i++) {
    values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  }
  printf("%d threads\n", threads);
  printf("type     bits    GB/s   read  share     us |  tok  GOPS\n");
  for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
    if (only && strcmp(only, types[k].name)) continue;
    static struct job job;
    job.matrix = pare_packed_blocks_layout(types[k].type, ROWS, COLUMNS);
    const size_t row_bytes = COLUMNS / types[k].length * types[k].bytes;
    uint8_t *blocks = malloc(row_bytes * ROWS);
    for (size_t i = 0; i < row_bytes * ROWS; i++) blocks[i] = (uint8_t)(rand() >> 8);
    for (size_t b = 0; b < row_bytes * ROWS / types[k].bytes; b++) {
      for (int i = 0; i < 2; i++) {
        const _Float16 scale = (_Float16)0.01f;
        if (types[k].f16[i] >= 0) memcpy(blocks + b * types[k].bytes + types[k].f16[i], &scale, 2);
      }
      if (types[k].type == PARE_BLOCK_MXFP4) blocks[b * 17] = 120;
    }
    const size_t matrix_bytes = job.matrix.stride * (ROWS / 16);
    const size_t copies = (megabytes << 20) / matrix_bytes + 1;
    double start = now();
    for (size_t g = 0; g < ROWS / 16; g++) {
      pare_pack_blocks(
          &job.matrix, types[k].type, blocks, row_bytes, g, memory + g * job.matrix.stride);
    }
    const double packing = now() - start;
    for (size_t i = 1; i < copies; i++) memcpy(memory + i * matrix_bytes, memory, matrix_bytes);
    free(blocks);

    // A row against its decoded values.
    job.y = y;
    job.x = x;
    pare_quantize_activations(values, COLUMNS, 1, x);
    job.tokens = 1;
    job.chunk = 2;
    job.matrix.data = memory;
    pare_parallel(ROWS / 16 / 2, multiply, &job);
    float *row = malloc(COLUMNS * sizeof(float));
    pare_packed_decode_row(&job.matrix, 77, row);
    double expected = 0;
    for (size_t i = 0; i < COLUMNS; i++) {
      expected += (double)row[i] * x[i / 32].codes[i % 32] * x[i / 32].scale;
    }
    free(row);
    if (fabs(expected - y[77]) > 1e-3 * (fabs(expected) + 1)) {
      printf("%s: row 77 is %g and should be %g\n", types[k].name, y[77], expected);
    }

    // Interleaved, matrix after matrix, so that both meet the same neighbours on the machine. The
    // best tenth is reported: slower samples are those of other programs.
    double decode[RUNS], reading[RUNS];
    for (size_t r = 0; r < RUNS; r++) {
      job.matrix.data = memory + r % copies * matrix_bytes;
      start = now();
      pare_parallel(ROWS / 16 / job.chunk, multiply, &job);
      decode[r] = now() - start;
      job.matrix.data = memory + (r + copies / 2) % copies * matrix_bytes;
      job.bytes = matrix_bytes / 4096 * 4096;
      start = now();
      pare_parallel(64, read_all, &job);
      reading[r] = (now() - start) / (double)job.bytes * (double)matrix_bytes;
    }
    qsort(decode, RUNS, sizeof(double), compare);
    qsort(reading, RUNS, sizeof(double), compare);

    for (size_t t = 0; t < tokens; t += PARE_PACKED_TILE) {
      const size_t width = tokens - t < PARE_PACKED_TILE ? tokens - t : PARE_PACKED_TILE;
      pare_quantize_activations(values, COLUMNS, width, x + t * (COLUMNS / 32));
    }
    job.tokens = tokens;
    job.matrix.data = memory;
    job.chunk = 1;
    double prefill = 1e9;
    for (int r = 0; r < 5; r++) {
      start = now();
      pare_parallel(ROWS / 16 / job.chunk, multiply, &job);
      const double took = now() - start;
      prefill = took < prefill ? took : prefill;
    }
    printf(
        "%-7s %5.2f  %6.1f %6.1f  %4.0f%% %6.0f | %4zu %6.0f   pack %.1f GB/s\n", types[k].name,
        8.0 * (double)matrix_bytes / ROWS / COLUMNS, (double)matrix_bytes / decode[BEST] / 1e9,
        (double)matrix_bytes / reading[BEST] / 1e9, 100 * reading[BEST] / decode[BEST], decode[BEST] * 1e6, tokens,
        2.0 * ROWS * COLUMNS * (double)tokens / prefill / 1e9,
        (double)matrix_bytes / packing / 1e9);
  }
}
