/* The kernels of src/backend/gpu/kernels as __global__ functions. */
#include <cuda_runtime.h>

#include "backend/gpu/kernels/all.h"

/* Arguments stay in constant memory: their address may be taken without a copy. Two blocks of a
 * multiprocessor leave a thread 128 registers: with more blocks in mind, the compiler keeps some of
 * them in memory. */
#define FN_GPU_KERNEL(name, phases, shared_bytes)                                                  \
  static __global__ void __launch_bounds__(FN_GPU_THREADS, 2)                                      \
      kernel_##name(const __grid_constant__ fn_##name##_args args) {                               \
    static_assert(sizeof args <= 4096, "more arguments than every toolkit passes");                \
    __shared__ __align__(16) unsigned char shared[(shared_bytes) + 16];                            \
    fn_thread thread;                                                                              \
    thread.block = blockIdx.x;                                                                     \
    thread.blocks = gridDim.x;                                                                     \
    thread.index = (int)threadIdx.x;                                                               \
    thread.count = (int)blockDim.x;                                                                \
    _Pragma("unroll") for (int phase = 0; phase < (phases); phase++) {                             \
      if (phase > 0) __syncthreads();                                                              \
      fn_##name##_body(&args, thread, shared, phase);                                              \
    }                                                                                              \
  }
#include "backend/gpu/kernels/list.h"
#undef FN_GPU_KERNEL

#define FN_GPU_KERNEL(name, phases, shared_bytes) reinterpret_cast<const void *>(&kernel_##name),
static const void *const kernels[] = {
#include "backend/gpu/kernels/list.h"
};
#undef FN_GPU_KERNEL

extern "C" int fn_cuda_launch(int id, const void *args, int64_t blocks, int threads,
                              cudaStream_t stream) {
  void *values[] = {const_cast<void *>(args)};
  return cudaLaunchKernel(kernels[id], dim3((unsigned)blocks), dim3((unsigned)threads), values, 0,
                          stream);
}
