/* Linear interpolation and its adjoint. */
#include "backend/gpu/strides.h"
#include "ops/ops.h"

typedef struct resample_state {
  fn_gpu_state base;
  fn_resample_args args;
} resample_state;

static fn_status run_resample(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const resample_state *s = kernel->state;
  const int64_t blocks = fn_gpu_blocks(s->args.loop.count, 1);
  if (kernel->node->op == &fn_op_resample)
    return fn_gpu_launch(s->base.platform, resample, blocks, &s->args);
  return fn_gpu_launch(s->base.platform, resample_grad, blocks, &s->args);
}

static fn_status prepare_resample(fn_gpu_platform *platform, fn_kernel *kernel) {
  resample_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_resample_attrs *attrs = kernel->node->attrs;
  const bool forward = kernel->node->op == &fn_op_resample;
  const fn_tensor *in = &kernel->input[0], *out = &kernel->output[0];
  s->args = (fn_resample_args){
      .x = fn_gpu_view(forward ? in : out),
      .y = fn_gpu_view(forward ? out : in),
      .factor = attrs->factor,
      .inverse = 1 / attrs->factor,
      .trim = attrs->trim,
      .loop = fn_gpu_cell_loop(&out->shape, fn_gpu_view_wide(in) && fn_gpu_view_wide(out))};
  for (int d = 2; d < out->shape.ndim; d++)
    FN_CHECK(in->shape.dim[d] < INT32_MAX && out->shape.dim[d] < INT32_MAX, FN_ERR_UNSUPPORTED,
             "resampling to %lld cells along an axis", (long long)out->shape.dim[d]);
  for (int d = 0; d < 3; d++)
    s->args.resampled[d] = d >= 3 - (in->shape.ndim - 2);
  kernel->run = run_resample;
  return FN_OK;
}

const fn_gpu_op fn_gpu_resample_ops[] = {
    {&fn_op_resample, NULL, NULL, prepare_resample},
    {&fn_op_resample_grad, NULL, NULL, prepare_resample},
    {0},
};
