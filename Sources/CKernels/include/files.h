#ifndef PARE_FILES_H
#define PARE_FILES_H
#include <stdint.h>

/// File calls that are not POSIX, which Swift's view of the C library leaves out.

/// Starts writing a range of a file to the disk; returns at once. Advice only.
void pare_start_writing_out(int descriptor, int64_t offset, int64_t byte_count);
/// Waits until a range is on the disk, then drops its pages from the cache. Advice only.
void pare_forget_written(int descriptor, int64_t offset, int64_t byte_count);

/// Renames `source` to `target` in one step that never replaces: with `exchange` 0 an existing
/// target gives EEXIST; with 1 the two names swap. Returns 0, or -1 with errno; EINVAL, ENOSYS or
/// ENOTSUP where the file system cannot.
int pare_rename(const char *source, const char *target, int exchange);

#endif
