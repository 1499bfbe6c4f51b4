#define _GNU_SOURCE
#include "CKernels.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// A slot is free while `state` is FREE. The range is written between claiming (BUSY) and
// publishing (LIVE), so the handler, which reads LIVE slots only, never sees half of it.
enum { FREE, BUSY, LIVE };

struct pare_mapping {
  atomic_int state;
  atomic_int damaged;
  atomic_uintptr_t base;
  atomic_size_t byte_count;
};

enum { slots_per_chunk = 256 };

typedef struct chunk {
  struct pare_mapping slots[slots_per_chunk];
  _Atomic(struct chunk *) next;
} chunk;

static chunk first_chunk;
static struct sigaction former_action;
static uintptr_t page_size;

/// Finds the live mapping an address lies in. Async-signal-safe.
static pare_mapping *mapping_at(uintptr_t address) {
  for (chunk *c = &first_chunk; c != NULL; c = atomic_load_explicit(&c->next, memory_order_acquire))
    for (int i = 0; i < slots_per_chunk; i++) {
      pare_mapping *m = &c->slots[i];
      if (atomic_load_explicit(&m->state, memory_order_acquire) != LIVE) continue;
      uintptr_t base = atomic_load_explicit(&m->base, memory_order_relaxed);
      size_t byte_count = atomic_load_explicit(&m->byte_count, memory_order_relaxed);
      if (address >= base && address - base < byte_count) return m;
    }
  return NULL;
}

static void pass_on(int signal_number, siginfo_t *info, void *context) {
  if (former_action.sa_flags & SA_SIGINFO) {
    former_action.sa_sigaction(signal_number, info, context);
  } else if (former_action.sa_handler == SIG_DFL || former_action.sa_handler == SIG_IGN) {
    // Returning runs the faulting instruction again, this time with the default action.
    signal(signal_number, SIG_DFL);
  } else {
    former_action.sa_handler(signal_number);
  }
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context) {
  uintptr_t address = (uintptr_t)info->si_addr;
  // A positive code says that the kernel raised the signal for a fault; kill(2) raises it with 0.
  pare_mapping *m = info->si_code > 0 ? mapping_at(address) : NULL;
  if (m == NULL) {
    pass_on(signal_number, info, context);
    return;
  }
  atomic_store_explicit(&m->damaged, 1, memory_order_release);
  // Everything from here to the end of the mapping, not one page: a file cut short fails on every
  // later page too, and a signal for each of a million pages would look like a hang.
  uintptr_t start = address & ~(page_size - 1);
  uintptr_t end = atomic_load_explicit(&m->base, memory_order_relaxed) +
                  atomic_load_explicit(&m->byte_count, memory_order_relaxed);
  void *zeros = mmap((void *)start, end - start, PROT_READ,
                     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (zeros == MAP_FAILED) pass_on(signal_number, info, context);
}

static void install(void) {
  page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
  struct sigaction action = {0};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &former_action);
}

pare_mapping *pare_mapping_register(const void *base, size_t byte_count) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install);
  for (chunk *c = &first_chunk;;) {
    for (int i = 0; i < slots_per_chunk; i++) {
      pare_mapping *m = &c->slots[i];
      int expected = FREE;
      if (!atomic_compare_exchange_strong_explicit(&m->state, &expected, BUSY, memory_order_acquire,
                                                   memory_order_relaxed))
        continue;
      atomic_store_explicit(&m->damaged, 0, memory_order_relaxed);
      atomic_store_explicit(&m->base, (uintptr_t)base, memory_order_relaxed);
      atomic_store_explicit(&m->byte_count, byte_count, memory_order_relaxed);
      atomic_store_explicit(&m->state, LIVE, memory_order_release);
      return m;
    }
    chunk *next = atomic_load_explicit(&c->next, memory_order_acquire);
    if (next == NULL) {
      chunk *fresh = calloc(1, sizeof(chunk));
      if (fresh == NULL) return NULL;
      if (atomic_compare_exchange_strong(&c->next, &next, fresh))
        next = fresh;
      else
        free(fresh);  // another thread was first; `next` holds its chunk
    }
    c = next;
  }
}

void pare_mapping_release(pare_mapping *mapping) {
  atomic_store_explicit(&mapping->state, FREE, memory_order_release);
}

int pare_mapping_is_damaged(const pare_mapping *mapping) {
  return atomic_load_explicit(&((pare_mapping *)mapping)->damaged, memory_order_acquire);
}
