/* The reference backend: operators' plain kernels in double precision on plain layouts. Every input
 * is converted to double first and every result rounded once, so its float32 and bf16 results are
 * the correctly rounded ones: the yardstick for the other backends. */
#include <math.h>
#include <string.h>

#include "backend/backends.h"
#include "backend/gpu/kernels/element.h"
#include "base/bf16.h"

static bool supports(const fn_backend *backend, const fn_node *node) {
  (void)backend;
  return node->op->reference != NULL;
}

static fn_status plan(const fn_backend *backend, const fn_node *node, const int64_t *current,
                      fn_node_plan *plan) {
  (void)backend;
  (void)current;
  for (int i = 0; i < node->input_count; i++)
    plan->in_block[i] = 1;
  for (int o = 0; o < node->output_count; o++)
    plan->out_block[o] = 1;
  return FN_OK;
}

static double load(const fn_tensor *tensor, int64_t index) {
  switch (tensor->dtype) {
    case FN_F32: return (double)((const float *)tensor->data)[index];
    case FN_F64: return ((const double *)tensor->data)[index];
    case FN_BF16: return (double)fn_bf16_to_f32(((const uint16_t *)tensor->data)[index]);
    case FN_F16: return (double)fn_from_f16(((const uint16_t *)tensor->data)[index]);
  }
  return 0;
}

static void store(const fn_tensor *tensor, int64_t index, double x) {
  switch (tensor->dtype) {
    case FN_F32: ((float *)tensor->data)[index] = (float)x; break;
    case FN_F64: ((double *)tensor->data)[index] = x; break;
    case FN_BF16: ((uint16_t *)tensor->data)[index] = fn_bf16_from_f32((float)x); break;
    case FN_F16: ((uint16_t *)tensor->data)[index] = fn_to_f16((float)x); break;
  }
}

static void load_all(const fn_tensor *tensor, double *out) {
  const int64_t count = fn_shape_count(&tensor->shape);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i++)
    out[i] = load(tensor, i);
}

static void store_all(const fn_tensor *tensor, const double *in) {
  const int64_t count = fn_shape_count(&tensor->shape);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; i++)
    store(tensor, i, in[i]);
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_node *node = kernel->node;
  const double *in[FN_MAX_PORTS] = {NULL};
  double *out[FN_MAX_PORTS] = {NULL};
  double *scratch = context->workspace;
  for (int i = 0; i < node->input_count; i++) {
    if (!kernel->input[i].data) continue;
    load_all(&kernel->input[i], scratch);
    in[i] = scratch;
    scratch += fn_shape_count(&kernel->input[i].shape);
  }
  for (int o = 0; o < node->output_count; o++) {
    out[o] = scratch;
    scratch += fn_shape_count(&node->output[o]->shape);
  }
  FN_TRY(node->op->reference(node, in, out, context));
  for (int o = 0; o < node->output_count; o++)
    if (kernel->output[o].data) store_all(&kernel->output[o], out[o]);
  return FN_OK;
}

static fn_status prepare(const fn_backend *backend, fn_kernel *kernel) {
  (void)backend;
  const fn_node *node = kernel->node;
  int64_t count = 0;
  for (int i = 0; i < node->input_count; i++)
    if (kernel->input[i].data) count += fn_shape_count(&kernel->input[i].shape);
  for (int o = 0; o < node->output_count; o++)
    count += fn_shape_count(&node->output[o]->shape);
  kernel->workspace = (size_t)count * sizeof(double);
  kernel->run = run;
  return FN_OK;
}

/** Element offset of (row, channel, cell) in memory. */
static int64_t position(const fn_tensor *t, int64_t row, int64_t channel, int64_t cell,
                        int64_t cells) {
  const int64_t b = t->block > 1 ? t->block : 1;
  return row * t->batch_stride + (channel / b * cells + cell) * b + channel % b;
}

static fn_status run_reorder(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *in = &kernel->input[0], *out = &kernel->output[0];
  const fn_shape *shape = &in->shape;
  if (shape->ndim < 2) {
    const int64_t count = fn_shape_count(shape);
    for (int64_t i = 0; i < count; i++)
      store(out, i, load(in, i));
    return FN_OK;
  }
  int64_t cells = 1;
  for (int a = 2; a < shape->ndim; a++)
    cells *= shape->dim[a];
  const int64_t channels = shape->dim[1], b = out->block > 1 ? out->block : 1;
  const int64_t padded = (channels + b - 1) / b * b;
  for (int64_t n = 0; n < shape->dim[0]; n++) {
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < padded; c++)
      for (int64_t i = 0; i < cells; i++)
        store(out, position(out, n, c, i, cells),
              c < channels ? load(in, position(in, n, c, i, cells)) : 0);
  }
  return FN_OK;
}

static fn_status prepare_reorder(const fn_backend *backend, fn_kernel *kernel) {
  (void)backend;
  kernel->run = run_reorder;
  return FN_OK;
}

const fn_backend fn_backend_reference = {
    .name = "reference",
    .supports = supports,
    .plan = plan,
    .prepare = prepare,
    .prepare_reorder = prepare_reorder,
};
