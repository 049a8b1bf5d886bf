/* Builders and operators against numbers worked out by hand or published elsewhere; test_op
 * compares backends and derivatives, this test says what the operators mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "graph/program.h"
#include "ops/ops.h"

static fn_graph *graph;
static fn_program *program;

static fn_shape shape_of(int ndim, ...) {
  fn_shape shape = {.ndim = ndim};
  va_list arguments;
  va_start(arguments, ndim);
  for (int a = 0; a < ndim; a++)
    shape.dim[a] = va_arg(arguments, int);
  va_end(arguments);
  return shape;
}

static fn_value *input(const char *name, fn_shape shape) {
  fn_value *value = fn_input(graph, name, &shape);
  assert_non_null(value);
  return value;
}

static int begin(void **state) {
  (void)state;
  program = NULL;
  return fn_graph_create(&(fn_graph_options){.training = true}, &graph) != FN_OK;
}

static int end(void **state) {
  (void)state;
  fn_program_destroy(program);
  fn_graph_destroy(graph);
  return 0;
}

static void compile(fn_value *y) {
  const fn_program_options options = {.backend = "reference", .precision = FN_F64, .check = true};
  if (!y || fn_program_create(graph, NULL, &options, &(fn_program_output){"y", y}, 1, NULL, NULL, 0,
                              &program) != FN_OK)
    fail_msg("%s", fn_error_message());
}

/** Fill input `name` with values. */
static void feed(const char *name, const double *values) {
  memcpy(fn_program_input(program, name), values,
         (size_t)fn_shape_count(fn_program_input_shape(program, name)) * sizeof *values);
}

/** Fill input `name` with 0, 1, 2, ... */
static void count_up(const char *name) {
  double *x = fn_program_input(program, name);
  const int64_t count = fn_shape_count(fn_program_input_shape(program, name));
  for (int64_t i = 0; i < count; i++)
    x[i] = (double)i;
}

static const double *run(const fn_run_context *context) {
  if (fn_program_run(program, context) != FN_OK) fail_msg("%s", fn_error_message());
  return fn_program_output_data(program, "y");
}

static void expect(const double *expected, int64_t count, double tolerance) {
  const double *y = run(NULL);
  assert_int_equal(fn_shape_count(fn_program_output_shape(program, "y")), count);
  for (int64_t i = 0; i < count; i++)
    if (!(fabs(y[i] - expected[i]) <= tolerance))
      fail_msg("element %d is %.15g, expected %.15g", (int)i, y[i], expected[i]);
}

#define EXPECT(tolerance, ...)                                                                     \
  do {                                                                                             \
    const double expected_[] = {__VA_ARGS__};                                                      \
    expect(expected_, (int64_t)(sizeof expected_ / sizeof *expected_), (tolerance));               \
  } while (0)

static void expect_shape(const fn_value *value, fn_shape shape) {
  assert_non_null(value);
  assert_true(fn_shape_equal(fn_value_shape(value), &shape));
}

/* ---- elementwise and shape ----------------------------------------------------------------------
 */

static void broadcasting(void **state) {
  (void)state;
  fn_value *a = input("a", shape_of(2, 2, 1)), *b = input("b", shape_of(1, 3));
  fn_value *y = fn_sub(graph, a, b);
  expect_shape(y, shape_of(2, 2, 3));
  compile(y);
  feed("a", (double[]){10, 20});
  feed("b", (double[]){1, 2, 3});
  EXPECT(0, 9, 8, 7, 19, 18, 17);
}

/** The sum of a gradient over broadcast axes, worked out by hand: dy = b, so da = sum b. */
static void broadcast_gradient(void **state) {
  (void)state;
  fn_value *a = input("a", shape_of(2, 2, 1)), *b = input("b", shape_of(1, 3)), *da;
  fn_value *y = fn_sum(graph, fn_mul(graph, a, b), FN_ALL_AXES, false);
  assert_int_equal(fn_differentiate(graph, y, &a, 1, &da), FN_OK);
  expect_shape(da, shape_of(2, 2, 1));
  compile(da);
  feed("b", (double[]){1, 2, 4});
  EXPECT(0, 7, 7);
}

static void impossible_broadcast(void **state) {
  (void)state;
  assert_null(fn_add(graph, input("a", shape_of(2, 2, 3)), input("b", shape_of(1, 2))));
  assert_int_equal(fn_graph_status(graph), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "[2, 3]"));
  assert_non_null(strstr(fn_error_message(), "[2]"));
}

static void stable_functions(void **state) {
  (void)state;
  fn_value *x = input("x", shape_of(1, 4));
  fn_value *parts[] = {fn_softplus(graph, x), fn_sigmoid(graph, x)};
  compile(fn_concat(graph, parts, 2, 0));
  feed("x", (double[]){-800, 0, 1, 800});
  EXPECT(1e-15, 0, 0.69314718055994531, 1.3132616875182228, 800, 0, 0.5, 0.73105857863000488, 1);
}

static void constants_fold(void **state) {
  (void)state;
  const fn_shape shape = shape_of(2, 2, 2);
  fn_value *x = input("x", shape), *three = fn_fill(graph, &shape, 3);
  fn_value *y = fn_affine(graph, fn_mul(graph, x, three), 2, 1); // one node: 6 x + 1
  assert_ptr_equal(y->node->input[0], x);
  compile(y);
  feed("x", (double[]){0, 1, 2, -1});
  EXPECT(0, 1, 7, 13, -5);
}

/** map2map's narrow_like: an odd excess loses one more cell at the end. */
static void crop_like(void **state) {
  (void)state;
  fn_value *x = input("x", shape_of(3, 1, 1, 8)), *like = input("like", shape_of(3, 1, 7, 3));
  compile(fn_crop_like(graph, x, like));
  count_up("x");
  EXPECT(0, 2, 3, 4);
}

static void crop_outside(void **state) {
  (void)state;
  fn_value *x = input("x", shape_of(3, 1, 1, 8));
  assert_null(fn_narrow(graph, x, 2, 6, 3));
  assert_int_equal(fn_graph_status(graph), FN_ERR_CONFIG);
}

/** numpy.pad(mode='wrap') of arange(3) with margins (2, 4). */
static void periodic_padding(void **state) {
  (void)state;
  fn_value *x = input("x", shape_of(3, 1, 1, 3));
  compile(fn_pad(graph, x, (int64_t[]){2}, (int64_t[]){4}, FN_PAD_PERIODIC));
  count_up("x");
  EXPECT(0, 1, 2, 0, 1, 2, 0, 1, 2, 0);
}

static void zero_padding(void **state) {
  (void)state;
  fn_value *x = input("x", shape_of(4, 1, 1, 1, 2));
  compile(fn_pad(graph, x, (int64_t[]){1, 0}, (int64_t[]){0, 1}, FN_PAD_ZERO));
  feed("x", (double[]){5, 6});
  EXPECT(0, 0, 0, 0, 5, 6, 0);
}

static void window_sum(void **state) {
  (void)state;
  fn_value *a = input("a", shape_of(2, 2, 3)), *b = input("b", shape_of(2, 1, 2));
  compile(fn_add_window(graph, a, b, (int64_t[]){1, 1}));
  count_up("a");
  feed("b", (double[]){10, 20});
  EXPECT(0, 0, 1, 2, 3, 14, 25);
}

/** numpy.transpose(arange(6).reshape(1, 2, 3), (2, 0, 1)) */
static void permutation(void **state) {
  (void)state;
  fn_value *y = fn_permute(graph, input("x", shape_of(3, 1, 2, 3)), (int[]){2, 0, 1});
  expect_shape(y, shape_of(3, 3, 1, 2));
  compile(y);
  count_up("x");
  EXPECT(0, 0, 3, 1, 4, 2, 5);
}

static void sums_and_means(void **state) {
  (void)state;
  fn_value *x = input("x", shape_of(3, 2, 2, 2));
  fn_value *sum = fn_sum(graph, x, 1u << 0 | FN_SPATIAL_AXES, false);
  fn_value *mean = fn_mean(graph, x, 1u << 1, true);
  expect_shape(sum, shape_of(1, 2));
  expect_shape(mean, shape_of(3, 2, 1, 2));
  fn_value *parts[] = {sum, fn_reshape(graph, mean, &(fn_shape){1, {4}})};
  compile(fn_concat(graph, parts, 2, 0));
  count_up("x");
  EXPECT(0, 0 + 1 + 4 + 5, 2 + 3 + 6 + 7, 1, 2, 5, 6);
}

/* ---- losses: formulas of the PyTorch documentation evaluated by hand
 * ----------------------------- */

static void two_inputs(fn_value *(*loss)(fn_graph *, fn_value *, fn_value *), fn_shape shape) {
  compile(loss(graph, input("x", shape), input("t", shape)));
}

static void mean_square(void **state) {
  (void)state;
  two_inputs(fn_mse, shape_of(2, 1, 3));
  feed("x", (double[]){1, 2, 3});
  feed("t", (double[]){0, 0, 5});
  EXPECT(1e-15, 3); // (1 + 4 + 4) / 3
}

static void mean_absolute(void **state) {
  (void)state;
  two_inputs(fn_l1, shape_of(2, 1, 3));
  feed("x", (double[]){1, 2, 3});
  feed("t", (double[]){0, 0, 5});
  EXPECT(1e-15, 5.0 / 3);
}

static void huber(void **state) {
  (void)state;
  const fn_shape shape = shape_of(2, 1, 3);
  compile(fn_huber(graph, input("x", shape), input("t", shape), 0.5));
  feed("x", (double[]){0.25, -2, 0.5});
  feed("t", (double[]){0, 0, 0});
  EXPECT(1e-15, (0.03125 + 0.5 * (2 - 0.25) + 0.125) / 3);
}

/** -[t ln p + (1 - t) ln(1 - p)] with p = sigmoid(x): ln 2 at 0; ln(1 + 1/3) for p = 3/4, t = 1;
 *  800 for a confident mistake, where the naive form overflows. */
static void bce(void **state) {
  (void)state;
  two_inputs(fn_bce_with_logits, shape_of(2, 1, 3));
  feed("x", (double[]){0, log(3), 800});
  feed("t", (double[]){0.3, 1, 0});
  EXPECT(1e-12, (log(2) + log(4.0 / 3) + 800) / 3);
}

/** At x = 0 the gradient is sigmoid(0) - t, also where the form with |x| has a kink. */
static void bce_gradient_at_zero(void **state) {
  (void)state;
  const fn_shape shape = shape_of(2, 1, 2);
  fn_value *x = input("x", shape), *t = input("t", shape), *dx;
  assert_int_equal(fn_differentiate(graph, fn_bce_with_logits(graph, x, t), &x, 1, &dx), FN_OK);
  compile(dx);
  feed("x", (double[]){0, 0});
  feed("t", (double[]){0, 1});
  EXPECT(1e-15, 0.25, -0.25);
}

/** Scores ln 1, ln 2, ln 5 have probabilities 1/8, 2/8, 5/8; two cells, classes along axis 1. */
static void cross_entropy(void **state) {
  (void)state;
  two_inputs(fn_cross_entropy, shape_of(3, 1, 3, 2));
  feed("x", (double[]){log(1), 1000, log(2), 1000, log(5), 1000});
  feed("t", (double[]){0, 1, 0.5, 0, 0.5, 0});
  EXPECT(1e-12, (-0.5 * log(2.0 / 8) - 0.5 * log(5.0 / 8) + log(3)) / 2);
}

static void unequal_loss(void **state) {
  (void)state;
  assert_null(fn_mse(graph, input("x", shape_of(3, 1, 1, 8)), input("t", shape_of(3, 1, 1, 1))));
  assert_int_equal(fn_graph_status(graph), FN_ERR_CONFIG);
}

/* ---- random values
 * ---------------------------------------------------------------------------------- */

/** The draws are those of the stream named in ops.h, and follow the sample, not the row. */
static void normal_draws(void **state) {
  (void)state;
  const fn_shape shape = shape_of(3, 2, 1, 5);
  fn_normal(graph, &shape);
  compile(fn_normal(graph, &shape)); // random node number 1
  const int64_t samples[] = {7, 11}, swapped[] = {11, 7};
  fn_run_context context = {.seed = 42, .epoch = 3, .sample = samples};
  double first[10];
  memcpy(first, run(&context), sizeof first);
  for (int n = 0; n < 2; n++) {
    fn_random random = fn_random_stream(42, FN_RANDOM_NOISE, 3, (uint64_t)samples[n] * 4096 + 1);
    for (int e = 0; e < 5; e += 2) { // the cosine branch: even elements
      const double expected = fn_random_normal(&random);
      assert_true(fabs(first[5 * n + e] - expected) < 1e-14);
    }
  }
  context.sample = swapped;
  const double *second = run(&context);
  assert_memory_equal(second, first + 5, 5 * sizeof(double));
  assert_memory_equal(second + 5, first, 5 * sizeof(double));
}

static void normal_moments(void **state) {
  (void)state;
  const fn_shape shape = shape_of(2, 4, 50000);
  compile(fn_normal(graph, &shape));
  const double *x = run(NULL);
  const double n = 200000;
  double mean = 0, square = 0, neighbours = 0;
  for (int i = 0; i < 200000; i++) {
    mean += x[i] / n;
    square += x[i] * x[i] / n;
    if (i % 2) neighbours += x[i] * x[i - 1] / (n / 2); // the two branches of a pair
  }
  assert_true(fabs(mean) < 5 / sqrt(n));
  assert_true(fabs(square - 1) < 5 * sqrt(2 / n));
  assert_true(fabs(neighbours) < 5 / sqrt(n / 2));
}

/** A fraction p is zero, the rest is scaled so that the mean stays. */
static void dropout(void **state) {
  (void)state;
  const fn_shape shape = shape_of(2, 2, 50000);
  fn_value *x = input("x", shape);
  compile(fn_dropout(graph, x, 0.2));
  double *one = fn_program_input(program, "x");
  for (int i = 0; i < 100000; i++)
    one[i] = 1;
  const double *y = run(NULL);
  int zeros = 0;
  for (int i = 0; i < 100000; i++) {
    zeros += y[i] == 0;
    assert_true(y[i] == 0 || fabs(y[i] - 1.25) < 1e-15);
  }
  assert_true(fabs(zeros / 1e5 - 0.2) < 5 * sqrt(0.2 * 0.8 / 1e5));
}

static void dropout_only_trains(void **state) {
  (void)state;
  fn_graph *other;
  assert_int_equal(fn_graph_create(&(fn_graph_options){.training = false}, &other), FN_OK);
  fn_value *x = fn_input(other, "x", &(fn_shape){1, {3}});
  assert_ptr_equal(fn_dropout(other, x, 0.2), x);
  fn_graph_destroy(other);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(broadcasting),
      TEST(broadcast_gradient),
      TEST(impossible_broadcast),
      TEST(stable_functions),
      TEST(constants_fold),
      TEST(crop_like),
      TEST(crop_outside),
      TEST(periodic_padding),
      TEST(zero_padding),
      TEST(window_sum),
      TEST(permutation),
      TEST(sums_and_means),
      TEST(mean_square),
      TEST(mean_absolute),
      TEST(huber),
      TEST(bce),
      TEST(bce_gradient_at_zero),
      TEST(cross_entropy),
      TEST(unequal_loss),
      TEST(normal_draws),
      TEST(normal_moments),
      TEST(dropout),
      TEST(dropout_only_trains),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
