/* Rewrites of the graph. Each rewrite turns the last node of a pattern into the merged node, so
 * that everybody who reads its value keeps doing so; absorbed nodes are dropped and the rest is put
 * back into an order in which inputs come before their readers. */
#include <stdlib.h>
#include <string.h>

#include "graph/internal.h"
#include "ops/ops.h"

typedef struct view {
  fn_graph *graph;
  bool *seen; /**< [node_count]: scratch of depends_on */
  int *uses;  /**< [value_count] */
  bool *keep; /**< [value_count]: somebody outside reads it */
} view;

static fn_status view_create(fn_graph *graph, fn_value **keep, int keep_count, view *v) {
  *v = (view){.graph = graph};
  v->uses = calloc((size_t)graph->value_count, sizeof *v->uses);
  v->keep = calloc((size_t)graph->value_count, sizeof *v->keep);
  v->seen = calloc((size_t)graph->node_count + 1, sizeof *v->seen);
  if (!v->uses || !v->keep || !v->seen) {
    free(v->uses);
    free(v->keep);
    free(v->seen);
    FN_FAIL(FN_ERR_MEMORY, "out of memory");
  }
  for (int n = 0; n < graph->node_count; n++) {
    const fn_node *node = graph->node[n];
    for (int i = 0; i < node->input_count; i++)
      if (node->input[i]) v->uses[node->input[i]->id]++;
  }
  for (int i = 0; i < keep_count; i++)
    if (keep[i]) v->keep[keep[i]->id] = true;
  for (int i = 0; i < graph->assignment_count; i++)
    v->keep[graph->assignment[i].value->id] = true;
  return FN_OK;
}

static void view_destroy(view *v) {
  free(v->uses);
  free(v->keep);
  free(v->seen);
}

static bool absorbable(const view *v, const fn_value *value) {
  return v->uses[value->id] == 1 && !v->keep[value->id];
}

static bool is_leaky(const fn_node *node) {
  if (node->op != &fn_op_unary) return false;
  const fn_unary_attrs *attrs = node->attrs;
  return attrs->kind == FN_LEAKY && attrs->a >= 0;
}

/** `last` becomes what `first` was: its operator, inputs and further outputs. */
static void absorb(fn_graph *graph, fn_node *first, fn_node *last) {
  fn_value *result = last->output[0];
  last->op = first->op;
  last->input = first->input;
  last->input_count = first->input_count;
  last->attrs = first->attrs;
  last->output = fn_arena_take(graph->arena, (size_t)first->output_count * sizeof(fn_value *));
  last->output_count = first->output_count;
  last->output[0] = result;
  for (int o = 1; o < first->output_count; o++) {
    last->output[o] = first->output[o];
    last->output[o]->node = last;
  }
  first->op = NULL; // dropped by reorder()
}

static bool merge_activation(view *v, fn_node *node) {
  if (!is_leaky(node)) return false;
  fn_node *first = node->input[0]->node;
  const double slope = ((const fn_unary_attrs *)node->attrs)->a;
  if (node->input[0]->output != 0 || !absorbable(v, node->input[0])) return false;
  if (first->op == &fn_op_matmul) {
    fn_matmul_attrs *attrs = first->attrs;
    if (attrs->slope != 1) return false;
    attrs->slope = slope;
  } else if (first->op == &fn_op_batch_norm) {
    fn_batch_norm_attrs *attrs = first->attrs;
    if (attrs->slope != 1) return false;
    attrs->slope = slope;
  } else if (slope == 0) {
    return false; // a ReLU in a library's convolution makes 0 of NaN
  } else if (first->op == &fn_op_conv || first->op == &fn_op_conv_data) {
    fn_conv_attrs *attrs = first->attrs;
    if (attrs->slope != 1) return false;
    attrs->slope = slope;
  } else {
    return false;
  }
  absorb(v->graph, first, node);
  return true;
}

/** max_pool(leaky(x)) -> leaky(max_pool(x)): the same numbers, for an activation keeps the order of
 *  any two; it and its gradient then work on the smaller value. Behind a batch norm the activation
 *  costs nothing where it is. */
static bool pool_before_activation(view *v, fn_node *node) {
  if (node->op != &fn_op_max_pool) return false;
  fn_value *active = node->input[0], *pooled = node->output[0];
  fn_node *activation = active->node;
  if (!is_leaky(activation) || !absorbable(v, active)) return false;
  if (activation->input[0]->node->op == &fn_op_batch_norm) return false;
  void *attrs = activation->attrs;
  active->shape = pooled->shape;
  active->label = pooled->label;
  activation->op = node->op;
  activation->attrs = node->attrs;
  node->op = &fn_op_unary;
  node->attrs = attrs;
  return true;
}

/** add(a b, bias) -> a b + bias in one pass, with one number per column. */
static bool merge_bias(view *v, fn_node *node) {
  if (node->op != &fn_op_binary || ((const fn_binary_attrs *)node->attrs)->kind != FN_ADD)
    return false;
  for (int side = 0; side < 2; side++) {
    fn_value *product = node->input[side], *bias = node->input[1 - side];
    fn_node *first = product->node;
    if (first->op != &fn_op_matmul || first->input_count > 2 || !absorbable(v, product)) continue;
    if (((const fn_matmul_attrs *)first->attrs)->slope != 1) continue;
    if (bias->shape.ndim != 1 || bias->dtype != product->dtype) continue;
    if (bias->shape.dim[0] != product->shape.dim[product->shape.ndim - 1]) continue;
    fn_value **input = fn_arena_take(v->graph->arena, 3 * sizeof(fn_value *));
    memcpy(input, first->input, 2 * sizeof(fn_value *));
    input[2] = bias;
    first->input = input;
    first->input_count = 3;
    absorb(v->graph, first, node);
    return true;
  }
  return false;
}

/** Whether `value` is computed from an output of `node`. Nodes made before `node` are not. */
static bool reaches(view *v, const fn_value *value, const fn_node *node) {
  const fn_node *from = value->node;
  if (from == node) return true;
  if (from->id < node->id || v->seen[from->id]) return false;
  v->seen[from->id] = true;
  for (int i = 0; i < from->input_count; i++)
    if (from->input[i] && reaches(v, from->input[i], node)) return true;
  return false;
}

static bool depends_on(view *v, const fn_value *value, const fn_node *node) {
  memset(v->seen, 0, (size_t)v->graph->node_count * sizeof *v->seen);
  return reaches(v, value, node);
}

static bool merge_residual(view *v, fn_node *node) {
  if (node->op != &fn_op_binary || ((const fn_binary_attrs *)node->attrs)->kind != FN_ADD)
    return false;
  for (int side = 0; side < 2; side++) {
    fn_value *normed = node->input[side], *residual = node->input[1 - side];
    fn_node *first = normed->node;
    if (first->op != &fn_op_batch_norm || normed->output != 0 || !absorbable(v, normed)) continue;
    if (first->input[3] || ((const fn_batch_norm_attrs *)first->attrs)->slope != 1) continue;
    if (!fn_shape_equal(&normed->shape, &residual->shape)) continue;
    if (depends_on(v, residual, first)) continue; // of the batch's own mean, say
    fn_value **input =
        fn_arena_take(v->graph->arena, (size_t)first->input_count * sizeof(fn_value *));
    memcpy(input, first->input, (size_t)first->input_count * sizeof(fn_value *));
    input[3] = residual;
    first->input = input;
    absorb(v->graph, first, node);
    return true;
  }
  return false;
}

static bool merge_window(view *v, fn_node *node) {
  if (node->op != &fn_op_binary || ((const fn_binary_attrs *)node->attrs)->kind != FN_ADD)
    return false;
  for (int side = 0; side < 2; side++) {
    fn_value *padded = node->input[side], *other = node->input[1 - side];
    fn_node *pad = padded->node;
    if (pad->op != &fn_op_pad_zero || !absorbable(v, padded)) continue;
    if (!fn_shape_equal(&padded->shape, &other->shape)) continue;
    fn_value **input = fn_arena_take(v->graph->arena, 2 * sizeof(fn_value *));
    input[0] = other;
    input[1] = pad->input[0];
    node->op = &fn_op_add_window;
    node->attrs = pad->attrs;
    node->input = input;
    node->input_count = 2;
    pad->op = NULL;
    return true;
  }
  return false;
}

/** Whether the node mixes channels only: kernel, stride and dilation 1 and no padding. */
static bool is_pointwise(const fn_node *node) {
  if (node->op != &fn_op_conv) return false;
  const fn_conv_geometry *g = &((const fn_conv_attrs *)node->attrs)->geometry;
  const fn_shape *w = &node->input[1]->shape;
  for (int d = 0; d < w->ndim - 2; d++)
    if (w->dim[2 + d] != 1 || g->stride[d] != 1 || g->pad_low[d] != 0 || g->pad_high[d] != 0)
      return false;
  return true;
}

/** Bytes moved, with operations in bytes that take as long, by a pointwise convolution of `cells`
 *  cells and a crop of `channels` channels to `inner` cells. */
static double pointwise_cost(const fn_shape *w, double cells, double channels, double inner) {
  const double in = (double)w->dim[1], out = (double)w->dim[0], flops_per_byte = 8;
  return 4 * ((in + out) * cells + 2 * channels * inner) + 2 * in * out * cells / flops_per_byte;
}

/** conv(crop(x)) -> crop(conv(x)) for pointwise convolutions where that moves less: few channels
 * are cropped instead of many, and the many need not be kept for the weight gradient. */
static bool crop_after_conv(view *v, fn_node *node) {
  if (!is_pointwise(node) || node->input[0]->node->op != &fn_op_crop) return false;
  fn_node *crop = node->input[0]->node;
  fn_value *cropped = node->input[0], *x = crop->input[0], *result = node->output[0];
  if (!absorbable(v, cropped)) return false;
  for (int a = 0; a < 2; a++)
    if (x->shape.dim[a] != cropped->shape.dim[a]) return false;
  const fn_shape *w = &node->input[1]->shape;
  const double outer = (double)fn_shape_count(&x->shape) / (double)fn_dim(x, 1),
               inner = (double)fn_shape_count(&cropped->shape) / (double)fn_dim(x, 1);
  const double before = pointwise_cost(w, inner, (double)w->dim[1], inner),
               after = pointwise_cost(w, outer, (double)w->dim[0], inner);
  if (((const fn_conv_attrs *)node->attrs)->geometry.groups != 1 || after >= before) return false;
  fn_window_attrs *window = crop->attrs;
  crop->op = &fn_op_conv;
  crop->attrs = node->attrs;
  crop->input = fn_arena_take(v->graph->arena, (size_t)node->input_count * sizeof(fn_value *));
  memcpy(crop->input, node->input, (size_t)node->input_count * sizeof(fn_value *));
  crop->input[0] = x;
  crop->input_count = node->input_count;
  cropped->shape = x->shape;
  cropped->shape.dim[1] = w->dim[0];
  cropped->label = result->label;
  node->op = &fn_op_crop;
  node->attrs = window;
  window->shape = result->shape;
  node->input = fn_arena_take(v->graph->arena, sizeof(fn_value *));
  node->input[0] = cropped;
  node->input_count = 1;
  return true;
}

static bool ready(const fn_node *node, const bool *done) {
  for (int i = 0; i < node->input_count; i++)
    if (node->input[i] && !done[node->input[i]->id]) return false;
  return true;
}

/** Drop absorbed nodes; stable topological order of the others. */
static fn_status reorder(fn_graph *graph) {
  int count = 0;
  for (int n = 0; n < graph->node_count; n++)
    if (graph->node[n]->op) graph->node[count++] = graph->node[n];
  fn_node **sorted = calloc((size_t)count + 1, sizeof(fn_node *));
  bool *done = calloc((size_t)graph->value_count + 1, sizeof *done);
  int placed = 0, before = -1;
  // Nodes are nearly in order: a few sweeps that each take all that is ready suffice.
  while (sorted && done && placed < count && placed != before) {
    before = placed;
    for (int n = 0; n < count; n++) {
      fn_node *node = graph->node[n];
      if (!node || !ready(node, done)) continue;
      for (int o = 0; o < node->output_count; o++)
        done[node->output[o]->id] = true;
      sorted[placed++] = node;
      graph->node[n] = NULL;
    }
  }
  const bool complete = sorted && done && placed == count;
  if (complete) {
    for (int n = 0; n < count; n++) {
      graph->node[n] = sorted[n];
      graph->node[n]->id = n;
    }
    graph->node_count = count;
  }
  free(sorted);
  free(done);
  return complete ? FN_OK : fn_graph_fail(graph, FN_ERR_INTERNAL, "the graph has a cycle");
}

static fn_status rewrite(fn_graph *graph, fn_value **keep, int keep_count,
                         bool (*rule)(view *, fn_node *)) {
  FN_TRY(graph->status);
  view v;
  FN_TRY(view_create(graph, keep, keep_count, &v));
  for (int n = 0; n < graph->node_count; n++)
    if (graph->node[n]->op) rule(&v, graph->node[n]);
  view_destroy(&v);
  return reorder(graph);
}

static bool forward_rules(view *v, fn_node *node) {
  return merge_residual(v, node) || merge_bias(v, node) || merge_activation(v, node) ||
         crop_after_conv(v, node);
}

fn_status fn_graph_fuse_forward(fn_graph *graph, fn_value **keep, int keep_count) {
  FN_TRY(rewrite(graph, keep, keep_count, pool_before_activation));
  return rewrite(graph, keep, keep_count, forward_rules);
}

/* ---- programs without gradients
 * ------------------------------------------------------------------ */

static bool is_state(const fn_value *value) {
  const fn_leaf *leaf = fn_value_leaf(value);
  return leaf && leaf->kind != FN_LEAF_INPUT;
}

/** The convolution whose only reader is this batch norm with statistics, scale and shift from the
 *  state; NULL when there is none. */
static fn_node *foldable(const view *v, const fn_node *norm) {
  if (norm->op != &fn_op_batch_norm) return NULL;
  const fn_batch_norm_attrs *attrs = norm->attrs;
  if (!attrs->fixed || norm->input[3]) return NULL;
  const int fixed[] = {1, 2, 4, 5};
  for (int i = 0; i < 4; i++)
    if (!is_state(norm->input[fixed[i]])) return NULL;
  for (int o = 1; o < norm->output_count; o++)
    if (v->uses[norm->output[o]->id] > 0 || v->keep[norm->output[o]->id]) return NULL;
  fn_node *conv = norm->input[0]->node;
  if (conv->op != &fn_op_conv && conv->op != &fn_op_conv_data) return NULL;
  if (((const fn_conv_attrs *)conv->attrs)->slope != 1) return NULL;
  const bool plain = conv->input_count < 4 || !conv->input[3];
  if (!plain || !absorbable(v, norm->input[0])) return NULL;
  if (!is_state(conv->input[1]) || (conv->input[2] && !is_state(conv->input[2]))) return NULL;
  return conv;
}

static bool fold_norm(view *v, fn_node *norm) {
  fn_node *conv = foldable(v, norm);
  if (!conv) return false;
  fn_graph *graph = v->graph;
  const fn_batch_norm_attrs *norm_attrs = norm->attrs;
  const fn_fold_attrs attrs = {
      .eps = norm_attrs->eps,
      .groups = ((const fn_conv_attrs *)conv->attrs)->geometry.groups,
      .transposed = conv->op == &fn_op_conv_data,
  };
  fn_value *state[] = {conv->input[1], conv->input[2], norm->input[1],
                       norm->input[2], norm->input[4], norm->input[5]};
  fn_value *w = fn_node_append(graph, &fn_op_fold_norm, state, 6, 2, &attrs, 1u << 1);
  if (!w) return false;
  w->label = conv->input[1]->label;
  fn_value **input = fn_arena_take(graph->arena, 3 * sizeof(fn_value *));
  input[0] = conv->input[0];
  input[1] = w;
  input[2] = w->node->output[1];
  conv->input = input;
  conv->input_count = 3;
  ((fn_conv_attrs *)conv->attrs)->slope = norm_attrs->slope;
  absorb(graph, conv, norm);
  return true;
}

fn_status fn_graph_fold_norms(fn_graph *graph, fn_value **keep, int keep_count) {
  return rewrite(graph, keep, keep_count, fold_norm);
}

/** add(conv(x), r) -> conv(x) + r in one pass. */
static bool merge_conv_residual(view *v, fn_node *node) {
  if (node->op != &fn_op_binary || ((const fn_binary_attrs *)node->attrs)->kind != FN_ADD)
    return false;
  for (int side = 0; side < 2; side++) {
    fn_value *result = node->input[side], *residual = node->input[1 - side];
    fn_node *conv = result->node;
    if (conv->op != &fn_op_conv || conv->input_count > 3 || !absorbable(v, result)) continue;
    if (((const fn_conv_attrs *)conv->attrs)->slope != 1) continue;
    if (!fn_shape_equal(&result->shape, &residual->shape)) continue;
    if (result->dtype != residual->dtype || depends_on(v, residual, conv)) continue;
    fn_value **input = fn_arena_take(v->graph->arena, 4 * sizeof(fn_value *));
    memcpy(input, conv->input, 3 * sizeof(fn_value *));
    input[3] = residual;
    conv->input = input;
    conv->input_count = 4;
    absorb(v->graph, conv, node);
    return true;
  }
  return false;
}

static bool evaluation_rules(view *v, fn_node *node) {
  return merge_conv_residual(v, node) || merge_activation(v, node);
}

fn_status fn_graph_fuse_evaluation(fn_graph *graph, fn_value **keep, int keep_count) {
  return rewrite(graph, keep, keep_count, evaluation_rules);
}

fn_status fn_graph_fuse_backward(fn_graph *graph, fn_value **keep, int keep_count) {
  return rewrite(graph, keep, keep_count, merge_window);
}

/** The line of a batch norm: an output that nobody asked for before. */
static fn_value *line_of(fn_graph *graph, fn_node *norm) {
  if (norm->output_count > 3) return norm->output[3];
  fn_value **output = fn_arena_take(graph->arena, 4 * sizeof *output);
  memcpy(output, norm->output, 3 * sizeof *output);
  output[3] = fn_arena_take(graph->arena, sizeof *output[3]);
  *output[3] = (fn_value){.graph = graph,
                          .node = norm,
                          .output = 3,
                          .id = graph->value_count++,
                          .shape = {1, {2 * norm->output[0]->shape.dim[1]}},
                          .label = norm->output[0]->label};
  norm->output = output;
  norm->output_count = 4;
  return output[3];
}

/** The gradient of a batch norm with activation finds the branch from x, which it reads anyway, and
 *  from what is known per channel, instead of y. */
static bool take_line(view *v, fn_node *node) {
  enum { DY, IN, SCALE, MEAN, VAR, OUT, LINE, INPUTS };
  if (node->op != &fn_op_batch_norm_grad || node->input_count != LINE || !node->input[OUT])
    return false;
  fn_node *norm = node->input[OUT]->node;
  if (norm->op != &fn_op_batch_norm || node->input[OUT]->output != 0) return false;
  const bool fixed = ((const fn_batch_norm_attrs *)norm->attrs)->fixed;
  const fn_value *mean = fixed ? norm->input[4] : norm->output[1];
  if (norm->input[3] || norm->input[0] != node->input[IN] || mean != node->input[MEAN])
    return false;
  fn_value **input = fn_arena_take(v->graph->arena, INPUTS * sizeof *input);
  memcpy(input, node->input, LINE * sizeof *input);
  input[OUT] = NULL;
  input[LINE] = line_of(v->graph, norm);
  node->input = input;
  node->input_count = INPUTS;
  return true;
}

fn_status fn_graph_take_lines(fn_graph *graph) {
  return rewrite(graph, NULL, 0, take_line);
}

/* ---- bf16
 * ---------------------------------------------------------------------------------------- */

static bool is_activation(const fn_value *value) {
  const fn_leaf *leaf = fn_value_leaf(value);
  return value->shape.ndim >= 3 && (!leaf || leaf->kind == FN_LEAF_INPUT);
}

/** Which inputs of a computing operator are activations: all with space but the kernel. */
static bool activation_input(const fn_node *node, int input) {
  if (!node->input[input] || node->input[input]->shape.ndim < 3) return false;
  const bool has_kernel = node->op == &fn_op_conv || node->op == &fn_op_conv_data;
  return !(has_kernel && input == 1);
}

/** Operators between the graph's input and its first layer. */
static bool rearranges(const fn_node *node) {
  return node->op == &fn_op_crop || node->op == &fn_op_pad_zero ||
         node->op == &fn_op_pad_periodic || node->op == &fn_op_resample ||
         (node->op == &fn_op_unary && ((const fn_unary_attrs *)node->attrs)->kind == FN_IDENTITY);
}

/** Results kept in bf16 when the operands are. Of the unary operators only what networks put
 * between convolutions: those with exponentials belong to losses, which stay in f32. */
static bool follows_bf16(const fn_node *node) {
  if (!(node->op->flags & FN_OP_FOLLOWS_BF16)) return false;
  if (node->op != &fn_op_unary) return true;
  const fn_unary kind = ((const fn_unary_attrs *)node->attrs)->kind;
  return kind == FN_LEAKY || kind == FN_AFFINE || kind == FN_IDENTITY;
}

static bool reads_graph_input(const fn_node *node) {
  for (int i = 0; i < node->input_count; i++) {
    const fn_value *value = node->input[i];
    while (value && rearranges(value->node))
      value = value->node->input[0];
    const fn_leaf *leaf = fn_value_leaf(value);
    if (leaf && leaf->kind == FN_LEAF_INPUT) return true;
  }
  return false;
}

/** A part of the graph's input, or the input with a margin: cells are moved, so that they may as
 *  well be rounded before. The input is then rounded once for all its readers. */
static bool moves_input(const fn_value *value) {
  const fn_value *from = value;
  while (rearranges(from->node) && from->node->op != &fn_op_resample)
    from = from->node->input[0];
  const fn_leaf *leaf = fn_value_leaf(from);
  return from != value && leaf && leaf->kind == FN_LEAF_INPUT;
}

static fn_value *cast(fn_graph *graph, fn_value *value, fn_dtype dtype, fn_value **cache) {
  if (value->dtype == dtype) return value;
  if (!cache[value->id]) {
    const fn_unary_attrs attrs = {.kind = FN_CAST};
    const bool moves = moves_input(value);
    fn_value *from = moves ? cast(graph, value->node->input[0], dtype, cache) : value;
    if (!from) return NULL;
    fn_value *result =
        moves ? fn_node_append(graph, value->node->op, &from, 1, 1, value->node->attrs, 0)
              : fn_node_append(graph, &fn_op_unary, &from, 1, 1, &attrs, 0);
    if (!result) return NULL;
    result->dtype = dtype;
    result->label = value->label;
    cache[value->id] = result;
  }
  return cache[value->id];
}

/** Casts the activation inputs of `node`. */
static fn_status cast_inputs(fn_graph *graph, fn_node *node, fn_dtype dtype, fn_value **cache) {
  fn_value **input = fn_arena_take(graph->arena, (size_t)(node->input_count + 1) * sizeof *input);
  memcpy(input, node->input, (size_t)node->input_count * sizeof *input);
  for (int i = 0; i < node->input_count; i++) {
    if (!activation_input(node, i)) continue;
    input[i] = cast(graph, input[i], dtype, cache);
    FN_TRY(graph->status);
  }
  node->input = input;
  return FN_OK;
}

fn_status fn_graph_apply_bf16(fn_graph *graph, bool first_layer_f32) {
  return fn_graph_apply_half(graph, FN_BF16, first_layer_f32);
}

fn_status fn_graph_apply_half(fn_graph *graph, fn_dtype half, bool first_layer_f32) {
  FN_TRY(graph->status);
  const int nodes = graph->node_count;
  // Every value can be cast at most once to each type; ids grow by at most that many.
  fn_value **narrow = calloc((size_t)graph->value_count * 3 + 16, sizeof *narrow);
  fn_value **wide = calloc((size_t)graph->value_count * 3 + 16, sizeof *wide);
  fn_status status = narrow && wide ? FN_OK : fn_graph_fail(graph, FN_ERR_MEMORY, "out of memory");
  for (int n = 0; n < nodes && status == FN_OK; n++) {
    fn_node *node = graph->node[n];
    const bool follows = follows_bf16(node);
    const bool computes = node->op->flags & FN_OP_COMPUTES_BF16;
    if (!follows && !computes) continue;
    bool all = true, any = false;
    for (int i = 0; i < node->input_count; i++) {
      if (!activation_input(node, i)) continue;
      all &= node->input[i]->dtype == half;
      any |= node->input[i]->dtype == half;
    }
    const bool stay = first_layer_f32 && computes && reads_graph_input(node);
    const bool make = (computes && !stay) || (follows && all && any);
    if (!make && !stay) continue;
    status = cast_inputs(graph, node, stay ? FN_F32 : half, stay ? wide : narrow);
    if (stay) continue;
    for (int o = 0; o < node->output_count; o++)
      if (is_activation(node->output[o]) && node->op != &fn_op_conv_weight)
        node->output[o]->dtype = half;
  }
  free(narrow);
  free(wide);
  return status == FN_OK ? reorder(graph) : status;
}
