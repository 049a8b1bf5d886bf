/* Convolution, matrix product, pooling and resampling: published or hand-computed values, brute
 * force, and adjointness. Reference kernels only. */
#include "op_call.h"

#include <math.h>

#include "base/system.h"

static const fn_shape absent = {.ndim = -1};

/* ---- convolution
 * --------------------------------------------------------------------------------- */

static fn_conv_geometry plain(void) {
  return (fn_conv_geometry){
      .stride = {1, 1, 1}, .dilation = {1, 1, 1}, .groups = 1, .pad_low = {0}};
}

static void conv_by_hand(void **state) {
  (void)state;
  call c;
  fn_conv_attrs attrs = {.geometry = plain(), .slope = 0.25};
  fn_shape shapes[] = {{3, {1, 1, 5}}, {3, {1, 1, 3}}, {1, {1}}};
  call_make(&c, &fn_op_conv, &attrs, 3, shapes, 1);
  memcpy(c.in[0], (double[]){1, 2, 3, 9, 5}, 5 * sizeof(double));
  memcpy(c.in[1], (double[]){1, 0, -1}, 3 * sizeof(double));
  c.in[2][0] = 0.5;
  call_run(&c);
  // 1 - 3, 2 - 9, 3 - 5, plus 1/2, times 1/4 as all are negative
  assert_values(c.out[0], (double[]){-0.375, -1.625, -0.375}, 3, 0);
  call_free(&c);
}

static void conv_stride_padding_dilation_by_hand(void **state) {
  (void)state;
  call c;
  fn_conv_attrs attrs = {.geometry = plain(), .slope = 1};
  attrs.geometry.stride[0] = 2;
  attrs.geometry.pad_low[0] = 1;
  attrs.geometry.dilation[0] = 2;
  fn_shape shapes[] = {{3, {1, 1, 5}}, {3, {1, 1, 2}}, absent};
  call_make(&c, &fn_op_conv, &attrs, 3, shapes, 1);
  memcpy(c.in[0], (double[]){1, 2, 3, 4, 5}, 5 * sizeof(double));
  memcpy(c.in[1], (double[]){1, 2}, 2 * sizeof(double));
  call_run(&c);
  assert_int_equal(c.output[0]->shape.dim[2], 2);
  assert_values(c.out[0], (double[]){0 * 1 + 2 * 2, 2 * 1 + 4 * 2}, 2, 0);
  call_free(&c);
}

/* A transposed convolution with kernel 2 and stride 2 writes x[i] w at 2 i. */
static void conv_transposed_by_hand(void **state) {
  (void)state;
  call c;
  fn_conv_attrs attrs = {.geometry = plain(), .slope = 1, .extent = {3, {1, 1, 4}}};
  attrs.geometry.stride[0] = 2;
  fn_shape shapes[] = {{3, {1, 1, 2}}, {3, {1, 1, 2}}, {1, {1}}};
  call_make(&c, &fn_op_conv_data, &attrs, 3, shapes, 1);
  memcpy(c.in[0], (double[]){1, 2}, 2 * sizeof(double));
  memcpy(c.in[1], (double[]){1, 10}, 2 * sizeof(double));
  c.in[2][0] = 100;
  call_run(&c);
  assert_values(c.out[0], (double[]){101, 110, 102, 120}, 4, 0);
  call_free(&c);
}

/** A geometry in `spatial` dimensions with everything in it, and shapes x, w that fit. */
static fn_conv_attrs random_geometry(fn_random *random, int spatial, fn_shape *x, fn_shape *w) {
  fn_conv_attrs attrs = {.geometry = plain(), .slope = 1};
  attrs.geometry.groups = 1 + (int64_t)fn_random_below(random, 3);
  const int64_t groups = attrs.geometry.groups;
  *w = (fn_shape){2 + spatial,
                  {groups * (1 + (int64_t)fn_random_below(random, 2)),
                   1 + (int64_t)fn_random_below(random, 3)}};
  *x = (fn_shape){2 + spatial, {1 + (int64_t)fn_random_below(random, 3), groups * w->dim[1]}};
  for (int d = 0; d < spatial; d++) {
    attrs.geometry.stride[d] = 1 + (int64_t)fn_random_below(random, 3);
    attrs.geometry.dilation[d] = 1 + (int64_t)fn_random_below(random, 3);
    attrs.geometry.pad_low[d] = (int64_t)fn_random_below(random, 3);
    attrs.geometry.pad_high[d] = (int64_t)fn_random_below(random, 3);
    w->dim[2 + d] = 1 + (int64_t)fn_random_below(random, 3);
    const int64_t reach = attrs.geometry.dilation[d] * (w->dim[2 + d] - 1) + 1;
    x->dim[2 + d] = reach + (int64_t)fn_random_below(random, 5);
  }
  return attrs;
}

/** Split a C-order index over the spatial axes of shape. */
static void unravel(const fn_shape *shape, int64_t index, int64_t *position) {
  for (int d = shape->ndim - 3; d >= 0; d--) {
    position[d] = index % shape->dim[2 + d];
    index /= shape->dim[2 + d];
  }
}

static int64_t cells(const fn_shape *shape) {
  return fn_shape_count(shape) / (shape->dim[0] * shape->dim[1]);
}

/** One output value by its definition, cell by cell. */
static double conv_at(const call *c, int64_t n, int64_t k, const int64_t *o) {
  const fn_conv_attrs *attrs = c->node.attrs;
  const fn_shape *x = &c->input[0]->shape, *w = &c->input[1]->shape;
  const int64_t group = k / (w->dim[0] / attrs->geometry.groups);
  double sum = c->in[2][k];
  for (int64_t j = 0; j < w->dim[1]; j++) {
    for (int64_t t = 0; t < cells(w); t++) {
      int64_t tap[3], cell = (n * x->dim[1] + group * w->dim[1] + j);
      bool inside = true;
      unravel(w, t, tap);
      for (int d = 0; d < x->ndim - 2; d++) {
        const int64_t at = o[d] * attrs->geometry.stride[d] + tap[d] * attrs->geometry.dilation[d] -
                           attrs->geometry.pad_low[d];
        inside = inside && at >= 0 && at < x->dim[2 + d];
        cell = cell * x->dim[2 + d] + at;
      }
      if (inside) sum += c->in[0][cell] * c->in[1][(k * w->dim[1] + j) * cells(w) + t];
    }
  }
  return sum;
}

static void conv_equals_its_definition(void **state) {
  (void)state;
  fn_random random = fn_random_stream(3, FN_RANDOM_TEST, 0, 1);
  for (int trial = 0; trial < 60; trial++) {
    fn_shape shapes[3];
    const fn_conv_attrs attrs = random_geometry(&random, 1 + trial % 3, &shapes[0], &shapes[1]);
    shapes[2] = (fn_shape){1, {shapes[1].dim[0]}};
    call c;
    call_make(&c, &fn_op_conv, &attrs, 3, shapes, 1);
    for (int i = 0; i < 3; i++)
      fill_normal(&random, c.in[i], call_in_count(&c, i));
    call_run(&c);
    const fn_shape *y = &c.output[0]->shape;
    for (int64_t i = 0; i < fn_shape_count(y); i++) {
      int64_t o[3];
      const int64_t plane = i / cells(y);
      unravel(y, i % cells(y), o);
      assert_near(c.out[0][i], conv_at(&c, plane / y->dim[1], plane % y->dim[1], o), 1e-12);
    }
    call_free(&c);
  }
}

/* <conv(x, w), y> = <x, conv_data(y, w)> = <w, conv_weight(x, y)> */
static void conv_family_is_adjoint(void **state) {
  (void)state;
  fn_random random = fn_random_stream(4, FN_RANDOM_TEST, 0, 1);
  for (int trial = 0; trial < 90; trial++) {
    fn_shape x, w;
    fn_conv_attrs attrs = random_geometry(&random, 1 + trial % 3, &x, &w);
    fn_conv_attrs data_attrs = attrs, weight_attrs = attrs;
    data_attrs.extent = x;
    weight_attrs.extent = w;
    call forward, data, weight;
    call_make(&forward, &fn_op_conv, &attrs, 3, (fn_shape[]){x, w, absent}, 1);
    const fn_shape y = forward.output[0]->shape;
    call_make(&data, &fn_op_conv_data, &data_attrs, 3, (fn_shape[]){y, w, absent}, 1);
    call_make(&weight, &fn_op_conv_weight, &weight_attrs, 2, (fn_shape[]){x, y}, 2);
    fill_normal(&random, forward.in[0], fn_shape_count(&x));
    fill_normal(&random, forward.in[1], fn_shape_count(&w));
    fill_normal(&random, data.in[0], fn_shape_count(&y));
    memcpy(data.in[1], forward.in[1], (size_t)fn_shape_count(&w) * sizeof(double));
    memcpy(weight.in[0], forward.in[0], (size_t)fn_shape_count(&x) * sizeof(double));
    memcpy(weight.in[1], data.in[0], (size_t)fn_shape_count(&y) * sizeof(double));
    call_run(&forward);
    call_run(&data);
    call_run(&weight);
    const double product = inner(forward.out[0], data.in[0], fn_shape_count(&y));
    const double scale = 1e-11 * (1 + fabs(product));
    assert_near(inner(forward.in[0], data.out[0], fn_shape_count(&x)), product, scale);
    assert_near(inner(forward.in[1], weight.out[0], fn_shape_count(&w)), product, scale);
    // the bias gradient is the sum of y per channel
    for (int64_t k = 0; k < y.dim[1]; k++) {
      double sum = 0;
      for (int64_t i = 0; i < fn_shape_count(&y); i++) {
        if (i / cells(&y) % y.dim[1] == k) sum += data.in[0][i];
      }
      assert_near(weight.out[1][k], sum, 1e-11);
    }
    call_free(&forward);
    call_free(&data);
    call_free(&weight);
  }
}

static void conv_counts_flops(void **state) {
  (void)state;
  call c;
  const fn_conv_attrs attrs = {.geometry = plain(), .slope = 1};
  // 3 -> 64 channels, 3^3, edge 104: 2 * 102^3 * 64 * 81 = 11.0 GFLOP
  fn_shape shapes[] = {{5, {1, 3, 104, 104, 104}}, {5, {64, 3, 3, 3, 3}}, absent};
  assert_int_equal(call_infer(&c, &fn_op_conv, &attrs, 3, shapes, 1), FN_OK);
  assert_near(fn_op_conv.flops(&c.node), 2.0 * 102 * 102 * 102 * 64 * 81, 0);
}

static void conv_refuses_by_name(void **state) {
  (void)state;
  call c;
  fn_conv_attrs attrs = {.geometry = plain(), .slope = 1};
  fn_shape channels[] = {{3, {1, 3, 8}}, {3, {4, 2, 3}}, absent};
  assert_int_equal(call_infer(&c, &fn_op_conv, &attrs, 3, channels, 1), FN_ERR_CONFIG);
  assert_string_equal(fn_error_message(),
                      "convolution: input [1, 3, 8] has 3 channels, kernel [4, 2, 3] with 1 "
                      "group(s) expects 2");
  fn_shape small[] = {{4, {1, 2, 8, 4}}, {4, {4, 2, 5, 5}}, absent};
  assert_int_equal(call_infer(&c, &fn_op_conv, &attrs, 3, small, 1), FN_ERR_CONFIG);
  assert_string_equal(fn_error_message(),
                      "convolution: kernel [4, 2, 5, 5] does not fit in input [1, 2, 8, 4] along "
                      "spatial axis 1 (padding 0 + 0, dilation 1)");
  fn_shape bias[] = {{3, {1, 2, 8}}, {3, {4, 2, 3}}, {1, {3}}};
  assert_int_equal(call_infer(&c, &fn_op_conv, &attrs, 3, bias, 1), FN_ERR_CONFIG);
  assert_string_equal(fn_error_message(), "convolution: bias is [3], expected [4]");
  attrs.extent = (fn_shape){3, {1, 2, 9}};
  fn_shape transposed[] = {{3, {1, 4, 8}}, {3, {4, 2, 3}}, absent};
  assert_int_equal(call_infer(&c, &fn_op_conv_data, &attrs, 3, transposed, 1), FN_ERR_CONFIG);
  assert_string_equal(fn_error_message(),
                      "transposed convolution: input is [1, 4, 8], expected [1, 4, 7]");
}

/* ---- matrix product
 * ------------------------------------------------------------------------------ */

static void matmul_by_hand(void **state) {
  (void)state;
  // A = [1 2 3; 4 5 6], B = [1 0; 2 1; 0 3]: A B = [5 11; 14 23]
  const double a[] = {1, 2, 3, 4, 5, 6}, a_transposed[] = {1, 4, 2, 5, 3, 6};
  const double b[] = {1, 0, 2, 1, 0, 3}, b_transposed[] = {1, 2, 0, 0, 1, 3};
  for (int flags = 0; flags < 4; flags++) {
    const fn_matmul_attrs attrs = {flags & 1, flags & 2, 1};
    const fn_shape shapes[] = {attrs.transpose_a ? (fn_shape){2, {3, 2}} : (fn_shape){2, {2, 3}},
                               attrs.transpose_b ? (fn_shape){2, {2, 3}} : (fn_shape){2, {3, 2}}};
    call c;
    call_make(&c, &fn_op_matmul, &attrs, 2, shapes, 1);
    memcpy(c.in[0], attrs.transpose_a ? a_transposed : a, sizeof a);
    memcpy(c.in[1], attrs.transpose_b ? b_transposed : b, sizeof b);
    call_run(&c);
    assert_values(c.out[0], (double[]){5, 11, 14, 23}, 4, 0);
    call_free(&c);
  }
}

static void matmul_repeats_over_leading_axes(void **state) {
  (void)state;
  const fn_matmul_attrs attrs = {false, false, 1};
  call shared, separate;
  fn_shape a = {3, {2, 1, 2}};
  call_make(&shared, &fn_op_matmul, &attrs, 2, (fn_shape[]){a, {2, {2, 1}}}, 1);
  call_make(&separate, &fn_op_matmul, &attrs, 2, (fn_shape[]){a, {3, {2, 2, 1}}}, 1);
  memcpy(shared.in[0], (double[]){1, 2, 3, 4}, 4 * sizeof(double));
  memcpy(shared.in[1], (double[]){10, 1}, 2 * sizeof(double));
  memcpy(separate.in[0], shared.in[0], 4 * sizeof(double));
  memcpy(separate.in[1], (double[]){10, 1, 1, 100}, 4 * sizeof(double));
  call_run(&shared);
  call_run(&separate);
  assert_int_equal(shared.output[0]->shape.ndim, 3);
  assert_values(shared.out[0], (double[]){12, 34}, 2, 0);
  assert_values(separate.out[0], (double[]){12, 403}, 2, 0);
  call_free(&shared);
  call_free(&separate);
  call c;
  fn_shape wrong[] = {{2, {2, 3}}, {2, {4, 2}}};
  assert_int_equal(call_infer(&c, &fn_op_matmul, &attrs, 2, wrong, 1), FN_ERR_CONFIG);
  assert_string_equal(fn_error_message(), "matrix product: [2, 3] has 3 columns, [4, 2] has 4 "
                                          "rows; expected the same number");
}

/* ---- pooling
 * -------------------------------------------------------------------------------------- */

static fn_pool_attrs pool_1d(int64_t kernel, int64_t stride, int64_t low, int64_t high) {
  fn_pool_attrs attrs = {.kernel = {kernel, 1, 1}, .geometry = plain()};
  attrs.geometry.stride[0] = stride;
  attrs.geometry.pad_low[0] = low;
  attrs.geometry.pad_high[0] = high;
  return attrs;
}

static void pools_by_hand(void **state) {
  (void)state;
  const fn_pool_attrs attrs = pool_1d(3, 2, 1, 0);
  const double x[] = {-4, -2, -2, -8, -3};
  call average, maximum;
  fn_shape shape = {3, {1, 1, 5}};
  call_make(&average, &fn_op_average_pool, &attrs, 1, &shape, 1);
  call_make(&maximum, &fn_op_max_pool, &attrs, 1, &shape, 1);
  memcpy(average.in[0], x, sizeof x);
  memcpy(maximum.in[0], x, sizeof x);
  call_run(&average);
  call_run(&maximum);
  assert_int_equal(average.output[0]->shape.dim[2], 2);
  assert_values(average.out[0], (double[]){-2, -4}, 2, 1e-15); // padding counts as zero
  assert_values(maximum.out[0], (double[]){-2, -2}, 2, 0);     // padding does not enter
  call_free(&average);
  call_free(&maximum);
}

static void max_pool_ties_go_to_the_first(void **state) {
  (void)state;
  const fn_pool_attrs attrs = {.kernel = {2, 2, 1}, .geometry = plain()};
  call grad, gather;
  fn_shape x = {4, {1, 1, 2, 3}}, y = {4, {1, 1, 1, 2}};
  call_make(&grad, &fn_op_max_pool_grad, &attrs, 2, (fn_shape[]){y, x}, 1);
  call_make(&gather, &fn_op_max_pool_gather, &attrs, 2, (fn_shape[]){x, x}, 1);
  const double values[] = {0, 7, 1, 7, 7, 7};
  memcpy(grad.in[0], (double[]){1, 10}, 2 * sizeof(double));
  memcpy(grad.in[1], values, sizeof values);
  memcpy(gather.in[0], (double[]){1, 2, 3, 4, 5, 6}, 6 * sizeof(double));
  memcpy(gather.in[1], values, sizeof values);
  call_run(&grad);
  call_run(&gather);
  assert_values(grad.out[0], (double[]){0, 11, 0, 0, 0, 0}, 6, 0);
  assert_values(gather.out[0], (double[]){2, 2}, 2, 0);
  call_free(&grad);
  call_free(&gather);
}

static void max_pool_passes_nan_on(void **state) {
  (void)state;
  const fn_pool_attrs attrs = pool_1d(3, 1, 0, 0);
  call c;
  call_make(&c, &fn_op_max_pool, &attrs, 1, &(fn_shape){3, {1, 1, 4}}, 1);
  memcpy(c.in[0], (double[]){5, (double)NAN, 6, 7}, 4 * sizeof(double));
  call_run(&c);
  assert_true(isnan(c.out[0][0]) && isnan(c.out[0][1]));
  call_free(&c);
}

static void pools_are_adjoint(void **state) {
  (void)state;
  fn_random random = fn_random_stream(5, FN_RANDOM_TEST, 0, 1);
  for (int trial = 0; trial < 60; trial++) {
    const int spatial = 1 + trial % 3;
    fn_shape x = {2 + spatial, {2, 3}};
    fn_pool_attrs attrs = {.geometry = plain()};
    for (int d = 0; d < spatial; d++) {
      attrs.kernel[d] = 1 + (int64_t)fn_random_below(&random, 3);
      attrs.geometry.stride[d] = 1 + (int64_t)fn_random_below(&random, 3);
      attrs.geometry.pad_low[d] = (int64_t)fn_random_below(&random, (uint64_t)attrs.kernel[d]);
      attrs.geometry.pad_high[d] = (int64_t)fn_random_below(&random, (uint64_t)attrs.kernel[d]);
      x.dim[2 + d] = attrs.kernel[d] + (int64_t)fn_random_below(&random, 4);
    }
    attrs.extent = x;
    call average, average_grad, gather, max_grad;
    call_make(&average, &fn_op_average_pool, &attrs, 1, &x, 1);
    const fn_shape y = average.output[0]->shape;
    call_make(&average_grad, &fn_op_average_pool_grad, &attrs, 1, &y, 1);
    call_make(&gather, &fn_op_max_pool_gather, &attrs, 2, (fn_shape[]){x, x}, 1);
    call_make(&max_grad, &fn_op_max_pool_grad, &attrs, 2, (fn_shape[]){y, x}, 1);
    const int64_t x_count = fn_shape_count(&x), y_count = fn_shape_count(&y);
    fill_normal(&random, average.in[0], x_count);
    fill_normal(&random, average_grad.in[0], y_count);
    fill_normal(&random, gather.in[1], x_count);
    memcpy(gather.in[0], average.in[0], (size_t)x_count * sizeof(double));
    memcpy(max_grad.in[0], average_grad.in[0], (size_t)y_count * sizeof(double));
    memcpy(max_grad.in[1], gather.in[1], (size_t)x_count * sizeof(double));
    call *all[] = {&average, &average_grad, &gather, &max_grad};
    for (int i = 0; i < 4; i++)
      call_run(all[i]);
    assert_near(inner(average.out[0], average_grad.in[0], y_count),
                inner(average.in[0], average_grad.out[0], x_count), 1e-12 * (double)x_count);
    assert_near(inner(gather.out[0], max_grad.in[0], y_count),
                inner(gather.in[0], max_grad.out[0], x_count), 1e-12 * (double)x_count);
    for (int i = 0; i < 4; i++)
      call_free(all[i]);
  }
}

/* ---- resampling
 * ------------------------------------------------------------------------------------ */

/* map2map's values: 0, 1, ..., n - 1 resampled. */
static void resample_golden(void **state) {
  (void)state;
  const struct {
    double factor;
    int64_t trim;
    int cells, count;
    double expected[12];
  } cases[] = {
      {2, 0, 6, 12, {0, .25, .75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5}},
      {2, 1, 6, 10, {.25, .75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75}},
      {0.5, 0, 6, 3, {.5, 2.5, 4.5}},
      {0.5, 0, 7, 3, {.5, 2.5, 4.5}},
      {1.5, 0, 3, 4, {0, .5, 2 / 1.5 - .5 + .5 / 1.5, 3.5 / 1.5 - .5}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const fn_resample_attrs attrs = {.factor = cases[i].factor, .trim = cases[i].trim};
    call c;
    call_make(&c, &fn_op_resample, &attrs, 1, &(fn_shape){3, {1, 1, cases[i].cells}}, 1);
    for (int j = 0; j < cases[i].cells; j++)
      c.in[0][j] = j;
    call_run(&c);
    assert_int_equal(c.output[0]->shape.dim[2], cases[i].count);
    assert_values(c.out[0], cases[i].expected, cases[i].count, 1e-14);
    call_free(&c);
  }
}

/* A product of linear functions of the coordinates is interpolated exactly away from the ends. */
static void resample_is_separable(void **state) {
  (void)state;
  const fn_resample_attrs attrs = {.factor = 2, .trim = 1};
  call c;
  call_make(&c, &fn_op_resample, &attrs, 1, &(fn_shape){5, {1, 2, 3, 4, 5}}, 1);
  for (int64_t i = 0; i < 120; i++) {
    const double p = (double)(i / 20 % 3), q = (double)(i / 5 % 4), r = (double)(i % 5);
    c.in[0][i] = (1 + p) * (2 - q) * (3 + r) * (i < 60 ? 1 : -2);
  }
  call_run(&c);
  const fn_shape *y = &c.output[0]->shape;
  assert_true(fn_shape_equal(y, &(fn_shape){5, {1, 2, 4, 6, 8}}));
  for (int64_t i = 0; i < fn_shape_count(y); i++) {
    const double p = (double)(i / 48 % 4) / 2 + .25, q = (double)(i / 8 % 6) / 2 + .25;
    const double r = (double)(i % 8) / 2 + .25;
    assert_near(c.out[0][i], (1 + p) * (2 - q) * (3 + r) * (i < 192 ? 1 : -2), 1e-13);
  }
  call_free(&c);
}

static void resample_is_adjoint(void **state) {
  (void)state;
  fn_random random = fn_random_stream(6, FN_RANDOM_TEST, 0, 1);
  const double factors[] = {0.5, 2, 3, 1.7, 0.3, 4};
  for (int trial = 0; trial < 36; trial++) {
    const int spatial = 1 + trial % 3;
    fn_shape x = {2 + spatial, {2, 2}};
    for (int d = 0; d < spatial; d++)
      x.dim[2 + d] = 4 + (int64_t)fn_random_below(&random, 4);
    const double factor = factors[trial % 6];
    const fn_resample_attrs attrs = {.factor = factor, .trim = factor > 1, .extent = x};
    call forward, adjoint;
    call_make(&forward, &fn_op_resample, &attrs, 1, &x, 1);
    call_make(&adjoint, &fn_op_resample_grad, &attrs, 1, &forward.output[0]->shape, 1);
    fill_normal(&random, forward.in[0], call_in_count(&forward, 0));
    fill_normal(&random, adjoint.in[0], call_in_count(&adjoint, 0));
    call_run(&forward);
    call_run(&adjoint);
    assert_near(inner(forward.out[0], adjoint.in[0], call_in_count(&adjoint, 0)),
                inner(forward.in[0], adjoint.out[0], call_in_count(&forward, 0)), 1e-11);
    call_free(&forward);
    call_free(&adjoint);
  }
}

/* ---- threads
 * ---------------------------------------------------------------------------------------- */

/* Loops are divided so that no sum is: any number of threads gives the same bits. */
static void threads_change_nothing(void **state) {
  (void)state;
  const fn_shape x = {4, {4, 8, 32, 32}}, w = {4, {8, 8, 3, 3}}, y = {4, {4, 8, 30, 30}};
  const fn_shape per = {1, {8}}, half = {4, {4, 8, 16, 16}};
  const fn_conv_attrs conv = {.geometry = plain(), .slope = 0.1};
  const fn_conv_attrs data = {.geometry = plain(), .slope = 1, .extent = x};
  const fn_conv_attrs weight = {.geometry = plain(), .slope = 1, .extent = w};
  const fn_matmul_attrs product = {false, true, 0.1};
  const fn_batch_norm_attrs norm = {.eps = 1e-5, .slope = 0.1};
  fn_pool_attrs pool = {.kernel = {2, 2}, .geometry = plain(), .extent = x};
  pool.geometry.stride[0] = pool.geometry.stride[1] = 2;
  const fn_resample_attrs resample = {.factor = 0.5, .extent = x};
  const struct {
    const fn_op *op;
    const void *attrs;
    int inputs, outputs;
    fn_shape shape[6];
  } cases[] = {
      {&fn_op_conv, &conv, 3, 1, {x, w, per}},
      {&fn_op_conv_data, &data, 3, 1, {y, w, per}},
      {&fn_op_conv_weight, &weight, 2, 2, {x, y}},
      {&fn_op_matmul, &product, 2, 1, {x, x}},
      {&fn_op_batch_norm, &norm, 6, 3, {x, per, per, x, absent, absent}},
      {&fn_op_batch_norm_grad, &norm, 6, 4, {x, x, per, per, per, x}},
      {&fn_op_average_pool, &pool, 1, 1, {x}},
      {&fn_op_average_pool_grad, &pool, 1, 1, {half}},
      {&fn_op_max_pool, &pool, 1, 1, {x}},
      {&fn_op_max_pool_grad, &pool, 2, 1, {half, x}},
      {&fn_op_max_pool_gather, &pool, 2, 1, {x, x}},
      {&fn_op_resample, &resample, 1, 1, {x}},
      {&fn_op_resample_grad, &resample, 1, 1, {half}},
  };
  const int threads = fn_threads_get();
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    call c[2];
    for (int run = 0; run < 2; run++) {
      fn_random random = fn_random_stream(10, FN_RANDOM_TEST, 0, 1);
      fn_threads_set(run ? 3 : 1);
      call_make(&c[run], cases[i].op, cases[i].attrs, cases[i].inputs, cases[i].shape,
                cases[i].outputs);
      for (int j = 0; j < cases[i].inputs; j++) {
        if (!c[run].in[j]) continue;
        fill_normal(&random, c[run].in[j], call_in_count(&c[run], j));
        for (int64_t k = 0; k < call_in_count(&c[run], j); k++) {
          c[run].in[j][k] = fabs(c[run].in[j][k]); // one of them is a variance
        }
      }
      call_run(&c[run]);
    }
    for (int o = 0; o < cases[i].outputs; o++) {
      assert_memory_equal(c[0].out[o], c[1].out[o],
                          (size_t)call_out_count(&c[0], o) * sizeof(double));
    }
    call_free(&c[0]);
    call_free(&c[1]);
  }
  fn_threads_set(threads);
}

/* ---- registry
 * --------------------------------------------------------------------------------------- */

static void operators_are_found_by_their_own_name(void **state) {
  (void)state;
  for (int i = 0; i < fn_op_count(); i++) {
    assert_ptr_equal(fn_op_find(fn_op_at(i)->name), fn_op_at(i)); // so names are unique
    assert_non_null(fn_op_at(i)->infer);
    assert_non_null(fn_op_at(i)->reference);
  }
  assert_null(fn_op_find("convolve"));
  assert_null(fn_op_at(fn_op_count()));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(conv_by_hand),
      cmocka_unit_test(conv_stride_padding_dilation_by_hand),
      cmocka_unit_test(conv_transposed_by_hand),
      cmocka_unit_test(conv_equals_its_definition),
      cmocka_unit_test(conv_family_is_adjoint),
      cmocka_unit_test(conv_counts_flops),
      cmocka_unit_test(conv_refuses_by_name),
      cmocka_unit_test(matmul_by_hand),
      cmocka_unit_test(matmul_repeats_over_leading_axes),
      cmocka_unit_test(pools_by_hand),
      cmocka_unit_test(max_pool_ties_go_to_the_first),
      cmocka_unit_test(max_pool_passes_nan_on),
      cmocka_unit_test(pools_are_adjoint),
      cmocka_unit_test(resample_golden),
      cmocka_unit_test(resample_is_separable),
      cmocka_unit_test(resample_is_adjoint),
      cmocka_unit_test(threads_change_nothing),
      cmocka_unit_test(operators_are_found_by_their_own_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
