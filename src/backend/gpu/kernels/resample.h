/** @file resample.h
 *  Linear interpolation along spatial axes and its adjoint, which gathers: no two threads add to
 * one cell.
 */
#ifndef FN_BACKEND_GPU_KERNELS_RESAMPLE_H
#define FN_BACKEND_GPU_KERNELS_RESAMPLE_H

#include "backend/gpu/kernels/loop.h"

typedef struct fn_resample_args {
  fn_view x, y; /**< y: the resampled one; the adjoint reads y and writes x */
  double factor, inverse;
  int64_t trim;
  bool resampled[3]; /**< axes that exist */
  fn_cell_loop loop; /**< over the result */
} fn_resample_args;

/** What cell `at` of y takes along axis d: (1 - part) x[low] + part x[high]. */
FN_DEVICE float fn_resample_tap(const fn_resample_args *a, int d, int32_t at, int32_t *low,
                                int32_t *high) {
  *low = *high = at;
  if (!a->resampled[d]) return 0;
  const int32_t last = (int32_t)a->x.size[d] - 1;
  const double source = ((double)(at + a->trim) + 0.5) * a->inverse - 0.5;
  const double clamped = source > 0 ? source : 0;
  *low = clamped < (double)last ? (int32_t)clamped : last;
  *high = *low < last ? *low + 1 : last;
  return (float)(clamped - (double)*low);
}

FN_DEVICE void fn_resample_body(const fn_resample_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->loop.count; turn += fn_thread_stride(t)) {
    const fn_cell to = fn_cell_loop_at(&a->loop, turn);
    int32_t low[3], high[3];
    float part[3], sum[4] = {0, 0, 0, 0};
    for (int d = 0; d < 3; d++)
      part[d] = fn_resample_tap(a, d, (int32_t)to.at[d], &low[d], &high[d]);
    for (int corner = 0; corner < 8; corner++) {
      int64_t cell[3];
      float weight = 1, v[4];
      for (int d = 0; d < 3; d++) {
        const bool upper = (corner >> (2 - d) & 1) != 0;
        cell[d] = upper ? high[d] : low[d];
        weight *= upper ? part[d] : 1 - part[d];
      }
      if (weight == 0) continue; // a corner without weight is not read: NaN there stays there
      fn_read_wide(a->x.data, a->x.dtype, fn_view_at(&a->x, to.n, cell) + to.c, a->loop.width, v);
      for (int j = 0; j < 4; j++)
        sum[j] += weight * v[j];
    }
    fn_write_wide(a->y.data, a->y.dtype, fn_view_at(&a->y, to.n, to.at) + to.c, a->loop.width, sum);
  }
}

/** Cells [first, last) of y that may read cell `at` of x along axis d. */
FN_DEVICE void fn_resample_readers(const fn_resample_args *a, int d, int32_t at, int32_t *first,
                                   int32_t *last) {
  const int32_t cells = (int32_t)a->x.size[d], length = (int32_t)a->y.size[d];
  *first = at;
  *last = at + 1;
  if (!a->resampled[d]) return;
  // Sources between at - 1 and at + 1; one cell more on either side for rounding.
  const double shift = 0.5 + (double)a->trim;
  const double from = ((double)at - 0.5) * a->factor - shift;
  const double to = ((double)at + 1.5) * a->factor - shift;
  *first = at == 0 || from < 1 ? 0 : (int32_t)from - 1;
  *last = at == cells - 1 || to + 2 > (double)length ? length : to < 0 ? 1 : (int32_t)to + 2;
}

/** Weight with which cell `i` of y reads cell `at` of x along axis d. */
FN_DEVICE float fn_resample_weight(const fn_resample_args *a, int d, int32_t i, int32_t at) {
  int32_t low, high;
  const float part = fn_resample_tap(a, d, i, &low, &high);
  return (low == at ? 1 - part : 0) + (high == at ? part : 0);
}

FN_DEVICE void fn_resample_grad_body(const fn_resample_args *a, fn_thread t, void *shared,
                                     int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->loop.count; turn += fn_thread_stride(t)) {
    const fn_cell to = fn_cell_loop_at(&a->loop, turn);
    int32_t at[3], first[3], last[3];
    float sum[4] = {0, 0, 0, 0};
    for (int d = 0; d < 3; d++) {
      at[d] = (int32_t)to.at[d];
      fn_resample_readers(a, d, at[d], &first[d], &last[d]);
    }
    for (int32_t i = first[0]; i < last[0]; i++) {
      const float w0 = fn_resample_weight(a, 0, i, at[0]);
      if (w0 == 0) continue;
      for (int32_t j = first[1]; j < last[1]; j++) {
        const float w1 = w0 * fn_resample_weight(a, 1, j, at[1]);
        if (w1 == 0) continue;
        for (int32_t k = first[2]; k < last[2]; k++) {
          const float weight = w1 * fn_resample_weight(a, 2, k, at[2]);
          const int64_t cell[3] = {i, j, k};
          float v[4];
          if (weight == 0) continue;
          fn_read_wide(a->y.data, a->y.dtype, fn_view_at(&a->y, to.n, cell) + to.c, a->loop.width,
                       v);
          for (int c = 0; c < 4; c++)
            sum[c] += weight * v[c];
        }
      }
    }
    fn_write_wide(a->x.data, a->x.dtype, fn_view_at(&a->x, to.n, to.at) + to.c, a->loop.width, sum);
  }
}

typedef fn_resample_args fn_resample_grad_args;

#endif
