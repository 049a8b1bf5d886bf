/** @file pool.h
 *  Average and maximum over sliding windows, and their adjoints. Adjoints gather: every cell adds
 * up the windows that cover it, in C order.
 */
#ifndef FN_BACKEND_GPU_KERNELS_POOL_H
#define FN_BACKEND_GPU_KERNELS_POOL_H

#include "backend/gpu/kernels/loop.h"

/** Sizes along three axes; missing axes in front have kernel and stride 1. */
typedef struct fn_windows {
  int64_t kernel[3], stride[3], pad[3];
  int64_t cells[3], windows[3]; /**< along the axis */
} fn_windows;

/** Cells [first, last) of window `at` along axis d, padding left out. */
FN_DEVICE void fn_window_cells(const fn_windows *w, int d, int64_t at, int64_t *first,
                               int64_t *last) {
  *first = at * w->stride[d] - w->pad[d];
  *last = *first + w->kernel[d];
  if (*first < 0) *first = 0;
  if (*last > w->cells[d]) *last = w->cells[d];
}

/** Windows [first, last) that cover cell `at` along axis d. */
FN_DEVICE void fn_window_cover(const fn_windows *w, int d, int64_t at, int64_t *first,
                               int64_t *last) {
  const int64_t end = at + w->pad[d]; // window i covers i stride <= end < i stride + kernel
  *first = end < w->kernel[d] ? 0 : (end - w->kernel[d]) / w->stride[d] + 1;
  *last = end / w->stride[d] + 1;
  if (*last > w->windows[d]) *last = w->windows[d];
}

/** One window per turn: y = average of x, or `values` where x is largest (the first in C order, or
 *  the first NaN). The maximum itself has values = x. */
typedef struct fn_pool_args {
  fn_view x, values, y;
  fn_windows windows;
  bool average;
  float share;       /**< 1 / cells of a window */
  fn_cell_loop loop; /**< over y */
} fn_pool_args;

/** Address of the largest of x in a window, for each of four channels. */
FN_DEVICE void fn_window_largest(const fn_view *x, const fn_windows *w, int64_t n, int64_t c,
                                 const int64_t at[3], int width, int64_t cell[4]) {
  int64_t first[3], last[3], i[3];
  float best[4] = {0, 0, 0, 0};
  bool found = false;
  for (int d = 0; d < 3; d++)
    fn_window_cells(w, d, at[d], &first[d], &last[d]);
  for (i[0] = first[0]; i[0] < last[0]; i[0]++)
    for (i[1] = first[1]; i[1] < last[1]; i[1]++)
      for (i[2] = first[2]; i[2] < last[2]; i[2]++) {
        float v[4];
        const int64_t index = (i[0] * x->size[1] + i[1]) * x->size[2] + i[2];
        fn_read_wide(x->data, x->dtype, fn_view_at(x, n, i) + c, width, v);
        for (int j = 0; j < 4; j++) {
          const bool first_nan = v[j] != v[j] && best[j] == best[j];
          if (found && !(v[j] > best[j]) && !first_nan) continue;
          best[j] = v[j];
          cell[j] = index;
        }
        found = true;
      }
}

FN_DEVICE void fn_pool_body(const fn_pool_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->loop.count; turn += fn_thread_stride(t)) {
    const fn_cell to = fn_cell_loop_at(&a->loop, turn);
    float y[4] = {0, 0, 0, 0};
    if (a->average) {
      int64_t first[3], last[3], i[3];
      for (int d = 0; d < 3; d++)
        fn_window_cells(&a->windows, d, to.at[d], &first[d], &last[d]);
      for (i[0] = first[0]; i[0] < last[0]; i[0]++)
        for (i[1] = first[1]; i[1] < last[1]; i[1]++)
          for (i[2] = first[2]; i[2] < last[2]; i[2]++) {
            float v[4];
            fn_read_wide(a->x.data, a->x.dtype, fn_view_at(&a->x, to.n, i) + to.c, a->loop.width,
                         v);
            for (int j = 0; j < 4; j++)
              y[j] += v[j];
          }
      for (int j = 0; j < 4; j++)
        y[j] *= a->share;
    } else {
      int64_t cell[4] = {0, 0, 0, 0};
      fn_window_largest(&a->x, &a->windows, to.n, to.c, to.at, a->loop.width, cell);
      for (int j = 0; j < 4; j++)
        if (j < a->loop.width)
          y[j] = fn_read(a->values.data, a->values.dtype,
                         to.n * a->values.row + cell[j] * a->values.pitch + to.c + j);
    }
    fn_write_wide(a->y.data, a->y.dtype, fn_view_at(&a->y, to.n, to.at) + to.c, a->loop.width, y);
  }
}

/** One cell per turn: dx = sums of dy / cells of the windows over it, or of dy of those windows
 * whose largest it is. */
typedef struct fn_pool_grad_args {
  fn_view dy, x, dx; /**< x: of the maximum */
  fn_windows windows;
  bool average;
  float share;
  fn_cell_loop loop; /**< over dx */
} fn_pool_grad_args;

FN_DEVICE void fn_pool_grad_body(const fn_pool_grad_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->loop.count; turn += fn_thread_stride(t)) {
    const fn_cell to = fn_cell_loop_at(&a->loop, turn);
    const int64_t own = (to.at[0] * a->dx.size[1] + to.at[1]) * a->dx.size[2] + to.at[2];
    int64_t first[3], last[3], i[3];
    float sum[4] = {0, 0, 0, 0};
    for (int d = 0; d < 3; d++)
      fn_window_cover(&a->windows, d, to.at[d], &first[d], &last[d]);
    for (i[0] = first[0]; i[0] < last[0]; i[0]++)
      for (i[1] = first[1]; i[1] < last[1]; i[1]++)
        for (i[2] = first[2]; i[2] < last[2]; i[2]++) {
          float v[4];
          int64_t cell[4] = {own, own, own, own};
          if (!a->average)
            fn_window_largest(&a->x, &a->windows, to.n, to.c, i, a->loop.width, cell);
          fn_read_wide(a->dy.data, a->dy.dtype, fn_view_at(&a->dy, to.n, i) + to.c, a->loop.width,
                       v);
          for (int j = 0; j < 4; j++)
            if (cell[j] == own) sum[j] += v[j];
        }
    for (int j = 0; j < 4; j++)
      sum[j] *= a->average ? a->share : 1;
    fn_write_wide(a->dx.data, a->dx.dtype, fn_view_at(&a->dx, to.n, to.at) + to.c, a->loop.width,
                  sum);
  }
}

#endif
