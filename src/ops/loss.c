/* Losses, built from other operators so that gradients and backends come for free, and log softmax.
 */
#include <math.h>

#include "ops/ops.h"
#include "ops/walk.h"

/* ---- log softmax
 * ------------------------------------------------------------------------------------ */

static fn_status infer_log_softmax(const fn_node *node, fn_shape *shape) {
  char text[96];
  *shape = node->input[0]->shape;
  FN_CHECK(shape->ndim >= 2, FN_ERR_CONFIG, "log_softmax: expected [N, C, ...], found %s",
           fn_shape_text(shape, text, sizeof text));
  return FN_OK;
}

static fn_status gradient_log_softmax(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                      const bool *wanted, fn_value **dx) {
  if (!wanted[0] || !dy[0]) return FN_OK;
  fn_value *softmax = fn_exp(graph, node->output[0]);
  fn_value *total = fn_sum(graph, dy[0], 1u << 1, true);
  dx[0] = fn_sub(graph, dy[0], fn_mul(graph, softmax, total));
  return fn_graph_status(graph);
}

static void log_softmax(const double *x, int64_t channels, int64_t stride, double *y) {
  double peak = x[0], sum = 0;
  for (int64_t c = 1; c < channels; c++)
    peak = fmax(peak, x[c * stride]);
  for (int64_t c = 0; c < channels; c++)
    sum += exp(x[c * stride] - peak);
  const double shift = peak + log(sum);
  for (int64_t c = 0; c < channels; c++)
    y[c * stride] = x[c * stride] - shift;
}

static fn_status reference_log_softmax(const fn_node *node, const double *const *in,
                                       double *const *out, const fn_run_context *context) {
  (void)context;
  const fn_shape *shape = &node->output[0]->shape;
  const int64_t channels = shape->dim[1];
  const int64_t cells = fn_shape_count(shape) / (shape->dim[0] * channels);
  for (int64_t n = 0; n < shape->dim[0]; n++)
    for (int64_t s = 0; s < cells; s++) {
      const int64_t first = n * channels * cells + s;
      log_softmax(in[0] + first, channels, cells, out[0] + first);
    }
  return FN_OK;
}

/** A maximum, a difference, an exponential, a sum and the final difference per element. */
static double flops_log_softmax(const fn_node *node) {
  return 5.0 * (double)fn_shape_count(&node->output[0]->shape);
}

const fn_op fn_op_log_softmax = {.name = "log_softmax",
                                 .infer = infer_log_softmax,
                                 .gradient = gradient_log_softmax,
                                 .reference = reference_log_softmax,
                                 .flops = flops_log_softmax};

/* ---- losses
 * ------------------------------------------------------------------------------------------- */

/** Whether both values are there and of one shape: silent broadcasting hides mistakes here. */
static bool comparable(fn_graph *graph, const char *name, const fn_value *x,
                       const fn_value *target) {
  char tx[96], tt[96];
  if (!x || !target) return false;
  if (fn_shape_equal(&x->shape, &target->shape)) return true;
  fn_graph_fail(graph, FN_ERR_CONFIG, "%s: output %s and target %s must have the same shape", name,
                fn_shape_text(&x->shape, tx, sizeof tx),
                fn_shape_text(&target->shape, tt, sizeof tt));
  return false;
}

fn_value *fn_mse(fn_graph *graph, fn_value *x, fn_value *target) {
  if (!comparable(graph, "mse", x, target)) return NULL;
  return fn_mean(graph, fn_square(graph, fn_sub(graph, x, target)), FN_ALL_AXES, false);
}

fn_value *fn_l1(fn_graph *graph, fn_value *x, fn_value *target) {
  if (!comparable(graph, "l1", x, target)) return NULL;
  return fn_mean(graph, fn_abs(graph, fn_sub(graph, x, target)), FN_ALL_AXES, false);
}

fn_value *fn_huber(fn_graph *graph, fn_value *x, fn_value *target, double delta) {
  if (!comparable(graph, "huber", x, target)) return NULL;
  if (!(delta > 0)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "huber: expected delta > 0, found %g", delta);
    return NULL;
  }
  // With c = min(|d|, delta) both branches are c (|d| - c / 2).
  fn_value *d = fn_abs(graph, fn_sub(graph, x, target));
  fn_value *c = d ? fn_minimum(graph, d, fn_fill(graph, &(fn_shape){.ndim = 0}, delta)) : NULL;
  fn_value *each = fn_mul(graph, c, fn_sub(graph, d, fn_affine(graph, c, 0.5, 0)));
  return fn_mean(graph, each, FN_ALL_AXES, false);
}

fn_value *fn_bce_with_logits(fn_graph *graph, fn_value *x, fn_value *target) {
  if (!comparable(graph, "bce_with_logits", x, target)) return NULL;
  // max(x, 0) + log(1 + e^-|x|) is softplus(x), whose gradient is exact at x = 0 too.
  fn_value *each = fn_sub(graph, fn_softplus(graph, x), fn_mul(graph, x, target));
  return fn_mean(graph, each, FN_ALL_AXES, false);
}

fn_value *fn_cross_entropy(fn_graph *graph, fn_value *x, fn_value *target) {
  if (!comparable(graph, "cross_entropy", x, target)) return NULL;
  fn_value *log_p = fn_node_append(graph, &fn_op_log_softmax, &x, 1, 1, NULL, 0);
  fn_value *sum = fn_sum(graph, fn_mul(graph, target, log_p), FN_ALL_AXES, false);
  if (!sum) return NULL;
  const int64_t terms = fn_shape_count(&x->shape) / x->shape.dim[1];
  return fn_affine(graph, sum, -1.0 / (double)terms, 0);
}
