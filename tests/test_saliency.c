/* The gradient of a logit by the network's input against finite differences of the logit. */
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
#include "run/saliency_program.h"

enum { EDGE = 64, CELLS = EDGE * EDGE, SAMPLES = 3 };

static const int64_t numbers[SAMPLES] = {4, 9, 2};
static float input[SAMPLES * CELLS], gradient[SAMPLES * CELLS], other[SAMPLES * CELLS];

static void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

static fn_run *run_of(const char *network, const char *backend) {
  char text[256];
  snprintf(text, sizeof text,
           "model: {name: %s, options: {width: 4}}\ncompute: {backend: %s, threads: 1}\n", network,
           backend);
  fn_run *run = NULL;
  char *errors = NULL;
  if (fn_run_parse(text, "net.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors) != FN_OK)
    fail_msg("%s", errors ? errors : fn_error_message());
  return run;
}

static fn_saliency_program *open_program(const fn_run *run, int64_t batch, fn_engine **engine) {
  const fn_dist dist = {.size = 1, .cores = 1};
  const fn_dataset_info info = {.spatial = 2,
                                .input_channels = 1,
                                .target_channels = 1,
                                .input_extent = {EDGE, EDGE},
                                .size = {EDGE, EDGE, EDGE},
                                .cubes = true};
  fn_saliency_program *program = NULL;
  require(fn_engine_create(run, &dist, &info, engine));
  // Statistics of an untrained network let little through: raise its logits above rounding.
  fn_parameters *parameters = fn_engine_parameters(*engine);
  const float gain = strcmp(run->model.name, "penguin") == 0 ? 1.6F : 2;
  for (int64_t i = 0; i < parameters->count; i++)
    ((float *)parameters->values)[i] *= gain;
  require(fn_saliency_program_create(run, *engine, &info, batch, &program));
  return program;
}

static float tolerance_of(const float *logit) {
  float largest = 1;
  for (int s = 0; s < SAMPLES; s++)
    largest = fmaxf(largest, fabsf(logit[s]));
  return 1e-6F * largest;
}

static void fill_input(void) {
  fn_random random = fn_random_stream(7, FN_RANDOM_TEST, 0, 0);
  for (int i = 0; i < SAMPLES * CELLS; i++)
    input[i] = (float)fn_random_normal(&random);
}

/** Logit of sample `which`, moved by `step` along `direction`. */
static double moved(fn_saliency_program *p, int which, const double *direction, double step) {
  static float x[CELLS], ignored[CELLS];
  float logit;
  for (int i = 0; i < CELLS; i++)
    x[i] = (float)((double)input[which * CELLS + i] + step * direction[i]);
  require(fn_saliency_run(p, x, 1, &numbers[which], &logit, ignored));
  return (double)logit;
}

static void compare(fn_saliency_program *p, int which, const double *direction, double length) {
  const double step = 0.02;
  double slope = 0;
  for (int i = 0; i < CELLS; i++)
    slope += direction[i] * (double)gradient[which * CELLS + i];
  const double difference =
      (moved(p, which, direction, step) - moved(p, which, direction, -step)) / (2 * step);
  // against the length of the gradient: a leaky ReLU bends somewhere in every step
  if (!(fabs(difference - slope) < 0.01 * length))
    fail_msg("slope %.8g, finite difference %.8g, gradient of length %.8g", slope, difference,
             length);
}

static void check_network(const char *network, const char *backend) {
  fn_run *run = run_of(network, backend);
  fn_engine *engine;
  fn_saliency_program *p = open_program(run, SAMPLES, &engine);
  float logit[SAMPLES];
  static double direction[CELLS];
  fill_input();
  require(fn_saliency_run(p, input, SAMPLES, numbers, logit, gradient));
  for (int s = 0; s < SAMPLES; s++) {
    double length = 0;
    for (int i = 0; i < CELLS; i++)
      length += pow((double)gradient[s * CELLS + i], 2);
    length = sqrt(length);
    assert_true(length > 0.01);
    for (int i = 0; i < CELLS; i++)
      direction[i] = (double)gradient[s * CELLS + i] / length;
    compare(p, s, direction, length); // along the gradient the slope is its length
    fn_random random = fn_random_stream(8, FN_RANDOM_TEST, 0, (uint64_t)s);
    for (int i = 0; i < CELLS; i++) // some cells more than others
      direction[i] *= 2 * fn_random_uniform(&random);
    compare(p, s, direction, length);
  }
  fn_saliency_program_destroy(p);
  fn_engine_destroy(engine);
  fn_run_destroy(run);
}

static void gradients_are_slopes(void **state) {
  (void)state;
  check_network("racoon", "reference");
  check_network("racoon", "cpu");
  check_network("penguin", "cpu");
}

/** Samples of a batch do not see each other, nor what fills a short batch. */
static void batches_do_not_matter(void **state) {
  (void)state;
  fn_run *run = run_of("penguin", "cpu");
  fn_engine *engine;
  fn_saliency_program *p = open_program(run, SAMPLES, &engine);
  float logit[SAMPLES], one;
  fill_input();
  require(fn_saliency_run(p, input, SAMPLES, numbers, logit, gradient));
  for (int s = 0; s < SAMPLES; s++) {
    require(fn_saliency_run(p, input + s * CELLS, 1, numbers + s, &one, other));
    assert_float_equal(one, logit[s], tolerance_of(logit));
    for (int i = 0; i < CELLS; i++)
      assert_float_equal(other[i], gradient[s * CELLS + i], tolerance_of(logit));
  }
  fn_saliency_program_destroy(p);
  fn_engine_destroy(engine);
  fn_run_destroy(run);
}

static void logits_are_those_of_the_network(void **state) {
  (void)state;
  fn_run *run = run_of("racoon", "cpu");
  fn_engine *engine;
  fn_program *program;
  fn_saliency_program *p = open_program(run, SAMPLES, &engine);
  float logit[SAMPLES];
  fill_input();
  require(fn_saliency_run(p, input, SAMPLES, numbers, logit, gradient));
  require(fn_engine_program(engine, false, false, SAMPLES, &program));
  memcpy(fn_program_input(program, "input"), input, sizeof input);
  require(fn_program_run(program, &(fn_run_context){.sample = numbers}));
  const float *wanted = fn_program_output_data(program, "output");
  for (int s = 0; s < SAMPLES; s++)
    assert_float_equal(logit[s], wanted[s], tolerance_of(logit));
  fn_saliency_program_destroy(p);
  fn_engine_destroy(engine);
  fn_run_destroy(run);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(gradients_are_slopes),
      cmocka_unit_test(batches_do_not_matter),
      cmocka_unit_test(logits_are_those_of_the_network),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
