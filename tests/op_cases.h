/** @file op_cases.h
 *  Every case of the operator test program. Adding an operator means adding cases here: the program
 *  fails when an operator of the registry has none.
 */
#ifndef TESTS_OP_CASES_H
#define TESTS_OP_CASES_H

#include "op_case.h"

/* ---- convolution
 * ---------------------------------------------------------------------------------- */

/** The three convolutions of one geometry; x and w are complete shapes. */
static void add_conv_family(op_suite *s, int d, fn_conv_geometry g, fn_shape x, fn_shape w,
                            bool bias, double slope, const char *text) {
  for (int a = d; a < FN_MAX_SPATIAL; a++) { // unused axes are neutral
    g.stride[a] = g.dilation[a] = 1;
    g.pad_low[a] = g.pad_high[a] = 0;
  }
  fn_conv_attrs attrs = {.geometry = g, .slope = slope};
  const fn_shape out_bias = bias ? vector_shape(w.dim[0]) : absent_shape;
  const fn_shape in_bias = bias ? vector_shape(x.dim[1]) : absent_shape;
  const fn_shape forward[] = {x, w, out_bias};
  const fn_shape y = infer_shape(&fn_op_conv, &attrs, 3, forward);
  add_case(s, &fn_op_conv, d, &attrs, 3, forward, "%s", text);
  attrs.extent = x;
  add_case(s, &fn_op_conv_data, d, &attrs, 3, (fn_shape[]){y, w, in_bias}, "%s", text);
  attrs.extent = w;
  attrs.slope = 1;
  op_case *c = add_case(s, &fn_op_conv_weight, d, &attrs, 2, (fn_shape[]){x, y}, "%s", text);
  c->output_count = 2;
}

/** With something of the result's shape added before the activation. */
static void add_conv_residual_case(op_suite *s, int d, int64_t n, int64_t c, int64_t k,
                                   int64_t edge, double slope) {
  const fn_conv_attrs attrs = {.geometry = even_geometry(1, 0, 0, 1, 1), .slope = slope};
  fn_shape in[4] = {small_field(n, c, d), kernel_shape(k, c, d, edge), vector_shape(k)};
  in[3] = infer_shape(&fn_op_conv, &attrs, 3, in);
  add_case(s, &fn_op_conv, d, &attrs, 4, in, "n%d c%d k%d edge %d residual%s", (int)n, (int)c,
           (int)k, (int)edge, slope != 1 ? " leaky" : "");
}

static void add_conv_cases(op_suite *s, int d) {
  typedef struct conv_row {
    int64_t n, c, k, edge, stride, low, high, dilation, groups;
    bool bias;
    double slope;
  } conv_row;
  static const conv_row rows[] = {
      {1, 3, 20, 3, 1, 0, 0, 1, 1, false, 1},    {3, 20, 33, 3, 1, 1, 1, 1, 1, true, 1},
      {1, 33, 3, 1, 1, 0, 0, 1, 1, true, 0.01},  {3, 16, 32, 2, 2, 0, 0, 1, 1, true, 0.2},
      {1, 3, 5, 3, 2, 1, 0, 1, 1, false, 1},     {1, 4, 6, 3, 1, 2, 2, 2, 1, true, 1},
      {3, 6, 9, 3, 1, 1, 1, 1, 3, true, 1},      {1, 20, 20, 3, 1, 1, 1, 1, 20, false, 1},
      {1, 16, 16, 3, 1, 0, 0, 1, 1, true, 0.01}, {3, 3, 1, 3, 3, 1, 2, 1, 1, false, 1},
      {1, 1, 1, 5, 1, 2, 2, 1, 1, true, 1},      {3, 4, 32, 3, 1, 1, 1, 1, 1, true, 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const conv_row *r = &rows[i];
    char text[96];
    snprintf(text, sizeof text, "n%d c%d k%d edge %d stride %d pad %d,%d dil %d groups %d%s%s",
             (int)r->n, (int)r->c, (int)r->k, (int)r->edge, (int)r->stride, (int)r->low,
             (int)r->high, (int)r->dilation, (int)r->groups, r->bias ? " bias" : "",
             r->slope != 1 ? " leaky" : "");
    add_conv_family(s, d, even_geometry(r->stride, r->low, r->high, r->dilation, r->groups),
                    small_field(r->n, r->c, d), kernel_shape(r->k, r->c / r->groups, d, r->edge),
                    r->bias, r->slope, text);
  }
  fn_conv_geometry g = {{1, 2, 1}, {1, 0, 2}, {0, 1, 1}, {1, 1, 2}, 1}; // every axis its own way
  const int64_t edge[] = {3, 2, 1};
  add_conv_family(s, d, g, small_field(3, 5, d), field_shape(7, 5, d, edge), true, 1, "uneven");
  add_conv_residual_case(s, d, 1, 16, 20, 3, 0.01);
  add_conv_residual_case(s, d, 3, 20, 16, 1, 1);
  add_conv_residual_case(s, d, 3, 5, 3, 3, 0.2);
}

/** fn_conv_transpose with the cells that a strided convolution lost. */
static void build_conv_transpose(fn_graph *graph, const op_case *c, fn_value *const *in,
                                 fn_value **out) {
  const fn_conv_geometry g = even_geometry(2, 1, 0, 1, 1);
  out[0] = fn_conv_transpose(graph, in[0], in[1], in[2], &g, (int64_t[]){1, 0, 1});
  (void)c;
}

static void add_conv_transpose_case(op_suite *s, int d) {
  op_case *c = add_case(
      s, &fn_op_conv_data, d, NULL, 3,
      (fn_shape[]){small_field(3, 5, d), kernel_shape(5, 4, d, 3), vector_shape(4)}, "transpose");
  c->build = build_conv_transpose;
}

/* ---- matrix product
 * --------------------------------------------------------------------------------- */

static void add_matmul_cases(op_suite *s, int d) {
  for (int flags = 0; flags < 8; flags++) {
    fn_matmul_attrs attrs = {.transpose_a = flags & 1, .transpose_b = flags & 2, .slope = 1};
    const bool whole = flags & 4; // b has the leading axes too
    const int lead = d - 1;
    if (whole && lead == 0) continue;
    const int64_t m = 7, k = 33, n = 20;
    fn_shape a = {lead + 2, {3, 2}}, b = {whole ? lead + 2 : 2, {3, 2}};
    a.dim[lead] = attrs.transpose_a ? k : m;
    a.dim[lead + 1] = attrs.transpose_a ? m : k;
    b.dim[b.ndim - 2] = attrs.transpose_b ? n : k;
    b.dim[b.ndim - 1] = attrs.transpose_b ? k : n;
    add_case(s, &fn_op_matmul, d, &attrs, 2, (fn_shape[]){a, b}, "%s%s%s",
             attrs.transpose_a ? "aT " : "a ", attrs.transpose_b ? "bT" : "b",
             whole ? " batched" : "");
    // Bias, activation or both; more and fewer columns than a library finishes.
    static const double slopes[] = {1, 0, 0.1};
    for (int i = 0; i < 5; i++) {
      const int64_t columns = i % 2 ? 5 : n;
      const bool bias = i < 3;
      attrs.slope = slopes[bias ? i : i - 2];
      b.dim[b.ndim - (attrs.transpose_b ? 2 : 1)] = columns;
      add_case(s, &fn_op_matmul, d, &attrs, bias ? 3 : 2, (fn_shape[]){a, b, vector_shape(columns)},
               "%s%s%s%s%s", attrs.transpose_a ? "aT " : "a ", attrs.transpose_b ? "bT" : "b",
               whole ? " batched" : "", bias ? " bias" : "",
               attrs.slope == 0   ? " relu"
               : attrs.slope != 1 ? " leaky"
                                  : "");
    }
  }
}

/* ---- batch norm
 * ------------------------------------------------------------------------------------- */

static void add_batch_norm_cases(op_suite *s, int d) {
  for (int flags = 0; flags < 8; flags++) {
    const bool residual = flags & 1, leaky = flags & 2, fixed = flags & 4;
    const int64_t n = flags % 3 == 0 ? 3 : 1, channels = flags & 1 ? 20 : flags & 2 ? 33 : 3;
    const fn_batch_norm_attrs attrs = {.eps = 1e-5,
                                       .slope = !leaky     ? 1
                                                : residual ? 0
                                                           : 0.01,
                                       .fixed = fixed};
    const fn_shape x = small_field(n, channels, d), v = vector_shape(channels);
    op_case *c = add_case(s, &fn_op_batch_norm, d, &attrs, 6,
                          (fn_shape[]){x, v, v, residual ? x : absent_shape,
                                       fixed ? v : absent_shape, fixed ? v : absent_shape},
                          "n%d c%d%s%s%s", (int)n, (int)channels, residual ? " residual" : "",
                          !leaky     ? ""
                          : residual ? " relu"
                                     : " leaky",
                          fixed ? " fixed" : "");
    c->output_count = 3;
    c->projected = 1; // no gradient flows through the statistics
    c->fill[5] = FILL_POSITIVE;
  }
}

/** Statistics and output of the forward operator, then its gradient; inputs dy, x, scale, shift. */
static void build_batch_norm_grad(fn_graph *graph, const op_case *c, fn_value *const *in,
                                  fn_value **out) {
  const fn_batch_norm_attrs *attrs = (const fn_batch_norm_attrs *)c->attrs;
  fn_value *forward[] = {
      in[1], in[2], in[3], NULL, attrs->fixed ? in[4] : NULL, attrs->fixed ? in[5] : NULL};
  fn_value *y = fn_node_append(graph, &fn_op_batch_norm, forward, 6, 3, attrs, 0x38);
  if (!y) return;
  fn_value *inputs[] = {
      in[0], in[1], in[2], y->node->output[1], y->node->output[2], attrs->slope == 1 ? NULL : y};
  fn_value *dx = fn_node_append(graph, &fn_op_batch_norm_grad, inputs, 6, 4, attrs, 1u << 5);
  for (int o = 0; dx && o < 4; o++)
    out[o] = dx->node->output[o];
}

static void add_batch_norm_grad_cases(op_suite *s, int d) {
  for (int flags = 0; flags < 4; flags++) {
    const bool leaky = flags & 1, fixed = flags & 2;
    const int64_t n = flags & 1 ? 3 : 1, channels = flags & 1 ? 20 : 3;
    const fn_batch_norm_attrs attrs = {.eps = 1e-5,
                                       .slope = !leaky  ? 1
                                                : fixed ? 0.01
                                                        : 0,
                                       .fixed = fixed};
    const fn_shape x = small_field(n, channels, d), v = vector_shape(channels);
    op_case *c = add_case(s, &fn_op_batch_norm_grad, d, &attrs, fixed ? 6 : 4,
                          (fn_shape[]){x, x, v, v, v, v}, "n%d c%d%s%s", (int)n, (int)channels,
                          !leaky  ? ""
                          : fixed ? " leaky"
                                  : " slope 0",
                          fixed ? " fixed" : "");
    c->build = build_batch_norm_grad;
    c->output_count = 4;
    c->fill[5] = FILL_POSITIVE;
  }
}

static void add_running_cases(op_suite *s, int d) {
  for (int variance = 0; variance < 2; variance++) {
    const fn_running_attrs attrs = {.momentum = 0.1, .count = variance ? 37 : 0};
    op_case *c =
        add_case(s, &fn_op_running, d, &attrs, 2, (fn_shape[]){vector_shape(20), vector_shape(20)},
                 "%s", variance ? "variance" : "mean");
    c->flags = CASE_NO_GRADIENT;
  }
}

static void add_fold_cases(op_suite *s, int d) {
  for (int flags = 0; flags < 8; flags++) {
    const bool transposed = flags & 1, grouped = flags & 2, bias = flags & 4;
    const fn_fold_attrs attrs = {.eps = 1e-5, .groups = grouped ? 3 : 1, .transposed = transposed};
    const fn_shape w = kernel_shape(12, 5, d, 3),
                   v = vector_shape(transposed ? 5 * attrs.groups : 12);
    op_case *c = add_case(s, &fn_op_fold_norm, d, &attrs, 6,
                          (fn_shape[]){w, bias ? v : absent_shape, v, v, v, v}, "%s%s%s",
                          transposed ? "transposed" : "plain", grouped ? " grouped" : "",
                          bias ? " bias" : "");
    c->output_count = 2;
    c->fill[5] = FILL_POSITIVE;
    c->flags = CASE_NO_GRADIENT;
  }
}

/* ---- elementwise
 * --------------------------------------------------------------------------------------- */

static void add_unary_cases(op_suite *s, int d) {
  typedef struct unary_row {
    const char *name;
    fn_unary_attrs attrs;
    op_fill fill;
    const char *tolerance;
    unsigned flags;
  } unary_row;
  static const unary_row rows[] = {
      {"affine", {.kind = FN_AFFINE, .a = -0.7, .b = 0.3}, FILL_NORMAL, "affine", 0},
      {"leaky", {.kind = FN_LEAKY, .a = 0.01}, FILL_AWAY, "leaky", 0},
      {"relu", {.kind = FN_LEAKY, .a = 0}, FILL_AWAY, "leaky", 0},
      {"leaky negative", {.kind = FN_LEAKY, .a = -0.5}, FILL_AWAY, "leaky", 0},
      {"sigmoid", {.kind = FN_SIGMOID}, FILL_NORMAL, "transcendental", 0},
      {"tanh", {.kind = FN_TANH}, FILL_NORMAL, "transcendental", 0},
      {"exp", {.kind = FN_EXP}, FILL_NORMAL, "transcendental", 0},
      {"log", {.kind = FN_LOG}, FILL_POSITIVE, "transcendental", 0},
      {"sqrt", {.kind = FN_SQRT}, FILL_POSITIVE, "rounded", 0},
      {"square", {.kind = FN_SQUARE}, FILL_NORMAL, "rounded", 0},
      {"abs", {.kind = FN_ABS}, FILL_AWAY, "exact", 0},
      {"step", {.kind = FN_STEP}, FILL_AWAY, "exact", 0},
      {"sign", {.kind = FN_SIGN}, FILL_AWAY, "exact", 0},
      {"softplus", {.kind = FN_SOFTPLUS}, FILL_NORMAL, "transcendental", 0},
      {"reciprocal", {.kind = FN_RECIPROCAL}, FILL_POSITIVE, "rounded", 0},
      {"identity", {.kind = FN_IDENTITY}, FILL_NORMAL, "exact", 0},
      {"stop", {.kind = FN_IDENTITY, .stop = true}, FILL_NORMAL, "exact", CASE_NO_GRADIENT},
      {"cast", {.kind = FN_CAST}, FILL_NORMAL, "exact", 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const unary_row *r = &rows[i];
    const fn_shape shape = small_field(i % 2 ? 3 : 1, i % 3 ? 20 : 3, d);
    op_case *c = add_case(s, &fn_op_unary, d, &r->attrs, 1, &shape, "%s", r->name);
    c->fill[0] = r->fill;
    c->tolerance = r->tolerance;
    c->flags = r->flags;
  }
  const fn_unary_attrs leaky = {.kind = FN_LEAKY, .a = 0.01};
  op_case *c = add_case(s, &fn_op_unary, d, &leaky, 1, &(fn_shape){2, {3, 20}}, "leaky [3, 20]");
  c->fill[0] = FILL_AWAY;
  c->tolerance = "leaky";
}

static void add_binary_cases(op_suite *s, int d) {
  static const char *const names[] = {"add", "sub", "mul", "div", "min", "max", "greater"};
  for (int kind = FN_ADD; kind <= FN_GREATER; kind++) {
    const bool exact = kind == FN_MIN || kind == FN_MAX || kind == FN_GREATER;
    const fn_shape x = small_field(3, 20, d);
    fn_shape row = x, channel = x, narrow = x, last = {1, {x.dim[x.ndim - 1]}};
    row.dim[0] = 1;
    narrow.dim[1] = 1;
    channel.dim[0] = 1;
    for (int a = 2; a < x.ndim; a++)
      channel.dim[a] = 1;
    const fn_shape scalar = {0};
    const fn_shape pair[][2] = {{x, x},      {x, channel}, {row, x}, {narrow, channel},
                                {x, scalar}, {last, x}};
    static const char *const text[] = {"same", "x channel", "row x", "both", "x scalar", "last x"};
    for (int i = 0; i < 6; i++) {
      if (kind != FN_ADD && kind != FN_DIV && i > 0 && (i + kind) % 3) continue; // a sample of them
      op_case *c = add_case(s, &fn_op_binary, d, &(fn_binary_attrs){kind}, 2, pair[i], "%s %s",
                            names[kind], text[i]);
      c->tolerance = exact ? "exact" : "rounded";
      if (kind == FN_DIV) c->fill[1] = FILL_POSITIVE;
    }
  }
}

static void add_leaky_grad_cases(op_suite *s, int d) {
  for (int i = 0; i < 2; i++) {
    const fn_shape x = small_field(i ? 3 : 1, i ? 33 : 16, d);
    op_case *c = add_case(s, &fn_op_leaky_grad, d, &(fn_leaky_attrs){i ? 0.01 : 0}, 2,
                          (fn_shape[]){x, x}, "slope %g", i ? 0.01 : 0);
    c->fill[1] = FILL_AWAY;
    c->tolerance = "leaky";
  }
}

/* ---- shape
 * ------------------------------------------------------------------------------------------------
 */

static void add_concat_cases(op_suite *s, int d) {
  fn_shape a = small_field(3, 16, d), b = small_field(3, 20, d), c = small_field(3, 3, d);
  add_case(s, &fn_op_concat, d, &(fn_concat_attrs){1}, 2, (fn_shape[]){a, b}, "c16 c20");
  add_case(s, &fn_op_concat, d, &(fn_concat_attrs){1}, 3, (fn_shape[]){c, b, a}, "c3 c20 c16");
  a.dim[0] = b.dim[0] = c.dim[0] = 1;
  add_case(s, &fn_op_concat, d, &(fn_concat_attrs){1}, 2, (fn_shape[]){a, c}, "n1 c16 c3");
  b.dim[0] = 2;
  b.dim[1] = 16;
  add_case(s, &fn_op_concat, d, &(fn_concat_attrs){0}, 2, (fn_shape[]){a, b}, "along batch");
  b.dim[0] = 1;
  b.dim[2] = 3;
  add_case(s, &fn_op_concat, d, &(fn_concat_attrs){2}, 2, (fn_shape[]){a, b}, "along space");
}

/** Windows of x: crop, its adjoint, and addition into it. */
static void add_window_family(op_suite *s, int d, fn_shape x, const int64_t *start, fn_shape window,
                              const char *text) {
  fn_window_attrs attrs = {.shape = window};
  memcpy(attrs.start, start, (size_t)x.ndim * sizeof *start);
  add_case(s, &fn_op_crop, d, &attrs, 1, &x, "%s", text);
  op_case *c = add_case(s, &fn_op_add_window, d, &attrs, 2, (fn_shape[]){x, window}, "%s", text);
  c->tolerance = "rounded";
  attrs.shape = x;
  add_case(s, &fn_op_pad_zero, d, &attrs, 1, &window, "%s", text);
}

static void add_window_cases(op_suite *s, int d) {
  static const int64_t inner[] = {0, 0, 2, 1, 1}, channel[] = {0, 16, 0, 0, 0},
                       odd[] = {1, 3, 0, 2, 0};
  for (int i = 0; i < 3; i++) {
    const fn_shape x = small_field(i ? 3 : 1, i == 1 ? 20 : 33, d);
    fn_shape window = x;
    for (int a = 2; a < x.ndim; a++)
      window.dim[a] -= 3;
    add_window_family(s, d, x, inner, window, i == 1 ? "space n3 c20" : "space");
  }
  const fn_shape x = small_field(3, 33, d);
  fn_shape window = x;
  window.dim[1] = 17;
  add_window_family(s, d, x, channel, window, "channels");
  window = x;
  window.dim[0] = 2;
  window.dim[1] = 20;
  if (d > 1) window.dim[3] -= 2;
  add_window_family(s, d, x, odd, window, "all axes");
}

static void add_periodic_cases(op_suite *s, int d) {
  for (int wide = 0; wide < 2; wide++) { // wide margins wrap more than once
    const fn_shape x = wide ? field_shape(1, 3, d, (int64_t[]){4, 3, 2}) : small_field(3, 20, d);
    fn_window_attrs attrs = {.shape = x};
    for (int a = 2; a < x.ndim; a++) {
      attrs.start[a] = wide ? 5 : a - 1;
      attrs.shape.dim[a] += attrs.start[a] + (wide ? 3 : 1);
    }
    const fn_shape padded = attrs.shape;
    add_case(s, &fn_op_pad_periodic, d, &attrs, 1, &x, wide ? "wide" : "thin");
    attrs.shape = x;
    add_case(s, &fn_op_pad_periodic_grad, d, &attrs, 1, &padded, wide ? "wide" : "thin");
  }
}

static void add_layout_cases(op_suite *s, int d) {
  const fn_shape x = small_field(3, 20, d);
  const int64_t cells = fn_shape_count(&x) / 60;
  add_case(s, &fn_op_reshape, d, &(fn_reshape_attrs){{2, {3, 20 * cells}}}, 1, &x, "flat");
  add_case(s, &fn_op_reshape, d, &(fn_reshape_attrs){{3, {3, 5, 4 * cells}}}, 1, &x, "channels");
  add_case(s, &fn_op_permute, d, &(fn_permute_attrs){{1, 0, 2, 3, 4}}, 1, &x, "batch channel");
  fn_permute_attrs last = {{0}};
  for (int a = 1; a < x.ndim; a++)
    last.order[a] = a + 1 < x.ndim ? a + 1 : 1;
  add_case(s, &fn_op_permute, d, &last, 1, &x, "channels last");
  fn_shape column = x, row = {d, {0}};
  column.dim[0] = column.dim[2] = 1;
  for (int a = 0; a < d; a++)
    row.dim[a] = x.dim[2 + a];
  add_case(s, &fn_op_broadcast, d, &(fn_reshape_attrs){x}, 1, &column, "axes of one");
  add_case(s, &fn_op_broadcast, d, &(fn_reshape_attrs){x}, 1, &row, "missing axes");
  add_case(s, &fn_op_broadcast, d, &(fn_reshape_attrs){x}, 1, &(fn_shape){0}, "scalar");
  add_case(s, &fn_op_fill, d, &(fn_fill_attrs){x, 0.1}, 0, NULL, "0.1");
}

/* ---- reductions, pooling, resampling
 * ------------------------------------------------------------------------ */

static void add_sum_cases(op_suite *s, int d) {
  const unsigned axes[] = {FN_ALL_AXES, FN_SPATIAL_AXES,           1u << 1,
                           1u,          1u << 0 | FN_SPATIAL_AXES, 1u << 2};
  for (int i = 0; i < 6; i++) {
    const fn_shape x = small_field(3, i % 2 ? 20 : 33, d);
    const fn_reduce_attrs attrs = {.axes = axes[i] & ((1u << x.ndim) - 1), .keep = i % 2};
    add_case(s, &fn_op_sum, d, &attrs, 1, &x, "axes %#x%s", attrs.axes, i % 2 ? " keep" : "");
  }
}

static void add_pool_cases(op_suite *s, int d) {
  typedef struct pool_row {
    int64_t n, c, kernel, stride, low, high;
  } pool_row;
  static const pool_row rows[] = {{1, 3, 2, 2, 0, 0}, {3, 20, 3, 2, 1, 1}, {1, 16, 3, 1, 1, 0}};
  for (int i = 0; i < 3; i++) {
    const pool_row *r = &rows[i];
    const fn_shape x = small_field(r->n, r->c, d);
    fn_pool_attrs attrs = {.kernel = {1, 1, 1}, .geometry = even_geometry(1, 0, 0, 1, 1)};
    for (int a = 0; a < d; a++) {
      attrs.kernel[a] = r->kernel;
      attrs.geometry.stride[a] = r->stride;
      attrs.geometry.pad_low[a] = r->low;
      attrs.geometry.pad_high[a] = r->high;
    }
    attrs.extent = x;
    char text[64];
    snprintf(text, sizeof text, "n%d c%d kernel %d stride %d pad %d,%d", (int)r->n, (int)r->c,
             (int)r->kernel, (int)r->stride, (int)r->low, (int)r->high);
    const fn_shape y = infer_shape(&fn_op_average_pool, &attrs, 1, &x);
    add_case(s, &fn_op_average_pool, d, &attrs, 1, &x, "%s", text);
    add_case(s, &fn_op_average_pool_grad, d, &attrs, 1, &y, "%s", text);
    op_case *c = add_case(s, &fn_op_max_pool, d, &attrs, 1, &x, "%s", text);
    c->fill[0] = FILL_DISTINCT;
    c = add_case(s, &fn_op_max_pool_grad, d, &attrs, 2, (fn_shape[]){y, x}, "%s", text);
    c->fill[1] = FILL_DISTINCT;
    c = add_case(s, &fn_op_max_pool_gather, d, &attrs, 2, (fn_shape[]){x, x}, "%s", text);
    c->fill[1] = FILL_DISTINCT;
  }
}

static void add_resample_cases(op_suite *s, int d) {
  static const double factors[] = {2, 2, 0.5, 1.5};
  static const int64_t trims[] = {0, 1, 0, 2};
  for (int i = 0; i < 4; i++) {
    const fn_shape x = small_field(i % 2 ? 3 : 1, i % 2 ? 20 : 3, d);
    const fn_resample_attrs attrs = {.factor = factors[i], .trim = trims[i], .extent = x};
    const fn_shape y = infer_shape(&fn_op_resample, &attrs, 1, &x);
    add_case(s, &fn_op_resample, d, &attrs, 1, &x, "factor %g trim %d", factors[i], (int)trims[i]);
    add_case(s, &fn_op_resample_grad, d, &attrs, 1, &y, "factor %g trim %d", factors[i],
             (int)trims[i]);
  }
}

/* ---- random values, softmax, losses
 * ----------------------------------------------------------------------------- */

static void add_random_cases(op_suite *s, int d) {
  const fn_random_attrs attrs = {.shape = small_field(3, 3, d), .p = 0.3, .index = 2};
  add_case(s, &fn_op_normal, d, &attrs, 0, NULL, "n3 c3");
  add_case(s, &fn_op_dropout_mask, d, &attrs, 0, NULL, "n3 c3 p 0.3");
}

static void build_dropout(fn_graph *graph, const op_case *c, fn_value *const *in, fn_value **out) {
  (void)c;
  out[0] = fn_add(graph, fn_dropout(graph, in[0], 0.3), fn_normal(graph, fn_value_shape(in[0])));
}
static void build_mse(fn_graph *graph, const op_case *c, fn_value *const *in, fn_value **out) {
  (void)c;
  out[0] = fn_mse(graph, in[0], in[1]);
}
static void build_l1(fn_graph *graph, const op_case *c, fn_value *const *in, fn_value **out) {
  (void)c;
  out[0] = fn_l1(graph, in[0], in[1]);
}
static void build_huber(fn_graph *graph, const op_case *c, fn_value *const *in, fn_value **out) {
  (void)c;
  out[0] = fn_huber(graph, in[0], in[1], 0.8);
}
static void build_bce(fn_graph *graph, const op_case *c, fn_value *const *in, fn_value **out) {
  (void)c;
  out[0] = fn_bce_with_logits(graph, in[0], in[1]);
}
static void build_cross_entropy(fn_graph *graph, const op_case *c, fn_value *const *in,
                                fn_value **out) {
  (void)c;
  out[0] = fn_cross_entropy(graph, in[0], in[1]);
}

static void add_loss_cases(op_suite *s, int d) {
  typedef struct loss_row {
    const char *name;
    op_build build;
    const fn_op *op;
    op_fill target;
  } loss_row;
  static const loss_row rows[] = {
      {"mse", build_mse, &fn_op_unary, FILL_NORMAL},
      {"l1", build_l1, &fn_op_unary, FILL_NORMAL},
      {"huber", build_huber, &fn_op_binary, FILL_NORMAL},
      {"bce", build_bce, &fn_op_unary, FILL_PROBABILITY},
      {"cross entropy", build_cross_entropy, &fn_op_log_softmax, FILL_PROBABILITY},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const fn_shape x = small_field(3, 5, d);
    op_case *c = add_case(s, rows[i].op, d, NULL, 2, (fn_shape[]){x, x}, "loss %s", rows[i].name);
    c->fill[1] = rows[i].target;
    c->build = rows[i].build;
    c->tolerance = "composed";
  }
  for (int i = 0; i < 2; i++) {
    const fn_shape x = i ? (fn_shape){2, {3, 33}} : small_field(3, 20, d);
    add_case(s, &fn_op_log_softmax, d, NULL, 1, &x, i ? "[3, 33]" : "n3 c20");
  }
  const fn_shape x = small_field(3, 20, d);
  op_case *c = add_case(s, &fn_op_dropout_mask, d, NULL, 1, &x, "dropout and noise");
  c->build = build_dropout;
  c->flags = CASE_TRAINING;
  c->tolerance = "affine";
}

/* ---- all
 * ------------------------------------------------------------------------------------------------------------
 */

static void add_all_cases(op_suite *s, int d) {
  add_conv_cases(s, d);
  add_conv_transpose_case(s, d);
  add_matmul_cases(s, d);
  add_batch_norm_cases(s, d);
  add_batch_norm_grad_cases(s, d);
  add_running_cases(s, d);
  add_fold_cases(s, d);
  add_unary_cases(s, d);
  add_binary_cases(s, d);
  add_leaky_grad_cases(s, d);
  add_concat_cases(s, d);
  add_window_cases(s, d);
  add_periodic_cases(s, d);
  add_layout_cases(s, d);
  add_sum_cases(s, d);
  add_pool_cases(s, d);
  add_resample_cases(s, d);
  add_random_cases(s, d);
  add_loss_cases(s, d);
}

/** Cases of a size worth timing. */
static void add_perf_cases(op_suite *s, int d) {
  const int64_t channels = 32;
  const fn_shape x = field_shape(1, channels, d, large_edges[d]), v = vector_shape(channels);
  const fn_conv_geometry one = even_geometry(1, 0, 0, 1, 1), two = even_geometry(2, 0, 0, 1, 1);
  add_conv_family(s, d, one, x, kernel_shape(channels, channels, d, 3), true, 1, "edge 3");
  add_conv_family(s, d, one, x, kernel_shape(channels, channels, d, 1), true, 1, "edge 1");
  add_conv_family(s, d, two, x, kernel_shape(channels, channels, d, 2), true, 1, "edge 2 stride 2");
  const fn_batch_norm_attrs norm = {.eps = 1e-5, .slope = 0.01};
  op_case *c = add_case(s, &fn_op_batch_norm, d, &norm, 6,
                        (fn_shape[]){x, v, v, absent_shape, absent_shape, absent_shape}, "leaky");
  c->output_count = 3;
  c = add_case(s, &fn_op_batch_norm_grad, d, &norm, 4, (fn_shape[]){x, x, v, v}, "leaky");
  c->build = build_batch_norm_grad;
  c->output_count = 4;
  add_case(s, &fn_op_unary, d, &(fn_unary_attrs){.kind = FN_LEAKY, .a = 0.01}, 1, &x, "leaky");
  add_case(s, &fn_op_leaky_grad, d, &(fn_leaky_attrs){0.01}, 2, (fn_shape[]){x, x}, "leaky");
  add_case(s, &fn_op_binary, d, &(fn_binary_attrs){FN_ADD}, 2, (fn_shape[]){x, x}, "add");
  fn_shape window = x;
  for (int a = 2; a < x.ndim; a++)
    window.dim[a] -= 4;
  add_window_family(s, d, x, (int64_t[]){0, 0, 2, 2, 2}, window, "margin 2");
  add_case(s, &fn_op_concat, d, &(fn_concat_attrs){1}, 2, (fn_shape[]){x, x}, "channels");
  add_case(s, &fn_op_sum, d, &(fn_reduce_attrs){FN_ALL_AXES & ((1u << x.ndim) - 1), false}, 1, &x,
           "all axes");
  fn_pool_attrs pool = {.kernel = {1, 1, 1}, .geometry = even_geometry(1, 0, 0, 1, 1), .extent = x};
  for (int a = 0; a < d; a++)
    pool.kernel[a] = pool.geometry.stride[a] = 2;
  add_case(s, &fn_op_average_pool, d, &pool, 1, &x, "kernel 2");
  add_case(s, &fn_op_max_pool, d, &pool, 1, &x, "kernel 2");
  const fn_shape pooled = infer_shape(&fn_op_average_pool, &pool, 1, &x);
  add_case(s, &fn_op_average_pool_grad, d, &pool, 1, &pooled, "kernel 2");
  add_case(s, &fn_op_max_pool_grad, d, &pool, 2, (fn_shape[]){pooled, x}, "kernel 2");
  const fn_resample_attrs twice = {.factor = 2, .extent = x};
  const fn_shape larger = infer_shape(&fn_op_resample, &twice, 1, &x);
  add_case(s, &fn_op_resample, d, &twice, 1, &x, "factor 2");
  add_case(s, &fn_op_resample_grad, d, &twice, 1, &larger, "factor 2");
  add_case(s, &fn_op_log_softmax, d, NULL, 1, &x, "channels");
  add_case(s, &fn_op_normal, d, &(fn_random_attrs){.shape = x}, 0, NULL, "field");
  add_case(s, &fn_op_dropout_mask, d, &(fn_random_attrs){.shape = x, .p = 0.1}, 0, NULL, "field");
}

#endif
