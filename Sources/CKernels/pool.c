#define _GNU_SOURCE  // sched_getaffinity

#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

enum { MAX_THREADS = 256, SPINS = 4096 };

// One job at a time. A worker may enter a job late, when its indices are all claimed; the caller
// therefore waits until every worker that saw the job has left before the next one is posted.
static struct {
  pthread_mutex_t turn;  // held by the caller whose job runs
  pthread_mutex_t lock;
  pthread_cond_t posted, left;
  pare_task task;
  void *context;
  size_t count;
  atomic_size_t next;
  atomic_uint generation;
  int helpers_wanted;  // workers that shall join this job
  atomic_int inside;   // workers that have not finished with it yet
  int workers;         // threads started so far
} pool = {
    .turn = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .posted = PTHREAD_COND_INITIALIZER,
    .left = PTHREAD_COND_INITIALIZER,
};

static atomic_int thread_count;
static _Thread_local int is_inside_task;

#ifdef __linux__
// CPU share of the cgroup (v2, then v1), rounded up; 0 where there is no limit.
static int cgroup_processors(void) {
  double quota = -1, period = 0;
  FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
  if (file) {
    if (fscanf(file, "%lf %lf", &quota, &period) != 2) quota = -1;
    fclose(file);
  } else if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re"))) {
    if (fscanf(file, "%lf", &quota) != 1) quota = -1;
    fclose(file);
    file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
    if (file) {
      if (fscanf(file, "%lf", &period) != 1) period = 0;
      fclose(file);
    }
  }
  if (quota <= 0 || period <= 0) return 0;
  const int whole = (int)(quota / period);
  return whole + (whole * period < quota);
}
#endif

static int default_threads(void) {
  const char *wish = getenv("PARE_THREADS");
  if (wish && atoi(wish) > 0) return atoi(wish);
  int count = (int)sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
  const int limit = cgroup_processors();
  if (limit > 0 && limit < count) count = limit;
#endif
  return count > 0 ? count : 1;
}

int pare_threads(void) {
  int count = atomic_load(&thread_count);
  if (count > 0) return count;
  count = default_threads();
  pare_set_threads(count);
  return pare_threads();
}

void pare_set_threads(int count) {
  if (count < 1) count = 1;
  if (count > MAX_THREADS) count = MAX_THREADS;
  atomic_store(&thread_count, count);
}

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void claim(pare_task task, void *context, size_t count) {
  is_inside_task = 1;
  size_t index;
  while ((index = atomic_fetch_add_explicit(&pool.next, 1, memory_order_relaxed)) < count) {
    task(context, index);
  }
  is_inside_task = 0;
}

static void *work(void *unused) {
  (void)unused;
  unsigned seen = 0;
  for (;;) {
    for (int i = 0; i < SPINS && atomic_load(&pool.generation) == seen; i++) pause_briefly();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.generation) == seen) pthread_cond_wait(&pool.posted, &pool.lock);
    seen = atomic_load(&pool.generation);
    const int joins = pool.helpers_wanted > 0;
    if (joins) pool.helpers_wanted--;
    const pare_task task = pool.task;
    void *const context = pool.context;
    const size_t count = pool.count;
    pthread_mutex_unlock(&pool.lock);
    if (!joins) continue;
    claim(task, context, count);
    if (atomic_fetch_sub(&pool.inside, 1) == 1) {
      pthread_mutex_lock(&pool.lock);
      pthread_cond_signal(&pool.left);
      pthread_mutex_unlock(&pool.lock);
    }
  }
  return NULL;
}

static void start_workers(int wanted) {
  while (pool.workers < wanted) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL) != 0) return;  // fewer threads, same results
    pthread_detach(thread);
    pool.workers++;
  }
}

void pare_parallel(size_t count, pare_task task, void *context) {
  const int threads = pare_threads();
  if (count <= 1 || threads <= 1 || is_inside_task) {
    for (size_t index = 0; index < count; index++) task(context, index);
    return;
  }
  pthread_mutex_lock(&pool.turn);
  start_workers(threads - 1);
  int helpers = pool.workers < threads - 1 ? pool.workers : threads - 1;
  if ((size_t)helpers > count - 1) helpers = (int)(count - 1);

  pthread_mutex_lock(&pool.lock);
  pool.task = task;
  pool.context = context;
  pool.count = count;
  pool.helpers_wanted = helpers;
  atomic_store(&pool.inside, helpers);
  atomic_store(&pool.next, 0);
  atomic_fetch_add(&pool.generation, 1);
  pthread_cond_broadcast(&pool.posted);
  pthread_mutex_unlock(&pool.lock);

  claim(task, context, count);

  // Workers that have not woken by now have nothing left to do: take their places back.
  pthread_mutex_lock(&pool.lock);
  const int absent = pool.helpers_wanted;
  pool.helpers_wanted = 0;
  pthread_mutex_unlock(&pool.lock);
  atomic_fetch_sub(&pool.inside, absent);
  for (int i = 0; i < SPINS && atomic_load(&pool.inside) > 0; i++) pause_briefly();
  pthread_mutex_lock(&pool.lock);
  while (atomic_load(&pool.inside) > 0) pthread_cond_wait(&pool.left, &pool.lock);
  pthread_mutex_unlock(&pool.lock);
  pthread_mutex_unlock(&pool.turn);
}
