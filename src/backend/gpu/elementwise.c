/* Operators that map elements. */
#include "backend/gpu/kernels.h"
#include "ops/ops.h"

typedef struct fill_state {
  fn_gpu_state base;
  fn_fill_args args;
} fill_state;

static fn_status run_fill(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  fill_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, fill, fn_gpu_blocks(s->args.count, 4), &s->args);
}

static void plan_fill(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)node;
  (void)current;
  plan->strided_out[0] = false;
}

static fn_status prepare_fill(fn_gpu_platform *platform, fn_kernel *kernel) {
  fill_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_fill_attrs *attrs = kernel->node->attrs;
  const fn_tensor *y = &kernel->output[0];
  s->args = (fn_fill_args){.y = y->data,
                           .dtype = (int)y->dtype,
                           .value = (float)attrs->constant,
                           .count = fn_shape_count(&y->shape)};
  kernel->run = run_fill;
  return FN_OK;
}

const fn_gpu_op fn_gpu_elementwise_ops[] = {
    {&fn_op_fill, NULL, plan_fill, prepare_fill},
    {0},
};
