#ifndef PARE_MEMORY_H
#define PARE_MEMORY_H

/// Asks the allocator to keep what is freed for what is allocated next, of any size, instead of giving
/// it back to the system, which would clear every page again. For computations that free and allocate
/// the same sizes over and over; their peak stays as it is, but it is held to the end of the process.
void pare_keep_freed_memory(void);

#endif
