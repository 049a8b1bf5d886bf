#include "data/synth.h"

#include <complex.h>
#include <fftw3.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/random.h"
#include "base/system.h"
#include "data/cube_source.h"
#include "data/dataset.h"
#include "data/spectrum.h"
#include "field/field.h"

// Planck 2018 (arXiv:1807.06209) rounded; T_CMB: Fixsen 2009.
static const double HUBBLE = 0.677, OMEGA_B = 0.049, CMB_KELVIN = 2.7255, TILT = 0.965,
                    SIGMA_8 = 0.81;

fn_synth_options fn_synth_defaults(void) {
  return (fn_synth_options){.files = 1, .edge = 64, .box = 128, .omega_m = 0.31, .seed = 1};
}

/* ---- power spectrum -------------------------------------------------------------------------- */

/** Transfer function without wiggles, Eisenstein & Hu 1998 (ApJ 496, 605), equations 26 and 28-31.
 */
static double transfer(double omega_m, double k) {
  const double matter = omega_m * HUBBLE * HUBBLE, baryons = OMEGA_B * HUBBLE * HUBBLE;
  const double fraction = OMEGA_B / omega_m, theta = CMB_KELVIN / 2.7;
  const double sound = 44.5 * log(9.83 / matter) / sqrt(1 + 10 * pow(baryons, 0.75)); // Mpc
  const double alpha =
      1 - 0.328 * log(431 * matter) * fraction + 0.38 * log(22.3 * matter) * fraction * fraction;
  const double shape =
      omega_m * HUBBLE * (alpha + (1 - alpha) / (1 + pow(0.43 * k * HUBBLE * sound, 4)));
  const double q = k * theta * theta / shape;
  const double l = log(2 * M_E + 1.8 * q), c = 14.2 + 731 / (1 + 62.5 * q);
  return l / (l + c * q * q);
}

double fn_linear_power_at(const fn_linear_power *power, double k) {
  if (k <= 0) return 0;
  const double t = transfer(power->omega_m, k);
  return power->amplitude * pow(k, TILT) * t * t;
}

fn_linear_power fn_linear_power_create(double omega_m) {
  fn_linear_power power = {.omega_m = omega_m, .amplitude = 1};
  // sigma_8^2 = int d(ln k) k^3 P W^2 / (2 pi^2), W the top hat of 8 Mpc/h; trapezoid in ln k.
  const double low = log(1e-5), high = log(1e2), radius = 8;
  const int steps = 20000;
  double sum = 0;
  for (int i = 0; i <= steps; i++) {
    const double k = exp(low + (high - low) * i / steps), x = k * radius;
    const double window = 3 * (sin(x) - x * cos(x)) / (x * x * x);
    sum += k * k * k * fn_linear_power_at(&power, k) * window * window;
  }
  power.amplitude = SIGMA_8 * SIGMA_8 / (sum * (high - low) / steps / (2 * M_PI * M_PI));
  return power;
}

/* ---- grid -------------------------------------------------------------------------------------
 */

/** A cubic periodic grid and its transforms. Half spaces have shape [edge, edge, half]. */
typedef struct grid {
  int64_t edge, half, cells, modes;
  double fundamental; // 2 pi / box
  double *real;       // [cells]
  fftw_complex *wave; // [modes]; destroyed by backward
  fftw_plan forward, backward;
} grid;

static void grid_destroy(grid *g) {
  fn_fft_planner_lock();
  if (g->forward) fftw_destroy_plan(g->forward);
  if (g->backward) fftw_destroy_plan(g->backward);
  fn_fft_planner_unlock();
  fftw_free(g->real);
  fftw_free(g->wave);
}

static fn_status grid_create(int64_t edge, double box, grid *g) {
  *g = (grid){.edge = edge, .half = edge / 2 + 1, .fundamental = 2 * M_PI / box};
  g->cells = edge * edge * edge;
  g->modes = edge * edge * g->half;
  g->real = fftw_alloc_real((size_t)g->cells);
  g->wave = fftw_alloc_complex((size_t)g->modes);
  if (!g->real || !g->wave) {
    grid_destroy(g);
    FN_FAIL(FN_ERR_MEMORY, "no memory for a field of %lld^3 cells", (long long)edge);
  }
  const int n = (int)edge;
  fn_fft_planner_lock();
  // FFTW_ESTIMATE: the same plan, and so the same rounding, on every call
  g->forward = fftw_plan_dft_r2c_3d(n, n, n, g->real, g->wave, FFTW_ESTIMATE);
  g->backward = fftw_plan_dft_c2r_3d(n, n, n, g->wave, g->real, FFTW_ESTIMATE);
  fn_fft_planner_unlock();
  if (!g->forward || !g->backward) {
    grid_destroy(g);
    FN_FAIL(FN_ERR_INTERNAL, "FFTW has no plan for %lld^3 cells", (long long)edge);
  }
  return FN_OK;
}

/** Wave vector of mode (x, y, z); false for the zero mode and where an axis is at its Nyquist
 *  frequency. */
static bool wave_vector(const grid *g, int64_t x, int64_t y, int64_t z, double *k) {
  if (2 * x == g->edge || 2 * y == g->edge || 2 * z == g->edge || (x | y | z) == 0) return false;
  k[0] = g->fundamental * (double)(2 * x > g->edge ? x - g->edge : x);
  k[1] = g->fundamental * (double)(2 * y > g->edge ? y - g->edge : y);
  k[2] = g->fundamental * (double)z;
  return true;
}

/** out = factor(k) * in for every mode; a mode without wave vector becomes zero. */
typedef double complex mode_factor(const double *k, double squared, const void *user);

static void multiply_modes(const grid *g, const fftw_complex *in, fftw_complex *out,
                           mode_factor *factor, const void *user) {
#pragma omp parallel for collapse(2)
  for (int64_t x = 0; x < g->edge; x++) {
    for (int64_t y = 0; y < g->edge; y++) {
      for (int64_t z = 0; z < g->half; z++) {
        const int64_t mode = (x * g->edge + y) * g->half + z;
        double k[3];
        if (wave_vector(g, x, y, z, k)) {
          out[mode] = in[mode] * factor(k, k[0] * k[0] + k[1] * k[1] + k[2] * k[2], user);
        } else {
          out[mode] = 0;
        }
      }
    }
  }
}

/* ---- density -----------------------------------------------------------------------------------
 */

static double complex density_factor(const double *k, double squared, const void *user) {
  (void)k;
  return sqrt(fn_linear_power_at(user, sqrt(squared)));
}

/** Unit white noise in real space: cell (x, y, z) owns block y * edge + z of stream (index, x). */
static void white_noise(uint64_t seed, fn_purpose purpose, int64_t edge, int64_t index,
                        double *values) {
  const int64_t plane = edge * edge;
#pragma omp parallel for
  for (int64_t x = 0; x < edge; x++) {
    fn_random random = fn_random_stream(seed, purpose, (uint32_t)index, (uint64_t)x);
    for (int64_t i = 0; i < plane; i++) {
      fn_random_seek(&random, (uint32_t)i);
      values[x * plane + i] = fn_random_normal(&random);
    }
  }
}

fn_status fn_synth_density(const fn_synth_options *options, int64_t index, double *density) {
  grid g;
  FN_TRY(grid_create(options->edge, options->box, &g));
  const fn_linear_power power = fn_linear_power_create(options->omega_m);
  white_noise(options->seed, FN_RANDOM_SYNTH, options->edge, index, g.real);
  fftw_execute(g.forward);
  multiply_modes(&g, g.wave, g.wave, density_factor, &power);
  fftw_execute(g.backward);
  // Noise of unit variance has <|W|^2> = cells, and P = V <|delta / cells|^2>: the density's modes
  // are W sqrt(P cells / V); the transform back divides by cells.
  const double volume = pow(options->box, 3), cells = (double)g.cells;
  const double scale = sqrt(cells / volume) / cells;
  for (int64_t i = 0; i < g.cells; i++)
    density[i] = g.real[i] * scale;
  grid_destroy(&g);
  return FN_OK;
}

/* ---- potential ---------------------------------------------------------------------------------
 */

static double complex potential_factor(const double *k, double squared, const void *user) {
  (void)k;
  return -sqrt(fn_linear_power_at(user, sqrt(squared))) / squared;
}

/** Add the other theory's difference to a potential. */
static fn_status add_difference(const fn_potential_options *o, int64_t index, double *potential) {
  const int64_t cells = o->edge * o->edge * o->edge;
  double *noise = malloc(sizeof *noise * (size_t)cells), mean, squares, noise_mean, noise_squares;
  FN_CHECK(noise, FN_ERR_MEMORY, "no memory for a field of %lld^3 cells", (long long)o->edge);
  white_noise(o->seed, FN_RANDOM_NOISE, o->edge, index, noise);
  fn_cube_moments(potential, cells, &mean, &squares);
  fn_cube_moments(noise, cells, &noise_mean, &noise_squares);
  const double rms = sqrt(squares / (double)cells),
               factor = o->difference * sqrt(squares / noise_squares);
  for (int64_t i = 0; i < cells; i++)
    potential[i] += (noise[i] - noise_mean) * factor + o->offset * rms;
  free(noise);
  return FN_OK;
}

fn_status fn_synth_potential(const fn_potential_options *o, int64_t index, bool second,
                             double *potential) {
  grid g;
  FN_TRY(grid_create(o->edge, o->box, &g));
  const fn_linear_power power = fn_linear_power_create(o->omega_m);
  white_noise(o->seed, FN_RANDOM_SYNTH, o->edge, index, g.real);
  fftw_execute(g.forward);
  multiply_modes(&g, g.wave, g.wave, potential_factor, &power);
  fftw_execute(g.backward);
  // As for the density; then Poisson's equation in comoving coordinates, phi in units of c^2.
  const double speed_of_light = 299792.458, hubble = 100; // km/s, h km/s/Mpc
  const double poisson = 1.5 * o->omega_m * pow(hubble / speed_of_light, 2) * (1 + o->redshift) *
                         fn_growth_factor(o->redshift, o->omega_m);
  const double cells = (double)g.cells;
  const double scale = poisson * sqrt(cells / pow(o->box, 3)) / cells;
  for (int64_t i = 0; i < g.cells; i++)
    potential[i] = g.real[i] * scale;
  grid_destroy(&g);
  return second ? add_difference(o, index, potential) : FN_OK;
}

/* ---- displacement -------------------------------------------------------------------------------
 */

typedef struct axes {
  int i, j;
} axes;

/** -i k_i / k^2: from a source s = laplace(phi) to the gradient of phi. */
static double complex gradient_factor(const double *k, double squared, const void *user) {
  const axes *a = user;
  return CMPLX(0, -k[a->i] / squared);
}

/** k_i k_j / k^2: from s = laplace(phi) to d^2 phi / (dx_i dx_j). */
static double complex tidal_factor(const double *k, double squared, const void *user) {
  const axes *a = user;
  return k[a->i] * k[a->j] / squared;
}

/** g->real = d^2 phi / (dx_i dx_j), where `source` is the transform of laplace(phi). */
static void tidal(grid *g, const fftw_complex *source, int i, int j) {
  multiply_modes(g, source, g->wave, tidal_factor, &(axes){i, j});
  fftw_execute(g->backward);
  const double scale = 1 / (double)g->cells;
  for (int64_t c = 0; c < g->cells; c++)
    g->real[c] *= scale;
}

/** out[axis] = weight * d phi / dx_axis, added to `add` unless that is NULL. */
static void gradient(grid *g, const fftw_complex *source, double weight, const float *add,
                     float *out) {
  const double scale = weight / (double)g->cells;
  for (int axis = 0; axis < 3; axis++) {
    multiply_modes(g, source, g->wave, gradient_factor, &(axes){axis, 0});
    fftw_execute(g->backward);
    const int64_t offset = axis * g->cells;
    for (int64_t c = 0; c < g->cells; c++) {
      const double before = add ? (double)add[offset + c] : 0;
      out[offset + c] = (float)(before + scale * g->real[c]);
    }
  }
}

/** quadratic = sum_{i<j} (phi_ii phi_jj - phi_ij^2); `work` has cells elements. */
static void second_order_source(grid *g, const fftw_complex *density, double *work,
                                double *quadratic) {
  tidal(g, density, 0, 0);
  memcpy(work, g->real, sizeof *work * (size_t)g->cells);
  tidal(g, density, 1, 1);
  for (int64_t c = 0; c < g->cells; c++) {
    quadratic[c] = work[c] * g->real[c];
    work[c] += g->real[c];
  }
  tidal(g, density, 2, 2);
  for (int64_t c = 0; c < g->cells; c++)
    quadratic[c] += work[c] * g->real[c];
  static const axes pairs[3] = {{0, 1}, {0, 2}, {1, 2}};
  for (int p = 0; p < 3; p++) {
    tidal(g, density, pairs[p].i, pairs[p].j);
    for (int64_t c = 0; c < g->cells; c++)
      quadratic[c] -= g->real[c] * g->real[c];
  }
}

fn_status fn_lagrangian_displacement(int64_t edge, double box, double omega_m,
                                     const double *density, float *first, float *second) {
  grid g;
  FN_TRY(grid_create(edge, box, &g));
  fftw_complex *source = fftw_alloc_complex((size_t)g.modes);
  double *work = fftw_alloc_real((size_t)g.cells), *quadratic = fftw_alloc_real((size_t)g.cells);
  const bool enough = source && work && quadratic;
  if (enough) {
    // Bouchet et al. 1995; Scoccimarro 1998 (MNRAS 299, 1097), appendix D: laplace(phi1) = density,
    // laplace(phi2) = quadratic source, x = q - grad phi1 + D2 grad phi2 with the growth factor 1
    // today and D2 = -3/7 omega_m^(-1/143).
    memcpy(g.real, density, sizeof *density * (size_t)g.cells);
    fftw_execute(g.forward);
    memcpy(source, g.wave, sizeof *source * (size_t)g.modes);
    gradient(&g, source, -1, NULL, first);
    second_order_source(&g, source, work, quadratic);
    memcpy(g.real, quadratic, sizeof *quadratic * (size_t)g.cells);
    fftw_execute(g.forward);
    memcpy(source, g.wave, sizeof *source * (size_t)g.modes);
    gradient(&g, source, -3.0 / 7 * pow(omega_m, -1.0 / 143), first, second);
  }
  fftw_free(source);
  fftw_free(work);
  fftw_free(quadratic);
  grid_destroy(&g);
  FN_CHECK(enough, FN_ERR_MEMORY, "no memory for the displacement of %lld^3 cells",
           (long long)edge);
  return FN_OK;
}

/* ---- files --------------------------------------------------------------------------------------
 */

static fn_status check_options(const fn_synth_options *o) {
  FN_CHECK(o->folder && *o->folder, FN_ERR_CONFIG, "synth displacement needs a folder to write to");
  FN_CHECK(o->files >= 1, FN_ERR_CONFIG, "number of files: expected at least 1, found %lld",
           (long long)o->files);
  FN_CHECK(o->first >= 0 && o->first + o->files <= UINT32_MAX, FN_ERR_CONFIG,
           "number of the first file: expected 0 or more, found %lld", (long long)o->first);
  FN_CHECK(o->edge >= 4 && o->edge <= 8192, FN_ERR_CONFIG,
           "edge: expected 4 to 8192 cells, found %lld", (long long)o->edge);
  FN_CHECK(o->box > 0 && isfinite(o->box), FN_ERR_CONFIG,
           "box: expected a length in Mpc/h above 0, found %g", o->box);
  // the fitting formula of the transfer function holds for low-density universes with more dark
  // matter than baryons
  FN_CHECK(o->omega_m >= 0.1 && o->omega_m <= 1, FN_ERR_CONFIG,
           "omega-m: expected 0.1 to 1, found %g", o->omega_m);
  return FN_OK;
}

static void pair_path(const fn_synth_options *o, const char *kind, int64_t index, char *path,
                      size_t size) {
  snprintf(path, size, "%s/%s/%03lld.npy", o->folder, kind, (long long)index);
}

static fn_status make_pair(const fn_synth_options *o, int64_t index, double *density, float *first,
                           float *second) {
  FN_TRY(fn_synth_density(o, index, density));
  FN_TRY(fn_lagrangian_displacement(o->edge, o->box, o->omega_m, density, first, second));
  const int64_t shape[4] = {3, o->edge, o->edge, o->edge};
  char path[4096];
  pair_path(o, "lin", index, path, sizeof path);
  FN_TRY(fn_npy_write(path, first, 4, shape));
  pair_path(o, "lpt2", index, path, sizeof path);
  FN_TRY(fn_npy_write(path, second, 4, shape));
  fn_log(FN_INFO, "%s/{lin,lpt2}/%03lld.npy", o->folder, (long long)index);
  return FN_OK;
}

static fn_status prepare_folders(const fn_synth_options *o) {
  static const char *const kinds[2] = {"lin", "lpt2"};
  char path[4096];
  FN_CHECK(strlen(o->folder) < sizeof path - 64, FN_ERR_CONFIG, "path too long: %s", o->folder);
  for (int kind = 0; kind < 2; kind++) {
    for (int64_t i = o->first; i < o->first + o->files && !o->force; i++) {
      pair_path(o, kinds[kind], i, path, sizeof path);
      FN_CHECK(!fn_file_exists(path), FN_ERR_DATA, "%s exists; --force replaces it", path);
    }
    snprintf(path, sizeof path, "%s/%s", o->folder, kinds[kind]);
    FN_TRY(fn_make_directories(path));
  }
  return FN_OK;
}

fn_status fn_synth_displacement(const fn_synth_options *options) {
  FN_TRY(check_options(options));
  FN_TRY(prepare_folders(options));
  const size_t cells = (size_t)(options->edge * options->edge * options->edge);
  double *density = malloc(sizeof *density * cells);
  float *first = malloc(sizeof *first * 3 * cells), *second = malloc(sizeof *second * 3 * cells);
  fn_status status = FN_OK;
  if (!density || !first || !second) {
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for fields of %lld^3 cells",
                          (long long)options->edge);
  }
  for (int64_t i = 0; i < options->files && status == FN_OK; i++) {
    status = make_pair(options, options->first + i, density, first, second);
  }
  free(density);
  free(first);
  free(second);
  return status;
}
