/** @file backend.h
 *  For authors of operators and backends: nodes, tensors in memory, kernels.
 *
 *  An operator (src/ops) knows shapes, gradients and a plain kernel in double precision. A backend
 *  turns nodes into kernels that run on concrete tensors. A program (src/graph/program.h) is a flat
 *  list of such kernels over one planned arena.
 */
#ifndef FIELDNET_BACKEND_H
#define FIELDNET_BACKEND_H

#include <fieldnet/device.h>
#include <fieldnet/network.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fn_dtype { FN_F32, FN_BF16, FN_F64, FN_F16 } fn_dtype;
size_t fn_dtype_size(fn_dtype dtype);
const char *fn_dtype_name(fn_dtype dtype);

typedef struct fn_node fn_node;
typedef struct fn_op fn_op;

struct fn_value {
  fn_graph *graph;
  fn_node *node; /**< producer */
  int output;    /**< index among the producer's outputs */
  int id;        /**< position in creation order, unique in the graph */
  fn_shape shape;
  fn_dtype dtype;
  const char *label; /**< may be NULL */
};

struct fn_node {
  const fn_op *op;
  int id; /**< position in creation order */
  int input_count, output_count;
  fn_value **input;  /**< shape [input_count]; optional inputs may be NULL */
  fn_value **output; /**< shape [output_count] */
  void *attrs;       /**< op->attrs_size bytes */
};

/** Sums over the ranks of a job, handed to kernels that need them (synchronised statistics). */
typedef struct fn_collectives {
  void *self;
  int rank, size;
  /** Collective: values[i] := sum over ranks. */
  fn_status (*sum)(void *self, double *values, int64_t count);
} fn_collectives;

/** What one run of a program is told. */
typedef struct fn_run_context {
  uint64_t seed;
  int64_t epoch;
  const int64_t *sample; /**< global index of each row of the batch, shape [N]; NULL: the row */
  const fn_collectives *collectives; /**< NULL: one rank */
  void *workspace;    /**< set by the program: shared scratch, 64-byte aligned; the device's */
  const void *device; /**< set by the program: seed, epoch and samples in the device's memory; NULL
                           on the host */
} fn_run_context;

/** What kernels on a device need of fn_run_context, in the device's memory, so that a recorded run
 *  can be replayed with other values: fn_run_context.device points to it. */
typedef struct fn_gpu_context {
  uint64_t seed;
  int64_t epoch;
  int64_t sample[]; /**< of each row of the graph's random nodes; always filled in */
} fn_gpu_context;

/** Properties of an operator used by passes. */
enum {
  FN_OP_LEAF = 1,          /**< input, parameter, buffer: no kernel */
  FN_OP_FOLLOWS_BF16 = 2,  /**< the output is kept in bf16 when every activation input is */
  FN_OP_COMPUTES_BF16 = 4, /**< wants bf16 activations in a bf16 run and writes bf16 */
  FN_OP_RANDOM = 8,        /**< two nodes with the same inputs differ */
};

struct fn_op {
  const char *name;
  size_t attrs_size;
  unsigned flags;
  /** Fill shape[output_count]; the message of a failure names sizes found and expected. */
  fn_status (*infer)(const fn_node *node, fn_shape *shape);
  /** Append nodes for dx[i] = sum over outputs of dy[o] * d out[o] / d in[i]. dy[o] is NULL when
   *  nothing depends on output o; dx[i] stays NULL where the gradient is zero or wanted[i] is
   *  false. NULL function: all gradients zero. */
  fn_status (*gradient)(fn_graph *graph, fn_node *node, fn_value *const *dy, const bool *wanted,
                        fn_value **dx);
  /** Plain layout, C order, double precision; optional inputs are NULL. */
  fn_status (*reference)(const fn_node *node, const double *const *in, double *const *out,
                         const fn_run_context *context);
  /** Floating-point operations of one run; NULL: one per output element. */
  double (*flops)(const fn_node *node);
};

/** Append a node. attrs (op->attrs_size bytes, may be NULL when 0) is copied. Returns output 0, or
 *  NULL after recording the failure. Any non-optional NULL input must be checked by the caller:
 *  fn_node_append fails on NULL inputs unless bit i of `optional` is set. */
fn_value *fn_node_append(fn_graph *graph, const fn_op *op, fn_value *const *input, int input_count,
                         int output_count, const void *attrs, unsigned optional);

/* ---- tensors in memory ---------------------------------------------------------------------- */

/** A value in memory. Sample n starts at data + n batch_stride elements; inside a sample cells are
 *  dense: [C][space] when block is 1, else [ceil(C / block)][space][block] with the channels past C
 *  in the last block kept zero. With fewer than 3 axes block is 1 and the tensor is dense.
 *  Channels-last is block = C; there alone cells may be further apart than a block (a channel
 * window of a concat). Element (n, c, cell) lies at n batch_stride + (c / block * cells + cell)
 * pitch + c % block. */
struct fn_tensor {
  void *data;
  fn_dtype dtype;
  fn_shape shape;
  int64_t block;
  int64_t batch_stride; /**< elements */
  int64_t pitch;        /**< elements from cell to cell; 0 means block */
};

/** Elements of one sample in memory, channel padding included. */
int64_t fn_tensor_sample_count(const fn_shape *shape, int64_t block);

enum { FN_MAX_PORTS = 12 };

/** A backend's answer for one node, before memory is planned. */
typedef struct fn_node_plan {
  int64_t in_block[FN_MAX_PORTS];  /**< layout wanted of each input; the program inserts reorders */
  int64_t out_block[FN_MAX_PORTS]; /**< layout written */
  unsigned in_place[FN_MAX_PORTS]; /**< per output: bit mask of inputs it may overwrite */
  bool strided_in[FN_MAX_PORTS];   /**< batch_stride may exceed the sample and pitch the block (a
                                        window of a concat) */
  bool strided_out[FN_MAX_PORTS];
} fn_node_plan;

typedef struct fn_kernel fn_kernel;
struct fn_kernel {
  const fn_node *node;
  fn_tensor *input;  /**< shape [input_count]; data NULL where the input is absent */
  fn_tensor *output; /**< shape [output_count]; data NULL where nobody reads the output */
  size_t workspace;  /**< bytes of context->workspace it needs; set by prepare */
  void *state;       /**< the backend's own */
  fn_status (*run)(const fn_kernel *kernel, const fn_run_context *context);
  void (*destroy)(fn_kernel *kernel); /**< may be NULL */
  const char *backend;                /**< name of the backend that prepared it */
};

/** Which device a process takes. */
typedef struct fn_device_choice {
  int node_rank, node_size; /**< of this process among those of the node */
  bool share;               /**< more processes than devices are meant */
  bool deterministic;       /**< same bits in every run: no algorithm chosen by its time */
  bool tf32;                /**< float32 products may be rounded to TF32 */
  const char *cache;        /**< folder for chosen algorithms; NULL: none */
} fn_device_choice;

typedef struct fn_backend fn_backend;
struct fn_backend {
  const char *name;
  /** NULL when usable, else how to get it ("configure with -D...", "needs an AVX-512 processor").
   */
  const char *missing;
  /** Whether prepare will succeed for this node with the dtypes of its values. */
  bool (*supports)(const fn_backend *backend, const fn_node *node);
  /** Choose layouts; current[i] is how input i lies in memory now. */
  fn_status (*plan)(const fn_backend *backend, const fn_node *node, const int64_t *current,
                    fn_node_plan *plan);
  /** kernel->node, input and output (with data pointers) are set; fill the rest. */
  fn_status (*prepare)(const fn_backend *backend, fn_kernel *kernel);
  /** Copy between layouts and dtypes: one input, one output of the same shape. */
  fn_status (*prepare_reorder)(const fn_backend *backend, fn_kernel *kernel);
  bool takes_lines; /**< gradients of batch norm shall recompute the sign of y: fn_graph_take_lines
                     */
  bool channels_last; /**< layouts are plain or channels-last, and kernels honour a pitch */
  /** Open the device that the kernels' memory belongs to, at the first call; later calls return the
   *  same. `choice` matters at the first. NULL function: memory is the host's. FN_ERR_DEVICE or
   *  FN_ERR_UNSUPPORTED with the remedy when there is none. */
  fn_status (*device)(const fn_backend *backend, const fn_device_choice *choice,
                      fn_device **device);
};

/** Backends by name ("reference", "cpu", "cuda"); unknown: FN_ERR_CONFIG naming the closest. */
fn_status fn_backend_find(const char *name, const fn_backend **backend);

#ifdef __cplusplus
}
#endif
#endif
