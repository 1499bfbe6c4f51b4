// Distances of sorted predictions. See include/losses_sorted.h.
#include "losses_sorted.h"

#include <math.h>
#include <string.h>

// Numbers in their order are unsigned integers in theirs once the sign bit is turned over, and all
// others too where it is set; the complement makes the order falling.
static uint32_t falling_key(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return ~(bits ^ ((uint32_t)-(int32_t)(bits >> 31) | UINT32_C(0x80000000)));
}

static float value_of_key(uint32_t key) {
  const uint32_t bits = ~key;
  const uint32_t back = bits >> 31 ? bits ^ UINT32_C(0x80000000) : ~bits;
  float value;
  memcpy(&value, &back, sizeof value);
  return value;
}

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS, PASSES = 3 };

// Leaves (key, index) pairs in falling order of values in `pairs`, equals in the order of indices.
// Three stable counting passes over 11 bits each; all histograms in one look.
static void sort_falling(const float *values, size_t count, uint64_t *pairs, uint64_t *other) {
  uint32_t histogram[PASSES][DIGITS];
  memset(histogram, 0, sizeof histogram);
  for (size_t i = 0; i < count; i++) {
    const uint32_t key = falling_key(values[i]);
    other[i] = (uint64_t)key << 32 | (uint32_t)i;
    for (int pass = 0; pass < PASSES; pass++) {
      histogram[pass][key >> (pass * DIGIT_BITS) & (DIGITS - 1)]++;
    }
  }
  uint64_t *source = other, *target = pairs;
  for (int pass = 0; pass < PASSES; pass++) {
    uint32_t start = 0;
    for (int digit = 0; digit < DIGITS; digit++) {
      const uint32_t here = histogram[pass][digit];
      histogram[pass][digit] = start;
      start += here;
    }
    for (size_t i = 0; i < count; i++) {
      const uint32_t key = (uint32_t)(source[i] >> 32);
      target[histogram[pass][key >> (pass * DIGIT_BITS) & (DIGITS - 1)]++] = source[i];
    }
    uint64_t *const swapped = source;
    source = target;
    target = swapped;
  }
}

static double sum_of_exponentials(const float *x, size_t count, float top, float scale) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += expf((x[i] - top) * scale);
  return sum;
}

static int sign(double x) { return (x > 0) - (x < 0); }

double pare_sorted_distance(
    const float *student, size_t count, const float *teacher, size_t teacher_count,
    float inverse_temperature, float weight, float *gradient, uint64_t *scratch) {
  const size_t longest = count > teacher_count ? count : teacher_count;
  uint64_t *const pairs = scratch, *const other = scratch + longest;
  float *const q = (float *)(scratch + 2 * longest);
  sort_falling(teacher, teacher_count, pairs, other);
  const float teacher_top = value_of_key((uint32_t)(pairs[0] >> 32));
  const double teacher_sum =
      sum_of_exponentials(teacher, teacher_count, teacher_top, inverse_temperature);
  for (size_t i = 0; i < teacher_count; i++) {
    const float value = value_of_key((uint32_t)(pairs[i] >> 32));
    q[i] = (float)(expf((value - teacher_top) * inverse_temperature) / teacher_sum);
  }
  sort_falling(student, count, pairs, other);
  const float top = value_of_key((uint32_t)(pairs[0] >> 32));
  const double sum = sum_of_exponentials(student, count, top, inverse_temperature);
  double distance = 0, mean_sign = 0;
  for (size_t i = 0; i < count; i++) {
    const float value = value_of_key((uint32_t)(pairs[i] >> 32));
    const double p = expf((value - top) * inverse_temperature) / sum;
    const double difference = p - (i < teacher_count ? q[i] : 0);
    distance += fabs(difference);
    mean_sign += p * sign(difference);
  }
  for (size_t i = count; i < teacher_count; i++) distance += q[i];
  if (!gradient) return distance;
  const double factor = (double)weight * inverse_temperature;
  for (size_t i = 0; i < count; i++) {
    const uint32_t index = (uint32_t)pairs[i];
    const double p = expf((student[index] - top) * inverse_temperature) / sum;
    const double difference = p - (i < teacher_count ? q[i] : 0);
    gradient[index] += (float)(factor * p * (sign(difference) - mean_sign));
  }
  return distance;
}

// Places of the values in falling order, equals in theirs.
static void insertion_order(const float *values, size_t count, uint64_t *order) {
  for (size_t i = 0; i < count; i++) {
    size_t place = i;
    for (; place > 0 && values[order[place - 1]] < values[i]; place--) {
      order[place] = order[place - 1];
    }
    order[place] = i;
  }
}

double pare_sorted_distance_ref(
    const float *student, size_t count, const float *teacher, size_t teacher_count,
    float inverse_temperature, float weight, float *gradient, uint64_t *scratch) {
  uint64_t *const ours = scratch, *const theirs = scratch + count;
  insertion_order(student, count, ours);
  insertion_order(teacher, teacher_count, theirs);
  const double scale = inverse_temperature;
  double sum = 0, teacher_sum = 0, distance = 0, mean_sign = 0;
  for (size_t i = 0; i < count; i++) sum += exp((student[i] - student[ours[0]]) * scale);
  for (size_t i = 0; i < teacher_count; i++) {
    teacher_sum += exp((teacher[i] - teacher[theirs[0]]) * scale);
  }
  for (int pass = 0; pass < 2; pass++) {
    for (size_t i = 0; i < count || (i < teacher_count && pass == 0); i++) {
      const double p =
          i < count ? exp((student[ours[i]] - student[ours[0]]) * scale) / sum : 0;
      const double q =
          i < teacher_count
              ? exp((teacher[theirs[i]] - teacher[theirs[0]]) * scale) / teacher_sum
              : 0;
      if (pass == 0) {
        distance += fabs(p - q);
        mean_sign += p * sign(p - q);
      } else if (gradient) {
        gradient[ours[i]] += (float)(weight * scale * p * (sign(p - q) - mean_sign));
      }
    }
  }
  return distance;
}
