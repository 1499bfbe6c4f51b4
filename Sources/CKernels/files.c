#define _GNU_SOURCE
#include "CKernels.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

void pare_start_writing_out(int descriptor, int64_t offset, int64_t byte_count) {
#if defined(__linux__)
  sync_file_range(descriptor, offset, byte_count, SYNC_FILE_RANGE_WRITE);
#else
  (void)descriptor, (void)offset, (void)byte_count;
#endif
}

void pare_forget_written(int descriptor, int64_t offset, int64_t byte_count) {
#if defined(__linux__)
  sync_file_range(
      descriptor, offset, byte_count,
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  posix_fadvise(descriptor, offset, byte_count, POSIX_FADV_DONTNEED);
#else
  (void)descriptor, (void)offset, (void)byte_count;
#endif
}

int pare_rename(const char *source, const char *target, int exchange) {
#if defined(__APPLE__)
  return renamex_np(source, target, exchange ? RENAME_SWAP : RENAME_EXCL);
#else
  return renameat2(AT_FDCWD, source, AT_FDCWD, target,
                   exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE);
#endif
}
