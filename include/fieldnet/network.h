/** @file network.h
 *  Builder functions for authors of networks, losses and operators.
 *
 *  A network is a static graph of values. A value has a shape [N, C, spatial...] of up to
 *  FN_MAX_DIMS axes; the same functions serve one, two and three spatial dimensions. Builder
 *  functions append nodes and return the new value, which the graph owns. After a failure they
 *  return NULL, NULL arguments give NULL, and fn_graph_status() holds the first failure, so a
 *  network file needs no error handling of its own.
 *
 *  No function here is collective.
 */
#ifndef FIELDNET_NETWORK_H
#define FIELDNET_NETWORK_H

#include <fieldnet/fieldnet.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { FN_MAX_DIMS = 6, FN_MAX_SPATIAL = 3 };

typedef struct fn_graph fn_graph;
typedef struct fn_value fn_value;

/** Sizes per axis; ndim 0 is a scalar. */
typedef struct fn_shape {
  int ndim;
  int64_t dim[FN_MAX_DIMS];
} fn_shape;

/** Shape from a list: fn_shape_of(3, n, c, x). Arguments after ndim are int64_t. */
fn_shape fn_shape_make(int ndim, const int64_t *dim);
int64_t fn_shape_count(const fn_shape *shape);
bool fn_shape_equal(const fn_shape *a, const fn_shape *b);
/** Write e.g. "[1, 3, 104, 104, 104]" into text; returns text. */
char *fn_shape_text(const fn_shape *shape, char *text, size_t size);

/* ---- graph ---------------------------------------------------------------------------- */

/** First failure of a builder function of this graph (message: fn_error_message()). */
fn_status fn_graph_status(const fn_graph *graph);
/** Record a failure from a network file. */
fn_status fn_graph_fail(fn_graph *graph, fn_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** True while building the program that trains (batch statistics, dropout active). */
bool fn_graph_training(const fn_graph *graph);

/** Names of parameters made between push and pop get the prefix "name." (scopes nest). */
void fn_scope_push(fn_graph *graph, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fn_scope_pop(fn_graph *graph);

const fn_shape *fn_value_shape(const fn_value *value);
/** Size of axis `axis`; 0 for NULL. */
int64_t fn_dim(const fn_value *value, int axis);
/** Number of axes; 0 for NULL. */
int fn_ndim(const fn_value *value);
/** Number of spatial axes (ndim - 2). */
int fn_spatial(const fn_value *value);
/** Label for tables and messages; kept by the graph. Returns value. */
fn_value *fn_label(fn_graph *graph, fn_value *value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- leaves --------------------------------------------------------------------------- */

/** How a parameter starts; draws come from the counter-based generator keyed by (seed, name). */
typedef struct fn_init {
  enum { FN_INIT_CONSTANT, FN_INIT_UNIFORM, FN_INIT_NORMAL } kind;
  double a; /**< constant; lower bound; mean */
  double b; /**< unused; upper bound; standard deviation */
} fn_init;

#define FN_INIT_ZERO ((fn_init){FN_INIT_CONSTANT, 0, 0})
#define FN_INIT_ONE ((fn_init){FN_INIT_CONSTANT, 1, 0})

/** What a parameter is, for re-initialisation and weight decay rules. */
typedef enum fn_role {
  FN_ROLE_WEIGHT,     /**< of a convolution or matrix product */
  FN_ROLE_BIAS,       /**< of a convolution or matrix product */
  FN_ROLE_NORM_SCALE, /**< of a normalisation layer */
  FN_ROLE_NORM_SHIFT, /**< of a normalisation layer */
} fn_role;

/** A value fed at every run, float32. */
fn_value *fn_input(fn_graph *graph, const char *name, const fn_shape *shape);
/** A trainable parameter named <scopes>.<name>. */
fn_value *fn_parameter(fn_graph *graph, const char *name, const fn_shape *shape, fn_init init,
                       fn_role role);
/** State that is saved but not trained, e.g. a running mean. Change it with fn_assign(). */
fn_value *fn_buffer(fn_graph *graph, const char *name, const fn_shape *shape, double fill);
/** Every element equal to `constant`. */
fn_value *fn_fill(fn_graph *graph, const fn_shape *shape, double constant);
/** After each run of a training program, buffer := value (same shape). */
void fn_assign(fn_graph *graph, fn_value *buffer, fn_value *value);
/** x with the gradient cut: an identity whose gradient is zero. */
fn_value *fn_stop_gradient(fn_graph *graph, fn_value *x);

/* ---- convolution and matrix product ----------------------------------------------------- */

/** Geometry per spatial axis; zero in stride or dilation or groups means one. */
typedef struct fn_conv_geometry {
  int64_t stride[FN_MAX_SPATIAL];
  int64_t pad_low[FN_MAX_SPATIAL];  /**< zeros before the first cell */
  int64_t pad_high[FN_MAX_SPATIAL]; /**< zeros after the last cell */
  int64_t dilation[FN_MAX_SPATIAL]; /**< distance of kernel cells, 1 = dense */
  int64_t groups;
} fn_conv_geometry;

/** x [N, C, s...], w [K, C/groups, k...], bias [K] or NULL -> [N, K, o...],
 *  o = floor((s + pad_low + pad_high - dilation (k - 1) - 1) / stride) + 1. NULL geometry: ones. */
fn_value *fn_conv(fn_graph *graph, fn_value *x, fn_value *w, fn_value *bias,
                  const fn_conv_geometry *geometry);
/** Adjoint of fn_conv with respect to x, plus bias: x [N, C, s...], w [C, K/groups, k...] ->
 *  [N, K, o...], o = (s - 1) stride - pad_low - pad_high + dilation (k - 1) + 1 + extra.
 *  `extra` [spatial] (NULL: zeros) settles what a strided convolution's floor lost. */
fn_value *fn_conv_transpose(fn_graph *graph, fn_value *x, fn_value *w, fn_value *bias,
                            const fn_conv_geometry *geometry, const int64_t *extra);
/** [.., m, k] x [.., k, n] -> [.., m, n]; leading axes equal, or absent in b. The flags take the
 *  last two axes of that operand swapped. */
fn_value *fn_matmul(fn_graph *graph, fn_value *a, fn_value *b, bool transpose_a, bool transpose_b);

/* ---- layers: parameters and operators together, named and initialised as in PyTorch ------ */

/** Convolution with parameters `weight` and `bias`, kernel edge per axis `kernel` [spatial]. */
fn_value *fn_layer_conv(fn_graph *graph, fn_value *x, int64_t out_channels, const int64_t *kernel,
                        const fn_conv_geometry *geometry, bool bias);
fn_value *fn_layer_conv_transpose(fn_graph *graph, fn_value *x, int64_t out_channels,
                                  const int64_t *kernel, const fn_conv_geometry *geometry,
                                  bool bias);
/** x [N, F] -> [N, out]; parameters `weight` [out, F] and `bias`. */
fn_value *fn_layer_dense(fn_graph *graph, fn_value *x, int64_t out_features, bool bias);
/** Batch norm over N and space with `weight`, `bias`, `running_mean`, `running_var`,
 *  `num_batches_tracked`; eps 1e-5 and momentum 0.1 are PyTorch's defaults. */
fn_value *fn_layer_batch_norm(fn_graph *graph, fn_value *x, double eps, double momentum);

/* ---- normalisation ------------------------------------------------------------------------ */

/** (x - mean) / sqrt(var + eps) * scale + shift with statistics over N and space of the batch
 *  (over all ranks when the graph says so). mean and var (biased), shape [C], are returned too
 *  when the pointers are not NULL; no gradient flows through those two outputs. */
fn_value *fn_batch_norm(fn_graph *graph, fn_value *x, fn_value *scale, fn_value *shift, double eps,
                        fn_value **mean, fn_value **var);
/** The same with given statistics [C] (evaluation mode). */
fn_value *fn_batch_norm_fixed(fn_graph *graph, fn_value *x, fn_value *scale, fn_value *shift,
                              fn_value *mean, fn_value *var, double eps);

/* ---- elementwise; two operands broadcast as in numpy -------------------------------------- */

fn_value *fn_add(fn_graph *graph, fn_value *a, fn_value *b);
fn_value *fn_sub(fn_graph *graph, fn_value *a, fn_value *b);
fn_value *fn_mul(fn_graph *graph, fn_value *a, fn_value *b);
fn_value *fn_div(fn_graph *graph, fn_value *a, fn_value *b);
fn_value *fn_minimum(fn_graph *graph, fn_value *a, fn_value *b);
fn_value *fn_maximum(fn_graph *graph, fn_value *a, fn_value *b);
/** a x + b with constants a, b. */
fn_value *fn_affine(fn_graph *graph, fn_value *x, double a, double b);
fn_value *fn_leaky_relu(fn_graph *graph, fn_value *x, double slope);
fn_value *fn_relu(fn_graph *graph, fn_value *x);
fn_value *fn_sigmoid(fn_graph *graph, fn_value *x);
fn_value *fn_tanh(fn_graph *graph, fn_value *x);
fn_value *fn_exp(fn_graph *graph, fn_value *x);
/** Natural logarithm. */
fn_value *fn_ln(fn_graph *graph, fn_value *x);
fn_value *fn_sqrt(fn_graph *graph, fn_value *x);
fn_value *fn_square(fn_graph *graph, fn_value *x);
fn_value *fn_abs(fn_graph *graph, fn_value *x);
/** 1 where x > 0, else 0; its gradient is zero. */
fn_value *fn_step(fn_graph *graph, fn_value *x);
/** ln(1 + e^x), stable for any x. */
fn_value *fn_softplus(fn_graph *graph, fn_value *x);

/* ---- shape -------------------------------------------------------------------------------- */

fn_value *fn_concat(fn_graph *graph, fn_value *const *values, int count, int axis);
/** Cells [start, start + length) of one axis. */
fn_value *fn_narrow(fn_graph *graph, fn_value *x, int axis, int64_t start, int64_t length);
/** Window of every spatial axis: start and length, shape [spatial]. */
fn_value *fn_crop(fn_graph *graph, fn_value *x, const int64_t *start, const int64_t *length);
/** The centred window with the spatial size of `like`; an odd excess loses one more cell at the
 *  end (map2map's narrow_like). */
fn_value *fn_crop_like(fn_graph *graph, fn_value *x, const fn_value *like);
typedef enum fn_pad_mode { FN_PAD_ZERO, FN_PAD_PERIODIC } fn_pad_mode;
/** Margins `low`, `high` per spatial axis, shape [spatial]. */
fn_value *fn_pad(fn_graph *graph, fn_value *x, const int64_t *low, const int64_t *high,
                 fn_pad_mode mode);
fn_value *fn_reshape(fn_graph *graph, fn_value *x, const fn_shape *shape);
/** Axis a of the result is axis order[a] of x. */
fn_value *fn_permute(fn_graph *graph, fn_value *x, const int *order);
/** Repeat axes of size one (and missing leading axes) up to `shape`. */
fn_value *fn_broadcast(fn_graph *graph, fn_value *x, const fn_shape *shape);

/* ---- reductions --------------------------------------------------------------------------- */

/** Sum over the axes whose bit is set in `axes` (bit a = axis a); `keep` keeps them with size 1. */
fn_value *fn_sum(fn_graph *graph, fn_value *x, unsigned axes, bool keep);
fn_value *fn_mean(fn_graph *graph, fn_value *x, unsigned axes, bool keep);
#define FN_ALL_AXES 0x3fu
#define FN_SPATIAL_AXES 0x3cu

/* ---- pooling and resampling ---------------------------------------------------------------- */

/** Geometry as in a convolution (dilation 1). Padding cells do not enter a maximum; an average
 *  divides by the kernel size, padding included (PyTorch's default). */
fn_value *fn_average_pool(fn_graph *graph, fn_value *x, const int64_t *kernel,
                          const fn_conv_geometry *geometry);
fn_value *fn_max_pool(fn_graph *graph, fn_value *x, const int64_t *kernel,
                      const fn_conv_geometry *geometry);
/** Linear interpolation with half-pixel centres along every spatial axis: output length
 *  floor(n factor), source coordinate max(0, (i + 1/2) / factor - 1/2), upper neighbour clamped;
 *  with `narrow` and factor > 1, max(1, round(factor) div 2) cells go from both ends. */
fn_value *fn_resample(fn_graph *graph, fn_value *x, double factor, bool narrow);

/* ---- random values: keyed by (seed, epoch, sample, node), the same on every backend --------- */

/** Zero with probability p, else x / (1 - p); identity outside training. */
fn_value *fn_dropout(fn_graph *graph, fn_value *x, double p);
/** Standard normal draws, axis 0 is the sample. */
fn_value *fn_normal(fn_graph *graph, const fn_shape *shape);

/* ---- losses: scalars ------------------------------------------------------------------------ */

fn_value *fn_mse(fn_graph *graph, fn_value *x, fn_value *target);
fn_value *fn_l1(fn_graph *graph, fn_value *x, fn_value *target);
/** Mean of d^2/2 for |d| < delta, else delta (|d| - delta/2). */
fn_value *fn_huber(fn_graph *graph, fn_value *x, fn_value *target, double delta);
fn_value *fn_bce_with_logits(fn_graph *graph, fn_value *x, fn_value *target);
/** Softmax over axis 1 of x [N, C, ...]; target holds class probabilities, the same shape. */
fn_value *fn_cross_entropy(fn_graph *graph, fn_value *x, fn_value *target);

/* ---- differentiation --------------------------------------------------------------------------
 */

/** Append the nodes of d y / d x[i] (y a scalar) and return them in gradient[i]; a value that y
 *  does not depend on gets zeros. Gradients are graph: they can be differentiated again. */
fn_status fn_differentiate(fn_graph *graph, fn_value *y, fn_value *const *x, int count,
                           fn_value **gradient);
/** The same for any y with the given derivative `seed` of the final scalar with respect to y. */
fn_status fn_differentiate_from(fn_graph *graph, fn_value *const *y, fn_value *const *seed,
                                int y_count, fn_value *const *x, int count, fn_value **gradient);

/* ---- registering: what a plug-in library or a file in src/models does --------------------------
 */

/** Options of a network or loss, read from `model.options` / `loss.options`. */
typedef struct fn_options fn_options;
/** Each getter records that the key exists; unknown keys are reported after building. */
double fn_option_real(const fn_options *options, const char *key, double fallback);
int64_t fn_option_integer(const fn_options *options, const char *key, int64_t fallback);
bool fn_option_flag(const fn_options *options, const char *key, bool fallback);
const char *fn_option_text(const fn_options *options, const char *key, const char *fallback);

/** Network: x [N, in, spatial...] -> value with out_channels channels, with as many spatial axes as
 * x or with none ([N, out_channels]: a classifier). */
typedef fn_value *(*fn_network_build)(fn_graph *graph, fn_value *x, int64_t out_channels,
                                      const fn_options *options);
/** What the sizes of the input must obey, checked before any data is read. */
typedef struct fn_network_rule {
  int64_t multiple;  /**< edges are `remainder` modulo this; 0 or 1: any edge */
  int64_t remainder; /**< 0 <= remainder < multiple */
  int64_t minimum;   /**< smallest edge */
  int64_t trim;      /**< cells lost per side: output edge = edge - 2 trim; -1: other relation */
  int spatial;       /**< spatial axes of the input; 0: any number */
  int64_t samples;   /**< fewest samples of a training step; 0: one */
} fn_network_rule;
typedef struct fn_network {
  const char *name;
  const char *summary; /**< one line for help */
  fn_network_build build;
  /** May be NULL when any size will do. */
  void (*rule)(const fn_options *options, fn_network_rule *rule);
} fn_network;
/** Loss: output and target of one shape -> scalar. */
typedef struct fn_loss {
  const char *name;
  const char *summary;
  fn_value *(*build)(fn_graph *graph, fn_value *output, fn_value *target,
                     const fn_options *options);
} fn_loss;
/** Normalisation: in place on `count` values of one channel-first field [C, cells]. */
typedef struct fn_norm {
  const char *name;
  const char *summary;
  fn_status (*apply)(float *values, int64_t channels, int64_t cells, bool undo,
                     const fn_options *options);
} fn_norm;

fn_status fn_register_network(const fn_network *network);
fn_status fn_register_loss(const fn_loss *loss);
fn_status fn_register_norm(const fn_norm *norm);

/** The one function a plug-in library exports; returns FN_OK after registering. */
typedef fn_status (*fn_plugin_register)(void);
#define FN_PLUGIN_SYMBOL "fieldnet_register"

#ifdef __cplusplus
}
#endif
#endif
