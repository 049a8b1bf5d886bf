/* cuDNN: the library and its descriptors. */
#include "backend/cuda/cudnn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static const char *const names[] = {"libcudnn.so.9", "libcudnn.so", NULL};

static fn_status load(fn_cudnn *cudnn) {
  char why[512] = "";
  void *library = fn_cuda_library(names, FIELDNET_CUDNN_FOLDER, why, sizeof why);
  FN_CHECK(library, FN_ERR_DEVICE,
           "cuDNN 9 cannot be loaded (%s): load its module or add its folder to LD_LIBRARY_PATH, "
           "or set compute.backend: cpu",
           why);
#define FN_CUDNN_LOAD(name)                                                                        \
  cudnn->name = (__typeof__(name) *)dlsym(library, #name);                                         \
  FN_CHECK(cudnn->name, FN_ERR_DEVICE, "this cuDNN has no %s: fieldnet needs cuDNN 9", #name);
  FN_CUDNN_FUNCTIONS(FN_CUDNN_LOAD)
#undef FN_CUDNN_LOAD
  const size_t version = cudnn->cudnnGetVersion();
  snprintf(cudnn->version, sizeof cudnn->version, "%d.%d.%d", (int)(version / 10000),
           (int)(version / 100 % 100), (int)(version % 100));
  FN_CHECK(version >= 90000, FN_ERR_DEVICE, "cuDNN %s was loaded, fieldnet needs cuDNN 9",
           cudnn->version);
  return FN_OK;
}

fn_status fn_cudnn_open(fn_cuda *cuda, fn_cudnn **result) {
  fn_cudnn *cudnn = calloc(1, sizeof *cudnn);
  FN_CHECK(cudnn, FN_ERR_MEMORY, "out of memory");
  *result = cudnn;
  FN_TRY(load(cudnn));
  FN_CUDNN_TRY(cudnn, cudnn->cudnnCreate(&cudnn->handle), "starting it");
  FN_CUDNN_TRY(cudnn, cudnn->cudnnSetStream(cudnn->handle, cuda->stream[FN_STREAM_COMPUTE]),
               "giving it a stream");
  FN_TRY(fn_plans_open(cuda->cache, &cudnn->plans));
  return fn_algorithms_open(cuda->cache, &cudnn->algorithms);
}

fn_status fn_cudnn_assume(const char *properties, fn_cudnn **result) {
  *result = NULL;
#if CUDNN_VERSION >= 90800
  fn_cudnn *cudnn = calloc(1, sizeof *cudnn);
  FN_CHECK(cudnn, FN_ERR_MEMORY, "out of memory");
  fn_status status = load(cudnn);
  if (status == FN_OK && cudnn->cudnnGetVersion() < 90800)
    status = fn_error_set(FN_ERR_UNSUPPORTED, __FILE__, __LINE__, "cuDNN %s is older than 9.8",
                          cudnn->version);
  if (status == FN_OK)
    status = fn_cudnn_check(
        cudnn,
        cudnn->cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &cudnn->assumed),
        "assuming a device");
  if (status == FN_OK)
    status = fn_cudnn_check(cudnn,
                            cudnn->cudnnBackendSetAttribute(
                                cudnn->assumed, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                CUDNN_TYPE_CHAR, (int64_t)strlen(properties) + 1, properties),
                            "assuming a device");
  if (status == FN_OK)
    status =
        fn_cudnn_check(cudnn, cudnn->cudnnBackendFinalize(cudnn->assumed), "assuming a device");
  if (status == FN_OK) status = fn_plans_open(NULL, &cudnn->plans);
  if (status != FN_OK) {
    free(cudnn);
    return status;
  }
  *result = cudnn;
  return FN_OK;
#else
  (void)properties;
  FN_FAIL(FN_ERR_UNSUPPORTED, "this build's cuDNN is older than 9.8");
#endif
}

const char *fn_cudnn_version(const fn_cudnn *cudnn) {
  return cudnn->version;
}

fn_status fn_cudnn_check(const fn_cudnn *cudnn, cudnnStatus_t code, const char *what) {
  if (code == CUDNN_STATUS_SUCCESS) return FN_OK;
  // The hundreds of a code of cuDNN 9 tell its kind; 3000: not supported.
  const bool unsupported = code / 1000 == CUDNN_STATUS_NOT_SUPPORTED / 1000;
  FN_FAIL(unsupported ? FN_ERR_UNSUPPORTED : FN_ERR_INTERNAL, "cuDNN %s, %s: %s", cudnn->version,
          what, cudnn->cudnnGetErrorString(code));
}

fn_status fn_cudnn_new(fn_cudnn_pool *pool, cudnnBackendDescriptorType_t type,
                       cudnnBackendDescriptor_t *descriptor) {
  enum { MOST = sizeof pool->item / sizeof *pool->item };
  FN_CHECK(pool->count < MOST, FN_ERR_INTERNAL, "more than %d descriptors of cuDNN", (int)MOST);
  FN_CUDNN_TRY(pool->api, pool->api->cudnnBackendCreateDescriptor(type, descriptor),
               "creating a descriptor");
  pool->item[pool->count++] = *descriptor;
  return FN_OK;
}

void fn_cudnn_clear(fn_cudnn_pool *pool) {
  while (pool->count > 0)
    pool->api->cudnnBackendDestroyDescriptor(pool->item[--pool->count]);
}
