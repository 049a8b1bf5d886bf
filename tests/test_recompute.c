/* What is computed twice to save memory: the same bits as without, in every mode; budgets that are
 * kept or refused; planned peaks that must not grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/system.h"
#include "models/models.h"
#include "ops/ops.h"
#include "run/describe.h"

static void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/* ---- networks ----------------------------------------------------------------------------------
 */

enum { PARAMETERS_MOST = 128, STEPS = 2 };

typedef struct trial {
  fn_graph *graph;
  fn_parameters *parameters;
  fn_program *program;
  fn_program_memory memory;
} trial;

typedef struct network {
  const char *name;
  int64_t edge;
  fn_value *(*build)(fn_graph *graph, fn_value *x);
  bool penalty; /**< the loss contains the gradient by the input */
} network;

static fn_run *parse(const char *text) {
  fn_run *run;
  char *errors = NULL;
  if (fn_run_parse(text, "test", NULL, 0, FN_COMMAND_OTHER, &run, &errors) != FN_OK)
    fail_msg("%s", errors ? errors : fn_error_message());
  return run;
}

/** 12 channels: the last block is half empty. */
static fn_value *build_named(fn_graph *graph, fn_value *x, const char *text) {
  const fn_network *net = NULL;
  fn_run *run = parse(text);
  require(fn_network_find(run->model.name, &net));
  fn_value *y = net->build(graph, x, 3, run->model.options);
  fn_run_destroy(run);
  return y;
}

static fn_value *build_unet(fn_graph *graph, fn_value *x) {
  return build_named(graph, x, "model: {name: unet, options: {width: 12}}");
}

static fn_value *build_vnet(fn_graph *graph, fn_value *x) {
  return build_named(graph, x, "model: {name: vnet, options: {width: 12}}");
}

static fn_value *layer(fn_graph *graph, fn_value *x, int index, int64_t channels) {
  const int64_t kernel[] = {3, 3, 3};
  fn_scope_push(graph, "layer%d", index);
  x = fn_layer_conv(graph, x, channels, kernel, NULL, true);
  fn_scope_pop(graph);
  return x;
}

/** Dropout, noise, smooth activations, pooling and a concat of a value with itself made over. */
static fn_value *build_noisy(fn_graph *graph, fn_value *x) {
  x = fn_dropout(graph, fn_tanh(graph, layer(graph, x, 0, 24)), 0.3);
  x = fn_add(graph, x, fn_normal(graph, fn_value_shape(x)));
  fn_scope_push(graph, "norm");
  x = fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  x = fn_dropout(graph, fn_leaky_relu(graph, x, 0.1), 0.2);
  fn_value *both[] = {fn_sigmoid(graph, x), fn_softplus(graph, x)};
  x = fn_concat(graph, both, 2, 1);
  return layer(graph, fn_tanh(graph, layer(graph, x, 1, 20)), 2, 3);
}

static fn_value *build_critic(fn_graph *graph, fn_value *x) {
  x = layer(graph, x, 0, 16);
  fn_scope_push(graph, "norm");
  x = fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  x = layer(graph, fn_leaky_relu(graph, x, 0.2), 1, 16);
  return layer(graph, fn_softplus(graph, x), 2, 3);
}

static const network networks[] = {{"unet", 44, build_unet, false},
                                   {"vnet", 44, build_vnet, false},
                                   {"noisy", 40, build_noisy, false},
                                   {"critic", 30, build_critic, true}};

static fn_value *build_loss(fn_graph *graph, fn_value *x, fn_value *y, bool penalty) {
  fn_value *target = fn_input(graph, "target", fn_value_shape(y));
  fn_value *loss = fn_mse(graph, y, target), *slope = NULL;
  if (!penalty) return loss;
  require(fn_differentiate(graph, fn_sum(graph, y, FN_ALL_AXES, false), &x, 1, &slope));
  return fn_add(graph, loss, fn_mean(graph, fn_square(graph, slope), FN_ALL_AXES, false));
}

static fn_status trial_create(trial *t, const network *net, const fn_program_options *options,
                              int spatial, bool sync) {
  fn_shape shape = {2 + spatial, {2, 3, net->edge, net->edge}};
  require(
      fn_graph_create(&(fn_graph_options){.training = true, .sync_batch_norm = sync}, &t->graph));
  fn_graph *g = t->graph;
  fn_value *x = fn_input(g, "x", &shape), *y = net->build(g, x);
  require(fn_graph_status(g));
  require(fn_graph_fuse_forward(g, &y, 1));
  fn_value *loss = build_loss(g, x, y, net->penalty);
  fn_value *wrt[PARAMETERS_MOST], *gradient[PARAMETERS_MOST + 2];
  int count = 0;
  for (int i = 0; i < fn_graph_leaf_count(g); i++)
    if (fn_value_leaf(fn_graph_leaf(g, i))->kind == FN_LEAF_PARAMETER)
      wrt[count++] = fn_graph_leaf(g, i);
  require(fn_differentiate(g, loss, wrt, count, gradient));
  gradient[count] = y;
  gradient[count + 1] = loss;
  require(fn_graph_fuse_backward(g, gradient, count + 2));
  if (strcmp(options->backend, "cpu") == 0) require(fn_graph_take_lines(g)); // as in training
  require(fn_parameters_create(g, FN_F32, &t->parameters));
  fn_parameters_initialise(t->parameters, 3, -1);
  const fn_program_output outputs[] = {{"y", y}, {"loss", loss}};
  const fn_status status =
      fn_program_create(g, t->parameters, options, outputs, 2, wrt, gradient, count, &t->program);
  if (status == FN_OK) fn_program_memory_info(t->program, &t->memory);
  return status;
}

static void trial_destroy(trial *t) {
  fn_program_destroy(t->program);
  fn_parameters_destroy(t->parameters);
  fn_graph_destroy(t->graph);
}

static void fill(fn_program *program, const char *name, uint64_t stream) {
  fn_random random = fn_random_stream(7, FN_RANDOM_TEST, 1, stream);
  float *to = fn_program_input(program, name);
  for (int64_t i = 0; i < fn_shape_count(fn_program_input_shape(program, name)); i++)
    to[i] = (float)fn_random_normal(&random);
}

static void trial_run(trial *t, const fn_collectives *collectives) {
  for (int step = 0; step < STEPS; step++) {
    const int64_t sample[] = {2 * step, 2 * step + 1};
    const fn_run_context context = {
        .seed = 5, .epoch = 3, .sample = sample, .collectives = collectives};
    fill(t->program, "x", (uint64_t)(2 * step));
    fill(t->program, "target", (uint64_t)(2 * step + 1));
    require(fn_program_run(t->program, &context));
  }
}

static void same_bytes(const void *a, const void *b, int64_t count, const char *what) {
  if (memcmp(a, b, (size_t)count * sizeof(float)) != 0) fail_msg("%s differs", what);
}

static void same_bits(const trial *a, const trial *b) {
  const int64_t cells = fn_shape_count(fn_program_output_shape(a->program, "y"));
  same_bytes(fn_program_output_data(a->program, "y"), fn_program_output_data(b->program, "y"),
             cells, "output");
  same_bytes(fn_program_output_data(a->program, "loss"), fn_program_output_data(b->program, "loss"),
             1, "loss");
  for (int i = 0; i < a->parameters->entry_count; i++) {
    const fn_tensor_entry *e = &a->parameters->entry[i];
    if (e->is_buffer)
      same_bytes(fn_parameters_data(a->parameters, e), fn_parameters_data(b->parameters, e),
                 e->count, e->name);
    else
      same_bytes(fn_parameters_gradient(a->parameters, e), fn_parameters_gradient(b->parameters, e),
                 e->count, e->name);
  }
}

/** Every mode and a budget against none; with checks on, what was released is NaN. */
static void keeps_bits(void **state) {
  const char *backend = *state;
  const int spatial = strcmp(backend, "reference") == 0 ? 1 : 2;
  for (size_t n = 0; n < sizeof networks / sizeof *networks; n++) {
    trial plain, again;
    const fn_program_options none = {.backend = backend};
    require(trial_create(&plain, &networks[n], &none, spatial, false));
    assert_int_equal(plain.memory.repeats, 0);
    trial_run(&plain, NULL);
    const fn_program_options modes[] = {
        {.backend = backend, .recompute = FN_RECOMPUTE_ELEMENTWISE},
        {.backend = backend, .recompute = FN_RECOMPUTE_ALL},
        {.backend = backend, .recompute = FN_RECOMPUTE_ALL, .check = true},
        {.backend = backend,
         .recompute = FN_RECOMPUTE_AUTO,
         .memory_budget = plain.memory.arena - plain.memory.arena / 10},
    };
    for (size_t m = 0; m < sizeof modes / sizeof *modes; m++) {
      require(trial_create(&again, &networks[n], &modes[m], spatial, false));
      print_message("%s %s mode %zu: %zu -> %zu bytes, %d repeated, %.1f %%\n", backend,
                    networks[n].name, m, plain.memory.arena, again.memory.arena,
                    again.memory.repeats, 100 * again.memory.extra);
      if (m != 0) assert_true(again.memory.repeats > 0);
      if (!modes[m].check) assert_true(again.memory.arena <= plain.memory.arena);
      if (modes[m].memory_budget) assert_true(again.memory.arena <= modes[m].memory_budget);
      trial_run(&again, NULL);
      same_bits(&plain, &again);
      trial_destroy(&again);
    }
    trial_destroy(&plain);
  }
}

/* ---- batch norm over ranks ---------------------------------------------------------------------
 */

typedef struct twin {
  int calls;
} twin;

/** The other rank has the same values. */
static fn_status sum_twins(void *self, double *values, int64_t count) {
  ((twin *)self)->calls++;
  for (int64_t i = 0; i < count; i++)
    values[i] *= 2;
  return FN_OK;
}

/** A repeated batch norm does not sum over ranks again, and no order of sums changes. */
static void one_sum_over_ranks(void **state) {
  const char *backend = *state;
  const int spatial = strcmp(backend, "reference") == 0 ? 1 : 2;
  trial plain, again;
  twin first = {0}, second = {0};
  const fn_program_options none = {.backend = backend},
                           all = {.backend = backend, .recompute = FN_RECOMPUTE_ALL};
  require(trial_create(&plain, &networks[1], &none, spatial, true));
  require(trial_create(&again, &networks[1], &all, spatial, true));
  int norms = 0;
  for (int k = 0; k < fn_program_kernel_count(again.program); k++) {
    fn_kernel_info info;
    fn_program_kernel_info(again.program, k, &info);
    norms += info.repeats && strcmp(info.op, "batch_norm") == 0;
  }
  assert_true(norms > 0);
  trial_run(&plain, &(fn_collectives){.self = &first, .size = 2, .sum = sum_twins});
  trial_run(&again, &(fn_collectives){.self = &second, .size = 2, .sum = sum_twins});
  assert_true(first.calls > 0);
  assert_int_equal(first.calls, second.calls);
  same_bits(&plain, &again);
  trial_destroy(&plain);
  trial_destroy(&again);
}

/* ---- budgets -----------------------------------------------------------------------------------
 */

/** Totals of a run for a cube of 3 -> 3 channels. */
static fn_status totals_of(const char *text, int64_t edge, fn_network_totals *totals) {
  fn_run *run = parse(text);
  const fn_dist dist = {.size = 1, .node_size = 1};
  fn_dataset_info info = {
      .spatial = 3, .target_spatial = 3, .input_channels = 3, .target_channels = 3};
  for (int d = 0; d < 3; d++) {
    info.input_extent[d] = edge;
    info.target_extent[d] = edge - 40;
  }
  fn_engine *engine;
  require(fn_engine_create(run, &dist, &info, &engine));
  const fn_status status = fn_network_totals_find(engine, 1, totals);
  fn_engine_destroy(engine);
  fn_run_destroy(run);
  return status;
}

/** Nothing fits: the message names the key and the least, and with the least it works. */
static void impossible_budget(void **state) {
  (void)state;
  fn_network_totals totals;
  assert_int_equal(
      totals_of("model: {name: vnet}\ncompute: {memory_budget: 100000000}", 72, &totals),
      FN_ERR_MEMORY);
  const char *message = fn_error_message(), *least = strstr(message, "at least ");
  assert_non_null(strstr(message, "compute.memory_budget"));
  assert_non_null(least);
  const unsigned long long bytes = strtoull(least + strlen("at least "), NULL, 10);
  assert_true(bytes > 100000000);
  char text[128];
  snprintf(text, sizeof text, "model: {name: vnet}\ncompute: {memory_budget: %llu}", bytes);
  fn_error_clear();
  require(totals_of(text, 72, &totals));
  assert_true(totals.training_arena <= bytes);
  snprintf(text, sizeof text,
           "model: {name: vnet}\ncompute: {recompute: none, memory_budget: %llu}", bytes);
  assert_int_equal(totals_of(text, 72, &totals), FN_ERR_MEMORY);
  fn_error_clear();
}

/** Planned bytes of a VNet step, crop 128, 64 and 32: they would grow if lives got longer or
 *  addresses worse. All activations kept naively would take 13.5 GB at crop 128. */
static void planned_peaks(void **state) {
  (void)state;
  const struct {
    const char *compute;
    int64_t edge;
    double most, extra_most; /**< bytes; part of the step */
  } cases[] = {
      {"", 168, 8.1e9, 0.01},
      {"compute: {recompute: none}", 168, 9.8e9, 0},
      {"compute: {memory_budget: 4900000000}", 168, 4.9e9, 0.13},
      {"compute: {memory_budget: 7000000000}", 168, 7.0e9, 0.02},
      {"", 104, 1.60e9, 0.01},
      {"compute: {recompute: none}", 104, 2.0e9, 0},
      {"compute: {memory_budget: 1000000000}", 104, 1.0e9, 0.16},
      {"", 72, 0.46e9, 0.01},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[128];
    fn_network_totals totals;
    snprintf(text, sizeof text, "model: {name: vnet}\n%s", cases[i].compute);
    require(totals_of(text, cases[i].edge, &totals));
    print_message("vnet %lld %s: %.3f GB, %d repeated, %.2f %%\n", (long long)cases[i].edge,
                  cases[i].compute, 1e-9 * (double)totals.training_arena, totals.repeats,
                  100 * totals.extra);
    assert_true((double)totals.training_arena <= cases[i].most);
    assert_true(totals.extra <= cases[i].extra_most);
    assert_true((totals.repeats > 0) == (totals.extra > 0));
  }
}

/* ---- the machine -------------------------------------------------------------------------------
 */

/** After the first step no memory is new: pages are touched when the program is made. */
static void no_page_faults(void **state) {
  (void)state;
  trial t;
  const fn_program_options options = {.backend = "cpu", .recompute = FN_RECOMPUTE_AUTO};
  const network large = {"vnet", 140, build_vnet, false};
  require(trial_create(&t, &large, &options, 2, false));
  trial_run(&t, NULL);
  int64_t faults = INT64_MAX; // where memory is short the kernel may take pages away meanwhile
  for (int i = 0; i < 5 && faults >= 20; i++) {
    const int64_t before = fn_page_faults();
    trial_run(&t, NULL);
    faults = fn_page_faults() - before;
  }
  assert_true(t.memory.arena / 4096 > 500); // so many if it were touched only now
  assert_true(faults < 20);
  trial_destroy(&t);
}

int main(void) {
  static char reference[] = "reference", cpu[] = "cpu";
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_prestate(keeps_bits, reference),
      cmocka_unit_test_prestate(keeps_bits, cpu),
      cmocka_unit_test_prestate(one_sum_over_ranks, reference),
      cmocka_unit_test_prestate(one_sum_over_ranks, cpu),
      cmocka_unit_test(impossible_budget),
      cmocka_unit_test(planned_peaks),
      cmocka_unit_test(no_page_faults),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
