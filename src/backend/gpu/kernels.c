/* The host executor: every block of a grid in turn, every thread of a block in turn, one phase
 * after the other. With an order set, blocks, and threads within each phase, go in a shuffled
 * order: a missing meeting of threads or a value handed from block to block then shows in the
 * result. */
#include "backend/gpu/kernels.h"

#include <stdatomic.h>
#include <string.h>

#include "base/philox.h"

enum { SHARED_MOST = 48 * 1024 };

static _Atomic uint64_t shuffle;

void fn_gpu_executor_shuffle(uint64_t seed) {
  atomic_store(&shuffle, seed);
}

/** A walk through 0 .. count - 1: each number once, seed 0 in order. */
typedef struct walk {
  int64_t count, step, start;
} walk;

static int64_t divisor(int64_t a, int64_t b) {
  return b == 0 ? a : divisor(b, a % b);
}

static walk walk_of(int64_t count, uint64_t seed) {
  walk w = {count, 1, 0};
  if (seed == 0 || count < 2) return w;
  const uint64_t mixed = fn_philox_mix(seed);
  w.step = 1 + (int64_t)(mixed % (uint64_t)count);
  while (divisor(w.step, count) != 1)
    w.step++;
  w.start = (int64_t)((mixed >> 32) % (uint64_t)count);
  return w;
}

static inline int64_t walk_at(const walk *w, int64_t i) {
  if (w->step == 1 && w->start == 0) return i;
  return (int64_t)(((__int128)w->step * i + w->start) % w->count);
}

/* A block finds rubbish in shared memory, as on a device. */
#define FN_GPU_KERNEL(name, phase_count, shared_bytes)                                             \
  static void host_##name(const void *args, int64_t blocks, int threads) {                         \
    _Static_assert((int)(shared_bytes) <= (int)SHARED_MOST,                                        \
                   "more shared memory than a block has");                                         \
    _Alignas(16) unsigned char shared[(shared_bytes) + 1];                                         \
    const uint64_t seed = atomic_load(&shuffle);                                                   \
    const walk order = walk_of(blocks, seed);                                                      \
    for (int64_t b = 0; b < blocks; b++) {                                                         \
      const int64_t block = walk_at(&order, b);                                                    \
      memset(shared, 0xff, sizeof shared);                                                         \
      for (int p = 0; p < (phase_count); p++) {                                                    \
        const walk turn = walk_of(threads, seed ? seed + (uint64_t)(block * 64 + p) : 0);          \
        for (int i = 0; i < threads; i++)                                                          \
          fn_##name##_body(args, (fn_thread){block, blocks, (int)walk_at(&turn, i), threads},      \
                           shared, p);                                                             \
      }                                                                                            \
    }                                                                                              \
  }
#include "backend/gpu/kernels/list.h"
#undef FN_GPU_KERNEL

#define FN_GPU_KERNEL(name, phase_count, shared_bytes)                                             \
  {#name,       FN_GPU_##name, sizeof(fn_##name##_args), (size_t)(shared_bytes),                   \
   phase_count, host_##name},
static const fn_gpu_kernel kernels[] = {
#include "backend/gpu/kernels/list.h"
};
#undef FN_GPU_KERNEL

const fn_gpu_kernel *fn_gpu_kernel_at(int id) {
  return &kernels[id];
}

int fn_gpu_kernel_count(void) {
  return FN_GPU_KERNELS;
}
