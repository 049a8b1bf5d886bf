/* The emulated device: the programs, kernels, grids and copies of the cuda backend on the host. */
#include <stdlib.h>
#include <string.h>

#include "backend/backends.h"
#include "backend/gpu/emulated_library.h"
#include "backend/gpu/gpu.h"
#include "backend/update.h"
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

static fn_status clear(fn_device *device, fn_stream stream, void *memory, size_t bytes) {
  (void)device;
  (void)stream;
  memset(memory, 0, bytes);
  return FN_OK;
}

static fn_status event_create(fn_device *device, fn_event **event) {
  (void)device;
  *event = calloc(1, 1);
  return FN_OK;
}
static void event_destroy(fn_device *device, fn_event *event) {
  (void)device;
  free(event);
}
static fn_status on_event(fn_device *device, fn_stream stream, fn_event *event) {
  (void)device;
  (void)stream;
  (void)event;
  return FN_OK;
}
static fn_status passed(fn_device *device, fn_event *event, bool *yes) {
  (void)device;
  (void)event;
  *yes = true;
  return FN_OK;
}
static fn_status synchronize_event(fn_device *device, fn_event *event) {
  (void)device;
  (void)event;
  return FN_OK;
}
static fn_status synchronize(fn_device *device, fn_stream stream) {
  (void)device;
  (void)stream;
  return FN_OK;
}

static fn_status add_scaled(fn_device *device, fn_stream stream, float *sum, const float *x,
                            float keep, float factor, int64_t count) {
  (void)device;
  (void)stream;
  for (int64_t i = 0; i < count; i++)
    sum[i] = keep * sum[i] + factor * x[i];
  return FN_OK;
}

static fn_status sum_squares(fn_device *device, fn_stream stream, const float *x, int64_t count,
                             double *result) {
  (void)device;
  (void)stream;
  double sum = 0;
  for (int64_t i = 0; i < count; i++)
    sum += (double)x[i] * (double)x[i];
  *result = sum;
  return FN_OK;
}

static fn_status update(fn_device *device, fn_stream stream, const fn_update *u) {
  (void)device;
  (void)stream;
  for (int64_t i = 0; i < u->count; i++)
    fn_update_element(u, i);
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
               .copy = copy,
               .clear = clear,
               .event_create = event_create,
               .event_destroy = event_destroy,
               .record = on_event,
               .wait = on_event,
               .passed = passed,
               .synchronize_event = synchronize_event,
               .synchronize = synchronize,
               .add_scaled = add_scaled,
               .sum_squares = sum_squares,
               .update = update},
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

static fn_status open_device(const fn_backend *backend, const fn_device_choice *choice,
                             fn_device **device) {
  (void)backend;
  (void)choice;
  *device = &emulated.device;
  return FN_OK;
}

const fn_backend fn_backend_emulated = {
    .name = "emulated",
    .supports = fn_gpu_supports,
    .plan = fn_gpu_plan,
    .prepare = prepare,
    .prepare_reorder = prepare_reorder,
    .channels_last = true,
    .device = open_device,
};
