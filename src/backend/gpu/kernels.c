/* The host executor: every block of a grid in turn, every thread of a block in turn, one phase
 * after the other. */
#include "backend/gpu/kernels.h"

#include <string.h>

enum { SHARED_MOST = 48 * 1024 };

/* A block finds rubbish in shared memory, as on a device. */
#define FN_GPU_KERNEL(name, phase_count, shared_bytes)                                             \
  static void host_##name(const void *args, int64_t blocks, int threads) {                         \
    _Static_assert((int)(shared_bytes) <= (int)SHARED_MOST,                                        \
                   "more shared memory than a block has");                                         \
    _Alignas(16) unsigned char shared[(shared_bytes) + 1];                                         \
    for (int64_t b = 0; b < blocks; b++) {                                                         \
      memset(shared, 0xff, sizeof shared);                                                         \
      for (int p = 0; p < (phase_count); p++)                                                      \
        for (int i = 0; i < threads; i++)                                                          \
          fn_##name##_body(args, (fn_thread){b, blocks, i, threads}, shared, p);                   \
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
