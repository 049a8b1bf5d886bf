/* Linear interpolation along every spatial axis, and its adjoint. Both go row by row: rows along
 * the last axis are combined with the weights of the other axes, then the sum is interpolated along
 * the row. The adjoint gathers, so that rows of its result can be made at the same time. */
#include <stdlib.h>

#include "backend/cpu/cells.h"

/** What one output cell takes along one axis: (1 - part) x[low] + part x[high]. */
typedef struct tap {
  int64_t low, high;
  float part;
} tap;

/** Output cells [first, last) that read one input cell along one axis. */
typedef struct readers {
  int64_t first, last;
} readers;

typedef struct resample_state {
  fn_cpu_state base;
  int64_t x[3], y[3];
  tap *taps[3];        /**< [y] each */
  readers *readers[3]; /**< [x] each */
} resample_state;

static void release(fn_cpu_state *base) {
  resample_state *s = (resample_state *)base;
  for (int d = 0; d < 3; d++) {
    free(s->taps[d]);
    free(s->readers[d]);
  }
}

static void make_taps(const fn_resample_attrs *attrs, int64_t cells, int64_t length, tap *taps) {
  for (int64_t i = 0; i < length; i++) {
    const double source = ((double)(i + attrs->trim) + 0.5) / attrs->factor - 0.5;
    const double clamped = source > 0 ? source : 0;
    const int64_t low = fn_min_of((int64_t)clamped, cells - 1);
    taps[i].low = low;
    taps[i].high = fn_min_of(low + 1, cells - 1);
    taps[i].part = (float)(clamped - (double)low);
  }
}

/** Taps ascend, so the readers of a cell are neighbours. */
static void find_readers(const tap *taps, int64_t length, readers *list) {
  for (int64_t i = 0; i < length; i++) {
    const int64_t cell[2] = {taps[i].low, taps[i].high};
    for (int k = 0; k < 2; k++) {
      readers *r = &list[cell[k]];
      if (r->last == 0) r->first = i;
      r->last = i + 1;
    }
  }
}

static fn_status make_state(fn_kernel *kernel, const fn_tensor *x, const fn_tensor *y) {
  const fn_resample_attrs *attrs = kernel->node->attrs;
  resample_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->base.release = release;
  fn_spatial_sizes(&x->shape, s->x);
  fn_spatial_sizes(&y->shape, s->y);
  for (int d = 0; d < 3; d++) {
    s->taps[d] = calloc((size_t)s->y[d], sizeof(tap));
    s->readers[d] = calloc((size_t)s->x[d], sizeof(readers));
    FN_CHECK(s->taps[d] && s->readers[d], FN_ERR_MEMORY, "out of memory");
    if (d >= 3 - (x->shape.ndim - 2)) make_taps(attrs, s->x[d], s->y[d], s->taps[d]);
    find_readers(s->taps[d], s->y[d], s->readers[d]);
  }
  return FN_OK;
}

/** Weight with which output cell i reads input cell `cell`. */
static float weight_of(const tap *taps, int64_t i, int64_t cell) {
  return (taps[i].low == cell ? 1 - taps[i].part : 0) + (taps[i].high == cell ? taps[i].part : 0);
}

/** sum += weight * x for `count` elements from `offset`. */
static void add_row(const fn_tensor *x, int64_t offset, int64_t count, float weight, float *sum) {
  if (x->dtype == FN_BF16) {
    const uint16_t *from = (const uint16_t *)x->data + offset;
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
      sum[i] += weight * fn_bf16_to_f32(from[i]);
  } else {
    const float *from = (const float *)x->data + offset;
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
      sum[i] += weight * from[i];
  }
}

static inline __attribute__((always_inline)) void interpolate(const tap *taps, int64_t first,
                                                              int64_t cells, int64_t origin,
                                                              const float *row, int64_t block,
                                                              float *out) {
  for (int64_t i = 0; i < cells; i++) {
    const tap *t = &taps[first + i];
    const float *low = row + (t->low - origin) * block, *high = row + (t->high - origin) * block;
    const float part = t->part;
#pragma omp simd
    for (int64_t l = 0; l < block; l++)
      out[i * block + l] = (1 - part) * low[l] + part * high[l];
  }
}

static inline __attribute__((always_inline)) void gather(const resample_state *s, int64_t first,
                                                         int64_t cells, int64_t origin,
                                                         const float *row, int64_t block,
                                                         float *out) {
  const tap *taps = s->taps[2];
  for (int64_t j = 0; j < cells; j++) {
    const readers r = s->readers[2][first + j];
    float sum[FN_LANES] = {0};
    for (int64_t i = r.first; i < r.last; i++) {
      const float weight = weight_of(taps, i, first + j);
#pragma omp simd
      for (int64_t l = 0; l < block; l++)
        sum[l] += weight * row[(i - origin) * block + l];
    }
    for (int64_t l = 0; l < block; l++)
      out[j * block + l] = sum[l];
  }
}

/** The compiler knows the block. */
#define WITH_BLOCK(call, block_)                                                                   \
  do {                                                                                             \
    if ((block_) == 16) {                                                                          \
      enum { block = 16 };                                                                         \
      call;                                                                                        \
    } else if ((block_) == 8) {                                                                    \
      enum { block = 8 };                                                                          \
      call;                                                                                        \
    } else {                                                                                       \
      enum { block = 1 };                                                                          \
      call;                                                                                        \
    }                                                                                              \
  } while (0)

/** Cells of y from `first` on whose sources fit in a chunk, and how many those are. */
static int64_t take_cells(const resample_state *s, int64_t first, int64_t block, int64_t *origin,
                          int64_t *sources) {
  const tap *t = s->taps[2];
  const int64_t most = FN_CHUNK / block;
  int64_t last = first;
  *origin = t[first].low;
  while (last < s->y[2] && last - first < most && t[last].high - *origin < most)
    last++;
  *sources = t[last - 1].high - *origin + 1;
  return last - first;
}

static fn_status run_resample(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const resample_state *s = kernel->state;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const int64_t rows = s->y[0] * s->y[1], items = fn_planes(y) * rows;
#pragma omp parallel for schedule(static) if (items > 1)
  for (int64_t i = 0; i < items; i++) {
    const int64_t plane = i / rows, from = fn_plane_at(x, plane);
    const int64_t to = fn_plane_at(y, plane) + i % rows * s->y[2] * y->block;
    const tap *a = &s->taps[0][i % rows / s->y[1]], *b = &s->taps[1][i % rows % s->y[1]];
    float sum[FN_CHUNK], out[FN_CHUNK];
    for (int64_t first = 0, cells; first < s->y[2]; first += cells) {
      int64_t origin, sources;
      cells = take_cells(s, first, y->block, &origin, &sources);
      memset(sum, 0, (size_t)(sources * y->block) * sizeof *sum);
      for (int corner = 0; corner < 4; corner++) {
        const bool u = corner & 2, v = corner & 1;
        const float weight = (u ? a->part : 1 - a->part) * (v ? b->part : 1 - b->part);
        const int64_t row = (u ? a->high : a->low) * s->x[1] + (v ? b->high : b->low);
        if (weight != 0)
          add_row(x, from + (row * s->x[2] + origin) * x->block, sources * x->block, weight, sum);
      }
      float *result = fn_target(y, to + first * y->block, out);
      WITH_BLOCK(interpolate(s->taps[2], first, cells, origin, sum, block, result), y->block);
      fn_store(y, to + first * y->block, cells * y->block, result);
    }
  }
  return FN_OK;
}

/** Cells of x from `first` on whose readers fit in a chunk. */
static int64_t take_readers(const resample_state *s, int64_t first, int64_t block, int64_t *origin,
                            int64_t *count) {
  const int64_t most = FN_CHUNK / block;
  int64_t last = first, end = 0;
  *origin = *count = 0;
  while (last < s->x[2] && last - first < most) {
    const readers r = s->readers[2][last];
    if (r.last > 0 && end == 0) *origin = r.first;
    if (r.last - *origin > most) break;
    if (r.last > 0) end = r.last;
    last++;
  }
  *count = end > 0 ? end - *origin : 0;
  return last - first;
}

static fn_status run_resample_grad(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const resample_state *s = kernel->state;
  const fn_tensor *dy = &kernel->input[0], *dx = &kernel->output[0];
  const int64_t rows = s->x[0] * s->x[1], items = fn_planes(dx) * rows;
#pragma omp parallel for schedule(static) if (items > 1)
  for (int64_t i = 0; i < items; i++) {
    const int64_t plane = i / rows, from = fn_plane_at(dy, plane);
    const int64_t to = fn_plane_at(dx, plane) + i % rows * s->x[2] * dx->block;
    const int64_t at[2] = {i % rows / s->x[1], i % rows % s->x[1]};
    const readers a = s->readers[0][at[0]], b = s->readers[1][at[1]];
    float sum[FN_CHUNK], out[FN_CHUNK];
    for (int64_t first = 0, cells; first < s->x[2]; first += cells) {
      int64_t origin, count;
      cells = take_readers(s, first, dx->block, &origin, &count);
      memset(sum, 0, (size_t)(count * dx->block) * sizeof *sum);
      for (int64_t u = a.first; u < a.last; u++) {
        for (int64_t v = b.first; v < b.last; v++) {
          const float weight = weight_of(s->taps[0], u, at[0]) * weight_of(s->taps[1], v, at[1]);
          const int64_t row = u * s->y[1] + v;
          if (weight != 0)
            add_row(dy, from + (row * s->y[2] + origin) * dy->block, count * dy->block, weight,
                    sum);
        }
      }
      float *result = fn_target(dx, to + first * dx->block, out);
      WITH_BLOCK(gather(s, first, cells, origin, sum, block, result), dx->block);
      fn_store(dx, to + first * dx->block, cells * dx->block, result);
    }
  }
  return FN_OK;
}

/** The readers of one cell must fit in a chunk. */
static bool supports(const fn_node *node) {
  return ((const fn_resample_attrs *)node->attrs)->factor <= 64;
}

static fn_status prepare_resample(fn_kernel *kernel) {
  kernel->run = run_resample;
  return make_state(kernel, &kernel->input[0], &kernel->output[0]);
}

static fn_status prepare_resample_grad(fn_kernel *kernel) {
  kernel->run = run_resample_grad;
  return make_state(kernel, &kernel->output[0], &kernel->input[0]);
}

const fn_cpu_op fn_cpu_resample_ops[] = {
    {&fn_op_resample, supports, fn_cpu_plan_cells, prepare_resample},
    {&fn_op_resample_grad, supports, fn_cpu_plan_cells, prepare_resample_grad},
    {0},
};
