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

double fn_gradient_squares(const fn_parameters *parameters) {
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
  return sum;
}

double fn_gradient_norm(const fn_parameters *parameters) {
  return sqrt(fn_gradient_squares(parameters));
}

double fn_gradient_squares_of(fn_parameters *parameters, const fn_tensor_entry *entry) {
  const float *x = fn_parameters_gradient(parameters, entry);
  double sum = 0;
  for (int64_t i = 0; i < entry->count; i++)
    sum += (double)x[i] * (double)x[i];
  return sum;
}

int64_t fn_gradient_not_finite(const fn_parameters *parameters) {
  const double *f64 = parameters->gradients;
  const float *f32 = parameters->gradients;
  for (int64_t i = parameters->count - 1; i >= 0; i--)
    if (!isfinite(parameters->dtype == FN_F64 ? f64[i] : (double)f32[i])) return i;
  return -1;
}

const char *fn_gradient_name(const fn_parameters *parameters, int64_t place) {
  for (int e = 0; e < parameters->entry_count; e++) {
    const fn_tensor_entry *entry = &parameters->entry[e];
    if (!entry->is_buffer && entry->offset <= place && place < entry->offset + entry->count)
      return entry->name;
  }
  return NULL;
}
