/* RACOON, PENGUIN and o3 against the numbers of the cubes' specification page: parameter counts
 * (1.5, 1.6, 6, 7), names (1.4), and the acceptance vectors of appendix A in double precision on
 * the reference backend and in float32 on both backends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/parameters.h"
#include "graph/program.h"
#include "learn/learn.h"
#include "models/models.h"
#include "run/sizes.h"

enum { SAMPLES = 4, EDGE = 256, LEAVES_MOST = 80 };

static void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

static fn_run *parse(const char *text) {
  fn_run *run = NULL;
  char *errors = NULL;
  const fn_status status = fn_run_parse(text, "net.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors);
  if (status != FN_OK) print_error("%s\n", errors ? errors : fn_error_message());
  assert_int_equal(status, FN_OK);
  free(errors);
  return run;
}

/* ---- counts and names -------------------------------------------------------------------------
 */

static fn_parameters *parameters_of(const char *name, const char *options, int64_t channels,
                                    int64_t edge) {
  char text[256];
  const int64_t extent[2] = {edge, edge};
  snprintf(text, sizeof text, "model: {name: %s, options: {%s}}", name, options);
  fn_run *run = parse(text);
  fn_graph *graph;
  fn_model model;
  fn_parameters *p;
  require(fn_graph_create(&(fn_graph_options){.training = false}, &graph));
  require(fn_model_build(run, graph, 2, 1, channels, 1, extent, NULL, &model));
  assert_int_equal(fn_ndim(model.output), 2);
  require(fn_parameters_create(graph, FN_F32, &p));
  fn_graph_destroy(graph);
  fn_run_destroy(run);
  return p;
}

static void expect_count(const char *name, const char *options, int64_t channels, int64_t edge,
                         int64_t expected) {
  fn_parameters *p = parameters_of(name, options, channels, edge);
  if (p->parameter_total != expected)
    fail_msg("%s {%s}, %lld channels: %lld parameters, expected %lld", name, options,
             (long long)channels, (long long)p->parameter_total, (long long)expected);
  fn_parameters_destroy(p);
}

/** The closed forms for any width and channels, and the table of section 7. */
static void parameter_counts(void **state) {
  (void)state;
  for (int64_t l = 1; l <= 5; l += 2)
    for (int64_t c = 1; c <= 3; c++) {
      char width[32], seven[64], bare[64], first[64];
      snprintf(width, sizeof width, "width: %d", (int)l);
      snprintf(seven, sizeof seven, "width: %d, kernel: 7", (int)l);
      snprintf(bare, sizeof bare, "width: %d, fc_bias: false", (int)l);
      snprintf(first, sizeof first, "width: %d, version: V0", (int)l);
      expect_count("racoon", width, c, 256, 704 * l * l + (16 * c + 28) * l + 1);
      expect_count("racoon", bare, c, 256, 704 * l * l + (16 * c + 27) * l);
      expect_count("racoon", seven, c, 256, 1892 * l * l + (49 * c + 41) * l + 1);
      expect_count("penguin", width, c, 256, 4202 * l * l + (16 * c + 96) * l + 1);
      expect_count("penguin", first, c, 256, 26978 * l * l + (36 * c + 90) * l + 1);
    }
  expect_count("racoon", "width: 16", 1, 256, 180929);
  expect_count("racoon", "width: 32", 1, 256, 722305);
  expect_count("racoon", "", 1, 256, 2886401);
  expect_count("racoon", "width: 64, kernel: 7", 1, 256, 7755393);
  expect_count("penguin", "width: 16", 1, 256, 1077505);
  expect_count("penguin", "width: 32", 1, 256, 4306433);
  expect_count("penguin", "", 1, 256, 17218561);
  expect_count("penguin", "width: 16, version: V5", 1, 256, 1078001);
  expect_count("o3", "width: 6", 1, 256, 8462641);
  expect_count("o3", "width: 8", 1, 256, 15040257);
  // At edge 64 the last convolution leaves one cell: the dense layer has 8 L inputs, not 128 L.
  expect_count("racoon", "width: 16", 1, 64, 180929 - 120 * 16 * 16);
  expect_count("penguin", "width: 16", 1, 128, 1077505 - (160 - 40) * 16 * 160);
}

static void parameter_names(void **state) {
  (void)state;
  fn_parameters *p = parameters_of("racoon", "width: 2", 1, 64);
  const char *const racoon[] = {"conv2d1.0.weight",      "conv2d1.1.weight",
                                "conv2d1.1.bias",        "conv2d1.1.running_mean",
                                "conv2d1.1.running_var", "conv2d1.1.num_batches_tracked"};
  for (int i = 0; i < 6; i++)
    assert_string_equal(p->entry[i].name, racoon[i]);
  const char *const end[] = {"fc1.1.weight", "fc1.1.bias", "output.0.weight", "output.0.bias"};
  assert_int_equal(p->entry_count, 3 * 6 + 4);
  for (int i = 0; i < 4; i++)
    assert_string_equal(p->entry[18 + i].name, end[i]);
  fn_parameters_destroy(p);
  p = parameters_of("penguin", "width: 2", 1, 64);
  const char *const penguin[] = {
      "conv2d6.0.weight", "conv2d6.1.running_var", "fc1.1.weight", "fc1.1.bias",
      "fc1.2.weight",     "fc1.2.running_mean",    "fc2.0.weight", "fc2.0.bias",
      "fc2.1.bias",       "output.0.weight",       "output.0.bias"};
  assert_int_equal(p->entry_count, 6 * 6 + 2 * 7 + 2);
  for (size_t i = 0; i < sizeof penguin / sizeof *penguin; i++)
    assert_non_null(fn_parameters_find(p, penguin[i]));
  const fn_tensor_entry *conv = fn_parameters_find(p, "conv2d2.0.weight");
  assert_true(fn_shape_equal(&conv->shape, &(fn_shape){4, {4, 2, 4, 4}}));
  fn_parameters_destroy(p);
}

/** o3 draws weights of N(0, sqrt(2 / fan_in)): 2 x 12 x 3 x 3 x 12 values of its second layer. */
static void o3_initial_values(void **state) {
  (void)state;
  fn_parameters *p = parameters_of("o3", "width: 24", 1, 256);
  fn_parameters_initialise(p, 1, -1);
  const fn_tensor_entry *entry = fn_parameters_find(p, "stage0.3.weight");
  assert_int_equal(entry->count, 48 * 48 * 9);
  const float *w = fn_parameters_data(p, entry);
  double sum = 0, square = 0;
  for (int64_t i = 0; i < entry->count; i++) {
    sum += (double)w[i];
    square += (double)w[i] * (double)w[i];
  }
  const double count = (double)entry->count, std = sqrt(2.0 / (48 * 9));
  // five standard errors of mean and standard deviation
  assert_true(fabs(sum / count) < 5 * std / sqrt(count));
  assert_true(fabs(sqrt(square / count) - std) < 5 * std / sqrt(2 * count));
  fn_parameters_destroy(p);
}

/* ---- what a wrong setting says ----------------------------------------------------------------
 */

static void expect_error(const char *text, const fn_size_options *sizes, const char *words) {
  fn_run *run = parse(text);
  const fn_dist dist = {.size = 1, .node_size = 1};
  fn_dataset_info info;
  fn_size_source source;
  assert_int_equal(fn_sizes_find(run, &dist, sizes, &info, &source), FN_ERR_CONFIG);
  if (!strstr(fn_error_message(), words))
    fail_msg("expected '%s' in: %s", words, fn_error_message());
  fn_run_destroy(run);
}

static void errors(void **state) {
  (void)state;
  const fn_size_options good = {.edge = 128}, odd = {.edge = 100},
                        cube = {.edge = 64, .spatial = 3};
  expect_error("model: {name: racoon}", &odd, "0 modulo 64 and at least 64");
  expect_error("model: {name: racoon}", &cube, "samples of 2 axes, not 3");
  expect_error("model: {name: o3}", &good, "0 modulo 64 and at least 256");
  expect_error("model: {name: racoon, options: {kernel: 5}}", &good, "must be 4 or 7, not 5");
  expect_error("model: {name: penguin, options: {kernel: 7}}", &good, "kernel");
  expect_error("model: {name: penguin, options: {version: V7}}", &good, "V0 to V6, not V7");
  expect_error("model: {name: racoon, options: {activation: gelu}}", &good, "not gelu");
  expect_error("model: {name: racoon, options: {dropout: 1}}", &good, "[0, 1), not 1");
}

/** Sizes without data: two axes, and a target without any. */
static void sizes_of_a_classifier(void **state) {
  (void)state;
  fn_run *run = parse("model: {name: penguin, options: {width: 2}}");
  const fn_dist dist = {.size = 1, .node_size = 1};
  const fn_size_options options = {.edge = 128, .channels = {1, 1}};
  fn_dataset_info info;
  fn_size_source source;
  require(fn_sizes_find(run, &dist, &options, &info, &source));
  assert_int_equal(info.spatial, 2);
  assert_int_equal(info.target_spatial, 0);
  fn_engine *engine;
  fn_program *program;
  require(fn_engine_create(run, &dist, &info, &engine));
  require(fn_engine_program_with(engine, true, true, 3, false, true, &program));
  assert_true(fn_shape_equal(fn_program_input_shape(program, "target"), &(fn_shape){2, {3, 1}}));
  fn_program *evaluation;
  require(fn_engine_program_with(engine, false, true, 3, false, true, &evaluation));
  assert_null(fn_program_output_shape(evaluation, "input_window"));
  require(fn_engine_warn_narrow(engine));
  // One sample has no batch statistics after the dense layers.
  assert_int_equal(fn_engine_program_with(engine, true, true, 1, false, true, &program),
                   FN_ERR_CONFIG);
  fn_engine_destroy(engine);
  // A target that is a field does not fit a classifier.
  info.target_spatial = 2;
  require(fn_engine_create(run, &dist, &info, &engine));
  assert_int_equal(fn_engine_program_with(engine, true, true, 3, false, true, &program),
                   FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "output has 0 spatial axes, but the target has 2"));
  fn_engine_destroy(engine);
  fn_run_destroy(run);
}

/* ---- acceptance vectors -----------------------------------------------------------------------
 */

typedef struct vectors {
  const char *name;
  int tensors;
  int64_t parameters;
  double eval[SAMPLES], train[SAMPLES], loss, norm, kernel[3], mean[4], var[4];
  double loss_after, eval_after[SAMPLES], eval_loss_after;
} vectors;

static const vectors racoon = {
    .name = "racoon",
    .tensors = 13,
    .parameters = 11441,
    .eval = {0.2312593620, 0.2351033722, 0.2358895176, 0.2423637657},
    .train = {0.5975648180, 0.3291599690, 0.1775478160, 3.1434550084},
    .loss = 0.601512905509,
    .norm = 10.011107633645,
    .kernel = {-5.524234e-01, -5.531651e-01, -5.534090e-01},
    .mean = {-0.00005913, -0.00003872, -0.00001325, 0.00001394},
    .var = {0.90345704, 0.90282824, 0.90216216, 0.90179505},
    .loss_after = 0.472801544740,
    .eval_after = {0.2178661838, 0.2391246407, 0.1897682204, 0.2360879794},
    .eval_loss_after = 0.690824391429,
};

static const vectors penguin = {
    .name = "penguin",
    .tensors = 28,
    .parameters = 67681,
    .eval = {0.0305141437, 0.0305127983, 0.0304982674, 0.0305155733},
    .train = {-0.0649074000, -0.1845570682, -0.1502612334, -0.1699035906},
    .loss = 0.713359156108,
    .norm = 22.730312890585,
    .kernel = {1.983318e-02, 2.261390e-02, 2.567346e-02},
    .mean = {-0.00000473, 0.00001687, 0.00003627, 0.00005094},
    .var = {0.90347032, 0.90290204, 0.90226961, 0.90189230},
    .loss_after = 0.661598153729,
    .eval_after = {0.0309793043, 0.0306170266, 0.0302611233, 0.0305867100},
    .eval_loss_after = 0.693268899934,
};

/** A network with its programs. */
typedef struct classifier {
  fn_run *run;
  fn_dtype dtype;
  fn_graph *graph[2];     /**< evaluation, training */
  fn_program *program[2]; /**< likewise */
  fn_parameters *parameters;
} classifier;

static double get(const classifier *c, const void *values, int64_t i) {
  return c->dtype == FN_F64 ? ((const double *)values)[i] : (double)((const float *)values)[i];
}

static void set(const classifier *c, void *values, int64_t i, double value) {
  if (c->dtype == FN_F64)
    ((double *)values)[i] = value;
  else
    ((float *)values)[i] = (float)value;
}

/** One program as the engine makes it: fused, differentiated, fused again. */
static void compile(classifier *c, bool training, const char *backend) {
  const int64_t extent[2] = {EDGE, EDGE};
  fn_graph **graph = &c->graph[training];
  fn_model model;
  require(fn_graph_create(&(fn_graph_options){.training = training}, graph));
  require(fn_model_build(c->run, *graph, 2, SAMPLES, 1, 1, extent, extent, &model));
  if (!c->parameters) require(fn_parameters_create(*graph, c->dtype, &c->parameters));
  fn_value *wrt[LEAVES_MOST], *gradient[LEAVES_MOST + 2];
  fn_value *keep[] = {model.loss, model.output};
  require(fn_graph_fuse_forward(*graph, keep, 2));
  int count = 0;
  for (int i = 0; training && i < fn_graph_leaf_count(*graph); i++) {
    fn_value *leaf = fn_graph_leaf(*graph, i);
    if (fn_value_leaf(leaf)->kind == FN_LEAF_PARAMETER) wrt[count++] = leaf;
  }
  if (training) {
    require(fn_differentiate(*graph, model.loss, wrt, count, gradient));
    gradient[count] = model.loss;
    gradient[count + 1] = model.output;
    require(fn_graph_fuse_backward(*graph, gradient, count + 2));
  }
  const fn_program_output outputs[] = {{"loss", model.loss}, {"output", model.output}};
  const fn_program_options options = {.backend = backend, .precision = c->dtype, .check = true};
  require(fn_program_create(*graph, c->parameters, &options, outputs, 2, wrt, gradient, count,
                            &c->program[training]));
}

/** Appendix A.1: weights and inputs. */
static void fill(classifier *c) {
  const fn_parameters *p = c->parameters;
  for (int e = 0, t = 0; e < p->entry_count; e++) {
    const fn_tensor_entry *entry = &p->entry[e];
    void *values = fn_parameters_data(p, entry);
    const bool is_var = entry->is_buffer && strstr(entry->name, "running_var");
    for (int64_t k = 0; k < entry->count; k++) {
      const double s = sin(0.37 * (double)k + 0.11 * t);
      const double fan_in = (double)(entry->count / entry->shape.dim[0]);
      if (entry->is_buffer)
        set(c, values, k, is_var ? 1 : 0);
      else if (entry->role == FN_ROLE_WEIGHT)
        set(c, values, k, s / sqrt(fan_in));
      else
        set(c, values, k, (entry->role == FN_ROLE_NORM_SCALE ? 1 : 0) + 0.1 * s);
    }
    t += !entry->is_buffer;
  }
}

static void feed(const classifier *c, fn_program *program) {
  void *x = fn_program_input(program, "input"), *y = fn_program_input(program, "target");
  double sum = 0;
  for (int n = 0; n < SAMPLES; n++) {
    set(c, y, n, n % 2);
    for (int i = 1; i <= EDGE; i++)
      for (int j = 1; j <= EDGE; j++) {
        const double value = sin(0.05 * (n + 1) * i) * cos(0.03 * j);
        set(c, x, ((int64_t)n * EDGE + i - 1) * EDGE + j - 1, value);
        sum += value;
      }
  }
  assert_true(fabs(sum - 203.2579464905) < 1e-10);
}

static void run(const classifier *c, bool training) {
  feed(c, c->program[training]);
  require(fn_program_run(c->program[training], NULL));
}

static void expect(const char *what, double found, double expected, double tolerance) {
  if (!(fabs(found - expected) <= tolerance))
    fail_msg("%s: %.12g, expected %.12g +- %.2g", what, found, expected, tolerance);
}

/** Numbers with the digits of the page: half a unit of the last digit and what float32 adds. */
typedef struct tolerance {
  double value, loss, norm, gradient, statistic;
  double after; /**< logits in evaluation mode after a step of the optimizer */
} tolerance;

static void expect_outputs(const classifier *c, bool training, const char *what,
                           const double *logits, double value, double loss, const tolerance *t) {
  const void *output = fn_program_output_data(c->program[training], "output");
  for (int n = 0; n < SAMPLES && logits; n++)
    expect(what, get(c, output, n), logits[n], value);
  if (loss > 0)
    expect(what, get(c, fn_program_output_data(c->program[training], "loss"), 0), loss, t->loss);
}

static void expect_gradient(const classifier *c, const vectors *v, const tolerance *t) {
  const fn_parameters *p = c->parameters;
  double square = 0;
  for (int64_t i = 0; i < p->count; i++)
    square += get(c, p->gradients, i) * get(c, p->gradients, i);
  expect("gradient norm", sqrt(square), v->norm, t->norm);
  const fn_tensor_entry *first = fn_parameters_find(p, "conv2d1.0.weight");
  for (int i = 0; i < 3; i++)
    expect("first kernel's gradient", get(c, fn_parameters_gradient(p, first), i), v->kernel[i],
           t->gradient);
}

static void expect_statistics(const classifier *c, const vectors *v, const tolerance *t) {
  const fn_parameters *p = c->parameters;
  const void *mean = fn_parameters_data(p, fn_parameters_find(p, "conv2d1.1.running_mean"));
  const void *var = fn_parameters_data(p, fn_parameters_find(p, "conv2d1.1.running_var"));
  for (int i = 0; i < 4; i++) {
    expect("running mean", get(c, mean, i), v->mean[i], t->statistic);
    expect("running variance", get(c, var, i), v->var[i], t->statistic);
  }
}

/** The first step of Adam with coupled weight decay (page, 3.1), in double precision. */
static void plain_adam(const classifier *c) {
  const double beta1 = 0.5, beta2 = 0.999, lr = 1e-3, decay = 1e-11;
  for (int64_t i = 0; i < c->parameters->count; i++) {
    const double w = get(c, c->parameters->values, i);
    const double g = get(c, c->parameters->gradients, i) + decay * w;
    const double m = (1 - beta1) * g / (1 - beta1), v = (1 - beta2) * g * g / (1 - beta2);
    set(c, c->parameters->values, i, w - lr * m / (sqrt(v) + 1e-8));
  }
}

static void optimizer_step(const classifier *c) {
  fn_optimizer *optimizer;
  if (c->dtype == FN_F64) {
    plain_adam(c);
    return;
  }
  require(fn_optimizer_create(c->run, c->parameters, &optimizer));
  fn_optimizer_step(optimizer, 1e-3, 1);
  fn_optimizer_destroy(optimizer);
}

static int trainable_tensors(const fn_parameters *p) {
  int count = 0;
  for (int e = 0; e < p->entry_count; e++)
    count += !p->entry[e].is_buffer;
  return count;
}

static void check_vectors(const vectors *v, const char *backend, fn_dtype dtype,
                          const tolerance *t) {
  char text[256];
  snprintf(text, sizeof text,
           "model: {name: %s, options: {width: 4, dropout: 0}}\nloss: {name: bce_with_logits}\n"
           "optimizer: {name: adam, lr: 0.001, betas: [0.5, 0.999], weight_decay: 1.0e-11}\n",
           v->name);
  classifier c = {.run = parse(text), .dtype = dtype};
  compile(&c, false, backend);
  compile(&c, true, backend);
  assert_int_equal(trainable_tensors(c.parameters), v->tensors);
  assert_int_equal(c.parameters->parameter_total, v->parameters);
  fill(&c);
  run(&c, false);
  expect_outputs(&c, false, "evaluation", v->eval, t->value, 0, t);
  run(&c, true);
  expect_outputs(&c, true, "training", v->train, t->value, v->loss, t);
  expect_gradient(&c, v, t);
  expect_statistics(&c, v, t);
  optimizer_step(&c);
  run(&c, true);
  expect_outputs(&c, true, "training after a step", NULL, 0, v->loss_after, t);
  run(&c, false);
  expect_outputs(&c, false, "evaluation after a step", v->eval_after, t->after, v->eval_loss_after,
                 t);
  for (int i = 0; i < 2; i++) {
    fn_program_destroy(c.program[i]);
    fn_graph_destroy(c.graph[i]);
  }
  fn_parameters_destroy(c.parameters);
  fn_run_destroy(c.run);
}

/** Half a unit of the last digit printed, plus rounding in double precision (the gradient's norm
 *  has more digits than can be had twice). */
static const tolerance exact = {.value = 5.1e-11,
                                .loss = 6e-13,
                                .norm = 3e-10,
                                .gradient = 5.1e-8,
                                .statistic = 5.1e-9,
                                .after = 5.1e-11};

/** Float32, 2^-24 = 6e-8 per rounding; norms over four samples magnify what comes before. */
static const tolerance single = {
    .value = 3e-6, .loss = 5e-6, .norm = 5e-4, .gradient = 1e-5, .statistic = 1e-7, .after = 3e-6};

/** The biases of PENGUIN's dense layers before batch norm have no gradient but rounding (1e-8),
 * which Adam makes steps of up to lr = 1e-3 of; running means see them, batch means do not. */
static const tolerance single_penguin = {
    .value = 3e-6, .loss = 5e-6, .norm = 5e-4, .gradient = 1e-5, .statistic = 1e-7, .after = 5e-4};

static void racoon_exact(void **state) {
  (void)state;
  check_vectors(&racoon, "reference", FN_F64, &exact);
}

static void penguin_exact(void **state) {
  (void)state;
  check_vectors(&penguin, "reference", FN_F64, &exact);
}

static void in_single_precision(void **state) {
  (void)state;
  const fn_backend *cpu;
  check_vectors(&racoon, "reference", FN_F32, &single);
  check_vectors(&penguin, "reference", FN_F32, &single_penguin);
  if (fn_backend_find("cpu", &cpu) != FN_OK || cpu->missing) skip();
  check_vectors(&racoon, "cpu", FN_F32, &single);
  check_vectors(&penguin, "cpu", FN_F32, &single_penguin);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parameter_counts),      cmocka_unit_test(parameter_names),
      cmocka_unit_test(o3_initial_values),     cmocka_unit_test(errors),
      cmocka_unit_test(sizes_of_a_classifier), cmocka_unit_test(racoon_exact),
      cmocka_unit_test(penguin_exact),         cmocka_unit_test(in_single_precision)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
