/* Convolution (cross-correlation, as in all deep-learning libraries) and its two adjoints. The
 * three are one trilinear form  sum y[n,k,o] x[n,c,o stride - pad + t dilation] w[k,c,t]  with one
 * of the factors left out, so each one's gradient consists of the other two. */
#include "ops/geometry.h"
#include "ops/ops.h"

/* ---- shapes ------------------------------------------------------------------------------------
 */

/** Shape y [N, K, o...] of convolving x [N, C, s...] with w [K, C/groups, k...]. */
static fn_status conv_shape(const char *what, const fn_shape *x, const fn_shape *w,
                            const fn_conv_geometry *geometry, fn_shape *y) {
  char x_text[FN_SHAPE_TEXT], w_text[FN_SHAPE_TEXT];
  fn_shape_text(x, x_text, sizeof x_text);
  fn_shape_text(w, w_text, sizeof w_text);
  FN_CHECK(x->ndim >= 3 && x->ndim <= 2 + FN_MAX_SPATIAL, FN_ERR_CONFIG,
           "%s: input is %s, expected [N, C, s...] with 1 to %d spatial axes", what, x_text,
           FN_MAX_SPATIAL);
  FN_CHECK(w->ndim == x->ndim, FN_ERR_CONFIG,
           "%s: kernel is %s, expected %d axes as in the input %s", what, w_text, x->ndim, x_text);
  const int spatial = x->ndim - 2;
  FN_TRY(fn_geometry_check(what, geometry, spatial));
  const long long groups = geometry->groups;
  FN_CHECK(x->dim[1] == w->dim[1] * groups, FN_ERR_CONFIG,
           "%s: input %s has %lld channels, kernel %s with %lld group(s) expects %lld", what,
           x_text, (long long)x->dim[1], w_text, groups, (long long)w->dim[1] * groups);
  FN_CHECK(w->dim[0] >= 1 && w->dim[0] % groups == 0, FN_ERR_CONFIG,
           "%s: kernel %s has %lld output channels, expected a multiple of %lld groups", what,
           w_text, (long long)w->dim[0], groups);
  *y = (fn_shape){x->ndim, {x->dim[0], w->dim[0]}};
  for (int d = 0; d < spatial; d++) {
    y->dim[2 + d] = fn_geometry_length(geometry, d, x->dim[2 + d], w->dim[2 + d]);
    FN_CHECK(w->dim[2 + d] >= 1 && y->dim[2 + d] >= 1, FN_ERR_CONFIG,
             "%s: kernel %s does not fit in input %s along spatial axis %d (padding %lld + %lld, "
             "dilation %lld)",
             what, w_text, x_text, d, (long long)geometry->pad_low[d],
             (long long)geometry->pad_high[d], (long long)geometry->dilation[d]);
  }
  return FN_OK;
}

static fn_status check_bias(const char *what, const fn_value *bias, int64_t channels) {
  if (!bias) return FN_OK;
  return fn_shape_check(what, "bias", &bias->shape, &(fn_shape){1, {channels}});
}

/** What is added to the result before the activation; NULL: nothing. */
static const fn_value *residual_of(const fn_node *node) {
  return node->input_count > 3 ? node->input[3] : NULL;
}

static fn_status conv_infer(const fn_node *node, fn_shape *shape) {
  const fn_conv_attrs *attrs = node->attrs;
  FN_TRY(conv_shape("convolution", &node->input[0]->shape, &node->input[1]->shape, &attrs->geometry,
                    &shape[0]));
  const fn_value *residual = residual_of(node);
  if (residual) FN_TRY(fn_shape_check("convolution", "residual", &residual->shape, &shape[0]));
  return check_bias("convolution", node->input[2], shape[0].dim[1]);
}

static fn_status data_infer(const fn_node *node, fn_shape *shape) {
  const fn_conv_attrs *attrs = node->attrs;
  const char *what = "transposed convolution";
  fn_shape y;
  FN_TRY(conv_shape(what, &attrs->extent, &node->input[1]->shape, &attrs->geometry, &y));
  FN_TRY(fn_shape_check(what, "input", &node->input[0]->shape, &y));
  shape[0] = attrs->extent;
  return check_bias(what, node->input[2], shape[0].dim[1]);
}

static fn_status weight_infer(const fn_node *node, fn_shape *shape) {
  const fn_conv_attrs *attrs = node->attrs;
  const char *what = "weight gradient of a convolution";
  fn_shape y;
  FN_TRY(conv_shape(what, &node->input[0]->shape, &attrs->extent, &attrs->geometry, &y));
  FN_TRY(fn_shape_check(what, "output gradient", &node->input[1]->shape, &y));
  shape[0] = attrs->extent;
  shape[1] = (fn_shape){1, {attrs->extent.dim[0]}};
  return FN_OK;
}

/* ---- gradients ---------------------------------------------------------------------------------
 */

static const fn_conv_attrs *attrs_of(const fn_node *node) {
  return node->attrs;
}

static fn_value *append_conv(fn_graph *graph, const fn_conv_geometry *geometry, fn_value *x,
                             fn_value *w, fn_value *bias) {
  const fn_conv_attrs attrs = {.geometry = *geometry, .slope = 1};
  fn_value *const input[] = {x, w, bias};
  return fn_node_append(graph, &fn_op_conv, input, 3, 1, &attrs, 1u << 2);
}

/** x_shape: shape of the result. */
static fn_value *append_data(fn_graph *graph, const fn_conv_geometry *geometry, fn_value *y,
                             fn_value *w, fn_value *bias, const fn_shape *x_shape) {
  const fn_conv_attrs attrs = {.geometry = *geometry, .slope = 1, .extent = *x_shape};
  fn_value *const input[] = {y, w, bias};
  return fn_node_append(graph, &fn_op_conv_data, input, 3, 1, &attrs, 1u << 2);
}

/** Node whose outputs are the gradients of kernel (shape w_shape) and bias; NULL after a failure.
 */
static fn_node *append_weight(fn_graph *graph, const fn_conv_geometry *geometry, fn_value *x,
                              fn_value *y, const fn_shape *w_shape) {
  const fn_conv_attrs attrs = {.geometry = *geometry, .slope = 1, .extent = *w_shape};
  fn_value *const input[] = {x, y};
  fn_value *w = fn_node_append(graph, &fn_op_conv_weight, input, 2, 2, &attrs, 0);
  return w ? w->node : NULL;
}

/** Gradient before the fused activation, whose branch the sign of the node's own output tells. */
static fn_value *before_activation(fn_graph *graph, const fn_node *node, fn_value *dy) {
  const double slope = attrs_of(node)->slope;
  return slope == 1 ? dy : fn_leaky_grad(graph, dy, node->output[0], slope);
}

static fn_status conv_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                               const bool *wanted, fn_value **dx) {
  if (!dy[0]) return FN_OK;
  const fn_conv_geometry *geometry = &attrs_of(node)->geometry;
  fn_value *x = node->input[0], *w = node->input[1];
  fn_value *g = before_activation(graph, node, dy[0]);
  // Weights first: x may then die before its gradient is born.
  const bool bias_wanted = node->input[2] && wanted[2];
  if (wanted[1] || bias_wanted) {
    fn_node *adjoint = append_weight(graph, geometry, x, g, &w->shape);
    if (adjoint && wanted[1]) dx[1] = adjoint->output[0];
    if (adjoint && bias_wanted) dx[2] = adjoint->output[1];
  }
  if (wanted[0]) dx[0] = append_data(graph, geometry, g, w, NULL, &x->shape);
  if (residual_of(node) && wanted[3]) dx[3] = g;
  return fn_graph_status(graph);
}

static fn_status data_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                               const bool *wanted, fn_value **dx) {
  if (!dy[0]) return FN_OK;
  const fn_conv_geometry *geometry = &attrs_of(node)->geometry;
  fn_value *y = node->input[0], *w = node->input[1];
  fn_value *g = before_activation(graph, node, dy[0]);
  if (wanted[1]) {
    fn_node *adjoint = append_weight(graph, geometry, g, y, &w->shape);
    if (adjoint) dx[1] = adjoint->output[0];
  }
  if (wanted[0]) dx[0] = append_conv(graph, geometry, g, w, NULL);
  if (node->input[2] && wanted[2]) dx[2] = fn_sum(graph, g, FN_ALL_AXES & ~(1u << 1), false);
  return fn_graph_status(graph);
}

/** One value per channel, [K] -> like. */
static fn_value *spread_channels(fn_graph *graph, fn_value *values, const fn_shape *like) {
  fn_shape column = *like;
  for (int axis = 0; axis < column.ndim; axis++) {
    if (axis != 1) column.dim[axis] = 1;
  }
  return fn_broadcast(graph, fn_reshape(graph, values, &column), like);
}

static fn_status weight_gradient(fn_graph *graph, fn_node *node, fn_value *const *dy,
                                 const bool *wanted, fn_value **dx) {
  const fn_conv_geometry *geometry = &attrs_of(node)->geometry;
  fn_value *x = node->input[0], *y = node->input[1], *dw = dy[0], *dbias = dy[1];
  if (wanted[0] && dw) dx[0] = append_data(graph, geometry, y, dw, NULL, &x->shape);
  if (wanted[1] && dw) dx[1] = append_conv(graph, geometry, x, dw, dbias);
  if (wanted[1] && !dw && dbias) dx[1] = spread_channels(graph, dbias, &y->shape);
  return fn_graph_status(graph);
}

/* ---- reference kernels -------------------------------------------------------------------------
 */

/** Sizes with the spatial axes right-aligned in three. */
typedef struct problem {
  int64_t batch, in_channels, out_channels;
  int64_t group_in, group_out; // channels of one group
  int64_t s[3], o[3], k[3];    // cells of x, y and w
  int64_t stride[3], pad[3], dilation[3];
  int64_t x_plane, y_plane, w_plane; // cells of one channel
} problem;

static problem problem_of(const fn_shape *x, const fn_shape *w, const fn_shape *y,
                          const fn_conv_geometry *geometry) {
  problem p = {.batch = x->dim[0], .in_channels = x->dim[1], .out_channels = w->dim[0]};
  p.group_in = w->dim[1];
  p.group_out = p.out_channels / geometry->groups;
  fn_spatial_sizes(x, p.s);
  fn_spatial_sizes(w, p.k);
  fn_spatial_sizes(y, p.o);
  const int missing = 3 - (x->ndim - 2);
  for (int d = 0; d < 3; d++) {
    p.stride[d] = d < missing ? 1 : geometry->stride[d - missing];
    p.pad[d] = d < missing ? 0 : geometry->pad_low[d - missing];
    p.dilation[d] = d < missing ? 1 : geometry->dilation[d - missing];
  }
  p.x_plane = p.s[0] * p.s[1] * p.s[2];
  p.y_plane = p.o[0] * p.o[1] * p.o[2];
  p.w_plane = p.k[0] * p.k[1] * p.k[2];
  return p;
}

/** Positions [first, last) along axis d whose kernel cell t lies inside x. */
static void valid_range(const problem *p, int d, int64_t t, int64_t *first, int64_t *last) {
  const int64_t offset = t * p->dilation[d] - p->pad[d]; // cell of x under position 0
  *first = offset >= 0 ? 0 : (-offset + p->stride[d] - 1) / p->stride[d];
  *last = offset >= p->s[d] ? 0 : (p->s[d] - 1 - offset) / p->stride[d] + 1;
  if (*last > p->o[d]) *last = p->o[d];
}

typedef enum form { FORM_Y, FORM_X, FORM_W } form;

/** Add to one plane of y, x or w the product of the planes of the other two (the one named by
 *  `missing` is not read). x [s...], w [k...], y [o...] are one channel each. */
static void add_product(const problem *p, form missing, const double *x, const double *w,
                        const double *y, double *out) {
  int64_t first[3], last[3];
  for (int64_t t = 0; t < p->w_plane; t++) {
    const int64_t tap[3] = {t / (p->k[1] * p->k[2]), t / p->k[2] % p->k[1], t % p->k[2]};
    for (int d = 0; d < 3; d++)
      valid_range(p, d, tap[d], &first[d], &last[d]);
    for (int64_t a = first[0]; a < last[0]; a++) {
      const int64_t x0 = a * p->stride[0] - p->pad[0] + tap[0] * p->dilation[0];
      for (int64_t b = first[1]; b < last[1]; b++) {
        const int64_t x1 = b * p->stride[1] - p->pad[1] + tap[1] * p->dilation[1];
        const int64_t x_row = (x0 * p->s[1] + x1) * p->s[2] - p->pad[2] + tap[2] * p->dilation[2];
        const int64_t y_row = (a * p->o[1] + b) * p->o[2], step = p->stride[2];
        double sum = 0;
        switch (missing) {
          case FORM_Y:
            for (int64_t c = first[2]; c < last[2]; c++)
              out[y_row + c] += w[t] * x[x_row + c * step];
            break;
          case FORM_X:
            for (int64_t c = first[2]; c < last[2]; c++)
              out[x_row + c * step] += w[t] * y[y_row + c];
            break;
          case FORM_W:
            for (int64_t c = first[2]; c < last[2]; c++)
              sum += x[x_row + c * step] * y[y_row + c];
            out[t] += sum;
            break;
        }
      }
    }
  }
}

static void fill(double *out, int64_t count, double value) {
  for (int64_t i = 0; i < count; i++)
    out[i] = value;
}

static void activate(double *out, int64_t count, double slope) {
  if (slope == 1) return;
  for (int64_t i = 0; i < count; i++)
    out[i] = out[i] > 0 ? out[i] : slope * out[i];
}

static fn_status conv_reference(const fn_node *node, const double *const *in, double *const *out,
                                const fn_run_context *context) {
  (void)context;
  const fn_conv_attrs *attrs = node->attrs;
  const problem p = problem_of(&node->input[0]->shape, &node->input[1]->shape,
                               &node->output[0]->shape, &attrs->geometry);
  const double *residual = residual_of(node) ? in[3] : NULL;
#pragma omp parallel for collapse(2) if (fn_worth_threads(node))
  for (int64_t n = 0; n < p.batch; n++) {
    for (int64_t k = 0; k < p.out_channels; k++) {
      double *y = out[0] + (n * p.out_channels + k) * p.y_plane;
      const int64_t group = k / p.group_out;
      fill(y, p.y_plane, in[2] ? in[2][k] : 0);
      for (int64_t j = 0; j < p.group_in; j++) {
        const double *x = in[0] + (n * p.in_channels + group * p.group_in + j) * p.x_plane;
        add_product(&p, FORM_Y, x, in[1] + (k * p.group_in + j) * p.w_plane, NULL, y);
      }
      for (int64_t i = 0; residual && i < p.y_plane; i++)
        y[i] += residual[(n * p.out_channels + k) * p.y_plane + i];
      activate(y, p.y_plane, attrs->slope);
    }
  }
  return FN_OK;
}

static fn_status data_reference(const fn_node *node, const double *const *in, double *const *out,
                                const fn_run_context *context) {
  (void)context;
  const fn_conv_attrs *attrs = node->attrs;
  const problem p = problem_of(&node->output[0]->shape, &node->input[1]->shape,
                               &node->input[0]->shape, &attrs->geometry);
#pragma omp parallel for collapse(2) if (fn_worth_threads(node))
  for (int64_t n = 0; n < p.batch; n++) {
    for (int64_t c = 0; c < p.in_channels; c++) {
      double *x = out[0] + (n * p.in_channels + c) * p.x_plane;
      const int64_t group = c / p.group_in, j = c % p.group_in;
      fill(x, p.x_plane, in[2] ? in[2][c] : 0);
      for (int64_t k = group * p.group_out; k < (group + 1) * p.group_out; k++) {
        const double *y = in[0] + (n * p.out_channels + k) * p.y_plane;
        add_product(&p, FORM_X, NULL, in[1] + (k * p.group_in + j) * p.w_plane, y, x);
      }
      activate(x, p.x_plane, attrs->slope);
    }
  }
  return FN_OK;
}

static fn_status weight_reference(const fn_node *node, const double *const *in, double *const *out,
                                  const fn_run_context *context) {
  (void)context;
  const fn_conv_attrs *attrs = node->attrs;
  const problem p =
      problem_of(&node->input[0]->shape, &attrs->extent, &node->input[1]->shape, &attrs->geometry);
#pragma omp parallel for if (fn_worth_threads(node))
  for (int64_t k = 0; k < p.out_channels; k++) {
    const int64_t group = k / p.group_out;
    double bias = 0;
    if (out[0]) fill(out[0] + k * p.group_in * p.w_plane, p.group_in * p.w_plane, 0);
    for (int64_t n = 0; n < p.batch; n++) {
      const double *y = in[1] + (n * p.out_channels + k) * p.y_plane;
      for (int64_t i = 0; i < p.y_plane; i++)
        bias += y[i];
      for (int64_t j = 0; out[0] && j < p.group_in; j++) {
        const double *x = in[0] + (n * p.in_channels + group * p.group_in + j) * p.x_plane;
        add_product(&p, FORM_W, x, NULL, y, out[0] + (k * p.group_in + j) * p.w_plane);
      }
    }
    if (out[1]) out[1][k] = bias;
  }
  return FN_OK;
}

/** Multiplications and additions of the trilinear form; padding counts as if it were data. */
static double form_flops(const fn_shape *y, const fn_shape *w) {
  return 2.0 * (double)fn_shape_count(y) * (double)fn_shape_count(w) / (double)w->dim[0];
}

static double conv_flops(const fn_node *node) {
  return form_flops(&node->output[0]->shape, &node->input[1]->shape);
}

static double data_flops(const fn_node *node) {
  return form_flops(&node->input[0]->shape, &node->input[1]->shape);
}

static double weight_flops(const fn_node *node) {
  return form_flops(&node->input[1]->shape, &attrs_of(node)->extent);
}

const fn_op fn_op_conv = {
    .name = "conv",
    .attrs_size = sizeof(fn_conv_attrs),
    .flags = FN_OP_COMPUTES_BF16,
    .infer = conv_infer,
    .gradient = conv_gradient,
    .reference = conv_reference,
    .flops = conv_flops,
};

const fn_op fn_op_conv_data = {
    .name = "conv_data",
    .attrs_size = sizeof(fn_conv_attrs),
    .flags = FN_OP_COMPUTES_BF16,
    .infer = data_infer,
    .gradient = data_gradient,
    .reference = data_reference,
    .flops = data_flops,
};

const fn_op fn_op_conv_weight = {
    .name = "conv_weight",
    .attrs_size = sizeof(fn_conv_attrs),
    .flags = FN_OP_COMPUTES_BF16,
    .infer = weight_infer,
    .gradient = weight_gradient,
    .reference = weight_reference,
    .flops = weight_flops,
};

/* ---- builders ----------------------------------------------------------------------------------
 */

fn_value *fn_conv(fn_graph *graph, fn_value *x, fn_value *w, fn_value *bias,
                  const fn_conv_geometry *geometry) {
  if (!x || !w) return NULL;
  const fn_conv_geometry full = fn_geometry_complete(geometry, fn_spatial(x));
  return append_conv(graph, &full, x, w, bias);
}

fn_value *fn_conv_transpose(fn_graph *graph, fn_value *x, fn_value *w, fn_value *bias,
                            const fn_conv_geometry *geometry, const int64_t *extra) {
  if (!x || !w) return NULL;
  const int spatial = fn_spatial(x);
  if (spatial < 1 || spatial > FN_MAX_SPATIAL || w->shape.ndim != x->shape.ndim) {
    char x_text[FN_SHAPE_TEXT], w_text[FN_SHAPE_TEXT];
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "transposed convolution: input is %s and kernel %s, expected [N, C, s...] and "
                  "[C, K/groups, k...] with equally many (1 to %d) spatial axes",
                  fn_shape_text(&x->shape, x_text, sizeof x_text),
                  fn_shape_text(&w->shape, w_text, sizeof w_text), FN_MAX_SPATIAL);
    return NULL;
  }
  const fn_conv_geometry full = fn_geometry_complete(geometry, spatial);
  fn_shape result = {x->shape.ndim, {fn_dim(x, 0), fn_dim(w, 1) * full.groups}};
  for (int d = 0; d < spatial; d++) {
    result.dim[2 + d] = (fn_dim(x, 2 + d) - 1) * full.stride[d] - full.pad_low[d] -
                        full.pad_high[d] + full.dilation[d] * (fn_dim(w, 2 + d) - 1) + 1 +
                        (extra ? extra[d] : 0);
  }
  return append_data(graph, &full, x, w, bias, &result);
}
