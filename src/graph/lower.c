/* From graph to steps: which backend runs a node, in which layout its values lie, where values are
 * windows of other values, and where a copy is unavoidable. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "graph/program_internal.h"
#include "ops/ops.h"

int fn_place_owner(const fn_program *program, int index, int64_t *offset) {
  int64_t total = 0;
  while (program->place[index].parent >= 0) {
    total += program->place[index].offset;
    index = program->place[index].parent;
  }
  if (offset) *offset = total;
  return index;
}

size_t fn_place_bytes(const place *p) {
  const int64_t rows = p->shape.ndim > 0 ? p->shape.dim[0] : 1;
  const int64_t sample = fn_tensor_sample_count(&p->shape, p->block);
  return (size_t)((rows - 1) * p->batch_stride + sample) * fn_dtype_size(p->dtype);
}

static fn_dtype memory_dtype(const fn_program *p, fn_dtype dtype) {
  return p->options.precision == FN_F64 ? FN_F64 : dtype;
}

static fn_status new_place(fn_program *p, const fn_shape *shape, fn_dtype dtype, int64_t block,
                           int *index) {
  FN_TRY(fn_grow((void **)&p->place, p->place_count, &p->place_capacity, sizeof(place)));
  if (shape->ndim < 3) block = 1;
  p->place[p->place_count] = (place){
      .shape = *shape,
      .dtype = dtype,
      .block = block > 0 ? block : 1,
      .batch_stride = fn_tensor_sample_count(shape, block),
      .pitch = block > 0 ? block : 1,
      .parent = -1,
      .writer = -1,
  };
  *index = p->place_count++;
  return FN_OK;
}

static bool is_dense(const place *p) {
  if (p->pitch != p->block) return false;
  return p->shape.ndim == 0 || p->shape.dim[0] == 1 ||
         p->batch_stride == fn_tensor_sample_count(&p->shape, p->block);
}

static fn_status new_step(fn_program *p, fn_node *node, step **result) {
  FN_TRY(fn_grow((void **)&p->step, p->step_count, &p->step_capacity, sizeof(step)));
  step *s = &p->step[p->step_count++];
  *s = (step){.node = node, .backend = p->backend};
  s->input = fn_arena_take(p->tables, (size_t)(node->input_count + 1) * sizeof(int));
  s->output = fn_arena_take(p->tables, (size_t)(node->output_count + 1) * sizeof(int));
  s->label = node->output_count && node->output[0]->label ? node->output[0]->label : "";
  *result = s;
  return FN_OK;
}

/** A step copying place `from` into place `to` (other layout, dtype or stride). */
static fn_status add_reorder(fn_program *p, int from, int to, const char *label) {
  fn_node *node = fn_arena_take(p->tables, sizeof *node);
  fn_value *value = fn_arena_take(p->tables, 2 * sizeof *value);
  node->op = &fn_op_unary;
  node->input_count = node->output_count = 1;
  node->input = fn_arena_take(p->tables, sizeof(fn_value *));
  node->output = fn_arena_take(p->tables, sizeof(fn_value *));
  fn_unary_attrs *attrs = fn_arena_take(p->tables, sizeof *attrs);
  attrs->kind = FN_CAST;
  node->attrs = attrs;
  for (int i = 0; i < 2; i++)
    value[i] = (fn_value){.graph = p->graph,
                          .node = node,
                          .shape = p->place[i ? to : from].shape,
                          .dtype = p->place[i ? to : from].dtype,
                          .label = label};
  node->input[0] = &value[0];
  node->output[0] = &value[1];
  step *s;
  FN_TRY(new_step(p, node, &s));
  s->is_reorder = true;
  s->input[0] = from;
  s->output[0] = to;
  s->plan.strided_in[0] = s->plan.strided_out[0] = true;
  p->place[to].writer = p->step_count - 1;
  p->place[to].strided_out = true;
  p->reorders++;
  return FN_OK;
}

/** The place of `value` in layout `block`, dense unless `strided` is allowed. */
static fn_status place_in_layout(fn_program *p, const fn_value *value, int64_t block, bool strided,
                                 int *index) {
  const int primary = p->value_place[value->id], copy = p->value_copy[value->id];
  if (value->shape.ndim < 3) block = 1;
  const int candidate[2] = {primary, copy};
  for (int i = 0; i < 2; i++) {
    if (candidate[i] < 0) continue;
    const place *c = &p->place[candidate[i]];
    if (c->block != block || !(strided || is_dense(c))) continue;
    *index = candidate[i];
    return FN_OK;
  }
  FN_TRY(new_place(p, &value->shape, p->place[primary].dtype, block, index));
  FN_TRY(add_reorder(p, primary, *index, value->label));
  p->value_copy[value->id] = *index;
  return FN_OK;
}

/* ---- views
 * ----------------------------------------------------------------------------------------- */

/** What a view does not share with a place of its own. */
typedef struct strides {
  int64_t block, batch_stride, pitch, offset;
} strides;

static fn_status make_view(fn_program *p, int of, const fn_value *value, const strides *s) {
  int index;
  FN_TRY(new_place(p, &value->shape, p->place[of].dtype, s->block, &index));
  p->place[index].parent = of;
  p->place[index].offset = s->offset;
  p->place[index].batch_stride = s->batch_stride;
  p->place[index].pitch = s->pitch;
  p->place[of].children++;
  p->value_place[value->id] = index;
  return FN_OK;
}

static bool is_channels_last(const fn_program *p, const place *c) {
  return p->backend->channels_last && c->shape.ndim >= 3 && c->block == c->shape.dim[1];
}

/** Where a crop of channels alone lies in its input's place; false when it is no such window. */
static bool find_channel_window(const fn_program *p, const fn_node *node, const place *in,
                                int64_t cells, strides *s) {
  const fn_window_attrs *attrs = node->attrs;
  const fn_shape *from = &node->input[0]->shape, *to = &node->output[0]->shape;
  if (from->ndim < 3) return false;
  for (int a = 0; a < from->ndim; a++)
    if (a != 1 && from->dim[a] != to->dim[a]) return false;
  const int64_t start = attrs->start[1], end = start + to->dim[1];
  *s = (strides){in->block, in->batch_stride, in->pitch, start * cells};
  if (is_channels_last(p, in)) {
    s->block = to->dim[1];
    s->offset = start;
    return true;
  }
  return start % in->block == 0 && (end % in->block == 0 || end == from->dim[1]);
}

static int64_t space_count(const fn_shape *shape) {
  int64_t cells = 1;
  for (int a = 2; a < shape->ndim; a++)
    cells *= shape->dim[a];
  return cells;
}

/** Whether a cast finds its input in its own type: that of an input of the graph. */
static bool is_cast_already(const fn_program *p, const fn_node *node, int from) {
  const fn_value *x = node->input[0], *y = node->output[0];
  const fn_unary_attrs *attrs = node->attrs;
  return attrs->kind == FN_CAST && x->dtype != y->dtype && p->place[from].dtype == y->dtype;
}

/** Results that need no kernel: reshape, identity, channel window. *done false: not one of them. */
static fn_status lower_view(fn_program *p, fn_node *node, bool *done) {
  *done = true;
  if (node->op == &fn_op_reshape) {
    int from;
    FN_TRY(place_in_layout(p, node->input[0], 1, false, &from));
    const strides plain = {1, fn_tensor_sample_count(&node->output[0]->shape, 1), 1, 0};
    return make_view(p, from, node->output[0], &plain);
  }
  const int from =
      node->input_count > 0 && node->input[0] ? p->value_place[node->input[0]->id] : -1;
  if (node->op == &fn_op_unary &&
      (((fn_unary_attrs *)node->attrs)->kind == FN_IDENTITY || is_cast_already(p, node, from))) {
    const strides same = {p->place[from].block, p->place[from].batch_stride, p->place[from].pitch,
                          0};
    return make_view(p, from, node->output[0], &same);
  }
  strides window;
  if (node->op == &fn_op_crop &&
      find_channel_window(p, node, &p->place[from], space_count(&node->input[0]->shape), &window))
    return make_view(p, from, node->output[0], &window);
  *done = false;
  return FN_OK;
}

/** Readers that saw an input before it moved into a concat expected dense memory: a window is fine
 *  for them if they honour strides (in blocked layouts with one sample for all). */
bool fn_readers_allow_strides(const fn_program *p, int index) {
  for (int s = 0; s < p->step_count; s++)
    for (int i = 0; i < p->step[s].node->input_count; i++)
      if (p->step[s].input[i] == index && !p->step[s].plan.strided_in[i]) return false;
  return true;
}

/** Whether all inputs of a concat can lie in one storage: all channels-last, or in whole blocks. */
static bool can_join(const fn_program *p, const fn_node *node, bool *channels_last) {
  const place *first = &p->place[p->value_place[node->input[0]->id]];
  int64_t channel = 0;
  *channels_last = true;
  bool blocks = true;
  for (int i = 0; i < node->input_count; i++) {
    const place *in = &p->place[p->value_place[node->input[i]->id]];
    if (in->dtype != first->dtype) return false;
    *channels_last &= is_channels_last(p, in);
    channel += node->input[i]->shape.dim[1];
    const bool last = i == node->input_count - 1;
    blocks &= in->block == first->block && (last || channel % first->block == 0);
  }
  return *channels_last || blocks;
}

/** Whether input `i` of a concat can be written into the result instead of a place of its own. */
static bool is_movable(const fn_program *p, const fn_node *node, int i, bool channels_last) {
  const int part = p->value_place[node->input[i]->id];
  const place *in = &p->place[part];
  for (int j = 0; j < i; j++) // the same value joined with itself needs a copy
    if (node->input[j] == node->input[i]) return false;
  if (in->parent >= 0 || in->external || in->pinned || in->writer < 0) return false;
  const bool same_memory = node->output[0]->shape.dim[0] == 1 && !channels_last;
  return same_memory || (in->strided_out && in->children == 0 && fn_readers_allow_strides(p, part));
}

/** Put the inputs of a channel concat into the output where that is possible; the others are copied
 *  by reorders. */
static fn_status lower_concat(fn_program *p, fn_node *node, bool *done) {
  *done = false;
  bool channels_last;
  if (node->op != &fn_op_concat || ((fn_concat_attrs *)node->attrs)->axis != 1) return FN_OK;
  if (!can_join(p, node, &channels_last)) return FN_OK;
  *done = true;
  const fn_value *result = node->output[0];
  const place *first = &p->place[p->value_place[node->input[0]->id]];
  const int64_t block = channels_last ? result->shape.dim[1] : first->block;
  const int64_t step_elements = channels_last ? 1 : space_count(&result->shape);
  int whole;
  FN_TRY(new_place(p, &result->shape, first->dtype, block, &whole));
  p->value_place[result->id] = whole;
  int64_t channel = 0;
  for (int i = 0; i < node->input_count; i++) {
    const int part = p->value_place[node->input[i]->id];
    const bool movable = is_movable(p, node, i, channels_last);
    int target = part;
    if (!movable)
      FN_TRY(new_place(p, &node->input[i]->shape, p->place[part].dtype, p->place[part].block,
                       &target));
    place *t = &p->place[target];
    t->parent = whole;
    t->offset = channel * step_elements;
    t->batch_stride = p->place[whole].batch_stride;
    if (channels_last) t->pitch = p->place[whole].pitch;
    p->place[whole].children++;
    if (!movable) FN_TRY(add_reorder(p, part, target, result->label));
    channel += node->input[i]->shape.dim[1];
  }
  p->place[whole].writer = p->step_count - 1;
  return FN_OK;
}

/* ---- ordinary nodes
 * -------------------------------------------------------------------------------- */

/** Folded weights change when the state of the network does, not from run to run. */
static bool is_constant(const fn_node *node) {
  bool constant = node->op == &fn_op_fold_norm;
  for (int i = 0; i < node->input_count && constant; i++) {
    const fn_leaf *leaf = node->input[i] ? fn_value_leaf(node->input[i]) : NULL;
    constant = !node->input[i] || (leaf && leaf->kind != FN_LEAF_INPUT);
  }
  return constant;
}

static fn_status lower_node(fn_program *p, fn_node *node, const int *uses) {
  const fn_backend *backend = p->backend;
  if (!backend->supports(backend, node)) {
    FN_CHECK(!backend->device, FN_ERR_UNSUPPORTED,
             "backend %s has no kernel for operator %s (%s), and a device runs all of a network or "
             "nothing: use compute.backend: cpu",
             backend->name, node->op->name, node->output[0]->label ? node->output[0]->label : "");
    fn_log_once(
        FN_WARN,
        "backend %s has no kernel for every operator of this network; the plain one runs instead",
        backend->name);
    fn_log(FN_DETAIL, "operator %s (%s) runs on the reference backend", node->op->name,
           node->output[0]->label ? node->output[0]->label : "");
    backend = p->reference;
  }
  const bool constant = is_constant(node);
  int64_t current[FN_MAX_PORTS] = {0};
  for (int i = 0; i < node->input_count; i++)
    if (node->input[i]) current[i] = p->place[p->value_place[node->input[i]->id]].block;
  fn_node_plan plan = {0};
  FN_TRY(backend->plan(backend, node, current, &plan));
  int input[FN_MAX_PORTS], output[FN_MAX_PORTS];
  for (int i = 0; i < node->input_count; i++) {
    input[i] = -1;
    if (node->input[i])
      FN_TRY(place_in_layout(p, node->input[i], plan.in_block[i], plan.strided_in[i], &input[i]));
  }
  for (int o = 0; o < node->output_count; o++) {
    const fn_value *value = node->output[o];
    output[o] = -1;
    if (uses[value->id] == 0) continue;
    FN_TRY(
        new_place(p, &value->shape, memory_dtype(p, value->dtype), plan.out_block[o], &output[o]));
    p->place[output[o]].writer = p->step_count; // the step made below
    p->place[output[o]].strided_out = plan.strided_out[o];
    p->place[output[o]].constant = constant;
    p->place[output[o]].pinned = constant;
    p->value_place[value->id] = output[o];
  }
  step *s;
  FN_TRY(new_step(p, node, &s));
  s->backend = backend;
  s->plan = plan;
  s->is_constant = constant;
  memcpy(s->input, input, (size_t)node->input_count * sizeof(int));
  memcpy(s->output, output, (size_t)node->output_count * sizeof(int));
  return FN_OK;
}

/** Type in which an input lies in memory. One that is made on a device is made in the type of the
 *  first layer, if a cast to 16 bits is all that reads it. */
static fn_dtype input_dtype(const fn_program *p, const fn_value *value, const int *uses,
                            const bool *live) {
  const fn_graph *graph = p->graph;
  const bool may = p->options.made_inputs && p->backend->device && uses[value->id] == 1 &&
                   value->shape.ndim >= 2 && value->shape.ndim <= 2 + FN_MAX_SPATIAL;
  for (int n = 0; may && n < graph->node_count; n++) {
    const fn_node *node = graph->node[n];
    if (!live[n] || node->op != &fn_op_unary || node->input[0] != value) continue;
    const fn_dtype dtype = node->output[0]->dtype;
    if (((fn_unary_attrs *)node->attrs)->kind == FN_CAST && (dtype == FN_BF16 || dtype == FN_F16))
      return dtype;
  }
  return memory_dtype(p, FN_F32);
}

/** Layout of an input: a device's is written by a kernel in the layout of its readers. */
static int64_t input_block(const fn_program *p, const fn_shape *shape) {
  const bool fits = shape->ndim >= 3 && shape->ndim <= 2 + FN_MAX_SPATIAL;
  return p->backend->device && p->backend->channels_last && fits ? shape->dim[1] : 1;
}

/** `input`: type of an input of the graph. */
static fn_status lower_leaf(fn_program *p, fn_value *value, fn_dtype input) {
  const fn_leaf *leaf = fn_value_leaf(value);
  int index;
  if (leaf->kind == FN_LEAF_INPUT) {
    FN_TRY(new_place(p, &value->shape, input, input_block(p, &value->shape), &index));
    p->input[p->input_count++] = (named_place){leaf->name, index};
  } else {
    const fn_tensor_entry *entry = fn_parameters_find(p->parameters, leaf->name);
    FN_CHECK(entry, FN_ERR_CONFIG, "the model has no parameter '%s'", leaf->name);
    FN_CHECK(fn_shape_equal(&entry->shape, &value->shape), FN_ERR_CONFIG,
             "parameter '%s' has another shape in the model", leaf->name);
    FN_TRY(new_place(p, &value->shape, p->parameters->dtype, 1, &index));
    p->place[index].external = p->backend->device ? fn_parameters_place(p->parameters, entry)
                                                  : fn_parameters_data(p->parameters, entry);
  }
  p->place[index].pinned = true;
  p->value_place[value->id] = index;
  return FN_OK;
}

/** Make the gradient of one parameter end in parameters->gradients. From then on that memory
 * belongs to the reducer, which scales and sums it in place: a value that anybody else reads is
 * copied. */
static fn_status land_gradient(fn_program *p, const fn_value *wrt, const fn_value *gradient,
                               int uses) {
  const fn_leaf *leaf = fn_value_leaf(wrt);
  FN_CHECK(leaf && leaf->kind == FN_LEAF_PARAMETER, FN_ERR_INTERNAL,
           "gradients are kept for parameters only");
  const fn_tensor_entry *entry = fn_parameters_find(p->parameters, leaf->name);
  FN_CHECK(entry, FN_ERR_INTERNAL, "no parameter '%s'", leaf->name);
  void *target = p->backend->device ? fn_parameters_gradient_place(p->parameters, entry)
                                    : fn_parameters_gradient(p->parameters, entry);
  const int primary = p->value_place[gradient->id];
  place *g = &p->place[primary];
  int writer = g->writer;
  if (uses == 1 && g->parent < 0 && !g->external && !g->pinned && g->writer >= 0 && g->block == 1 &&
      g->dtype == p->parameters->dtype) {
    g->external = target;
    g->pinned = true;
  } else {
    int copy;
    FN_TRY(new_place(p, &gradient->shape, p->parameters->dtype, 1, &copy));
    p->place[copy].external = target;
    p->place[copy].pinned = true;
    FN_TRY(add_reorder(p, primary, copy, leaf->name));
    writer = p->step_count - 1;
  }
  p->landing[p->landing_count++] = (landing){writer, (int)(entry - p->parameters->entry), false};
  return FN_OK;
}

static fn_status lower_outputs(fn_program *p, const fn_program_output *outputs, int count) {
  for (int i = 0; i < count; i++) {
    const fn_value *value = outputs[i].value;
    int index = p->value_place[value->id], same = 0;
    while (outputs[same].value != value)
      same++;
    if (same < i) index = p->output[same].place; // copied already, where that takes a copy
    const fn_dtype wanted = memory_dtype(p, FN_F32);
    const place *source = &p->place[index];
    if (source->block != 1 || source->dtype != wanted || !is_dense(source)) {
      int copy;
      FN_TRY(new_place(p, &value->shape, wanted, 1, &copy));
      FN_TRY(add_reorder(p, index, copy, outputs[i].name));
      index = copy;
    }
    p->place[fn_place_owner(p, index, NULL)].pinned = true;
    p->output[p->output_count++] = (named_place){fn_arena_text(p->tables, outputs[i].name), index};
  }
  return FN_OK;
}

/** Whether the new value of a buffer can be written over the old one: a single elementwise node
 * reads the one and makes the other, and nobody else looks at either. */
static bool updates_in_place(const fn_program *p, const fn_assignment *a, const int *uses) {
  const fn_node *node = a->value->node;
  const place *v = &p->place[p->value_place[a->value->id]];
  bool reads = false;
  for (int i = 0; i < node->input_count; i++)
    reads |= node->input[i] == a->buffer;
  return (node->op == &fn_op_running || node->op == &fn_op_unary) && reads &&
         uses[a->value->id] == 1 && uses[a->buffer->id] == 1 && v->parent < 0 && !v->external &&
         !v->pinned && v->writer >= 0 && v->block == 1 && v->dtype == p->parameters->dtype;
}

static fn_status lower_assignments(fn_program *p, const int *uses) {
  for (int i = 0; i < fn_graph_assignment_count(p->graph); i++) {
    const fn_assignment *a = fn_graph_assignment(p->graph, i);
    if (p->value_place[a->buffer->id] < 0) FN_TRY(lower_leaf(p, a->buffer, FN_F32));
    if (updates_in_place(p, a, uses)) {
      place *v = &p->place[p->value_place[a->value->id]];
      v->external = p->place[p->value_place[a->buffer->id]].external;
      v->pinned = true;
      continue;
    }
    FN_TRY(add_reorder(p, p->value_place[a->value->id], p->value_place[a->buffer->id],
                       a->buffer->label));
    p->reorders--; // a state update, not a layout change
  }
  return FN_OK;
}

fn_status fn_program_lower(fn_program *p, const fn_program_output *outputs, int output_count,
                           fn_value *const *wrt, fn_value *const *gradients, int gradient_count) {
  fn_graph *graph = p->graph;
  int *uses = fn_arena_take(p->tables, (size_t)(graph->value_count + 1) * sizeof *uses);
  bool *live = fn_arena_take(p->tables, (size_t)(graph->node_count + 1) * sizeof *live);
  fn_value **roots =
      fn_arena_take(p->tables, (size_t)(output_count + gradient_count + 1) * sizeof *roots);
  int root_count = 0;
  for (int i = 0; i < output_count; i++)
    roots[root_count++] = outputs[i].value;
  for (int i = 0; i < gradient_count; i++)
    if (gradients[i]) roots[root_count++] = gradients[i];
  p->landing = fn_arena_take(p->tables, (size_t)(gradient_count + 1) * sizeof *p->landing);
  fn_graph_uses(graph, roots, root_count, uses, live);
  for (int i = 0; i < root_count; i++)
    uses[roots[i]->id]++;
  for (int i = 0; i < graph->assignment_count; i++)
    uses[graph->assignment[i].value->id]++;
  for (int v = 0; v < graph->value_count; v++)
    p->value_place[v] = p->value_copy[v] = -1;
  for (int n = 0; n < graph->node_count; n++) {
    fn_node *node = graph->node[n];
    if (!live[n]) continue;
    bool done = node->op == &fn_op_leaf;
    if (done) FN_TRY(lower_leaf(p, node->output[0], input_dtype(p, node->output[0], uses, live)));
    if (!done) FN_TRY(lower_view(p, node, &done));
    if (!done) FN_TRY(lower_concat(p, node, &done));
    if (!done) FN_TRY(lower_node(p, node, uses));
    for (int g = 0; g < gradient_count; g++)
      if (gradients[g] && gradients[g]->node == node)
        FN_TRY(land_gradient(p, wrt[g], gradients[g], uses[gradients[g]->id]));
  }
  FN_TRY(lower_outputs(p, outputs, output_count));
  return lower_assignments(p, uses);
}
