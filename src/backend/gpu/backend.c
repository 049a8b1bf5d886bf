/* What the backends with a device share: the table of operators and their plans. */
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/gpu.h"

static const fn_gpu_op *const tables[] = {
    fn_gpu_elementwise_ops, fn_gpu_window_ops,   fn_gpu_reduce_ops, fn_gpu_norm_ops,
    fn_gpu_pool_ops,        fn_gpu_resample_ops, fn_gpu_random_ops, fn_gpu_library_ops,
};

static const fn_gpu_op *entry_of(const fn_op *op) {
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
    for (const fn_gpu_op *entry = tables[t]; entry->op; entry++)
      if (entry->op == op) return entry;
  return NULL;
}

static bool known_dtype(const fn_value *value) {
  return !value || value->dtype != FN_F64;
}

bool fn_gpu_supports(const fn_backend *backend, const fn_node *node) {
  (void)backend;
  const fn_gpu_op *entry = entry_of(node->op);
  if (!entry) return false;
  for (int i = 0; i < node->input_count; i++)
    if (!known_dtype(node->input[i])) return false;
  for (int o = 0; o < node->output_count; o++)
    if (!known_dtype(node->output[o])) return false;
  return !entry->supports || entry->supports(node);
}

static int64_t channels_last(const fn_value *value) {
  return value && value->shape.ndim >= 3 && value->shape.dim[1] > 0 ? value->shape.dim[1] : 1;
}

fn_status fn_gpu_plan(const fn_backend *backend, const fn_node *node, const int64_t *current,
                      fn_node_plan *plan) {
  const fn_gpu_op *entry = entry_of(node->op);
  FN_CHECK(entry, FN_ERR_UNSUPPORTED, "the %s backend has no operator %s", backend->name,
           node->op->name);
  memset(plan, 0, sizeof *plan);
  for (int i = 0; i < node->input_count; i++) {
    plan->in_block[i] = channels_last(node->input[i]);
    plan->strided_in[i] = true;
  }
  for (int o = 0; o < node->output_count; o++) {
    plan->out_block[o] = channels_last(node->output[o]);
    plan->strided_out[o] = true;
  }
  if (entry->plan) entry->plan(node, current, plan);
  return FN_OK;
}

fn_status fn_gpu_prepare(fn_gpu_platform *platform, const fn_backend *backend, fn_kernel *kernel) {
  const fn_gpu_op *entry = entry_of(kernel->node->op);
  FN_CHECK(entry, FN_ERR_UNSUPPORTED, "the %s backend has no operator %s", backend->name,
           kernel->node->op->name);
  kernel->backend = backend->name;
  kernel->workspace = 0;
  kernel->state = NULL;
  kernel->destroy = NULL;
  return fn_error_context(entry->prepare(platform, kernel), "%s", kernel->node->op->name);
}

static void destroy(fn_kernel *kernel) {
  fn_gpu_state *state = kernel->state;
  if (state && state->release) state->release(state);
  free(state);
  kernel->state = NULL;
}

fn_status fn_gpu_state_create(fn_gpu_platform *platform, fn_kernel *kernel, size_t size,
                              void **state) {
  fn_gpu_state *made = calloc(1, size);
  FN_CHECK(made, FN_ERR_MEMORY, "no memory for the state of a kernel (%zu bytes)", size);
  made->platform = platform;
  kernel->state = *state = made;
  kernel->destroy = destroy;
  return FN_OK;
}

int64_t fn_gpu_blocks(int64_t items, int64_t each) {
  enum { BLOCKS_MOST = 2048 };
  const int64_t per_block = FN_GPU_THREADS * each, blocks = (items + per_block - 1) / per_block;
  return blocks < 1 ? 1 : blocks > BLOCKS_MOST ? BLOCKS_MOST : blocks;
}
