#include "dist/wire.h"

#include <string.h>

#include "base/bf16.h"

/** Elements added at a time: the partial sums stay in the first cache. */
enum { BLOCK = 1024 };

static void scale(void *to, const void *from, fn_dtype type, int64_t count, double weight) {
  if (type == FN_F64) {
    const double *x = from;
    double *y = to;
    for (int64_t i = 0; i < count; i++)
      y[i] = x[i] * weight;
  } else if (type == FN_F32) {
    const float *x = from;
    float *y = to;
    for (int64_t i = 0; i < count; i++)
      y[i] = (float)((double)x[i] * weight);
  } else {
    const uint16_t *x = from;
    uint16_t *y = to;
    for (int64_t i = 0; i < count; i++)
      y[i] = fn_bf16_from_f32(fn_bf16_to_f32(x[i]) * (float)weight);
  }
}

/** As a device does it: the weight in float32. */
static void narrow(uint16_t *restrict to, const float *restrict from, int64_t count, float weight) {
  for (int64_t i = 0; i < count; i++)
    to[i] = fn_bf16_from_f32(from[i] * weight);
}

static void widen(float *restrict to, const uint16_t *restrict from, int64_t count, float weight) {
  for (int64_t i = 0; i < count; i++)
    to[i] = fn_bf16_to_f32(from[i]) * weight;
}

void fn_wire_write(void *to, fn_dtype to_type, const void *from, fn_dtype from_type, int64_t count,
                   double weight) {
  if (weight == 0) {
    memset(to, 0, (size_t)count * fn_dtype_size(to_type));
  } else if (to_type == FN_BF16 && from_type == FN_F32) {
    narrow(to, from, count, (float)weight);
  } else if (to_type == FN_F32 && from_type == FN_BF16) {
    widen(to, from, count, (float)weight);
  } else if (weight != 1) {
    scale(to, from, to_type, count, weight);
  } else if (to != from) {
    memcpy(to, from, (size_t)count * fn_dtype_size(to_type));
  }
}

static void sum_double(double *to, const void *const *from, int terms, int64_t start, int n) {
  double sum[BLOCK];
  memcpy(sum, (const double *)from[0] + start, (size_t)n * sizeof *sum);
  for (int t = 1; t < terms; t++) {
    const double *x = (const double *)from[t] + start;
    for (int i = 0; i < n; i++)
      sum[i] += x[i];
  }
  memcpy(to + start, sum, (size_t)n * sizeof *sum);
}

static void sum_float(float *to, const void *const *from, int terms, int64_t start, int n) {
  float sum[BLOCK];
  memcpy(sum, (const float *)from[0] + start, (size_t)n * sizeof *sum);
  for (int t = 1; t < terms; t++) {
    const float *x = (const float *)from[t] + start;
    for (int i = 0; i < n; i++)
      sum[i] += x[i];
  }
  memcpy(to + start, sum, (size_t)n * sizeof *sum);
}

static void sum_bf16(uint16_t *to, const void *const *from, int terms, int64_t start, int n) {
  float sum[BLOCK];
  for (int t = 0; t < terms; t++) {
    const uint16_t *x = (const uint16_t *)from[t] + start;
    if (t == 0) {
      widen(sum, x, n, 1);
    } else {
      for (int i = 0; i < n; i++)
        sum[i] += fn_bf16_to_f32(x[i]);
    }
  }
  narrow(to + start, sum, n, 1);
}

void fn_wire_sum(void *to, const void *const *from, int terms, fn_dtype type, int64_t count) {
  for (int64_t start = 0; start < count; start += BLOCK) {
    const int n = (int)(count - start < BLOCK ? count - start : BLOCK);
    if (type == FN_F64) {
      sum_double(to, from, terms, start, n);
    } else if (type == FN_F32) {
      sum_float(to, from, terms, start, n);
    } else {
      sum_bf16(to, from, terms, start, n);
    }
  }
}
