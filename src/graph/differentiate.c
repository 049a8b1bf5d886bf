/* Reverse-mode differentiation as a graph pass: gradients are ordinary nodes. */
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"

typedef struct pass {
  fn_graph *graph;
  int value_count, node_count; /**< of the graph before the pass */
  bool *needed;                /**< [value_count]: depends on some x */
  fn_value **gradient;         /**< [value_count]: accumulated so far */
} pass;

static void accumulate(pass *p, fn_value *value, fn_value *gradient) {
  if (!gradient) return;
  fn_value **slot = &p->gradient[value->id];
  *slot = *slot ? fn_add(p->graph, *slot, gradient) : gradient;
}

/** Forward sweep: which values depend on x (gradients elsewhere are never built). */
static void mark_needed(pass *p, fn_value *const *x, int count) {
  for (int i = 0; i < count; i++)
    if (x[i]->id < p->value_count) p->needed[x[i]->id] = true;
  for (int n = 0; n < p->node_count; n++) {
    const fn_node *node = p->graph->node[n];
    bool any = false;
    for (int i = 0; i < node->input_count; i++)
      any |= node->input[i] && p->needed[node->input[i]->id];
    if (!any) continue;
    for (int o = 0; o < node->output_count; o++)
      p->needed[node->output[o]->id] = true;
  }
}

static fn_status backward(pass *p, fn_node *node) {
  fn_value *dy[FN_MAX_PORTS] = {NULL}, *dx[FN_MAX_PORTS] = {NULL};
  bool wanted[FN_MAX_PORTS] = {false}, any = false, any_wanted = false;
  for (int o = 0; o < node->output_count; o++) {
    dy[o] = p->gradient[node->output[o]->id];
    any |= dy[o] != NULL;
  }
  for (int i = 0; i < node->input_count; i++) {
    wanted[i] = node->input[i] && p->needed[node->input[i]->id];
    any_wanted |= wanted[i];
  }
  if (!any || !any_wanted || !node->op->gradient) return FN_OK;
  FN_TRY(node->op->gradient(p->graph, node, dy, wanted, dx));
  FN_TRY(p->graph->status);
  for (int i = 0; i < node->input_count; i++) {
    if (!wanted[i] || !dx[i]) continue;
    if (!fn_shape_equal(&dx[i]->shape, &node->input[i]->shape))
      return fn_graph_fail(p->graph, FN_ERR_INTERNAL, "%s: gradient of input %d has another shape",
                           node->op->name, i);
    if (!dx[i]->label) dx[i]->label = node->output[0]->label;
    accumulate(p, node->input[i], dx[i]);
  }
  return p->graph->status;
}

static fn_status run(pass *p, fn_value *const *y, fn_value *const *seed, int y_count,
                     fn_value *const *x, int count, fn_value **gradient) {
  mark_needed(p, x, count);
  int last = 0;
  for (int i = 0; i < y_count; i++) {
    if (!y[i] || !seed[i])
      return fn_graph_fail(p->graph, FN_ERR_INTERNAL, "nothing to differentiate");
    if (!p->needed[y[i]->id]) continue;
    accumulate(p, y[i], seed[i]);
    if (y[i]->node->id > last) last = y[i]->node->id;
  }
  for (int n = last; n >= 0; n--)
    FN_TRY(backward(p, p->graph->node[n]));
  for (int i = 0; i < count; i++) {
    gradient[i] = p->gradient[x[i]->id];
    if (!gradient[i]) gradient[i] = fn_fill(p->graph, &x[i]->shape, 0);
  }
  return p->graph->status;
}

fn_status fn_differentiate_from(fn_graph *graph, fn_value *const *y, fn_value *const *seed,
                                int y_count, fn_value *const *x, int count, fn_value **gradient) {
  FN_TRY(graph->status);
  for (int i = 0; i < count; i++)
    if (!x[i]) return fn_graph_fail(graph, FN_ERR_INTERNAL, "differentiation by a missing value");
  pass p = {.graph = graph, .value_count = graph->value_count, .node_count = graph->node_count};
  p.needed = calloc((size_t)p.value_count, sizeof *p.needed);
  p.gradient = calloc((size_t)p.value_count, sizeof(fn_value *));
  const fn_status status = p.needed && p.gradient
                               ? run(&p, y, seed, y_count, x, count, gradient)
                               : fn_graph_fail(graph, FN_ERR_MEMORY, "out of memory");
  free(p.needed);
  free(p.gradient);
  return status;
}

fn_status fn_differentiate(fn_graph *graph, fn_value *y, fn_value *const *x, int count,
                           fn_value **gradient) {
  FN_TRY(graph->status);
  if (!y || fn_shape_count(&y->shape) != 1)
    return fn_graph_fail(graph, FN_ERR_INTERNAL, "only a scalar can be differentiated");
  fn_value *seed = fn_fill(graph, &y->shape, 1);
  return fn_differentiate_from(graph, &y, &seed, 1, x, count, gradient);
}
