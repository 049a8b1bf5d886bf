/* Elementwise arithmetic: one operand, two broadcast operands, the gradient of leaky ReLU, fills.
 */
#include <math.h>

#include "ops/ops.h"
#include "ops/walk.h"

/* ---- constants
 * ----------------------------------------------------------------------------------- */

bool fn_is_constant(const fn_value *x, double *constant) {
  if (!x || x->node->op != &fn_op_fill) return false;
  *constant = ((const fn_fill_attrs *)x->node->attrs)->constant;
  return true;
}

static fn_status infer_fill(const fn_node *node, fn_shape *shape) {
  shape[0] = ((const fn_fill_attrs *)node->attrs)->shape;
  return FN_OK;
}

static fn_status reference_fill(const fn_node *node, const double *const *in, double *const *out,
                                const fn_run_context *context) {
  (void)in;
  (void)context;
  const fn_fill_attrs *attrs = node->attrs;
  const int64_t count = fn_shape_count(&attrs->shape);
  for (int64_t i = 0; i < count; i++)
    out[0][i] = attrs->constant;
  return FN_OK;
}

const fn_op fn_op_fill = {.name = "fill",
                          .attrs_size = sizeof(fn_fill_attrs),
                          .infer = infer_fill,
                          .reference = reference_fill,
                          .flops = fn_flops_none};

fn_value *fn_fill(fn_graph *graph, const fn_shape *shape, double constant) {
  const fn_fill_attrs attrs = {.shape = *shape, .constant = constant};
  return fn_node_append(graph, &fn_op_fill, NULL, 0, 1, &attrs, 0);
}

/* ---- one operand
 * ---------------------------------------------------------------------------------- */

static fn_status infer_like(const fn_node *node, fn_shape *shape) {
  shape[0] = node->input[0]->shape;
  return FN_OK;
}

static fn_value *unary(fn_graph *graph, fn_value *x, fn_unary_attrs attrs) {
  return x ? fn_node_append(graph, &fn_op_unary, &x, 1, 1, &attrs, 0) : NULL;
}

static fn_value *sign(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_SIGN});
}

static fn_status gradient_unary(fn_graph *g, fn_node *node, fn_value *const *dys,
                                const bool *wanted, fn_value **dx) {
  const fn_unary_attrs *attrs = node->attrs;
  fn_value *dy = dys[0], *x = node->input[0], *y = node->output[0];
  if (!wanted[0] || !dy) return FN_OK;
  switch (attrs->kind) {
    case FN_AFFINE: *dx = fn_affine(g, dy, attrs->a, 0); break;
    // The output selects the branch as the input does unless the slope is negative: x may then be
    // overwritten by y.
    case FN_LEAKY: *dx = fn_leaky_grad(g, dy, attrs->a >= 0 ? y : x, attrs->a); break;
    case FN_SIGMOID: *dx = fn_mul(g, dy, fn_sub(g, y, fn_square(g, y))); break;
    case FN_TANH: *dx = fn_mul(g, dy, fn_affine(g, fn_square(g, y), -1, 1)); break;
    case FN_EXP: *dx = fn_mul(g, dy, y); break;
    case FN_LOG: *dx = fn_div(g, dy, x); break;
    case FN_SQRT: *dx = fn_affine(g, fn_div(g, dy, y), 0.5, 0); break;
    case FN_SQUARE: *dx = fn_affine(g, fn_mul(g, dy, x), 2, 0); break;
    case FN_ABS: *dx = fn_mul(g, dy, sign(g, x)); break;
    case FN_SOFTPLUS: *dx = fn_mul(g, dy, fn_sigmoid(g, x)); break;
    case FN_RECIPROCAL: *dx = fn_affine(g, fn_mul(g, dy, fn_square(g, y)), -1, 0); break;
    case FN_IDENTITY: *dx = attrs->stop ? NULL : dy; break;
    case FN_CAST: *dx = dy; break;
    case FN_STEP:
    case FN_SIGN: break; // zero almost everywhere
  }
  return fn_graph_status(g);
}

static double unary_value(const fn_unary_attrs *attrs, double x) {
  switch (attrs->kind) {
    case FN_AFFINE: return attrs->a * x + attrs->b;
    case FN_LEAKY: return x > 0 ? x : attrs->a * x;
    case FN_SIGMOID: return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
    case FN_TANH: return tanh(x);
    case FN_EXP: return exp(x);
    case FN_LOG: return log(x);
    case FN_SQRT: return sqrt(x);
    case FN_SQUARE: return x * x;
    case FN_ABS: return fabs(x);
    case FN_STEP: return x > 0;
    case FN_SIGN: return (x > 0) - (x < 0);
    case FN_SOFTPLUS: return fmax(x, 0) + log1p(exp(-fabs(x)));
    case FN_RECIPROCAL: return 1 / x;
    case FN_IDENTITY:
    case FN_CAST: break;
  }
  return x;
}

static fn_status reference_unary(const fn_node *node, const double *const *in, double *const *out,
                                 const fn_run_context *context) {
  (void)context;
  const int64_t count = fn_shape_count(&node->output[0]->shape);
  for (int64_t i = 0; i < count; i++)
    out[0][i] = unary_value(node->attrs, in[0][i]);
  return FN_OK;
}

static double flops_unary(const fn_node *node) {
  const fn_unary_attrs *attrs = node->attrs;
  const double count = (double)fn_shape_count(&node->output[0]->shape);
  if (attrs->kind == FN_IDENTITY || attrs->kind == FN_CAST) return 0;
  return attrs->kind == FN_AFFINE ? 2 * count : count;
}

const fn_op fn_op_unary = {.name = "unary",
                           .attrs_size = sizeof(fn_unary_attrs),
                           .flags = FN_OP_FOLLOWS_BF16,
                           .infer = infer_like,
                           .gradient = gradient_unary,
                           .reference = reference_unary,
                           .flops = flops_unary};

fn_value *fn_affine(fn_graph *graph, fn_value *x, double a, double b) {
  double constant;
  if (!x || (a == 1 && b == 0)) return x;
  if (fn_is_constant(x, &constant)) return fn_fill(graph, &x->shape, a * constant + b);
  const fn_unary_attrs *inner = x->node->op == &fn_op_unary ? x->node->attrs : NULL;
  if (inner && inner->kind == FN_AFFINE) { // a (a' x + b') + b
    b += a * inner->b;
    a *= inner->a;
    x = x->node->input[0];
  }
  return unary(graph, x, (fn_unary_attrs){.kind = FN_AFFINE, .a = a, .b = b});
}

fn_value *fn_leaky_relu(fn_graph *graph, fn_value *x, double slope) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_LEAKY, .a = slope});
}
fn_value *fn_relu(fn_graph *graph, fn_value *x) {
  return fn_leaky_relu(graph, x, 0);
}
fn_value *fn_sigmoid(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_SIGMOID});
}
fn_value *fn_tanh(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_TANH});
}
fn_value *fn_exp(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_EXP});
}
fn_value *fn_ln(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_LOG});
}
fn_value *fn_sqrt(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_SQRT});
}
fn_value *fn_square(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_SQUARE});
}
fn_value *fn_abs(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_ABS});
}
fn_value *fn_step(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_STEP});
}
fn_value *fn_softplus(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_SOFTPLUS});
}
fn_value *fn_stop_gradient(fn_graph *graph, fn_value *x) {
  return unary(graph, x, (fn_unary_attrs){.kind = FN_IDENTITY, .stop = true});
}

/* ---- two operands
 * ----------------------------------------------------------------------------------- */

/** numpy's rule: align the last axes; sizes are equal or one of them is 1. */
static bool broadcast_shape(const fn_shape *a, const fn_shape *b, fn_shape *shape) {
  *shape = (fn_shape){.ndim = a->ndim > b->ndim ? a->ndim : b->ndim};
  for (int i = 1; i <= shape->ndim; i++) {
    const int64_t da = i <= a->ndim ? a->dim[a->ndim - i] : 1;
    const int64_t db = i <= b->ndim ? b->dim[b->ndim - i] : 1;
    if (da != db && da != 1 && db != 1) return false;
    shape->dim[shape->ndim - i] = da == 1 ? db : da;
  }
  return true;
}

static fn_status infer_binary(const fn_node *node, fn_shape *shape) {
  const fn_shape *a = &node->input[0]->shape, *b = &node->input[1]->shape;
  char ta[96], tb[96];
  FN_CHECK(broadcast_shape(a, b, shape), FN_ERR_CONFIG,
           "two operands must have equal sizes or size 1 along every axis, found %s and %s",
           fn_shape_text(a, ta, sizeof ta), fn_shape_text(b, tb, sizeof tb));
  return FN_OK;
}

static fn_value *binary(fn_graph *graph, fn_binary kind, fn_value *a, fn_value *b) {
  if (!a || !b) return NULL;
  fn_value *input[] = {a, b};
  return fn_node_append(graph, &fn_op_binary, input, 2, 1, &(fn_binary_attrs){kind}, 0);
}

/** Gradients before they are summed down to the shapes of the operands. */
static void binary_partials(fn_graph *g, fn_node *node, fn_value *dy, const bool *wanted,
                            fn_value **da, fn_value **db) {
  fn_value *a = node->input[0], *b = node->input[1], *y = node->output[0];
  const bool wa = wanted[0], wb = wanted[1];
  switch (((const fn_binary_attrs *)node->attrs)->kind) {
    case FN_ADD:
      *da = wa ? dy : NULL;
      *db = wb ? dy : NULL;
      break;
    case FN_SUB:
      *da = wa ? dy : NULL;
      *db = wb ? fn_affine(g, dy, -1, 0) : NULL;
      break;
    case FN_MUL:
      *da = wa ? fn_mul(g, dy, b) : NULL;
      *db = wb ? fn_mul(g, dy, a) : NULL;
      break;
    case FN_DIV:
      *da = wa ? fn_div(g, dy, b) : NULL;
      *db = wb ? fn_affine(g, fn_div(g, fn_mul(g, dy, y), b), -1, 0) : NULL;
      break;
    case FN_MIN: // ties share the gradient, as the average of the one-sided derivatives
      *da = wa ? fn_mul(g, dy, binary(g, FN_GREATER, b, a)) : NULL;
      *db = wb ? fn_mul(g, dy, binary(g, FN_GREATER, a, b)) : NULL;
      break;
    case FN_MAX:
      *da = wa ? fn_mul(g, dy, binary(g, FN_GREATER, a, b)) : NULL;
      *db = wb ? fn_mul(g, dy, binary(g, FN_GREATER, b, a)) : NULL;
      break;
    case FN_GREATER: break;
  }
}

static fn_status gradient_binary(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                 const bool *wanted, fn_value **dx) {
  fn_value *da = NULL, *db = NULL;
  if (!dy[0]) return FN_OK;
  binary_partials(graph, node, dy[0], wanted, &da, &db);
  if (da) dx[0] = fn_sum_to(graph, da, &node->input[0]->shape);
  if (db) dx[1] = fn_sum_to(graph, db, &node->input[1]->shape);
  return fn_graph_status(graph);
}

static double binary_value(fn_binary kind, double a, double b) {
  switch (kind) {
    case FN_ADD: return a + b;
    case FN_SUB: return a - b;
    case FN_MUL: return a * b;
    case FN_DIV: return a / b;
    case FN_MIN: return b < a ? b : a;
    case FN_MAX: return b > a ? b : a;
    case FN_GREATER: break;
  }
  return a > b ? 1 : a == b ? 0.5 : 0;
}

static fn_status reference_binary(const fn_node *node, const double *const *in, double *const *out,
                                  const fn_run_context *context) {
  (void)context;
  const fn_binary kind = ((const fn_binary_attrs *)node->attrs)->kind;
  fn_walk walk = {.shape = node->output[0]->shape};
  for (int i = 0; i < 2; i++)
    fn_broadcast_strides(&node->input[i]->shape, &walk.shape, walk.stride[i]);
  double *y = out[0];
  do
    *y++ = binary_value(kind, in[0][walk.offset[0]], in[1][walk.offset[1]]);
  while (fn_walk_next(&walk));
  return FN_OK;
}

const fn_op fn_op_binary = {.name = "binary",
                            .attrs_size = sizeof(fn_binary_attrs),
                            .flags = FN_OP_FOLLOWS_BF16,
                            .infer = infer_binary,
                            .gradient = gradient_binary,
                            .reference = reference_binary};

/** Whether `small` takes the shape of x when the two are combined. */
static bool fits(const fn_value *x, const fn_value *small) {
  fn_shape shape;
  return x && broadcast_shape(&x->shape, &small->shape, &shape) &&
         fn_shape_equal(&shape, &x->shape);
}

fn_value *fn_add(fn_graph *graph, fn_value *a, fn_value *b) {
  double constant;
  if (fn_is_constant(b, &constant) && fits(a, b)) return fn_affine(graph, a, 1, constant);
  if (fn_is_constant(a, &constant) && fits(b, a)) return fn_affine(graph, b, 1, constant);
  return binary(graph, FN_ADD, a, b);
}

fn_value *fn_sub(fn_graph *graph, fn_value *a, fn_value *b) {
  double constant;
  if (fn_is_constant(b, &constant) && fits(a, b)) return fn_affine(graph, a, 1, -constant);
  if (fn_is_constant(a, &constant) && fits(b, a)) return fn_affine(graph, b, -1, constant);
  return binary(graph, FN_SUB, a, b);
}

fn_value *fn_mul(fn_graph *graph, fn_value *a, fn_value *b) {
  double constant;
  if (fn_is_constant(b, &constant) && fits(a, b)) return fn_affine(graph, a, constant, 0);
  if (fn_is_constant(a, &constant) && fits(b, a)) return fn_affine(graph, b, constant, 0);
  return binary(graph, FN_MUL, a, b);
}

fn_value *fn_div(fn_graph *graph, fn_value *a, fn_value *b) {
  return binary(graph, FN_DIV, a, b);
}
fn_value *fn_minimum(fn_graph *graph, fn_value *a, fn_value *b) {
  return binary(graph, FN_MIN, a, b);
}
fn_value *fn_maximum(fn_graph *graph, fn_value *a, fn_value *b) {
  return binary(graph, FN_MAX, a, b);
}

/* ---- gradient of leaky ReLU
 * --------------------------------------------------------------------------- */

static fn_status infer_leaky_grad(const fn_node *node, fn_shape *shape) {
  const fn_shape *dy = &node->input[0]->shape, *y = &node->input[1]->shape;
  char ta[96], tb[96];
  FN_CHECK(fn_shape_equal(dy, y), FN_ERR_INTERNAL, "leaky_grad: gradient %s and value %s differ",
           fn_shape_text(dy, ta, sizeof ta), fn_shape_text(y, tb, sizeof tb));
  shape[0] = *dy;
  return FN_OK;
}

static fn_status gradient_leaky_grad(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                     const bool *wanted, fn_value **dx) {
  const fn_leaky_attrs *attrs = node->attrs;
  if (wanted[0] && dy[0]) dx[0] = fn_leaky_grad(graph, dy[0], node->input[1], attrs->slope);
  return fn_graph_status(graph);
}

static fn_status reference_leaky_grad(const fn_node *node, const double *const *in,
                                      double *const *out, const fn_run_context *context) {
  (void)context;
  const double slope = ((const fn_leaky_attrs *)node->attrs)->slope;
  const int64_t count = fn_shape_count(&node->output[0]->shape);
  for (int64_t i = 0; i < count; i++)
    out[0][i] = in[1][i] > 0 ? in[0][i] : slope * in[0][i];
  return FN_OK;
}

const fn_op fn_op_leaky_grad = {.name = "leaky_grad",
                                .attrs_size = sizeof(fn_leaky_attrs),
                                .flags = FN_OP_FOLLOWS_BF16,
                                .infer = infer_leaky_grad,
                                .gradient = gradient_leaky_grad,
                                .reference = reference_leaky_grad};

fn_value *fn_leaky_grad(fn_graph *graph, fn_value *dy, fn_value *y, double slope) {
  if (!dy || !y) return NULL;
  fn_value *input[] = {dy, y};
  return fn_node_append(graph, &fn_op_leaky_grad, input, 2, 1, &(fn_leaky_attrs){slope}, 0);
}
