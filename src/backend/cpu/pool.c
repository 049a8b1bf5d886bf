/* Average and maximum pooling in either layout, and what their derivatives need. */
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

static float kernel_share(const windows *w) {
  return 1.0f / (float)(w->kernel[0] * w->kernel[1] * w->kernel[2]);
}

static fn_status run_average(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const windows w = windows_of(x, y, kernel->node->attrs);
  const int64_t block = y->block, items = fn_planes(y) * w.y_cells;
  const float share = kernel_share(&w);
#pragma omp parallel for schedule(static) if (items > 1)
  for (int64_t i = 0; i < items; i++) {
    const int64_t plane = i / w.y_cells, index = i % w.y_cells;
    const int64_t from = fn_plane_at(x, plane), to = fn_plane_at(y, plane) + index * block;
    float scratch[FN_LANES], out[FN_LANES], sum[FN_LANES] = {0};
    int64_t first[3], last[3];
    bounds(&w, index, first, last);
    FOR_WINDOW(&w, first, last, cell) {
      const float *v = fn_load(x, from + cell * block, block, scratch);
      for (int64_t l = 0; l < block; l++)
        sum[l] += v[l];
    }
    float *result = fn_target(y, to, out);
    for (int64_t l = 0; l < block; l++)
      result[l] = sum[l] * share;
    fn_store(y, to, block, result);
  }
  return FN_OK;
}

static fn_status run_average_grad(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_tensor *dy = &kernel->input[0];
  const fn_tensor dx = fn_cpu_scatter_begin(kernel, context);
  const windows w = windows_of(&dx, dy, kernel->node->attrs);
  const int64_t block = dx.block, planes = fn_planes(&dx);
  const float share = kernel_share(&w);
#pragma omp parallel for schedule(static) if (planes > 1)
  for (int64_t plane = 0; plane < planes; plane++) {
    float *to = (float *)dx.data + fn_plane_at(&dx, plane);
    const int64_t from = fn_plane_at(dy, plane);
    for (int64_t index = 0; index < w.y_cells; index++) {
      float scratch[FN_LANES];
      const float *g = fn_load(dy, from + index * block, block, scratch);
      int64_t first[3], last[3];
      bounds(&w, index, first, last);
      FOR_WINDOW(&w, first, last, cell) {
        for (int64_t l = 0; l < block; l++)
          to[cell * block + l] += share * g[l];
      }
    }
  }
  fn_cpu_scatter_end(kernel, &dx);
  return FN_OK;
}

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

/** y = values where x has its maxima; values may be x. */
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
      result[l] = values == x ? best[l] : (float)fn_scalar(values, at);
    }
    fn_store(y, to, block, result);
  }
}

static fn_status run_max(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const windows w = windows_of(x, y, kernel->node->attrs);
  gather(&w, x, x, y);
  return FN_OK;
}

static fn_status run_max_gather(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *v = &kernel->input[0], *x = &kernel->input[1], *y = &kernel->output[0];
  const windows w = windows_of(x, y, kernel->node->attrs);
  gather(&w, v, x, y);
  return FN_OK;
}

static fn_status run_max_grad(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_tensor *dy = &kernel->input[0], *x = &kernel->input[1];
  const fn_tensor dx = fn_cpu_scatter_begin(kernel, context);
  const windows w = windows_of(x, dy, kernel->node->attrs);
  const int64_t block = dx.block, planes = fn_planes(&dx);
#pragma omp parallel for schedule(static) if (planes > 1)
  for (int64_t plane = 0; plane < planes; plane++) {
    float *to = (float *)dx.data + fn_plane_at(&dx, plane);
    for (int64_t index = 0; index < w.y_cells; index++) {
      float best[FN_LANES] = {0}, scratch[FN_LANES];
      int64_t where[FN_LANES] = {0};
      find_maxima(&w, x, fn_plane_at(x, plane), index, best, where);
      const float *g = fn_load(dy, fn_plane_at(dy, plane) + index * block, block, scratch);
      for (int64_t l = 0; l < block; l++)
        to[where[l] * block + l] += g[l];
    }
  }
  fn_cpu_scatter_end(kernel, &dx);
  return FN_OK;
}

static fn_status prepare(fn_kernel *kernel) {
  const fn_op *op = kernel->node->op;
  kernel->run = op == &fn_op_average_pool ? run_average
                : op == &fn_op_max_pool   ? run_max
                                          : run_max_gather;
  return FN_OK;
}

static fn_status prepare_grad(fn_kernel *kernel) {
  kernel->run = kernel->node->op == &fn_op_average_pool_grad ? run_average_grad : run_max_grad;
  return fn_cpu_scatter_prepare(kernel);
}

const fn_cpu_op fn_cpu_pool_ops[] = {
    {&fn_op_average_pool, NULL, fn_cpu_plan_cells, prepare},
    {&fn_op_average_pool_grad, NULL, fn_cpu_plan_cells, prepare_grad},
    {&fn_op_max_pool, NULL, fn_cpu_plan_cells, prepare},
    {&fn_op_max_pool_grad, NULL, fn_cpu_plan_cells, prepare_grad},
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
  fn_cpu_scatter_reserve(kernel);
  return FN_OK;
}

void fn_cpu_scatter_reserve(fn_kernel *kernel) {
  fn_scatter *s = kernel->state;
  const fn_tensor *t = &kernel->output[0];
  if (t->dtype != FN_F32) {
    const int64_t count = fn_batch(&t->shape) * fn_tensor_sample_count(&t->shape, t->block);
    s->copy_at = fn_cpu_carve(kernel, (size_t)count * sizeof(float));
  }
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
