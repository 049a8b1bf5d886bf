/* Linear interpolation with half-pixel centres, and its adjoint. */
#include <math.h>
#include <stdlib.h>

#include "ops/geometry.h"
#include "ops/ops.h"

/** Shape y of resampling x [N, C, s...]. */
static fn_status resample_shape(const char *what, const fn_shape *x, const fn_resample_attrs *attrs,
                                fn_shape *y) {
  char text[FN_SHAPE_TEXT];
  fn_shape_text(x, text, sizeof text);
  FN_CHECK(x->ndim >= 3 && x->ndim <= 2 + FN_MAX_SPATIAL, FN_ERR_CONFIG,
           "%s: input is %s, expected [N, C, s...] with 1 to %d spatial axes", what, text,
           FN_MAX_SPATIAL);
  FN_CHECK(isfinite(attrs->factor) && attrs->factor > 0, FN_ERR_CONFIG,
           "%s: factor is %g, must be positive", what, attrs->factor);
  FN_CHECK(attrs->trim >= 0, FN_ERR_CONFIG, "%s: trim is %lld, must not be negative", what,
           (long long)attrs->trim);
  *y = *x;
  for (int axis = 2; axis < x->ndim; axis++) {
    y->dim[axis] = (int64_t)floor((double)x->dim[axis] * attrs->factor) - 2 * attrs->trim;
    FN_CHECK(y->dim[axis] >= 1, FN_ERR_CONFIG,
             "%s: %lld cells on axis %d of %s times %g, less %lld at both ends, leave none", what,
             (long long)x->dim[axis], axis, text, attrs->factor, (long long)attrs->trim);
  }
  return FN_OK;
}

static fn_status resample_infer(const fn_node *node, fn_shape *shape) {
  return resample_shape("resample", &node->input[0]->shape, node->attrs, &shape[0]);
}

static fn_status resample_grad_infer(const fn_node *node, fn_shape *shape) {
  const fn_resample_attrs *attrs = node->attrs;
  const char *what = "gradient of resample";
  fn_shape y;
  FN_TRY(resample_shape(what, &attrs->extent, attrs, &y));
  shape[0] = attrs->extent;
  return fn_shape_check(what, "output gradient", &node->input[0]->shape, &y);
}

static fn_status resample_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                   const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  fn_resample_attrs attrs = *(const fn_resample_attrs *)node->attrs;
  attrs.extent = node->input[0]->shape;
  dx[0] = fn_node_append(graph, &fn_op_resample_grad, dy, 1, 1, &attrs, 0);
  return fn_graph_status(graph);
}

static fn_status resample_grad_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                        const bool *wanted, fn_value **dx) {
  if (!dy[0] || !wanted[0]) return FN_OK;
  dx[0] = fn_node_append(graph, &fn_op_resample, dy, 1, 1, node->attrs, 0);
  return fn_graph_status(graph);
}

/* ---- reference kernels -------------------------------------------------------------------------
 */

/** What one output cell takes along one axis: (1 - part) x[low] + part x[high]. */
typedef struct tap {
  int64_t low, high;
  double part;
} tap;

/** Taps of `length` output cells over `cells` input cells. */
static void make_taps(const fn_resample_attrs *attrs, int64_t cells, int64_t length, tap *taps) {
  for (int64_t i = 0; i < length; i++) {
    const double source = ((double)(i + attrs->trim) + 0.5) / attrs->factor - 0.5;
    const double clamped = source > 0 ? source : 0;
    int64_t low = (int64_t)clamped;
    if (low > cells - 1) low = cells - 1;
    taps[i].low = low;
    taps[i].high = low + 1 < cells ? low + 1 : cells - 1;
    taps[i].part = clamped - (double)low;
  }
}

/** Sizes with the spatial axes right-aligned in three, and the taps of each. */
typedef struct problem {
  int64_t planes, s[3], o[3];
  tap *taps[3]; // taps[0] owns the memory of all
} problem;

static fn_status problem_create(const fn_shape *x, const fn_shape *y,
                                const fn_resample_attrs *attrs, problem *p) {
  p->planes = x->dim[0] * x->dim[1];
  fn_spatial_sizes(x, p->s);
  fn_spatial_sizes(y, p->o);
  p->taps[0] = malloc((size_t)(p->o[0] + p->o[1] + p->o[2]) * sizeof(tap));
  FN_CHECK(p->taps[0], FN_ERR_MEMORY, "resample: no memory for interpolation weights");
  p->taps[1] = p->taps[0] + p->o[0];
  p->taps[2] = p->taps[1] + p->o[1];
  for (int d = 0; d < 3; d++) {
    if (d < 3 - (x->ndim - 2)) {
      p->taps[d][0] = (tap){0};
    } else {
      make_taps(attrs, p->s[d], p->o[d], p->taps[d]);
    }
  }
  return FN_OK;
}

/** The corners an output cell (C order index) reads: cell of x and weight of each. */
static void corners(const problem *p, int64_t index, int64_t cell[8], double weight[8]) {
  const tap t[3] = {p->taps[0][index / (p->o[1] * p->o[2])], p->taps[1][index / p->o[2] % p->o[1]],
                    p->taps[2][index % p->o[2]]};
  for (int corner = 0; corner < 8; corner++) {
    cell[corner] = 0;
    weight[corner] = 1;
    for (int d = 0; d < 3; d++) {
      const bool high = corner >> d & 1;
      cell[corner] = cell[corner] * p->s[d] + (high ? t[d].high : t[d].low);
      weight[corner] *= high ? t[d].part : 1 - t[d].part;
    }
  }
}

static fn_status resample_reference(const fn_node *node, const double *const *in,
                                    double *const *out, const fn_run_context *context) {
  (void)context;
  problem p;
  FN_TRY(problem_create(&node->input[0]->shape, &node->output[0]->shape, node->attrs, &p));
  const int64_t x_plane = p.s[0] * p.s[1] * p.s[2], y_plane = p.o[0] * p.o[1] * p.o[2];
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t plane = 0; plane < p.planes; plane++) {
    const double *x = in[0] + plane * x_plane;
    double *y = out[0] + plane * y_plane;
    for (int64_t index = 0; index < y_plane; index++) {
      int64_t cell[8];
      double weight[8], sum = 0;
      corners(&p, index, cell, weight);
      // A corner of weight zero is not read: NaN beside the last cell stays there.
      for (int i = 0; i < 8; i++) {
        if (weight[i] != 0) sum += weight[i] * x[cell[i]];
      }
      y[index] = sum;
    }
  }
  free(p.taps[0]);
  return FN_OK;
}

static fn_status resample_grad_reference(const fn_node *node, const double *const *in,
                                         double *const *out, const fn_run_context *context) {
  (void)context;
  problem p;
  FN_TRY(problem_create(&node->output[0]->shape, &node->input[0]->shape, node->attrs, &p));
  const int64_t x_plane = p.s[0] * p.s[1] * p.s[2], y_plane = p.o[0] * p.o[1] * p.o[2];
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t plane = 0; plane < p.planes; plane++) {
    const double *dy = in[0] + plane * y_plane;
    double *dx = out[0] + plane * x_plane;
    for (int64_t i = 0; i < x_plane; i++)
      dx[i] = 0;
    for (int64_t index = 0; index < y_plane; index++) {
      int64_t cell[8];
      double weight[8];
      corners(&p, index, cell, weight);
      for (int i = 0; i < 8; i++)
        dx[cell[i]] += weight[i] * dy[index];
    }
  }
  free(p.taps[0]);
  return FN_OK;
}

/** A product and a sum per corner of the output cell. */
static double corner_flops(const fn_shape *y) {
  return (double)fn_shape_count(y) * (double)(2 << (y->ndim - 2));
}

static double resample_flops(const fn_node *node) {
  return corner_flops(&node->output[0]->shape);
}

static double resample_grad_flops(const fn_node *node) {
  return corner_flops(&node->input[0]->shape);
}

const fn_op fn_op_resample = {
    .name = "resample",
    .attrs_size = sizeof(fn_resample_attrs),
    .flags = FN_OP_FOLLOWS_BF16,
    .infer = resample_infer,
    .gradient = resample_gradient,
    .reference = resample_reference,
    .flops = resample_flops,
};

const fn_op fn_op_resample_grad = {
    .name = "resample_grad",
    .attrs_size = sizeof(fn_resample_attrs),
    .flags = FN_OP_FOLLOWS_BF16,
    .infer = resample_grad_infer,
    .gradient = resample_grad_gradient,
    .reference = resample_grad_reference,
    .flops = resample_grad_flops,
};

fn_value *fn_resample(fn_graph *graph, fn_value *x, double factor, bool narrow) {
  if (!x) return NULL;
  if (factor == 1) return x;
  fn_resample_attrs attrs = {.factor = factor, .extent = x->shape};
  if (narrow && factor > 1) {
    attrs.trim = factor < 1e6 ? llrint(factor) / 2 : 0; // the shape check refuses what is absurd
    if (attrs.trim < 1) attrs.trim = 1;
  }
  return fn_node_append(graph, &fn_op_resample, &x, 1, 1, &attrs, 0);
}
