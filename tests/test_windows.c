/* What figures of training show beside the network's output is what evaluation programs have: parts
 * of input and target in float32, bit for bit, whatever the precision of the network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "run/sizes.h"
#include "run/windows.h"

enum { SAMPLES = 2, EDGE = 12, ROOM = SAMPLES * 3 * 40 * 40 * 40 };

static float values[2][ROOM];

static void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

static fn_run *parse(const char *text) {
  fn_run *run = NULL;
  char *errors = NULL;
  if (fn_run_parse(text, "net.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors) != FN_OK)
    fail_msg("%s", errors ? errors : fn_error_message());
  free(errors);
  return run;
}

static void same_window(const fn_program *a, const fn_program *b, const char *name, int64_t edge) {
  const fn_shape *shape = fn_program_output_shape(a, name);
  assert_non_null(shape);
  assert_int_equal(shape->dim[2], edge);
  assert_true(fn_shape_equal(shape, fn_program_output_shape(b, name)));
  assert_memory_equal(fn_program_output_data(a, name), fn_program_output_data(b, name),
                      (size_t)fn_shape_count(shape) * sizeof(float));
}

/* `margin`: cells of the target on each side beyond the network's output, negative: fewer. */
static void compare(const char *text, int64_t margin, int64_t window) {
  fn_run *run = parse(text);
  const fn_dist dist = {.size = 1, .node_size = 1};
  const fn_size_options options = {.edge = EDGE, .channels = {2, 3}, .spatial = 3};
  fn_dataset_info info;
  fn_size_source source;
  fn_engine *engine;
  fn_program *evaluation, *training;
  fn_windows windows;
  require(fn_sizes_find(run, &dist, &options, &info, &source));
  for (int d = 0; d < 3; d++)
    info.target_extent[d] += 2 * margin;
  require(fn_engine_create(run, &dist, &info, &engine));
  require(fn_engine_program(engine, false, true, SAMPLES, &evaluation));
  const fn_shape *in = fn_program_input_shape(evaluation, "input"),
                 *out = fn_program_input_shape(evaluation, "target");
  assert_true(fn_shape_count(in) <= ROOM && fn_shape_count(out) <= ROOM);
  for (int64_t i = 0; i < ROOM; i++) {
    values[0][i] = (float)(i * 37 % 1009) / 13 - 30; // not to be had in 16 bits
    values[1][i] = (float)(i * 53 % 2003) / 17 - 50;
  }
  const fn_batch batch = {.input = values[0],
                          .target = values[1],
                          .count = SAMPLES,
                          .input_values = fn_shape_count(in) / SAMPLES,
                          .target_values = fn_shape_count(out) / SAMPLES};
  require(fn_engine_feed(evaluation, &batch));
  require(fn_program_run(evaluation, &(fn_run_context){0}));
  require(fn_windows_cut(run, &info, &batch, &windows));
  same_window(evaluation, windows.program, "input_window", window);
  same_window(evaluation, windows.program, "target_window", window);
  require(fn_engine_program(engine, true, true, SAMPLES, &training));
  assert_null(fn_program_output_shape(training, "input_window"));
  assert_int_equal(fn_program_output_shape(training, "output_window")->dim[2], window);
  fn_windows_free(&windows);
  fn_engine_destroy(engine);
  fn_run_destroy(run);
}

#define CONVOLUTIONS                                                                               \
  "model: {layers: [conv: {channels: 4, kernel: 3}, conv: {channels: out, kernel: 3}]}\n"
#define CPU "compute: {backend: cpu}\n"
#define NARROW "compute: {backend: emulated, precision: bf16, first_layer_f32: false}\n"

static void parts_of_fields(void **state) {
  (void)state;
  compare(CONVOLUTIONS CPU, 0, 8);
  compare(CONVOLUTIONS CPU, -2, 4);
  compare(CONVOLUTIONS NARROW, 0, 8);
  compare(CONVOLUTIONS NARROW, 1, 8);
  compare(CONVOLUTIONS NARROW, -1, 6);
}

static void whole_fields(void **state) {
  (void)state;
  const char *padded = "model: {layers: [conv: {channels: out, kernel: 3, pad: 1}]}\n";
  char text[256];
  snprintf(text, sizeof text, "%s%s", padded, CPU);
  compare(text, 0, EDGE);
  snprintf(text, sizeof text, "%s%s", padded, NARROW);
  compare(text, 0, EDGE);
}

static void finer_targets(void **state) {
  (void)state;
  compare("model: {layers: [resample: {factor: 2}, conv: {channels: out, kernel: 3}]}\n"
          "data: {scale_factor: 2}\n" CPU,
          0, 2 * EDGE - 2 - 2); // interpolation leaves out the border
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(parts_of_fields),
      cmocka_unit_test(whole_fields),
      cmocka_unit_test(finer_targets),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
