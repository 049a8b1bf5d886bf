/* Operators inside graphs: first, second and third derivatives against finite differences in double
 * precision, and what layers create. */
#include "op_call.h"

#include <math.h>

#include "graph/graph.h"

/* ---- a graph evaluated by its reference kernels
 * ---------------------------------------------------- */

typedef struct world {
  fn_graph *graph;
  double **data; // [value_count], by value id
} world;

static void world_create(world *w, fn_graph *graph) {
  if (fn_graph_status(graph) != FN_OK) fail_msg("%s", fn_error_message());
  fn_random random = fn_random_stream(9, FN_RANDOM_TEST, 0, 1);
  w->graph = graph;
  w->data = calloc((size_t)fn_graph_value_count(graph), sizeof(double *));
  for (int n = 0; n < fn_graph_node_count(graph); n++) {
    const fn_node *node = fn_graph_node(graph, n);
    for (int o = 0; o < node->output_count; o++) {
      const fn_value *value = node->output[o];
      const int64_t count = fn_shape_count(&value->shape);
      w->data[value->id] = calloc((size_t)count, sizeof(double));
      if (fn_value_leaf(value)) fill_normal(&random, w->data[value->id], count);
    }
  }
}

static void world_run(world *w) {
  const fn_run_context context = {0};
  for (int n = 0; n < fn_graph_node_count(w->graph); n++) {
    const fn_node *node = fn_graph_node(w->graph, n);
    const double *in[FN_MAX_PORTS] = {NULL};
    double *out[FN_MAX_PORTS] = {NULL};
    if (node->op->flags & FN_OP_LEAF) continue;
    for (int i = 0; i < node->input_count; i++) {
      if (node->input[i]) in[i] = w->data[node->input[i]->id];
    }
    for (int o = 0; o < node->output_count; o++)
      out[o] = w->data[node->output[o]->id];
    if (node->op->reference(node, in, out, &context) != FN_OK) fail_msg("%s", fn_error_message());
  }
}

static void world_destroy(world *w) {
  for (int i = 0; i < fn_graph_value_count(w->graph); i++)
    free(w->data[i]);
  free(w->data);
  fn_graph_destroy(w->graph);
}

static double scalar_of(world *w, const fn_value *value) {
  world_run(w);
  return w->data[value->id][0];
}

/** Compare gradient (of scalar y with respect to leaf x) with central differences. */
static void check_leaf(const char *name, world *w, const fn_value *y, const fn_value *x,
                       const fn_value *gradient) {
  const int64_t count = fn_shape_count(&x->shape), stride = 1 + count / 12;
  const double step = 1e-5;
  double *values = w->data[x->id];
  for (int64_t i = 0; i < count; i += stride) {
    const double saved = values[i];
    values[i] = saved + step;
    const double high = scalar_of(w, y);
    values[i] = saved - step;
    const double low = scalar_of(w, y);
    values[i] = saved;
    world_run(w);
    const double found = w->data[gradient->id][i], expected = (high - low) / (2 * step);
    if (!(fabs(found - expected) <= 2e-7 * (1 + fabs(expected) + fabs(w->data[y->id][0])))) {
      fail_msg(
          "%s: derivative by element %d of a leaf with %d: found %.12g, differences give %.12g",
          name, (int)i, (int)count, found, expected);
    }
  }
}

enum { MAX_LEAVES = 8 };

/** A network under test: reads x, makes its own parameters. */
typedef struct subject {
  const char *name;
  fn_shape x;
  fn_value *(*build)(fn_graph *graph, fn_value *x);
  const fn_op *activated; // operator that must have taken the activation in; may be NULL
} subject;

/** sum(c y^2) with fixed c, so that no gradient is constant. */
static fn_value *score_of(fn_graph *graph, fn_value *y) {
  if (!y) return NULL;
  return fn_sum(graph, fn_mul(graph, fn_square(graph, y), fn_input(graph, "c", &y->shape)),
                FN_ALL_AXES, false);
}

static double slope_of(const fn_node *node) {
  if (node->op == &fn_op_batch_norm) return ((const fn_batch_norm_attrs *)node->attrs)->slope;
  if (node->op == &fn_op_matmul) return ((const fn_matmul_attrs *)node->attrs)->slope;
  return ((const fn_conv_attrs *)node->attrs)->slope;
}

/** Whether a node of this operator carries an activation, so that its gradient is tested too. */
static bool is_fused(const fn_graph *graph, const fn_op *op) {
  for (int n = 0; n < fn_graph_node_count(graph); n++) {
    const fn_node *node = fn_graph_node(graph, n);
    if (node->op == op && slope_of(node) != 1) return true;
  }
  return false;
}

/** The score by every leaf, the squared norm of that gradient by every leaf, and once more. */
static void check_subject(const subject *s) {
  const fn_graph_options options = {.training = true};
  fn_graph *graph;
  assert_int_equal(fn_graph_create(&options, &graph), FN_OK);
  fn_value *x = fn_parameter(graph, "x", &s->x, FN_INIT_ZERO, FN_ROLE_WEIGHT);
  fn_value *score = score_of(graph, s->build(graph, x));
  fn_value *leaf[MAX_LEAVES], *first[MAX_LEAVES] = {0}, *second[MAX_LEAVES] = {0};
  fn_value *third[MAX_LEAVES] = {0};
  int count = 0;
  for (int i = 0; i < fn_graph_leaf_count(graph); i++) {
    fn_value *value = fn_graph_leaf(graph, i);
    if (fn_value_leaf(value)->kind == FN_LEAF_PARAMETER) leaf[count++] = value;
  }
  if (fn_graph_fuse_forward(graph, &score, 1) != FN_OK) fail_msg("%s", fn_error_message());
  if (s->activated) assert_true(is_fused(graph, s->activated));
  fn_differentiate(graph, score, leaf, count, first);
  fn_value *penalty = NULL;
  for (int i = 0; i < count; i++) {
    fn_value *norm = fn_sum(graph, fn_square(graph, first[i]), FN_ALL_AXES, false);
    penalty = penalty ? fn_add(graph, penalty, norm) : norm;
  }
  fn_differentiate(graph, penalty, leaf, count, second);
  fn_value *bend = fn_sum(graph, fn_square(graph, second[0]), FN_ALL_AXES, false);
  fn_differentiate(graph, bend, leaf, count, third);
  world w;
  world_create(&w, graph);
  for (int i = 0; i < count; i++) {
    check_leaf(s->name, &w, score, leaf[i], first[i]);
    check_leaf(s->name, &w, penalty, leaf[i], second[i]);
    check_leaf(s->name, &w, bend, leaf[i], third[i]);
  }
  world_destroy(&w);
}

static fn_value *weight(fn_graph *graph, const char *name, fn_shape shape) {
  return fn_parameter(graph, name, &shape, FN_INIT_ZERO, FN_ROLE_WEIGHT);
}

static fn_value *strided_conv(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry geometry = {
      .stride = {2, 1}, .pad_low = {1, 0}, .pad_high = {0, 2}, .dilation = {1, 2}, .groups = 2};
  fn_value *w = weight(graph, "w", (fn_shape){4, {4, 1, 2, 3}});
  fn_value *y = fn_conv(graph, x, w, weight(graph, "b", (fn_shape){1, {4}}), &geometry);
  return fn_leaky_relu(graph, y, 0.2);
}

static fn_value *deep_conv(fn_graph *graph, fn_value *x) {
  fn_value *y = fn_leaky_relu(
      graph, fn_conv(graph, x, weight(graph, "w", (fn_shape){5, {2, 1, 2, 2, 2}}), NULL, NULL), .1);
  return fn_conv(graph, fn_square(graph, y), weight(graph, "v", (fn_shape){5, {1, 2, 2, 1, 2}}),
                 weight(graph, "b", (fn_shape){1, {1}}), NULL);
}

static fn_value *transposed_conv(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry geometry = {.stride = {3}, .pad_low = {1}, .dilation = {2}, .groups = 2};
  const int64_t extra[] = {1};
  fn_value *w = weight(graph, "w", (fn_shape){3, {4, 3, 2}});
  fn_value *b = weight(graph, "b", (fn_shape){1, {6}});
  return fn_leaky_relu(graph, fn_conv_transpose(graph, x, w, b, &geometry, extra), 0.3);
}

static fn_value *normed(fn_graph *graph, fn_value *x) {
  fn_value *scale = weight(graph, "scale", (fn_shape){1, {2}});
  fn_value *shift = weight(graph, "shift", (fn_shape){1, {2}});
  return fn_batch_norm(graph, x, scale, shift, 0.1, NULL, NULL);
}

static fn_value *batch_norm_alone(fn_graph *graph, fn_value *x) {
  return normed(graph, fn_square(graph, x));
}

/* fused: activation and residual become attributes and inputs of the batch norm */
static fn_value *batch_norm_fused(fn_graph *graph, fn_value *x) {
  fn_value *y = fn_add(graph, normed(graph, x), fn_square(graph, x));
  return fn_leaky_relu(graph, y, 0.2);
}

static fn_value *batch_norm_given(fn_graph *graph, fn_value *x) {
  fn_value *scale = weight(graph, "scale", (fn_shape){1, {2}});
  fn_value *shift = weight(graph, "shift", (fn_shape){1, {2}});
  fn_value *mean = weight(graph, "mean", (fn_shape){1, {2}});
  fn_value *var = fn_affine(graph, fn_square(graph, weight(graph, "v", (fn_shape){1, {2}})), 1, 1);
  fn_value *y = fn_batch_norm_fixed(graph, fn_square(graph, x), scale, shift, mean, var, 0.1);
  return fn_leaky_relu(graph, y, 0.5);
}

static fn_value *average_pooled(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry geometry = {.stride = {2, 1}, .pad_low = {1, 0}, .pad_high = {0, 1}};
  return fn_average_pool(graph, fn_square(graph, x), (const int64_t[]){2, 3}, &geometry);
}

static fn_value *max_pooled(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry geometry = {.stride = {2, 1}, .pad_low = {1, 0}, .pad_high = {0, 1}};
  return fn_max_pool(graph, fn_tanh(graph, x), (const int64_t[]){2, 3}, &geometry);
}

static fn_value *resampled(fn_graph *graph, fn_value *x) {
  return fn_resample(graph, fn_resample(graph, fn_square(graph, x), 2, true), 0.5, false);
}

static fn_value *dense(fn_graph *graph, fn_value *x) {
  fn_scope_push(graph, "hidden");
  x = fn_tanh(graph, fn_layer_dense(graph, x, 3, true));
  fn_scope_pop(graph);
  return fn_layer_dense(graph, x, 2, false);
}

/* fused: bias and activation become input and attribute of the products */
static fn_value *dense_activated(fn_graph *graph, fn_value *x) {
  fn_scope_push(graph, "hidden");
  x = fn_leaky_relu(graph, fn_layer_dense(graph, x, 3, true), 0.2);
  fn_scope_pop(graph);
  return fn_relu(graph, fn_layer_dense(graph, fn_square(graph, x), 2, true));
}

static fn_value *product_activated(fn_graph *graph, fn_value *x) { // x [2, 3, 3]
  fn_value *w = weight(graph, "w", (fn_shape){2, {4, 3}});
  fn_value *y =
      fn_add(graph, weight(graph, "b", (fn_shape){1, {4}}), fn_matmul(graph, x, w, true, true));
  return fn_leaky_relu(graph, y, 0.3);
}

/** All readings of both operands, separate and shared second operand. */
static fn_value *products(fn_graph *graph, fn_value *x) {
  fn_value *sum = NULL; // x [2, 3, 3]
  fn_value *shared = weight(graph, "shared", (fn_shape){2, {3, 3}});
  fn_value *separate = weight(graph, "separate", (fn_shape){3, {2, 3, 3}});
  for (int flags = 0; flags < 8; flags++) {
    fn_value *b = flags & 4 ? shared : separate;
    fn_value *y = fn_square(graph, fn_matmul(graph, x, b, flags & 1, flags & 2));
    y = fn_affine(graph, y, 1 + flags, 0);
    sum = sum ? fn_add(graph, sum, y) : y;
  }
  return sum;
}

static void derivatives_equal_differences(void **state) {
  const subject *s = *state;
  check_subject(s);
}

/* ---- layers
 * ----------------------------------------------------------------------------------------- */

static fn_graph *new_graph(bool training) {
  fn_graph *graph;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = training}, &graph), FN_OK);
  return graph;
}

static void assert_leaf(const fn_graph *graph, int index, const char *name, fn_shape shape,
                        double bound) {
  const fn_leaf *leaf = fn_value_leaf(fn_graph_leaf(graph, index));
  char text[200];
  assert_string_equal(leaf->name, name);
  if (!fn_shape_equal(fn_value_shape(fn_graph_leaf(graph, index)), &shape)) {
    fail_msg("%s: shape differs from %s", name, fn_shape_text(&shape, text, sizeof text));
  }
  if (bound > 0) {
    assert_int_equal(leaf->init.kind, FN_INIT_UNIFORM);
    assert_near(leaf->init.b, bound, 1e-15);
    assert_near(leaf->init.a, -bound, 1e-15);
  }
}

/* Names, shapes and bounds of torch.nn.Conv3d(4, 6, 3, groups=2), ConvTranspose3d(6, 8, 2, 2,
 * groups=2), Linear(5, 7): uniform in +-1/sqrt(weight.size(1) * kernel cells). */
static void layers_start_as_in_pytorch(void **state) {
  (void)state;
  fn_graph *graph = new_graph(true);
  const fn_conv_geometry grouped = {.groups = 2}, up = {.groups = 2, .stride = {2, 2, 2}};
  fn_value *x = fn_input(graph, "x", &(fn_shape){5, {1, 4, 6, 6, 6}});
  fn_scope_push(graph, "down");
  x = fn_layer_conv(graph, x, 6, (const int64_t[]){3, 3, 3}, &grouped, true);
  fn_scope_pop(graph);
  fn_scope_push(graph, "up");
  x = fn_layer_conv_transpose(graph, x, 8, (const int64_t[]){2, 2, 2}, &up, true);
  fn_scope_pop(graph);
  fn_layer_dense(graph, fn_input(graph, "f", &(fn_shape){2, {1, 5}}), 7, true);
  if (fn_graph_status(graph) != FN_OK) fail_msg("%s", fn_error_message());
  assert_true(fn_shape_equal(fn_value_shape(x), &(fn_shape){5, {1, 8, 8, 8, 8}}));
  assert_leaf(graph, 1, "down.weight", (fn_shape){5, {6, 2, 3, 3, 3}}, 1 / sqrt(54));
  assert_leaf(graph, 2, "down.bias", (fn_shape){1, {6}}, 1 / sqrt(54));
  assert_leaf(graph, 3, "up.weight", (fn_shape){5, {6, 4, 2, 2, 2}}, 1 / sqrt(32));
  assert_leaf(graph, 4, "up.bias", (fn_shape){1, {8}}, 1 / sqrt(32));
  assert_leaf(graph, 6, "weight", (fn_shape){2, {7, 5}}, 1 / sqrt(5));
  assert_leaf(graph, 7, "bias", (fn_shape){1, {7}}, 1 / sqrt(5));
  fn_graph_destroy(graph);
}

static void batch_norm_layer_keeps_running_statistics(void **state) {
  (void)state;
  fn_graph *graph = new_graph(true);
  fn_value *x = fn_input(graph, "x", &(fn_shape){3, {2, 1, 2}});
  fn_scope_push(graph, "norm");
  fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  world w;
  world_create(&w, graph);
  const char *names[] = {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
                         "norm.num_batches_tracked"};
  for (int i = 0; i < 5; i++) {
    assert_leaf(graph, 1 + i, names[i], (fn_shape){i < 4, {i < 4}}, 0);
  }
  memcpy(w.data[x->id], (double[]){1, 2, 3, 4}, 4 * sizeof(double));
  for (int i = 3; i < 6; i++)
    w.data[fn_graph_leaf(graph, i)->id][0] = i == 5 ? 41 : i - 3;
  world_run(&w);
  assert_int_equal(fn_graph_assignment_count(graph), 3);
  const double expected[] = {0.1 * 2.5, 0.9 + 0.1 * 5 / 3, 42};
  for (int i = 0; i < 3; i++) {
    const fn_assignment *assignment = fn_graph_assignment(graph, i);
    assert_ptr_equal(assignment->buffer, fn_graph_leaf(graph, 3 + i));
    assert_near(w.data[assignment->value->id][0], expected[i], 1e-15);
  }
  world_destroy(&w);
}

static void batch_norm_layer_evaluates_with_running_statistics(void **state) {
  (void)state;
  fn_graph *graph = new_graph(false);
  fn_value *x = fn_input(graph, "x", &(fn_shape){3, {1, 1, 1}});
  fn_value *y = fn_layer_batch_norm(graph, x, 0, 0.1);
  world w;
  world_create(&w, graph);
  assert_int_equal(fn_graph_assignment_count(graph), 0);
  const double leaves[] = {7, 2, 10, 3, 16}; // x, scale, shift, mean, var
  for (int i = 0; i < 5; i++)
    w.data[fn_graph_leaf(graph, i)->id][0] = leaves[i];
  world_run(&w);
  assert_near(w.data[y->id][0], (7 - 3) / 4.0 * 2 + 10, 0);
  world_destroy(&w);
}

static void layers_refuse_by_name(void **state) {
  (void)state;
  fn_graph *graph = new_graph(true);
  fn_value *x = fn_input(graph, "x", &(fn_shape){3, {1, 3, 8}});
  fn_scope_push(graph, "critic");
  assert_null(
      fn_layer_conv(graph, x, 4, (const int64_t[]){3}, &(fn_conv_geometry){.groups = 2}, true));
  assert_int_equal(fn_graph_status(graph), FN_ERR_CONFIG);
  assert_string_equal(
      fn_error_message(),
      "critic: convolution: input [1, 3, 8] and 4 output channels, expected positive "
      "multiples of 2 group(s)");
  fn_graph_destroy(graph);
  graph = new_graph(true);
  x = fn_input(graph, "x", &(fn_shape){5, {1, 3, 1, 1, 1}});
  assert_null(fn_layer_batch_norm(graph, x, 1e-5, 0.1));
  assert_string_equal(fn_error_message(), "batch norm: [1, 3, 1, 1, 1] has 1 value(s) per channel, "
                                          "training needs at least 2");
  fn_graph_destroy(graph);
}

static void second_derivative_of_synchronised_norm_is_refused(void **state) {
  (void)state;
  fn_graph *graph;
  const fn_graph_options options = {.training = true, .sync_batch_norm = true};
  assert_int_equal(fn_graph_create(&options, &graph), FN_OK);
  fn_value *x = fn_input(graph, "x", &(fn_shape){3, {2, 2, 3}}), *first, *second;
  fn_value *score = score_of(graph, normed(graph, x));
  assert_int_equal(fn_differentiate(graph, score, &x, 1, &first), FN_OK);
  fn_value *penalty = fn_sum(graph, fn_square(graph, first), FN_ALL_AXES, false);
  assert_int_equal(fn_differentiate(graph, penalty, &x, 1, &second), FN_ERR_UNSUPPORTED);
  assert_non_null(strstr(fn_error_message(), "second derivative of synchronised batch norm"));
  fn_graph_destroy(graph);
}

static subject subjects[] = {
    {"strided, padded, dilated, grouped convolution", {4, {2, 2, 5, 6}}, strided_conv, &fn_op_conv},
    {"two convolutions in 3 dimensions", {5, {1, 1, 4, 3, 4}}, deep_conv, &fn_op_conv},
    {"transposed convolution", {3, {2, 4, 4}}, transposed_conv, &fn_op_conv_data},
    {"batch norm", {4, {3, 2, 2, 2}}, batch_norm_alone, NULL},
    {"batch norm with activation and residual",
     {3, {3, 2, 4}},
     batch_norm_fused,
     &fn_op_batch_norm},
    {"batch norm with given statistics", {3, {3, 2, 4}}, batch_norm_given, &fn_op_batch_norm},
    {"average pool", {4, {1, 2, 5, 4}}, average_pooled, NULL},
    {"max pool", {4, {1, 2, 5, 4}}, max_pooled, NULL},
    {"resample", {4, {1, 2, 3, 5}}, resampled, NULL},
    {"dense layers", {2, {3, 4}}, dense, NULL},
    {"dense layers with activation", {2, {3, 4}}, dense_activated, &fn_op_matmul},
    {"matrix product with bias", {3, {2, 3, 3}}, product_activated, &fn_op_matmul},
    {"matrix products", {3, {2, 3, 3}}, products, NULL},
};

int main(void) {
  enum { SUBJECTS = sizeof subjects / sizeof subjects[0] };
  struct CMUnitTest derivatives[SUBJECTS];
  for (int i = 0; i < SUBJECTS; i++) {
    derivatives[i] = (struct CMUnitTest){.name = subjects[i].name,
                                         .test_func = derivatives_equal_differences,
                                         .initial_state = &subjects[i]};
  }
  const struct CMUnitTest layers[] = {
      cmocka_unit_test(layers_start_as_in_pytorch),
      cmocka_unit_test(batch_norm_layer_keeps_running_statistics),
      cmocka_unit_test(batch_norm_layer_evaluates_with_running_statistics),
      cmocka_unit_test(layers_refuse_by_name),
      cmocka_unit_test(second_derivative_of_synchronised_norm_is_refused),
  };
  return cmocka_run_group_tests(derivatives, NULL, NULL) +
         cmocka_run_group_tests(layers, NULL, NULL);
}
