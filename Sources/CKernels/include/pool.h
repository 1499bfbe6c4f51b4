#ifndef PARE_POOL_H
#define PARE_POOL_H
#include <stddef.h>

/// A claim pool: workers take the next index of a job until none is left, so a core that another
/// program holds delays only the index it is on.

typedef void (*pare_task)(void *context, size_t index);

/// Calls `task(context, i)` once for every i < count, on several threads, and returns when all are
/// done. Which thread runs which index is not determined, so tasks must not depend on it. Callers on
/// several threads take turns; a call from inside a task runs inline.
void pare_parallel(size_t count, pare_task task, void *context);

/// Threads a job uses, the caller's included. Default: the processors this process may use, by
/// affinity and cgroup quota, or PARE_THREADS.
int pare_threads(void);
void pare_set_threads(int count);

#endif
