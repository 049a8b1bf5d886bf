/** @file norm.h
 *  Batch norm: statistics and their use, forward and backward.
 *
 *  Rows are the cells of all samples; channels are neighbours in memory. A first kernel adds up
 *  chunks of rows, a second one adds the chunks and makes the factors of every channel, a third one
 *  applies them. Orders of addition depend on shapes and layouts alone.
 */
#ifndef FN_BACKEND_GPU_KERNELS_NORM_H
#define FN_BACKEND_GPU_KERNELS_NORM_H

#include "backend/gpu/kernels/loop.h"
#include "backend/gpu/kernels/tree.h"

/** How a block adds up columns: `tile` threads along the channels, `width` channels each, the
 * others along the rows. */
typedef struct fn_columns {
  int64_t rows, channels;
  fn_divider cells; /**< rows of a sample */
  int width, tile;
  fn_divider tiles;
  int64_t chunk, chunks; /**< rows of a block, blocks along the rows */
} fn_columns;

FN_DEVICE int64_t fn_row_at(const fn_view *t, const fn_divider *cells, int64_t row) {
  const int64_t n = fn_divide(cells, row);
  return n * t->row + (row - n * cells->by) * t->pitch;
}

/** What is near the values of a channel: of four rows far apart the mean of the middle two. Sums of
 *  differences from it lose no digits to a large mean, and one odd value does no harm. */
FN_DEVICE void fn_norm_pivot(const fn_view *x, const fn_divider *cells, int64_t rows, int width,
                             int64_t c, float pivot[4]) {
  float v[4][4];
  for (int i = 0; i < 4; i++)
    fn_read_wide(x->data, x->dtype, fn_row_at(x, cells, i * (rows / 4)) + c, width, v[i]);
  for (int j = 0; j < 4; j++) {
    const float low = fmaxf(fminf(v[0][j], v[1][j]), fminf(v[2][j], v[3][j]));
    const float high = fminf(fmaxf(v[0][j], v[1][j]), fmaxf(v[2][j], v[3][j]));
    pivot[j] = 0.5f * low + 0.5f * high;
  }
}

/** One part per thread: sums [2][4] of its channels, in double precision. */
FN_DEVICE void fn_columns_leave(double *part, const double first[4], const double second[4],
                                fn_thread t) {
  for (int j = 0; j < 4; j++) {
    part[j * FN_GPU_THREADS + t.index] = first[j];
    part[(4 + j) * FN_GPU_THREADS + t.index] = second[j];
  }
}

/** Rows of a gradient that a thread has under way at the same time. */
enum { FN_NORM_TURNS = 2 };
enum { FN_COLUMNS_SHARED = 8 * FN_GPU_THREADS * 8 };

/** After fn_columns_leave: partial [chunks][2][channels]. */
FN_DEVICE void fn_columns_add(const fn_columns *columns, double *part, double *partial, fn_thread t,
                              int phase) {
  if (phase == 1) {
    fn_tree_groups(part, 8, columns->tile, t);
    return;
  }
  const int64_t chunk = fn_divide(&columns->tiles, t.block);
  const int64_t first = (t.block - chunk * columns->tiles.by) * columns->tile * columns->width;
  for (int task = t.index; task < 8 * columns->tile; task += t.count) {
    const int sum = task / columns->tile, column = task % columns->tile, j = sum % 4;
    const int64_t c = first + column * columns->width + j;
    if (j >= columns->width || c >= columns->channels) continue;
    partial[(chunk * 2 + sum / 4) * columns->channels + c] =
        fn_tree_total(part, sum, columns->tile, column);
  }
}

/** Sums of x - pivot and of its square. */
typedef struct fn_norm_statistics_args {
  fn_columns columns;
  fn_view x;
  double *partial;
} fn_norm_statistics_args;

FN_DEVICE void fn_norm_statistics_body(const fn_norm_statistics_args *a, fn_thread t, void *shared,
                                       int phase) {
  const fn_columns *k = &a->columns;
  double *part = (double *)shared;
  if (phase > 0) {
    fn_columns_add(k, part, a->partial, t, phase);
    return;
  }
  const int lanes = FN_GPU_THREADS / k->tile, lane = t.index / k->tile;
  const int64_t chunk = fn_divide(&k->tiles, t.block);
  const int64_t c = ((t.block - chunk * k->tiles.by) * k->tile + t.index % k->tile) * k->width;
  const int64_t last = (chunk + 1) * k->chunk, end = last < k->rows ? last : k->rows;
  double first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
  if (c < k->channels) {
    float pivot[4];
    fn_norm_pivot(&a->x, &k->cells, k->rows, k->width, c, pivot);
    int64_t row = chunk * k->chunk + lane;
    while (row < end) {
      // Four rows at once, all on their way before the first is used.
      fn_bits bits[4];
      float sum[4] = {0, 0, 0, 0}, square[4] = {0, 0, 0, 0};
      for (int i = 0; i < 4; i++) {
        const int64_t at = row + i * lanes < end ? row + i * lanes : row;
        bits[i] = fn_fetch(a->x.data, a->x.dtype, fn_row_at(&a->x, &k->cells, at) + c, k->width);
      }
      for (int i = 0; i < 4; i++) {
        float v[4];
        fn_unpack(&bits[i], a->x.dtype, v);
        for (int j = 0; j < 4; j++) {
          const float d = row + i * lanes < end ? v[j] - pivot[j] : 0;
          sum[j] += d;
          square[j] += d * d;
        }
      }
      for (int j = 0; j < 4; j++) {
        first[j] += (double)sum[j];
        second[j] += (double)square[j];
      }
      row += 4 * lanes;
    }
  }
  fn_columns_leave(part, first, second, t);
}

/** dy and y of an element or four. */
typedef struct fn_norm_pair {
  fn_bits dy, y;
} fn_norm_pair;

FN_DEVICE fn_norm_pair fn_norm_fetch(const fn_view *dy, const fn_view *y, const fn_divider *cells,
                                     int64_t row, int64_t c, int width) {
  fn_norm_pair pair;
  pair.dy = fn_fetch(dy->data, dy->dtype, fn_row_at(dy, cells, row) + c, width);
  pair.y = pair.dy;
  if (y->data) pair.y = fn_fetch(y->data, y->dtype, fn_row_at(y, cells, row) + c, width);
  return pair;
}

/** g = dy times the slope of the activation. */
FN_DEVICE void fn_norm_before(const fn_view *dy, const fn_view *y, float slope,
                              const fn_norm_pair *pair, float g[4]) {
  fn_unpack(&pair->dy, dy->dtype, g);
  if (!y->data) return;
  float v[4];
  fn_unpack(&pair->y, y->dtype, v);
  for (int j = 0; j < 4; j++)
    g[j] = v[j] > 0 ? g[j] : slope * g[j];
}

/** Sums of g and of g (x - mean). */
typedef struct fn_norm_products_args {
  fn_columns columns;
  fn_view dy, x, y; /**< y.data NULL: no activation */
  float slope;
  const void *mean;
  int mean_dtype;
  double *partial;
} fn_norm_products_args;

FN_DEVICE void fn_norm_products_body(const fn_norm_products_args *a, fn_thread t, void *shared,
                                     int phase) {
  const fn_columns *k = &a->columns;
  double *part = (double *)shared;
  if (phase > 0) {
    fn_columns_add(k, part, a->partial, t, phase);
    return;
  }
  const int lanes = FN_GPU_THREADS / k->tile, lane = t.index / k->tile;
  const int64_t chunk = fn_divide(&k->tiles, t.block);
  const int64_t c = ((t.block - chunk * k->tiles.by) * k->tile + t.index % k->tile) * k->width;
  const int64_t last = (chunk + 1) * k->chunk, end = last < k->rows ? last : k->rows;
  double first[4] = {0, 0, 0, 0}, second[4] = {0, 0, 0, 0};
  if (c < k->channels) {
    float mean[4] = {0, 0, 0, 0};
    for (int j = 0; j < 4; j++)
      if (j < k->width) mean[j] = fn_read(a->mean, a->mean_dtype, c + j);
    int64_t row = chunk * k->chunk + lane;
    while (row < end) {
      float sum[4] = {0, 0, 0, 0}, along[4] = {0, 0, 0, 0};
      fn_norm_pair pair[FN_NORM_TURNS];
      fn_bits bits[FN_NORM_TURNS];
      for (int i = 0; i < FN_NORM_TURNS; i++) {
        const int64_t at = row + i * lanes < end ? row + i * lanes : row;
        pair[i] = fn_norm_fetch(&a->dy, &a->y, &k->cells, at, c, k->width);
        bits[i] = fn_fetch(a->x.data, a->x.dtype, fn_row_at(&a->x, &k->cells, at) + c, k->width);
      }
      for (int i = 0; i < FN_NORM_TURNS; i++) {
        float g[4], x[4];
        if (row + i * lanes >= end) continue;
        fn_norm_before(&a->dy, &a->y, a->slope, &pair[i], g);
        fn_unpack(&bits[i], a->x.dtype, x);
        for (int j = 0; j < 4; j++) {
          sum[j] += g[j];
          along[j] += g[j] * (x[j] - mean[j]);
        }
      }
      for (int j = 0; j < 4; j++) {
        first[j] += (double)sum[j];
        second[j] += (double)along[j];
      }
      row += FN_NORM_TURNS * lanes;
    }
  }
  fn_columns_leave(part, first, second, t);
}

/* ---- factors of a channel
 * ------------------------------------------------------------------------ */

/** y = (x - factor[c]) factor[channels + c] + factor[2 channels + c] */
typedef struct fn_norm_factors {
  int64_t channels;
  const void *scale, *shift;
  int scale_dtype, shift_dtype;
  double eps;
  float *factor;
  void *mean, *var; /**< outputs; may be NULL */
  int mean_dtype, var_dtype;
  bool round; /**< statistics to float first, see fn_round_statistics() */
} fn_norm_factors;

FN_DEVICE void fn_norm_set(const fn_norm_factors *a, int64_t c, double mean, double var) {
  if (a->round) {
    mean = (double)(float)mean;
    var = (double)(float)var;
  }
  const float near = (float)mean;
  const double factor = (double)fn_read(a->scale, a->scale_dtype, c) / sqrt(var + a->eps);
  a->factor[c] = near;
  a->factor[a->channels + c] = (float)factor;
  // What rounding the mean to float lost goes into the shift.
  a->factor[2 * a->channels + c] =
      (float)((double)fn_read(a->shift, a->shift_dtype, c) + ((double)near - mean) * factor);
  if (a->mean) fn_write(a->mean, a->mean_dtype, c, (float)mean);
  if (a->var) fn_write(a->var, a->var_dtype, c, (float)var);
}

/** dx = factor[channels + c] g + factor[2 channels + c] (x - factor[c]) + factor[3 channels + c]:
 *  Ioffe & Szegedy 2015, section 3, with the sums over the batch collected. */
typedef struct fn_norm_grad_factors {
  int64_t channels;
  const void *scale, *mean, *var;
  int scale_dtype, mean_dtype, var_dtype;
  double eps;
  bool fixed; /**< mean and var do not depend on x */
  float *factor;
} fn_norm_grad_factors;

/** sum, along: sums of g and g (x - mean) over `count` values. */
FN_DEVICE void fn_norm_grad_set(const fn_norm_grad_factors *a, int64_t c, double sum, double along,
                                double count) {
  const double inverse = 1 / sqrt((double)fn_read(a->var, a->var_dtype, c) + a->eps);
  const double factor = (double)fn_read(a->scale, a->scale_dtype, c) * inverse;
  a->factor[c] = fn_read(a->mean, a->mean_dtype, c);
  a->factor[a->channels + c] = (float)factor;
  a->factor[2 * a->channels + c] =
      a->fixed ? 0.0f : (float)(-factor * inverse * inverse * along / count);
  a->factor[3 * a->channels + c] = a->fixed ? 0.0f : (float)(-factor * sum / count);
}

/* ---- adding the chunks
 * --------------------------------------------------------------------------- */

enum { FN_FINISH_TILE = 8, FN_FINISH_SHARED = 2 * FN_GPU_THREADS * 8 };

/** The two sums of channel `c` of thread t.index % FN_FINISH_TILE over all chunks; true in the last
 *  phase (2) for the threads that shall go on with them. */
FN_DEVICE bool fn_norm_gather(const double *partial, int64_t channels, int64_t chunks, double *part,
                              fn_thread t, int phase, int64_t *c, double sum[2]) {
  const int column = t.index % FN_FINISH_TILE, lane = t.index / FN_FINISH_TILE;
  *c = t.block * FN_FINISH_TILE + column;
  if (phase == 0) {
    sum[0] = sum[1] = 0;
    for (int64_t i = lane; *c < channels && i < chunks; i += FN_GPU_THREADS / FN_FINISH_TILE) {
      sum[0] += partial[2 * i * channels + *c];
      sum[1] += partial[(2 * i + 1) * channels + *c];
    }
    part[t.index] = sum[0];
    part[FN_GPU_THREADS + t.index] = sum[1];
    return false;
  }
  if (phase == 1) {
    fn_tree_groups(part, 2, FN_FINISH_TILE, t);
    return false;
  }
  if (lane > 0 || *c >= channels) return false;
  sum[0] = fn_tree_total(part, 0, FN_FINISH_TILE, column);
  sum[1] = fn_tree_total(part, 1, FN_FINISH_TILE, column);
  return true;
}

/** Statistics from the sums; then factors or, for other ranks, total [2][channels]: sums of x and
 * of squares about this rank's mean. */
typedef struct fn_norm_finish_args {
  const double *partial;
  int64_t chunks, rows;
  fn_view x;
  fn_divider cells;
  fn_norm_factors factors;
  double *total; /**< NULL: make factors */
} fn_norm_finish_args;

FN_DEVICE void fn_norm_finish_body(const fn_norm_finish_args *a, fn_thread t, void *shared,
                                   int phase) {
  const int64_t channels = a->factors.channels;
  int64_t c;
  double sum[2];
  if (!fn_norm_gather(a->partial, channels, a->chunks, (double *)shared, t, phase, &c, sum)) return;
  float pivot[4];
  fn_norm_pivot(&a->x, &a->cells, a->rows, 1, c, pivot);
  const double count = (double)a->rows, apart = sum[0] / count;
  const double squares = sum[1] - sum[0] * apart, mean = (double)pivot[0] + apart;
  if (a->total) {
    a->total[c] = mean * count;
    a->total[channels + c] = squares > 0 ? squares : 0;
  } else {
    fn_norm_set(&a->factors, c, mean, squares > 0 ? squares / count : 0);
  }
}

/** Factors from known statistics: total [2][channels] or, when that is NULL, two tensors. */
typedef struct fn_norm_known_args {
  fn_norm_factors factors;
  const double *total;
  const void *mean, *var;
  int mean_dtype, var_dtype;
} fn_norm_known_args;

FN_DEVICE void fn_norm_known_body(const fn_norm_known_args *a, fn_thread t, void *shared,
                                  int phase) {
  (void)shared;
  (void)phase;
  const int64_t channels = a->factors.channels;
  for (int64_t c = fn_thread_first(t); c < channels; c += fn_thread_stride(t)) {
    const double mean = a->total ? a->total[c] : (double)fn_read(a->mean, a->mean_dtype, c);
    const double var = a->total ? a->total[channels + c] : (double)fn_read(a->var, a->var_dtype, c);
    fn_norm_set(&a->factors, c, mean, var);
  }
}

/** dscale, dshift; then factors or, for other ranks, total [2][channels]. */
typedef struct fn_norm_grad_finish_args {
  const double *partial;
  int64_t chunks, rows;
  fn_norm_grad_factors factors;
  void *dscale, *dshift; /**< may be NULL */
  int dscale_dtype, dshift_dtype;
  double *total; /**< NULL: make factors */
} fn_norm_grad_finish_args;

FN_DEVICE void fn_norm_grad_finish_body(const fn_norm_grad_finish_args *a, fn_thread t,
                                        void *shared, int phase) {
  const fn_norm_grad_factors *f = &a->factors;
  int64_t c;
  double sum[2];
  if (!fn_norm_gather(a->partial, f->channels, a->chunks, (double *)shared, t, phase, &c, sum))
    return;
  const double std = sqrt((double)fn_read(f->var, f->var_dtype, c) + f->eps);
  if (a->dscale) fn_write(a->dscale, a->dscale_dtype, c, (float)(sum[1] / std));
  if (a->dshift) fn_write(a->dshift, a->dshift_dtype, c, (float)sum[0]);
  if (a->total) {
    a->total[c] = sum[0];
    a->total[f->channels + c] = sum[1];
  } else {
    fn_norm_grad_set(f, c, sum[0], sum[1], (double)a->rows);
  }
}

/** Factors from sums over all ranks. */
typedef struct fn_norm_grad_known_args {
  fn_norm_grad_factors factors;
  const double *total; /**< [2][channels], then the number of values of a channel */
} fn_norm_grad_known_args;

FN_DEVICE void fn_norm_grad_known_body(const fn_norm_grad_known_args *a, fn_thread t, void *shared,
                                       int phase) {
  (void)shared;
  (void)phase;
  const int64_t channels = a->factors.channels;
  for (int64_t c = fn_thread_first(t); c < channels; c += fn_thread_stride(t))
    fn_norm_grad_set(&a->factors, c, a->total[c], a->total[channels + c], a->total[2 * channels]);
}

/* ---- using the factors
 * --------------------------------------------------------------------------- */

/** y = leaky((x - mean) a + b + residual) */
typedef struct fn_norm_apply_args {
  fn_view x, residual, y;  /**< residual.data may be NULL */
  const float *factor;     /**< mean, a, b: [3][channels] */
  int64_t channels, count; /**< turns */
  fn_divider turns, cells; /**< turns of a row, rows of a sample */
  int width;
  float slope;
} fn_norm_apply_args;

FN_DEVICE void fn_norm_apply_body(const fn_norm_apply_args *a, fn_thread t, void *shared,
                                  int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t)) {
    const int64_t row = fn_divide(&a->turns, i), c = (i - row * a->turns.by) * a->width;
    float v[4], mean[4], factor[4], shift[4], residual[4] = {0, 0, 0, 0};
    const fn_view *r = &a->residual;
    const fn_bits x =
        fn_fetch(a->x.data, a->x.dtype, fn_row_at(&a->x, &a->cells, row) + c, a->width);
    fn_bits added = x;
    if (r->data) added = fn_fetch(r->data, r->dtype, fn_row_at(r, &a->cells, row) + c, a->width);
    fn_unpack(&x, a->x.dtype, v);
    if (r->data) fn_unpack(&added, r->dtype, residual);
    fn_read_wide(a->factor, FN_GPU_F32, c, a->width, mean);
    fn_read_wide(a->factor, FN_GPU_F32, a->channels + c, a->width, factor);
    fn_read_wide(a->factor, FN_GPU_F32, 2 * a->channels + c, a->width, shift);
    for (int j = 0; j < 4; j++) {
      const float value = (v[j] - mean[j]) * factor[j] + shift[j] + residual[j];
      v[j] = value > 0 ? value : a->slope * value;
    }
    fn_write_wide(a->y.data, a->y.dtype, fn_row_at(&a->y, &a->cells, row) + c, a->width, v);
  }
}

/** dx = a g + b (x - mean) + c, dresidual = g */
typedef struct fn_norm_grad_apply_args {
  fn_view dy, x, y, dx, dresidual; /**< y, dx or dresidual may have no data */
  const float *factor;             /**< mean, a, b, c: [4][channels] */
  int64_t channels, count;
  fn_divider turns, cells;
  int width;
  float slope;
} fn_norm_grad_apply_args;

FN_DEVICE void fn_norm_grad_apply_body(const fn_norm_grad_apply_args *a, fn_thread t, void *shared,
                                       int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t)) {
    const int64_t row = fn_divide(&a->turns, i), c = (i - row * a->turns.by) * a->width;
    float g[4], x[4] = {0, 0, 0, 0};
    const fn_norm_pair pair = fn_norm_fetch(&a->dy, &a->y, &a->cells, row, c, a->width);
    fn_bits bits = pair.dy;
    if (a->dx.data)
      bits = fn_fetch(a->x.data, a->x.dtype, fn_row_at(&a->x, &a->cells, row) + c, a->width);
    fn_norm_before(&a->dy, &a->y, a->slope, &pair, g);
    if (a->dx.data) fn_unpack(&bits, a->x.dtype, x);
    if (a->dresidual.data)
      fn_write_wide(a->dresidual.data, a->dresidual.dtype,
                    fn_row_at(&a->dresidual, &a->cells, row) + c, a->width, g);
    if (!a->dx.data) continue;
    float mean[4], f[3][4];
    fn_read_wide(a->factor, FN_GPU_F32, c, a->width, mean);
    for (int k = 0; k < 3; k++)
      fn_read_wide(a->factor, FN_GPU_F32, (k + 1) * a->channels + c, a->width, f[k]);
    for (int j = 0; j < 4; j++)
      x[j] = f[0][j] * g[j] + (f[1][j] * (x[j] - mean[j]) + f[2][j]);
    fn_write_wide(a->dx.data, a->dx.dtype, fn_row_at(&a->dx, &a->cells, row) + c, a->width, x);
  }
}

/* ---- running statistics, folding
 * ---------------------------------------------------------------------- */

/** y = keep running + blend batch */
typedef struct fn_running_args {
  void *y;
  const void *batch, *running;
  int y_dtype, batch_dtype, running_dtype;
  double keep, blend;
  int64_t channels;
} fn_running_args;

FN_DEVICE void fn_running_body(const fn_running_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t c = fn_thread_first(t); c < a->channels; c += fn_thread_stride(t))
    fn_write(a->y, a->y_dtype, c,
             (float)(a->keep * (double)fn_read(a->running, a->running_dtype, c) +
                     a->blend * (double)fn_read(a->batch, a->batch_dtype, c)));
}

/** See fn_op_fold_norm: weights [rows][columns][taps] and biases of the channels. */
typedef struct fn_fold_norm_args {
  const void *w;
  void *folded, *bias; /**< results; bias may be NULL */
  int w_dtype, folded_dtype, bias_dtype;
  const void *in[5]; /**< bias (may be NULL), scale, shift, mean, var */
  int in_dtype[5];
  int64_t rows, count, channels;
  fn_divider columns, taps;
  int64_t w_stride[3], folded_stride[3]; /**< per row, column, tap */
  int64_t group_rows;                    /**< rows of one group */
  bool transposed;
  double eps;
} fn_fold_norm_args;

FN_DEVICE double fn_fold_value(const fn_fold_norm_args *a, int i, int64_t c) {
  return a->in[i] ? (double)fn_read(a->in[i], a->in_dtype[i], c) : 0.0;
}

FN_DEVICE void fn_fold_norm_body(const fn_fold_norm_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t)) {
    const int64_t rest = fn_divide(&a->taps, i), tap = i - rest * a->taps.by;
    const int64_t row = fn_divide(&a->columns, rest), column = rest - row * a->columns.by;
    const int64_t c = a->transposed ? row / a->group_rows * a->columns.by + column : row;
    const double factor = fn_fold_value(a, 1, c) / sqrt(fn_fold_value(a, 4, c) + a->eps);
    const int64_t from = row * a->w_stride[0] + column * a->w_stride[1] + tap * a->w_stride[2];
    const int64_t to =
        row * a->folded_stride[0] + column * a->folded_stride[1] + tap * a->folded_stride[2];
    fn_write(a->folded, a->folded_dtype, to,
             (float)((double)fn_read(a->w, a->w_dtype, from) * factor));
  }
  for (int64_t c = fn_thread_first(t); a->bias && c < a->channels; c += fn_thread_stride(t)) {
    const double factor = fn_fold_value(a, 1, c) / sqrt(fn_fold_value(a, 4, c) + a->eps);
    fn_write(a->bias, a->bias_dtype, c,
             (float)((fn_fold_value(a, 0, c) - fn_fold_value(a, 3, c)) * factor +
                     fn_fold_value(a, 2, c)));
  }
}

#endif
