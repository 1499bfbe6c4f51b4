#include "stream.h"

#include "vector.h"

PARE_KERNEL uint64_t pare_stream_sum(const uint64_t *words, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; i++) sum += words[i];
  return sum;
}
