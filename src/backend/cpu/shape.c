/* Reshape and permutation (plain layout), and copies between layouts and types. */
#include "backend/cpu/cells.h"
#include "backend/cpu/grid.h"

void fn_cpu_copy(const fn_tensor *to, const fn_tensor *from) {
  const fn_runs runs = fn_runs_of((const fn_tensor *const[]){to, from}, 2);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    float in[FN_CHUNK], out[FN_CHUNK];
    const fn_item it = fn_run_at(&runs, i);
    const float *values = fn_load(from, fn_offset(from, &it), it.count, in);
    float *result = fn_target(to, fn_offset(to, &it), out);
    if (result != values) memmove(result, values, (size_t)it.count * sizeof *values);
    fn_store(to, fn_offset(to, &it), it.count, result);
  }
}

/* ---- reshape, permute
 * ---------------------------------------------------------------------------- */

static fn_status run_reshape(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  // The plan asked for dense tensors: both are one run of elements.
  fn_tensor from = kernel->input[0];
  from.shape = kernel->output[0].shape;
  from.batch_stride = kernel->output[0].batch_stride;
  fn_cpu_copy(&kernel->output[0], &from);
  return FN_OK;
}

static fn_status prepare_reshape(fn_kernel *kernel) {
  kernel->run = run_reshape;
  return FN_OK;
}

static void plan_dense(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
  plan->strided_in[0] = plan->strided_out[0] = false;
}

static fn_status run_permute(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_permute_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  fn_grid g = {.ndim = y->shape.ndim, .tensors = 2};
  for (int a = 0; a < g.ndim; a++) {
    g.dim[a] = y->shape.dim[a];
    g.stride[0][a] = fn_cpu_axis_stride(y, a);
    g.stride[1][a] = fn_cpu_axis_stride(x, attrs->order[a]);
  }
  if (g.ndim == 0) g.dim[g.ndim++] = 1;
  fn_cpu_grid_finish(&g);
#pragma omp parallel for schedule(static) if (g.items > 1)
  for (int64_t i = 0; i < g.items; i++) {
    float in[FN_CHUNK], out[FN_CHUNK];
    int64_t at[FN_GRID_TENSORS];
    const int64_t count = fn_cpu_grid_at(&g, i, at);
    const float *values = fn_cpu_load_strided(x, at[1], g.stride[1][g.ndim - 1], count, in);
    float *result = fn_target(y, at[0], out);
    memcpy(result, values, (size_t)count * sizeof *values);
    fn_store(y, at[0], count, result);
  }
  return FN_OK;
}

static fn_status prepare_permute(fn_kernel *kernel) {
  kernel->run = run_permute;
  return FN_OK;
}

static void plan_permute(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
}

const fn_cpu_op fn_cpu_shape_ops[] = {
    {&fn_op_reshape, NULL, plan_dense, prepare_reshape},
    {&fn_op_permute, NULL, plan_permute, prepare_permute},
    {0},
};

/* ---- reorder
 * ------------------------------------------------------------------------------------- */

enum { CELLS = 128 };

/** Cells [first, first + count) of channel block k of sample n, between plain and blocked. */
static void transpose(const fn_tensor *plain, const fn_tensor *blocked, bool to_blocked, int64_t n,
                      int64_t k, int64_t first, int64_t count) {
  float row[CELLS], tile[CELLS * FN_LANES];
  const int64_t block = blocked->block, cells = fn_space(&plain->shape);
  const int64_t used = fn_min_of(block, fn_channels(&plain->shape) - k * block);
  const int64_t plain_at = n * plain->batch_stride + k * block * cells + first;
  const int64_t blocked_at = n * blocked->batch_stride + (k * cells + first) * block;
  if (to_blocked) {
    float *to = fn_target(blocked, blocked_at, tile);
    if (used < block) memset(to, 0, (size_t)(count * block) * sizeof *to);
    for (int64_t l = 0; l < used; l++) {
      const float *from = fn_load(plain, plain_at + l * cells, count, row);
      for (int64_t s = 0; s < count; s++)
        to[s * block + l] = from[s];
    }
    fn_store(blocked, blocked_at, count * block, to);
  } else {
    const float *from = fn_load(blocked, blocked_at, count * block, tile);
    for (int64_t l = 0; l < used; l++) {
      float *to = fn_target(plain, plain_at + l * cells, row);
      for (int64_t s = 0; s < count; s++)
        to[s] = from[s * block + l];
      fn_store(plain, plain_at + l * cells, count, to);
    }
  }
}

static fn_status run_reorder(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *from = &kernel->input[0], *to = &kernel->output[0];
  if (from->block == to->block) {
    fn_cpu_copy(to, from);
    return FN_OK;
  }
  const bool to_blocked = to->block > 1;
  const fn_tensor *blocked = to_blocked ? to : from, *plain = to_blocked ? from : to;
  const int64_t batch = fn_batch(&to->shape), cells = fn_space(&to->shape);
  const int64_t blocks = fn_ceil_div(fn_channels(&to->shape), blocked->block);
  const int64_t pieces = fn_ceil_div(cells, CELLS);
#pragma omp parallel for schedule(static) if (batch * blocks * pieces > 1)
  for (int64_t i = 0; i < batch * blocks * pieces; i++) {
    const int64_t first = i % pieces * CELLS, row = i / pieces;
    transpose(plain, blocked, to_blocked, row / blocks, row % blocks, first,
              fn_min_of(CELLS, cells - first));
  }
  return FN_OK;
}

fn_status fn_cpu_prepare_reorder(const fn_backend *backend, fn_kernel *kernel) {
  const int64_t from = kernel->input[0].block, to = kernel->output[0].block;
  FN_CHECK(from == to || from == 1 || to == 1, FN_ERR_INTERNAL,
           "no reorder from blocks of %lld to blocks of %lld channels", (long long)from,
           (long long)to);
  FN_CHECK(from <= FN_LANES && to <= FN_LANES, FN_ERR_INTERNAL,
           "blocks have at most %d channels, found %lld and %lld", FN_LANES, (long long)from,
           (long long)to);
  kernel->backend = backend->name;
  kernel->workspace = 0;
  kernel->state = NULL;
  kernel->destroy = NULL;
  kernel->run = run_reorder;
  return FN_OK;
}
