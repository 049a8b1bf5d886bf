/** @file window.h
 *  Padding with zeros or periodically, and the adjoint of the latter.
 */
#ifndef FN_BACKEND_GPU_KERNELS_WINDOW_H
#define FN_BACKEND_GPU_KERNELS_WINDOW_H

#include "backend/gpu/kernels/loop.h"

/** y [shape] with x [length] at `start`; outside it zeros, or x continued periodically. Axes
 * fastest first, axis 0 in turns of `width` elements. */
typedef struct fn_pad_args {
  void *y;
  const void *x;
  int y_dtype, x_dtype;
  bool periodic;
  int axes, width;
  int64_t count; /**< turns */
  fn_divider size[FN_LOOP_AXES];
  int64_t start[FN_LOOP_AXES], length[FN_LOOP_AXES];
  int64_t y_stride[FN_LOOP_AXES], x_stride[FN_LOOP_AXES];
} fn_pad_args;

FN_DEVICE void fn_pad_body(const fn_pad_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t turn = fn_thread_first(t); turn < a->count; turn += fn_thread_stride(t)) {
    int64_t rest = turn, y = 0, x = 0;
    bool inside = true;
    for (int axis = 0; axis < a->axes; axis++) {
      const int64_t next = fn_divide(&a->size[axis], rest);
      const int64_t index = rest - next * a->size[axis].by;
      const int64_t length = a->length[axis];
      int64_t from = index - a->start[axis];
      rest = next;
      if (a->periodic) {
        if (from < 0 || from >= length) from %= length;
        if (from < 0) from += length;
      }
      inside = inside && from >= 0 && from < length;
      y += index * a->y_stride[axis];
      x += from * a->x_stride[axis];
    }
    float v[4] = {0, 0, 0, 0};
    if (inside) fn_read_wide(a->x, a->x_dtype, x, a->width, v);
    fn_write_wide(a->y, a->y_dtype, y, a->width, v);
  }
}

/** x = sums of the cells of y that are copies of it; x at `start` of y. */
typedef struct fn_fold_periodic_args {
  fn_view x, y;
  int64_t start[3];
  fn_cell_loop loop; /**< over x */
} fn_fold_periodic_args;

FN_DEVICE void fn_fold_periodic_body(const fn_fold_periodic_args *a, fn_thread t, void *shared,
                                     int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->loop.count; i += fn_thread_stride(t)) {
    const fn_cell cell = fn_cell_loop_at(&a->loop, i);
    float sum[4] = {0, 0, 0, 0};
    int64_t first[3], from[3];
    for (int d = 0; d < 3; d++)
      first[d] = (a->start[d] + cell.at[d]) % a->x.size[d];
    for (from[0] = first[0]; from[0] < a->y.size[0]; from[0] += a->x.size[0])
      for (from[1] = first[1]; from[1] < a->y.size[1]; from[1] += a->x.size[1])
        for (from[2] = first[2]; from[2] < a->y.size[2]; from[2] += a->x.size[2]) {
          float v[4];
          fn_read_wide(a->y.data, a->y.dtype, fn_view_at(&a->y, cell.n, from) + cell.c,
                       a->loop.width, v);
          for (int j = 0; j < 4; j++)
            sum[j] += v[j];
        }
    fn_write_wide(a->x.data, a->x.dtype, fn_view_at(&a->x, cell.n, cell.at) + cell.c, a->loop.width,
                  sum);
  }
}

#endif
