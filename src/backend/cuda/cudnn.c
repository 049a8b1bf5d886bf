/* cuDNN: the library and its descriptors. */
#include "backend/cuda/cudnn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

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
  return fn_algorithms_open(cuda->cache, &cudnn->algorithms);
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
  FN_CUDNN_TRY(pool->library, pool->library->cudnnBackendCreateDescriptor(type, descriptor),
               "creating a descriptor");
  pool->item[pool->count++] = *descriptor;
  return FN_OK;
}

void fn_cudnn_clear(fn_cudnn_pool *pool) {
  while (pool->count > 0)
    pool->library->cudnnBackendDestroyDescriptor(pool->item[--pool->count]);
}
