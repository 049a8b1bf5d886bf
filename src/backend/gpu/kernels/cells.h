/** @file cells.h
 *  A channels-last tensor in a kernel's arguments, and what surrounds a library's convolution:
 *  packed filters, dense copies, bias, residual and activation, sums over cells.
 */
#ifndef FN_BACKEND_GPU_KERNELS_CELLS_H
#define FN_BACKEND_GPU_KERNELS_CELLS_H

#include "backend/gpu/kernels/loop.h"

/** Element (n, cell, c) lies at data + n batch_stride + cell pitch + c. */
typedef struct fn_cells {
  void *data;
  int dtype;
  int64_t batch_stride, pitch; /**< elements */
} fn_cells;

FN_DEVICE float fn_cells_read(const fn_cells *t, int64_t n, int64_t cell, int64_t c) {
  return fn_read(t->data, t->dtype, n * t->batch_stride + cell * t->pitch + c);
}
FN_DEVICE void fn_cells_write(const fn_cells *t, int64_t n, int64_t cell, int64_t c, float value) {
  fn_write(t->data, t->dtype, n * t->batch_stride + cell * t->pitch + c, value);
}

/** y [rows, b, a] := x [rows, a, b]. A kernel [K, C/g, k...] becomes channels-last [K, k..., C/g],
 *  as libraries want filters, and a gradient comes back. */
typedef struct fn_swap_axes_args {
  const void *x;
  void *y;
  int x_dtype, y_dtype;
  int64_t count, b;
  fn_divider plane, a; /**< a b; a */
} fn_swap_axes_args;

FN_DEVICE void fn_swap_axes_body(const fn_swap_axes_args *p, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < p->count; i += fn_thread_stride(t)) {
    const int64_t start = fn_divide(&p->plane, i) * p->plane.by, rest = i - start;
    const int64_t column = fn_divide(&p->a, rest);
    const int64_t from = start + (rest - column * p->a.by) * p->b + column;
    fn_write(p->y, p->y_dtype, i, fn_read(p->x, p->x_dtype, from));
  }
}

/** y := leaky(x + bias + residual); bias [channels] float32 and residual may be absent (NULL), y
 *  may be x. With neither and slope 1 it copies between strides and dtypes. A turn handles `width`
 *  channels of a cell: 4 where every cell of all three is aligned and their number is a multiple.
 */
typedef struct fn_finish_args {
  fn_cells x, y, residual;
  const float *bias;
  float slope;
  int width;
  int64_t count;              /**< turns */
  fn_divider cells, channels; /**< of a sample; of a cell, in turns */
} fn_finish_args;

FN_DEVICE void fn_finish_body(const fn_finish_args *p, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < p->count; i += fn_thread_stride(t)) {
    const int64_t row = fn_divide(&p->channels, i), n = fn_divide(&p->cells, row);
    const int64_t c = (i - row * p->channels.by) * p->width, cell = row - n * p->cells.by;
    // What is absent leaves a negative zero as it is.
    float v[4], r[4] = {-0.0f, -0.0f, -0.0f, -0.0f}, b[4] = {-0.0f, -0.0f, -0.0f, -0.0f};
    fn_read_wide(p->x.data, p->x.dtype, n * p->x.batch_stride + cell * p->x.pitch + c, p->width, v);
    if (p->residual.data)
      fn_read_wide(p->residual.data, p->residual.dtype,
                   n * p->residual.batch_stride + cell * p->residual.pitch + c, p->width, r);
    for (int j = 0; p->bias && j < p->width; j++)
      b[j] = p->bias[c + j];
    for (int j = 0; j < p->width; j++) {
      const float sum = v[j] + b[j] + r[j];
      v[j] = sum > 0 ? sum : p->slope * sum;
    }
    fn_write_wide(p->y.data, p->y.dtype, n * p->y.batch_stride + cell * p->y.pitch + c, p->width,
                  v);
  }
}

/** First half of y[c] = sum over samples and cells of x. Block (share, tile) adds the cells of one
 *  share in an order that depends on the sizes alone and leaves partial[share, c] for the `width`
 *  channels of one tile; as many threads in a row take neighbouring channels. The width is a power
 *  of two, at most the threads of a block; the grid has shares times tiles blocks. */
typedef struct fn_cell_sums_args {
  fn_cells x;
  float *partial; /**< shape [shares, channels] */
  int64_t rows, channels, tiles;
  fn_divider cells; /**< rows of a sample */
  int width;
} fn_cell_sums_args;

/** Rows that a thread has under way at the same time. */
enum { FN_CELL_TURNS = 4 };

FN_DEVICE void fn_cell_sums_body(const fn_cell_sums_args *p, fn_thread t, void *shared, int phase) {
  float *sums = (float *)shared; // shape [lanes, width]
  const int lanes = t.count / p->width, lane = t.index / p->width, column = t.index % p->width;
  const int64_t shares = t.blocks / p->tiles, share = t.block / p->tiles;
  const int64_t c = t.block % p->tiles * p->width + column;
  if (phase == 0) {
    const int64_t length = (p->rows + shares - 1) / shares, first = share * length;
    const int64_t end = first + length < p->rows ? first + length : p->rows;
    float sum = 0;
    for (int64_t r = first + lane; c < p->channels && r < end; r += FN_CELL_TURNS * lanes) {
      float v[FN_CELL_TURNS];
      for (int k = 0; k < FN_CELL_TURNS; k++) {
        const int64_t row = r + k * lanes < end ? r + k * lanes : r;
        const int64_t n = fn_divide(&p->cells, row);
        v[k] = fn_cells_read(&p->x, n, row - n * p->cells.by, c);
      }
      for (int k = 0; k < FN_CELL_TURNS; k++)
        if (r + k * lanes < end) sum += v[k];
    }
    sums[t.index] = sum;
  } else if (lane == 0 && c < p->channels) {
    float sum = 0;
    for (int i = 0; i < lanes; i++)
      sum += sums[i * p->width + column];
    p->partial[share * p->channels + c] = sum;
  }
}

/** Second half: y[c] := sum over b of partial[b, c]; one block per channel. */
typedef struct fn_column_sums_args {
  const float *partial; /**< shape [rows, channels] */
  float *y;             /**< shape [channels] */
  int64_t rows, channels;
} fn_column_sums_args;

FN_DEVICE void fn_column_sums_body(const fn_column_sums_args *p, fn_thread t, void *shared,
                                   int phase) {
  float *sums = (float *)shared;
  if (phase == 0) {
    float sum = 0;
    for (int64_t r = t.index; r < p->rows; r += t.count)
      sum += p->partial[r * p->channels + t.block];
    sums[t.index] = sum;
  } else if (t.index == 0) {
    float sum = 0;
    for (int i = 0; i < t.count; i++)
      sum += sums[i];
    p->y[t.block] = sum;
  }
}

#endif
