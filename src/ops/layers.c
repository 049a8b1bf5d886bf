/* Layers: parameters and operators together, named and initialised as in PyTorch. */
#include <math.h>

#include "graph/graph.h"
#include "ops/geometry.h"
#include "ops/ops.h"

/** PyTorch's default for convolutions and dense layers: Kaiming uniform with a = sqrt(5) (He et al.
 *  2015, equation 14 with that slope), which is uniform in +-1 / sqrt(fan_in); so is the bias. */
static fn_init default_init(int64_t fan_in) {
  const double bound = fan_in > 0 ? 1 / sqrt((double)fan_in) : 0;
  return (fn_init){FN_INIT_UNIFORM, -bound, bound};
}

/** Whether x can be convolved in groups; records the failure. */
static bool check_layer(fn_graph *graph, const char *what, const fn_value *x, int64_t out_channels,
                        const int64_t *kernel, int64_t groups) {
  char text[FN_SHAPE_TEXT];
  const int spatial = fn_spatial(x);
  fn_shape_text(&x->shape, text, sizeof text);
  if (spatial < 1 || spatial > FN_MAX_SPATIAL) {
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "%s: input is %s, expected [N, C, s...] with 1 to %d spatial axes", what, text,
                  FN_MAX_SPATIAL);
    return false;
  }
  if (out_channels < 1 || groups < 1 || fn_dim(x, 1) % groups || out_channels % groups) {
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "%s: input %s and %lld output channels, expected positive multiples of %lld "
                  "group(s)",
                  what, text, (long long)out_channels, (long long)groups);
    return false;
  }
  for (int d = 0; d < spatial; d++) {
    if (kernel[d] >= 1) continue;
    fn_graph_fail(graph, FN_ERR_CONFIG, "%s: kernel of spatial axis %d is %lld, must be positive",
                  what, d, (long long)kernel[d]);
    return false;
  }
  return true;
}

/** Shape [first, second, kernel...]; the last axes without the first are the fan in. */
static fn_shape kernel_shape(int64_t first, int64_t second, const int64_t *kernel, int spatial,
                             int64_t *fan_in) {
  fn_shape shape = {2 + spatial, {first, second}};
  *fan_in = second;
  for (int d = 0; d < spatial; d++) {
    shape.dim[2 + d] = kernel[d];
    *fan_in *= kernel[d];
  }
  return shape;
}

fn_value *fn_layer_conv(fn_graph *graph, fn_value *x, int64_t out_channels, const int64_t *kernel,
                        const fn_conv_geometry *geometry, bool bias) {
  if (!x) return NULL;
  const fn_conv_geometry full = fn_geometry_complete(geometry, fn_spatial(x));
  if (!check_layer(graph, "convolution", x, out_channels, kernel, full.groups)) return NULL;
  int64_t fan_in;
  const fn_shape shape =
      kernel_shape(out_channels, fn_dim(x, 1) / full.groups, kernel, fn_spatial(x), &fan_in);
  const fn_init init = default_init(fan_in);
  fn_value *w = fn_parameter(graph, "weight", &shape, init, FN_ROLE_WEIGHT), *b = NULL;
  if (bias) b = fn_parameter(graph, "bias", &(fn_shape){1, {out_channels}}, init, FN_ROLE_BIAS);
  return fn_conv(graph, x, w, b, &full);
}

fn_value *fn_layer_conv_transpose(fn_graph *graph, fn_value *x, int64_t out_channels,
                                  const int64_t *kernel, const fn_conv_geometry *geometry,
                                  bool bias) {
  if (!x) return NULL;
  const fn_conv_geometry full = fn_geometry_complete(geometry, fn_spatial(x));
  if (!check_layer(graph, "transposed convolution", x, out_channels, kernel, full.groups)) {
    return NULL;
  }
  int64_t fan_in; // PyTorch counts the second axis here too, the output channels
  const fn_shape shape =
      kernel_shape(fn_dim(x, 1), out_channels / full.groups, kernel, fn_spatial(x), &fan_in);
  const fn_init init = default_init(fan_in);
  fn_value *w = fn_parameter(graph, "weight", &shape, init, FN_ROLE_WEIGHT), *b = NULL;
  if (bias) b = fn_parameter(graph, "bias", &(fn_shape){1, {out_channels}}, init, FN_ROLE_BIAS);
  return fn_conv_transpose(graph, x, w, b, &full, NULL);
}

fn_value *fn_layer_dense(fn_graph *graph, fn_value *x, int64_t out_features, bool bias) {
  if (!x) return NULL;
  if (fn_ndim(x) != 2 || out_features < 1) {
    char text[FN_SHAPE_TEXT];
    fn_graph_fail(
        graph, FN_ERR_CONFIG,
        "dense layer: input is %s with %lld output features, expected [N, F] and at least "
        "one feature",
        fn_shape_text(&x->shape, text, sizeof text), (long long)out_features);
    return NULL;
  }
  const fn_shape shape = {2, {out_features, fn_dim(x, 1)}};
  const fn_init init = default_init(shape.dim[1]);
  fn_value *w = fn_parameter(graph, "weight", &shape, init, FN_ROLE_WEIGHT);
  fn_value *y = fn_matmul(graph, x, w, false, true);
  if (!bias) return y;
  fn_value *b = fn_parameter(graph, "bias", &(fn_shape){1, {out_features}}, init, FN_ROLE_BIAS);
  return fn_add(graph, y, b);
}

/** buffer := (1 - momentum) buffer + momentum statistic after each training run. */
static void track(fn_graph *graph, fn_value *buffer, fn_value *statistic,
                  const fn_running_attrs *attrs) {
  fn_value *const input[] = {statistic, buffer};
  fn_assign(graph, buffer, fn_node_append(graph, &fn_op_running, input, 2, 1, attrs, 0));
}

/** Batch norm with batch statistics whose running averages are kept in the buffers. */
static fn_value *training_norm(fn_graph *graph, fn_value *x, fn_value *scale, fn_value *shift,
                               double eps, double momentum, fn_value *const buffers[3]) {
  const bool sync = fn_graph_get_options(graph)->sync_batch_norm;
  const int64_t count = fn_shape_count(&x->shape) / fn_dim(x, 1);
  if (count < 2 && !sync) {
    char text[FN_SHAPE_TEXT];
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "batch norm: %s has %lld value(s) per channel, training needs at least 2",
                  fn_shape_text(&x->shape, text, sizeof text), (long long)count);
    return NULL;
  }
  fn_value *mean, *var;
  fn_value *y = fn_batch_norm(graph, x, scale, shift, eps, &mean, &var);
  if (!y) return NULL;
  track(graph, buffers[0], mean, &(fn_running_attrs){.momentum = momentum, .sync = sync});
  // The running variance is unbiased, the one that normalises is not.
  track(graph, buffers[1], var,
        &(fn_running_attrs){.momentum = momentum, .count = count, .sync = sync});
  fn_assign(graph, buffers[2], fn_affine(graph, buffers[2], 1, 1));
  return y;
}

fn_value *fn_layer_batch_norm(fn_graph *graph, fn_value *x, double eps, double momentum) {
  if (!x) return NULL;
  const int64_t channels = fn_dim(x, 1);
  if (fn_ndim(x) < 2 || fn_shape_count(&x->shape) < 1) {
    char text[FN_SHAPE_TEXT];
    fn_graph_fail(graph, FN_ERR_CONFIG, "batch norm: input is %s, expected [N, C, s...]",
                  fn_shape_text(&x->shape, text, sizeof text));
    return NULL;
  }
  const fn_shape shape = {1, {channels}}, scalar = {0};
  fn_value *scale = fn_parameter(graph, "weight", &shape, FN_INIT_ONE, FN_ROLE_NORM_SCALE);
  fn_value *shift = fn_parameter(graph, "bias", &shape, FN_INIT_ZERO, FN_ROLE_NORM_SHIFT);
  fn_value *const buffers[] = {
      fn_buffer(graph, "running_mean", &shape, 0),
      fn_buffer(graph, "running_var", &shape, 1),
      fn_buffer(graph, "num_batches_tracked", &scalar, 0),
  };
  if (!scale || !shift || !buffers[0] || !buffers[1] || !buffers[2]) return NULL;
  if (fn_graph_training(graph)) {
    return training_norm(graph, x, scale, shift, eps, momentum, buffers);
  }
  return fn_batch_norm_fixed(graph, x, scale, shift, buffers[0], buffers[1], eps);
}
