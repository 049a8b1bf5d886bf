/* norms: the golden cosmology table, exact inverses, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config/options.h"
#include "data/dataset.h"

static void assert_relative(double value, double expected, double tolerance) {
  if (!(fabs(value - expected) <= tolerance * fabs(expected)))
    fail_msg("%.17g, expected %.17g", value, expected);
}

/* Omega_m = 0.31: z, D, f, H, dis_std D, dis_std D H f / (1 + z) with dis_std = 6. f(3) follows
 * from the last column and from 50 digits of the series; one printed table has its 7th digit wrong.
 */
static const double golden[][6] = {
    {0, 1, 0.522370170742864, 100, 6, 313.4221024457184},
    {0.5, 0.7703215732299058, 0.7571450840782694, 131.7668395310444, 4.621929439379435,
     307.4095026602444},
    {1, 0.6084071313540004, 0.874293222808704, 178.04493814764854, 3.6504427881240025,
     284.12031904039577},
    {2, 0.41854526322155977, 0.9576678592784338, 300.99833886584827, 2.5112715793293585,
     241.29673078080532},
    {3, 0.31652477048815403, 0.9815168836890087, 453.10043036836765, 1.8991486229289243,
     211.15006082557665},
    {127, 0.009953326413386539, 0.9999994210837995, 80629.88341799831, 0.05971995848031923,
     37.618832049928564},
};

static void golden_table(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
    const double *row = golden[i];
    assert_relative(fn_growth_factor(row[0], 0.31), row[1], 1e-12);
    assert_relative(fn_growth_rate(row[0], 0.31), row[2], 1e-12);
    assert_relative(fn_hubble(row[0], 0.31), row[3], 1e-12);
  }
}

/* dD/da by the growth equation's integral: D is proportional to H int da / (a H)^3, an independent
 * path to D, and f = dlnD/dlna. */
static double growth_integral(double a, double omega_m) {
  const int n = 20000;
  double sum = 0;
  for (int i = 0; i < n; i++) { // midpoint rule in u = a^(5/2), where the integrand is smooth
    const double u = (i + 0.5) / n * pow(a, 2.5), b = pow(u, 0.4);
    const double h2 = omega_m / (b * b * b) + 1 - omega_m;
    sum += 0.4 * pow(u, -0.6) / pow(b * b * h2, 1.5);
  }
  return sqrt(omega_m / (a * a * a) + 1 - omega_m) * sum * pow(a, 2.5) / n;
}

static void other_cosmologies(void **state) {
  (void)state;
  const double omega[] = {0.1, 0.31, 0.7, 1};
  for (int i = 0; i < 4; i++) {
    for (double z = -0.5; z < 4; z += 1.25) {
      const double a = 1 / (1 + z), h = 1e-4;
      assert_relative(fn_growth_factor(z, omega[i]),
                      growth_integral(a, omega[i]) / growth_integral(1, omega[i]), 1e-7);
      const double up = fn_growth_factor(1 / (a * exp(h)) - 1, omega[i]);
      const double down = fn_growth_factor(1 / (a * exp(-h)) - 1, omega[i]);
      assert_relative(fn_growth_rate(z, omega[i]), log(up / down) / (2 * h), 1e-7);
    }
  }
  assert_relative(fn_growth_factor(3, 1), 0.25, 1e-15); // Einstein-de Sitter: D = a
}

static fn_status apply(const char *name, float *values, int64_t count, bool undo,
                       const char *yaml) {
  const fn_norm *norm;
  fn_options *options = NULL;
  FN_TRY(fn_norm_find(name, &norm));
  if (yaml) FN_TRY(fn_options_from_text(yaml, "test", &options));
  const fn_status status = norm->apply(values, 1, count, undo, options);
  fn_options_destroy(options);
  return status;
}

static void units_of_the_table(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
    char yaml[64];
    snprintf(yaml, sizeof yaml, "{z: %g}", golden[i][0]);
    float dis = 1, vel = 1, back = 1;
    assert_int_equal(apply("cosmology.dis", &dis, 1, true, yaml), FN_OK);
    assert_int_equal(apply("vel", &vel, 1, true, yaml), FN_OK);
    assert_int_equal(apply("cosmology.vel", &back, 1, false, yaml), FN_OK);
    assert_relative((double)dis, golden[i][4], 1e-7);
    assert_relative((double)vel, golden[i][5], 1e-7);
    assert_relative((double)back, 1 / golden[i][5], 1e-7);
  }
}

static void options_matter(void **state) {
  (void)state;
  float dis = 1, vel = 1;
  assert_int_equal(apply("dis", &dis, 1, true, "{z: 1, dis_std: 3, omega_m: 1}"), FN_OK);
  assert_relative((double)dis, 1.5, 1e-7);
  assert_int_equal(apply("vel", &vel, 1, true, "{z: 3, dis_std: 1, omega_m: 1}"), FN_OK);
  assert_relative((double)vel, 0.25 * 100 * 8 / 4, 1e-7);
  assert_int_equal(apply("dis", &dis, 1, true, "{z: -2}"), FN_ERR_CONFIG);
  assert_int_equal(apply("dis", &dis, 1, true, "{omega_m: 1.5}"), FN_ERR_CONFIG);
  assert_int_equal(apply("log", &dis, 1, true, "{eps: -1}"), FN_ERR_CONFIG);
}

static void forward_values(void **state) {
  (void)state;
  const char *name[] = {"torch.exp", "torch.log", "torch.expm1", "torch.log1p", "log", "log1p"};
  const char *yaml[] = {NULL, NULL, NULL, NULL, "{eps: 0.5}", "{eps: 0.5}"};
  const double expected[] = {exp(0.25),          log(0.25 + 1e-8), expm1(0.25),
                             log1p(0.25 + 1e-7), log(0.75),        log(1.75)};
  for (int i = 0; i < 6; i++) {
    float x = 0.25f;
    assert_int_equal(apply(name[i], &x, 1, false, yaml[i]), FN_OK);
    assert_relative((double)x, expected[i], 1e-7);
  }
  float empty = -1;
  assert_int_equal(apply("log1p", &empty, 1, false, NULL), FN_OK);
  assert_relative((double)empty, log(1e-7), 1e-6);
}

/* Undo is the inverse, a large eps included: forgetting it would show. */
static void undo_is_the_inverse(void **state) {
  (void)state;
  const char *name[] = {"identity",    "cosmology.dis", "cosmology.vel", "torch.exp", "torch.log",
                        "torch.expm1", "torch.log1p",   "dis",           "vel",       "exp",
                        "log",         "expm1",         "log1p"};
  for (size_t n = 0; n < sizeof name / sizeof name[0]; n++) {
    float x[40], y[40];
    for (int i = 0; i < 40; i++)
      x[i] = y[i] = 0.05f * (float)(i + 1);
    assert_int_equal(apply(name[n], y, 40, false, "{eps: 0.125, z: 0.7}"), FN_OK);
    assert_true(n == 0 || fabs((double)(y[7] - x[7])) > 1e-3);
    assert_int_equal(apply(name[n], y, 40, true, "{eps: 0.125, z: 0.7}"), FN_OK);
    for (int i = 0; i < 40; i++)
      assert_true(fabs((double)(y[i] - x[i])) < 1e-6);
  }
}

static fn_status twice(float *values, int64_t channels, int64_t cells, bool undo,
                       const fn_options *options) {
  (void)options;
  for (int64_t i = 0; i < channels * cells; i++)
    values[i] *= undo ? 0.5f : 2;
  return FN_OK;
}

static fn_status thrice(float *values, int64_t channels, int64_t cells, bool undo,
                        const fn_options *options) {
  (void)options;
  for (int64_t i = 0; i < channels * cells; i++)
    values[i] *= undo ? 1 / 3.0f : 3;
  return FN_OK;
}

static void registering(void **state) {
  (void)state;
  const fn_norm *norm;
  assert_int_equal(fn_norm_find("mine.twice", &norm), FN_ERR_CONFIG);
  assert_int_equal(fn_register_norm(&(fn_norm){"mine.twice", "", twice}), FN_OK);
  assert_int_equal(fn_register_norm(&(fn_norm){"mine.twice", "", twice}), FN_OK);
  float x = 3;
  assert_int_equal(apply("mine.twice", &x, 1, false, NULL), FN_OK);
  assert_true(x == 6); // NOLINT: exact
  assert_int_equal(fn_register_norm(&(fn_norm){"mine.twice", "", thrice}), FN_ERR_CONFIG);
  assert_int_equal(fn_register_norm(&(fn_norm){"identity", "", thrice}), FN_ERR_CONFIG);
  assert_int_equal(fn_norm_find("mine.twcie", &norm), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "did you mean 'mine.twice'"));
  assert_int_equal(fn_norm_find("cosmolgy.dis", &norm), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "did you mean 'cosmology.dis'"));
  assert_int_equal(fn_norm_find("standardise", &norm), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "torch.log1p"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(golden_table),       cmocka_unit_test(other_cosmologies),
      cmocka_unit_test(units_of_the_table), cmocka_unit_test(options_matter),
      cmocka_unit_test(forward_values),     cmocka_unit_test(undo_is_the_inverse),
      cmocka_unit_test(registering),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
