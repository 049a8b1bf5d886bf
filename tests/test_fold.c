/* Batch norm folded into convolutions: equal to the graph without it, gone where it can be, kept
 * where it cannot, and computed again exactly when parameters have changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "graph/program.h"
#include "models/models.h"
#include "ops/ops.h"

typedef struct network {
  fn_graph *graph;
  fn_parameters *parameters; /**< shared when not owned */
  bool owned;
  fn_program *program;
} network;

static void must(fn_status status) {
  if (status != FN_OK) print_error("%s\n", fn_error_message());
  assert_int_equal(status, FN_OK);
}

/** Parameters and statistics of order one, nothing left at its initial 0 or 1. */
static void scatter(fn_parameters *p, uint64_t stream) {
  fn_random random = fn_random_stream(3, FN_RANDOM_TEST, 0, stream);
  for (int e = 0; e < p->entry_count; e++) {
    const fn_tensor_entry *entry = &p->entry[e];
    float *x = fn_parameters_data(p, entry);
    const bool positive = strstr(entry->name, "running_var") != NULL;
    const bool weight = entry->role == FN_ROLE_WEIGHT && !entry->is_buffer;
    const double size = weight ? 1 / sqrt((double)(entry->count / entry->shape.dim[0])) : 0.5;
    for (int64_t i = 0; i < entry->count; i++) {
      x[i] = (float)(size * fn_random_normal(&random));
      if (positive) x[i] = 0.3f + fabsf(x[i]);
    }
  }
  fn_parameters_changed(p);
}

static fn_program *compile(network *n, fn_value *output, const char *backend, bool check) {
  const fn_program_options options = {.backend = backend, .precision = FN_F32, .check = check};
  must(fn_program_create(n->graph, n->parameters, &options, &(fn_program_output){"y", output}, 1,
                         NULL, NULL, 0, &n->program));
  return n->program;
}

static void optimise(network *n, fn_value **keep, int count, bool fold) {
  if (fold) must(fn_graph_fold_norms(n->graph, keep, count));
  must(fn_graph_fuse_forward(n->graph, keep, count));
  if (fold) must(fn_graph_fuse_evaluation(n->graph, keep, count));
}

static int count_nodes(const network *n, const fn_op *op) {
  int count = 0;
  for (int i = 0; i < fn_graph_node_count(n->graph); i++)
    count += fn_graph_node(n->graph, i)->op == op;
  return count;
}

static void close_network(network *n) {
  fn_program_destroy(n->program);
  fn_graph_destroy(n->graph);
  if (n->owned) fn_parameters_destroy(n->parameters);
}

static void feed(network *n, uint64_t stream) {
  fn_random random = fn_random_stream(4, FN_RANDOM_TEST, 0, stream);
  float *x = fn_program_input(n->program, "input");
  const int64_t count = fn_shape_count(fn_program_input_shape(n->program, "input"));
  for (int64_t i = 0; i < count; i++)
    x[i] = (float)fn_random_normal(&random);
}

/** Largest difference over the largest value. */
static double difference(network *a, network *b) {
  feed(a, 1);
  feed(b, 1);
  must(fn_program_run(a->program, NULL));
  must(fn_program_run(b->program, NULL));
  const int64_t count = fn_shape_count(fn_program_output_shape(a->program, "y"));
  const float *x = fn_program_output_data(a->program, "y");
  const float *y = fn_program_output_data(b->program, "y");
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < count; i++) {
    worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    largest = fmax(largest, fabs((double)x[i]));
  }
  assert_true(largest > 0.01);
  return worst / largest;
}

/* ---- whole networks
 * ---------------------------------------------------------------------------- */

static void open_model(const fn_run *run, int spatial, int64_t edge, bool fold, const char *backend,
                       fn_parameters *parameters, network *n) {
  fn_model model;
  const int64_t extent[3] = {edge, edge, edge};
  *n = (network){.parameters = parameters, .owned = !parameters};
  must(fn_graph_create(NULL, &n->graph));
  must(fn_model_build(run, n->graph, spatial, 2, 3, 3, extent, NULL, &model));
  if (n->owned) {
    must(fn_parameters_create(n->graph, FN_F32, &n->parameters));
    scatter(n->parameters, 7);
  }
  optimise(n, &model.output, 1, fold);
  compile(n, model.output, backend, false);
}

static void networks(void **state) {
  (void)state;
  const struct {
    const char *text;
    int spatial, additions; // what is left of them: a VNet adds twice at its end
  } cases[] = {{"model: {name: unet, options: {width: 6}}", 3, 0},
               {"model: {name: vnet, options: {width: 6}}", 3, 1},
               {"model: {name: unet, options: {width: 20}}", 2, 0},
               {"model: {name: vnet, options: {width: 20}}", 2, 1},
               {"model: {name: vnet, options: {width: 3, depth: 1}}", 1, 1}};
  const char *const backends[] = {"reference", "cpu"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fn_run *run = NULL;
    char *errors = NULL;
    must(fn_run_parse(cases[i].text, "net.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors));
    for (int b = 0; b < 2; b++) {
      network plain, folded;
      open_model(run, cases[i].spatial, 44, false, backends[b], NULL, &plain);
      open_model(run, cases[i].spatial, 44, true, backends[b], plain.parameters, &folded);
      assert_true(count_nodes(&plain, &fn_op_batch_norm) > 0);
      assert_int_equal(count_nodes(&folded, &fn_op_batch_norm), 0);
      assert_int_equal(count_nodes(&folded, &fn_op_unary), 0); // activations are merged
      assert_int_equal(count_nodes(&folded, &fn_op_binary), cases[i].additions);
      for (int again = 0; again < 2; again++) {
        const double worst = difference(&plain, &folded);
        if (worst > 2e-6) print_error("%s on %s: %g\n", cases[i].text, backends[b], worst);
        assert_true(worst <= 2e-6);
      }
      // Other weights, as after an epoch of training: the same program must follow.
      scatter(plain.parameters, 8);
      const double worst = difference(&plain, &folded);
      if (worst > 2e-6)
        print_error("%s on %s, other weights: %g\n", cases[i].text, backends[b], worst);
      assert_true(worst <= 2e-6);
      close_network(&folded);
      close_network(&plain);
    }
    fn_run_destroy(run);
  }
}

/** Folded weights are kept from run to run, and a change that nobody announced is found in check
 *  mode. */
static void refreshing(void **state) {
  (void)state;
  fn_run *run = NULL;
  char *errors = NULL;
  must(fn_run_parse("model: {name: unet, options: {width: 4, depth: 1}}", "net.yaml", NULL, 0,
                    FN_COMMAND_OTHER, &run, &errors));
  network n = {.owned = true};
  fn_model model;
  must(fn_graph_create(NULL, &n.graph));
  must(fn_model_build(run, n.graph, 2, 1, 3, 3, (const int64_t[]){44, 44}, NULL, &model));
  must(fn_parameters_create(n.graph, FN_F32, &n.parameters));
  scatter(n.parameters, 1);
  optimise(&n, &model.output, 1, true);
  compile(&n, model.output, "cpu", true);
  feed(&n, 1);
  must(fn_program_run(n.program, NULL));
  must(fn_program_run(n.program, NULL));
  for (int e = 0; e < n.parameters->entry_count; e++)
    if (strstr(n.parameters->entry[e].name, "running_mean"))
      *(float *)fn_parameters_data(n.parameters, &n.parameters->entry[e]) += 1;
  assert_int_equal(fn_program_run(n.program, NULL), FN_ERR_INTERNAL);
  assert_non_null(strstr(fn_error_message(), "out of date"));
  fn_error_clear();
  fn_parameters_changed(n.parameters);
  must(fn_program_run(n.program, NULL));
  close_network(&n);
  fn_run_destroy(run);
}

/* ---- what can be folded and what cannot
 * ---------------------------------------------------------- */

typedef fn_value *(*builder)(fn_graph *graph, fn_value *x);

static const int64_t three[] = {3, 3, 3}, two[] = {2, 2, 2};

static fn_value *norm(fn_graph *graph, fn_value *x) {
  fn_scope_push(graph, "norm");
  x = fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  return x;
}
static fn_value *conv(fn_graph *graph, fn_value *x) {
  return fn_layer_conv(graph, x, 4, three, NULL, true);
}
static fn_value *conv_norm(fn_graph *graph, fn_value *x) {
  return fn_leaky_relu(graph, norm(graph, conv(graph, x)), 0.1);
}
static fn_value *without_bias(fn_graph *graph, fn_value *x) {
  return norm(graph, fn_layer_conv(graph, x, 5, three, NULL, false));
}
static fn_value *grouped(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry g = {.pad_low = {1, 1, 1}, .pad_high = {1, 1, 1}, .groups = 2};
  return norm(graph, fn_layer_conv(graph, x, 6, three, &g, true));
}
static fn_value *transposed(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry g = {.stride = {2, 2, 2}};
  return fn_leaky_relu(graph, norm(graph, fn_layer_conv_transpose(graph, x, 5, two, &g, true)),
                       0.1);
}
static fn_value *transposed_grouped(fn_graph *graph, fn_value *x) {
  const fn_conv_geometry g = {.stride = {2, 2, 2}, .groups = 2};
  return norm(graph, fn_layer_conv_transpose(graph, x, 6, three, &g, true));
}
static fn_value *read_twice(fn_graph *graph, fn_value *x) {
  fn_value *y = conv(graph, x);
  return fn_add(graph, norm(graph, y), fn_square(graph, y));
}
static fn_value *activated_first(fn_graph *graph, fn_value *x) {
  return norm(graph, fn_leaky_relu(graph, conv(graph, x), 0.1));
}
static fn_value *cropped_first(fn_graph *graph, fn_value *x) {
  const int64_t start[] = {1, 1, 1}, length[] = {2, 2, 2};
  return norm(graph, fn_crop(graph, conv(graph, x), start, length));
}
static fn_value *padded_first(fn_graph *graph, fn_value *x) {
  return norm(graph, fn_pad(graph, conv(graph, x), two, two, FN_PAD_ZERO));
}
static fn_value *joined_first(fn_graph *graph, fn_value *x) {
  fn_value *both[] = {conv(graph, x), NULL};
  fn_scope_push(graph, "second");
  both[1] = conv(graph, x);
  fn_scope_pop(graph);
  return norm(graph, fn_concat(graph, both, 2, 1));
}
static fn_value *residual(fn_graph *graph, fn_value *x) {
  fn_value *skip = fn_crop(graph, x, (const int64_t[]){1, 1, 1},
                           (const int64_t[]){fn_dim(x, 2) - 2, fn_dim(x, 3) - 2, fn_dim(x, 4) - 2});
  return fn_leaky_relu(graph, fn_add(graph, norm(graph, conv(graph, x)), skip), 0.1);
}
static fn_value *of_itself(fn_graph *graph, fn_value *x) {
  fn_value *y = conv_norm(graph, x);
  return fn_add(graph, y, fn_square(graph, y));
}

static void open_case(builder build, bool fold, const char *backend, fn_parameters *parameters,
                      network *n) {
  const fn_shape shape = {5, {2, 4, 6, 6, 6}};
  *n = (network){.parameters = parameters, .owned = !parameters};
  must(fn_graph_create(NULL, &n->graph));
  fn_value *y = build(n->graph, fn_input(n->graph, "input", &shape));
  must(fn_graph_status(n->graph));
  if (n->owned) {
    must(fn_parameters_create(n->graph, FN_F32, &n->parameters));
    scatter(n->parameters, 7);
  }
  optimise(n, &y, 1, fold);
  compile(n, y, backend, true);
}

static void patterns(void **state) {
  (void)state;
  const struct {
    const char *name;
    builder build;
    bool folds;
  } cases[] = {{"convolution", conv_norm, true},
               {"no bias", without_bias, true},
               {"groups", grouped, true},
               {"transposed", transposed, true},
               {"transposed, groups", transposed_grouped, true},
               {"residual", residual, true},
               {"read by itself", of_itself, true},
               {"input read by others", read_twice, false},
               {"after an activation", activated_first, false},
               {"after a crop", cropped_first, false},
               {"after padding", padded_first, false},
               {"after a concat", joined_first, false}};
  const char *const backends[] = {"reference", "cpu"};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    for (int b = 0; b < 2; b++) {
      network plain, folded;
      open_case(cases[i].build, false, backends[b], NULL, &plain);
      open_case(cases[i].build, true, backends[b], plain.parameters, &folded);
      const bool gone = count_nodes(&folded, &fn_op_batch_norm) == 0;
      const double worst = difference(&plain, &folded);
      if (gone != cases[i].folds || worst > 2e-6)
        print_error("%s on %s: folded %d, differs by %g\n", cases[i].name, backends[b], gone,
                    worst);
      assert_int_equal(gone, cases[i].folds);
      assert_true(worst <= 2e-6);
      close_network(&folded);
      close_network(&plain);
    }
  }
}

/** A value that somebody outside reads stays what it is. */
static void kept(void **state) {
  (void)state;
  network n = {.owned = true};
  const fn_shape shape = {5, {1, 4, 6, 6, 6}};
  must(fn_graph_create(NULL, &n.graph));
  fn_value *middle = conv(n.graph, fn_input(n.graph, "input", &shape));
  fn_value *keep[] = {middle, norm(n.graph, middle)};
  must(fn_graph_fold_norms(n.graph, keep, 2));
  assert_int_equal(count_nodes(&n, &fn_op_batch_norm), 1);
  must(fn_graph_fold_norms(n.graph, keep + 1, 1));
  assert_int_equal(count_nodes(&n, &fn_op_batch_norm), 0);
  fn_graph_destroy(n.graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(networks),
      cmocka_unit_test(refreshing),
      cmocka_unit_test(patterns),
      cmocka_unit_test(kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
