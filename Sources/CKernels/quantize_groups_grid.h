// Scalar arithmetic shared by the fast and the plain quantizers: one group's grid.
#ifndef PARE_QUANTIZE_GROUPS_GRID_H
#define PARE_QUANTIZE_GROUPS_GRID_H
#include <math.h>
#include <string.h>

#include "include/quantize_groups.h"

#pragma STDC FP_CONTRACT OFF

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed codes are written as little-endian words"
#endif

static inline uint32_t affine_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

static inline float affine_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint16_t affine_to_bf16(float value) {
  uint32_t bits = affine_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float affine_from_bf16(uint16_t bits) { return affine_float((uint32_t)bits << 16); }

/// Round half to even, subnormals kept, overflow to infinity.
static inline uint16_t affine_to_f16(float value) {
  uint32_t bits = affine_bits(value);
  uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the spacing is 2^-24, the spacing of float32 in [0.5, 1).
    uint32_t shifted = affine_bits(affine_float(magnitude) + 0.5f);
    return (uint16_t)(sign | (shifted - 0x3f000000u));
  }
  uint32_t odd = (magnitude >> 13) & 1u;
  return (uint16_t)(sign | ((magnitude + 0xfffu + odd - 0x38000000u) >> 13));
}

static inline float affine_from_f16(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
  uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return affine_float(sign | 0x7f800000u | (magnitude << 13));
  // A half's bits, placed as a float's, stand for the value divided by 2^112.
  return affine_float(sign | affine_bits(affine_float(magnitude << 13) * 0x1p112f));
}

static inline float affine_round_to(float value, enum pare_affine_type type) {
  if (type == PARE_AFFINE_BF16) return affine_from_bf16(affine_to_bf16(value));
  if (type == PARE_AFFINE_F16) return affine_from_f16(affine_to_f16(value));
  return value;
}

static inline size_t affine_type_size(enum pare_affine_type type) {
  return type == PARE_AFFINE_F32 ? 4 : 2;
}

static inline void affine_store(void *target, size_t index, float value, enum pare_affine_type type) {
  if (type == PARE_AFFINE_F32) {
    memcpy((char *)target + 4 * index, &value, 4);
  } else {
    uint16_t half = type == PARE_AFFINE_BF16 ? affine_to_bf16(value) : affine_to_f16(value);
    memcpy((char *)target + 2 * index, &half, 2);
  }
}

static inline float affine_load(const void *source, size_t index, enum pare_affine_type type) {
  if (type == PARE_AFFINE_F32) {
    float value;
    memcpy(&value, (const char *)source + 4 * index, 4);
    return value;
  }
  uint16_t half;
  memcpy(&half, (const char *)source + 2 * index, 2);
  return type == PARE_AFFINE_BF16 ? affine_from_bf16(half) : affine_from_f16(half);
}

/// Adding 1.5 * 2^23 leaves no fraction bits, so the sum is rounded half to even and its low bits
/// are the integer. Exact below 2^22, far beyond any code.
#define AFFINE_MAGIC 12582912.0f
#define AFFINE_MAGIC_BITS 0x4b400000

static inline float affine_epsilon(enum pare_affine_type type) {
  return type == PARE_AFFINE_F32 ? 0x1p-23f : type == PARE_AFFINE_F16 ? 0x1p-10f : 0x1p-7f;
}

struct affine_grid {
  float scale;
  float zero;
};

static inline struct affine_grid affine_choose(
    float low, float high, int bits, int symmetric, enum pare_affine_type type) {
  const float lowest = -(float)(1 << (bits - 1)), highest = (float)((1 << (bits - 1)) - 1);
  struct affine_grid grid = {0, 0};
  if (symmetric) {
    float largest = -low > high ? -low : high;
    grid.scale = largest / ((highest - lowest) / 2);
  } else {
    grid.scale = (high - low) / (highest - lowest);
  }
  grid.scale = affine_round_to(grid.scale, type);
  if (grid.scale == 0) grid.scale = affine_epsilon(type);
  if (!symmetric) {
    float zero = lowest - low / grid.scale;
    zero = zero < lowest ? lowest : zero > highest ? highest : zero;
    grid.zero = (zero + AFFINE_MAGIC) - AFFINE_MAGIC;
  }
  return grid;
}

/// Lanes over which sums run: the same on every machine, so the same sums.
#define AFFINE_LANES 16
/// Elements after which a search adds its lanes up and compares with the best so far.
#define AFFINE_CHUNK 256

static inline float affine_shrink(const struct pare_affine_job *job, int candidate) {
  return 1.0f - (float)candidate / job->grid;
}
#endif
