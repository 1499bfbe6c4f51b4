#ifndef PARE_MAPPING_H
#define PARE_MAPPING_H
#include <stddef.h>
#include <stdint.h>

/// Guards mapped files against SIGBUS. A page of a mapping whose file shrank, or whose disk failed,
/// raises SIGBUS when touched, which would end the process. Ranges registered here instead become
/// zeros from the faulting page on, and are marked damaged, so that whoever owns the mapping can
/// report an error. Faults elsewhere go to the handler that was installed before ours.
///
/// Slots live in chunks that are never freed, and are claimed and read with atomics only, so the
/// handler takes no lock and may interrupt anything.
typedef struct pare_mapping pare_mapping;

/// Registers `[base, base + byte_count)`; installs the handler on first use.
/// Returns NULL when memory for the registry is exhausted.
pare_mapping *pare_mapping_register(const void *base, size_t byte_count);

/// Forgets the range. Call it before munmap.
void pare_mapping_release(pare_mapping *mapping);

/// 1 once a page of the range could not be read.
int pare_mapping_is_damaged(const pare_mapping *mapping);

#endif
