/** @file ops.h
 *  Every built-in operator: its inputs, outputs and attributes. Builder functions are in
 *  <fieldnet/network.h>; the functions here are the ones passes, gradients and backends need
 * besides.
 *
 *  Notation: x [N, C, s...], y [N, K, o...]; a trailing ? marks an optional (NULL) input.
 */
#ifndef FN_OPS_OPS_H
#define FN_OPS_OPS_H

#include <fieldnet/backend.h>

/* ---- conv.c: closed under differentiation ------------------------------------------------------
 */

/** Shared by the three convolution operators. geometry is complete (no zeros left in stride,
 *  dilation, groups). */
typedef struct fn_conv_attrs {
  fn_conv_geometry geometry;
  double slope;    /**< leaky ReLU applied to the result; 1: none. fn_op_conv, fn_op_conv_data */
  fn_shape extent; /**< fn_op_conv_data: shape of the result; fn_op_conv_weight: of the kernel */
} fn_conv_attrs;

/** (x [N, C, s...], w [K, C/g, k...], bias? [K], residual? like y) -> y [N, K, o...]; three inputs
 *  will do. y = leaky(w * x + bias + residual). */
extern const fn_op fn_op_conv;
/** Adjoint in x: (y [N, K, o...], w [K, C/g, k...], bias? [C]) -> x [N, C, s...] */
extern const fn_op fn_op_conv_data;
/** Adjoint in w: (x [N, C, s...], y [N, K, o...]) -> w [K, C/g, k...], bias [K] = sum of y.
 *  Two outputs always; a backend skips the bias when its tensor has no data. */
extern const fn_op fn_op_conv_weight;

/* ---- matmul.c
 * ------------------------------------------------------------------------------------ */

typedef struct fn_matmul_attrs {
  bool transpose_a, transpose_b;
  double slope; /**< leaky ReLU applied to the result; 1: none, 0: ReLU */
} fn_matmul_attrs;
/** (a [..., m, k], b [..., k, n], bias? [n]) -> y [..., m, n]; two inputs will do, b may lack the
 *  leading axes. y = leaky(a b + bias). The forward rewrite puts bias and activation there. */
extern const fn_op fn_op_matmul;

/* ---- norm.c
 * -------------------------------------------------------------------------------------- */

typedef struct fn_batch_norm_attrs {
  double eps;
  double slope; /**< leaky ReLU applied to the result; 1: none */
  bool fixed;   /**< mean and var are inputs */
  bool sync;    /**< statistics over all ranks */
} fn_batch_norm_attrs;
/** (x, scale [C], shift [C], residual? like x, mean? [C], var? [C])
 *    -> y like x, mean [C], var [C], line? [2 C]
 *  y = leaky((x - mean) / sqrt(var + eps) * scale + shift + residual). var is biased. When fixed,
 *  mean and var are the last two inputs and outputs 1, 2 copies of them. line is (a, b) of
 *  (x - mean) a + b, with mean rounded to f32, as the kernel computed it: see the gradient. */
extern const fn_op fn_op_batch_norm;
/** Statistics over ranks are rounded to f32, as they are stored, before use: the operator can then
 *  be repeated with the stored ones (`fixed`), without a second sum over ranks, to the same bits.
 */
void fn_round_statistics(double *values, int64_t count);
/** (dy, x, scale, mean, var, y?, line?) -> dx like x, dscale [C], dshift [C], dresidual like x
 *  y is present when slope != 1 (its sign selects the branch), unless the operator before it had no
 *  residual and its line is given: then the sign is that of (x - mean) a + b, which no pass over y
 *  has to fetch. fn_graph_take_lines() makes it so, after differentiation. dresidual = dy times the
 *  slope of the activation. Without `fixed`, dx accounts for mean and var depending on x. dscale
 * and dshift are this rank's sums, also when sync. */
extern const fn_op fn_op_batch_norm_grad;
/** (batch [C], running [C]) -> (1 - momentum) running + momentum * factor * batch, where factor is
 *  M / (M - 1) for variances, M = values per channel (over all ranks when sync), else 1. */
typedef struct fn_running_attrs {
  double momentum;
  int64_t count; /**< M on this rank; 0: factor 1 */
  bool sync;
} fn_running_attrs;
extern const fn_op fn_op_running;

/* ---- fold.c
 * -------------------------------------------------------------------------------------- */

typedef struct fn_fold_attrs {
  double eps;
  int64_t groups;  /**< of the convolution */
  bool transposed; /**< the kernel is that of fn_op_conv_data: channels of its result on axis 1 */
} fn_fold_attrs;
/** (w, bias? [C], scale [C], shift [C], mean [C], var [C]) -> w like w, bias [C] of the convolution
 *  that is followed by batch norm with these statistics. Made by fn_graph_fold_norms() in programs
 *  without gradients: it has no gradient rule. */
extern const fn_op fn_op_fold_norm;
/** What one channel's weights are multiplied with, and its new bias. */
void fn_fold_factors(const fn_fold_attrs *attrs, double bias, double scale, double shift,
                     double mean, double var, double *factor, double *folded_bias);
/** Channel of the result that w[row, column, ...] belongs to. */
int64_t fn_fold_channel(const fn_fold_attrs *attrs, const fn_shape *w, int64_t row, int64_t column);

/* ---- elementwise.c
 * --------------------------------------------------------------------------------- */

typedef enum fn_unary {
  FN_AFFINE, /**< a x + b */
  FN_LEAKY,  /**< x > 0 ? x : a x */
  FN_SIGMOID,
  FN_TANH,
  FN_EXP,
  FN_LOG,
  FN_SQRT,
  FN_SQUARE,
  FN_ABS,
  FN_STEP,
  FN_SIGN,
  FN_SOFTPLUS,
  FN_RECIPROCAL,
  FN_IDENTITY, /**< also stop_gradient: see attrs */
  FN_CAST,     /**< identity whose output dtype differs; made by the bf16 pass */
} fn_unary;
typedef struct fn_unary_attrs {
  fn_unary kind;
  double a, b;
  bool stop; /**< FN_IDENTITY: gradient is cut */
} fn_unary_attrs;
/** (x) -> like x */
extern const fn_op fn_op_unary;

typedef enum fn_binary {
  FN_ADD,
  FN_SUB,
  FN_MUL,
  FN_DIV,
  FN_MIN,
  FN_MAX,
  FN_GREATER, /**< a > b ? 1 : a == b ? 1/2 : 0; gradient zero (ties of min and max) */
} fn_binary;
typedef struct fn_binary_attrs {
  fn_binary kind;
} fn_binary_attrs;
/** (a, b) -> broadcast shape */
extern const fn_op fn_op_binary;

typedef struct fn_leaky_attrs {
  double slope;
} fn_leaky_attrs;
/** (dy, y) -> y > 0 ? dy : slope dy; y may be the input or (slope >= 0) the output of the
 * activation
 */
extern const fn_op fn_op_leaky_grad;
fn_value *fn_leaky_grad(fn_graph *graph, fn_value *dy, fn_value *y, double slope);

/** () -> shape filled with a constant */
typedef struct fn_fill_attrs {
  fn_shape shape;
  double constant;
} fn_fill_attrs;
extern const fn_op fn_op_fill;
/** Whether every element of x is the same known number. The builders fold arithmetic with such
 *  values, because differentiation makes many of them. */
bool fn_is_constant(const fn_value *x, double *constant);

/* ---- shape.c
 * ------------------------------------------------------------------------------------- */

typedef struct fn_concat_attrs {
  int axis;
} fn_concat_attrs;
/** (x0, x1, ...) up to FN_MAX_PORTS -> joined along axis */
extern const fn_op fn_op_concat;

/** Window: start per axis, extent = output shape. */
typedef struct fn_window_attrs {
  int64_t start[FN_MAX_DIMS];
  fn_shape shape; /**< crop: of the result; pad: of the result */
} fn_window_attrs;
/** (x) -> x[start : start + shape] on all axes (narrow and crop) */
extern const fn_op fn_op_crop;
/** (x) -> zeros of `shape` with x at `start` */
extern const fn_op fn_op_pad_zero;
/** (a, b) -> a with b added at window `start` */
extern const fn_op fn_op_add_window;
fn_value *fn_crop_axes(fn_graph *graph, fn_value *x, const int64_t *start, const fn_shape *shape);
fn_value *fn_pad_axes(fn_graph *graph, fn_value *x, const int64_t *start, const fn_shape *shape);
fn_value *fn_add_window(fn_graph *graph, fn_value *a, fn_value *b, const int64_t *start);

/** low margin per spatial axis in start[2 + d]; shape of the result */
extern const fn_op fn_op_pad_periodic;
/** Adjoint: (y padded) -> x, wrapped margins added. start as above, shape of x. */
extern const fn_op fn_op_pad_periodic_grad;

/** (x) -> the same elements in C order with another shape */
typedef struct fn_reshape_attrs {
  fn_shape shape;
} fn_reshape_attrs;
extern const fn_op fn_op_reshape;

typedef struct fn_permute_attrs {
  int order[FN_MAX_DIMS];
} fn_permute_attrs;
extern const fn_op fn_op_permute;

/* ---- reduce.c
 * ------------------------------------------------------------------------------------ */

typedef struct fn_reduce_attrs {
  unsigned axes;
  bool keep;
} fn_reduce_attrs;
/** (x) -> sum over axes. Means are sums times 1/count. */
extern const fn_op fn_op_sum;
/** (x) -> repeated up to shape (numpy rules) */
extern const fn_op fn_op_broadcast; /* attrs: fn_reshape_attrs */
/** Sum x down to `shape`, undoing a broadcast. */
fn_value *fn_sum_to(fn_graph *graph, fn_value *x, const fn_shape *shape);

/* ---- pool.c, resample.c
 * ------------------------------------------------------------------------------ */

typedef struct fn_pool_attrs {
  int64_t kernel[FN_MAX_SPATIAL];
  fn_conv_geometry geometry; /**< stride, pad_low, pad_high */
  fn_shape extent;           /**< adjoints: shape of x */
} fn_pool_attrs;
/** (x) -> y */
extern const fn_op fn_op_average_pool;
/** (dy) -> dx */
extern const fn_op fn_op_average_pool_grad;
/** (x) -> y; ties go to the first cell in C order */
extern const fn_op fn_op_max_pool;
/** (dy, x) -> dx: dy scattered to where the maximum of x was */
extern const fn_op fn_op_max_pool_grad;
/** (v like x, x) -> y: v gathered from where the maximum of x was (adjoint of max_pool_grad) */
extern const fn_op fn_op_max_pool_gather;

typedef struct fn_resample_attrs {
  double factor;
  int64_t trim;    /**< cells dropped per side of the result */
  fn_shape extent; /**< adjoint: shape of x */
} fn_resample_attrs;
extern const fn_op fn_op_resample;
extern const fn_op fn_op_resample_grad;

/* ---- random.c
 * ------------------------------------------------------------------------------------ */

/** Element e (C order within the sample) of row n uses block e / 2 of the stream
 *  (context->seed, purpose, epoch, sample[n] * 4096 + index): two normals or two uniforms a block.
 *  Same bits on every backend. `index` numbers the random nodes of a graph in creation order. */
typedef struct fn_random_attrs {
  fn_shape shape; /**< fn_op_normal */
  double p;       /**< fn_op_dropout_mask */
  int index;
} fn_random_attrs;
/** () -> standard normal */
extern const fn_op fn_op_normal;
/** () -> 0 with probability p, else 1 / (1 - p) */
extern const fn_op fn_op_dropout_mask;

/* ---- loss.c
 * ---------------------------------------------------------------------------------------- */
/* Losses are built from the operators above, but for softmax: */
/** (x [N, C, ...]) -> log softmax over axis 1 */
extern const fn_op fn_op_log_softmax;

/** Operator by name, for tests and tables; NULL when unknown. */
const fn_op *fn_op_find(const char *name);
int fn_op_count(void);
const fn_op *fn_op_at(int index);

#endif
