/* Normalisations by name: built-in ones and those of plug-ins. */
#include "data/norms.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/text.h"
#include "data/dataset.h"

/* Looking an option up leaves a mark in the option tree, and several readers normalise at once. */
static pthread_mutex_t option_lock = PTHREAD_MUTEX_INITIALIZER;

static double option(const fn_options *options, const char *key, double fallback) {
  if (!options) return fallback;
  pthread_mutex_lock(&option_lock);
  const double value = fn_option_real(options, key, fallback);
  pthread_mutex_unlock(&option_lock);
  return value;
}

static void multiply(float *values, int64_t count, double factor) {
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)((double)values[i] * factor);
}

static fn_status identity(float *values, int64_t channels, int64_t cells, bool undo,
                          const fn_options *options) {
  (void)values, (void)channels, (void)cells, (void)undo, (void)options;
  return FN_OK;
}

typedef struct epoch {
  double z, omega_m, dis_std;
} epoch;

static fn_status epoch_of(const fn_options *options, epoch *e) {
  e->z = option(options, "z", 0);
  e->omega_m = option(options, "omega_m", 0.31);
  e->dis_std = option(options, "dis_std", 6);
  FN_CHECK(isfinite(e->z) && e->z > -1, FN_ERR_CONFIG,
           "norm option z (redshift) must be above -1, found %g", e->z);
  FN_CHECK(e->omega_m > 0 && e->omega_m <= 1, FN_ERR_CONFIG,
           "norm option omega_m must be above 0 and at most 1, found %g", e->omega_m);
  FN_CHECK(isfinite(e->dis_std) && e->dis_std > 0, FN_ERR_CONFIG,
           "norm option dis_std (Mpc/h) must be positive, found %g", e->dis_std);
  return FN_OK;
}

static fn_status unit_of_displacement(const fn_options *options, double *unit) {
  epoch e;
  FN_TRY(epoch_of(options, &e));
  *unit = e.dis_std * fn_growth_factor(e.z, e.omega_m);
  return FN_OK;
}

static fn_status unit_of_velocity(const fn_options *options, double *unit) {
  epoch e;
  FN_TRY(epoch_of(options, &e));
  *unit = e.dis_std * fn_growth_factor(e.z, e.omega_m) * fn_hubble(e.z, e.omega_m) *
          fn_growth_rate(e.z, e.omega_m) / (1 + e.z);
  return FN_OK;
}

/** Displacements in Mpc/h by their linear growth: x / (dis_std D). */
static fn_status displacement(float *values, int64_t channels, int64_t cells, bool undo,
                              const fn_options *options) {
  double unit;
  FN_TRY(unit_of_displacement(options, &unit));
  multiply(values, channels * cells, undo ? unit : 1 / unit);
  return FN_OK;
}

/** Peculiar velocities in km/s by those of linear theory: x / (dis_std D H f / (1 + z)). */
static fn_status velocity(float *values, int64_t channels, int64_t cells, bool undo,
                          const fn_options *options) {
  double unit;
  FN_TRY(unit_of_velocity(options, &unit));
  multiply(values, channels * cells, undo ? unit : 1 / unit);
  return FN_OK;
}

static fn_status exponential(float *values, int64_t channels, int64_t cells, bool undo,
                             const fn_options *options) {
  (void)options;
  const int64_t count = channels * cells;
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)(undo ? log((double)values[i]) : exp((double)values[i]));
  return FN_OK;
}

static fn_status exponential_minus_1(float *values, int64_t channels, int64_t cells, bool undo,
                                     const fn_options *options) {
  (void)options;
  const int64_t count = channels * cells;
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)(undo ? log1p((double)values[i]) : expm1((double)values[i]));
  return FN_OK;
}

static const double log_eps = 1e-8, log1p_eps = 1e-7;

static fn_status offset_of(const fn_options *options, double fallback, double *eps) {
  *eps = option(options, "eps", fallback);
  FN_CHECK(isfinite(*eps) && *eps >= 0, FN_ERR_CONFIG,
           "norm option eps must be finite and not negative, found %g", *eps);
  return FN_OK;
}

/** ln(x + eps); undone exactly, eps included. */
static fn_status logarithm(float *values, int64_t channels, int64_t cells, bool undo,
                           const fn_options *options) {
  const int64_t count = channels * cells;
  double eps;
  FN_TRY(offset_of(options, log_eps, &eps));
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)(undo ? exp((double)values[i]) - eps : log((double)values[i] + eps));
  return FN_OK;
}

/** ln(1 + x + eps); eps keeps x = -1 (an empty cell's overdensity) finite. */
static fn_status logarithm_plus_1(float *values, int64_t channels, int64_t cells, bool undo,
                                  const fn_options *options) {
  const int64_t count = channels * cells;
  double eps;
  FN_TRY(offset_of(options, log1p_eps, &eps));
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)(undo ? expm1((double)values[i]) - eps : log1p((double)values[i] + eps));
  return FN_OK;
}

#define DISPLACEMENT "displacements (Mpc/h) / (dis_std D(z)); options z, dis_std, omega_m"
#define VELOCITY "velocities (km/s) / (dis_std D H f / (1 + z)); options z, dis_std, omega_m"

static const fn_norm built_in[] = {
    {"identity", "values as they are", identity},
    {"cosmology.dis", DISPLACEMENT, displacement},
    {"cosmology.vel", VELOCITY, velocity},
    {"torch.exp", "exp(x)", exponential},
    {"torch.log", "log(x + eps); option eps", logarithm},
    {"torch.expm1", "exp(x) - 1", exponential_minus_1},
    {"torch.log1p", "log(1 + x + eps); option eps", logarithm_plus_1},
    {"dis", DISPLACEMENT, displacement},
    {"vel", VELOCITY, velocity},
    {"exp", "exp(x)", exponential},
    {"log", "log(x + eps); option eps", logarithm},
    {"expm1", "exp(x) - 1", exponential_minus_1},
    {"log1p", "log(1 + x + eps); option eps", logarithm_plus_1},
};
enum { BUILT_IN = sizeof built_in / sizeof built_in[0], MOST_REGISTERED = 64 };

static fn_norm registered[MOST_REGISTERED];
static int registered_count;
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;

static const fn_norm *find(const char *name) {
  for (int i = 0; i < BUILT_IN; i++)
    if (strcmp(built_in[i].name, name) == 0) return &built_in[i];
  for (int i = 0; i < registered_count; i++)
    if (strcmp(registered[i].name, name) == 0) return &registered[i];
  return NULL;
}

static fn_status add(const fn_norm *norm) {
  const fn_norm *known = find(norm->name);
  if (known && known->apply == norm->apply) return FN_OK;
  FN_CHECK(!known, FN_ERR_CONFIG, "a norm named '%s' exists already; choose another name",
           norm->name);
  FN_CHECK(registered_count < MOST_REGISTERED, FN_ERR_CONFIG,
           "norm '%s' is one too many: at most %d can be registered", norm->name,
           (int)MOST_REGISTERED);
  registered[registered_count++] = *norm;
  return FN_OK;
}

fn_status fn_register_norm(const fn_norm *norm) {
  FN_CHECK(norm && norm->name && *norm->name && norm->apply, FN_ERR_CONFIG,
           "a norm to be registered needs a name and an apply function");
  pthread_mutex_lock(&registry_lock);
  const fn_status status = add(norm);
  pthread_mutex_unlock(&registry_lock);
  return status;
}

fn_status fn_norm_find(const char *name, const fn_norm **norm) {
  const char *names[BUILT_IN + MOST_REGISTERED];
  int count = 0;
  pthread_mutex_lock(&registry_lock);
  *norm = find(name);
  for (int i = 0; i < BUILT_IN; i++)
    names[count++] = built_in[i].name;
  for (int i = 0; i < registered_count; i++)
    names[count++] = registered[i].name;
  pthread_mutex_unlock(&registry_lock);
  if (*norm) return FN_OK;
  const char *near = fn_text_closest(name, names, count);
  if (near)
    FN_FAIL(FN_ERR_CONFIG, "there is no normalisation '%s', did you mean '%s'?", name, near);
  fn_text list = {0};
  for (int i = 0; i < count; i++)
    fn_text_add(&list, "%s%s", i ? ", " : "", names[i]);
  const fn_status status =
      fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                   "there is no normalisation '%s'; known are %s", name, list.data);
  fn_text_free(&list);
  return status;
}

fn_status fn_norm_apply(const fn_norm *norm, float *values, int64_t channels, int64_t cells,
                        bool undo, const fn_options *options) {
  if (norm >= built_in && norm < built_in + BUILT_IN)
    return norm->apply(values, channels, cells, undo, options);
  // Authors of plug-ins look options up as they like and need not think of threads.
  pthread_mutex_lock(&option_lock);
  const fn_status status = norm->apply(values, channels, cells, undo, options);
  pthread_mutex_unlock(&option_lock);
  return status;
}

fn_status fn_norm_on_device(const fn_norm *norm, const fn_options *options, bool *known,
                            fn_raw_norm *kind, double *factor, double *shift) {
  double unit = 1;
  *known = norm >= built_in && norm < built_in + BUILT_IN;
  *kind = FN_RAW_SCALE;
  *shift = -0.0;
  if (!*known) {
    unit = 1;
  } else if (norm->apply == displacement) {
    FN_TRY(unit_of_displacement(options, &unit));
  } else if (norm->apply == velocity) {
    FN_TRY(unit_of_velocity(options, &unit));
  } else if (norm->apply == exponential) {
    *kind = FN_RAW_EXP;
  } else if (norm->apply == exponential_minus_1) {
    *kind = FN_RAW_EXPM1;
  } else if (norm->apply == logarithm) {
    *kind = FN_RAW_LOG;
    FN_TRY(offset_of(options, log_eps, shift));
  } else if (norm->apply == logarithm_plus_1) {
    *kind = FN_RAW_LOG1P;
    FN_TRY(offset_of(options, log1p_eps, shift));
  } else if (norm->apply != identity) {
    *known = false;
  }
  *factor = 1 / unit;
  return FN_OK;
}
