/* Maps of one and two operands, activations' gradients, constants, repetition. */
#include <math.h>

#include "backend/cpu/grid.h"

/* ---- unary
 * --------------------------------------------------------------------------------------- */

static void unary_values(const fn_unary_attrs *attrs, const float *x, int64_t count, float *y) {
  const float a = (float)attrs->a, b = (float)attrs->b;
  switch (attrs->kind) {
#define MAP(expression)                                                                            \
  do {                                                                                             \
    _Pragma("omp simd") for (int64_t i = 0; i < count; i++) {                                      \
      const float v = x[i];                                                                        \
      y[i] = (expression);                                                                         \
    }                                                                                              \
  } while (0)
    case FN_AFFINE: MAP(a * v + b); break;
    case FN_LEAKY: MAP(v > 0 ? v : a * v); break;
    case FN_SIGMOID: MAP(1 / (1 + expf(-v))); break;
    case FN_TANH: MAP(tanhf(v)); break;
    case FN_EXP: MAP(expf(v)); break;
    case FN_LOG: MAP(logf(v)); break;
    case FN_SQRT: MAP(sqrtf(v)); break;
    case FN_SQUARE: MAP(v * v); break;
    case FN_ABS: MAP(fabsf(v)); break;
    case FN_STEP: MAP(v > 0 ? 1.0f : 0.0f); break;
    case FN_SIGN: MAP((v > 0 ? 1.0f : 0.0f) - (v < 0 ? 1.0f : 0.0f)); break;
    case FN_SOFTPLUS: MAP((v > 0 ? v : 0) + log1pf(expf(-fabsf(v)))); break;
    case FN_RECIPROCAL: MAP(1 / v); break;
    case FN_IDENTITY:
    case FN_CAST:
      if (y != x) memmove(y, x, (size_t)count * sizeof *x);
      break;
#undef MAP
  }
}

/** Whether zero, which fills the padding channels, is not mapped to zero. */
static bool unary_moves_zero(const fn_unary_attrs *attrs) {
  switch (attrs->kind) {
    case FN_AFFINE: return attrs->b != 0 || !isfinite(attrs->a);
    case FN_SIGMOID:
    case FN_EXP:
    case FN_LOG:
    case FN_SOFTPLUS:
    case FN_RECIPROCAL: return true;
    default: return false;
  }
}

static fn_status run_unary(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_unary_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const fn_runs runs = fn_runs_of((const fn_tensor *const[]){y, x}, 2);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    float in[FN_CHUNK], out[FN_CHUNK];
    const fn_item it = fn_run_at(&runs, i);
    const float *values = fn_load(x, fn_offset(x, &it), it.count, in);
    float *result = fn_target(y, fn_offset(y, &it), out);
    unary_values(attrs, values, it.count, result);
    fn_store(y, fn_offset(y, &it), it.count, result);
  }
  if (unary_moves_zero(attrs)) fn_cpu_zero_padding(y);
  return FN_OK;
}

static fn_status prepare_unary(fn_kernel *kernel) {
  kernel->run = run_unary;
  return FN_OK;
}

static void plan_map(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  fn_cpu_plan_block(node, fn_cpu_common_block(node, current), plan);
  for (int i = 0; i < node->input_count; i++) {
    if (fn_cpu_same(node, i, 0)) plan->in_place[0] |= 1u << i;
  }
}

/* ---- gradient of leaky
 * --------------------------------------------------------------------------- */

static fn_status run_leaky_grad(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const float slope = (float)((const fn_leaky_attrs *)kernel->node->attrs)->slope;
  const fn_tensor *dy = &kernel->input[0], *y = &kernel->input[1], *dx = &kernel->output[0];
  const fn_runs runs = fn_runs_of((const fn_tensor *const[]){dx, dy, y}, 3);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    float in[FN_CHUNK], sign[FN_CHUNK], out[FN_CHUNK];
    const fn_item it = fn_run_at(&runs, i);
    const float *g = fn_load(dy, fn_offset(dy, &it), it.count, in);
    const float *s = fn_load(y, fn_offset(y, &it), it.count, sign);
    float *result = fn_target(dx, fn_offset(dx, &it), out);
#pragma omp simd
    for (int64_t e = 0; e < it.count; e++)
      result[e] = s[e] > 0 ? g[e] : slope * g[e];
    fn_store(dx, fn_offset(dx, &it), it.count, result);
  }
  return FN_OK;
}

static fn_status prepare_leaky_grad(fn_kernel *kernel) {
  kernel->run = run_leaky_grad;
  return FN_OK;
}

/* ---- binary
 * -------------------------------------------------------------------------------------- */

static void binary_values(fn_binary kind, const float *a, const float *b, int64_t count, float *y) {
  switch (kind) {
#define MAP(expression)                                                                            \
  do {                                                                                             \
    _Pragma("omp simd") for (int64_t i = 0; i < count; i++) {                                      \
      const float u = a[i], v = b[i];                                                              \
      y[i] = (expression);                                                                         \
    }                                                                                              \
  } while (0)
    case FN_ADD: MAP(u + v); break;
    case FN_SUB: MAP(u - v); break;
    case FN_MUL: MAP(u * v); break;
    case FN_DIV: MAP(u / v); break;
    case FN_MIN: MAP(u < v || u != u ? u : v); break;
    case FN_MAX: MAP(u > v || u != u ? u : v); break;
    case FN_GREATER: MAP(u > v ? 1.0f : u == v ? 0.5f : 0.0f); break;
#undef MAP
  }
}

static bool binary_moves_zero(const fn_kernel *kernel) {
  const fn_binary_attrs *attrs = kernel->node->attrs;
  if (attrs->kind == FN_DIV || attrs->kind == FN_GREATER) return true;
  // A repeated operand has values, not zeros, beside the padding lanes.
  for (int i = 0; i < 2; i++) {
    if (!fn_shape_equal(&kernel->input[i].shape, &kernel->output[0].shape)) return true;
  }
  return false;
}

static fn_status run_binary_equal(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_binary_attrs *attrs = kernel->node->attrs;
  const fn_tensor *a = &kernel->input[0], *b = &kernel->input[1], *y = &kernel->output[0];
  const fn_runs runs = fn_runs_of((const fn_tensor *const[]){y, a, b}, 3);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    float left[FN_CHUNK], right[FN_CHUNK], out[FN_CHUNK];
    const fn_item it = fn_run_at(&runs, i);
    const float *u = fn_load(a, fn_offset(a, &it), it.count, left);
    const float *v = fn_load(b, fn_offset(b, &it), it.count, right);
    float *result = fn_target(y, fn_offset(y, &it), out);
    binary_values(attrs->kind, u, v, it.count, result);
    fn_store(y, fn_offset(y, &it), it.count, result);
  }
  if (binary_moves_zero(kernel)) fn_cpu_zero_padding(y);
  return FN_OK;
}

static fn_status run_binary(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_binary_attrs *attrs = kernel->node->attrs;
  const fn_tensor *a = &kernel->input[0], *b = &kernel->input[1], *y = &kernel->output[0];
  const fn_grid grid = fn_cpu_grid((const fn_tensor *const[]){y, a, b}, 3);
  const int last = grid.ndim - 1;
#pragma omp parallel for schedule(static) if (grid.items > 1)
  for (int64_t i = 0; i < grid.items; i++) {
    float left[FN_CHUNK], right[FN_CHUNK], out[FN_CHUNK];
    int64_t at[FN_GRID_TENSORS];
    const int64_t count = fn_cpu_grid_at(&grid, i, at);
    const float *u = fn_cpu_load_strided(a, at[1], grid.stride[1][last], count, left);
    const float *v = fn_cpu_load_strided(b, at[2], grid.stride[2][last], count, right);
    float *result = fn_target(y, at[0], out);
    binary_values(attrs->kind, u, v, count, result);
    fn_store(y, at[0], count, result);
  }
  if (binary_moves_zero(kernel)) fn_cpu_zero_padding(y);
  return FN_OK;
}

static fn_status prepare_binary(fn_kernel *kernel) {
  bool equal = true;
  for (int i = 0; i < 2; i++) {
    equal = equal && fn_shape_equal(&kernel->input[i].shape, &kernel->output[0].shape);
  }
  kernel->run = equal ? run_binary_equal : run_binary;
  return FN_OK;
}

static void plan_binary(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  int64_t block = fn_cpu_common_block(node, current), part[2];
  const fn_shape *whole = &node->output[0]->shape;
  if (whole->ndim < 3) block = 1;
  for (int i = 0; i < 2; i++) {
    if (!fn_cpu_grid_fits(whole, &node->input[i]->shape, block, &part[i])) block = 1;
  }
  fn_cpu_plan_block(node, block, plan);
  for (int i = 0; i < 2; i++) {
    fn_cpu_grid_fits(whole, &node->input[i]->shape, block, &part[i]);
    plan->in_block[i] = part[i];
    if (fn_cpu_same(node, i, 0)) plan->in_place[0] |= 1u << i;
  }
}

/* ---- fill, broadcast
 * ----------------------------------------------------------------------------- */

static fn_status run_fill(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const float constant = (float)((const fn_fill_attrs *)kernel->node->attrs)->constant;
  const fn_tensor *y = &kernel->output[0];
  const fn_runs runs = fn_runs_of(&y, 1);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    float out[FN_CHUNK];
    const fn_item it = fn_run_at(&runs, i);
    float *result = fn_target(y, fn_offset(y, &it), out);
    for (int64_t e = 0; e < it.count; e++)
      result[e] = constant;
    fn_store(y, fn_offset(y, &it), it.count, result);
  }
  return FN_OK;
}

static fn_status prepare_fill(fn_kernel *kernel) {
  kernel->run = run_fill;
  return FN_OK;
}

static void plan_plain(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
}

static fn_status run_broadcast(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const fn_grid grid = fn_cpu_grid((const fn_tensor *const[]){y, x}, 2);
  const int last = grid.ndim - 1;
#pragma omp parallel for schedule(static) if (grid.items > 1)
  for (int64_t i = 0; i < grid.items; i++) {
    float in[FN_CHUNK], out[FN_CHUNK];
    int64_t at[FN_GRID_TENSORS];
    const int64_t count = fn_cpu_grid_at(&grid, i, at);
    const float *values = fn_cpu_load_strided(x, at[1], grid.stride[1][last], count, in);
    float *result = fn_target(y, at[0], out);
    memcpy(result, values, (size_t)count * sizeof *values);
    fn_store(y, at[0], count, result);
  }
  return FN_OK;
}

static fn_status prepare_broadcast(fn_kernel *kernel) {
  kernel->run = run_broadcast;
  return FN_OK;
}

const fn_cpu_op fn_cpu_elementwise_ops[] = {
    {&fn_op_unary, NULL, plan_map, prepare_unary},
    {&fn_op_leaky_grad, NULL, plan_map, prepare_leaky_grad},
    {&fn_op_binary, NULL, plan_binary, prepare_binary},
    {&fn_op_fill, NULL, plan_plain, prepare_fill},
    {&fn_op_broadcast, NULL, plan_plain, prepare_broadcast},
    {0},
};
