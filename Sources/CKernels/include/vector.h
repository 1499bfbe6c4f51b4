#ifndef PARE_VECTOR_H
#define PARE_VECTOR_H

/// Kernels are plain loops compiled once per instruction set; the loader picks one at start-up.
/// `PARE_REASSOCIATE` lets one function's sums run in vector lanes: the order is then fixed by the
/// instruction set, not by the source, and never by the number of threads.
#if defined(__x86_64__) && defined(__linux__)
#define PARE_KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PARE_KERNEL
#endif
#define PARE_REASSOCIATE _Pragma("clang fp reassociate(on) contract(fast)")

#endif
