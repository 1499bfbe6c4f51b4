// Block-wise dynamic quantization of optimizer state (Dettmers et al. 2022, arXiv:2110.02861).
#include <math.h>
#include <pthread.h>
#include <string.h>

#include "optimizers.h"
#include "vector.h"

// A book is made of magnitudes in rising order, the first 0 and the last 1: 129 with a sign, whose
// negative codes leave out the largest, or 256.
//
// The code of x in [0, 1] is the number of boundaries (middles between neighbours) not above x. The
// upper 16 bits of a float, a sign, an exponent and 7 bits of fraction, tell it but for one boundary:
// in the finest decade parts are 0.9/128 wide, fractions of numbers below 1 at most 1/256 apart. So
// `start` holds the code at the lower end of each such run, and one comparison finishes.
enum { FIRST_RUN = 0x3400, LAST_RUN = 0x3f80, RUNS = LAST_RUN - FIRST_RUN + 1 };  // 2^-23 ... 1

struct book {
  float numbers[256];    // rising, by code
  float boundaries[257]; // boundaries[k]: where magnitude k + 1 begins; infinity at the end
  int32_t start[RUNS];
  int magnitudes, zero;  // how many there are, and the code of 0
};

static struct book books[2];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_book(struct book *book, int is_signed) {
  float magnitude[256];
  int count = 0;
  magnitude[count++] = 0;
  for (int decade = 6; decade >= 0; decade--) {
    const int parts = (is_signed ? 64 : 128) >> decade;
    for (int part = 0; part < parts; part++) {
      const double middle = 0.1 + 0.9 * (part + 0.5) / parts;
      magnitude[count++] = (float)(middle * pow(10, -decade));
    }
  }
  magnitude[count++] = 1;
  book->magnitudes = count;
  book->zero = is_signed ? count - 2 : 0;
  for (int k = 0; k < count; k++) {
    book->numbers[book->zero + k] = magnitude[k];
    if (is_signed && k < count - 1) book->numbers[book->zero - k] = -magnitude[k];
    book->boundaries[k] = k + 1 < count
        ? (float)(((double)magnitude[k] + magnitude[k + 1]) / 2) : INFINITY;
  }
  // Numbers below the first boundary but above zero: see the header.
  if (!is_signed) book->boundaries[0] = nextafterf(0, 1);
  for (int run = 0; run < RUNS; run++) {
    const uint32_t bits = (uint32_t)(FIRST_RUN + run) << 16;
    float lower;
    memcpy(&lower, &bits, 4);
    if (run == 0) lower = 0;  // everything smaller counts to the first run
    int code = 0;
    while (lower >= book->boundaries[code]) code++;
    book->start[run] = code;
  }
}

static void make_books(void) {
  make_book(&books[0], 0);
  make_book(&books[1], 1);
}

static const struct book *book_for(int is_signed) {
  pthread_once(&once, make_books);
  return &books[is_signed ? 1 : 0];
}

const float *pare_dynamic_book(int is_signed) { return book_for(is_signed)->numbers; }

static inline __attribute__((always_inline)) float largest_magnitude(const float *x, size_t count) {
  // Unsigned order of bits without the sign is the order of magnitudes; NaN is above all.
  uint32_t top = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, 4);
    bits &= 0x7fffffff;
    top = bits > top ? bits : top;
  }
  float scale;
  memcpy(&scale, &top, 4);
  return scale;
}

PARE_KERNEL static void encode_block(
    const struct book *book, int is_signed, const float *x, uint8_t *codes, float *scale,
    size_t count) {
  const float largest = largest_magnitude(x, count);
  *scale = largest;
  const int zero = book->zero, top = book->magnitudes - 2;
  if (!(largest > 0) || largest == INFINITY) {
    // All zero; or not finite, which the scale then tells.
    memset(codes, largest == 0 ? zero : 255, count);
    return;
  }
  const float *boundaries = book->boundaries;
  const int32_t *start = book->start;
  int32_t wide[PARE_DYNAMIC_BLOCK];
  for (size_t i = 0; i < count; i++) {
    const float value = x[i] / largest, magnitude = fabsf(value);
    int32_t run;
    memcpy(&run, &magnitude, 4);
    run = (run >> 16) - FIRST_RUN;
    run = run < 0 ? 0 : run;
    int32_t code = start[run];
    code += magnitude >= boundaries[code];
    const int32_t below = code > top ? top : code;
    wide[i] = is_signed && value < 0 ? zero - below : zero + code;
  }
  for (size_t i = 0; i < count; i++) codes[i] = (uint8_t)wide[i];
}

void pare_dynamic_encode(
    int is_signed, const float *x, uint8_t *codes, float *scales, size_t count) {
  const struct book *book = book_for(is_signed);
  for (size_t first = 0; first < count; first += PARE_DYNAMIC_BLOCK) {
    const size_t left = count - first;
    encode_block(
        book, is_signed, x + first, codes + first, scales++,
        left < PARE_DYNAMIC_BLOCK ? left : PARE_DYNAMIC_BLOCK);
  }
}

void pare_dynamic_encode_reference(
    int is_signed, const float *x, uint8_t *codes, float *scales, size_t count) {
  const struct book *book = book_for(is_signed);
  for (size_t first = 0; first < count; first += PARE_DYNAMIC_BLOCK) {
    const size_t end = count - first < PARE_DYNAMIC_BLOCK ? count : first + PARE_DYNAMIC_BLOCK;
    float largest = 0;
    for (size_t i = first; i < end; i++) {
      if (isnan(x[i]) || fabsf(x[i]) > largest) largest = fabsf(x[i]);
      if (isnan(x[i])) break;
    }
    *scales++ = largest;
    for (size_t i = first; i < end; i++) {
      if (largest == 0 || !isfinite(largest)) {
        codes[i] = (uint8_t)(largest == 0 ? book->zero : 255);
        continue;
      }
      const float value = x[i] / largest, magnitude = fabsf(value);
      int code = 0;
      while (magnitude >= book->boundaries[code]) code++;
      if (is_signed && value < 0) {
        if (code > book->magnitudes - 2) code = book->magnitudes - 2;
        code = -code;
      }
      codes[i] = (uint8_t)(book->zero + code);
    }
  }
}

PARE_KERNEL static void decode_block(
    const float *numbers, const uint8_t *codes, float scale, float *x, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] = numbers[codes[i]] * scale;
}

void pare_dynamic_decode(
    int is_signed, const uint8_t *codes, const float *scales, float *x, size_t count) {
  const float *numbers = book_for(is_signed)->numbers;
  for (size_t first = 0; first < count; first += PARE_DYNAMIC_BLOCK) {
    const size_t left = count - first;
    decode_block(
        numbers, codes + first, *scales++, x + first,
        left < PARE_DYNAMIC_BLOCK ? left : PARE_DYNAMIC_BLOCK);
  }
}
