/* Matrix product with leading batch axes, bias and activation. */
#include "ops/geometry.h"
#include "ops/ops.h"

/** Sizes of one product: a [batch, m, k] x b [batch or 1, k, n]. */
typedef struct product {
  int64_t batch, m, k, n;
  bool shared; // b has no leading axes
} product;

static product product_of(const fn_node *node) {
  const fn_matmul_attrs *attrs = node->attrs;
  const fn_shape *a = &node->input[0]->shape, *b = &node->input[1]->shape;
  product p = {.batch = 1, .shared = b->ndim == 2};
  for (int i = 0; i < a->ndim - 2; i++)
    p.batch *= a->dim[i];
  p.m = a->dim[a->ndim - (attrs->transpose_a ? 1 : 2)];
  p.k = a->dim[a->ndim - (attrs->transpose_a ? 2 : 1)];
  p.n = b->dim[b->ndim - (attrs->transpose_b ? 2 : 1)];
  return p;
}

static const fn_value *bias_of(const fn_node *node) {
  return node->input_count > 2 ? node->input[2] : NULL;
}

static fn_status matmul_infer(const fn_node *node, fn_shape *shape) {
  const fn_matmul_attrs *attrs = node->attrs;
  const fn_shape *a = &node->input[0]->shape, *b = &node->input[1]->shape;
  char a_text[FN_SHAPE_TEXT], b_text[FN_SHAPE_TEXT];
  fn_shape_text(a, a_text, sizeof a_text);
  fn_shape_text(b, b_text, sizeof b_text);
  FN_CHECK(a->ndim >= 2 && (b->ndim == 2 || b->ndim == a->ndim), FN_ERR_CONFIG,
           "matrix product: operands are %s and %s, expected at least two axes each and equally "
           "many, or two in the second",
           a_text, b_text);
  for (int i = 0; b->ndim > 2 && i < a->ndim - 2; i++) {
    FN_CHECK(a->dim[i] == b->dim[i], FN_ERR_CONFIG,
             "matrix product: operands are %s and %s, expected equal leading axes but axis %d is "
             "%lld and %lld",
             a_text, b_text, i, (long long)a->dim[i], (long long)b->dim[i]);
  }
  const product p = product_of(node);
  const int64_t k = b->dim[b->ndim - (attrs->transpose_b ? 1 : 2)];
  FN_CHECK(p.k == k, FN_ERR_CONFIG,
           "matrix product: %s%s has %lld columns, %s%s has %lld rows; expected the same number",
           a_text, attrs->transpose_a ? " transposed" : "", (long long)p.k, b_text,
           attrs->transpose_b ? " transposed" : "", (long long)k);
  shape[0] = *a;
  shape[0].dim[a->ndim - 2] = p.m;
  shape[0].dim[a->ndim - 1] = p.n;
  const fn_value *bias = bias_of(node);
  return bias ? fn_shape_check("matrix product", "bias", &bias->shape, &(fn_shape){1, {p.n}})
              : FN_OK;
}

static fn_value *swap_last(fn_graph *graph, fn_value *x) {
  if (!x) return NULL;
  const int ndim = fn_ndim(x);
  int order[FN_MAX_DIMS];
  for (int i = 0; i < ndim; i++)
    order[i] = i;
  order[ndim - 2] = ndim - 1;
  order[ndim - 1] = ndim - 2;
  return fn_permute(graph, x, order);
}

/** [..., r, c] -> [... r, c] */
static fn_value *flatten_rows(fn_graph *graph, fn_value *x) {
  if (!x) return NULL;
  const int64_t columns = fn_dim(x, fn_ndim(x) - 1);
  const fn_shape flat = {2, {columns ? fn_shape_count(&x->shape) / columns : 0, columns}};
  return fn_reshape(graph, x, &flat);
}

/** With A, B the operands as multiplied and dY the gradient before the activation, whose branch the
 *  sign of the result tells: dA = dY B^T, dB = A^T dY, and where an operand was read transposed,
 * the transpose of that; dbias is the sum of the rows of dY. */
static fn_status matmul_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                 const bool *wanted, fn_value **dx) {
  if (!dy[0]) return FN_OK;
  const fn_matmul_attrs *attrs = node->attrs;
  const bool ta = attrs->transpose_a, tb = attrs->transpose_b;
  fn_value *a = node->input[0], *b = node->input[1];
  fn_value *g =
      attrs->slope == 1 ? dy[0] : fn_leaky_grad(graph, dy[0], node->output[0], attrs->slope);
  const bool shared = fn_ndim(b) < fn_ndim(a);
  if (bias_of(node) && wanted[2])
    dx[2] = fn_sum(graph, g, FN_ALL_AXES & ~(1u << (fn_ndim(node->output[0]) - 1)), false);
  if (wanted[0]) {
    if (!ta) {
      dx[0] = fn_matmul(graph, g, b, false, !tb);
    } else if (!shared) {
      dx[0] = fn_matmul(graph, b, g, tb, true);
    } else { // the operand without leading axes can only stand second
      dx[0] = swap_last(graph, fn_matmul(graph, g, b, false, !tb));
    }
  }
  if (wanted[1]) {
    bool a_transposed = ta;
    if (shared) { // the sum over the leading axes is a longer sum over rows
      a = flatten_rows(graph, ta ? swap_last(graph, a) : a);
      g = flatten_rows(graph, g);
      a_transposed = false;
    }
    dx[1] = tb ? fn_matmul(graph, g, a, true, a_transposed)
               : fn_matmul(graph, a, g, !a_transposed, false);
  }
  return fn_graph_status(graph);
}

static fn_status matmul_reference(const fn_node *node, const double *const *in, double *const *out,
                                  const fn_run_context *context) {
  (void)context;
  const fn_matmul_attrs *attrs = node->attrs;
  const product p = product_of(node);
  const int64_t a_row = attrs->transpose_a ? 1 : p.k, a_column = attrs->transpose_a ? p.m : 1;
  const int64_t b_row = attrs->transpose_b ? 1 : p.n, b_column = attrs->transpose_b ? p.k : 1;
  const double *bias = bias_of(node) ? in[2] : NULL;
#pragma omp parallel for collapse(2) if (fn_worth_threads(node))
  for (int64_t batch = 0; batch < p.batch; batch++) {
    for (int64_t i = 0; i < p.m; i++) {
      const double *a = in[0] + batch * p.m * p.k + i * a_row;
      const double *b = in[1] + (p.shared ? 0 : batch * p.k * p.n);
      double *y = out[0] + (batch * p.m + i) * p.n;
      for (int64_t j = 0; j < p.n; j++) {
        double sum = bias ? bias[j] : 0;
        for (int64_t k = 0; k < p.k; k++)
          sum += a[k * a_column] * b[k * b_row + j * b_column];
        y[j] = sum > 0 ? sum : attrs->slope * sum;
      }
    }
  }
  return FN_OK;
}

static double matmul_flops(const fn_node *node) {
  const product p = product_of(node);
  return 2.0 * (double)p.batch * (double)p.m * (double)p.n * (double)p.k;
}

const fn_op fn_op_matmul = {
    .name = "matmul",
    .attrs_size = sizeof(fn_matmul_attrs),
    .infer = matmul_infer,
    .gradient = matmul_gradient,
    .reference = matmul_reference,
    .flops = matmul_flops,
};

fn_value *fn_matmul(fn_graph *graph, fn_value *a, fn_value *b, bool transpose_a, bool transpose_b) {
  const fn_matmul_attrs attrs = {transpose_a, transpose_b, 1};
  fn_value *const input[] = {a, b};
  return a && b ? fn_node_append(graph, &fn_op_matmul, input, 2, 1, &attrs, 0) : NULL;
}
