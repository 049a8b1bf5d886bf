/** @file cuda.h
 *  The inside of the cuda backend: one device per process.
 */
#ifndef FN_BACKEND_CUDA_CUDA_H
#define FN_BACKEND_CUDA_CUDA_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>

#include "backend/gpu/gpu.h"

typedef struct fn_cudnn fn_cudnn;
typedef struct fn_cublaslt fn_cublaslt;

typedef struct fn_cuda {
  fn_gpu_platform platform; /**< first member */
  int index;                /**< among the visible devices */
  cudaStream_t stream[FN_STREAM_COUNT];
  double *partial[FN_STREAM_COUNT]; /**< partial sums of a stream's kernels, on the device */
  bool deterministic, tf32, capturing, ranges;
  char *cache;            /**< folder of chosen algorithms; NULL: none */
  size_t workspace_limit; /**< bytes that one library call may ask for */
  fn_cudnn *cudnn;
  fn_cublaslt *cublaslt;
  pthread_mutex_t lock; /**< of what follows */
  atomic_bool failed;   /**< read without it: the message is complete by then */
  char failure[768];    /**< message of the first error that the device did not survive */
} fn_cuda;

/** The device of this process; open only after fn_cuda_open(). */
extern fn_cuda fn_cuda_device;

fn_status fn_cuda_open(const fn_device_choice *choice);

/** Turn a code of the runtime into a status; `what` was being done. Errors that leave the device
 *  useless (most do) are kept: from then on every call fails with the first one's message. */
fn_status fn_cuda_check(fn_cuda *cuda, cudaError_t code, const char *what);
#define FN_CUDA_TRY(cuda, call, what) FN_TRY(fn_cuda_check((cuda), (call), (what)))
/** FN_ERR_DEVICE with the first message once the device has failed. Also makes it the calling
 *  thread's device. */
fn_status fn_cuda_enter(fn_cuda *cuda);

/** Put kernel `id` of kernels/list.h on a stream; args is copied. kernels.cu. */
int fn_cuda_launch(int id, const void *args, int64_t blocks, int threads, cudaStream_t stream);

/** Open a library that is needed on a device only: by its names in the usual places of the loader,
 *  then in `folder`, where it was at configuration. NULL with `why` filled in. */
void *fn_cuda_library(const char *const *names, const char *folder, char *why, size_t size);

/** Load NVRTC, with which cuDNN compiles fused convolutions; false: it is not there, and those run
 * in pieces. */
bool fn_cuda_open_compiler(void);

/** NVTX ranges around library calls and kernels, when asked for by FIELDNET_NVTX=1. */
void fn_cuda_range_begin(const fn_cuda *cuda, const char *name);
void fn_cuda_range_end(const fn_cuda *cuda);

/* cuDNN: convolutions */
fn_status fn_cudnn_open(fn_cuda *cuda, fn_cudnn **cudnn);
const char *fn_cudnn_version(const fn_cudnn *cudnn);
fn_status fn_cudnn_prepare(fn_cuda *cuda, fn_gpu_call *call);
fn_status fn_cudnn_run(fn_cuda *cuda, const fn_gpu_call *call, const fn_gpu_addresses *at);
void fn_cudnn_release(fn_cuda *cuda, fn_gpu_call *call);

/* cuBLASLt: matrix products */
fn_status fn_cublaslt_open(fn_cuda *cuda, fn_cublaslt **cublaslt);
fn_status fn_cublaslt_prepare(fn_cuda *cuda, fn_gpu_call *call);
fn_status fn_cublaslt_run(fn_cuda *cuda, const fn_gpu_call *call, const fn_gpu_addresses *at);
void fn_cublaslt_release(fn_cuda *cuda, fn_gpu_call *call);

#endif
