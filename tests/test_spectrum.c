/* data: power spectra against published mode counts and a brute-force Fourier transform. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <complex.h>
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "data/spectrum.h"

static void assert_near(double value, double expected, double tolerance) {
  if (!(fabs(value - expected) <= tolerance)) {
    fail_msg("%.17g is not within %g of %.17g", value, tolerance, expected);
  }
}

static void noise(float *values, int64_t count, uint64_t seed) {
  fn_random random = fn_random_stream(seed, FN_RANDOM_TEST, 0, 0);
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)fn_random_normal(&random);
}

/* Full complex transform by its definition, every mode counted once: shares nothing with the half
 * transform and its weights. */
static void brute_force(int spatial, const int64_t *size, const float *a, const float *b,
                        int64_t batch, int64_t channels, int64_t bins, double *k, int64_t *modes,
                        double *power) {
  int64_t n[3] = {1, 1, 1}, cells = 1;
  for (int i = 0; i < spatial; i++)
    n[i] = size[i];
  for (int i = 0; i < 3; i++)
    cells *= n[i];
  for (int64_t i = 0; i < bins; i++)
    k[i] = power[i] = 0, modes[i] = 0;
  for (int64_t mode = 1; mode < cells; mode++) {
    const int64_t m[3] = {mode / (n[1] * n[2]), mode / n[2] % n[1], mode % n[2]};
    double norm = 0;
    for (int i = 0; i < 3; i++) {
      const double f = (double)(2 * m[i] > n[i] ? m[i] - n[i] : m[i]);
      norm += f * f;
    }
    norm = sqrt(norm);
    const int64_t bin = (int64_t)ceil(norm) - 1;
    if (bin >= bins) continue;
    modes[bin]++;
    k[bin] += norm;
    for (int64_t field = 0; field < batch * channels; field++) {
      double complex fa = 0, fb = 0;
      for (int64_t c = 0; c < cells; c++) {
        const double turns = (double)(c / (n[1] * n[2]) * m[0]) / (double)n[0] +
                             (double)(c / n[2] % n[1] * m[1]) / (double)n[1] +
                             (double)(c % n[2] * m[2]) / (double)n[2];
        const double complex wave = CMPLX(cos(2 * M_PI * turns), -sin(2 * M_PI * turns));
        fa += (double)a[field * cells + c] * wave;
        fb += (double)b[field * cells + c] * wave;
      }
      power[bin] += creal(fa * conj(fb));
    }
  }
  for (int64_t i = 0; i < bins; i++) {
    k[i] /= (double)modes[i];
    power[i] /= (double)(modes[i] * batch);
  }
}

static void compare(int spatial, const int64_t *size, int64_t batch, int64_t channels) {
  int64_t count = batch * channels;
  for (int i = 0; i < spatial; i++)
    count *= size[i];
  float *a = malloc(sizeof *a * (size_t)count), *b = malloc(sizeof *b * (size_t)count);
  noise(a, count, 1);
  noise(b, count, 2);
  fn_spectrum *spectrum;
  assert_int_equal(fn_spectrum_create(spatial, size, 0, &spectrum), FN_OK);
  double k[16], expected[16], power[16];
  int64_t modes[16];
  brute_force(spatial, size, a, b, batch, channels, spectrum->bins, k, modes, expected);
  fn_spectrum_cross(spectrum, a, b, batch, channels, power);
  for (int64_t i = 0; i < spectrum->bins; i++) {
    assert_int_equal(spectrum->modes[i], modes[i]);
    assert_near(spectrum->k[i], k[i], 1e-12);
    assert_near(power[i], expected[i], 1e-9 * (double)count);
  }
  brute_force(spatial, size, a, a, batch, channels, spectrum->bins, k, modes, expected);
  fn_spectrum_power(spectrum, a, batch, channels, power);
  for (int64_t i = 0; i < spectrum->bins; i++) {
    assert_near(power[i] / expected[i], 1, 1e-12);
  }
  fn_spectrum_destroy(spectrum);
  free(a);
  free(b);
}

static void equals_brute_force(void **state) {
  (void)state;
  compare(1, (int64_t[]){16}, 2, 3);
  compare(1, (int64_t[]){9}, 1, 1);
  compare(2, (int64_t[]){8, 8}, 3, 2);
  compare(2, (int64_t[]){7, 10}, 1, 2);
  compare(3, (int64_t[]){8, 8, 8}, 2, 3);
  compare(3, (int64_t[]){6, 5, 7}, 1, 1);
}

/* map2map page, section 13.5, item 9. */
static void mode_counts(void **state) {
  (void)state;
  fn_spectrum *spectrum;
  assert_int_equal(fn_spectrum_create(3, (int64_t[]){8, 8, 8}, 0, &spectrum), FN_OK);
  assert_int_equal(spectrum->bins, 4);
  const int64_t expected[4] = {6, 26, 90, 131};
  for (int i = 0; i < 4; i++)
    assert_int_equal(spectrum->modes[i], expected[i]);
  fn_spectrum_destroy(spectrum);
}

/* A plane wave of amplitude A and wave number 3 * 2 pi / L has |F|^2 = (A cells / 2)^2 in two
 * modes, and nothing elsewhere. */
static void plane_wave_in_a_box(void **state) {
  (void)state;
  enum { N = 16 };
  const double box = 50, amplitude = 2;
  static float field[N * N * N];
  for (int i = 0; i < N * N * N; i++)
    field[i] = (float)(amplitude * cos(2 * M_PI * 3 * i / N));
  fn_spectrum *spectrum;
  assert_int_equal(fn_spectrum_create(3, (int64_t[]){N, N, N}, box, &spectrum), FN_OK);
  double power[N / 2];
  fn_spectrum_power(spectrum, field, 1, 1, power);
  const double cells = N * N * N, wave = amplitude * cells / 2;
  assert_near(power[2] * (double)spectrum->modes[2], 2 * wave * wave, 1e-5 * wave * wave);
  assert_true(power[0] < 1e-8 * power[2] && power[5] < 1e-8 * power[2]);
  // in a box of L^3, the power per mode times the modes over the volume is the variance A^2 / 2
  const double variance = power[2] * spectrum->density * (double)spectrum->modes[2] / pow(box, 3);
  assert_near(variance, amplitude * amplitude / 2, 1e-5);
  // the first bin holds the six modes of the fundamental
  assert_near(spectrum->k[0], 2 * M_PI / box, 1e-12);
  fn_spectrum_destroy(spectrum);
}

/* out = 0.5 target: T = 0.5, r = 1. out = target + independent noise of the same power:
 * T = sqrt 2, r = 1 / sqrt 2 in expectation. */
static void transfer_and_correlation(void **state) {
  (void)state;
  enum { N = 32, BINS = N / 2, COUNT = N * N * N };
  static float target[COUNT], out[COUNT], other[COUNT];
  noise(target, COUNT, 3);
  noise(other, COUNT, 4);
  fn_spectrum *spectrum;
  assert_int_equal(fn_spectrum_create(3, (int64_t[]){N, N, N}, 0, &spectrum), FN_OK);
  double power_target[BINS], power_out[BINS], cross[BINS], transfer[BINS], correlation[BINS];
  fn_spectrum_power(spectrum, target, 1, 1, power_target);
  for (int i = 0; i < COUNT; i++)
    out[i] = 0.5f * target[i];
  fn_spectrum_power(spectrum, out, 1, 1, power_out);
  fn_spectrum_cross(spectrum, out, target, 1, 1, cross);
  fn_transfer_function(BINS, power_out, power_target, transfer);
  fn_cross_correlation(BINS, cross, power_out, power_target, correlation);
  for (int i = 0; i < BINS; i++) {
    assert_near(transfer[i], 0.5, 1e-9);
    assert_near(correlation[i], 1, 1e-9);
  }
  for (int i = 0; i < COUNT; i++)
    out[i] = target[i] + other[i];
  fn_spectrum_power(spectrum, out, 1, 1, power_out);
  fn_spectrum_cross(spectrum, out, target, 1, 1, cross);
  fn_transfer_function(BINS, power_out, power_target, transfer);
  fn_cross_correlation(BINS, cross, power_out, power_target, correlation);
  assert_near(transfer[BINS - 1], sqrt(2), 0.08);
  assert_near(correlation[BINS - 1], sqrt(0.5), 0.05);
  power_target[0] = 0;
  fn_transfer_function(1, power_out, power_target, transfer);
  assert_true(isnan(transfer[0]));
  fn_spectrum_destroy(spectrum);
}

static void refuses_empty_sizes(void **state) {
  (void)state;
  fn_spectrum *spectrum;
  assert_int_equal(fn_spectrum_create(2, (int64_t[]){8, 1}, 0, &spectrum), FN_ERR_DATA);
  assert_null(spectrum);
  assert_int_equal(fn_spectrum_create(4, (int64_t[]){8, 8, 8, 8}, 0, &spectrum), FN_ERR_DATA);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mode_counts),         cmocka_unit_test(equals_brute_force),
      cmocka_unit_test(plane_wave_in_a_box), cmocka_unit_test(transfer_and_correlation),
      cmocka_unit_test(refuses_empty_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
