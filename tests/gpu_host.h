/** @file gpu_host.h
 *  Kernels of a device on the host executor, with other grids and other orders of threads.
 */
#ifndef GPU_HOST_H
#define GPU_HOST_H

#include "backend_call.h"

#include "backend/gpu/emulated_library.h"
#include "backend/gpu/gpu.h"
#include "backend/gpu/kernels.h"

/** Blocks of kernels whose results do not depend on the grid; 0: as they come. */
static int64_t forced_blocks = 0;
static int64_t launches = 0;
/** Kernels that were launched at least once. */
static bool launched[FN_GPU_KERNELS];

static fn_status launch(fn_gpu_platform *platform, const fn_gpu_kernel *kernel, int64_t blocks,
                        int threads, const void *args) {
  (void)platform;
  assert_int_equal(threads, FN_GPU_THREADS);
  const bool free_grid = kernel->phases == 1;
  launches++;
  launched[kernel->id] = true;
  kernel->host(args, free_grid && forced_blocks ? forced_blocks : blocks, threads);
  return FN_OK;
}

static fn_status allocate(fn_device *device, size_t bytes, void **memory) {
  (void)device;
  *memory = malloc(bytes);
  return FN_OK;
}
static void release(fn_device *device, void *memory) {
  (void)device;
  free(memory);
}
static fn_status copy(fn_device *device, fn_stream stream, void *to, const void *from, size_t bytes,
                      fn_copy direction) {
  (void)device;
  (void)stream;
  (void)direction;
  memcpy(to, from, bytes);
  return FN_OK;
}

static fn_gpu_platform platform = {
    .device = {.allocate_pinned = allocate, .release_pinned = release, .copy = copy},
    .launch = launch,
    .prepare = fn_emulated_call_prepare,
    .run = fn_emulated_call_run,
    .release = fn_emulated_call_release};

/** Kernels that no program has: test_gpu_arrays launches them, test_gpu_kernels the others. */
static const char *const array_kernels[] = {
    "add_scaled", "convert", "judge", "scale", "sum_squares", "sum_squares_finish", "update"};
enum { ARRAY_KERNELS = sizeof array_kernels / sizeof *array_kernels };

static bool is_array_kernel(const char *name) {
  for (int k = 0; k < ARRAY_KERNELS; k++)
    if (strcmp(name, array_kernels[k]) == 0) return true;
  return false;
}

#endif
