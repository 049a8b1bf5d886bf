/* The cpu backend: oneDNN for convolutions and matrix products, vector kernels for the rest. */
#include "backend/cpu/cpu.h"

#include <dnnl.h>
#include <stdlib.h>

#include "backend/backends.h"
#include "backend/cpu/internal.h"

static const fn_cpu_op *const tables[] = {
    fn_cpu_conv_ops,        fn_cpu_matmul_ops, fn_cpu_norm_ops,     fn_cpu_fold_ops,
    fn_cpu_elementwise_ops, fn_cpu_window_ops, fn_cpu_periodic_ops, fn_cpu_shape_ops,
    fn_cpu_reduce_ops,      fn_cpu_pool_ops,   fn_cpu_resample_ops, fn_cpu_random_ops,
};

static const fn_cpu_op *entry_of(const fn_op *op) {
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
    for (const fn_cpu_op *entry = tables[t]; entry->op; entry++) {
      if (entry->op == op) return entry;
    }
  }
  return NULL;
}

int64_t fn_cpu_block(void) {
  // oneDNN's values grow with the instruction sets they contain.
  return dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx512_core ? 16 : 8;
}

int64_t fn_cpu_common_block(const fn_node *node, const int64_t *current) {
  for (int i = 0; i < node->input_count; i++) {
    if (node->input[i] && current[i] > 1) return current[i];
  }
  return 1;
}

void fn_cpu_plan_block(const fn_node *node, int64_t block, fn_node_plan *plan) {
  for (int i = 0; i < node->input_count; i++) {
    plan->in_block[i] = node->input[i] && node->input[i]->shape.ndim >= 3 ? block : 1;
    plan->strided_in[i] = true;
  }
  for (int o = 0; o < node->output_count; o++) {
    plan->out_block[o] = node->output[o]->shape.ndim >= 3 ? block : 1;
    plan->strided_out[o] = true;
  }
}

bool fn_cpu_same(const fn_node *node, int input, int output) {
  const fn_value *in = node->input[input], *out = node->output[output];
  return in && in->dtype == out->dtype && fn_shape_equal(&in->shape, &out->shape);
}

// 32 MB: more than the caches keep until the next operator reads it. What systems tell about the
// size of their caches is no help: it may be of all sockets together.
enum { STREAMED = 1 << 23 };

bool fn_cpu_streams(const fn_tensor *t) {
  const fn_rows rows = fn_rows_of(&t->shape, t->block);
  const bool aligned = (uintptr_t)t->data % 32 == 0 && t->batch_stride % 8 == 0 &&
                       rows.length % 8 == 0 && t->pitch <= t->block;
  return t->dtype == FN_F32 && aligned && rows.batch * rows.blocks * rows.length >= STREAMED;
}

static size_t element_size(const fn_tensor *t) {
  return t->dtype == FN_BF16 ? 2 : 4;
}

void fn_cpu_zero_padding(const fn_tensor *t) {
  const int64_t used = fn_channels(&t->shape) % t->block;
  if (t->block == 1 || used == 0) return;
  const int64_t batch = fn_batch(&t->shape), cells = fn_space(&t->shape);
  const int64_t last = fn_channels(&t->shape) / t->block * cells;
  const size_t size = element_size(t);
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t n = 0; n < batch; n++) {
    for (int64_t s = 0; s < cells; s++) {
      char *cell =
          (char *)t->data + (size_t)(n * t->batch_stride + (last + s) * t->block + used) * size;
      memset(cell, 0, (size_t)(t->block - used) * size);
    }
  }
}

void fn_cpu_zero(const fn_tensor *t) {
  const fn_runs runs = fn_runs_of(&t, 1);
  const size_t size = element_size(t);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    const fn_item it = fn_run_at(&runs, i);
    memset((char *)t->data + (size_t)fn_offset(t, &it) * size, 0, (size_t)it.count * size);
  }
}

/* ---- state
 * --------------------------------------------------------------------------------------- */

static void destroy(fn_kernel *kernel) {
  fn_cpu_state *state = kernel->state;
  if (state && state->release) state->release(state);
  free(state);
  kernel->state = NULL;
}

fn_status fn_cpu_state_create(fn_kernel *kernel, size_t size, void **state) {
  kernel->state = *state = calloc(1, size);
  FN_CHECK(*state, FN_ERR_MEMORY, "no memory for the state of a kernel (%zu bytes)", size);
  kernel->destroy = destroy;
  return FN_OK;
}

size_t fn_cpu_carve(fn_kernel *kernel, size_t bytes) {
  const size_t offset = (kernel->workspace + 63) / 64 * 64;
  kernel->workspace = offset + bytes;
  return offset;
}

fn_status fn_cpu_time_primitive(const fn_kernel *kernel, double *seconds) {
  *seconds = 0;
  if (kernel->backend != fn_backend_cpu.name || !kernel->state) return FN_OK;
  const fn_cpu_state *state = kernel->state;
  if (state->time_library) return state->time_library(kernel, seconds);
  if (!state->primitive) return FN_OK;
  FN_CHECK(state->workspace || kernel->workspace == 0, FN_ERR_INTERNAL,
           "cannot time the primitive of %s before the program has run", kernel->node->op->name);
  FN_TRY(state->primitive(kernel, state->workspace));
  const double start = fn_clock();
  FN_TRY(state->primitive(kernel, state->workspace));
  *seconds = fn_clock() - start;
  return FN_OK;
}

/* ---- the backend
 * --------------------------------------------------------------------------------- */

static bool known_dtype(const fn_value *value) {
  return !value || value->dtype == FN_F32 || value->dtype == FN_BF16;
}

static bool supports(const fn_backend *backend, const fn_node *node) {
  (void)backend;
  const fn_cpu_op *entry = entry_of(node->op);
  if (!entry) return false;
  for (int i = 0; i < node->input_count; i++) {
    if (!known_dtype(node->input[i])) return false;
  }
  for (int o = 0; o < node->output_count; o++) {
    if (!known_dtype(node->output[o])) return false;
  }
  return !entry->supports || entry->supports(node);
}

static fn_status plan(const fn_backend *backend, const fn_node *node, const int64_t *current,
                      fn_node_plan *plan) {
  (void)backend;
  const fn_cpu_op *entry = entry_of(node->op);
  FN_CHECK(entry, FN_ERR_UNSUPPORTED, "the cpu backend has no operator %s", node->op->name);
  memset(plan, 0, sizeof *plan);
  fn_cpu_plan_block(node, 1, plan);
  entry->plan(node, current, plan);
  return FN_OK;
}

static fn_status prepare(const fn_backend *backend, fn_kernel *kernel) {
  const fn_cpu_op *entry = entry_of(kernel->node->op);
  FN_CHECK(entry, FN_ERR_UNSUPPORTED, "the cpu backend has no operator %s", kernel->node->op->name);
  kernel->backend = backend->name;
  kernel->workspace = 0;
  kernel->state = NULL;
  kernel->destroy = NULL;
  return fn_error_context(entry->prepare(kernel), "%s", kernel->node->op->name);
}

const fn_backend fn_backend_cpu = {
    .name = "cpu",
    .takes_lines = true,
    .supports = supports,
    .plan = plan,
    .prepare = prepare,
    .prepare_reorder = fn_cpu_prepare_reorder,
};
