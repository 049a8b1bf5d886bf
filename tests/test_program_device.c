/* Programs on a device that has no memory, or cannot make what is asked of it, for a while. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/emulated.h"
#include "graph/program.h"

/* Large enough for its buffers to be made when they are asked for. */
enum { EDGE = 64, COUNT = EDGE * EDGE * EDGE, BYTES = COUNT * sizeof(float) };

static void must(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

typedef struct fixture {
  fn_graph *graph;
  fn_program *program;
} fixture;

/* y = 2 x + 1, in two kernels or one. */
static void make(fixture *f) {
  const fn_shape shape = {.ndim = 5, .dim = {1, 1, EDGE, EDGE, EDGE}};
  must(fn_graph_create(&(fn_graph_options){0}, &f->graph));
  fn_value *x = fn_input(f->graph, "x", &shape);
  const fn_program_output output = {"y", fn_relu(f->graph, fn_add(f->graph, x, x))};
  const fn_program_options options = {
      .backend = "emulated", .precision = FN_F32, .made_inputs = true};
  must(fn_program_create(f->graph, NULL, &options, &output, 1, NULL, NULL, 0, &f->program));
}

static void run(const fixture *f) {
  float *x = fn_program_input(f->program, "x");
  assert_non_null(x);
  for (int i = 0; i < COUNT; i++)
    x[i] = (float)(i % 100) - 50;
  must(fn_program_run(f->program, NULL));
  const float *y = fn_program_output_data(f->program, "y");
  assert_true(y[0] == 0 && y[51] == 2 && y[99] == 98);
}

static size_t used(void) {
  return fn_emulated_bytes(FN_EMULATED_DEVICE) + fn_emulated_bytes(FN_EMULATED_PINNED);
}

static void buffers_are_made_once(void **state) {
  (void)state;
  fixture f;
  make(&f);
  const size_t before = used(), there = fn_emulated_bytes(FN_EMULATED_DEVICE);
  // room for one of two buffers on the device
  fn_emulated_limit(there + BYTES + BYTES / 2);
  assert_null(fn_program_input(f.program, "x"));
  const size_t after = used();
  assert_true(after >= before + 2 * (size_t)BYTES);
  for (int i = 0; i < 3; i++)
    assert_null(fn_program_input(f.program, "x"));
  assert_int_equal(used(), after);
  fn_error_clear();
  fn_emulated_limit(0);
  run(&f);
  assert_int_equal(used(), before + 4 * (size_t)BYTES);
  fn_program_destroy(f.program);
  fn_graph_destroy(f.graph);
}

static int64_t timers_left;
static fn_status (*timer_create)(fn_device *device, fn_event **event);

static fn_status create_few(fn_device *device, fn_event **event) {
  FN_CHECK(timers_left-- > 0, FN_ERR_MEMORY, "no more timers");
  return timer_create(device, event);
}

static void count(void *user, int kernel, double start, double end) {
  assert_true(kernel >= 0 && end >= start);
  ++*(int *)user;
}

static void timers_are_made_in_the_end(void **state) {
  (void)state;
  fixture f;
  int kernels = 0;
  make(&f);
  fn_device *device = fn_program_device(f.program);
  run(&f);
  timer_create = device->timer_create;
  device->timer_create = create_few;
  fn_program_on_kernel(f.program, count, &kernels);
  for (int i = 0; i < 2; i++) {
    timers_left = i;
    assert_int_equal(fn_program_run(f.program, NULL), FN_ERR_MEMORY);
    fn_error_clear();
  }
  device->timer_create = timer_create;
  run(&f);
  assert_int_equal(kernels, fn_program_kernel_count(f.program));
  fn_program_destroy(f.program);
  fn_graph_destroy(f.graph);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(buffers_are_made_once),
      cmocka_unit_test(timers_are_made_in_the_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
