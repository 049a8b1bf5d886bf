/* Linear interpolation along every spatial axis, and its adjoint. */
#include "backend/cpu/cells.h"

/** What one output cell takes along one axis: (1 - part) x[low] + part x[high]. */
typedef struct tap {
  int64_t low, high;
  float part;
} tap;

/** Starts with fn_scatter, which is unused by the interpolation itself. */
typedef struct resample_state {
  fn_scatter scatter;
  int64_t x[3], y[3];
  tap *taps[3];
  tap memory[];
} resample_state;

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

static fn_status make_state(fn_kernel *kernel, const fn_tensor *x, const fn_tensor *y) {
  const fn_resample_attrs *attrs = kernel->node->attrs;
  int64_t from[3], to[3];
  fn_spatial_sizes(&x->shape, from);
  fn_spatial_sizes(&y->shape, to);
  resample_state *s = NULL;
  const size_t taps = (size_t)(to[0] + to[1] + to[2]);
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s + taps * sizeof(tap), (void **)&s));
  s->taps[0] = s->memory;
  s->taps[1] = s->taps[0] + to[0];
  s->taps[2] = s->taps[1] + to[1];
  for (int d = 0; d < 3; d++) {
    s->x[d] = from[d];
    s->y[d] = to[d];
    if (d < 3 - (x->shape.ndim - 2))
      s->taps[d][0] = (tap){0};
    else
      make_taps(attrs, from[d], to[d], s->taps[d]);
  }
  return FN_OK;
}

/** Cells of x and their weights for output cell `index`; returns how many have weight. */
static int corners(const resample_state *s, int64_t index, int64_t cell[8], float weight[8]) {
  const tap *t[3] = {&s->taps[0][index / (s->y[1] * s->y[2])],
                     &s->taps[1][index / s->y[2] % s->y[1]], &s->taps[2][index % s->y[2]]};
  int count = 0;
  for (int corner = 0; corner < 8; corner++) {
    cell[count] = 0;
    weight[count] = 1;
    for (int d = 0; d < 3; d++) {
      const bool high = corner >> d & 1;
      cell[count] = cell[count] * s->x[d] + (high ? t[d]->high : t[d]->low);
      weight[count] *= high ? t[d]->part : 1 - t[d]->part;
    }
    if (weight[count] != 0) count++;
  }
  return count;
}

static fn_status run_resample(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const resample_state *s = kernel->state;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const int64_t block = y->block, cells = s->y[0] * s->y[1] * s->y[2];
  const int64_t items = fn_planes(y) * cells;
#pragma omp parallel for schedule(static) if (items > 1)
  for (int64_t i = 0; i < items; i++) {
    const int64_t from = fn_plane_at(x, i / cells);
    const int64_t to = fn_plane_at(y, i / cells) + i % cells * block;
    float scratch[FN_LANES], out[FN_LANES], sum[FN_LANES] = {0}, weight[9];
    int64_t cell[9];
    const int count = corners(s, i % cells, cell, weight);
    for (int c = 0; c < count; c++) {
      const float *v = fn_load(x, from + cell[c] * block, block, scratch);
      for (int64_t l = 0; l < block; l++)
        sum[l] += weight[c] * v[l];
    }
    float *result = fn_target(y, to, out);
    for (int64_t l = 0; l < block; l++)
      result[l] = sum[l];
    fn_store(y, to, block, result);
  }
  return FN_OK;
}

static fn_status run_resample_grad(const fn_kernel *kernel, const fn_run_context *context) {
  const resample_state *s = kernel->state;
  const fn_tensor *dy = &kernel->input[0];
  const fn_tensor dx = fn_cpu_scatter_begin(kernel, context);
  const int64_t block = dx.block, cells = s->y[0] * s->y[1] * s->y[2], planes = fn_planes(&dx);
#pragma omp parallel for schedule(static) if (planes > 1)
  for (int64_t plane = 0; plane < planes; plane++) {
    float *to = (float *)dx.data + fn_plane_at(&dx, plane);
    for (int64_t index = 0; index < cells; index++) {
      float scratch[FN_LANES], weight[9];
      int64_t cell[9];
      const float *g = fn_load(dy, fn_plane_at(dy, plane) + index * block, block, scratch);
      const int count = corners(s, index, cell, weight);
      for (int c = 0; c < count; c++) {
        for (int64_t l = 0; l < block; l++)
          to[cell[c] * block + l] += weight[c] * g[l];
      }
    }
  }
  fn_cpu_scatter_end(kernel, &dx);
  return FN_OK;
}

static fn_status prepare_resample(fn_kernel *kernel) {
  kernel->run = run_resample;
  return make_state(kernel, &kernel->input[0], &kernel->output[0]);
}

static fn_status prepare_resample_grad(fn_kernel *kernel) {
  FN_TRY(make_state(kernel, &kernel->output[0], &kernel->input[0]));
  kernel->run = run_resample_grad;
  fn_cpu_scatter_reserve(kernel);
  return FN_OK;
}

const fn_cpu_op fn_cpu_resample_ops[] = {
    {&fn_op_resample, NULL, fn_cpu_plan_cells, prepare_resample},
    {&fn_op_resample_grad, NULL, fn_cpu_plan_cells, prepare_resample_grad},
    {0},
};
