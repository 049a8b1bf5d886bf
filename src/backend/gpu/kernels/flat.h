/** @file flat.h
 *  float32 arrays as fn_device works on them: sums, squares, optimizer steps.
 */
#ifndef FN_BACKEND_GPU_KERNELS_FLAT_H
#define FN_BACKEND_GPU_KERNELS_FLAT_H

#include "backend/update.h"

/** sum := keep sum + factor x */
typedef struct fn_add_scaled_args {
  float *sum;
  const float *x;
  float keep, factor;
  int64_t count;
} fn_add_scaled_args;

FN_DEVICE void fn_add_scaled_body(const fn_add_scaled_args *p, fn_thread t, void *shared,
                                  int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < p->count; i += fn_thread_stride(t))
    p->sum[i] = p->keep * p->sum[i] + p->factor * p->x[i];
}

/** partial[b] := the squares of block b's elements added up; a second run over the partial sums
 *  (`plain`) with one block gives the total. */
typedef struct fn_sum_squares_args {
  const void *x; /**< float32, or double when plain */
  double *partial;
  int64_t count;
  bool plain;
} fn_sum_squares_args;

FN_DEVICE void fn_sum_squares_body(const fn_sum_squares_args *p, fn_thread t, void *shared,
                                   int phase) {
  double *sums = (double *)shared;
  double sum = 0;
  if (phase == 0) {
    for (int64_t i = fn_thread_first(t); i < p->count; i += fn_thread_stride(t)) {
      const double x = p->plain ? ((const double *)p->x)[i] : (double)((const float *)p->x)[i];
      sum += p->plain ? x : x * x;
    }
    sums[t.index] = sum;
  } else if (t.index == 0) {
    for (int i = 0; i < t.count; i++)
      sum += sums[i];
    p->partial[t.block] = sum;
  }
}

/** One optimizer step. */
typedef struct fn_update_args {
  fn_update update;
} fn_update_args;

FN_DEVICE void fn_update_body(const fn_update_args *p, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < p->update.count; i += fn_thread_stride(t))
    fn_update_element(&p->update, i);
}

#endif
