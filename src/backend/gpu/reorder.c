/* Copies between layouts and dtypes. */
#include "backend/gpu/strides.h"

typedef struct reorder_state {
  fn_gpu_state base;
  fn_gpu_copy_plan copy;
} reorder_state;

static fn_status run_reorder(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const reorder_state *s = kernel->state;
  return fn_gpu_copy_run(s->base.platform, &s->copy);
}

fn_status fn_gpu_prepare_reorder(fn_gpu_platform *platform, fn_kernel *kernel) {
  reorder_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_operand y = fn_gpu_operand(&kernel->output[0]), x = fn_gpu_operand(&kernel->input[0]);
  s->copy = fn_gpu_copy_make(&kernel->output[0].shape, &y, &x);
  kernel->run = run_reorder;
  return FN_OK;
}
