/* Batch normalisation (Ioffe & Szegedy 2015, algorithm 1), its gradient and running statistics. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "ops/geometry.h"
#include "ops/ops.h"

enum { CHANNEL_BIT = 1u << 1 };

/** Inputs of the two operators. */
enum { X, SCALE, SHIFT, RESIDUAL, MEAN, VAR, NORM_INPUTS };
enum { GRAD_DY, GRAD_X, GRAD_SCALE, GRAD_MEAN, GRAD_VAR, GRAD_Y, GRAD_INPUTS, GRAD_LINE = 6 };

static fn_status check_channels(const char *what, const char *name, const fn_value *value,
                                int64_t channels) {
  if (!value) return FN_OK;
  return fn_shape_check(what, name, &value->shape, &(fn_shape){1, {channels}});
}

static fn_status check_like(const char *what, const char *name, const fn_value *value,
                            const fn_shape *like) {
  return value ? fn_shape_check(what, name, &value->shape, like) : FN_OK;
}

static fn_status check_input(const char *what, const fn_shape *x) {
  char text[FN_SHAPE_TEXT];
  FN_CHECK(x->ndim >= 2 && fn_shape_count(x) > 0, FN_ERR_CONFIG,
           "%s: input is %s, expected [N, C, s...] with at least one value per channel", what,
           fn_shape_text(x, text, sizeof text));
  return FN_OK;
}

static fn_status norm_infer(const fn_node *node, fn_shape *shape) {
  const char *what = "batch norm";
  const fn_batch_norm_attrs *attrs = node->attrs;
  const fn_shape *x = &node->input[X]->shape;
  FN_TRY(check_input(what, x));
  FN_TRY(check_channels(what, "scale", node->input[SCALE], x->dim[1]));
  FN_TRY(check_channels(what, "shift", node->input[SHIFT], x->dim[1]));
  FN_TRY(check_like(what, "residual", node->input[RESIDUAL], x));
  FN_TRY(check_channels(what, "mean", node->input[MEAN], x->dim[1]));
  FN_TRY(check_channels(what, "variance", node->input[VAR], x->dim[1]));
  const bool given = node->input[MEAN] && node->input[VAR];
  const bool absent = !node->input[MEAN] && !node->input[VAR];
  FN_CHECK(attrs->fixed ? given : absent, FN_ERR_CONFIG,
           "%s: mean and variance are inputs when fixed and only then", what);
  shape[0] = *x;
  shape[1] = shape[2] = (fn_shape){1, {x->dim[1]}};
  if (node->output_count > 3) shape[3] = (fn_shape){1, {2 * x->dim[1]}};
  return FN_OK;
}

/** The line that takes the place of y; NULL without one. */
static const fn_value *line_of(const fn_node *grad) {
  return grad->input_count > GRAD_LINE ? grad->input[GRAD_LINE] : NULL;
}

static fn_status grad_infer(const fn_node *node, fn_shape *shape) {
  const char *what = "gradient of batch norm";
  const fn_batch_norm_attrs *attrs = node->attrs;
  const fn_shape *x = &node->input[GRAD_X]->shape;
  FN_TRY(check_input(what, x));
  FN_TRY(check_like(what, "output gradient", node->input[GRAD_DY], x));
  FN_TRY(check_channels(what, "scale", node->input[GRAD_SCALE], x->dim[1]));
  FN_TRY(check_channels(what, "mean", node->input[GRAD_MEAN], x->dim[1]));
  FN_TRY(check_channels(what, "variance", node->input[GRAD_VAR], x->dim[1]));
  FN_TRY(check_like(what, "output", node->input[GRAD_Y], x));
  FN_TRY(line_of(node)
             ? fn_shape_check(what, "line", &line_of(node)->shape, &(fn_shape){1, {2 * x->dim[1]}})
             : FN_OK);
  FN_CHECK(attrs->slope == 1 || node->input[GRAD_Y] || line_of(node), FN_ERR_CONFIG,
           "%s: the output is needed to undo an activation of slope %g", what, attrs->slope);
  shape[0] = shape[3] = *x;
  shape[1] = shape[2] = (fn_shape){1, {x->dim[1]}};
  return FN_OK;
}

/* ---- gradients ---------------------------------------------------------------------------------
 */

/** d / d mean = -scale / std dshift and d / d var = -dscale scale / (2 (var + eps)), [C]. */
static void fixed_gradient(fn_graph *graph, const fn_node *node, fn_node *grad, const bool *wanted,
                           fn_value **dx) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  fn_value *scale = node->input[SCALE];
  fn_value *shifted = fn_affine(graph, node->input[VAR], 1, attrs->eps);
  if (wanted[MEAN]) {
    fn_value *weight = fn_div(graph, scale, fn_sqrt(graph, shifted));
    dx[MEAN] = fn_affine(graph, fn_mul(graph, grad->output[2], weight), -1, 0);
  }
  if (wanted[VAR]) {
    fn_value *weight = fn_div(graph, scale, shifted);
    dx[VAR] = fn_affine(graph, fn_mul(graph, grad->output[1], weight), -0.5, 0);
  }
}

/** Gradient through output 0. */
static void result_gradient(fn_graph *graph, fn_node *node, fn_value *dy, const bool *wanted,
                            fn_value **dx) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  fn_value *mean = attrs->fixed ? node->input[MEAN] : node->output[1];
  fn_value *var = attrs->fixed ? node->input[VAR] : node->output[2];
  fn_value *y = attrs->slope == 1 ? NULL : node->output[0];
  fn_value *const input[GRAD_INPUTS] = {dy, node->input[X], node->input[SCALE], mean, var, y};
  fn_value *first =
      fn_node_append(graph, &fn_op_batch_norm_grad, input, GRAD_INPUTS, 4, attrs, 1u << GRAD_Y);
  if (!first) return;
  fn_node *grad = first->node;
  if (wanted[X]) dx[X] = grad->output[0];
  if (wanted[SCALE]) dx[SCALE] = grad->output[1];
  if (wanted[SHIFT]) dx[SHIFT] = grad->output[2];
  if (node->input[RESIDUAL] && wanted[RESIDUAL]) {
    dx[RESIDUAL] = attrs->slope == 1 ? dy : grad->output[3];
  }
  if (attrs->fixed) fixed_gradient(graph, node, grad, wanted, dx);
}

/** Batch statistics are a by-product that is not differentiated; given ones are copied through. */
static fn_status norm_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                               const bool *wanted, fn_value **dx) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  if (dy[0]) result_gradient(graph, node, dy[0], wanted, dx);
  for (int o = 1; o < 3 && attrs->fixed; o++) {
    const int i = o == 1 ? MEAN : VAR;
    if (dy[o] && wanted[i]) dx[i] = dx[i] ? fn_add(graph, dx[i], dy[o]) : dy[o];
  }
  return fn_graph_status(graph);
}

/** A new value equal to x: differentiating with respect to it leaves out how other inputs of the
 *  node depend on x, and further derivatives still reach x. */
static fn_value *detour(fn_graph *graph, fn_value *x) {
  const fn_unary_attrs attrs = {.kind = FN_IDENTITY};
  return fn_node_append(graph, &fn_op_unary, &x, 1, 1, &attrs, 0);
}

/** [C] -> [1, C, 1...] with the axes of like. */
static fn_value *column(fn_graph *graph, fn_value *values, const fn_value *like) {
  if (!values || !like) return NULL;
  fn_shape shape = {.ndim = fn_ndim(like)};
  for (int axis = 0; axis < shape.ndim; axis++)
    shape.dim[axis] = axis == 1 ? fn_dim(like, 1) : 1;
  return fn_reshape(graph, values, &shape);
}

/** The four outputs of batch_norm_grad again from elementary operators; in: its inputs. */
static void rebuild_grad(fn_graph *graph, const fn_batch_norm_attrs *attrs, fn_value *const *in,
                         fn_value *out[4]) {
  const unsigned axes = FN_ALL_AXES & ~(unsigned)CHANNEL_BIT;
  fn_value *x = in[GRAD_X];
  fn_value *mean = attrs->fixed ? column(graph, in[GRAD_MEAN], x) : fn_mean(graph, x, axes, true);
  fn_value *centred = fn_sub(graph, x, mean);
  fn_value *var = attrs->fixed ? column(graph, in[GRAD_VAR], x)
                               : fn_mean(graph, fn_square(graph, centred), axes, true);
  fn_value *std = fn_sqrt(graph, fn_affine(graph, var, 1, attrs->eps));
  fn_value *normal = fn_div(graph, centred, std);
  fn_value *g =
      attrs->slope == 1 ? in[GRAD_DY] : fn_leaky_grad(graph, in[GRAD_DY], in[GRAD_Y], attrs->slope);
  fn_value *g_normal = fn_mul(graph, g, normal);
  fn_value *inner = g;
  if (!attrs->fixed) {
    fn_value *along = fn_mul(graph, normal, fn_mean(graph, g_normal, axes, true));
    inner = fn_sub(graph, fn_sub(graph, g, fn_mean(graph, g, axes, true)), along);
  }
  out[0] = fn_mul(graph, inner, fn_div(graph, column(graph, in[GRAD_SCALE], x), std));
  out[1] = fn_sum(graph, g_normal, axes, false);
  out[2] = fn_sum(graph, g, axes, false);
  out[3] = g;
}

/** Unless fixed, mean and var are functions of x: their share goes to x, none to themselves. */
static fn_status grad_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                               const bool *wanted, fn_value **dx) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  if (attrs->sync && !attrs->fixed) {
    return fn_graph_fail(graph, FN_ERR_UNSUPPORTED,
                         "second derivative of synchronised batch norm is not available; use "
                         "statistics per rank (sync_batch_norm: false)");
  }
  if (line_of(node))
    return fn_graph_fail(
        graph, FN_ERR_INTERNAL,
        "gradient of batch norm: it can be differentiated with y, not with a line");
  const int differentiable = attrs->fixed ? GRAD_Y : GRAD_MEAN;
  fn_value *in[GRAD_INPUTS], *out[4], *y[4], *seed[4], *target[GRAD_INPUTS];
  fn_value *gradient[GRAD_INPUTS] = {0};
  int y_count = 0, target_count = 0;
  for (int i = 0; i < GRAD_INPUTS; i++) {
    in[i] = i < differentiable ? detour(graph, node->input[i]) : node->input[i];
    if (i < differentiable && wanted[i]) target[target_count++] = in[i];
  }
  rebuild_grad(graph, attrs, in, out);
  for (int i = 0; i < 4; i++) {
    if (!dy[i]) continue;
    y[y_count] = out[i];
    seed[y_count++] = dy[i];
  }
  FN_TRY(fn_graph_status(graph));
  if (y_count == 0 || target_count == 0) return FN_OK;
  FN_TRY(fn_differentiate_from(graph, y, seed, y_count, target, target_count, gradient));
  for (int i = 0, t = 0; i < differentiable; i++) {
    if (wanted[i]) dx[i] = gradient[t++];
  }
  return FN_OK;
}

/* ---- reference kernels -------------------------------------------------------------------------
 */

/** The loop sizes of [N, C, space]. */
typedef struct layout {
  int64_t batch, channels, space;
  bool threads; // enough to do
} layout;

static layout layout_of(const fn_node *node, const fn_shape *shape) {
  layout l = {shape->dim[0], shape->dim[1], 1, fn_worth_threads(node)};
  for (int d = 2; d < shape->ndim; d++)
    l.space *= shape->dim[d];
  return l;
}

static fn_status allocate(int64_t count, double **values) {
  *values = malloc((size_t)count * sizeof **values);
  FN_CHECK(*values, FN_ERR_MEMORY, "batch norm: no memory for %lld sums", (long long)count);
  return FN_OK;
}

/** Sum over ranks when the node is synchronised. Collective then. */
static fn_status sum_ranks(bool sync, const fn_run_context *context, double *values,
                           int64_t count) {
  if (!sync || !context || !context->collectives) return FN_OK;
  return context->collectives->sum(context->collectives->self, values, count);
}

/** Mean and biased variance per channel; two passes, the second about the mean of all ranks.
 *  sums [C + 1] is scratch. */
static fn_status statistics(const layout *l, const double *x, bool sync,
                            const fn_run_context *context, double *sums, double *mean,
                            double *var) {
  const int64_t channels = l->channels;
#pragma omp parallel for if (l->threads)
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0;
    for (int64_t n = 0; n < l->batch; n++) {
      const double *cells = x + (n * channels + c) * l->space;
      for (int64_t i = 0; i < l->space; i++)
        sum += cells[i];
    }
    sums[c] = sum;
  }
  sums[channels] = (double)(l->batch * l->space);
  FN_TRY(sum_ranks(sync, context, sums, channels + 1));
  const double count = sums[channels];
  for (int64_t c = 0; c < channels; c++)
    mean[c] = sums[c] / count;
#pragma omp parallel for if (l->threads)
  for (int64_t c = 0; c < channels; c++) {
    double sum = 0;
    for (int64_t n = 0; n < l->batch; n++) {
      const double *cells = x + (n * channels + c) * l->space;
      for (int64_t i = 0; i < l->space; i++)
        sum += (cells[i] - mean[c]) * (cells[i] - mean[c]);
    }
    var[c] = sum;
  }
  FN_TRY(sum_ranks(sync, context, var, channels));
  for (int64_t c = 0; c < channels; c++)
    var[c] /= count;
  return FN_OK;
}

static void normalise(const layout *l, const fn_batch_norm_attrs *attrs, const double *const *in,
                      const double *mean, const double *var, double *y) {
#pragma omp parallel for collapse(2) if (l->threads)
  for (int64_t n = 0; n < l->batch; n++) {
    for (int64_t c = 0; c < l->channels; c++) {
      const double factor = in[SCALE][c] / sqrt(var[c] + attrs->eps);
      const int64_t start = (n * l->channels + c) * l->space;
      for (int64_t i = start; i < start + l->space; i++) {
        double value = (in[X][i] - mean[c]) * factor + in[SHIFT][c];
        if (in[RESIDUAL]) value += in[RESIDUAL][i];
        y[i] = value > 0 ? value : attrs->slope * value;
      }
    }
  }
}

/** line [2 C], for a mean that is rounded to f32. */
static void store_line(const layout *l, const fn_batch_norm_attrs *attrs, const double *const *in,
                       const double *mean, const double *var, double *line) {
  for (int64_t c = 0; c < l->channels; c++) {
    const double a = in[SCALE][c] / sqrt(var[c] + attrs->eps);
    line[c] = a;
    line[l->channels + c] = in[SHIFT][c] + ((double)(float)mean[c] - mean[c]) * a;
  }
}

void fn_round_statistics(double *values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    values[i] = (double)(float)values[i];
}

static fn_status norm_reference(const fn_node *node, const double *const *in, double *const *out,
                                const fn_run_context *context) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  const layout l = layout_of(node, &node->input[X]->shape);
  const size_t bytes = (size_t)l.channels * sizeof(double);
  const double *mean = in[MEAN], *var = in[VAR];
  double *scratch = NULL;
  fn_status status = FN_OK;
  if (!attrs->fixed) {
    FN_TRY(allocate(3 * l.channels + 1, &scratch));
    mean = scratch + l.channels + 1;
    var = mean + l.channels;
    status = statistics(&l, in[X], attrs->sync, context, scratch, scratch + l.channels + 1,
                        scratch + 2 * l.channels + 1);
    if (attrs->sync) fn_round_statistics(scratch + l.channels + 1, 2 * l.channels);
  }
  if (status == FN_OK) {
    normalise(&l, attrs, in, mean, var, out[0]);
    if (out[1]) memcpy(out[1], mean, bytes);
    if (out[2]) memcpy(out[2], var, bytes);
    if (node->output_count > 3 && out[3]) store_line(&l, attrs, in, mean, var, out[3]);
  }
  free(scratch);
  return status;
}

/** Gradient before the activation at element i of channel c; line may be NULL. */
static double before_activation(const layout *l, const fn_batch_norm_attrs *attrs,
                                const double *const *in, const double *line, int64_t c, int64_t i) {
  if (attrs->slope == 1) return in[GRAD_DY][i];
  const double y =
      line ? (in[GRAD_X][i] - (double)(float)in[GRAD_MEAN][c]) * line[c] + line[l->channels + c]
           : in[GRAD_Y][i];
  return y > 0 ? in[GRAD_DY][i] : attrs->slope * in[GRAD_DY][i];
}

/** sums: [C] of g and [C] of g (x - mean) / std. */
static void gradient_sums(const layout *l, const fn_batch_norm_attrs *attrs,
                          const double *const *in, const double *line, double *sums) {
#pragma omp parallel for if (l->threads)
  for (int64_t c = 0; c < l->channels; c++) {
    const double mean = in[GRAD_MEAN][c], rate = 1 / sqrt(in[GRAD_VAR][c] + attrs->eps);
    double sum = 0, along = 0;
    for (int64_t n = 0; n < l->batch; n++) {
      const int64_t start = (n * l->channels + c) * l->space;
      for (int64_t i = start; i < start + l->space; i++) {
        const double g = before_activation(l, attrs, in, line, c, i);
        sum += g;
        along += g * (in[GRAD_X][i] - mean) * rate;
      }
    }
    sums[c] = sum;
    sums[l->channels + c] = along;
  }
}

/** dx and dresidual from the sums over all ranks and their count. */
static void gradient_values(const layout *l, const fn_batch_norm_attrs *attrs,
                            const double *const *in, const double *line, const double *sums,
                            double count, double *const *out) {
#pragma omp parallel for collapse(2) if (l->threads)
  for (int64_t n = 0; n < l->batch; n++) {
    for (int64_t c = 0; c < l->channels; c++) {
      const double mean = in[GRAD_MEAN][c], rate = 1 / sqrt(in[GRAD_VAR][c] + attrs->eps);
      const double average = attrs->fixed ? 0 : sums[c] / count;
      const double along = attrs->fixed ? 0 : sums[l->channels + c] / count;
      const int64_t start = (n * l->channels + c) * l->space;
      for (int64_t i = start; i < start + l->space; i++) {
        const double g = before_activation(l, attrs, in, line, c, i);
        const double normal = (in[GRAD_X][i] - mean) * rate;
        if (out[0]) out[0][i] = (g - average - normal * along) * rate * in[GRAD_SCALE][c];
        if (out[3]) out[3][i] = g;
      }
    }
  }
}

static fn_status grad_reference(const fn_node *node, const double *const *in, double *const *out,
                                const fn_run_context *context) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  const layout l = layout_of(node, &node->input[GRAD_X]->shape);
  const size_t bytes = (size_t)l.channels * sizeof(double);
  const double *line = line_of(node) ? in[GRAD_LINE] : NULL;
  double *sums;
  FN_TRY(allocate(2 * l.channels + 1, &sums));
  gradient_sums(&l, attrs, in, line, sums);
  if (out[1]) memcpy(out[1], sums + l.channels, bytes);
  if (out[2]) memcpy(out[2], sums, bytes);
  sums[2 * l.channels] = (double)(l.batch * l.space);
  const fn_status status =
      sum_ranks(attrs->sync && !attrs->fixed, context, sums, 2 * l.channels + 1);
  if (status == FN_OK) gradient_values(&l, attrs, in, line, sums, sums[2 * l.channels], out);
  free(sums);
  return status;
}

static double norm_flops(const fn_node *node) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  // statistics: a sum; a difference, a square and a sum. Result: a product and a sum.
  const double each =
      (attrs->fixed ? 2 : 6) + (node->input[RESIDUAL] ? 1 : 0) + (attrs->slope != 1);
  return each * (double)fn_shape_count(&node->input[X]->shape);
}

static double grad_flops(const fn_node *node) {
  const fn_batch_norm_attrs *attrs = node->attrs;
  // sums: one addition and (difference, two products, addition); dx: see gradient_values.
  const double each = (attrs->fixed ? 7 : 12) + (attrs->slope != 1);
  return each * (double)fn_shape_count(&node->input[GRAD_X]->shape);
}

const fn_op fn_op_batch_norm = {
    .name = "batch_norm",
    .attrs_size = sizeof(fn_batch_norm_attrs),
    .flags = FN_OP_FOLLOWS_BF16,
    .infer = norm_infer,
    .gradient = norm_gradient,
    .reference = norm_reference,
    .flops = norm_flops,
};

const fn_op fn_op_batch_norm_grad = {
    .name = "batch_norm_grad",
    .attrs_size = sizeof(fn_batch_norm_attrs),
    .flags = FN_OP_FOLLOWS_BF16,
    .infer = grad_infer,
    .gradient = grad_gradient,
    .reference = grad_reference,
    .flops = grad_flops,
};

/* ---- running statistics ------------------------------------------------------------------------
 */

static fn_status running_infer(const fn_node *node, fn_shape *shape) {
  const fn_shape *batch = &node->input[0]->shape;
  char text[FN_SHAPE_TEXT];
  FN_CHECK(batch->ndim == 1, FN_ERR_CONFIG,
           "running statistics: batch statistic is %s, expected [C]",
           fn_shape_text(batch, text, sizeof text));
  FN_TRY(check_channels("running statistics", "running value", node->input[1], batch->dim[0]));
  shape[0] = *batch;
  return FN_OK;
}

static fn_status running_reference(const fn_node *node, const double *const *in, double *const *out,
                                   const fn_run_context *context) {
  const fn_running_attrs *attrs = node->attrs;
  double factor = 1, count = (double)attrs->count;
  if (attrs->count > 0) {
    FN_TRY(sum_ranks(attrs->sync, context, &count, 1));
    if (count > 1) factor = count / (count - 1);
  }
  const int64_t channels = node->output[0]->shape.dim[0];
  for (int64_t c = 0; c < channels; c++) {
    out[0][c] = (1 - attrs->momentum) * in[1][c] + attrs->momentum * factor * in[0][c];
  }
  return FN_OK;
}

const fn_op fn_op_running = {
    .name = "running",
    .attrs_size = sizeof(fn_running_attrs),
    .infer = running_infer,
    .reference = running_reference,
};

/* ---- builders ----------------------------------------------------------------------------------
 */

fn_value *fn_batch_norm(fn_graph *graph, fn_value *x, fn_value *scale, fn_value *shift, double eps,
                        fn_value **mean, fn_value **var) {
  if (mean) *mean = NULL;
  if (var) *var = NULL;
  if (!x || !scale || !shift) return NULL;
  const fn_batch_norm_attrs attrs = {
      .eps = eps, .slope = 1, .sync = fn_graph_get_options(graph)->sync_batch_norm};
  fn_value *const input[NORM_INPUTS] = {x, scale, shift};
  const unsigned optional = 1u << RESIDUAL | 1u << MEAN | 1u << VAR;
  fn_value *y = fn_node_append(graph, &fn_op_batch_norm, input, NORM_INPUTS, 3, &attrs, optional);
  if (y && mean) *mean = y->node->output[1];
  if (y && var) *var = y->node->output[2];
  return y;
}

fn_value *fn_batch_norm_fixed(fn_graph *graph, fn_value *x, fn_value *scale, fn_value *shift,
                              fn_value *mean, fn_value *var, double eps) {
  if (!x || !scale || !shift || !mean || !var) return NULL;
  const fn_batch_norm_attrs attrs = {.eps = eps, .slope = 1, .fixed = true};
  fn_value *const input[NORM_INPUTS] = {x, scale, shift, NULL, mean, var};
  return fn_node_append(graph, &fn_op_batch_norm, input, NORM_INPUTS, 3, &attrs, 1u << RESIDUAL);
}
