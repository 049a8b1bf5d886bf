/* Pooling and its adjoints. */
#include "backend/gpu/strides.h"
#include "ops/geometry.h"
#include "ops/ops.h"

/** Indices along an axis, and of the cells of one window, are 32 bits wide in these kernels. */
static fn_status find_windows(const fn_shape *x, const fn_shape *y, const fn_pool_attrs *attrs,
                              fn_windows *w) {
  int64_t cells[3], windows[3], volume = 1;
  fn_spatial_sizes(x, cells);
  fn_spatial_sizes(y, windows);
  const int missing = 3 - (x->ndim - 2);
  for (int d = 0; d < 3; d++) {
    const int64_t kernel = d < missing ? 1 : attrs->kernel[d - missing];
    const int64_t pad = d < missing ? 0 : attrs->geometry.pad_low[d - missing];
    const int64_t stride = d < missing ? 1 : attrs->geometry.stride[d - missing];
    FN_CHECK(cells[d] + kernel + pad <= INT32_MAX && stride <= INT32_MAX, FN_ERR_UNSUPPORTED,
             "pooling of %lld cells along an axis, kernel %lld and stride %lld, on a GPU: expected "
             "less than 2^31",
             (long long)cells[d], (long long)kernel, (long long)stride);
    volume *= kernel < cells[d] ? kernel : cells[d];
    FN_CHECK(volume <= INT32_MAX, FN_ERR_UNSUPPORTED,
             "pooling over windows of %lld cells on a GPU: expected less than 2^31",
             (long long)volume);
    w->cells[d] = (int32_t)cells[d];
    w->windows[d] = (int32_t)windows[d];
    w->kernel[d] = (int32_t)kernel;
    w->stride[d] = (int32_t)stride;
    w->pad[d] = (int32_t)pad;
  }
  return FN_OK;
}

static float share_of(const fn_windows *w) {
  return 1 / ((float)w->kernel[0] * (float)w->kernel[1] * (float)w->kernel[2]);
}

typedef struct pool_state {
  fn_gpu_state base;
  fn_pool_args args;
} pool_state;

static fn_status run_pool(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const pool_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, pool, fn_gpu_blocks(s->args.loop.count, 1), &s->args);
}

/** Inputs: x, or values and x. */
static fn_status prepare_pool(fn_gpu_platform *platform, fn_kernel *kernel) {
  pool_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_tensor *values = &kernel->input[0], *y = &kernel->output[0];
  const fn_tensor *x = &kernel->input[kernel->node->op == &fn_op_max_pool_gather ? 1 : 0];
  const bool wide = fn_gpu_view_wide(x) && fn_gpu_view_wide(y);
  s->args = (fn_pool_args){.x = fn_gpu_view(x),
                           .values = fn_gpu_view(values),
                           .y = fn_gpu_view(y),
                           .average = kernel->node->op == &fn_op_average_pool,
                           .loop = fn_gpu_cell_loop(&y->shape, wide)};
  FN_TRY(find_windows(&x->shape, &y->shape, kernel->node->attrs, &s->args.windows));
  s->args.share = share_of(&s->args.windows);
  kernel->run = run_pool;
  return FN_OK;
}

typedef struct pool_grad_state {
  fn_gpu_state base;
  fn_pool_grad_args args;
} pool_grad_state;

static fn_status run_pool_grad(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const pool_grad_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, pool_grad, fn_gpu_blocks(s->args.loop.count, 1), &s->args);
}

/** Inputs: dy and, for the maximum, x. */
static fn_status prepare_pool_grad(fn_gpu_platform *platform, fn_kernel *kernel) {
  pool_grad_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const bool average = kernel->node->op == &fn_op_average_pool_grad;
  const fn_tensor *dy = &kernel->input[0], *dx = &kernel->output[0];
  const fn_tensor *x = average ? dx : &kernel->input[1];
  const bool wide = fn_gpu_view_wide(dy) && fn_gpu_view_wide(dx) && fn_gpu_view_wide(x);
  s->args = (fn_pool_grad_args){.dy = fn_gpu_view(dy),
                                .x = fn_gpu_view(x),
                                .dx = fn_gpu_view(dx),
                                .average = average,
                                .loop = fn_gpu_cell_loop(&dx->shape, wide)};
  FN_TRY(find_windows(&dx->shape, &dy->shape, kernel->node->attrs, &s->args.windows));
  s->args.share = share_of(&s->args.windows);
  kernel->run = run_pool_grad;
  return FN_OK;
}

const fn_gpu_op fn_gpu_pool_ops[] = {
    {&fn_op_average_pool, NULL, NULL, prepare_pool},
    {&fn_op_max_pool, NULL, NULL, prepare_pool},
    {&fn_op_max_pool_gather, NULL, NULL, prepare_pool},
    {&fn_op_average_pool_grad, NULL, NULL, prepare_pool_grad},
    {&fn_op_max_pool_grad, NULL, NULL, prepare_pool_grad},
    {0},
};
