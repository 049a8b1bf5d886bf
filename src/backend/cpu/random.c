/* Random values, the same as the reference's: every element is a function of its index. */
#include "ops/random.h"

#include "backend/cpu/internal.h"

static void pair_of(const fn_node *node, const fn_philox_stream *stream, int64_t block,
                    double *pair) {
  const fn_random_attrs *attrs = node->attrs;
  if (node->op == &fn_op_normal)
    fn_random_element_normals(stream, (uint32_t)block, pair);
  else
    fn_random_element_masks(stream, (uint32_t)block, attrs->p, pair);
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_node *node = kernel->node;
  const fn_random_attrs *attrs = node->attrs;
  const fn_tensor *y = &kernel->output[0];
  const fn_purpose purpose = node->op == &fn_op_normal ? FN_RANDOM_NOISE : FN_RANDOM_DROPOUT;
  const int64_t batch = fn_batch(&y->shape);
  const int64_t count = fn_tensor_sample_count(&y->shape, 1);
  const int64_t chunks = fn_ceil_div(count, FN_CHUNK);
#pragma omp parallel for schedule(static) if (batch * chunks > 1)
  for (int64_t i = 0; i < batch * chunks; i++) {
    float out[FN_CHUNK];
    const int64_t n = i / chunks, first = i % chunks * FN_CHUNK;
    const int64_t length = fn_min_of(FN_CHUNK, count - first);
    const fn_philox_stream stream = fn_random_element_stream(context, purpose, n, attrs->index);
    float *result = fn_target(y, n * y->batch_stride + first, out);
    for (int64_t e = 0; e < length; e += 2) { // chunks start at even elements
      double pair[2];
      pair_of(node, &stream, (first + e) / 2, pair);
      result[e] = (float)pair[0];
      if (e + 1 < length) result[e + 1] = (float)pair[1];
    }
    fn_store(y, n * y->batch_stride + first, length, result);
  }
  return FN_OK;
}

static fn_status prepare(fn_kernel *kernel) {
  kernel->run = run;
  return FN_OK;
}

static void plan(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
}

const fn_cpu_op fn_cpu_random_ops[] = {
    {&fn_op_normal, NULL, plan, prepare},
    {&fn_op_dropout_mask, NULL, plan, prepare},
    {0},
};
