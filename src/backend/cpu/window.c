/* Windows of tensors: crop, zero padding, adding into a window, joining. All are loops over rows of
 * the last axis, block lanes included. Channel offsets are multiples of the block, else the
 * operator asks for the plain layout. */
#include "backend/cpu/grid.h"

/** Rows common to a tensor and a window of it. */
typedef struct window {
  int outer;                      /**< axes but the last */
  int64_t dim[FN_MAX_DIMS];       /**< of the window; channels count blocks */
  int64_t stride[2][FN_MAX_DIMS]; /**< whole, part; elements */
  int64_t first;                  /**< offset of the window in the whole, elements */
  int64_t length;                 /**< elements per row */
  int64_t rows;
} window;

/** part lies in `whole` from `start`; both have the same block. */
static window window_of(const fn_tensor *whole, const fn_tensor *part, const int64_t *start) {
  const int ndim = part->shape.ndim;
  const int64_t block = part->block;
  window w = {.outer = ndim > 0 ? ndim - 1 : 0, .length = 1, .rows = 1};
  for (int a = 0; a < ndim; a++) {
    const bool blocked = a == 1 && block > 1;
    w.dim[a] = blocked ? fn_ceil_div(part->shape.dim[a], block) : part->shape.dim[a];
    w.stride[0][a] = fn_cpu_axis_stride(whole, a);
    w.stride[1][a] = fn_cpu_axis_stride(part, a);
    w.first += (blocked ? start[a] / block : start[a]) * w.stride[0][a];
  }
  // Rows that continue one another in both tensors are one.
  if (ndim > 0) w.length = w.dim[ndim - 1] * block;
  while (w.outer > 0 && w.stride[0][w.outer - 1] == w.length &&
         w.stride[1][w.outer - 1] == w.length) {
    w.outer--;
    w.length *= w.dim[w.outer];
  }
  for (int a = 0; a < w.outer; a++)
    w.rows *= w.dim[a];
  return w;
}

static void row_at(const window *w, int64_t row, int64_t *whole, int64_t *part) {
  *whole = w->first;
  *part = 0;
  for (int a = w->outer - 1; a >= 0; a--) {
    const int64_t i = row % w->dim[a];
    row /= w->dim[a];
    *whole += i * w->stride[0][a];
    *part += i * w->stride[1][a];
  }
}

typedef enum motion { TAKE, PUT, ADD } motion; // whole -> part, part -> whole, whole += part

/** One piece of a row, at most FN_CHUNK elements. */
static void move_piece(const fn_tensor *whole, int64_t at, const fn_tensor *part, int64_t from,
                       int64_t count, motion how) {
  float left[FN_CHUNK], right[FN_CHUNK], out[FN_CHUNK];
  const fn_tensor *target = how == TAKE ? part : whole;
  const int64_t to = how == TAKE ? from : at;
  const float *p = how == TAKE ? NULL : fn_load(part, from, count, right);
  const float *w = how == PUT ? NULL : fn_load(whole, at, count, left);
  float *result = fn_target(target, to, out);
  if (how == ADD) {
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
      result[i] = w[i] + p[i];
  } else {
    memcpy(result, how == TAKE ? w : p, (size_t)count * sizeof *result);
  }
  fn_store(target, to, count, result);
}

static void move(const fn_tensor *whole, const fn_tensor *part, const int64_t *start, motion how) {
  const window w = window_of(whole, part, start);
  const int64_t pieces = fn_ceil_div(w.length, FN_CHUNK);
#pragma omp parallel for schedule(static) if (w.rows * pieces > 1)
  for (int64_t i = 0; i < w.rows * pieces; i++) {
    int64_t at, from;
    row_at(&w, i / pieces, &at, &from);
    const int64_t first = i % pieces * FN_CHUNK;
    move_piece(whole, at + first, part, from + first, fn_min_of(FN_CHUNK, w.length - first), how);
  }
}

static void copy(const fn_tensor *to, const fn_tensor *from) {
  if (to->data == from->data) return;
  const int64_t start[FN_MAX_DIMS] = {0};
  move(from, to, start, TAKE);
}

/* ---- operators
 * ----------------------------------------------------------------------------------- */

static fn_status run_crop(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  move(x, y, attrs->start, TAKE);
  // A window that ends inside a block of x takes channels along that do not belong to it.
  if (y->block > 1 && attrs->start[1] + y->shape.dim[1] < x->shape.dim[1]) fn_cpu_zero_padding(y);
  return FN_OK;
}

static fn_status run_pad_zero(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = kernel->node->attrs;
  fn_cpu_zero(&kernel->output[0]);
  move(&kernel->output[0], &kernel->input[0], attrs->start, PUT);
  return FN_OK;
}

static fn_status run_add_window(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = kernel->node->attrs;
  copy(&kernel->output[0], &kernel->input[0]);
  move(&kernel->output[0], &kernel->input[1], attrs->start, ADD);
  return FN_OK;
}

static fn_status run_concat(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const int axis = ((const fn_concat_attrs *)kernel->node->attrs)->axis;
  const fn_tensor *y = &kernel->output[0];
  int64_t start[FN_MAX_DIMS] = {0};
  for (int i = 0; i < kernel->node->input_count; i++) {
    const fn_tensor *x = &kernel->input[i];
    const window w = window_of(y, x, start);
    const char *there = (const char *)y->data + (size_t)w.first * fn_dtype_size(y->dtype);
    const bool placed = fn_batch(&x->shape) == 1 || x->batch_stride == y->batch_stride;
    if (x->data != there || !placed) move(y, x, start, PUT);
    start[axis] += x->shape.dim[axis];
  }
  return FN_OK;
}

static fn_status prepare_crop(fn_kernel *kernel) {
  kernel->run = run_crop;
  return FN_OK;
}
static fn_status prepare_pad_zero(fn_kernel *kernel) {
  kernel->run = run_pad_zero;
  return FN_OK;
}
static fn_status prepare_add_window(fn_kernel *kernel) {
  kernel->run = run_add_window;
  return FN_OK;
}
static fn_status prepare_concat(fn_kernel *kernel) {
  kernel->run = run_concat;
  return FN_OK;
}

/** The layout of the inputs when the window starts at a block's first channel. */
static void plan_window(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  const fn_window_attrs *attrs = node->attrs;
  int64_t block = fn_cpu_common_block(node, current);
  if (node->output[0]->shape.ndim < 3 || attrs->start[1] % block != 0) block = 1;
  fn_cpu_plan_block(node, block, plan);
  if (node->op == &fn_op_add_window && fn_cpu_same(node, 0, 0)) plan->in_place[0] = 1;
}

static void plan_concat(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  const int axis = ((const fn_concat_attrs *)node->attrs)->axis;
  int64_t block = fn_cpu_common_block(node, current);
  for (int i = 0; axis == 1 && i < node->input_count - 1; i++) {
    if (node->input[i]->shape.dim[1] % block != 0) block = 1;
  }
  fn_cpu_plan_block(node, block, plan);
}

const fn_cpu_op fn_cpu_window_ops[] = {
    {&fn_op_crop, NULL, plan_window, prepare_crop},
    {&fn_op_pad_zero, NULL, plan_window, prepare_pad_zero},
    {&fn_op_add_window, NULL, plan_window, prepare_add_window},
    {&fn_op_concat, NULL, plan_concat, prepare_concat},
    {0},
};
