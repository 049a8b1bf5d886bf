/* Periodic padding and its adjoint. */
#include "backend/cpu/cells.h"

typedef struct wrap {
  int64_t inner[3], padded[3], low[3];
} wrap;

static wrap wrap_of(const fn_tensor *inner, const fn_tensor *padded, const int64_t *start) {
  wrap w = {0};
  fn_spatial_sizes(&inner->shape, w.inner);
  fn_spatial_sizes(&padded->shape, w.padded);
  const int spatial = inner->shape.ndim - 2;
  for (int d = 0; d < spatial; d++)
    w.low[3 - spatial + d] = start[2 + d];
  return w;
}

static int64_t wrapped(const wrap *w, int d, int64_t i) {
  const int64_t n = w->inner[d], j = (i - w->low[d]) % n;
  return j < 0 ? j + n : j;
}

/** First cell of the inner row under padded row `row`. */
static int64_t inner_row(const wrap *w, int64_t row) {
  return (wrapped(w, 0, row / w->padded[1]) * w->inner[1] + wrapped(w, 1, row % w->padded[1])) *
         w->inner[2];
}

static fn_status run_pad(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const wrap w = wrap_of(x, y, attrs->start);
  const int64_t block = y->block, rows = w.padded[0] * w.padded[1], items = fn_planes(y) * rows;
#pragma omp parallel for schedule(static) if (items > 1)
  for (int64_t i = 0; i < items; i++) {
    const int64_t from = fn_plane_at(x, i / rows) + inner_row(&w, i % rows) * block;
    const int64_t to = fn_plane_at(y, i / rows) + i % rows * w.padded[2] * block;
    for (int64_t c = 0; c < w.padded[2];) {
      // A piece goes to the end of the row, of the period, or of the scratch space.
      const int64_t source = wrapped(&w, 2, c);
      int64_t count = fn_min_of(w.padded[2] - c, w.inner[2] - source);
      count = fn_min_of(count, FN_CHUNK / block);
      float in[FN_CHUNK], out[FN_CHUNK];
      const float *v = fn_load(x, from + source * block, count * block, in);
      float *result = fn_target(y, to + c * block, out);
      memcpy(result, v, (size_t)(count * block) * sizeof *v);
      fn_store(y, to + c * block, count * block, result);
      c += count;
    }
  }
  return FN_OK;
}

static fn_status run_pad_grad(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *dy = &kernel->input[0];
  const fn_tensor dx = fn_cpu_scatter_begin(kernel, context);
  const wrap w = wrap_of(&dx, dy, attrs->start);
  const int64_t block = dx.block, rows = w.padded[0] * w.padded[1], planes = fn_planes(&dx);
#pragma omp parallel for schedule(static) if (planes > 1)
  for (int64_t plane = 0; plane < planes; plane++) {
    for (int64_t row = 0; row < rows; row++) {
      float *to = (float *)dx.data + fn_plane_at(&dx, plane) + inner_row(&w, row) * block;
      const int64_t from = fn_plane_at(dy, plane) + row * w.padded[2] * block;
      for (int64_t c = 0; c < w.padded[2]; c++) {
        float scratch[FN_LANES];
        const float *g = fn_load(dy, from + c * block, block, scratch);
        float *cell = to + wrapped(&w, 2, c) * block;
        for (int64_t l = 0; l < block; l++)
          cell[l] += g[l];
      }
    }
  }
  fn_cpu_scatter_end(kernel, &dx);
  return FN_OK;
}

static fn_status prepare_pad(fn_kernel *kernel) {
  kernel->run = run_pad;
  return FN_OK;
}

static fn_status prepare_pad_grad(fn_kernel *kernel) {
  kernel->run = run_pad_grad;
  return fn_cpu_scatter_prepare(kernel);
}

const fn_cpu_op fn_cpu_periodic_ops[] = {
    {&fn_op_pad_periodic, NULL, fn_cpu_plan_cells, prepare_pad},
    {&fn_op_pad_periodic_grad, NULL, fn_cpu_plan_cells, prepare_pad_grad},
    {0},
};
