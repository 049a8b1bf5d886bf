/* The cuda backend: the operators of src/backend/gpu on an NVIDIA GPU. */
#include <dlfcn.h>
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>

#include "backend/backends.h"
#include "backend/cuda/cuda.h"
#include "base/log.h"

static bool is_open;

static fn_status open_device(const fn_backend *backend, const fn_device_choice *choice,
                             fn_device **device) {
  (void)backend;
  *device = NULL;
  if (!is_open) FN_TRY(fn_cuda_open(choice));
  is_open = true;
  *device = &fn_cuda_device.platform.device;
  return FN_OK;
}

static fn_status check_open(void) {
  FN_CHECK(is_open, FN_ERR_INTERNAL, "the device was not opened before its first kernel");
  return FN_OK;
}

static fn_status prepare(const fn_backend *backend, fn_kernel *kernel) {
  FN_TRY(check_open());
  return fn_gpu_prepare(&fn_cuda_device.platform, backend, kernel);
}

static fn_status prepare_reorder(const fn_backend *backend, fn_kernel *kernel) {
  FN_TRY(check_open());
  kernel->backend = backend->name;
  return fn_gpu_prepare_reorder(&fn_cuda_device.platform, kernel);
}

const fn_backend fn_backend_cuda = {
    .name = "cuda",
    .supports = fn_gpu_supports,
    .plan = fn_gpu_plan,
    .prepare = prepare,
    .prepare_reorder = prepare_reorder,
    .channels_last = true,
    .device = open_device,
};

void fn_cuda_range_begin(const fn_cuda *cuda, const char *name) {
  if (cuda->ranges) nvtxRangePushA(name);
}

void fn_cuda_range_end(const fn_cuda *cuda) {
  if (cuda->ranges) nvtxRangePop();
}

void *fn_cuda_library(const char *const *names, const char *folder, char *why, size_t size) {
  for (int i = 0; names[i]; i++) {
    void *library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
    snprintf(why, size, "%s", dlerror());
  }
  for (int i = 0; names[i] && folder[0]; i++) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
  }
  return NULL;
}

bool fn_cuda_open_compiler(void) {
  char name[32], why[512] = "";
  snprintf(name, sizeof name, "libnvrtc.so.%d", CUDART_VERSION / 1000);
  const char *const names[] = {name, NULL};
  if (fn_cuda_library(names, FIELDNET_CUBLASLT_FOLDER, why, sizeof why)) return true;
  fn_log(FN_DETAIL, "cuDNN may have no compiler, and run convolutions in more pieces: %s", why);
  return false;
}
