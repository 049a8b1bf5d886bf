/* Matrix products by oneDNN's sgemm, bias and activation behind it while the rows are in the
 * caches, and the logarithm of softmax. */
#include <math.h>

#include "backend/cpu/library.h"

typedef struct matmul_state {
  fn_cpu_state base;
  int64_t batch, m, n, k;
  bool shared;       /**< one b for all a */
  size_t copy_at[3]; /**< f32 copies of bf16 operands: a, b, y */
} matmul_state;

static const fn_tensor *port(const fn_kernel *kernel, int which) {
  return which < 2 ? &kernel->input[which] : &kernel->output[0];
}

static float *values_of(const fn_kernel *kernel, int which, char *memory) {
  const matmul_state *s = kernel->state;
  const fn_tensor *t = port(kernel, which);
  return t->dtype == FN_F32 ? t->data : (float *)(memory + s->copy_at[which]);
}

static fn_status multiply(const fn_kernel *kernel, void *workspace) {
  const matmul_state *s = kernel->state;
  const fn_matmul_attrs *attrs = kernel->node->attrs;
  const float *a = values_of(kernel, 0, workspace), *b = values_of(kernel, 1, workspace);
  float *y = values_of(kernel, 2, workspace);
  // With one b and rows of a in a row, the batch is only more rows.
  const bool joined = s->shared && !attrs->transpose_a;
  const int64_t m = joined ? s->m * s->batch : s->m, batch = joined ? 1 : s->batch;
  for (int64_t i = 0; i < batch; i++) {
    FN_LIBRARY(dnnl_sgemm(attrs->transpose_a ? 'T' : 'N', attrs->transpose_b ? 'T' : 'N', m, s->n,
                          s->k, 1, a + i * s->m * s->k, attrs->transpose_a ? m : s->k,
                          b + (s->shared ? 0 : i * s->k * s->n), attrs->transpose_b ? s->k : s->n,
                          0, y + i * s->m * s->n, s->n));
  }
  return FN_OK;
}

/** y := leaky(y + bias), rounded as an addition and an activation of their own would. */
static void finish(const fn_kernel *kernel, void *workspace) {
  const matmul_state *s = kernel->state;
  const float slope = (float)((const fn_matmul_attrs *)kernel->node->attrs)->slope;
  const float *bias = kernel->node->input_count > 2 ? kernel->input[2].data : NULL;
  if (!bias && slope == 1) return;
  float *y = values_of(kernel, 2, workspace);
  const int64_t rows = s->batch * s->m, n = s->n;
#pragma omp parallel for schedule(static) if (rows * n > FN_CHUNK)
  for (int64_t i = 0; i < rows; i++) {
    float *row = y + i * n;
#pragma omp simd
    for (int64_t j = 0; j < n; j++) {
      const float sum = bias ? row[j] + bias[j] : row[j];
      row[j] = sum > 0 ? sum : slope * sum;
    }
  }
}

/** A bf16 operand to or from its f32 copy. */
static void convert(const fn_kernel *kernel, int which, bool back, char *memory) {
  const fn_tensor *t = port(kernel, which);
  if (t->dtype == FN_F32) return;
  float *copy = values_of(kernel, which, memory);
  const int64_t count = fn_shape_count(&t->shape), chunks = fn_ceil_div(count, FN_CHUNK);
#pragma omp parallel for schedule(static) if (chunks > 1)
  for (int64_t i = 0; i < chunks; i++) {
    const int64_t first = i * FN_CHUNK, length = fn_min_of(FN_CHUNK, count - first);
    if (back)
      fn_store(t, first, length, copy + first);
    else
      fn_load(t, first, length, copy + first);
  }
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  matmul_state *s = kernel->state;
  s->base.workspace = context->workspace;
  convert(kernel, 0, false, context->workspace);
  convert(kernel, 1, false, context->workspace);
  FN_TRY(multiply(kernel, context->workspace));
  finish(kernel, context->workspace);
  convert(kernel, 2, true, context->workspace);
  return FN_OK;
}

static fn_status prepare(fn_kernel *kernel) {
  matmul_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  const fn_matmul_attrs *attrs = kernel->node->attrs;
  const fn_shape *a = &kernel->input[0].shape, *b = &kernel->input[1].shape;
  const int64_t rows = a->dim[a->ndim - 2], columns = a->dim[a->ndim - 1];
  s->base.primitive = multiply;
  s->m = attrs->transpose_a ? columns : rows;
  s->k = attrs->transpose_a ? rows : columns;
  s->n = b->dim[attrs->transpose_b ? b->ndim - 2 : b->ndim - 1];
  s->batch = fn_shape_count(a) / (rows * columns);
  s->shared = b->ndim == 2 && s->batch > 1;
  for (int i = 0; i < 3; i++) {
    const fn_tensor *t = port(kernel, i);
    if (t->dtype != FN_F32) {
      s->copy_at[i] = fn_cpu_carve(kernel, (size_t)fn_shape_count(&t->shape) * 4);
    }
  }
  kernel->run = run;
  return FN_OK;
}

static bool supports(const fn_node *node) {
  return node->input_count < 3 || !node->input[2] || node->input[2]->dtype == FN_F32;
}

static void plan(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
  for (int i = 0; i < node->input_count; i++)
    plan->strided_in[i] = false;
  plan->strided_out[0] = false;
}

/* ---- log softmax
 * --------------------------------------------------------------------------------- */

enum { CELLS = 256 };

/** Cells [first, first + count) of sample n: y = x - log sum over channels of e^x. */
static void log_softmax(const fn_tensor *x, const fn_tensor *y, int64_t n, int64_t first,
                        int64_t count) {
  float in[CELLS], out[CELLS], top[CELLS], sum[CELLS];
  const int64_t channels = fn_channels(&x->shape), cells = fn_space(&x->shape);
  const int64_t from = n * x->batch_stride + first, to = n * y->batch_stride + first;
  for (int64_t i = 0; i < count; i++)
    top[i] = -INFINITY, sum[i] = 0;
  for (int64_t c = 0; c < channels; c++) {
    const float *v = fn_load(x, from + c * cells, count, in);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
      top[i] = v[i] > top[i] ? v[i] : top[i];
  }
  for (int64_t c = 0; c < channels; c++) {
    const float *v = fn_load(x, from + c * cells, count, in);
    for (int64_t i = 0; i < count; i++)
      sum[i] += expf(v[i] - top[i]);
  }
  for (int64_t i = 0; i < count; i++)
    top[i] += logf(sum[i]);
  for (int64_t c = 0; c < channels; c++) {
    const float *v = fn_load(x, from + c * cells, count, in);
    float *result = fn_target(y, to + c * cells, out);
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
      result[i] = v[i] - top[i];
    fn_store(y, to + c * cells, count, result);
  }
}

static fn_status run_log_softmax(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const int64_t batch = fn_batch(&x->shape), cells = fn_space(&x->shape);
  const int64_t pieces = fn_ceil_div(cells, CELLS);
#pragma omp parallel for schedule(static) if (batch * pieces > 1)
  for (int64_t i = 0; i < batch * pieces; i++) {
    const int64_t first = i % pieces * CELLS;
    log_softmax(x, y, i / pieces, first, fn_min_of(CELLS, cells - first));
  }
  return FN_OK;
}

static fn_status prepare_log_softmax(fn_kernel *kernel) {
  kernel->run = run_log_softmax;
  return FN_OK;
}

static void plan_plain(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
}

const fn_cpu_op fn_cpu_matmul_ops[] = {
    {&fn_op_matmul, supports, plan, prepare},
    {&fn_op_log_softmax, NULL, plan_plain, prepare_log_softmax},
    {0},
};
