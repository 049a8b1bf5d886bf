/* The emulated device: the programs, kernels, grids and copies of the cuda backend on the host. */
#include <stdlib.h>
#include <string.h>

#include "backend/backends.h"
#include "backend/gpu/emulated_library.h"
#include "base/system.h"

static fn_status allocate(fn_device *device, size_t bytes, void **memory) {
  (void)device;
  *memory = aligned_alloc(256, (bytes + 256) / 256 * 256);
  FN_CHECK(*memory, FN_ERR_MEMORY, "no memory for %zu bytes", bytes);
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

static fn_status launch(fn_gpu_platform *platform, const fn_gpu_kernel *kernel, int64_t blocks,
                        int threads, const void *args) {
  (void)platform;
  kernel->host(args, blocks, threads);
  return FN_OK;
}

static fn_gpu_platform emulated = {
    .device = {.info = {.name = "emulated device", .index = -1},
               .allocate = allocate,
               .release = release,
               .allocate_pinned = allocate,
               .release_pinned = release,
               .copy = copy},
    .launch = launch,
    .prepare = fn_emulated_call_prepare,
    .run = fn_emulated_call_run,
    .release = fn_emulated_call_release,
};

static fn_status prepare(const fn_backend *backend, fn_kernel *kernel) {
  return fn_gpu_prepare(&emulated, backend, kernel);
}

static fn_status prepare_reorder(const fn_backend *backend, fn_kernel *kernel) {
  kernel->backend = backend->name;
  return fn_gpu_prepare_reorder(&emulated, kernel);
}

const fn_backend fn_backend_emulated = {
    .name = "emulated",
    .supports = fn_gpu_supports,
    .plan = fn_gpu_plan,
    .prepare = prepare,
    .prepare_reorder = prepare_reorder,
    .channels_last = true,
};
