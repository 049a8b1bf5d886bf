/* The R1 penalty (Mescheder et al. 2018) of a small convolutional critic: its gradient with respect
 * to all parameters is a derivative of a derivative through every layer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "backend/backends.h"
#include "base/random.h"
#include "graph/program.h"

enum { MAX_PARAMETERS = 16 };

typedef struct variant {
  int spatial;
  bool batch_norm;
  bool fuse; /**< merge activations into convolutions and norms first */
} variant;

typedef struct critic {
  fn_graph *graph;
  fn_parameters *parameters;
  fn_program *program;
  fn_dtype dtype;
  fn_value *input, *penalty;
} critic;

static const double gamma_r1 = 10;

static void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/** x [N, 2, s...] -> score [N]: conv, (norm), leaky, strided conv, leaky, conv, mean over space. */
static fn_value *build_score(fn_graph *graph, fn_value *x, const variant *v) {
  const int64_t kernel[] = {3, 3, 3}, one[] = {1, 1, 1};
  const fn_conv_geometry strided = {.stride = {2, 2, 2}, .pad_low = {1, 1, 1}};
  fn_scope_push(graph, "first");
  x = fn_layer_conv(graph, x, 5, kernel, NULL, !v->batch_norm);
  fn_scope_pop(graph);
  fn_scope_push(graph, "norm");
  if (v->batch_norm) x = fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  x = fn_leaky_relu(graph, x, 0.2);
  fn_scope_push(graph, "second");
  x = fn_layer_conv(graph, x, 4, kernel, &strided, true);
  x = fn_leaky_relu(graph, x, 0.2);
  fn_scope_pop(graph);
  fn_scope_push(graph, "last");
  // A smooth nonlinearity, so that curvature itself is tested and not only slopes.
  x = fn_softplus(graph, fn_layer_conv(graph, x, 3, one, NULL, true));
  fn_scope_pop(graph);
  return fn_mean(graph, x, FN_ALL_AXES & ~1u, false);
}

/** 0.5 gamma mean_n |d score_n / d x_n|^2 */
static fn_value *build_penalty(fn_graph *graph, fn_value *x, const variant *v) {
  fn_value *score = build_score(graph, x, v), *slope = NULL;
  if (v->fuse) require(fn_graph_fuse_forward(graph, &score, 1));
  fn_value *total = fn_sum(graph, score, FN_ALL_AXES, false);
  require(fn_differentiate(graph, total, &x, 1, &slope));
  fn_value *square = fn_sum(graph, fn_square(graph, slope), FN_ALL_AXES & ~1u, false);
  return fn_affine(graph, fn_mean(graph, square, 1u, false), 0.5 * gamma_r1, 0);
}

static critic critic_create(const variant *v, const char *backend, fn_dtype dtype) {
  static const int64_t edge[4][3] = {{0}, {19}, {11, 9}, {7, 6, 8}};
  critic c = {.dtype = dtype};
  fn_shape shape = {2 + v->spatial, {3, 2}};
  for (int d = 0; d < v->spatial; d++)
    shape.dim[2 + d] = edge[v->spatial][d];
  require(fn_graph_create(&(fn_graph_options){.training = true}, &c.graph));
  c.input = fn_input(c.graph, "x", &shape);
  c.penalty = build_penalty(c.graph, c.input, v);
  require(fn_graph_status(c.graph));
  fn_value *wrt[MAX_PARAMETERS], *gradient[MAX_PARAMETERS + 1];
  int count = 0;
  for (int i = 0; i < fn_graph_leaf_count(c.graph); i++) {
    fn_value *leaf = fn_graph_leaf(c.graph, i);
    if (fn_value_leaf(leaf)->kind == FN_LEAF_PARAMETER) wrt[count++] = leaf;
  }
  require(fn_differentiate(c.graph, c.penalty, wrt, count, gradient));
  gradient[count] = c.penalty;
  if (v->fuse) require(fn_graph_fuse_backward(c.graph, gradient, count + 1));
  require(fn_parameters_create(c.graph, dtype, &c.parameters));
  fn_parameters_initialise(c.parameters, 5, -1);
  const fn_program_options options = {.backend = backend, .precision = dtype, .check = true};
  require(fn_program_create(c.graph, c.parameters, &options,
                            &(fn_program_output){"penalty", c.penalty}, 1, wrt, gradient, count,
                            &c.program));
  return c;
}

static void critic_destroy(critic *c) {
  fn_program_destroy(c->program);
  fn_parameters_destroy(c->parameters);
  fn_graph_destroy(c->graph);
}

/** Fill the input with fixed normal values, run, return the penalty. */
static double critic_run(const critic *c) {
  fn_random random = fn_random_stream(3, FN_RANDOM_TEST, 0, 0);
  void *x = fn_program_input(c->program, "x");
  const int64_t count = fn_shape_count(&c->input->shape);
  for (int64_t i = 0; i < count; i++) {
    const double value = (double)(float)fn_random_normal(&random);
    if (c->dtype == FN_F64)
      ((double *)x)[i] = value;
    else
      ((float *)x)[i] = (float)value;
  }
  require(fn_program_run(c->program, NULL));
  const void *penalty = fn_program_output_data(c->program, "penalty");
  return c->dtype == FN_F64 ? *(const double *)penalty : (double)*(const float *)penalty;
}

/** <gradient, direction> against (f(p + h d) - f(p - h d)) / 2h for one parameter. */
static void check_parameter(critic *c, const fn_tensor_entry *entry) {
  const double h = 1e-6;
  double *p = fn_parameters_data(c->parameters, entry);
  double *direction = malloc((size_t)entry->count * sizeof *direction);
  double *start = malloc((size_t)entry->count * sizeof *start);
  fn_random random = fn_random_stream(4, FN_RANDOM_TEST, 0, fn_hash_text(entry->name));
  const double centre = critic_run(c);
  const double *gradient = fn_parameters_gradient(c->parameters, entry);
  double slope = 0, norm = 0, value[2];
  for (int64_t i = 0; i < entry->count; i++) {
    direction[i] = fn_random_normal(&random);
    start[i] = p[i];
    slope += gradient[i] * direction[i];
    norm += gradient[i] * gradient[i] * direction[i] * direction[i];
  }
  for (int side = 0; side < 2; side++) {
    for (int64_t i = 0; i < entry->count; i++)
      p[i] = start[i] + (side ? -h : h) * direction[i];
    value[side] = critic_run(c);
  }
  for (int64_t i = 0; i < entry->count; i++)
    p[i] = start[i];
  const double quotient = (value[0] - value[1]) / (2 * h);
  if (!(fabs(quotient - slope) <= 2e-6 * sqrt(norm) + 2e-8 * fabs(centre)))
    fail_msg("%s: gradient %.12g, finite difference %.12g", entry->name, slope, quotient);
  free(direction);
  free(start);
}

static void finite_differences(void **state) {
  (void)state;
  for (int spatial = 1; spatial <= 3; spatial++)
    for (int kind = 0; kind < 4; kind++) {
      const variant v = {spatial, kind & 1, kind & 2};
      critic c = critic_create(&v, "reference", FN_F64);
      assert_true(critic_run(&c) > 1e-6); // else everything below would hold trivially
      int checked = 0;
      for (int i = 0; i < c.parameters->entry_count; i++) {
        if (c.parameters->entry[i].is_buffer) continue;
        check_parameter(&c, &c.parameters->entry[i]);
        checked++;
      }
      assert_int_equal(checked, v.batch_norm ? 7 : 6);
      critic_destroy(&c);
    }
}

/** |a - b| over |b|, both shape [count]. */
static double relative_distance(const float *a, const double *b, int64_t count) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < count; i++) {
    difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return sqrt(difference / fmax(norm, 1e-300));
}

static void cpu_agrees(void **state) {
  (void)state;
  const fn_backend *cpu;
  if (fn_backend_find("cpu", &cpu) != FN_OK || cpu->missing) skip();
  for (int spatial = 1; spatial <= 3; spatial++)
    for (int kind = 0; kind < 4; kind++) {
      const variant v = {spatial, kind & 1, kind & 2};
      critic exact = critic_create(&v, "reference", FN_F64);
      critic single = critic_create(&v, "cpu", FN_F32);
      // The same float32 weights for both.
      const float *weights = single.parameters->values;
      for (int64_t i = 0; i < exact.parameters->count; i++)
        ((double *)exact.parameters->values)[i] = (double)weights[i];
      const double expected = critic_run(&exact), found = critic_run(&single);
      // About ten layers there and back, sums of up to 1000 terms: 2^-24 sqrt(1000) 10 = 2e-5.
      assert_true(fabs(found - expected) <= 2e-5 * expected);
      for (int i = 0; i < exact.parameters->entry_count; i++) {
        const fn_tensor_entry *entry = &exact.parameters->entry[i];
        if (entry->is_buffer) continue;
        const double error =
            relative_distance(fn_parameters_gradient(single.parameters, entry),
                              fn_parameters_gradient(exact.parameters, entry), entry->count);
        if (!(error <= 2e-5)) fail_msg("%s (%dd): error %.3g", entry->name, spatial, error);
      }
      critic_destroy(&single);
      critic_destroy(&exact);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(finite_differences),
      cmocka_unit_test(cpu_agrees),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
