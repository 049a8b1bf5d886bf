/** @file cudnn.h
 *  Convolutions by cuDNN's backend (graph) interface: the library, operation graphs, engines.
 */
#ifndef FN_BACKEND_CUDA_CUDNN_H
#define FN_BACKEND_CUDA_CUDNN_H

#include <cudnn.h>

#include "backend/cuda/algorithms.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/plans.h"

/** The functions that are used, loaded when the device is opened. */
#define FN_CUDNN_FUNCTIONS(F)                                                                      \
  F(cudnnGetVersion)                                                                               \
  F(cudnnGetErrorString)                                                                           \
  F(cudnnCreate)                                                                                   \
  F(cudnnSetStream)                                                                                \
  F(cudnnBackendCreateDescriptor)                                                                  \
  F(cudnnBackendDestroyDescriptor)                                                                 \
  F(cudnnBackendSetAttribute)                                                                      \
  F(cudnnBackendGetAttribute)                                                                      \
  F(cudnnBackendFinalize)                                                                          \
  F(cudnnBackendExecute)

struct fn_cudnn {
#define FN_CUDNN_MEMBER(name) __typeof__(name) *name;
  FN_CUDNN_FUNCTIONS(FN_CUDNN_MEMBER)
#undef FN_CUDNN_MEMBER
  cudnnHandle_t handle;
  cudnnBackendDescriptor_t assumed; /**< properties of a device that is not there; NULL: a handle */
  char version[16];
  fn_algorithms *algorithms;
  fn_plans *plans;
};

/** cuDNN for a device that is only described (JSON, as cuDNN writes it): graphs, engines and plans
 *  can be made, not run. Needs cuDNN 9.8; FN_ERR_UNSUPPORTED where it is older or not there. */
fn_status fn_cudnn_assume(const char *properties, fn_cudnn **cudnn);

/** Descriptors that are destroyed together. */
typedef struct fn_cudnn_pool {
  const fn_cudnn *api;
  cudnnBackendDescriptor_t item[48];
  int count;
} fn_cudnn_pool;

fn_status fn_cudnn_check(const fn_cudnn *cudnn, cudnnStatus_t code, const char *what);
/** New descriptor owned by the pool. */
fn_status fn_cudnn_new(fn_cudnn_pool *pool, cudnnBackendDescriptorType_t type,
                       cudnnBackendDescriptor_t *descriptor);
void fn_cudnn_clear(fn_cudnn_pool *pool);
#define FN_CUDNN_TRY(cudnn, call, what) FN_TRY(fn_cudnn_check((cudnn), (call), (what)))

/** How a call is spelled as a graph. */
typedef struct fn_cudnn_form {
  bool finish;     /**< bias, residual, activation inside */
  fn_dtype result; /**< dtype of output 0 */
} fn_cudnn_form;

/** Operation graph of a call; its descriptors go to the pool. FN_ERR_UNSUPPORTED when cuDNN refuses
 *  it. */
fn_status fn_cudnn_graph(fn_cudnn_pool *pool, const fn_gpu_call *call, const fn_cudnn_form *form,
                         cudnnBackendDescriptor_t *graph);
/** Largest power of two, at most 16, that divides the tensor's address. */
int64_t fn_cudnn_alignment(const fn_tensor *tensor);
/** Unique ids of the graph's tensors. */
enum { FN_CUDNN_INPUT = 1, FN_CUDNN_OUTPUT = 20, FN_CUDNN_VIRTUAL = 30 };

/** Spellings of a call from the best to the last resort; at most 3. */
int fn_cudnn_forms(const fn_gpu_call *call, fn_cudnn_form form[3]);

enum { FN_CUDNN_CANDIDATES = 32 };
/** Engines for a graph in cuDNN's order of preference, without those that the settings exclude
 *  (rounding of inputs, other bits at every run) or whose results are known to be wrong. */
fn_status fn_cudnn_list(fn_cuda *cuda, cudnnBackendDescriptor_t graph, const fn_gpu_call *call,
                        fn_algorithm *list, int *count);
/** Execution plan of an engine; *plan belongs to the pool. FN_ERR_UNSUPPORTED when it cannot be
 *  built or wants more than `limit` bytes of workspace. `key` tells the graph and the device: a
 *  plan that was compiled is kept under it and the engine's settings. */
fn_status fn_cudnn_plan(fn_cudnn_pool *pool, cudnnBackendDescriptor_t graph,
                        const fn_algorithm *algorithm, const char *key, size_t limit,
                        cudnnBackendDescriptor_t *plan, size_t *workspace);
/** Variant pack: where the tensors of a graph are. */
fn_status fn_cudnn_pack(fn_cudnn_pool *pool, const fn_gpu_call *call, bool finish,
                        const fn_gpu_addresses *at, cudnnBackendDescriptor_t *pack);

#endif
