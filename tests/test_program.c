/* graph: what passes and programs must not do to values that somebody else still reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "graph/program.h"
#include "ops/ops.h"

static fn_shape shape3(int64_t n, int64_t c, int64_t x) {
  return (fn_shape){.ndim = 3, .dim = {n, c, x}};
}

typedef struct landing_test {
  fn_parameters *parameters;
} landing_test;

/* What a reducer does with a gradient that it was told is final. */
static bool halve(void *user, int entry) {
  const fn_parameters *p = ((landing_test *)user)->parameters;
  float *g = fn_parameters_gradient(p, &p->entry[entry]);
  for (int64_t i = 0; i < p->entry[entry].count; i++)
    g[i] /= 2;
  return false;
}

/* y = x q + p, loss = mean y^2: dp = 2 y / n is also what dq = x dp is made of. */
static void final_gradients_are_not_read_again(void **state) {
  const char *backend = *state;
  enum { COUNT = 24 };
  const fn_shape shape = shape3(1, 3, 8);
  fn_graph *graph;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &graph), FN_OK);
  fn_value *x = fn_input(graph, "x", &shape);
  fn_value *wrt[2], *gradient[2];
  wrt[0] = fn_parameter(graph, "q", &shape, FN_INIT_ZERO, FN_ROLE_WEIGHT);
  wrt[1] = fn_parameter(graph, "p", &shape, FN_INIT_ZERO, FN_ROLE_BIAS);
  fn_value *y = fn_add(graph, fn_mul(graph, x, wrt[0]), wrt[1]);
  fn_value *loss = fn_mean(graph, fn_square(graph, y), FN_ALL_AXES, false);
  assert_int_equal(fn_differentiate(graph, loss, wrt, 2, gradient), FN_OK);
  landing_test test;
  assert_int_equal(fn_parameters_create(graph, FN_F32, &test.parameters), FN_OK);
  fn_program *program;
  const fn_program_options options = {.backend = backend};
  assert_int_equal(fn_program_create(graph, test.parameters, &options,
                                     &(fn_program_output){"loss", loss}, 1, wrt, gradient, 2,
                                     &program),
                   FN_OK);
  float *in = fn_program_input(program, "x");
  float *q = fn_parameters_data(test.parameters, fn_parameters_find(test.parameters, "q"));
  float *p = fn_parameters_data(test.parameters, fn_parameters_find(test.parameters, "p"));
  for (int i = 0; i < COUNT; i++) {
    in[i] = (float)(i + 1) / 8;
    q[i] = (float)(i % 5) - 2;
    p[i] = (float)(i % 3) + 1;
  }
  fn_program_on_gradient(program, halve, &test);
  assert_int_equal(fn_program_run(program, NULL), FN_OK);
  const float *dq =
      fn_parameters_gradient(test.parameters, fn_parameters_find(test.parameters, "q"));
  const float *dp =
      fn_parameters_gradient(test.parameters, fn_parameters_find(test.parameters, "p"));
  for (int i = 0; i < COUNT; i++) {
    const float half = (in[i] * q[i] + p[i]) / COUNT; // 2 y / n, halved once
    assert_true(fabsf(dp[i] - half) < 1e-6f);
    assert_true(fabsf(dq[i] - half * in[i]) < 1e-6f);
  }
  fn_program_destroy(program);
  fn_parameters_destroy(test.parameters);
  fn_graph_destroy(graph);
}

/* A residual computed from the same batch's mean cannot be merged into that batch norm. */
static void residual_of_own_mean(void **state) {
  (void)state;
  const fn_shape shape = shape3(2, 4, 8), channels = {.ndim = 1, .dim = {4}},
                 column = {.ndim = 3, .dim = {1, 4, 1}};
  fn_graph *graph;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &graph), FN_OK);
  fn_value *x = fn_input(graph, "x", &shape), *mean;
  fn_value *scale = fn_parameter(graph, "s", &channels, FN_INIT_ONE, FN_ROLE_NORM_SCALE);
  fn_value *shift = fn_parameter(graph, "t", &channels, FN_INIT_ZERO, FN_ROLE_NORM_SHIFT);
  fn_value *y = fn_batch_norm(graph, x, scale, shift, 1e-5, &mean, NULL);
  fn_value *of_mean = fn_broadcast(graph, fn_reshape(graph, mean, &column), &shape);
  fn_value *sum = fn_add(graph, y, of_mean);
  assert_int_equal(fn_graph_fuse_forward(graph, &sum, 1), FN_OK);
  assert_ptr_equal(sum->node->op, &fn_op_binary);
  fn_graph_destroy(graph);
}

/* Two cells of two windows for each of three channels, and what comes of them: an activation behind
 * a convolution or a batch norm, then pooling. */
typedef struct pooled {
  fn_graph *graph;
  fn_parameters *parameters;
  fn_program *program;
  fn_value *y;
} pooled;

static void make_pooled(bool normed, double slope, bool fused, pooled *p) {
  const fn_shape in = shape3(2, 2, 8), weight = shape3(3, 2, 3), row = {1, {3}};
  const fn_conv_geometry conv = {
      .stride = {1}, .dilation = {1}, .pad_low = {1}, .pad_high = {1}, .groups = 1};
  const fn_conv_geometry pool = {.stride = {2}, .dilation = {1}, .groups = 1};
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &p->graph), FN_OK);
  fn_graph *g = p->graph;
  fn_value *wrt[4], *gradient[4], *x = fn_input(g, "x", &in);
  wrt[0] = fn_parameter(g, "w", &weight, ((fn_init){FN_INIT_UNIFORM, -0.5, 0.5}), FN_ROLE_WEIGHT);
  wrt[1] = fn_parameter(g, "b", &row, ((fn_init){FN_INIT_UNIFORM, -0.5, 0.5}), FN_ROLE_BIAS);
  wrt[2] = fn_parameter(g, "s", &row, FN_INIT_ONE, FN_ROLE_NORM_SCALE);
  wrt[3] = fn_parameter(g, "t", &row, FN_INIT_ZERO, FN_ROLE_NORM_SHIFT);
  fn_value *y = fn_conv(g, x, wrt[0], wrt[1], &conv);
  if (normed) y = fn_batch_norm(g, y, wrt[2], wrt[3], 1e-5, NULL, NULL);
  p->y = fn_max_pool(g, fn_leaky_relu(g, y, slope), (int64_t[]){2}, &pool);
  if (fused) assert_int_equal(fn_graph_fuse_forward(g, &p->y, 1), FN_OK);
  const int count = normed ? 4 : 2;
  fn_value *loss = fn_mean(g, fn_square(g, p->y), FN_ALL_AXES, false);
  assert_int_equal(fn_differentiate(g, loss, wrt, count, gradient), FN_OK);
  assert_int_equal(fn_parameters_create(g, FN_F64, &p->parameters), FN_OK);
  fn_parameters_initialise(p->parameters, 3, -1);
  const fn_program_options options = {.backend = "reference", .precision = FN_F64};
  assert_int_equal(fn_program_create(g, p->parameters, &options, &(fn_program_output){"y", p->y}, 1,
                                     wrt, gradient, count, &p->program),
                   FN_OK);
  double *values = fn_program_input(p->program, "x");
  for (int i = 0; i < 2 * 2 * 8; i++)
    values[i] = sin(1.7 * i) - 0.2;
  assert_int_equal(fn_program_run(p->program, NULL), FN_OK);
}

static void destroy_pooled(pooled *p) {
  fn_program_destroy(p->program);
  fn_parameters_destroy(p->parameters);
  fn_graph_destroy(p->graph);
}

/* max(f(x)) = f(max(x)) for activations that never fall: they come behind the pooling of a
 * convolution, and into a batch norm, where they stay; values and gradients stay the same. */
static void pooling_and_activations_change_places(void **state) {
  (void)state;
  for (int c = 0; c < 6; c++) {
    const double slope = (double[]){0, 0.1, -0.1}[c / 2];
    const bool normed = c % 2;
    pooled p[2];
    for (int k = 0; k < 2; k++)
      make_pooled(normed, slope, k, &p[k]);
    const fn_node *last = p[1].y->node, *before = last->input[0]->node;
    if (slope < 0) {
      assert_ptr_equal(before->op, &fn_op_unary);
    } else if (normed) {
      assert_true(last->op == &fn_op_max_pool && before->op == &fn_op_batch_norm);
      assert_true(((const fn_batch_norm_attrs *)before->attrs)->slope == slope);
    } else {
      assert_true(last->op == &fn_op_unary && before->op == &fn_op_max_pool);
      assert_ptr_equal(before->input[0]->node->op, &fn_op_conv);
    }
    const double *y[] = {fn_program_output_data(p[0].program, "y"),
                         fn_program_output_data(p[1].program, "y")};
    bool negative = false;
    for (int i = 0; i < 2 * 3 * 4; i++) {
      assert_true(y[0][i] == y[1][i]);
      negative |= y[0][i] < 0;
    }
    assert_int_equal(negative, slope > 0);
    const double *g[] = {p[0].parameters->gradients, p[1].parameters->gradients};
    double most = 0;
    for (int64_t i = 0; i < p[0].parameters->count; i++) {
      assert_true(fabs(g[0][i] - g[1][i]) <= 1e-12);
      most = fmax(most, fabs(g[1][i]));
    }
    assert_true(most > 0.01);
    for (int k = 0; k < 2; k++)
      destroy_pooled(&p[k]);
  }
}

static double product_slope(const fn_value *y) {
  assert_ptr_equal(y->node->op, &fn_op_matmul);
  return ((const fn_matmul_attrs *)y->node->attrs)->slope;
}

/* Dense layers become one node each: x w + b, ReLU of any slope from 0 up. What others read, a bias
 * that is no row of numbers and other activations stay. */
static void products_take_bias_and_activation(void **state) {
  (void)state;
  const fn_shape batch = {2, {4, 6}}, square = {2, {6, 6}}, row = {1, {6}}, column = {2, {4, 1}};
  fn_graph *graph;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &graph), FN_OK);
  fn_value *x = fn_input(graph, "x", &batch);
  fn_value *w = fn_parameter(graph, "w", &square, FN_INIT_ONE, FN_ROLE_WEIGHT);
  fn_value *b = fn_parameter(graph, "b", &row, FN_INIT_ONE, FN_ROLE_BIAS);
  fn_value *c = fn_parameter(graph, "c", &column, FN_INIT_ONE, FN_ROLE_BIAS);
  fn_value *product[7], *biased[7];
  for (int i = 0; i < 7; i++) {
    product[i] = fn_matmul(graph, x, w, false, i & 1);
    biased[i] = i & 1 ? fn_add(graph, b, product[i]) : fn_add(graph, product[i], i == 6 ? c : b);
  }
  fn_value *keep[] = {
      fn_relu(graph, biased[0]),
      fn_leaky_relu(graph, biased[1], 0.1),
      fn_tanh(graph, biased[2]),
      fn_relu(graph, product[3]), // biased[3] reads it too
      biased[3],
      fn_relu(graph, biased[4]), // biased[4] is kept
      biased[4],
      fn_leaky_relu(graph, biased[5], -0.1), // its result does not tell the branch
      biased[6],
  };
  assert_int_equal(fn_graph_fuse_forward(graph, keep, sizeof keep / sizeof *keep), FN_OK);
  for (int i = 0; i < 2; i++)
    assert_true(product_slope(keep[i]) == (i ? 0.1 : 0) && keep[i]->node->input[2] == b);
  for (int i = 2; i < 8; i++) {
    if (i == 4 || i == 6) continue;
    assert_ptr_equal(keep[i]->node->op, &fn_op_unary);
  }
  const fn_value *rest[] = {keep[2]->node->input[0], keep[6], keep[7]->node->input[0]};
  for (int i = 0; i < 3; i++)
    assert_true(product_slope(rest[i]) == 1 && rest[i]->node->input[2] == b);
  assert_ptr_equal(keep[4]->node->op, &fn_op_binary);
  assert_ptr_equal(keep[8]->node->op, &fn_op_binary);
  fn_graph_destroy(graph);
}

/* In bf16 runs the first layer stays wide behind a pad, and losses stay wide. */
static void what_stays_f32(void **state) {
  (void)state;
  const fn_shape shape = shape3(1, 2, 16), kernel = shape3(8, 2, 3), second = shape3(8, 8, 3);
  const int64_t one[] = {1};
  fn_graph *graph;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &graph), FN_OK);
  fn_value *x = fn_input(graph, "x", &shape);
  fn_value *w = fn_parameter(graph, "w", &kernel, FN_INIT_ONE, FN_ROLE_WEIGHT);
  fn_value *v = fn_parameter(graph, "v", &second, FN_INIT_ONE, FN_ROLE_WEIGHT);
  fn_value *first = fn_conv(graph, fn_pad(graph, x, one, one, FN_PAD_PERIODIC), w, NULL, NULL);
  fn_value *next = fn_conv(graph, first, v, NULL, NULL);
  fn_value *soft = fn_softplus(graph, next);
  assert_int_equal(fn_graph_apply_bf16(graph, true), FN_OK);
  assert_int_equal(first->dtype, FN_F32);
  assert_int_equal(next->dtype, FN_BF16);
  assert_int_equal(soft->dtype, FN_F32);
  fn_graph_destroy(graph);
}

/* compute.first_layer_f32: true keeps the input, the first convolution and its weight gradient in
 * f32, false makes the input bf16 before it is read; all other convolutions are bf16 either way. */
static void first_layer(void **state) {
  (void)state;
  const fn_shape shape = shape3(1, 2, 16), kernel = shape3(8, 2, 3), second = shape3(8, 8, 3);
  for (int wide = 0; wide < 2; wide++) {
    fn_graph *graph;
    assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &graph), FN_OK);
    fn_value *x = fn_input(graph, "x", &shape), *wrt[2], *gradient[2];
    wrt[0] = fn_parameter(graph, "w", &kernel, FN_INIT_ONE, FN_ROLE_WEIGHT);
    wrt[1] = fn_parameter(graph, "v", &second, FN_INIT_ONE, FN_ROLE_WEIGHT);
    fn_value *first = fn_leaky_relu(graph, fn_conv(graph, x, wrt[0], NULL, NULL), 0.1);
    fn_value *next = fn_conv(graph, first, wrt[1], NULL, NULL);
    fn_value *loss = fn_mean(graph, fn_square(graph, next), FN_ALL_AXES, false);
    assert_int_equal(fn_differentiate(graph, loss, wrt, 2, gradient), FN_OK);
    assert_int_equal(fn_graph_apply_bf16(graph, wide), FN_OK);
    int wide_convs = 0, narrow_convs = 0;
    for (int n = 0; n < fn_graph_node_count(graph); n++) {
      const fn_node *node = fn_graph_node(graph, n);
      const bool is_weight = node->op == &fn_op_conv_weight;
      if (node->op != &fn_op_conv && node->op != &fn_op_conv_data && !is_weight) continue;
      const fn_dtype in = node->input[0]->dtype;
      assert_int_equal(node->output[0]->dtype, is_weight ? FN_F32 : in);
      if (is_weight) assert_int_equal(node->input[1]->dtype, in);
      wide_convs += in == FN_F32;
      narrow_convs += in == FN_BF16;
    }
    assert_int_equal(wide_convs, wide ? 2 : 0);
    assert_int_equal(narrow_convs, wide ? 3 : 5);
    assert_int_equal(x->dtype, FN_F32); // what the caller writes
    assert_int_equal(next->dtype, FN_BF16);
    assert_int_equal(loss->dtype, FN_F32);
    fn_graph_destroy(graph);
  }
}

/* Kernels of a program in 16 bits on the emulated device, and its output after two runs that the
 * host gave inputs to. */
static int run_half(fn_dtype half, bool wide, bool made, float *output) {
  enum { COUNT = 2 * 2 * 16 };
  const fn_init init = {FN_INIT_UNIFORM, -1, 1};
  const fn_shape shape = shape3(2, 2, 16), kernel = shape3(8, 2, 3);
  fn_graph *graph;
  fn_parameters *parameters;
  fn_program *program;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = true}, &graph), FN_OK);
  fn_value *x = fn_input(graph, "x", &shape), *gradient;
  fn_value *w = fn_parameter(graph, "w", &kernel, init, FN_ROLE_WEIGHT);
  fn_value *y = fn_conv(graph, x, w, NULL, NULL);
  fn_value *loss = fn_mean(graph, fn_square(graph, y), FN_ALL_AXES, false);
  assert_int_equal(fn_differentiate(graph, loss, &w, 1, &gradient), FN_OK);
  assert_int_equal(fn_graph_apply_half(graph, half, wide), FN_OK);
  assert_int_equal(fn_parameters_create(graph, FN_F32, &parameters), FN_OK);
  fn_parameters_initialise(parameters, 7, -1);
  const fn_program_options options = {
      .backend = "emulated", .precision = half, .made_inputs = made, .replay = true};
  if (fn_program_create(graph, parameters, &options, &(fn_program_output){"y", y}, 1, &w, &gradient,
                        1, &program) != FN_OK)
    fail_msg("%s", fn_error_message());
  for (int run = 0; run < 4; run++) {
    float *in = fn_program_input(program, "x");
    for (int i = 0; i < COUNT; i++)
      in[i] = (float)(i * 37 % 101 + run) / 13 - 3; // rounded in 16 bits
    assert_int_equal(fn_program_run(program, NULL), FN_OK);
  }
  assert_int_equal(fn_program_run(program, NULL), FN_OK); // the same input again
  memcpy(output, fn_program_output_data(program, "y"), 2 * 8 * 14 * sizeof *output);
  const int kernels = fn_program_kernel_count(program);
  fn_program_destroy(program);
  fn_parameters_destroy(parameters);
  fn_graph_destroy(graph);
  return kernels;
}

/* An input that is made on a device is made in the type that a first layer of 16 bits reads: one
 * kernel less, and the bits of the cast. First layers in f32 have no cast. */
static void inputs_in_the_type_of_the_first_layer(void **state) {
  (void)state;
  static float output[2][2 * 8 * 14];
  const fn_dtype halves[] = {FN_BF16, FN_F16};
  for (int h = 0; h < 2; h++) {
    for (int wide = 0; wide < 2; wide++) {
      const int with = run_half(halves[h], wide, false, output[0]);
      const int without = run_half(halves[h], wide, true, output[1]);
      assert_int_equal(with - without, wide ? 0 : 1);
      assert_memory_equal(output[0], output[1], sizeof output[0]);
      assert_true(output[0][3] != 0);
    }
  }
}

int main(void) {
  static char reference[] = "reference", cpu[] = "cpu";
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_prestate(final_gradients_are_not_read_again, reference),
      cmocka_unit_test_prestate(final_gradients_are_not_read_again, cpu),
      cmocka_unit_test(residual_of_own_mean),
      cmocka_unit_test(pooling_and_activations_change_places),
      cmocka_unit_test(products_take_bias_and_activation),
      cmocka_unit_test(what_stays_f32),
      cmocka_unit_test(first_layer),
      cmocka_unit_test(inputs_in_the_type_of_the_first_layer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
