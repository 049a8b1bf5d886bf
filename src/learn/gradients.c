#include <math.h>

#include "learn/learn.h"

/** Slices of the flat gradients; the partition depends on nothing but the element count, so that
 *  the sum does not depend on the number of threads. */
enum { SLICES = 256, LANES = 16 };

/** Sum of squares of n elements; LANES partial sums let the compiler use vector registers. */
static double squares_f32(const float *x, int64_t n) {
  double lane[LANES] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    for (int l = 0; l < LANES; l++)
      lane[l] += (double)x[i + l] * (double)x[i + l];
  }
  for (; i < n; i++)
    sum += (double)x[i] * (double)x[i];
  for (int l = 0; l < LANES; l++)
    sum += lane[l];
  return sum;
}

static double squares_f64(const double *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++)
    sum += x[i] * x[i];
  return sum;
}

double fn_gradient_norm(const fn_parameters *parameters) {
  const int64_t slice = (parameters->count + SLICES - 1) / SLICES;
  double partial[SLICES];
#pragma omp parallel for schedule(static)
  for (int s = 0; s < SLICES; s++) {
    const int64_t start = s * slice, left = parameters->count - start;
    const int64_t n = left < 0 ? 0 : left < slice ? left : slice;
    if (n == 0) {
      partial[s] = 0;
    } else if (parameters->dtype == FN_F64) {
      partial[s] = squares_f64((const double *)parameters->gradients + start, n);
    } else {
      partial[s] = squares_f32((const float *)parameters->gradients + start, n);
    }
  }
  double sum = 0;
  for (int s = 0; s < SLICES; s++)
    sum += partial[s];
  return sqrt(sum);
}

/** Square root of the sum of squares on the device; waits. */
static fn_status norm_on_device(fn_parameters *p, const float *x, int64_t count, double *norm) {
  FN_TRY(p->device->sum_squares(p->device, FN_STREAM_COMPUTE, x, count, p->sum.memory));
  fn_mirror_changed_on_device(&p->sum);
  FN_TRY(fn_mirror_to_host(&p->sum));
  *norm = sqrt(*(const double *)p->sum.host);
  return FN_OK;
}

fn_status fn_gradient_norm_wait(fn_parameters *parameters, double *norm) {
  if (parameters->device)
    return norm_on_device(parameters, fn_parameters_mirror(parameters, FN_MIRROR_GRADIENTS)->memory,
                          parameters->count, norm);
  *norm = fn_gradient_norm(parameters);
  return FN_OK;
}

double fn_gradient_norm_of(fn_parameters *parameters, const fn_tensor_entry *entry) {
  const float *x = fn_parameters_gradient_place(parameters, entry);
  double sum = 0, norm = (double)NAN;
  if (parameters->device)
    return norm_on_device(parameters, x, entry->count, &norm) == FN_OK ? norm : (double)NAN;
  for (int64_t i = 0; i < entry->count; i++)
    sum += (double)x[i] * (double)x[i];
  return sqrt(sum);
}

static bool all_finite(const fn_parameters *p, const fn_tensor_entry *entry) {
  bool finite = true;
  if (p->dtype == FN_F64) {
    const double *x = (const double *)p->gradients + entry->offset;
    for (int64_t i = 0; i < entry->count; i++)
      finite &= isfinite(x[i]) != 0;
  } else {
    const float *x = (const float *)p->gradients + entry->offset;
    for (int64_t i = 0; i < entry->count; i++)
      finite &= isfinite(x[i]) != 0;
  }
  return finite;
}

const char *fn_gradient_not_finite(const fn_parameters *parameters) {
  for (int e = 0; e < parameters->entry_count; e++) {
    const fn_tensor_entry *entry = &parameters->entry[e];
    if (!entry->is_buffer && !all_finite(parameters, entry)) return entry->name;
  }
  return NULL;
}
