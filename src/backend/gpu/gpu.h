/** @file gpu.h
 *  The inside of the backends with a device: one set of operators (plans, arguments, grids) over
 * two platforms. `cuda` runs on an NVIDIA GPU; `emulated` runs the same kernels, grids, streams and
 *  library calls on the host, to be tested without a GPU.
 *
 *  Layout: values of three and more axes lie channels-last, block = channels (see fn_tensor); a
 *  channel window of a concat has a pitch above its block. The rest is plain and dense.
 */
#ifndef FN_BACKEND_GPU_GPU_H
#define FN_BACKEND_GPU_GPU_H

#include <fieldnet/backend.h>
#include <fieldnet/device.h>

#include "backend/gpu/code.h"

/** One of the kernels of kernels/list.h. */
typedef struct fn_gpu_kernel {
  const char *name;
  int id; /**< place in the list */
  size_t args_size;
  size_t shared; /**< bytes of shared memory of a block */
  int phases;
  /** All blocks on the host. */
  void (*host)(const void *args, int64_t blocks, int threads);
} fn_gpu_kernel;

typedef struct fn_gpu_platform fn_gpu_platform;

/** A convolution or matrix product as a library runs it: prepared for shapes and pitches, run on
 *  addresses. The tensors are copies; data tells the alignment, NULL: 256 bytes. Activations are
 * channels-last with any pitch; a filter [K, C/g, k...] is channels-last too (block C/g), packed
 * for the library by fieldnet, and has the dtype of the activations; operands of a matrix product
 * are dense and of one dtype.
 */
typedef struct fn_gpu_call {
  const fn_node *node;
  fn_tensor input[FN_MAX_PORTS], output[FN_MAX_PORTS];
  bool present_in[FN_MAX_PORTS], present_out[FN_MAX_PORTS];
  /** Bias, residual and activation are part of the call; set before prepare where the node has any.
   *  A library that leaves them out clears it, and sets the dtype of output 0 to float32 where it
   *  can, so that the result is rounded once: it lies in the workspace meanwhile. */
  bool finish;
  size_t workspace; /**< bytes; set by prepare */
  void *state;      /**< the library's */
} fn_gpu_call;

/** Where the tensors of a call lie at one run; NULL: absent, or no part of the call. */
typedef struct fn_gpu_addresses {
  void *input[FN_MAX_PORTS], *output[FN_MAX_PORTS];
  void *workspace;
} fn_gpu_addresses;

struct fn_gpu_platform {
  fn_device device; /**< first member */
  /** Put a kernel on the compute stream. args (kernel->args_size bytes) is copied. */
  fn_status (*launch)(fn_gpu_platform *platform, const fn_gpu_kernel *kernel, int64_t blocks,
                      int threads, const void *args);
  /** Library calls: conv, conv_data, conv_weight (output 0 alone, never the bias), matmul.
   *  FN_ERR_UNSUPPORTED where the library has nothing for these shapes, strides, dtypes. The dtype
   *  of a filter's gradient, float32 before, may be lowered to that of the activations. */
  fn_status (*prepare)(fn_gpu_platform *platform, fn_gpu_call *call);
  /** Put a call on the compute stream; `at` is copied. FN_ERR_UNSUPPORTED when the library has
   * found out only now that it cannot. */
  fn_status (*run)(fn_gpu_platform *platform, const fn_gpu_call *call, const fn_gpu_addresses *at);
  void (*release)(fn_gpu_platform *platform, fn_gpu_call *call); /**< state may be NULL */
};

/** Kernel by place in the list. */
const fn_gpu_kernel *fn_gpu_kernel_at(int id);
int fn_gpu_kernel_count(void);

/** How the backends run one operator. */
typedef struct fn_gpu_op {
  const fn_op *op;
  bool (*supports)(const fn_node *node); /**< NULL: always */
  /** Layouts are filled in before: channels-last everywhere, strides allowed. NULL: nothing to
   *  change. */
  void (*plan)(const fn_node *node, const int64_t *current, fn_node_plan *plan);
  fn_status (*prepare)(fn_gpu_platform *platform, fn_kernel *kernel);
} fn_gpu_op;

/** Tables of the files, each ended by an entry whose op is NULL. */
extern const fn_gpu_op fn_gpu_library_ops[], fn_gpu_norm_ops[], fn_gpu_elementwise_ops[],
    fn_gpu_window_ops[], fn_gpu_reduce_ops[], fn_gpu_pool_ops[], fn_gpu_resample_ops[],
    fn_gpu_random_ops[];

fn_status fn_gpu_prepare_reorder(fn_gpu_platform *platform, fn_kernel *kernel);

/** First member of every kernel's state. */
typedef struct fn_gpu_state {
  fn_gpu_platform *platform;
  void (*release)(struct fn_gpu_state *state); /**< before the state is freed; may be NULL */
} fn_gpu_state;
/** Zeroed state of `size` bytes that starts with fn_gpu_state; sets kernel->destroy. */
fn_status fn_gpu_state_create(fn_gpu_platform *platform, fn_kernel *kernel, size_t size,
                              void **state);

/** Device of a process among `devices` of its node: in turn, FN_ERR_DEVICE when there are fewer
 * than processes and sharing was not meant. */
fn_status fn_gpu_choose_device(const fn_device_choice *choice, int devices, int *index);

/** Blocks for `items` elements handled by FN_GPU_THREADS threads, `each` per thread and turn. The
 *  same on every device: results of reductions depend on the grid. */
int64_t fn_gpu_blocks(int64_t items, int64_t each);

/** Shared by both backends: tables, plans. */
bool fn_gpu_supports(const fn_backend *backend, const fn_node *node);
fn_status fn_gpu_plan(const fn_backend *backend, const fn_node *node, const int64_t *current,
                      fn_node_plan *plan);
fn_status fn_gpu_prepare(fn_gpu_platform *platform, const fn_backend *backend, fn_kernel *kernel);

/** Seconds of the kernel's library call alone, by the device's clock, mean of `repeats`; 0: it
 * makes none, or is no kernel of a device. `workspace` is the program's, after a run of it. Writes
 * the kernel's output, or the copy of it in the workspace. */
fn_status fn_gpu_time_call(const fn_kernel *kernel, void *workspace, int repeats, double *seconds);

#endif
