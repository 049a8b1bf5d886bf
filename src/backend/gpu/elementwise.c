/* Operators that map elements. */
#include "backend/gpu/strides.h"
#include "ops/ops.h"

/* ---- fill
 * ---------------------------------------------------------------------------------------- */

typedef struct map_state {
  fn_gpu_state base;
  fn_map_args args;
} map_state;

static fn_status run_map(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const map_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, map, fn_gpu_blocks(s->args.loop.count, 1), &s->args);
}

static fn_map_args map_of(const fn_tensor *y, const fn_tensor *x) {
  const fn_operand operand[2] = {fn_gpu_operand(y), x ? fn_gpu_operand(x) : (fn_operand){0}};
  return (fn_map_args){.y = y->data,
                       .x = x ? x->data : NULL,
                       .y_dtype = (int)y->dtype,
                       .x_dtype = x ? (int)x->dtype : FN_GPU_F32,
                       .loop = fn_gpu_loop(&y->shape, x ? 2 : 1, operand, true)};
}

static fn_status prepare_fill(fn_gpu_platform *platform, fn_kernel *kernel) {
  map_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  s->args = map_of(&kernel->output[0], NULL);
  s->args.kind = FN_MAP_FILL;
  s->args.b = (float)((const fn_fill_attrs *)kernel->node->attrs)->constant;
  kernel->run = run_map;
  return FN_OK;
}

/* ---- one operand
 * --------------------------------------------------------------------------------- */

static fn_status prepare_unary(fn_gpu_platform *platform, fn_kernel *kernel) {
  map_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_unary_attrs *attrs = kernel->node->attrs;
  s->args = map_of(&kernel->output[0], &kernel->input[0]);
  s->args.kind = (int)attrs->kind;
  s->args.a = (float)attrs->a;
  s->args.b = (float)attrs->b;
  kernel->run = run_map;
  return FN_OK;
}

/** Layouts stay as they are. */
static void plan_unary(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  plan->in_block[0] = plan->out_block[0] = current[0];
  if (fn_gpu_same(node, 0, 0)) plan->in_place[0] = 1;
}

/* ---- two operands
 * -------------------------------------------------------------------------------- */

typedef struct map2_state {
  fn_gpu_state base;
  fn_map2_args args;
} map2_state;

static fn_status run_map2(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const map2_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, map2, fn_gpu_blocks(s->args.loop.count, 1), &s->args);
}

static fn_status prepare_two(fn_gpu_platform *platform, fn_kernel *kernel, int kind, double slope) {
  map2_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_tensor *a = &kernel->input[0], *b = &kernel->input[1], *y = &kernel->output[0];
  const fn_operand operand[3] = {fn_gpu_operand(y), fn_gpu_operand_broadcast(a, &y->shape),
                                 fn_gpu_operand_broadcast(b, &y->shape)};
  s->args = (fn_map2_args){.y = y->data,
                           .a = a->data,
                           .b = b->data,
                           .y_dtype = (int)y->dtype,
                           .a_dtype = (int)a->dtype,
                           .b_dtype = (int)b->dtype,
                           .kind = kind,
                           .slope = (float)slope,
                           .loop = fn_gpu_loop(&y->shape, 3, operand, true)};
  kernel->run = run_map2;
  return FN_OK;
}

static fn_status prepare_binary(fn_gpu_platform *platform, fn_kernel *kernel) {
  const fn_binary_attrs *attrs = kernel->node->attrs;
  return prepare_two(platform, kernel, (int)attrs->kind, 1);
}

static fn_status prepare_leaky_grad(fn_gpu_platform *platform, fn_kernel *kernel) {
  const fn_leaky_attrs *attrs = kernel->node->attrs;
  return prepare_two(platform, kernel, FN_MAP_LEAKY_GRAD, attrs->slope);
}

/** All plain where no operand of the result's shape lies channels-last; an operand that is repeated
 *  is small and stays as it is. */
static void plan_two(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  const fn_shape *y = &node->output[0]->shape;
  const int64_t last = plan->out_block[0];
  int64_t block = 1;
  bool equal = false;
  for (int i = 0; i < 2; i++) {
    if (!fn_shape_equal(&node->input[i]->shape, y)) continue;
    if (current[i] == last) block = last;
    equal = true;
  }
  if (!equal) block = last;
  plan->out_block[0] = block;
  for (int i = 0; i < 2; i++) {
    const bool whole = fn_shape_equal(&node->input[i]->shape, y);
    plan->in_block[i] = whole ? block : current[i];
    if (fn_gpu_same(node, i, 0)) plan->in_place[0] |= 1u << i;
  }
}

const fn_gpu_op fn_gpu_elementwise_ops[] = {
    {&fn_op_fill, NULL, NULL, prepare_fill},
    {&fn_op_unary, NULL, plan_unary, prepare_unary},
    {&fn_op_binary, NULL, plan_two, prepare_binary},
    {&fn_op_leaky_grad, NULL, plan_two, prepare_leaky_grad},
    {0},
};
