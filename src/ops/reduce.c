/* Sums over axes and their adjoint, repetition along axes. */
#include <string.h>

#include "ops/ops.h"
#include "ops/walk.h"

/* ---- sum
 * ------------------------------------------------------------------------------------------ */

/** Shape of a sum over `axes` of x; summed axes have size 1 or are left out. */
static fn_shape reduced_shape(const fn_shape *x, unsigned axes, bool keep) {
  fn_shape shape = {.ndim = 0};
  for (int a = 0; a < x->ndim; a++) {
    if (!(axes >> a & 1))
      shape.dim[shape.ndim++] = x->dim[a];
    else if (keep)
      shape.dim[shape.ndim++] = 1;
  }
  return shape;
}

static fn_status infer_sum(const fn_node *node, fn_shape *shape) {
  const fn_reduce_attrs *attrs = node->attrs;
  *shape = reduced_shape(&node->input[0]->shape, attrs->axes, attrs->keep);
  return FN_OK;
}

static fn_status gradient_sum(fn_graph *graph, fn_node *node, fn_value *const *dy,
                              const bool *wanted, fn_value **dx) {
  const fn_reduce_attrs *attrs = node->attrs;
  const fn_shape *x = &node->input[0]->shape;
  const fn_shape kept = reduced_shape(x, attrs->axes, true);
  if (wanted[0] && dy[0]) dx[0] = fn_broadcast(graph, fn_reshape(graph, dy[0], &kept), x);
  return fn_graph_status(graph);
}

static fn_status reference_sum(const fn_node *node, const double *const *in, double *const *out,
                               const fn_run_context *context) {
  (void)context;
  const fn_reduce_attrs *attrs = node->attrs;
  fn_walk walk = {.shape = node->input[0]->shape};
  const fn_shape kept = reduced_shape(&walk.shape, attrs->axes, true);
  fn_broadcast_strides(&kept, &walk.shape, walk.stride[0]);
  memset(out[0], 0, (size_t)fn_shape_count(&kept) * sizeof(double));
  const double *x = in[0];
  do
    out[0][walk.offset[0]] += *x++;
  while (fn_walk_next(&walk));
  return FN_OK;
}

static double flops_sum(const fn_node *node) {
  return (double)fn_shape_count(&node->input[0]->shape);
}

const fn_op fn_op_sum = {.name = "sum",
                         .attrs_size = sizeof(fn_reduce_attrs),
                         .infer = infer_sum,
                         .gradient = gradient_sum,
                         .reference = reference_sum,
                         .flops = flops_sum};

fn_value *fn_sum(fn_graph *graph, fn_value *x, unsigned axes, bool keep) {
  if (!x) return NULL;
  axes &= (1u << x->shape.ndim) - 1;
  if (axes == 0) return x;
  const fn_reduce_attrs attrs = {.axes = axes, .keep = keep};
  return fn_node_append(graph, &fn_op_sum, &x, 1, 1, &attrs, 0);
}

fn_value *fn_mean(fn_graph *graph, fn_value *x, unsigned axes, bool keep) {
  fn_value *sum = fn_sum(graph, x, axes, keep);
  if (!sum) return NULL;
  const int64_t terms = fn_shape_count(&x->shape) / fn_shape_count(&sum->shape);
  return fn_affine(graph, sum, 1.0 / (double)terms, 0);
}

fn_value *fn_sum_to(fn_graph *graph, fn_value *x, const fn_shape *shape) {
  if (!x || fn_shape_equal(&x->shape, shape)) return x;
  const int lead = x->shape.ndim - shape->ndim;
  unsigned axes = 0;
  bool ok = lead >= 0;
  for (int a = 0; ok && a < x->shape.ndim; a++) {
    const bool summed = a < lead || (shape->dim[a - lead] == 1 && x->shape.dim[a] != 1);
    ok = summed || x->shape.dim[a] == shape->dim[a - lead];
    axes |= summed ? 1u << a : 0;
  }
  if (!ok) {
    char tx[96], ty[96];
    fn_graph_fail(graph, FN_ERR_INTERNAL, "%s is no broadcast of %s",
                  fn_shape_text(&x->shape, tx, sizeof tx), fn_shape_text(shape, ty, sizeof ty));
    return NULL;
  }
  return fn_reshape(graph, fn_sum(graph, x, axes, lead == 0), shape);
}

/* ---- broadcast
 * ------------------------------------------------------------------------------------ */

static fn_status infer_broadcast(const fn_node *node, fn_shape *shape) {
  const fn_shape *x = &node->input[0]->shape;
  char tx[96], ty[96];
  *shape = ((const fn_reshape_attrs *)node->attrs)->shape;
  const int lead = shape->ndim - x->ndim;
  bool ok = lead >= 0;
  for (int a = 0; ok && a < x->ndim; a++)
    ok = x->dim[a] == 1 || x->dim[a] == shape->dim[a + lead];
  FN_CHECK(ok, FN_ERR_CONFIG, "broadcast: %s cannot be repeated to %s",
           fn_shape_text(x, tx, sizeof tx), fn_shape_text(shape, ty, sizeof ty));
  return FN_OK;
}

static fn_status gradient_broadcast(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                    const bool *wanted, fn_value **dx) {
  if (wanted[0] && dy[0]) dx[0] = fn_sum_to(graph, dy[0], &node->input[0]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_broadcast(const fn_node *node, const double *const *in,
                                     double *const *out, const fn_run_context *context) {
  (void)context;
  fn_walk walk = {.shape = node->output[0]->shape};
  fn_broadcast_strides(&node->input[0]->shape, &walk.shape, walk.stride[0]);
  double *y = out[0];
  do
    *y++ = in[0][walk.offset[0]];
  while (fn_walk_next(&walk));
  return FN_OK;
}

const fn_op fn_op_broadcast = {.name = "broadcast",
                               .attrs_size = sizeof(fn_reshape_attrs),
                               .infer = infer_broadcast,
                               .gradient = gradient_broadcast,
                               .reference = reference_broadcast,
                               .flops = fn_flops_none};

fn_value *fn_broadcast(fn_graph *graph, fn_value *x, const fn_shape *shape) {
  double constant;
  if (!x || fn_shape_equal(&x->shape, shape)) return x;
  if (fn_is_constant(x, &constant)) return fn_fill(graph, shape, constant);
  return fn_node_append(graph, &fn_op_broadcast, &x, 1, 1, &(fn_reshape_attrs){*shape}, 0);
}
