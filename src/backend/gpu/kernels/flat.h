/** @file flat.h
 *  Kernels over flat float32 arrays: gradients and what an optimizer does with them.
 */
#ifndef FN_BACKEND_GPU_KERNELS_FLAT_H
#define FN_BACKEND_GPU_KERNELS_FLAT_H

#include "backend/gpu/kernels/loop.h"
#include "backend/gpu/kernels/tree.h"
#include "backend/update.h"

/** Whether a kernel that waits for a verdict is to run; without a judgement always. */
FN_DEVICE bool fn_is_judged(const fn_judgement *judgement, fn_step_verdict verdict) {
  return !judgement || judgement->verdict == verdict;
}

/** sum := keep sum + factor x; with keep 0 the old sum is not read. */
typedef struct fn_add_scaled_args {
  float *sum;
  const float *x;
  float keep, factor;
  int64_t count; /**< elements */
  int width;     /**< 4 where both arrays are aligned */
  const fn_judgement *judgement;
  fn_step_verdict verdict; /**< that lets it run; without a judgement any */
} fn_add_scaled_args;

FN_DEVICE void fn_add_scaled_body(const fn_add_scaled_args *a, fn_thread t, void *shared,
                                  int phase) {
  (void)shared;
  (void)phase;
  if (!fn_is_judged(a->judgement, a->verdict)) return;
  const int64_t turns = (a->count + a->width - 1) / a->width;
  for (int64_t i = fn_thread_first(t); i < turns; i += fn_thread_stride(t)) {
    const int64_t at = i * a->width;
    if (at + a->width > a->count) { // the rest of an array in fours
      for (int64_t e = at; e < a->count; e++)
        a->sum[e] = (a->keep == 0 ? 0 : a->keep * a->sum[e]) + a->factor * a->x[e];
      continue;
    }
    float x[4], sum[4] = {0, 0, 0, 0};
    fn_read_wide(a->x, FN_GPU_F32, at, a->width, x);
    if (a->keep != 0) fn_read_wide(a->sum, FN_GPU_F32, at, a->width, sum);
    for (int j = 0; j < 4; j++)
      sum[j] = (a->keep == 0 ? 0 : a->keep * sum[j]) + a->factor * x[j];
    fn_write_wide(a->sum, FN_GPU_F32, at, a->width, sum);
  }
}

/** y := factor x between float32 and bfloat16, each rounded once; with factor 0 y is zero, whatever
 *  x holds. y may be x where both are of one dtype. */
typedef struct fn_scale_args {
  const void *x;
  void *y;
  int x_dtype, y_dtype;
  float factor;
  int64_t count; /**< elements */
  int width;     /**< 4 where both arrays are aligned */
  const fn_judgement *judgement;
  fn_step_verdict verdict; /**< that lets it run; without a judgement any */
} fn_scale_args;

FN_DEVICE void fn_scale_body(const fn_scale_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  if (!fn_is_judged(a->judgement, a->verdict)) return;
  const int64_t turns = (a->count + a->width - 1) / a->width;
  for (int64_t i = fn_thread_first(t); i < turns; i += fn_thread_stride(t)) {
    const int64_t at = i * a->width;
    float v[4] = {0, 0, 0, 0};
    if (at + a->width > a->count) { // the rest of an array in fours
      for (int64_t e = at; e < a->count; e++)
        fn_write(a->y, a->y_dtype, e,
                 a->factor == 0 ? 0 : a->factor * fn_read(a->x, a->x_dtype, e));
      continue;
    }
    if (a->factor != 0) fn_read_wide(a->x, a->x_dtype, at, a->width, v);
    for (int j = 0; j < 4; j++)
      v[j] = a->factor == 0 ? 0 : a->factor * v[j];
    fn_write_wide(a->y, a->y_dtype, at, a->width, v);
  }
}

/** partial[block] = a share of the sum of squares. The order of additions follows from the count
 * and the grid; let fn_gpu_squares_blocks() choose the grid. */
typedef struct fn_sum_squares_args {
  const float *x;
  int64_t count;
  bool aligned; /**< x can be read in fours; the order is the same either way */
  double *partial;
} fn_sum_squares_args;

FN_DEVICE void fn_sum_squares_body(const fn_sum_squares_args *a, fn_thread t, void *shared,
                                   int phase) {
  double *part = (double *)shared;
  if (phase == 1) {
    fn_tree_groups(part, 1, 1, t);
    return;
  }
  if (phase == 2) {
    if (t.index == 0) a->partial[t.block] = fn_tree_total(part, 0, 1, 0);
    return;
  }
  double total = 0;
  for (int64_t i = fn_thread_first(t); 4 * i < a->count; i += fn_thread_stride(t)) {
    float v[4] = {0, 0, 0, 0};
    if (a->aligned && 4 * i + 4 <= a->count)
      fn_read_wide(a->x, FN_GPU_F32, 4 * i, 4, v);
    else
      for (int j = 0; j < 4; j++)
        if (4 * i + j < a->count) v[j] = a->x[4 * i + j];
    for (int j = 0; j < 4; j++)
      total += (double)v[j] * (double)v[j];
  }
  part[t.index] = total;
}

/** *result = sum of partial; one block. */
typedef struct fn_sum_squares_finish_args {
  const double *partial;
  int64_t count;
  double *result;
} fn_sum_squares_finish_args;

FN_DEVICE void fn_sum_squares_finish_body(const fn_sum_squares_finish_args *a, fn_thread t,
                                          void *shared, int phase) {
  double *part = (double *)shared;
  if (phase == 0) {
    double total = 0;
    for (int64_t i = t.index; i < a->count; i += t.count)
      total += a->partial[i];
    part[t.index] = total;
  } else if (phase == 1) {
    fn_tree_groups(part, 1, 1, t);
  } else if (t.index == 0) {
    *a->result = fn_tree_total(part, 0, 1, 0);
  }
}

/** One optimizer step over the flat arrays of all parameters. */
typedef fn_update fn_update_args;

FN_DEVICE void fn_update_body(const fn_update_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  if (!fn_is_judged(a->judgement, FN_STEP_TAKEN)) return;
  fn_update u = *a;
  if (a->factors) u.by = *a->factors;
  if (a->judgement) u.by.scale = a->judgement->scale;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t))
    fn_update_element(&u, a, i);
}

#endif
