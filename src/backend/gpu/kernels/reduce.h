/** @file reduce.h
 *  Sums over axes: blocks over (kept elements, chunks of the summed ones), then over the chunks.
 * The order of additions depends on shapes and layouts alone. Accumulated in double precision.
 */
#ifndef FN_BACKEND_GPU_KERNELS_REDUCE_H
#define FN_BACKEND_GPU_KERNELS_REDUCE_H

#include "backend/gpu/kernels/loop.h"
#include "backend/gpu/kernels/tree.h"

typedef struct fn_sum_args {
  const void *x;
  void *y;         /**< NULL: several chunks, partial sums instead */
  double *partial; /**< [chunks][kept.count] */
  int x_dtype, y_dtype;
  fn_loop kept;     /**< operands x, y; width 1 */
  fn_loop summed;   /**< operand x; width 1 */
  int tile;         /**< kept elements of a block: a power of two */
  bool along;       /**< neighbouring threads take neighbours of the summed axes */
  fn_divider tiles; /**< along the kept elements */
  int64_t chunk;    /**< summed elements of a block */
} fn_sum_args;

FN_DEVICE void fn_sum_body(const fn_sum_args *a, fn_thread t, void *shared, int phase) {
  double *part = (double *)shared;
  const int64_t chunk = fn_divide(&a->tiles, t.block);
  const int64_t first = (t.block - chunk * a->tiles.by) * a->tile;
  if (phase == 0) {
    const int lanes = FN_GPU_THREADS / a->tile;
    const int column = a->along ? t.index / lanes : t.index % a->tile;
    const int lane = a->along ? t.index % lanes : t.index / a->tile;
    const int64_t last = (chunk + 1) * a->chunk;
    const int64_t end = last < a->summed.count ? last : a->summed.count;
    double total = 0;
    if (first + column < a->kept.count) {
      const int64_t at = fn_loop_at(&a->kept, 1, first + column).at[0];
      for (int64_t r = chunk * a->chunk + lane; r < end; r += lanes)
        total += (double)fn_read(a->x, a->x_dtype, at + fn_loop_at(&a->summed, 1, r).at[0]);
    }
    part[lane * a->tile + column] = total;
  } else if (phase == 1) {
    fn_tree_groups(part, 1, a->tile, t);
  } else if (t.index < a->tile && first + t.index < a->kept.count) {
    const int64_t k = first + t.index;
    const double total = fn_tree_total(part, 0, a->tile, t.index);
    if (a->y)
      fn_write(a->y, a->y_dtype, fn_loop_at(&a->kept, 2, k).at[1], (float)total);
    else
      a->partial[chunk * a->kept.count + k] = total;
  }
}

typedef struct fn_sum_finish_args {
  const double *partial; /**< [chunks][kept.count] */
  void *y;
  int y_dtype;
  int64_t chunks;
  fn_loop kept; /**< operands x, y */
  int tile;
} fn_sum_finish_args;

FN_DEVICE void fn_sum_finish_body(const fn_sum_finish_args *a, fn_thread t, void *shared,
                                  int phase) {
  double *part = (double *)shared;
  const int column = t.index % a->tile, lane = t.index / a->tile;
  const int64_t k = t.block * a->tile + column;
  if (phase == 0) {
    double total = 0;
    for (int64_t chunk = lane; k < a->kept.count && chunk < a->chunks;
         chunk += FN_GPU_THREADS / a->tile)
      total += a->partial[chunk * a->kept.count + k];
    part[t.index] = total;
  } else if (phase == 1) {
    fn_tree_groups(part, 1, a->tile, t);
  } else if (lane == 0 && k < a->kept.count) {
    const double total = fn_tree_total(part, 0, a->tile, column);
    fn_write(a->y, a->y_dtype, fn_loop_at(&a->kept, 2, k).at[1], (float)total);
  }
}

/** log softmax over the channels of one row per thread. */
typedef struct fn_log_softmax_args {
  fn_view x, y;
  int64_t channels;
  fn_cell_loop loop; /**< over cells: one channel */
} fn_log_softmax_args;

FN_DEVICE void fn_log_softmax_body(const fn_log_softmax_args *a, fn_thread t, void *shared,
                                   int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->loop.count; i += fn_thread_stride(t)) {
    const fn_cell cell = fn_cell_loop_at(&a->loop, i);
    const int64_t x = fn_view_at(&a->x, cell.n, cell.at);
    const int64_t y = fn_view_at(&a->y, cell.n, cell.at);
    float peak = fn_read(a->x.data, a->x.dtype, x), sum = 0;
    for (int64_t c = 1; c < a->channels; c++)
      peak = fmaxf(peak, fn_read(a->x.data, a->x.dtype, x + c));
    for (int64_t c = 0; c < a->channels; c++)
      sum += expf(fn_read(a->x.data, a->x.dtype, x + c) - peak);
    // The difference first: peak and logarithm may be far apart in size.
    const float shift = logf(sum);
    for (int64_t c = 0; c < a->channels; c++)
      fn_write(a->y.data, a->y.dtype, y + c, fn_read(a->x.data, a->x.dtype, x + c) - peak - shift);
  }
}

#endif
