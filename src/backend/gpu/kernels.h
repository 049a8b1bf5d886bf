/** @file kernels.h
 *  Places of the kernels in their list.
 */
#ifndef FN_BACKEND_GPU_KERNELS_TABLE_H
#define FN_BACKEND_GPU_KERNELS_TABLE_H

#include "backend/gpu/gpu.h"
#include "backend/gpu/kernels/all.h"

#define FN_GPU_KERNEL(name, phases, shared) FN_GPU_##name,
enum {
#include "backend/gpu/kernels/list.h"
  FN_GPU_KERNELS
};
#undef FN_GPU_KERNEL

/** For tests: from now on the host executor takes blocks and threads in an order that `seed`
 *  determines; 0: ascending. */
void fn_gpu_executor_shuffle(uint64_t seed);

/** Launch a kernel by name with a pointer to its arguments. */
#define fn_gpu_launch(platform, name, blocks, args)                                                \
  ((platform)->launch((platform), fn_gpu_kernel_at(FN_GPU_##name), (blocks), FN_GPU_THREADS,       \
                      (const fn_##name##_args *){args}))

#endif
