/* Average and maximum pooling in either layout, and what their derivatives need. All but the
 * adjoint of the maximum's gradient go row by row: one pass over a row of cells per cell of the
 * kernel, with the layout's block known to the compiler. */
#include <math.h>

#include "backend/cpu/cells.h"

typedef struct windows {
  int64_t x[3], y[3], kernel[3], stride[3], pad[3];
  int64_t x_cells, y_cells;
} windows;

static windows windows_of(const fn_tensor *x, const fn_tensor *y, const fn_pool_attrs *attrs) {
  windows w;
  fn_spatial_sizes(&x->shape, w.x);
  fn_spatial_sizes(&y->shape, w.y);
  const int missing = 3 - (x->shape.ndim - 2);
  for (int d = 0; d < 3; d++) {
    w.kernel[d] = d < missing ? 1 : attrs->kernel[d - missing];
    w.stride[d] = d < missing ? 1 : attrs->geometry.stride[d - missing];
    w.pad[d] = d < missing ? 0 : attrs->geometry.pad_low[d - missing];
  }
  w.x_cells = w.x[0] * w.x[1] * w.x[2];
  w.y_cells = w.y[0] * w.y[1] * w.y[2];
  return w;
}

static float kernel_share(const windows *w) {
  return 1.0f / (float)(w->kernel[0] * w->kernel[1] * w->kernel[2]);
}

/* ---- rows
 * --------------------------------------------------------------------------------------- */

/** `cells` cells, `stride` apart in x and side by side in y, for one cell of the kernel. */
typedef struct row_job {
  const void *x; /**< first element; f32 or bf16 */
  bool half;
  int64_t cells, stride;
  float *y;       /**< sums, maxima */
  int32_t *where; /**< kernel cell of the maximum; NULL: not wanted */
  int32_t tap;
} row_job;

#define INLINE static inline __attribute__((always_inline))

INLINE float element(const void *x, bool half, int64_t i) {
  return half ? fn_bf16_to_f32(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

INLINE void add_cells(const row_job *job, bool half, int64_t stride, int64_t block) {
  float *restrict y = job->y;
  const void *x = job->x;
  const int64_t cells = job->cells;
  if (block == 1) {
#pragma omp simd
    for (int64_t i = 0; i < cells; i++)
      y[i] += element(x, half, i * stride);
    return;
  }
  for (int64_t i = 0; i < cells; i++) {
#pragma omp simd
    for (int64_t l = 0; l < block; l++)
      y[i * block + l] += element(x, half, i * stride * block + l);
  }
}

/** A NaN beats all numbers and stays; of equal values the first does. */
INLINE bool beats(float v, float best) {
  return (v > best) | ((v != v) & (best == best));
}

INLINE void max_cells(const row_job *job, bool half, int64_t stride, int64_t block) {
  float *restrict y = job->y;
  const void *x = job->x;
  const int64_t count = job->cells * block;
  if (block == 1) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
      const float v = element(x, half, i * stride);
      y[i] = beats(v, y[i]) ? v : y[i];
    }
    return;
  }
  for (int64_t i = 0; i < job->cells; i++) {
#pragma omp simd
    for (int64_t l = 0; l < block; l++) {
      const float v = element(x, half, i * stride * block + l);
      y[i * block + l] = beats(v, y[i * block + l]) ? v : y[i * block + l];
    }
  }
}

/** The same, and where it was. */
INLINE void find_cells(const row_job *job, bool half, int64_t stride, int64_t block) {
  float *restrict y = job->y;
  int32_t *restrict where = job->where;
  const int32_t tap = job->tap;
  const void *x = job->x;
  for (int64_t i = 0; i < job->cells; i++) {
#pragma omp simd
    for (int64_t l = 0; l < block; l++) {
      const float v = element(x, half, i * stride * block + l), best = y[i * block + l];
      const bool better = beats(v, best);
      y[i * block + l] = better ? v : best;
      where[i * block + l] = better ? tap : where[i * block + l];
    }
  }
}

/** One copy per type, block and common stride. */
#define SPECIALISE(body, job, block)                                                               \
  do {                                                                                             \
    const int64_t s_ = (job)->stride;                                                              \
    if ((job)->half) {                                                                             \
      if ((block) == 16)                                                                           \
        body(job, true, s_, 16);                                                                   \
      else if ((block) == 8)                                                                       \
        body(job, true, s_, 8);                                                                    \
      else                                                                                         \
        body(job, true, s_, 1);                                                                    \
    } else if ((block) == 16) {                                                                    \
      body(job, false, s_, 16);                                                                    \
    } else if ((block) == 8) {                                                                     \
      body(job, false, s_, 8);                                                                     \
    } else if (s_ == 2) {                                                                          \
      body(job, false, 2, 1);                                                                      \
    } else {                                                                                       \
      body(job, false, s_, 1);                                                                     \
    }                                                                                              \
  } while (0)

static void add_row(const row_job *job, int64_t block) {
  SPECIALISE(add_cells, job, block);
}
static void max_row(const row_job *job, int64_t block) {
  SPECIALISE(max_cells, job, block);
}
static void find_row(const row_job *job, int64_t block) {
  SPECIALISE(find_cells, job, block);
}

/** Part of a row of y: cells [from, to) of row (at[0], at[1]) of a plane. */
typedef struct span {
  int64_t plane, at[2], from, to;
} span;

/** Spans of all rows of `size` [3], at most FN_CHUNK elements each. */
typedef struct spans {
  const int64_t *size;
  int64_t most, pieces, items;
} spans;

static spans spans_of(const fn_tensor *t, const int64_t *size) {
  spans s = {.size = size, .most = FN_CHUNK / t->block};
  s.pieces = fn_ceil_div(size[2], s.most);
  s.items = fn_planes(t) * size[0] * size[1] * s.pieces;
  return s;
}

static span span_at(const spans *s, int64_t item) {
  const int64_t piece = item % s->pieces, row = item / s->pieces;
  const int64_t rows = s->size[0] * s->size[1];
  span p = {.plane = row / rows, .from = piece * s->most};
  p.at[0] = row % rows / s->size[1];
  p.at[1] = row % s->size[1];
  p.to = fn_min_of(p.from + s->most, s->size[2]);
  return p;
}

static int64_t ceil_div_signed(int64_t a, int64_t b) {
  return a > 0 ? (a + b - 1) / b : -(-a / b);
}

/** Combine the windows of one span of y into `result` [cells * block]. */
static void pool_span(const windows *w, const fn_tensor *x, const span *p, bool maximum,
                      float *result, int32_t *where) {
  const int64_t block = x->block, plane = fn_plane_at(x, p->plane);
  const int64_t count = (p->to - p->from) * block;
  for (int64_t i = 0; i < count; i++)
    result[i] = maximum ? -INFINITY : 0;
  for (int64_t i = 0; where && i < count; i++)
    where[i] = -1;
  for (int64_t ta = 0; ta < w->kernel[0]; ta++) {
    const int64_t a = p->at[0] * w->stride[0] - w->pad[0] + ta;
    if (a < 0 || a >= w->x[0]) continue;
    for (int64_t tb = 0; tb < w->kernel[1]; tb++) {
      const int64_t b = p->at[1] * w->stride[1] - w->pad[1] + tb;
      if (b < 0 || b >= w->x[1]) continue;
      for (int64_t tc = 0; tc < w->kernel[2]; tc++) {
        const int64_t shift = tc - w->pad[2], stride = w->stride[2];
        int64_t first = ceil_div_signed(-shift, stride), last = p->to;
        if (first < p->from) first = p->from;
        const int64_t end = ceil_div_signed(w->x[2] - shift, stride); // first cell past x
        last = fn_min_of(last, end);
        if (first >= last) continue;
        const int64_t cell = (a * w->x[1] + b) * w->x[2] + first * stride + shift;
        const int64_t at = (first - p->from) * block;
        const row_job job = {.x = (const char *)x->data +
                                  (size_t)(plane + cell * block) * fn_dtype_size(x->dtype),
                             .half = x->dtype == FN_BF16,
                             .cells = last - first,
                             .stride = stride,
                             .y = result + at,
                             .where = where ? where + at : NULL,
                             .tap = (int32_t)((ta * w->kernel[1] + tb) * w->kernel[2] + tc)};
        if (where)
          find_row(&job, block);
        else if (maximum)
          max_row(&job, block);
        else
          add_row(&job, block);
      }
    }
  }
}

static fn_status run_pool(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const windows w = windows_of(x, y, kernel->node->attrs);
  const spans all = spans_of(y, w.y);
  const bool maximum = kernel->node->op == &fn_op_max_pool;
  const float share = kernel_share(&w);
#pragma omp parallel for schedule(static) if (all.items > 1)
  for (int64_t i = 0; i < all.items; i++) {
    const span p = span_at(&all, i);
    const int64_t cell = (p.at[0] * w.y[1] + p.at[1]) * w.y[2] + p.from;
    const int64_t to = fn_plane_at(y, p.plane) + cell * y->block;
    const int64_t count = (p.to - p.from) * y->block;
    float out[FN_CHUNK], *result = fn_target(y, to, out);
    pool_span(&w, x, &p, maximum, result, NULL);
    for (int64_t e = 0; !maximum && e < count; e++)
      result[e] *= share;
    fn_store(y, to, count, result);
  }
  return FN_OK;
}

/* ---- gradients
 * ---------------------------------------------------------------------------------- */

/** `cells` cells side by side in dy, `stride` apart in dx. */
typedef struct spread_job {
  const void *dy;
  bool half;
  const int32_t *where; /**< kernel cell of the maximum, as dy lies; NULL: all of them take part */
  int32_t tap;
  float *dx;
  int64_t cells, stride;
} spread_job;

INLINE void spread_cells(const spread_job *job, bool half, int64_t stride, int64_t block) {
  const int32_t *where = job->where;
  const int32_t tap = job->tap;
  float *restrict dx = job->dx;
  for (int64_t i = 0; i < job->cells; i++) {
#pragma omp simd
    for (int64_t l = 0; l < block; l++) {
      const float g = element(job->dy, half, i * block + l);
      dx[i * stride * block + l] += !where || where[i * block + l] == tap ? g : 0;
    }
  }
}

static void spread_row(const spread_job *job, int64_t block) {
  SPECIALISE(spread_cells, job, block);
}

/** Gradient of one span of a row of x: from the windows that cover it. where [planes][y
 * cells][block] or NULL. */
static void spread_span(const windows *w, const fn_tensor *dy, const int32_t *where, const span *p,
                        float *dx) {
  const int64_t block = dy->block, plane = fn_plane_at(dy, p->plane);
  for (int64_t i = 0; i < (p->to - p->from) * block; i++)
    dx[i] = 0;
  for (int64_t ta = 0; ta < w->kernel[0]; ta++) {
    const int64_t a = p->at[0] + w->pad[0] - ta;
    if (a < 0 || a % w->stride[0] != 0 || a / w->stride[0] >= w->y[0]) continue;
    for (int64_t tb = 0; tb < w->kernel[1]; tb++) {
      const int64_t b = p->at[1] + w->pad[1] - tb;
      if (b < 0 || b % w->stride[1] != 0 || b / w->stride[1] >= w->y[1]) continue;
      const int64_t row = (a / w->stride[0] * w->y[1] + b / w->stride[1]) * w->y[2];
      for (int64_t tc = 0; tc < w->kernel[2]; tc++) {
        const int64_t shift = tc - w->pad[2], stride = w->stride[2];
        int64_t first = ceil_div_signed(p->from - shift, stride);
        if (first < 0) first = 0;
        const int64_t last = fn_min_of(ceil_div_signed(p->to - shift, stride), w->y[2]);
        if (first >= last) continue;
        const int64_t from = (row + first) * block;
        const spread_job job = {
            .dy = (const char *)dy->data + (size_t)(plane + from) * fn_dtype_size(dy->dtype),
            .half = dy->dtype == FN_BF16,
            .where = where ? where + p->plane * w->y_cells * block + from : NULL,
            .tap = (int32_t)((ta * w->kernel[1] + tb) * w->kernel[2] + tc),
            .dx = dx + (first * stride + shift - p->from) * block,
            .cells = last - first,
            .stride = stride};
        spread_row(&job, block);
      }
    }
  }
}

static void spread(const windows *w, const fn_tensor *dy, const int32_t *where, float share,
                   const fn_tensor *dx) {
  const spans all = spans_of(dx, w->x);
#pragma omp parallel for schedule(static) if (all.items > 1)
  for (int64_t i = 0; i < all.items; i++) {
    const span p = span_at(&all, i);
    const int64_t cell = (p.at[0] * w->x[1] + p.at[1]) * w->x[2] + p.from;
    const int64_t to = fn_plane_at(dx, p.plane) + cell * dx->block;
    const int64_t count = (p.to - p.from) * dx->block;
    float out[FN_CHUNK], *result = fn_target(dx, to, out);
    spread_span(w, dy, where, &p, result);
    for (int64_t e = 0; share != 1 && e < count; e++)
      result[e] *= share;
    fn_store(dx, to, count, result);
  }
}

static fn_status run_average_grad(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *dy = &kernel->input[0], *dx = &kernel->output[0];
  const windows w = windows_of(dx, dy, kernel->node->attrs);
  spread(&w, dy, NULL, kernel_share(&w), dx);
  return FN_OK;
}

/** Where the maxima are, then their gradients there. */
static fn_status run_max_grad(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_tensor *dy = &kernel->input[0], *x = &kernel->input[1], *dx = &kernel->output[0];
  const windows w = windows_of(x, dy, kernel->node->attrs);
  const spans all = spans_of(dy, w.y);
  int32_t *where = context->workspace;
#pragma omp parallel for schedule(static) if (all.items > 1)
  for (int64_t i = 0; i < all.items; i++) {
    const span p = span_at(&all, i);
    const int64_t cell = (p.at[0] * w.y[1] + p.at[1]) * w.y[2] + p.from;
    float best[FN_CHUNK];
    pool_span(&w, x, &p, true, best, where + (p.plane * w.y_cells + cell) * dy->block);
  }
  spread(&w, dy, where, 1, dx);
  return FN_OK;
}

/* ---- values at the places of maxima, for second derivatives
 * ------------------------------------- */

/** Cells [first, last) of x under window `index`, padding left out. */
static void bounds(const windows *w, int64_t index, int64_t first[3], int64_t last[3]) {
  const int64_t at[3] = {index / (w->y[1] * w->y[2]), index / w->y[2] % w->y[1], index % w->y[2]};
  for (int d = 0; d < 3; d++) {
    first[d] = at[d] * w->stride[d] - w->pad[d];
    last[d] = fn_min_of(first[d] + w->kernel[d], w->x[d]);
    if (first[d] < 0) first[d] = 0;
  }
}

/** Visit the cells of x under a window. */
#define FOR_WINDOW(w, first, last, cell)                                                           \
  for (int64_t a_ = (first)[0]; a_ < (last)[0]; a_++)                                              \
    for (int64_t b_ = (first)[1]; b_ < (last)[1]; b_++)                                            \
      for (int64_t cell = (a_ * (w)->x[1] + b_) * (w)->x[2] + (first)[2],                          \
                   end_ = cell + (last)[2] - (first)[2];                                           \
           cell < end_; cell++)

/** Per channel of a plane, the cell with the largest value under a window: the first in C order, or
 *  the first NaN. from: offset of the plane. */
static void find_maxima(const windows *w, const fn_tensor *x, int64_t from, int64_t index,
                        float *best, int64_t *where) {
  const int64_t block = x->block;
  int64_t first[3], last[3];
  bounds(w, index, first, last);
  bool started = false;
  FOR_WINDOW(w, first, last, cell) {
    float scratch[FN_LANES];
    const float *v = fn_load(x, from + cell * block, block, scratch);
    for (int64_t l = 0; l < block; l++) {
      const bool better = !started || v[l] > best[l] || (v[l] != v[l] && best[l] == best[l]);
      best[l] = better ? v[l] : best[l];
      where[l] = better ? cell : where[l];
    }
    started = true;
  }
}

/** y = values where x has its maxima. */
static void gather(const windows *w, const fn_tensor *values, const fn_tensor *x,
                   const fn_tensor *y) {
  const int64_t block = y->block, items = fn_planes(y) * w->y_cells;
#pragma omp parallel for schedule(static) if (items > 1)
  for (int64_t i = 0; i < items; i++) {
    const int64_t plane = i / w->y_cells, index = i % w->y_cells;
    const int64_t to = fn_plane_at(y, plane) + index * block;
    float best[FN_LANES] = {0}, out[FN_LANES];
    int64_t where[FN_LANES] = {0};
    find_maxima(w, x, fn_plane_at(x, plane), index, best, where);
    float *result = fn_target(y, to, out);
    for (int64_t l = 0; l < block; l++) {
      const int64_t at = fn_plane_at(values, plane) + where[l] * block + l;
      result[l] = (float)fn_scalar(values, at);
    }
    fn_store(y, to, block, result);
  }
}

static fn_status run_max_gather(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *v = &kernel->input[0], *x = &kernel->input[1], *y = &kernel->output[0];
  const windows w = windows_of(x, y, kernel->node->attrs);
  gather(&w, v, x, y);
  return FN_OK;
}

static fn_status prepare(fn_kernel *kernel) {
  const fn_op *op = kernel->node->op;
  kernel->run = op == &fn_op_average_pool_grad ? run_average_grad
                : op == &fn_op_max_pool_grad   ? run_max_grad
                : op == &fn_op_max_pool_gather ? run_max_gather
                                               : run_pool;
  if (op != &fn_op_max_pool_grad) return FN_OK;
  const fn_tensor *dy = &kernel->input[0];
  const int64_t count = fn_planes(dy) * fn_space(&dy->shape) * dy->block;
  fn_cpu_carve(kernel, (size_t)count * sizeof(int32_t));
  return FN_OK;
}

const fn_cpu_op fn_cpu_pool_ops[] = {
    {&fn_op_average_pool, NULL, fn_cpu_plan_cells, prepare},
    {&fn_op_average_pool_grad, NULL, fn_cpu_plan_cells, prepare},
    {&fn_op_max_pool, NULL, fn_cpu_plan_cells, prepare},
    {&fn_op_max_pool_grad, NULL, fn_cpu_plan_cells, prepare},
    {&fn_op_max_pool_gather, NULL, fn_cpu_plan_cells, prepare},
    {0},
};

/* ---- shared by operators on cells
 * ---------------------------------------------------------------- */

void fn_cpu_plan_cells(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  fn_cpu_plan_block(node, fn_cpu_common_block(node, current), plan);
}

fn_status fn_cpu_scatter_prepare(fn_kernel *kernel) {
  fn_scatter *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  const fn_tensor *t = &kernel->output[0];
  if (t->dtype != FN_F32) {
    const int64_t count = fn_batch(&t->shape) * fn_tensor_sample_count(&t->shape, t->block);
    s->copy_at = fn_cpu_carve(kernel, (size_t)count * sizeof(float));
  }
  return FN_OK;
}

fn_tensor fn_cpu_scatter_begin(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_scatter *s = kernel->state;
  fn_tensor sums = kernel->output[0];
  if (sums.dtype != FN_F32) {
    sums.dtype = FN_F32;
    sums.data = (char *)context->workspace + s->copy_at;
    sums.batch_stride = fn_tensor_sample_count(&sums.shape, sums.block);
  }
  fn_cpu_zero(&sums);
  return sums;
}

void fn_cpu_scatter_end(const fn_kernel *kernel, const fn_tensor *sums) {
  if (kernel->output[0].dtype != FN_F32) fn_cpu_copy(&kernel->output[0], sums);
}
