/* Operators that move values: windows, padding, concat, permutation, repetition. */
#include <string.h>

#include "backend/gpu/strides.h"
#include "ops/ops.h"

/* ---- copies
 * -------------------------------------------------------------------------------------- */

/** Up to one copy per input. */
typedef struct copy_state {
  fn_gpu_state base;
  int count;
  fn_gpu_copy_plan copy[FN_MAX_PORTS];
} copy_state;

static fn_status run_copies(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const copy_state *s = kernel->state;
  for (int i = 0; i < s->count; i++)
    FN_TRY(fn_gpu_copy_run(s->base.platform, &s->copy[i]));
  return FN_OK;
}

static fn_status copy_state_create(fn_gpu_platform *platform, fn_kernel *kernel, copy_state **s) {
  kernel->run = run_copies;
  return fn_gpu_state_create(platform, kernel, sizeof **s, (void **)s);
}

static fn_status prepare_crop(fn_gpu_platform *platform, fn_kernel *kernel) {
  copy_state *s;
  FN_TRY(copy_state_create(platform, kernel, &s));
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *y = &kernel->output[0];
  const fn_operand to = fn_gpu_operand(y);
  fn_operand from = fn_gpu_operand(&kernel->input[0]);
  fn_gpu_operand_move(&from, y->shape.ndim, attrs->start);
  s->copy[s->count++] = fn_gpu_copy_make(&y->shape, &to, &from);
  return FN_OK;
}

static fn_status prepare_broadcast(fn_gpu_platform *platform, fn_kernel *kernel) {
  copy_state *s;
  FN_TRY(copy_state_create(platform, kernel, &s));
  const fn_tensor *y = &kernel->output[0];
  const fn_operand to = fn_gpu_operand(y);
  const fn_operand from = fn_gpu_operand_broadcast(&kernel->input[0], &y->shape);
  s->copy[s->count++] = fn_gpu_copy_make(&y->shape, &to, &from);
  return FN_OK;
}

static fn_status prepare_permute(fn_gpu_platform *platform, fn_kernel *kernel) {
  copy_state *s;
  FN_TRY(copy_state_create(platform, kernel, &s));
  const fn_permute_attrs *attrs = kernel->node->attrs;
  const fn_tensor *y = &kernel->output[0];
  const fn_operand to = fn_gpu_operand(y), own = fn_gpu_operand(&kernel->input[0]);
  fn_operand from = own;
  for (int a = 0; a < y->shape.ndim; a++)
    from.stride[a] = own.stride[attrs->order[a]];
  s->copy[s->count++] = fn_gpu_copy_make(&y->shape, &to, &from);
  return FN_OK;
}

/** Both sides are plain and dense: see the plan. */
static fn_status prepare_reshape(fn_gpu_platform *platform, fn_kernel *kernel) {
  copy_state *s;
  FN_TRY(copy_state_create(platform, kernel, &s));
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const fn_shape flat = {1, {fn_shape_count(&y->shape)}};
  const fn_operand to = {y->data, y->dtype, {1}}, from = {x->data, x->dtype, {1}};
  s->copy[s->count++] = fn_gpu_copy_make(&flat, &to, &from);
  return FN_OK;
}

static fn_status prepare_concat(fn_gpu_platform *platform, fn_kernel *kernel) {
  copy_state *s;
  FN_TRY(copy_state_create(platform, kernel, &s));
  const int axis = ((const fn_concat_attrs *)kernel->node->attrs)->axis;
  int64_t start[FN_MAX_DIMS] = {0};
  for (int i = 0; i < kernel->node->input_count; i++) {
    const fn_tensor *x = &kernel->input[i];
    const fn_operand from = fn_gpu_operand(x);
    fn_operand to = fn_gpu_operand(&kernel->output[0]);
    fn_gpu_operand_move(&to, x->shape.ndim, start);
    s->copy[s->count++] = fn_gpu_copy_make(&x->shape, &to, &from);
    start[axis] += x->shape.dim[axis];
  }
  return FN_OK;
}

/* ---- addition into a window
 * ---------------------------------------------------------------------- */

typedef struct add_state {
  fn_gpu_state base;
  bool in_place; /**< the result lies where input 0 does */
  fn_gpu_copy_plan copy;
  fn_map2_args add;
} add_state;

static fn_status run_add_window(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const add_state *s = kernel->state;
  if (!s->in_place) FN_TRY(fn_gpu_copy_run(s->base.platform, &s->copy));
  return fn_gpu_launch(s->base.platform, map2, fn_gpu_blocks(s->add.loop.count, 1), &s->add);
}

static fn_status prepare_add_window(fn_gpu_platform *platform, fn_kernel *kernel) {
  add_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *a = &kernel->input[0], *b = &kernel->input[1], *y = &kernel->output[0];
  const fn_operand from = fn_gpu_operand(a), to = fn_gpu_operand(y);
  s->in_place = a->data == y->data;
  s->copy = fn_gpu_copy_make(&y->shape, &to, &from);
  fn_operand window = to;
  fn_gpu_operand_move(&window, y->shape.ndim, attrs->start);
  const fn_operand operand[3] = {window, window, fn_gpu_operand(b)};
  s->add = (fn_map2_args){.y = window.data,
                          .a = window.data,
                          .b = b->data,
                          .y_dtype = (int)y->dtype,
                          .a_dtype = (int)y->dtype,
                          .b_dtype = (int)b->dtype,
                          .kind = FN_ADD,
                          .loop = fn_gpu_loop(&b->shape, 3, operand, true)};
  kernel->run = run_add_window;
  return FN_OK;
}

/* ---- padding
 * ------------------------------------------------------------------------------------- */

typedef struct pad_state {
  fn_gpu_state base;
  fn_pad_args args;
} pad_state;

static fn_status run_pad(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const pad_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, pad, fn_gpu_blocks(s->args.count, 1), &s->args);
}

/** Whether axis 0 can be handled in fours: no window along it, and aligned. */
static bool pad_wide(const fn_pad_args *a, const fn_tensor *y, const fn_tensor *x) {
  const fn_tensor *both[2] = {y, x};
  const int64_t *stride[2] = {a->y_stride, a->x_stride};
  bool wide =
      a->start[0] == 0 && a->length[0] == a->size[0].by && a->size[0].by % FN_GPU_WIDTH == 0;
  for (int k = 0; k < 2; k++) {
    wide = wide && stride[k][0] == 1;
    wide = wide && fn_gpu_aligned(both[k]->data, both[k]->dtype);
    for (int axis = 1; axis < a->axes; axis++)
      wide = wide && stride[k][axis] % FN_GPU_WIDTH == 0;
  }
  return wide;
}

static fn_status prepare_pad(fn_gpu_platform *platform, fn_kernel *kernel) {
  pad_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const fn_operand from = fn_gpu_operand(x), to = fn_gpu_operand(y);
  fn_pad_args *a = &s->args;
  *a = (fn_pad_args){.y = y->data,
                     .x = x->data,
                     .y_dtype = (int)y->dtype,
                     .x_dtype = (int)x->dtype,
                     .periodic = kernel->node->op == &fn_op_pad_periodic,
                     .axes = y->shape.ndim,
                     .width = 1,
                     .count = fn_shape_count(&y->shape)};
  const bool last = y->block > 1; // channels are the fastest axis
  const int ndim = y->shape.ndim;
  for (int k = 0; k < ndim; k++) {
    const int plain = ndim - 1 - k;
    const int axis = !last || plain == 0 ? plain : k == 0 ? 1 : plain + 1;
    a->size[k] = fn_gpu_divider(y->shape.dim[axis]);
    a->start[k] = attrs->start[axis];
    a->length[k] = x->shape.dim[axis];
    a->y_stride[k] = to.stride[axis];
    a->x_stride[k] = from.stride[axis];
  }
  if (ndim > 0 && pad_wide(a, y, x)) {
    a->width = FN_GPU_WIDTH;
    a->size[0] = fn_gpu_divider(a->size[0].by / FN_GPU_WIDTH);
    a->length[0] /= FN_GPU_WIDTH;
    a->y_stride[0] = a->x_stride[0] = FN_GPU_WIDTH;
    a->count /= FN_GPU_WIDTH;
  }
  kernel->run = run_pad;
  return FN_OK;
}

typedef struct fold_state {
  fn_gpu_state base;
  fn_fold_periodic_args args;
} fold_state;

static fn_status run_fold(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fold_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, fold_periodic, fn_gpu_blocks(s->args.loop.count, 1),
                       &s->args);
}

static fn_status prepare_fold(fn_gpu_platform *platform, fn_kernel *kernel) {
  fold_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *y = &kernel->input[0], *x = &kernel->output[0];
  s->args.x = fn_gpu_view(x);
  s->args.y = fn_gpu_view(y);
  for (int a = 2; a < x->shape.ndim; a++)
    s->args.start[3 - (x->shape.ndim - a)] = attrs->start[a];
  s->args.loop = fn_gpu_cell_loop(&x->shape, fn_gpu_view_wide(x) && fn_gpu_view_wide(y));
  kernel->run = run_fold;
  return FN_OK;
}

/* ---- plans
 * --------------------------------------------------------------------------------------- */

/** All of them as input 0 lies. */
static void plan_follow(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  const bool plain = current[0] == 1;
  for (int i = 0; i < node->input_count && plain; i++)
    plan->in_block[i] = 1;
  if (plain) plan->out_block[0] = 1;
  if (node->op == &fn_op_add_window && fn_gpu_same(node, 0, 0)) plan->in_place[0] = 1;
}

/** Any source will do. */
static void plan_any_input(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  for (int i = 0; i < node->input_count; i++)
    plan->in_block[i] = current[i];
}

static void plan_plain(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)node;
  (void)current;
  plan->in_block[0] = plan->out_block[0] = 1;
  plan->strided_in[0] = plan->strided_out[0] = false;
}

const fn_gpu_op fn_gpu_window_ops[] = {
    {&fn_op_crop, NULL, plan_follow, prepare_crop},
    {&fn_op_pad_zero, NULL, plan_follow, prepare_pad},
    {&fn_op_pad_periodic, NULL, plan_follow, prepare_pad},
    {&fn_op_pad_periodic_grad, NULL, NULL, prepare_fold},
    {&fn_op_add_window, NULL, plan_follow, prepare_add_window},
    {&fn_op_concat, NULL, plan_follow, prepare_concat},
    {&fn_op_permute, NULL, plan_any_input, prepare_permute},
    {&fn_op_broadcast, NULL, plan_any_input, prepare_broadcast},
    {&fn_op_reshape, NULL, plan_plain, prepare_reshape},
    {0},
};
