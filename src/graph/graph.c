#include "graph/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- shapes -----------------------------------------------------------------------------------
 */

fn_shape fn_shape_make(int ndim, const int64_t *dim) {
  fn_shape shape = {.ndim = ndim};
  for (int a = 0; a < ndim && a < FN_MAX_DIMS; a++)
    shape.dim[a] = dim[a];
  return shape;
}

int64_t fn_shape_count(const fn_shape *shape) {
  int64_t count = 1;
  for (int a = 0; a < shape->ndim; a++)
    count *= shape->dim[a];
  return count;
}

bool fn_shape_equal(const fn_shape *a, const fn_shape *b) {
  if (a->ndim != b->ndim) return false;
  for (int i = 0; i < a->ndim; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

char *fn_shape_text(const fn_shape *shape, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int a = 0; a < shape->ndim && used < size; a++)
    used +=
        (size_t)snprintf(text + used, size - used, a ? ", %lld" : "%lld", (long long)shape->dim[a]);
  if (used < size) snprintf(text + used, size - used, "]");
  return text;
}

size_t fn_dtype_size(fn_dtype dtype) {
  return dtype == FN_F64 ? 8 : dtype == FN_F32 ? 4 : 2;
}

const char *fn_dtype_name(fn_dtype dtype) {
  static const char *const names[] = {
      [FN_F32] = "f32", [FN_BF16] = "bf16", [FN_F64] = "f64", [FN_F16] = "f16"};
  return names[dtype];
}

int64_t fn_tensor_sample_count(const fn_shape *shape, int64_t block) {
  if (shape->ndim == 0) return 1;
  int64_t cells = 1;
  for (int a = 1; a < shape->ndim; a++) {
    const int64_t size = shape->dim[a];
    cells *= a == 1 && block > 1 ? (size + block - 1) / block * block : size;
  }
  return cells;
}

/* ---- graph -------------------------------------------------------------------------------------
 */

fn_status fn_grow(void **array, int count, int *capacity, size_t item) {
  if (count < *capacity) return FN_OK;
  const int wanted = *capacity ? *capacity * 2 : 64;
  void *grown = realloc(*array, (size_t)wanted * item);
  FN_CHECK(grown, FN_ERR_MEMORY, "out of memory for a graph of %d entries", wanted);
  *array = grown;
  *capacity = wanted;
  return FN_OK;
}

fn_status fn_graph_create(const fn_graph_options *options, fn_graph **graph) {
  fn_graph *g = calloc(1, sizeof *g);
  FN_CHECK(g, FN_ERR_MEMORY, "out of memory");
  g->arena = fn_arena_create();
  if (!g->arena) {
    free(g);
    FN_FAIL(FN_ERR_MEMORY, "out of memory");
  }
  if (options) g->options = *options;
  *graph = g;
  return FN_OK;
}

void fn_graph_destroy(fn_graph *graph) {
  if (!graph) return;
  free(graph->node);
  free(graph->leaf);
  free(graph->assignment);
  fn_arena_destroy(graph->arena);
  free(graph);
}

fn_status fn_graph_status(const fn_graph *graph) {
  return graph->status;
}

fn_status fn_graph_fail(fn_graph *graph, fn_status status, const char *format, ...) {
  if (graph->status != FN_OK) return graph->status; // the first failure is the cause
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  graph->status = fn_error_set(status, __FILE__, __LINE__, "%s%s%s", graph->scope,
                               graph->scope[0] ? ": " : "", text);
  return graph->status;
}

bool fn_graph_training(const fn_graph *graph) {
  return graph->options.training;
}
fn_arena *fn_graph_arena(fn_graph *graph) {
  return graph->arena;
}
const fn_graph_options *fn_graph_get_options(const fn_graph *graph) {
  return &graph->options;
}
int fn_graph_node_count(const fn_graph *graph) {
  return graph->node_count;
}
fn_node *fn_graph_node(const fn_graph *graph, int index) {
  return graph->node[index];
}
int fn_graph_value_count(const fn_graph *graph) {
  return graph->value_count;
}
int fn_graph_leaf_count(const fn_graph *graph) {
  return graph->leaf_count;
}
fn_value *fn_graph_leaf(const fn_graph *graph, int index) {
  return graph->leaf[index];
}
int fn_graph_assignment_count(const fn_graph *graph) {
  return graph->assignment_count;
}
const fn_assignment *fn_graph_assignment(const fn_graph *graph, int index) {
  return &graph->assignment[index];
}

void fn_scope_push(fn_graph *graph, const char *format, ...) {
  const int depth_max = (int)(sizeof graph->scope_end / sizeof graph->scope_end[0]);
  const size_t length = strlen(graph->scope);
  char name[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  if (graph->scope_depth == depth_max || length + strlen(name) + 2 > sizeof graph->scope) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "scopes nest too deep at '%s'", name);
    return;
  }
  graph->scope_end[graph->scope_depth++] = (int)length;
  snprintf(graph->scope + length, sizeof graph->scope - length, length ? ".%s" : "%s", name);
}

void fn_scope_pop(fn_graph *graph) {
  if (graph->scope_depth > 0) graph->scope[graph->scope_end[--graph->scope_depth]] = '\0';
}

/* ---- values ------------------------------------------------------------------------------------
 */

const fn_shape *fn_value_shape(const fn_value *value) {
  static const fn_shape none;
  return value ? &value->shape : &none;
}

int64_t fn_dim(const fn_value *value, int axis) {
  return value && axis < value->shape.ndim ? value->shape.dim[axis] : 0;
}

int fn_ndim(const fn_value *value) {
  return value ? value->shape.ndim : 0;
}
int fn_spatial(const fn_value *value) {
  return value ? value->shape.ndim - 2 : 0;
}

fn_value *fn_label(fn_graph *graph, fn_value *value, const char *format, ...) {
  if (!value) return NULL;
  va_list arguments;
  va_start(arguments, format);
  value->label = fn_arena_vformat(graph->arena, format, arguments);
  va_end(arguments);
  return value;
}

/* ---- nodes
 * --------------------------------------------------------------------------------------- */

static fn_status check_inputs(fn_graph *graph, const fn_op *op, fn_value *const *input, int count,
                              unsigned optional) {
  if (graph->status != FN_OK) return graph->status;
  for (int i = 0; i < count; i++) {
    if (!input[i] && !(optional >> i & 1))
      return fn_graph_fail(graph, FN_ERR_INTERNAL, "%s: input %d is missing", op->name, i);
    if (input[i] && input[i]->graph != graph)
      return fn_graph_fail(graph, FN_ERR_INTERNAL, "%s: input %d is of another graph", op->name, i);
  }
  return FN_OK;
}

static fn_status append(fn_graph *graph, fn_node *node) {
  FN_TRY(
      fn_grow((void **)&graph->node, graph->node_count, &graph->node_capacity, sizeof(fn_node *)));
  node->id = graph->node_count;
  graph->node[graph->node_count++] = node;
  return FN_OK;
}

/** Label of a new value: the scope it was made in, so that tables and messages can name it. */
static const char *scope_label(fn_graph *graph) {
  return graph->scope[0] ? fn_arena_text(graph->arena, graph->scope) : NULL;
}

fn_value *fn_node_append(fn_graph *graph, const fn_op *op, fn_value *const *input, int input_count,
                         int output_count, const void *attrs, unsigned optional) {
  if (check_inputs(graph, op, input, input_count, optional) != FN_OK) return NULL;
  if (input_count > FN_MAX_PORTS || output_count > FN_MAX_PORTS) {
    fn_graph_fail(graph, FN_ERR_INTERNAL, "%s: more than %d inputs or outputs", op->name,
                  FN_MAX_PORTS);
    return NULL;
  }
  fn_node *node = fn_arena_take(graph->arena, sizeof *node);
  node->op = op;
  node->input_count = input_count;
  node->output_count = output_count;
  node->input = fn_arena_take(graph->arena, (size_t)(input_count + 1) * sizeof(fn_value *));
  node->output = fn_arena_take(graph->arena, (size_t)output_count * sizeof(fn_value *));
  for (int i = 0; i < input_count; i++)
    node->input[i] = input[i];
  if (op->attrs_size) {
    node->attrs = fn_arena_take(graph->arena, op->attrs_size);
    if (attrs) memcpy(node->attrs, attrs, op->attrs_size);
  }
  fn_shape shape[FN_MAX_PORTS] = {{0}};
  const fn_status inferred = op->infer(node, shape);
  if (inferred != FN_OK) {
    graph->status = graph->scope[0] ? fn_error_context(inferred, "%s", graph->scope) : inferred;
    return NULL;
  }
  for (int o = 0; o < output_count; o++) {
    fn_value *value = fn_arena_take(graph->arena, sizeof *value);
    *value = (fn_value){.graph = graph, .node = node, .output = o, .shape = shape[o]};
    value->id = graph->value_count++;
    value->label = scope_label(graph);
    node->output[o] = value;
  }
  if (append(graph, node) != FN_OK) {
    graph->status = FN_ERR_MEMORY;
    return NULL;
  }
  return node->output[0];
}

/* ---- leaves
 * -------------------------------------------------------------------------------------- */

typedef struct leaf_attrs {
  fn_leaf leaf;
  fn_shape shape;
} leaf_attrs;

static fn_status infer_leaf(const fn_node *node, fn_shape *shape) {
  shape[0] = ((const leaf_attrs *)node->attrs)->shape;
  return FN_OK;
}

const fn_op fn_op_leaf = {
    .name = "leaf", .attrs_size = sizeof(leaf_attrs), .flags = FN_OP_LEAF, .infer = infer_leaf};

const fn_leaf *fn_value_leaf(const fn_value *value) {
  return value && value->node->op == &fn_op_leaf ? &((const leaf_attrs *)value->node->attrs)->leaf
                                                 : NULL;
}

static fn_value *add_leaf(fn_graph *graph, const char *name, const fn_shape *shape, fn_leaf leaf) {
  if (graph->status != FN_OK) return NULL;
  const bool scoped = leaf.kind != FN_LEAF_INPUT && graph->scope[0];
  leaf.name = scoped ? fn_arena_format(graph->arena, "%s.%s", graph->scope, name)
                     : fn_arena_text(graph->arena, name);
  if (leaf.kind != FN_LEAF_INPUT && strchr(leaf.name, '/')) { // of groups in the files of states
    fn_graph_fail(graph, FN_ERR_CONFIG, "'%s': a name cannot hold a slash", leaf.name);
    return NULL;
  }
  for (int i = 0; i < graph->leaf_count; i++) {
    if (strcmp(fn_value_leaf(graph->leaf[i])->name, leaf.name) != 0) continue;
    fn_graph_fail(graph, FN_ERR_CONFIG, "two parameters or inputs are called '%s'", leaf.name);
    return NULL;
  }
  for (int a = 0; a < shape->ndim; a++) {
    if (shape->dim[a] > 0) continue;
    fn_graph_fail(graph, FN_ERR_CONFIG, "'%s' has size %lld along axis %d", leaf.name,
                  (long long)shape->dim[a], a);
    return NULL;
  }
  const leaf_attrs attrs = {.leaf = leaf, .shape = *shape};
  fn_value *value = fn_node_append(graph, &fn_op_leaf, NULL, 0, 1, &attrs, 0);
  if (!value) return NULL;
  value->label = leaf.name;
  if (fn_grow((void **)&graph->leaf, graph->leaf_count, &graph->leaf_capacity,
              sizeof(fn_value *)) != FN_OK) {
    graph->status = FN_ERR_MEMORY;
    return NULL;
  }
  graph->leaf[graph->leaf_count++] = value;
  return value;
}

fn_value *fn_input(fn_graph *graph, const char *name, const fn_shape *shape) {
  return add_leaf(graph, name, shape, (fn_leaf){.kind = FN_LEAF_INPUT});
}

fn_value *fn_parameter(fn_graph *graph, const char *name, const fn_shape *shape, fn_init init,
                       fn_role role) {
  return add_leaf(graph, name, shape,
                  (fn_leaf){.kind = FN_LEAF_PARAMETER, .init = init, .role = role});
}

fn_value *fn_buffer(fn_graph *graph, const char *name, const fn_shape *shape, double fill) {
  return add_leaf(graph, name, shape, (fn_leaf){.kind = FN_LEAF_BUFFER, .fill = fill});
}

void fn_assign(fn_graph *graph, fn_value *buffer, fn_value *value) {
  if (!buffer || !value) return;
  const fn_leaf *leaf = fn_value_leaf(buffer);
  if (!leaf || leaf->kind != FN_LEAF_BUFFER || !fn_shape_equal(&buffer->shape, &value->shape)) {
    fn_graph_fail(graph, FN_ERR_INTERNAL,
                  "assignment to something that is not a buffer of that shape");
    return;
  }
  if (fn_grow((void **)&graph->assignment, graph->assignment_count, &graph->assignment_capacity,
              sizeof(fn_assignment)) != FN_OK) {
    graph->status = FN_ERR_MEMORY;
    return;
  }
  graph->assignment[graph->assignment_count++] = (fn_assignment){buffer, value};
}

/* ---- liveness
 * --------------------------------------------------------------------------------------- */

void fn_graph_uses(const fn_graph *graph, fn_value *const *roots, int root_count, int *uses,
                   bool *live) {
  memset(uses, 0, (size_t)graph->value_count * sizeof *uses);
  memset(live, 0, (size_t)graph->node_count * sizeof *live);
  for (int i = 0; i < root_count; i++)
    if (roots[i]) live[roots[i]->node->id] = true;
  for (int i = 0; i < graph->assignment_count; i++)
    live[graph->assignment[i].value->node->id] = true;
  // Inputs are always created before their readers, so one sweep backwards finds all live nodes.
  for (int n = graph->node_count - 1; n >= 0; n--) {
    if (!live[n]) continue;
    const fn_node *node = graph->node[n];
    for (int i = 0; i < node->input_count; i++) {
      if (!node->input[i]) continue;
      live[node->input[i]->node->id] = true;
      uses[node->input[i]->id]++;
    }
  }
}
