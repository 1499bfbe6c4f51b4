// How the allocator treats freed memory. See include/memory.h.
#include "memory.h"

#include <limits.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

void pare_keep_freed_memory(void) {
#ifdef __GLIBC__
  // Large blocks from the heap too, whose top is never cut off. (The threshold for mappings of their
  // own cannot be raised above 32 MB; forbidding them has no limit.)
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
#endif
}
