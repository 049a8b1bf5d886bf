/* Random values inside a graph: standard normals and dropout masks. */
#include "ops/random.h"

#include "graph/graph.h"
#include "ops/ops.h"
#include "ops/walk.h"

static fn_status infer_random(const fn_node *node, fn_shape *shape) {
  const fn_random_attrs *attrs = node->attrs;
  *shape = attrs->shape;
  FN_CHECK(shape->ndim >= 1, FN_ERR_CONFIG, "%s: axis 0 must be the sample, found a scalar",
           node->op->name);
  FN_CHECK(attrs->index < 4096, FN_ERR_CONFIG, "a graph can hold 4096 random nodes");
  return FN_OK;
}

static fn_status reference_random(const fn_node *node, double *out, const fn_run_context *context) {
  const fn_random_attrs *attrs = node->attrs;
  const bool normal = node->op == &fn_op_normal;
  const int64_t rows = attrs->shape.dim[0], cells = fn_shape_count(&attrs->shape) / rows;
  for (int64_t n = 0; n < rows; n++) {
    const fn_philox_stream stream = fn_random_element_stream(
        context, normal ? FN_RANDOM_NOISE : FN_RANDOM_DROPOUT, n, attrs->index);
    for (int64_t e = 0; e < cells; e += 2) {
      double pair[2];
      if (normal)
        fn_random_element_normals(&stream, (uint32_t)(e / 2), pair);
      else
        fn_random_element_masks(&stream, (uint32_t)(e / 2), attrs->p, pair);
      for (int i = 0; i < 2 && e + i < cells; i++)
        out[n * cells + e + i] = pair[i];
    }
  }
  return FN_OK;
}

static fn_status reference(const fn_node *node, const double *const *in, double *const *out,
                           const fn_run_context *context) {
  (void)in;
  return reference_random(node, out[0], context);
}

const fn_op fn_op_normal = {.name = "normal",
                            .attrs_size = sizeof(fn_random_attrs),
                            .flags = FN_OP_RANDOM,
                            .infer = infer_random,
                            .reference = reference};

const fn_op fn_op_dropout_mask = {.name = "dropout_mask",
                                  .attrs_size = sizeof(fn_random_attrs),
                                  .flags = FN_OP_RANDOM,
                                  .infer = infer_random,
                                  .reference = reference};

/** Append a random node numbered by how many there are before it. */
static fn_value *append_random(fn_graph *graph, const fn_op *op, const fn_shape *shape, double p) {
  fn_random_attrs attrs = {.shape = *shape, .p = p};
  for (int i = 0; i < fn_graph_node_count(graph); i++)
    attrs.index += (fn_graph_node(graph, i)->op->flags & FN_OP_RANDOM) != 0;
  return fn_node_append(graph, op, NULL, 0, 1, &attrs, 0);
}

fn_value *fn_dropout(fn_graph *graph, fn_value *x, double p) {
  if (!x) return NULL;
  if (!(p >= 0 && p < 1)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "dropout: expected a probability in [0, 1), found %g", p);
    return NULL;
  }
  if (!fn_graph_training(graph) || p == 0) return x;
  return fn_mul(graph, x, append_random(graph, &fn_op_dropout_mask, &x->shape, p));
}

fn_value *fn_normal(fn_graph *graph, const fn_shape *shape) {
  return append_random(graph, &fn_op_normal, shape, 0);
}
