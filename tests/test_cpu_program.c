/* Whole networks on the cpu backend: loss, output and every gradient against the reference backend
 * in double precision, with windows of concats, in-place results and reorders as they come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "graph/parameters.h"
#include "graph/program.h"
#include "models/models.h"
#include "ops/ops.h"

static void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/** A network with loss and gradients, and a program of it. */
typedef struct trial {
  fn_graph *graph;
  fn_parameters *parameters;
  fn_program *program;
  int norms, residuals; /**< readers_of_y() before and after fn_graph_take_lines() */
} trial;

enum { PARAMETERS_MOST = 200 };

static void fill(void *to, bool wide, int64_t count, uint64_t stream) {
  fn_random random = fn_random_stream(7, FN_RANDOM_TEST, 1, stream);
  for (int64_t i = 0; i < count; i++) {
    const float value = (float)fn_random_normal(&random);
    if (wide)
      ((double *)to)[i] = (double)value;
    else
      ((float *)to)[i] = value;
  }
}

/** Gradients of batch norm that still read its output. */
static int readers_of_y(const fn_graph *g) {
  int count = 0;
  for (int n = 0; n < fn_graph_node_count(g); n++) {
    const fn_node *node = fn_graph_node(g, n);
    count += node->op == &fn_op_batch_norm_grad && node->input[5];
  }
  return count;
}

/** lines: gradients of batch norm take the line instead of y. */
static void trial_run(trial *t, const char *network, const fn_shape *shape, const char *backend,
                      fn_dtype precision, bool check, bool lines) {
  const bool wide = precision == FN_F64;
  const fn_network *net = NULL;
  require(fn_network_find(network, &net));
  require(fn_graph_create(&(fn_graph_options){.training = true}, &t->graph));
  fn_graph *g = t->graph;
  fn_value *x = fn_input(g, "x", shape);
  fn_value *y = net->build(g, x, shape->dim[1], NULL);
  require(fn_graph_status(g));
  fn_value *target = fn_input(g, "target", fn_value_shape(y));
  fn_value *keep[] = {y};
  require(fn_graph_fuse_forward(g, keep, 1));
  y = keep[0];
  fn_value *loss = fn_mse(g, y, target);
  fn_value *wrt[PARAMETERS_MOST], *gradient[PARAMETERS_MOST + 2];
  int count = 0;
  for (int i = 0; i < fn_graph_leaf_count(g); i++) {
    fn_value *leaf = fn_graph_leaf(g, i);
    if (fn_value_leaf(leaf)->kind == FN_LEAF_PARAMETER) wrt[count++] = leaf;
    assert_in_range(count, 0, PARAMETERS_MOST - 1);
  }
  require(fn_differentiate(g, loss, wrt, count, gradient));
  gradient[count] = y;
  gradient[count + 1] = loss;
  require(fn_graph_fuse_backward(g, gradient, count + 2));
  t->norms = readers_of_y(g);
  if (lines) require(fn_graph_take_lines(g));
  t->residuals = readers_of_y(g);
  if (precision == FN_BF16) require(fn_graph_apply_bf16(g, true));
  require(fn_parameters_create(g, wide ? FN_F64 : FN_F32, &t->parameters));
  fn_parameters_initialise(t->parameters, 3, -1);
  const fn_program_options options = {.backend = backend, .precision = precision, .check = check};
  const fn_program_output outputs[] = {{"y", gradient[count]}, {"loss", gradient[count + 1]}};
  require(
      fn_program_create(g, t->parameters, &options, outputs, 2, wrt, gradient, count, &t->program));
  fill(fn_program_input(t->program, "x"), wide, fn_shape_count(shape), 1);
  fill(fn_program_input(t->program, "target"), wide, fn_shape_count(fn_value_shape(y)), 2);
  require(fn_program_run(t->program, NULL));
}

static void trial_free(trial *t) {
  fn_program_destroy(t->program);
  fn_parameters_destroy(t->parameters);
  fn_graph_destroy(t->graph);
}

/** Relative error in the Euclidean norm of f32 values against f64 ones. */
static double distance(const float *found, const double *expected, int64_t count) {
  double apart = 0, size = 1e-300;
  for (int64_t i = 0; i < count; i++) {
    const double d = (double)found[i] - expected[i];
    apart += d * d;
    size += expected[i] * expected[i];
  }
  return sqrt(apart / size);
}

static double norm(const double *values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++)
    sum += values[i] * values[i];
  return sqrt(sum);
}

/** Worst relative error of found (f32) against exact (f64) over output, loss, gradients and
 * buffers. Gradients that are zero but for rounding, e.g. of a bias before batch norm, are measured
 * against the largest one. */
static double worst(const trial *found, const trial *exact, const char **name) {
  const int64_t cells = fn_shape_count(fn_program_output_shape(exact->program, "y"));
  double result = 0, largest = 0;
  const char *const outputs[] = {"y", "loss"};
  for (int i = 0; i < 2; i++) {
    const double off =
        distance(fn_program_output_data(found->program, outputs[i]),
                 fn_program_output_data(exact->program, outputs[i]), i == 0 ? cells : 1);
    if (!(off <= result)) result = off, *name = outputs[i];
  }
  for (int i = 0; i < exact->parameters->entry_count; i++) {
    const fn_tensor_entry *e = &exact->parameters->entry[i];
    if (!e->is_buffer)
      largest = fmax(largest, norm(fn_parameters_gradient(exact->parameters, e), e->count));
  }
  for (int i = 0; i < exact->parameters->entry_count; i++) {
    const fn_tensor_entry *e = &exact->parameters->entry[i];
    const fn_tensor_entry *f = fn_parameters_find(found->parameters, e->name);
    assert_non_null(f);
    const double *expected = e->is_buffer ? fn_parameters_data(exact->parameters, e)
                                          : fn_parameters_gradient(exact->parameters, e);
    const float *values = e->is_buffer ? fn_parameters_data(found->parameters, f)
                                       : fn_parameters_gradient(found->parameters, f);
    const double share = e->is_buffer ? 1 : norm(expected, e->count) / largest;
    const double off = distance(values, expected, e->count) * fmin(1, share * 1e3);
    if (!(off <= result)) result = off, *name = e->name;
  }
  return result;
}

static void networks(void **state) {
  (void)state;
  const struct {
    const char *network;
    fn_shape shape;
  } cases[] = {
      {"vnet", {3, {2, 3, 48}}},
      {"unet", {3, {3, 2, 60}}},
      {"vnet", {4, {1, 3, 44, 48}}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    trial exact = {0};
    trial_run(&exact, cases[i].network, &cases[i].shape, "reference", FN_F64, false, false);
    for (int check = 0; check < 2; check++) {
      trial found = {0};
      trial_run(&found, cases[i].network, &cases[i].shape, "cpu", FN_F32, check, check);
      const char *name = "";
      const double off = worst(&found, &exact, &name);
      if (!(off <= 2e-4)) fail_msg("%s is off by %g", name, off);
      for (int k = 0; k < fn_program_kernel_count(found.program); k++) {
        fn_kernel_info info;
        fn_program_kernel_info(found.program, k, &info);
        assert_string_equal(info.backend, "cpu");
      }
      trial_free(&found);
    }
    // Rounding to bf16 costs what it costs the reference, where only it differs from exact.
    trial half = {0}, slow = {0};
    const char *name = "", *slow_name = "";
    trial_run(&half, cases[i].network, &cases[i].shape, "cpu", FN_BF16, true, true);
    trial_run(&slow, cases[i].network, &cases[i].shape, "reference", FN_BF16, false, true);
    const double off = worst(&half, &exact, &name), slow_off = worst(&slow, &exact, &slow_name);
    if (!(off <= 2 * slow_off))
      fail_msg("bf16: %s is off by %g, in the reference %s by %g", name, off, slow_name, slow_off);
    trial_free(&half);
    trial_free(&slow);
    trial_free(&exact);
  }
}

/** The sign of y is that of the line at x, to the last bit: so are the gradients. */
static void lines_change_no_bit(void **state) {
  (void)state;
  const struct {
    const char *network;
    fn_shape shape;
    fn_dtype precision;
    int norms, residuals; /**< with an activation, of these with a residual */
  } cases[] = {
      {"racoon", {4, {5, 1, 64, 64}}, FN_F32, 3, 0},
      {"unet", {3, {3, 2, 60}}, FN_F32, 11, 0},
      {"vnet", {4, {1, 3, 44, 48}}, FN_F32, 11, 4},
      {"vnet", {4, {1, 3, 44, 48}}, FN_BF16, 11, 4},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    trial with = {0}, without = {0};
    trial_run(&with, cases[i].network, &cases[i].shape, "cpu", cases[i].precision, false, true);
    trial_run(&without, cases[i].network, &cases[i].shape, "cpu", cases[i].precision, false, false);
    assert_int_equal(with.norms, cases[i].norms);
    assert_int_equal(with.residuals, cases[i].residuals);
    for (int k = 0; k < with.parameters->entry_count; k++) {
      const fn_tensor_entry *e = &with.parameters->entry[k];
      if (e->is_buffer) continue;
      assert_memory_equal(fn_parameters_gradient(with.parameters, e),
                          fn_parameters_gradient(without.parameters, e),
                          (size_t)e->count * sizeof(float));
    }
    trial_free(&with);
    trial_free(&without);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(networks),
                                     cmocka_unit_test(lines_change_no_bit)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
