/* Standard normals and dropout masks. */
#include <stdlib.h>

#include "backend/gpu/strides.h"
#include "ops/ops.h"

_Static_assert(offsetof(fn_gpu_context, seed) == 0 && offsetof(fn_gpu_context, epoch) == 8 &&
                   offsetof(fn_gpu_context, sample) == 16,
               "kernels read the context as an array of 64-bit numbers");

typedef struct draw_state {
  fn_gpu_state base;
  fn_draw_args args;
  int64_t rows;
  int64_t *host; /**< what the context says, for platforms without one in device memory */
} draw_state;

static void release(fn_gpu_state *base) {
  free(((draw_state *)base)->host);
}

static fn_status run_draw(const fn_kernel *kernel, const fn_run_context *context) {
  draw_state *s = kernel->state;
  s->args.context = context->device ? context->device : s->host;
  if (!context->device) {
    s->host[0] = (int64_t)context->seed;
    s->host[1] = context->epoch;
    for (int64_t n = 0; n < s->rows; n++)
      s->host[2 + n] = context->sample ? context->sample[n] : n;
  }
  return fn_gpu_launch(s->base.platform, draw, fn_gpu_blocks(s->args.count, 1), &s->args);
}

static fn_status prepare_draw(fn_gpu_platform *platform, fn_kernel *kernel) {
  draw_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  s->base.release = release;
  const fn_random_attrs *attrs = kernel->node->attrs;
  const fn_tensor *y = &kernel->output[0];
  const fn_operand to = fn_gpu_operand(y);
  const int ndim = y->shape.ndim;
  s->rows = y->shape.dim[0];
  s->host = calloc((size_t)s->rows + 2, sizeof *s->host);
  FN_CHECK(s->host, FN_ERR_MEMORY, "no memory for the samples of a batch");
  const int64_t elements = fn_shape_count(&y->shape) / s->rows;
  const int64_t channels = ndim > 1 ? y->shape.dim[1] : 1, cells = elements / channels;
  const int64_t pairs = (elements + 1) / 2;
  s->args = (fn_draw_args){.y = y->data,
                           .dtype = (int)y->dtype,
                           .normal = kernel->node->op == &fn_op_normal,
                           .index = attrs->index,
                           .p = attrs->p,
                           .count = s->rows * pairs,
                           .elements = elements,
                           .pairs = fn_gpu_divider(pairs),
                           .cells = fn_gpu_divider(cells),
                           .channels = fn_gpu_divider(channels),
                           .across = y->block > 1 && cells % 2 == 0,
                           .row = to.stride[0],
                           .channel = ndim > 1 ? to.stride[1] : 0,
                           .cell = ndim > 2 ? to.stride[ndim - 1] : 0};
  kernel->run = run_draw;
  return FN_OK;
}

const fn_gpu_op fn_gpu_random_ops[] = {
    {&fn_op_normal, NULL, NULL, prepare_draw},
    {&fn_op_dropout_mask, NULL, NULL, prepare_draw},
    {0},
};
