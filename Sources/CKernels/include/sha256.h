#ifndef PARE_SHA256_H
#define PARE_SHA256_H
#include <stddef.h>
#include <stdint.h>

/// SHA-256 (FIPS 180-4). Chosen over faster unkeyed hashes because its value is one that others
/// already hold: `sha256sum FILE` prints it and the Hugging Face Hub names large files by it.
/// With the SHA instructions of x86 it runs near 2 GB/s, above what disks deliver.
typedef struct {
  uint32_t state[8];
  uint64_t byte_count;
  uint8_t block[64];
} pare_sha256;

void pare_sha256_start(pare_sha256 *hash);
void pare_sha256_update(pare_sha256 *hash, const void *bytes, size_t byte_count);
/// Writes the 32 bytes of the digest; the state is spent.
void pare_sha256_finish(pare_sha256 *hash, uint8_t *digest);

/// Mixes whole 64-byte blocks into the state. The plain form is the reference; the other needs
/// `pare_sha256_is_fast()`.
void pare_sha256_blocks_ref(uint32_t *state, const uint8_t *blocks, size_t block_count);
void pare_sha256_blocks_fast(uint32_t *state, const uint8_t *blocks, size_t block_count);
/// 1 when this processor has SHA instructions that `pare_sha256_blocks_fast` uses.
int pare_sha256_is_fast(void);

#endif
