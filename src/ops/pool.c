/* Average and maximum over sliding windows. */
#include <math.h>

#include "ops/geometry.h"
#include "ops/ops.h"

/** Shape y [N, C, o...] of pooling x [N, C, s...]. */
static fn_status pool_shape(const char *what, const fn_shape *x, const fn_pool_attrs *attrs,
                            fn_shape *y) {
  char text[FN_SHAPE_TEXT];
  const fn_conv_geometry *geometry = &attrs->geometry;
  fn_shape_text(x, text, sizeof text);
  FN_CHECK(x->ndim >= 3 && x->ndim <= 2 + FN_MAX_SPATIAL, FN_ERR_CONFIG,
           "%s: input is %s, expected [N, C, s...] with 1 to %d spatial axes", what, text,
           FN_MAX_SPATIAL);
  FN_TRY(fn_geometry_check(what, geometry, x->ndim - 2));
  FN_CHECK(geometry->groups == 1, FN_ERR_CONFIG, "%s: groups is %lld, pooling has none", what,
           (long long)geometry->groups);
  *y = *x;
  for (int d = 0; d < x->ndim - 2; d++) {
    const long long kernel = attrs->kernel[d], low = geometry->pad_low[d];
    const long long high = geometry->pad_high[d];
    FN_CHECK(geometry->dilation[d] == 1, FN_ERR_CONFIG,
             "%s: dilation of spatial axis %d is %lld, pooling has only 1", what, d,
             (long long)geometry->dilation[d]);
    FN_CHECK(
        kernel >= 1 && low < kernel && high < kernel, FN_ERR_CONFIG,
        "%s: kernel of spatial axis %d is %lld with padding %lld and %lld, expected a positive "
        "kernel larger than the padding",
        what, d, kernel, low, high);
    y->dim[2 + d] = fn_geometry_length(geometry, d, x->dim[2 + d], kernel);
    FN_CHECK(y->dim[2 + d] >= 1, FN_ERR_CONFIG,
             "%s: kernel of %lld cells does not fit in input %s along spatial axis %d (padding "
             "%lld + %lld)",
             what, kernel, text, d, low, high);
  }
  return FN_OK;
}

static fn_status average_infer(const fn_node *node, fn_shape *shape) {
  return pool_shape("average pool", &node->input[0]->shape, node->attrs, &shape[0]);
}

static fn_status average_grad_infer(const fn_node *node, fn_shape *shape) {
  const char *what = "gradient of average pool";
  const fn_pool_attrs *attrs = node->attrs;
  fn_shape y;
  FN_TRY(pool_shape(what, &attrs->extent, attrs, &y));
  shape[0] = attrs->extent;
  return fn_shape_check(what, "output gradient", &node->input[0]->shape, &y);
}

static fn_status max_infer(const fn_node *node, fn_shape *shape) {
  return pool_shape("max pool", &node->input[0]->shape, node->attrs, &shape[0]);
}

static fn_status max_grad_infer(const fn_node *node, fn_shape *shape) {
  const char *what = "gradient of max pool";
  fn_shape y;
  shape[0] = node->input[1]->shape;
  FN_TRY(pool_shape(what, &shape[0], node->attrs, &y));
  return fn_shape_check(what, "output gradient", &node->input[0]->shape, &y);
}

static fn_status max_gather_infer(const fn_node *node, fn_shape *shape) {
  const char *what = "gather of max pool";
  const fn_shape *x = &node->input[1]->shape;
  FN_TRY(fn_shape_check(what, "first input", &node->input[0]->shape, x));
  return pool_shape(what, x, node->attrs, &shape[0]);
}

/* ---- gradients: both operators are linear (in y, or for the maximum once x has chosen)
 * ----------- */

static fn_status average_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                  const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  fn_pool_attrs attrs = *(const fn_pool_attrs *)node->attrs;
  attrs.extent = node->input[0]->shape;
  dx[0] = fn_node_append(graph, &fn_op_average_pool_grad, dy, 1, 1, &attrs, 0);
  return fn_graph_status(graph);
}

static fn_status average_grad_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                       const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  dx[0] = fn_node_append(graph, &fn_op_average_pool, dy, 1, 1, node->attrs, 0);
  return fn_graph_status(graph);
}

static fn_status max_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                              const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  fn_value *const input[] = {dy[0], node->input[0]};
  dx[0] = fn_node_append(graph, &fn_op_max_pool_grad, input, 2, 1, node->attrs, 0);
  return fn_graph_status(graph);
}

static fn_status max_grad_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                   const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  fn_value *const input[] = {dy[0], node->input[1]};
  dx[0] = fn_node_append(graph, &fn_op_max_pool_gather, input, 2, 1, node->attrs, 0);
  return fn_graph_status(graph);
}

static fn_status max_gather_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                     const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  fn_value *const input[] = {dy[0], node->input[1]};
  dx[0] = fn_node_append(graph, &fn_op_max_pool_grad, input, 2, 1, node->attrs, 0);
  return fn_graph_status(graph);
}

/* ---- reference kernels -------------------------------------------------------------------------
 */

/** Sizes with the spatial axes right-aligned in three. */
typedef struct windows {
  int64_t planes; // batch times channels
  int64_t s[3], o[3], kernel[3], stride[3], pad[3];
  int64_t x_plane, y_plane;
} windows;

static windows windows_of(const fn_shape *x, const fn_shape *y, const fn_pool_attrs *attrs) {
  windows w = {.planes = x->dim[0] * x->dim[1]};
  fn_spatial_sizes(x, w.s);
  fn_spatial_sizes(y, w.o);
  const int missing = 3 - (x->ndim - 2);
  for (int d = 0; d < 3; d++) {
    w.kernel[d] = d < missing ? 1 : attrs->kernel[d - missing];
    w.stride[d] = d < missing ? 1 : attrs->geometry.stride[d - missing];
    w.pad[d] = d < missing ? 0 : attrs->geometry.pad_low[d - missing];
  }
  w.x_plane = w.s[0] * w.s[1] * w.s[2];
  w.y_plane = w.o[0] * w.o[1] * w.o[2];
  return w;
}

/** Cells [first, last) of x under window `index` (C order), padding left out. */
static void window_bounds(const windows *w, int64_t index, int64_t first[3], int64_t last[3]) {
  const int64_t position[3] = {index / (w->o[1] * w->o[2]), index / w->o[2] % w->o[1],
                               index % w->o[2]};
  for (int d = 0; d < 3; d++) {
    first[d] = position[d] * w->stride[d] - w->pad[d];
    last[d] = first[d] + w->kernel[d];
    if (first[d] < 0) first[d] = 0;
    if (last[d] > w->s[d]) last[d] = w->s[d];
  }
}

/** Cell of x [s...] with the largest value under a window: the first in C order, or the first NaN.
 */
static int64_t argmax(const windows *w, const double *x, int64_t index) {
  int64_t first[3], last[3], best = -1;
  window_bounds(w, index, first, last);
  for (int64_t a = first[0]; a < last[0]; a++) {
    for (int64_t b = first[1]; b < last[1]; b++) {
      for (int64_t c = first[2]; c < last[2]; c++) {
        const int64_t cell = (a * w->s[1] + b) * w->s[2] + c;
        const bool first_nan = best >= 0 && isnan(x[cell]) && !isnan(x[best]);
        if (best < 0 || x[cell] > x[best] || first_nan) best = cell;
      }
    }
  }
  return best;
}

static double kernel_cells(const windows *w) {
  return (double)(w->kernel[0] * w->kernel[1] * w->kernel[2]);
}

static fn_status average_reference(const fn_node *node, const double *const *in, double *const *out,
                                   const fn_run_context *context) {
  (void)context;
  const windows w = windows_of(&node->input[0]->shape, &node->output[0]->shape, node->attrs);
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t plane = 0; plane < w.planes; plane++) {
    const double *x = in[0] + plane * w.x_plane;
    for (int64_t index = 0; index < w.y_plane; index++) {
      int64_t first[3], last[3];
      double sum = 0;
      window_bounds(&w, index, first, last);
      for (int64_t a = first[0]; a < last[0]; a++) {
        for (int64_t b = first[1]; b < last[1]; b++) {
          for (int64_t c = first[2]; c < last[2]; c++)
            sum += x[(a * w.s[1] + b) * w.s[2] + c];
        }
      }
      out[0][plane * w.y_plane + index] = sum / kernel_cells(&w);
    }
  }
  return FN_OK;
}

static fn_status average_grad_reference(const fn_node *node, const double *const *in,
                                        double *const *out, const fn_run_context *context) {
  (void)context;
  const windows w = windows_of(&node->output[0]->shape, &node->input[0]->shape, node->attrs);
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t plane = 0; plane < w.planes; plane++) {
    double *dx = out[0] + plane * w.x_plane;
    for (int64_t i = 0; i < w.x_plane; i++)
      dx[i] = 0;
    for (int64_t index = 0; index < w.y_plane; index++) {
      int64_t first[3], last[3];
      const double share = in[0][plane * w.y_plane + index] / kernel_cells(&w);
      window_bounds(&w, index, first, last);
      for (int64_t a = first[0]; a < last[0]; a++) {
        for (int64_t b = first[1]; b < last[1]; b++) {
          for (int64_t c = first[2]; c < last[2]; c++)
            dx[(a * w.s[1] + b) * w.s[2] + c] += share;
        }
      }
    }
  }
  return FN_OK;
}

/** y = values where x has its maxima. */
static void gather(const fn_node *node, const windows *w, const double *values, const double *x,
                   double *y) {
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t plane = 0; plane < w->planes; plane++) {
    const int64_t start = plane * w->x_plane;
    for (int64_t index = 0; index < w->y_plane; index++) {
      y[plane * w->y_plane + index] = values[start + argmax(w, x + start, index)];
    }
  }
}

static fn_status max_reference(const fn_node *node, const double *const *in, double *const *out,
                               const fn_run_context *context) {
  (void)context;
  const windows w = windows_of(&node->input[0]->shape, &node->output[0]->shape, node->attrs);
  gather(node, &w, in[0], in[0], out[0]);
  return FN_OK;
}

static fn_status max_gather_reference(const fn_node *node, const double *const *in,
                                      double *const *out, const fn_run_context *context) {
  (void)context;
  const windows w = windows_of(&node->input[0]->shape, &node->output[0]->shape, node->attrs);
  gather(node, &w, in[0], in[1], out[0]);
  return FN_OK;
}

static fn_status max_grad_reference(const fn_node *node, const double *const *in,
                                    double *const *out, const fn_run_context *context) {
  (void)context;
  const windows w = windows_of(&node->input[1]->shape, &node->input[0]->shape, node->attrs);
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t plane = 0; plane < w.planes; plane++) {
    const double *x = in[1] + plane * w.x_plane;
    double *dx = out[0] + plane * w.x_plane;
    for (int64_t i = 0; i < w.x_plane; i++)
      dx[i] = 0;
    for (int64_t index = 0; index < w.y_plane; index++) {
      dx[argmax(&w, x, index)] += in[0][plane * w.y_plane + index];
    }
  }
  return FN_OK;
}

/** One operation per cell of each window. */
static double pool_flops(const fn_node *node) {
  const fn_pool_attrs *attrs = node->attrs;
  const fn_shape *input = &node->input[0]->shape, *output = &node->output[0]->shape;
  double cells = (double)fn_shape_count(input);
  if (fn_shape_count(output) < fn_shape_count(input)) cells = (double)fn_shape_count(output);
  for (int d = 0; d < output->ndim - 2; d++)
    cells *= (double)attrs->kernel[d];
  return cells;
}

#define POOL_OP(text, prefix)                                                                      \
  {                                                                                                \
    .name = text, .attrs_size = sizeof(fn_pool_attrs), .flags = FN_OP_FOLLOWS_BF16,                \
    .infer = prefix##_infer, .gradient = prefix##_gradient, .reference = prefix##_reference,       \
    .flops = pool_flops                                                                            \
  }

const fn_op fn_op_average_pool = POOL_OP("average_pool", average);
const fn_op fn_op_average_pool_grad = POOL_OP("average_pool_grad", average_grad);
const fn_op fn_op_max_pool = POOL_OP("max_pool", max);
const fn_op fn_op_max_pool_grad = POOL_OP("max_pool_grad", max_grad);
const fn_op fn_op_max_pool_gather = POOL_OP("max_pool_gather", max_gather);

/* ---- builders ----------------------------------------------------------------------------------
 */

static fn_value *append_pool(fn_graph *graph, const fn_op *op, fn_value *x, const int64_t *kernel,
                             const fn_conv_geometry *geometry) {
  if (!x) return NULL;
  const int spatial = fn_spatial(x);
  fn_pool_attrs attrs = {.geometry = fn_geometry_complete(geometry, spatial)};
  for (int d = 0; d < FN_MAX_SPATIAL; d++)
    attrs.kernel[d] = d < spatial ? kernel[d] : 1;
  attrs.extent = x->shape;
  return fn_node_append(graph, op, &x, 1, 1, &attrs, 0);
}

fn_value *fn_average_pool(fn_graph *graph, fn_value *x, const int64_t *kernel,
                          const fn_conv_geometry *geometry) {
  return append_pool(graph, &fn_op_average_pool, x, kernel, geometry);
}

fn_value *fn_max_pool(fn_graph *graph, fn_value *x, const int64_t *kernel,
                      const fn_conv_geometry *geometry) {
  return append_pool(graph, &fn_op_max_pool, x, kernel, geometry);
}
