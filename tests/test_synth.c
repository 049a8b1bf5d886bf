/* data: generated displacement fields against linear theory and analytic second-order solutions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/system.h"
#include "data/dataset.h"
#include "data/synth.h"
#include "field/field.h"

enum { N = 16, CELLS = N * N * N };
static const double BOX = 128;

static double density[CELLS];
static float first[3 * CELLS], second[3 * CELLS];

static void assert_near(double value, double expected, double tolerance) {
  if (!(fabs(value - expected) <= tolerance)) {
    fail_msg("%.17g is not within %g of %.17g", value, tolerance, expected);
  }
}

static fn_synth_options options_of(uint64_t seed) {
  fn_synth_options options = fn_synth_defaults();
  options.edge = N;
  options.box = BOX;
  options.seed = seed;
  return options;
}

static void displace(double omega_m) {
  assert_int_equal(fn_lagrangian_displacement(N, BOX, omega_m, density, first, second), FN_OK);
}

/* sigma_8 by Simpson's rule in k, and the linear displacement of a LCDM universe today: the rms
 * along one axis, sqrt(int P dk / (6 pi^2)), is close to 6 Mpc/h for sigma_8 = 0.8 (the velocity
 * dispersion over H f, e.g. Crocce & Scoccimarro 2006). */
static void spectrum_is_normalised(void **state) {
  (void)state;
  const fn_linear_power power = fn_linear_power_create(0.31);
  const int steps = 400000;
  const double high = 40, dk = high / steps;
  double sigma8 = 0, displacement = 0;
  for (int i = 1; i <= steps; i++) {
    const double k = dk * i, x = 8 * k, weight = dk / 3 * (i == steps ? 1 : i % 2 ? 4 : 2);
    const double window = 3 * (sin(x) / x - cos(x)) / (x * x), p = fn_linear_power_at(&power, k);
    sigma8 += weight * k * k * p * window * window / (2 * M_PI * M_PI);
    displacement += weight * p / (6 * M_PI * M_PI);
  }
  assert_near(sqrt(sigma8), 0.81, 1e-4);
  assert_true(sqrt(displacement) > 5.4 && sqrt(displacement) < 6.6);
  // shape: P ~ k^n_s on the largest scales, turn-over near k = 0.016 h/Mpc
  const double slope = log(fn_linear_power_at(&power, 2e-5) / fn_linear_power_at(&power, 1e-5));
  assert_near(slope / log(2), 0.965, 0.01);
  double peak = 0, best = 0;
  for (double k = 1e-3; k < 1; k *= 1.01) {
    if (fn_linear_power_at(&power, k) > best) {
      best = fn_linear_power_at(&power, k);
      peak = k;
    }
  }
  assert_true(peak > 0.013 && peak < 0.02);
}

/* Expected variance of one component in a finite box: sum over its modes of P(k) k_x^2 / (k^4 V).
 */
static void variance_is_the_sum_over_modes(void **state) {
  (void)state;
  const fn_linear_power power = fn_linear_power_create(0.31);
  double expected = 0;
  for (int x = -N / 2 + 1; x < N / 2; x++) {
    for (int y = -N / 2 + 1; y < N / 2; y++) {
      for (int z = -N / 2 + 1; z < N / 2; z++) {
        const double k = 2 * M_PI / BOX * sqrt(x * x + y * y + z * z);
        const double kx = 2 * M_PI / BOX * x;
        if (k > 0) expected += fn_linear_power_at(&power, k) * kx * kx / pow(k, 4) / pow(BOX, 3);
      }
    }
  }
  assert_true(sqrt(expected) > 3 && sqrt(expected) < 6); // Mpc/h, one component
  double measured[3] = {0};
  const int seeds = 300; // a box has few large modes: one seed scatters by a third
  for (int seed = 0; seed < seeds; seed++) {
    const fn_synth_options options = options_of((uint64_t)seed);
    assert_int_equal(fn_synth_density(&options, 0, density), FN_OK);
    displace(0.31);
    for (int i = 0; i < 3 * CELLS; i++) {
      measured[i / CELLS] += (double)first[i] * (double)first[i] / CELLS / seeds;
    }
  }
  const double mean = (measured[0] + measured[1] + measured[2]) / 3;
  assert_near(mean / expected, 1, 0.05);
  for (int i = 0; i < 3; i++)
    assert_near(measured[i] / expected, 1, 0.1);
}

/* Derivative of component `component` along `axis`, by Lagrange's trigonometric interpolation:
 * exact for fields without a Nyquist mode, and no Fourier transform. */
static void derivative(const float *field, int component, int axis, double *out) {
  const int stride = axis == 0 ? N * N : axis == 1 ? N : 1;
  for (int c = 0; c < CELLS; c++) {
    const int at = c / stride % N;
    double sum = 0;
    for (int other = 0; other < N; other++) {
      const int d = at - other;
      if (d == 0) continue;
      // spectral differentiation matrix of even N (Trefethen 2000, chapter 3)
      const double weight = (d % 2 ? -0.5 : 0.5) / tan(M_PI * d / N);
      sum += weight * (double)field[component * CELLS + c + (other - at) * stride];
    }
    out[c] = sum * 2 * M_PI / BOX;
  }
}

static void first_order_is_a_gradient_of_the_density(void **state) {
  (void)state;
  const fn_synth_options options = options_of(7);
  assert_int_equal(fn_synth_density(&options, 3, density), FN_OK);
  displace(0.31);
  static double a[CELLS], b[CELLS], divergence[CELLS];
  memset(divergence, 0, sizeof divergence);
  double rms = 0;
  for (int axis = 0; axis < 3; axis++) {
    derivative(first, axis, axis, a);
    for (int c = 0; c < CELLS; c++)
      divergence[c] += a[c];
  }
  for (int c = 0; c < CELLS; c++)
    rms += density[c] * density[c] / CELLS;
  assert_true(rms > 0.01);
  for (int c = 0; c < CELLS; c++)
    assert_near(divergence[c], -density[c], 1e-5 * sqrt(rms));
  for (int i = 0; i < 3; i++) { // curl
    derivative(first, (i + 1) % 3, i, a);
    derivative(first, i, (i + 1) % 3, b);
    for (int c = 0; c < CELLS; c++)
      assert_near(a[c] - b[c], 0, 1e-5 * sqrt(rms));
  }
}

/* A plane wave in any direction is exact at first order: no second order. */
static void plane_wave_has_no_second_order(void **state) {
  (void)state;
  for (int c = 0; c < CELLS; c++) {
    const int x = c / (N * N), y = c / N % N, z = c % N;
    density[c] = 0.3 * cos(2 * M_PI * (2 * x + 3 * y - z) / N + 0.4);
  }
  displace(0.31);
  double largest = 0, difference = 0;
  for (int i = 0; i < 3 * CELLS; i++) {
    largest = fmax(largest, fabs((double)first[i]));
    difference = fmax(difference, fabs((double)second[i] - (double)first[i]));
  }
  assert_near(largest, 0.3 * 3 / 14 / (2 * M_PI / BOX), 0.02 * largest);
  assert_true(difference < 1e-5 * largest);
}

/* delta = A cos(p x) + B cos(q y): the quadratic source is A B cos(p x) cos(q y), so that
 * psi2 = -3/7 w grad phi2 with phi2 = -A B cos(p x) cos(q y) / (p^2 + q^2), w = omega_m^(-1/143).
 */
static void two_modes_have_the_analytic_second_order(void **state) {
  (void)state;
  const double unit = 2 * M_PI / BOX, p = 2 * unit, q = 3 * unit, a = 0.4, b = 0.7;
  for (int c = 0; c < CELLS; c++) {
    const double x = c / (N * N) * BOX / N, y = c / N % N * BOX / N;
    density[c] = a * cos(p * x) + b * cos(q * y);
  }
  displace(0.25);
  const double weight = -3.0 / 7 * pow(0.25, -1.0 / 143) * a * b / (p * p + q * q);
  for (int c = 0; c < CELLS; c++) {
    const double x = c / (N * N) * BOX / N, y = c / N % N * BOX / N;
    const double expected[3] = {weight * p * sin(p * x) * cos(q * y),
                                weight * q * cos(p * x) * sin(q * y), 0};
    assert_near((double)first[c], -a / p * sin(p * x), 1e-5);
    for (int i = 0; i < 3; i++) {
      assert_near((double)second[i * CELLS + c] - (double)first[i * CELLS + c], expected[i], 1e-5);
    }
  }
}

static void seed_and_index_decide(void **state) {
  (void)state;
  static double again[CELLS];
  const int threads = fn_threads_get();
  fn_synth_options options = options_of(1);
  assert_int_equal(fn_synth_density(&options, 2, density), FN_OK);
  fn_threads_set(3);
  assert_int_equal(fn_synth_density(&options, 2, again), FN_OK);
  fn_threads_set(threads);
  assert_memory_equal(density, again, sizeof again);
  assert_int_equal(fn_synth_density(&options, 1, again), FN_OK);
  assert_memory_not_equal(density, again, sizeof again);
  options.seed = 2;
  assert_int_equal(fn_synth_density(&options, 2, again), FN_OK);
  assert_memory_not_equal(density, again, sizeof again);
}

static void files_are_pairs_and_are_kept(void **state) {
  (void)state;
  char folder[] = "/tmp/fieldnet-synth-XXXXXX", path[256];
  assert_non_null(mkdtemp(folder));
  fn_synth_options options = options_of(5);
  options.folder = folder;
  options.files = 2;
  options.first = 9;
  options.edge = 10; // not a power of two
  assert_int_equal(fn_synth_displacement(&options), FN_OK);
  assert_int_equal(fn_synth_displacement(&options), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "009.npy"));
  options.force = true;
  assert_int_equal(fn_synth_displacement(&options), FN_OK);
  static const char *const names[] = {"lin/009.npy", "lin/010.npy", "lpt2/009.npy", "lpt2/010.npy"};
  for (int i = 0; i < 4; i++) {
    fn_field *field;
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    assert_int_equal(fn_field_open(path, false, &field), FN_OK);
    assert_int_equal(fn_field_get_info(field)->channels, 3);
    assert_int_equal(fn_field_get_info(field)->size[2], 10);
    fn_field_close(field);
    unlink(path);
  }
  snprintf(path, sizeof path, "%s/lin", folder);
  assert_int_equal(rmdir(path), 0); // nothing else was left behind
  snprintf(path, sizeof path, "%s/lpt2", folder);
  assert_int_equal(rmdir(path), 0);
  rmdir(folder);
}

static void refuses_impossible_options(void **state) {
  (void)state;
  fn_synth_options options = options_of(1);
  options.folder = "/nonexistent";
  options.edge = 1;
  assert_int_equal(fn_synth_displacement(&options), FN_ERR_CONFIG);
  options.edge = 8;
  options.omega_m = -1;
  assert_int_equal(fn_synth_displacement(&options), FN_ERR_CONFIG);
  options.omega_m = 0.3;
  options.folder = NULL;
  assert_int_equal(fn_synth_displacement(&options), FN_ERR_CONFIG);
}

/* Poisson's equation on the largest scale, where all modes have one wave number, with the numbers
 *  put in by hand: k^2 phi = -3/2 omega_m (100 / 299792.458)^2 (1 + z) D(z) delta; and the cubes of
 *  the second theory differ as they were told to. */
static void potential_solves_poisson(void **state) {
  (void)state;
  static double potential[CELLS], other[CELLS];
  const fn_synth_options options = options_of(4);
  const fn_potential_options o = {.edge = N,
                                  .box = BOX,
                                  .omega_m = options.omega_m,
                                  .redshift = 1,
                                  .seed = 4,
                                  .difference = 0.25,
                                  .offset = -0.5};
  assert_int_equal(fn_synth_density(&options, 3, density), FN_OK);
  assert_int_equal(fn_synth_potential(&o, 3, false, potential), FN_OK);
  // The Fourier mode (1, 0, 0) of both, real and imaginary part.
  double phi[2] = {0, 0}, delta[2] = {0, 0};
  for (int64_t i = 0; i < CELLS; i++) {
    const double angle = 2 * M_PI * (double)(i / (N * N)) / N;
    phi[0] += potential[i] * cos(angle);
    phi[1] += potential[i] * sin(angle);
    delta[0] += density[i] * cos(angle);
    delta[1] += density[i] * sin(angle);
  }
  const double k = 2 * M_PI / BOX;
  const double factor =
      -1.5 * o.omega_m * pow(100 / 299792.458, 2) * 2 * fn_growth_factor(1, o.omega_m) / (k * k);
  for (int part = 0; part < 2; part++)
    assert_near(phi[part], factor * delta[part], 1e-10 * fabs(factor * delta[part]));
  assert_int_equal(fn_synth_potential(&o, 3, true, other), FN_OK);
  double squares = 0, mean = 0, difference = 0;
  for (int64_t i = 0; i < CELLS; i++) {
    squares += potential[i] * potential[i] / CELLS;
    mean += (other[i] - potential[i]) / CELLS;
  }
  for (int64_t i = 0; i < CELLS; i++)
    difference += pow(other[i] - potential[i] - mean, 2) / CELLS;
  assert_near(mean / sqrt(squares), -0.5, 1e-12);
  assert_near(sqrt(difference / squares), 0.25, 1e-12);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(spectrum_is_normalised),
      cmocka_unit_test(variance_is_the_sum_over_modes),
      cmocka_unit_test(first_order_is_a_gradient_of_the_density),
      cmocka_unit_test(plane_wave_has_no_second_order),
      cmocka_unit_test(two_modes_have_the_analytic_second_order),
      cmocka_unit_test(seed_and_index_decide),
      cmocka_unit_test(files_are_pairs_and_are_kept),
      cmocka_unit_test(refuses_impossible_options),
      cmocka_unit_test(potential_solves_poisson),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
