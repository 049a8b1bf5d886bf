#include "data/spectrum.h"

#include <complex.h>
#include <fftw3.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t planner = PTHREAD_MUTEX_INITIALIZER;

void fn_fft_planner_lock(void) {
  pthread_mutex_lock(&planner);
}
void fn_fft_planner_unlock(void) {
  pthread_mutex_unlock(&planner);
}

typedef struct fn_spectrum_transform {
  int64_t cells;          // of the real grid
  int64_t shape[3], half; // leading axes padded with ones; half: last axis of the transform
  double *real;           // [cells]
  fftw_complex *a, *b;    // [shape[0], shape[1], half]
  fftw_plan plan;         // real -> a; executed on b as well
} transform;

/** Integer frequency of index i on an axis of n cells, in [-n/2, n/2]. */
static int64_t frequency(int64_t i, int64_t n) {
  return i <= n / 2 ? i : i - n;
}

/** Call visit for every mode of the half transform that falls into a bin. */
typedef void mode_visitor(void *user, int64_t mode, int64_t bin, double k, int weight);

static void visit_modes(const fn_spectrum *spectrum, mode_visitor *visit, void *user) {
  const transform *t = spectrum->transform;
  const int64_t last = t->shape[2];
  for (int64_t x = 0; x < t->shape[0]; x++) {
    for (int64_t y = 0; y < t->shape[1]; y++) {
      const int64_t fx = frequency(x, t->shape[0]), fy = frequency(y, t->shape[1]);
      for (int64_t z = 0; z < t->half; z++) {
        // sqrt is exact for perfect squares, so modes on a bin's edge go where ceil sends them
        const double k = sqrt((double)(fx * fx + fy * fy + z * z));
        const int64_t bin = (int64_t)ceil(k) - 1;
        if (bin < 0 || bin >= spectrum->bins) continue;
        // the half transform leaves out the conjugates of all planes but these two
        const int weight = z == 0 || 2 * z == last ? 1 : 2;
        visit(user, (x * t->shape[1] + y) * t->half + z, bin, k, weight);
      }
    }
  }
}

static void count_mode(void *user, int64_t mode, int64_t bin, double k, int weight) {
  (void)mode;
  fn_spectrum *spectrum = user;
  spectrum->modes[bin] += weight;
  spectrum->k[bin] += weight * k;
}

static fn_status transform_create(const fn_spectrum *spectrum, transform *t) {
  t->cells = 1;
  for (int i = 0; i < 3; i++) {
    const int axis = i - (3 - spectrum->spatial);
    t->shape[i] = axis < 0 ? 1 : spectrum->size[axis];
    t->cells *= t->shape[i];
  }
  t->half = t->shape[2] / 2 + 1;
  const size_t modes = (size_t)(t->shape[0] * t->shape[1] * t->half);
  t->real = fftw_alloc_real((size_t)t->cells);
  t->a = fftw_alloc_complex(modes);
  t->b = fftw_alloc_complex(modes);
  FN_CHECK(t->real && t->a && t->b, FN_ERR_MEMORY,
           "no memory for the power spectrum of a field of %lld cells", (long long)t->cells);
  fn_fft_planner_lock();
  t->plan = fftw_plan_dft_r2c_3d((int)t->shape[0], (int)t->shape[1], (int)t->shape[2], t->real,
                                 t->a, FFTW_ESTIMATE);
  fn_fft_planner_unlock();
  FN_CHECK(t->plan, FN_ERR_INTERNAL, "FFTW has no plan for %lld x %lld x %lld cells",
           (long long)t->shape[0], (long long)t->shape[1], (long long)t->shape[2]);
  return FN_OK;
}

static fn_status spectrum_fill(fn_spectrum *spectrum, double box_size) {
  spectrum->modes = calloc((size_t)spectrum->bins, sizeof *spectrum->modes);
  spectrum->k = calloc((size_t)spectrum->bins, sizeof *spectrum->k);
  spectrum->transform = calloc(1, sizeof *spectrum->transform);
  FN_CHECK(spectrum->modes && spectrum->k && spectrum->transform, FN_ERR_MEMORY,
           "no memory for %lld bins of a power spectrum", (long long)spectrum->bins);
  FN_TRY(transform_create(spectrum, spectrum->transform));
  visit_modes(spectrum, count_mode, spectrum);
  const double unit = box_size > 0 ? 2 * M_PI / box_size : 1;
  for (int64_t i = 0; i < spectrum->bins; i++)
    spectrum->k[i] *= unit / (double)spectrum->modes[i];
  const double cells = (double)spectrum->transform->cells;
  spectrum->density = box_size > 0 ? pow(box_size, spectrum->spatial) / (cells * cells) : 1;
  return FN_OK;
}

fn_status fn_spectrum_create(int spatial, const int64_t *size, double box_size,
                             fn_spectrum **spectrum) {
  *spectrum = NULL;
  FN_CHECK(spatial >= 1 && spatial <= FN_MAX_SPATIAL, FN_ERR_DATA,
           "a power spectrum needs 1 to %d spatial axes, found %d", FN_MAX_SPATIAL, spatial);
  int64_t edge = INT64_MAX;
  for (int i = 0; i < spatial; i++) {
    FN_CHECK(size[i] >= 2 && size[i] <= INT32_MAX, FN_ERR_DATA,
             "a power spectrum needs at least 2 cells per axis, found %lld on axis %d",
             (long long)size[i], i);
    if (size[i] < edge) edge = size[i];
  }
  fn_spectrum *made = calloc(1, sizeof *made);
  FN_CHECK(made, FN_ERR_MEMORY, "no memory for a power spectrum");
  made->spatial = spatial;
  memcpy(made->size, size, sizeof *size * (size_t)spatial);
  made->bins = edge / 2;
  const fn_status status = spectrum_fill(made, box_size);
  if (status != FN_OK) {
    fn_spectrum_destroy(made);
    return status;
  }
  *spectrum = made;
  return FN_OK;
}

void fn_spectrum_destroy(fn_spectrum *spectrum) {
  if (!spectrum) return;
  transform *t = spectrum->transform;
  if (t) {
    fn_fft_planner_lock();
    if (t->plan) fftw_destroy_plan(t->plan);
    fn_fft_planner_unlock();
    fftw_free(t->real);
    fftw_free(t->a);
    fftw_free(t->b);
    free(t);
  }
  free(spectrum->modes);
  free(spectrum->k);
  free(spectrum);
}

static void forward(transform *t, const float *field, fftw_complex *out) {
  for (int64_t i = 0; i < t->cells; i++)
    t->real[i] = (double)field[i];
  fftw_execute_dft_r2c(t->plan, t->real, out);
}

typedef struct power_sum {
  const fftw_complex *a, *b;
  double *power;
} power_sum;

static void add_mode(void *user, int64_t mode, int64_t bin, double k, int weight) {
  (void)k;
  const power_sum *sum = user;
  sum->power[bin] += weight * creal(sum->a[mode] * conj(sum->b[mode]));
}

void fn_spectrum_cross(fn_spectrum *spectrum, const float *a, const float *b, int64_t batch,
                       int64_t channels, double *power) {
  transform *t = spectrum->transform;
  power_sum sum = {.a = t->a, .b = a == b ? t->a : t->b, .power = power};
  memset(power, 0, sizeof *power * (size_t)spectrum->bins);
  for (int64_t i = 0; i < batch * channels; i++) {
    forward(t, a + i * t->cells, t->a);
    if (a != b) forward(t, b + i * t->cells, t->b);
    visit_modes(spectrum, add_mode, &sum);
  }
  for (int64_t i = 0; i < spectrum->bins; i++) {
    power[i] /= (double)spectrum->modes[i] * (double)batch;
  }
}

void fn_spectrum_power(fn_spectrum *spectrum, const float *field, int64_t batch, int64_t channels,
                       double *power) {
  fn_spectrum_cross(spectrum, field, field, batch, channels, power);
}

void fn_transfer_function(int64_t bins, const double *power_out, const double *power_target,
                          double *transfer) {
  for (int64_t i = 0; i < bins; i++) {
    transfer[i] = power_target[i] > 0 ? sqrt(power_out[i] / power_target[i]) : (double)NAN;
  }
}

void fn_cross_correlation(int64_t bins, const double *cross, const double *power_a,
                          const double *power_b, double *correlation) {
  for (int64_t i = 0; i < bins; i++) {
    const double scale = sqrt(power_a[i]) * sqrt(power_b[i]);
    correlation[i] = scale > 0 ? cross[i] / scale : (double)NAN;
  }
}
