/* Kernel and bias with a batch norm folded in: double precision, rounded once. */
#include "backend/cpu/internal.h"

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_fold_attrs *attrs = kernel->node->attrs;
  const fn_tensor *w = &kernel->input[0], *bias = &kernel->input[1];
  const fn_shape *shape = &w->shape;
  const int64_t columns = shape->dim[1], taps = fn_space(shape);
  const float *from = w->data;
  float *to = kernel->output[0].data, *folded_bias = kernel->output[1].data;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < shape->dim[0]; row++) {
    for (int64_t column = 0; column < columns; column++) {
      const int64_t c = fn_fold_channel(attrs, shape, row, column);
      const int64_t at = (row * columns + column) * taps;
      double value[6] = {0}, factor, sum;
      for (int i = bias->data ? 1 : 2; i < 6; i++)
        value[i] = fn_scalar(&kernel->input[i], c);
      fn_fold_factors(attrs, value[1], value[2], value[3], value[4], value[5], &factor, &sum);
      // Of the rows that share a channel, the group's first writes it.
      const bool first = !attrs->transposed || row % (shape->dim[0] / attrs->groups) == 0;
      if (folded_bias && first) folded_bias[c] = (float)sum;
      for (int64_t t = 0; to && t < taps; t++)
        to[at + t] = (float)((double)from[at + t] * factor);
    }
  }
  return FN_OK;
}

static bool supports(const fn_node *node) {
  return node->input[0]->dtype == FN_F32 && node->output[0]->dtype == FN_F32;
}

static void plan(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
  for (int i = 0; i < node->input_count; i++)
    plan->strided_in[i] = false;
  plan->strided_out[0] = plan->strided_out[1] = false;
}

static fn_status prepare(fn_kernel *kernel) {
  kernel->run = run;
  return FN_OK;
}

const fn_cpu_op fn_cpu_fold_ops[] = {
    {&fn_op_fold_norm, supports, plan, prepare},
    {0},
};
