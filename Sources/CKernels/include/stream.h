#ifndef PARE_STREAM_H
#define PARE_STREAM_H
#include <stddef.h>
#include <stdint.h>

/// Sum of `count` words: reads memory as fast as one thread can and keeps the compiler from leaving
/// the reading out.
uint64_t pare_stream_sum(const uint64_t *words, size_t count);

#endif
