/** @file pool.h
 *  Average and maximum over sliding windows, and their adjoints. Adjoints gather: every cell adds
 * up the windows that cover it, in C order.
 */
#ifndef FN_BACKEND_GPU_KERNELS_POOL_H
#define FN_BACKEND_GPU_KERNELS_POOL_H

#include "backend/gpu/kernels/loop.h"

/** Sizes along three axes; missing axes in front have kernel and stride 1. */
typedef struct fn_windows {
  int32_t kernel[3], stride[3], pad[3];
  int32_t cells[3], windows[3]; /**< along the axis */
} fn_windows;

/** Cells [first, last) of a box. */
typedef struct fn_box {
  int32_t first[3], last[3];
} fn_box;

/** Cells of window `at`, padding left out. */
FN_DEVICE fn_box fn_window_cells(const fn_windows *w, const int32_t at[3]) {
  fn_box box;
  for (int d = 0; d < 3; d++) {
    const int32_t first = at[d] * w->stride[d] - w->pad[d], last = first + w->kernel[d];
    box.first[d] = first < 0 ? 0 : first;
    box.last[d] = last > w->cells[d] ? w->cells[d] : last;
  }
  return box;
}

/** Windows that cover cell `at`. */
FN_DEVICE fn_box fn_window_cover(const fn_windows *w, const int32_t at[3]) {
  fn_box box;
  for (int d = 0; d < 3; d++) {
    const int32_t end = at[d] + w->pad[d]; // window i covers i stride <= end < i stride + kernel
    const int32_t last = end / w->stride[d] + 1;
    box.first[d] = end < w->kernel[d] ? 0 : (end - w->kernel[d]) / w->stride[d] + 1;
    box.last[d] = last > w->windows[d] ? w->windows[d] : last;
  }
  return box;
}

/** Place of a cell among those of a box, in C order. */
FN_DEVICE int32_t fn_box_place(const fn_box *box, const int32_t at[3]) {
  const int32_t row =
      (at[0] - box->first[0]) * (box->last[1] - box->first[1]) + at[1] - box->first[1];
  return row * (box->last[2] - box->first[2]) + at[2] - box->first[2];
}

/** Where cell (i, j, k) starts. */
FN_DEVICE int64_t fn_view_cell(const fn_view *t, int64_t n, int32_t i, int32_t j, int32_t k) {
  return n * t->row + ((i * t->size[1] + j) * t->size[2] + k) * t->pitch;
}

FN_DEVICE void fn_cell_place(const fn_cell *cell, int32_t at[3]) {
  for (int d = 0; d < 3; d++)
    at[d] = (int32_t)cell->at[d];
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

/** The largest of x in a box and its place there, for each of four channels. */
FN_DEVICE void fn_box_largest(const fn_view *x, const fn_box *box, int64_t n, int64_t c, int width,
                              float best[4], int32_t place[4]) {
  int32_t at = 0;
  for (int j = 0; j < 4; j++) {
    best[j] = 0;
    place[j] = 0;
  }
  for (int32_t i = box->first[0]; i < box->last[0]; i++)
    for (int32_t k = box->first[1]; k < box->last[1]; k++) {
      int64_t from = fn_view_cell(x, n, i, k, box->first[2]) + c;
      for (int32_t l = box->first[2]; l < box->last[2]; l++, at++, from += x->pitch) {
        float v[4];
        fn_read_wide(x->data, x->dtype, from, width, v);
        for (int j = 0; j < 4; j++) {
          const bool first_nan = v[j] != v[j] && best[j] == best[j];
          if (at > 0 && !(v[j] > best[j]) && !first_nan) continue;
          best[j] = v[j];
          place[j] = at;
        }
      }
    }
}

/** Sum of x over a box, for each of four channels. */
FN_DEVICE void fn_box_sum(const fn_view *x, const fn_box *box, int64_t n, int64_t c, int width,
                          float sum[4]) {
  for (int j = 0; j < 4; j++)
    sum[j] = 0;
  for (int32_t i = box->first[0]; i < box->last[0]; i++)
    for (int32_t k = box->first[1]; k < box->last[1]; k++) {
      int64_t from = fn_view_cell(x, n, i, k, box->first[2]) + c;
      for (int32_t l = box->first[2]; l < box->last[2]; l++, from += x->pitch) {
        float v[4];
        fn_read_wide(x->data, x->dtype, from, width, v);
        for (int j = 0; j < 4; j++)
          sum[j] += v[j];
      }
    }
}

/** What `values` have at a place of a box. */
FN_DEVICE float fn_box_read(const fn_view *values, const fn_box *box, int32_t place, int64_t n,
                            int64_t c) {
  const int32_t rows = box->last[1] - box->first[1], length = box->last[2] - box->first[2];
  const int32_t row = place / length, i = row / rows;
  return fn_read(values->data, values->dtype,
                 fn_view_cell(values, n, box->first[0] + i, box->first[1] + row - i * rows,
                              box->first[2] + place - row * length) +
                     c);
}

FN_DEVICE void fn_pool_body(const fn_pool_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->loop.count; turn += fn_thread_stride(t)) {
    const fn_cell to = fn_cell_loop_at(&a->loop, turn);
    float y[4];
    int32_t at[3], place[4];
    fn_cell_place(&to, at);
    const fn_box box = fn_window_cells(&a->windows, at);
    if (a->average) {
      fn_box_sum(&a->x, &box, to.n, to.c, a->loop.width, y);
      for (int j = 0; j < 4; j++)
        y[j] *= a->share;
    } else {
      fn_box_largest(&a->x, &box, to.n, to.c, a->loop.width, y, place);
      for (int j = 0; j < 4; j++)
        if (j < a->loop.width && a->values.data != a->x.data)
          y[j] = fn_box_read(&a->values, &box, place[j], to.n, to.c + j);
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

/** Add dy of window `window` to those channels of cell `at` that it takes. */
FN_DEVICE void fn_pool_grad_window(const fn_pool_grad_args *a, const int32_t window[3], int64_t n,
                                   int64_t c, const int32_t at[3], float sum[4]) {
  const fn_box box = fn_window_cells(&a->windows, window);
  const int32_t own = fn_box_place(&box, at);
  float largest[4], v[4];
  int32_t place[4] = {own, own, own, own};
  if (!a->average) fn_box_largest(&a->x, &box, n, c, a->loop.width, largest, place);
  fn_read_wide(a->dy.data, a->dy.dtype,
               fn_view_cell(&a->dy, n, window[0], window[1], window[2]) + c, a->loop.width, v);
  for (int j = 0; j < 4; j++)
    if (place[j] == own) sum[j] += v[j];
}

FN_DEVICE void fn_pool_grad_body(const fn_pool_grad_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->loop.count; turn += fn_thread_stride(t)) {
    const fn_cell to = fn_cell_loop_at(&a->loop, turn);
    int32_t at[3], i[3];
    float sum[4] = {0, 0, 0, 0};
    fn_cell_place(&to, at);
    const fn_box cover = fn_window_cover(&a->windows, at);
    for (i[0] = cover.first[0]; i[0] < cover.last[0]; i[0]++)
      for (i[1] = cover.first[1]; i[1] < cover.last[1]; i[1]++)
        for (i[2] = cover.first[2]; i[2] < cover.last[2]; i[2]++)
          fn_pool_grad_window(a, i, to.n, to.c, at, sum);
    for (int j = 0; j < 4; j++)
      sum[j] *= a->average ? a->share : 1;
    fn_write_wide(a->dx.data, a->dx.dtype, fn_view_at(&a->dx, to.n, to.at) + to.c, a->loop.width,
                  sum);
  }
}

#endif
