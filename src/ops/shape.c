/* Operators that move values: concat, windows, padding, reshape, permute. */
#include <string.h>

#include "ops/ops.h"
#include "ops/walk.h"

/** Scatter or gather between a tensor and a window of a larger one, visited in C order:
 *  offset[0] runs over the small tensor, offset[1] over the window. */
static fn_walk window_walk(const fn_shape *small, const fn_shape *large, const int64_t *start) {
  fn_walk walk = {.shape = *small};
  fn_dense_strides(small, walk.stride[0]);
  fn_dense_strides(large, walk.stride[1]);
  for (int a = 0; a < small->ndim; a++)
    walk.offset[1] += start[a] * walk.stride[1][a];
  return walk;
}

/** Check that window [start, start + small) lies inside `large`. */
static fn_status check_window(const char *name, const fn_shape *small, const fn_shape *large,
                              const int64_t *start) {
  char ts[96], tl[96];
  FN_CHECK(small->ndim == large->ndim, FN_ERR_CONFIG, "%s: %s and %s differ in the number of axes",
           name, fn_shape_text(small, ts, sizeof ts), fn_shape_text(large, tl, sizeof tl));
  for (int a = 0; a < small->ndim; a++)
    FN_CHECK(start[a] >= 0 && small->dim[a] > 0 && start[a] + small->dim[a] <= large->dim[a],
             FN_ERR_CONFIG, "%s: axis %d has no cells [%lld, %lld): %s is a window of %s", name, a,
             (long long)start[a], (long long)(start[a] + small->dim[a]),
             fn_shape_text(small, ts, sizeof ts), fn_shape_text(large, tl, sizeof tl));
  return FN_OK;
}

/* ---- concat
 * ----------------------------------------------------------------------------------------- */

static fn_status infer_concat(const fn_node *node, fn_shape *shape) {
  const int axis = ((const fn_concat_attrs *)node->attrs)->axis;
  const fn_shape *first = &node->input[0]->shape;
  char tf[96], ti[96];
  FN_CHECK(axis >= 0 && axis < first->ndim, FN_ERR_CONFIG, "concat: %s has no axis %d",
           fn_shape_text(first, tf, sizeof tf), axis);
  *shape = *first;
  for (int i = 1; i < node->input_count; i++) {
    fn_shape other = node->input[i]->shape;
    const int64_t length = other.dim[axis];
    other.dim[axis] = first->dim[axis];
    FN_CHECK(fn_shape_equal(&other, first), FN_ERR_CONFIG,
             "concat: %s and %s differ outside axis %d", fn_shape_text(first, tf, sizeof tf),
             fn_shape_text(&node->input[i]->shape, ti, sizeof ti), axis);
    shape->dim[axis] += length;
  }
  return FN_OK;
}

static fn_status gradient_concat(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                 const bool *wanted, fn_value **dx) {
  const int axis = ((const fn_concat_attrs *)node->attrs)->axis;
  int64_t start = 0;
  for (int i = 0; i < node->input_count; i++) {
    const int64_t length = node->input[i]->shape.dim[axis];
    if (wanted[i] && dy[0]) dx[i] = fn_narrow(graph, dy[0], axis, start, length);
    start += length;
  }
  return fn_graph_status(graph);
}

static fn_status reference_concat(const fn_node *node, const double *const *in, double *const *out,
                                  const fn_run_context *context) {
  (void)context;
  const int axis = ((const fn_concat_attrs *)node->attrs)->axis;
  int64_t start[FN_MAX_DIMS] = {0};
  for (int i = 0; i < node->input_count; i++) {
    fn_walk walk = window_walk(&node->input[i]->shape, &node->output[0]->shape, start);
    do
      out[0][walk.offset[1]] = in[i][walk.offset[0]];
    while (fn_walk_next(&walk));
    start[axis] += node->input[i]->shape.dim[axis];
  }
  return FN_OK;
}

const fn_op fn_op_concat = {.name = "concat",
                            .attrs_size = sizeof(fn_concat_attrs),
                            .flags = FN_OP_FOLLOWS_BF16,
                            .infer = infer_concat,
                            .gradient = gradient_concat,
                            .reference = reference_concat,
                            .flops = fn_flops_none};

fn_value *fn_concat(fn_graph *graph, fn_value *const *values, int count, int axis) {
  for (int i = 0; i < count; i++)
    if (!values[i]) return NULL;
  if (count < 1 || count > FN_MAX_PORTS) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "concat: 1 to %d values can be joined, found %d",
                  FN_MAX_PORTS, count);
    return NULL;
  }
  if (count == 1) return values[0];
  return fn_node_append(graph, &fn_op_concat, values, count, 1, &(fn_concat_attrs){axis}, 0);
}

/* ---- crop
 * --------------------------------------------------------------------------------------------- */

static fn_status infer_crop(const fn_node *node, fn_shape *shape) {
  const fn_window_attrs *attrs = node->attrs;
  *shape = attrs->shape;
  return check_window("crop", &attrs->shape, &node->input[0]->shape, attrs->start);
}

static fn_status gradient_crop(fn_graph *graph, fn_node *node, fn_value *const *dy,
                               const bool *wanted, fn_value **dx) {
  const fn_window_attrs *attrs = node->attrs;
  if (wanted[0] && dy[0]) dx[0] = fn_pad_axes(graph, dy[0], attrs->start, &node->input[0]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_crop(const fn_node *node, const double *const *in, double *const *out,
                                const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = node->attrs;
  fn_walk walk = window_walk(&attrs->shape, &node->input[0]->shape, attrs->start);
  do
    out[0][walk.offset[0]] = in[0][walk.offset[1]];
  while (fn_walk_next(&walk));
  return FN_OK;
}

const fn_op fn_op_crop = {.name = "crop",
                          .attrs_size = sizeof(fn_window_attrs),
                          .flags = FN_OP_FOLLOWS_BF16,
                          .infer = infer_crop,
                          .gradient = gradient_crop,
                          .reference = reference_crop,
                          .flops = fn_flops_none};

static fn_window_attrs window_attrs(const int64_t *start, const fn_shape *shape) {
  fn_window_attrs attrs = {.shape = *shape};
  memcpy(attrs.start, start, (size_t)shape->ndim * sizeof *start);
  return attrs;
}

/** Whether the window is the whole tensor, so that crop and pad are identities. */
static bool is_whole(const fn_shape *x, const int64_t *start, const fn_shape *shape) {
  for (int a = 0; a < shape->ndim; a++)
    if (start[a] != 0) return false;
  return fn_shape_equal(x, shape);
}

fn_value *fn_crop_axes(fn_graph *graph, fn_value *x, const int64_t *start, const fn_shape *shape) {
  if (!x || is_whole(&x->shape, start, shape)) return x;
  const fn_window_attrs attrs = window_attrs(start, shape);
  return fn_node_append(graph, &fn_op_crop, &x, 1, 1, &attrs, 0);
}

fn_value *fn_narrow(fn_graph *graph, fn_value *x, int axis, int64_t start, int64_t length) {
  if (!x) return NULL;
  if (axis < 0 || axis >= x->shape.ndim) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "narrow: a value of %d axes has no axis %d", x->shape.ndim,
                  axis);
    return NULL;
  }
  int64_t first[FN_MAX_DIMS] = {0};
  fn_shape shape = x->shape;
  first[axis] = start;
  shape.dim[axis] = length;
  return fn_crop_axes(graph, x, first, &shape);
}

/** Fails and gives false unless x has axes [N, C, spatial...]. */
static bool has_space(fn_graph *graph, const fn_value *x, const char *name) {
  if (x && fn_spatial(x) >= 1 && fn_spatial(x) <= FN_MAX_SPATIAL) return true;
  char text[96];
  if (x)
    fn_graph_fail(graph, FN_ERR_CONFIG, "%s: expected [N, C, 1 to 3 spatial axes], found %s", name,
                  fn_shape_text(&x->shape, text, sizeof text));
  return false;
}

fn_value *fn_crop(fn_graph *graph, fn_value *x, const int64_t *start, const int64_t *length) {
  if (!has_space(graph, x, "crop")) return NULL;
  int64_t first[FN_MAX_DIMS] = {0};
  fn_shape shape = x->shape;
  for (int d = 0; d < fn_spatial(x); d++) {
    first[2 + d] = start[d];
    shape.dim[2 + d] = length[d];
  }
  return fn_crop_axes(graph, x, first, &shape);
}

fn_value *fn_crop_like(fn_graph *graph, fn_value *x, const fn_value *like) {
  if (!like || !has_space(graph, x, "crop_like")) return NULL;
  char tx[96], tl[96];
  int64_t start[FN_MAX_SPATIAL] = {0}, length[FN_MAX_SPATIAL] = {0};
  bool ok = fn_ndim(like) == fn_ndim(x);
  for (int d = 0; ok && d < fn_spatial(x); d++) {
    length[d] = fn_dim(like, 2 + d);
    start[d] = (fn_dim(x, 2 + d) - length[d]) / 2;
    ok = fn_dim(x, 2 + d) >= length[d];
  }
  if (!ok) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "crop_like: %s does not contain %s",
                  fn_shape_text(&x->shape, tx, sizeof tx),
                  fn_shape_text(&like->shape, tl, sizeof tl));
    return NULL;
  }
  return fn_crop(graph, x, start, length);
}

/* ---- padding with zeros
 * ------------------------------------------------------------------------------- */

static fn_status infer_pad_zero(const fn_node *node, fn_shape *shape) {
  const fn_window_attrs *attrs = node->attrs;
  *shape = attrs->shape;
  return check_window("pad", &node->input[0]->shape, &attrs->shape, attrs->start);
}

static fn_status gradient_pad_zero(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                   const bool *wanted, fn_value **dx) {
  const fn_window_attrs *attrs = node->attrs;
  if (wanted[0] && dy[0]) dx[0] = fn_crop_axes(graph, dy[0], attrs->start, &node->input[0]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_pad_zero(const fn_node *node, const double *const *in,
                                    double *const *out, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = node->attrs;
  memset(out[0], 0, (size_t)fn_shape_count(&attrs->shape) * sizeof(double));
  fn_walk walk = window_walk(&node->input[0]->shape, &attrs->shape, attrs->start);
  do
    out[0][walk.offset[1]] = in[0][walk.offset[0]];
  while (fn_walk_next(&walk));
  return FN_OK;
}

const fn_op fn_op_pad_zero = {.name = "pad_zero",
                              .attrs_size = sizeof(fn_window_attrs),
                              .flags = FN_OP_FOLLOWS_BF16,
                              .infer = infer_pad_zero,
                              .gradient = gradient_pad_zero,
                              .reference = reference_pad_zero,
                              .flops = fn_flops_none};

fn_value *fn_pad_axes(fn_graph *graph, fn_value *x, const int64_t *start, const fn_shape *shape) {
  if (!x || is_whole(&x->shape, start, shape)) return x;
  const fn_window_attrs attrs = window_attrs(start, shape);
  return fn_node_append(graph, &fn_op_pad_zero, &x, 1, 1, &attrs, 0);
}

/* ---- adding into a window
 * ------------------------------------------------------------------------------ */

static fn_status infer_add_window(const fn_node *node, fn_shape *shape) {
  const fn_window_attrs *attrs = node->attrs;
  *shape = node->input[0]->shape;
  return check_window("add_window", &node->input[1]->shape, shape, attrs->start);
}

static fn_status gradient_add_window(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                     const bool *wanted, fn_value **dx) {
  const fn_window_attrs *attrs = node->attrs;
  if (!dy[0]) return FN_OK;
  if (wanted[0]) dx[0] = dy[0];
  if (wanted[1]) dx[1] = fn_crop_axes(graph, dy[0], attrs->start, &node->input[1]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_add_window(const fn_node *node, const double *const *in,
                                      double *const *out, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = node->attrs;
  const fn_shape *shape = &node->output[0]->shape;
  memmove(out[0], in[0], (size_t)fn_shape_count(shape) * sizeof(double));
  fn_walk walk = window_walk(&node->input[1]->shape, shape, attrs->start);
  do
    out[0][walk.offset[1]] += in[1][walk.offset[0]];
  while (fn_walk_next(&walk));
  return FN_OK;
}

static double flops_add_window(const fn_node *node) {
  return (double)fn_shape_count(&node->input[1]->shape);
}

const fn_op fn_op_add_window = {.name = "add_window",
                                .attrs_size = sizeof(fn_window_attrs),
                                .flags = FN_OP_FOLLOWS_BF16,
                                .infer = infer_add_window,
                                .gradient = gradient_add_window,
                                .reference = reference_add_window,
                                .flops = flops_add_window};

fn_value *fn_add_window(fn_graph *graph, fn_value *a, fn_value *b, const int64_t *start) {
  if (!a || !b) return NULL;
  if (is_whole(&a->shape, start, &b->shape)) return fn_add(graph, a, b);
  fn_window_attrs attrs = window_attrs(start, &b->shape);
  fn_value *input[] = {a, b};
  return fn_node_append(graph, &fn_op_add_window, input, 2, 1, &attrs, 0);
}

/* ---- periodic padding
 * ------------------------------------------------------------------------------------ */

/** For every cell of the padded tensor, in C order, the offset of the cell of the inner one that it
 *  copies; calls with padded and inner exchanged make the adjoint. */
static int64_t wrapped_offset(const fn_walk *walk, const fn_shape *inner, const int64_t *stride,
                              const int64_t *low) {
  int64_t offset = 0;
  for (int a = 0; a < inner->ndim; a++) {
    const int64_t n = inner->dim[a], i = (walk->index[a] - low[a]) % n;
    offset += (i < 0 ? i + n : i) * stride[a];
  }
  return offset;
}

/** Check that `padded` equals `inner` on the first two axes and is not smaller on the others. */
static fn_status check_periodic(const fn_shape *inner, const fn_shape *padded,
                                const int64_t *start) {
  char ti[96], tp[96];
  bool ok = inner->ndim == padded->ndim && inner->ndim > 2;
  for (int a = 0; ok && a < inner->ndim; a++)
    ok = a < 2 ? start[a] == 0 && inner->dim[a] == padded->dim[a]
               : start[a] >= 0 && start[a] + inner->dim[a] <= padded->dim[a];
  FN_CHECK(ok, FN_ERR_CONFIG, "periodic padding cannot make %s from %s",
           fn_shape_text(padded, tp, sizeof tp), fn_shape_text(inner, ti, sizeof ti));
  return FN_OK;
}

static fn_status infer_pad_periodic(const fn_node *node, fn_shape *shape) {
  const fn_window_attrs *attrs = node->attrs;
  *shape = attrs->shape;
  return check_periodic(&node->input[0]->shape, &attrs->shape, attrs->start);
}

static fn_value *pad_periodic(fn_graph *graph, const fn_op *op, fn_value *x, const int64_t *start,
                              const fn_shape *shape) {
  if (!x) return NULL;
  const fn_window_attrs attrs = window_attrs(start, shape);
  return fn_node_append(graph, op, &x, 1, 1, &attrs, 0);
}

static fn_status gradient_pad_periodic(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                       const bool *wanted, fn_value **dx) {
  const fn_window_attrs *attrs = node->attrs;
  if (wanted[0] && dy[0])
    dx[0] =
        pad_periodic(graph, &fn_op_pad_periodic_grad, dy[0], attrs->start, &node->input[0]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_pad_periodic(const fn_node *node, const double *const *in,
                                        double *const *out, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = node->attrs;
  const fn_shape *inner = &node->input[0]->shape;
  int64_t stride[FN_MAX_DIMS] = {0};
  fn_dense_strides(inner, stride);
  fn_walk walk = {.shape = attrs->shape};
  double *y = out[0];
  do
    *y++ = in[0][wrapped_offset(&walk, inner, stride, attrs->start)];
  while (fn_walk_next(&walk));
  return FN_OK;
}

const fn_op fn_op_pad_periodic = {.name = "pad_periodic",
                                  .attrs_size = sizeof(fn_window_attrs),
                                  .infer = infer_pad_periodic,
                                  .gradient = gradient_pad_periodic,
                                  .reference = reference_pad_periodic,
                                  .flops = fn_flops_none};

static fn_status infer_pad_periodic_grad(const fn_node *node, fn_shape *shape) {
  const fn_window_attrs *attrs = node->attrs;
  *shape = attrs->shape;
  return check_periodic(&attrs->shape, &node->input[0]->shape, attrs->start);
}

static fn_status gradient_pad_periodic_grad(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                            const bool *wanted, fn_value **dx) {
  const fn_window_attrs *attrs = node->attrs;
  if (wanted[0] && dy[0])
    dx[0] = pad_periodic(graph, &fn_op_pad_periodic, dy[0], attrs->start, &node->input[0]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_pad_periodic_grad(const fn_node *node, const double *const *in,
                                             double *const *out, const fn_run_context *context) {
  (void)context;
  const fn_window_attrs *attrs = node->attrs;
  int64_t stride[FN_MAX_DIMS] = {0};
  fn_dense_strides(&attrs->shape, stride);
  memset(out[0], 0, (size_t)fn_shape_count(&attrs->shape) * sizeof(double));
  fn_walk walk = {.shape = node->input[0]->shape};
  const double *y = in[0];
  do
    out[0][wrapped_offset(&walk, &attrs->shape, stride, attrs->start)] += *y++;
  while (fn_walk_next(&walk));
  return FN_OK;
}

static double flops_pad_periodic_grad(const fn_node *node) {
  return (double)fn_shape_count(&node->input[0]->shape);
}

const fn_op fn_op_pad_periodic_grad = {.name = "pad_periodic_grad",
                                       .attrs_size = sizeof(fn_window_attrs),
                                       .infer = infer_pad_periodic_grad,
                                       .gradient = gradient_pad_periodic_grad,
                                       .reference = reference_pad_periodic_grad,
                                       .flops = flops_pad_periodic_grad};

fn_value *fn_pad(fn_graph *graph, fn_value *x, const int64_t *low, const int64_t *high,
                 fn_pad_mode mode) {
  if (!has_space(graph, x, "pad")) return NULL;
  int64_t start[FN_MAX_DIMS] = {0};
  fn_shape shape = x->shape;
  for (int d = 0; d < fn_spatial(x); d++) {
    if (low[d] < 0 || high[d] < 0) {
      fn_graph_fail(graph, FN_ERR_CONFIG, "pad: margins must not be negative, found %lld and %lld",
                    (long long)low[d], (long long)high[d]);
      return NULL;
    }
    start[2 + d] = low[d];
    shape.dim[2 + d] += low[d] + high[d];
  }
  if (mode == FN_PAD_ZERO || fn_shape_equal(&shape, &x->shape))
    return fn_pad_axes(graph, x, start, &shape);
  return pad_periodic(graph, &fn_op_pad_periodic, x, start, &shape);
}

/* ---- reshape
 * -----------------------------------------------------------------------------------------------
 */

static fn_status infer_reshape(const fn_node *node, fn_shape *shape) {
  const fn_reshape_attrs *attrs = node->attrs;
  char tx[96], ty[96];
  *shape = attrs->shape;
  FN_CHECK(fn_shape_count(shape) == fn_shape_count(&node->input[0]->shape), FN_ERR_CONFIG,
           "reshape: %s and %s differ in the number of elements",
           fn_shape_text(&node->input[0]->shape, tx, sizeof tx),
           fn_shape_text(shape, ty, sizeof ty));
  return FN_OK;
}

static fn_status gradient_reshape(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                  const bool *wanted, fn_value **dx) {
  if (wanted[0] && dy[0]) dx[0] = fn_reshape(graph, dy[0], &node->input[0]->shape);
  return fn_graph_status(graph);
}

static fn_status reference_reshape(const fn_node *node, const double *const *in, double *const *out,
                                   const fn_run_context *context) {
  (void)context;
  memmove(out[0], in[0], (size_t)fn_shape_count(&node->output[0]->shape) * sizeof(double));
  return FN_OK;
}

const fn_op fn_op_reshape = {.name = "reshape",
                             .attrs_size = sizeof(fn_reshape_attrs),
                             .infer = infer_reshape,
                             .gradient = gradient_reshape,
                             .reference = reference_reshape,
                             .flops = fn_flops_none};

fn_value *fn_reshape(fn_graph *graph, fn_value *x, const fn_shape *shape) {
  double constant;
  if (!x || fn_shape_equal(&x->shape, shape)) return x;
  if (fn_is_constant(x, &constant)) return fn_fill(graph, shape, constant);
  return fn_node_append(graph, &fn_op_reshape, &x, 1, 1, &(fn_reshape_attrs){*shape}, 0);
}

/* ---- permute
 * -------------------------------------------------------------------------------------------------
 */

static fn_status infer_permute(const fn_node *node, fn_shape *shape) {
  const fn_permute_attrs *attrs = node->attrs;
  const fn_shape *x = &node->input[0]->shape;
  unsigned seen = 0;
  *shape = *x;
  for (int a = 0; a < x->ndim; a++) {
    const int from = attrs->order[a];
    FN_CHECK(from >= 0 && from < x->ndim && !(seen >> from & 1), FN_ERR_CONFIG,
             "permute: the order of %d axes must name each of them once, entry %d is %d", x->ndim,
             a, from);
    seen |= 1u << from;
    shape->dim[a] = x->dim[from];
  }
  return FN_OK;
}

static fn_status gradient_permute(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                  const bool *wanted, fn_value **dx) {
  const fn_permute_attrs *attrs = node->attrs;
  int inverse[FN_MAX_DIMS] = {0};
  for (int a = 0; a < node->input[0]->shape.ndim; a++)
    inverse[attrs->order[a]] = a;
  if (wanted[0] && dy[0]) dx[0] = fn_permute(graph, dy[0], inverse);
  return fn_graph_status(graph);
}

static fn_status reference_permute(const fn_node *node, const double *const *in, double *const *out,
                                   const fn_run_context *context) {
  (void)context;
  const fn_permute_attrs *attrs = node->attrs;
  int64_t stride[FN_MAX_DIMS] = {0};
  fn_walk walk = {.shape = node->output[0]->shape};
  fn_dense_strides(&node->input[0]->shape, stride);
  for (int a = 0; a < walk.shape.ndim; a++)
    walk.stride[0][a] = stride[attrs->order[a]];
  double *y = out[0];
  do
    *y++ = in[0][walk.offset[0]];
  while (fn_walk_next(&walk));
  return FN_OK;
}

const fn_op fn_op_permute = {.name = "permute",
                             .attrs_size = sizeof(fn_permute_attrs),
                             .infer = infer_permute,
                             .gradient = gradient_permute,
                             .reference = reference_permute,
                             .flops = fn_flops_none};

fn_value *fn_permute(fn_graph *graph, fn_value *x, const int *order) {
  if (!x) return NULL;
  fn_permute_attrs attrs = {{0}};
  bool same = true;
  for (int a = 0; a < x->shape.ndim; a++) {
    attrs.order[a] = order[a];
    same = same && order[a] == a;
  }
  return same ? x : fn_node_append(graph, &fn_op_permute, &x, 1, 1, &attrs, 0);
}
