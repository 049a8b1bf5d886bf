/* The cpu backend's vector kernels against the reference kernels. */
#include "backend_suite.h"

#include "backend/cpu/cpu.h"
#include "backend/cpu/internal.h"

static void backends_by_name(void **state) {
  (void)state;
  const fn_backend *backend = NULL;
  assert_int_equal(fn_backend_find("cpu", &backend), FN_OK);
  assert_ptr_equal(backend, &fn_backend_cpu);
  assert_null(backend->missing);
  assert_int_equal(fn_backend_find("cuda", &backend), FN_OK);
  assert_int_equal(fn_backend_find("refrence", &backend), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "'reference'"));
  assert_int_equal(fn_backend_count(), 4);
}

/** The line of the forward operator, and the gradient that takes it instead of y. */
static void batch_norm_lines(void **state) {
  (void)state;
  const fn_batch_norm_attrs attrs = {.eps = 1e-5, .slope = 0.2};
  for (int i = 0; i < ACTIVATIONS; i++) {
    const fn_shape x = activations[i], c = per_channel(&x), line = {1, {2 * x.dim[1]}};
    for (int variant = 0; variant < 16; variant++) {
      const manner how = {.block = variant & 1 ? 8 : 1,
                          .strided = variant & 2,
                          .half = variant & 4,
                          .in_place = variant & 8,
                          .full_in = 0x5e,
                          .full_out = 0xe};
      call b, g;
      call_make(&b, &fn_op_batch_norm, &attrs, 6, (fn_shape[]){x, c, c, absent, absent, absent}, 4);
      fill_inputs(&b, 5);
      check_call(&b, &how);
      manner grad = how;
      grad.full_in = 0x5c, grad.full_out = 6;
      call_make(&g, &fn_op_batch_norm_grad, &attrs, 7, (fn_shape[]){x, x, c, c, c, absent, line},
                4);
      fill_inputs(&g, 6);
      for (int64_t k = 0; k < c.dim[0]; k++)
        g.in[4][k] = 0.5 + fabs(g.in[4][k]);
      check_call(&g, &grad);
      call_free(&b);
      call_free(&g);
    }
  }
}

/** Prepare and run c on f32 tensors of the cpu backend's own layout. */
static void run_on_cpu(const call *c, fn_tensor *input, fn_tensor *output) {
  fn_kernel kernel = {.node = &c->node, .input = input, .output = output};
  require(fn_backend_cpu.prepare(&fn_backend_cpu, &kernel));
  fn_run_context context = {.workspace = aligned_alloc(64, (kernel.workspace + 127) / 64 * 64)};
  require(kernel.run(&kernel, &context));
  kernel.destroy(&kernel);
  free(context.workspace);
}

/** The result, three samples of shape x, has the same bits where it goes past the caches, its rows
 *  being aligned, as where they are not. */
static void expect_same_apart(const call *b, fn_tensor *input, const fn_shape *x) {
  const int64_t sample = fn_tensor_sample_count(x, 8);
  float *result[2];
  for (int apart = 0; apart < 2; apart++) {
    fn_tensor output[CALL_PORTS] = {{0}};
    const size_t bytes = (size_t)(3 * (sample + 4)) * sizeof(float);
    result[apart] = aligned_alloc(64, (bytes + 63) / 64 * 64);
    output[0] = (fn_tensor){
        .data = result[apart], .shape = *x, .block = 8, .batch_stride = sample + 4 * apart};
    assert_int_equal(fn_cpu_streams(&output[0]), !apart);
    run_on_cpu(b, input, output);
  }
  for (int n = 0; n < 3; n++)
    assert_memory_equal(result[0] + n * sample, result[1] + n * (sample + 4),
                        (size_t)sample * sizeof(float));
  free(result[0]);
  free(result[1]);
}

/** Results large enough go past the caches where their rows are aligned: the same bits as in rows
 *  that are not. */
static void large_batch_norm(void **state) {
  (void)state;
  const fn_batch_norm_attrs attrs = {.eps = 1e-5, .slope = 0.2, .fixed = true};
  const fn_shape x = {4, {3, 8, 600, 601}}, c = {1, {8}}, none = absent;
  const fn_shape forward[] = {x, c, c, none, c, c}, backward[] = {x, x, c, c, c, x};
  const int64_t sample = fn_tensor_sample_count(&x, 8);
  float weight[8], *values = malloc((size_t)(2 * 3 * sample) * sizeof *values);
  for (int i = 0; i < 8; i++)
    weight[i] = 0.5f + 0.1f * (float)i;
  for (int64_t i = 0; i < 2 * 3 * sample; i++)
    values[i] = (float)(i * 7919 % 1009) / 500 - 1;
  for (int grad = 0; grad < 2; grad++) {
    call b;
    require(call_infer(&b, grad ? &fn_op_batch_norm_grad : &fn_op_batch_norm, &attrs, 6,
                       grad ? backward : forward, grad ? 4 : 3));
    fn_tensor input[CALL_PORTS] = {{0}};
    for (int i = 0, large = 0; i < 6; i++) {
      if (!b.input[i]) continue;
      const bool is_large = b.input[i]->shape.ndim == 4;
      input[i] = (fn_tensor){.data = is_large ? values + large++ % 2 * 3 * sample : weight,
                             .shape = b.input[i]->shape,
                             .block = is_large ? 8 : 1,
                             .batch_stride = is_large ? sample : 1};
    }
    expect_same_apart(&b, input, &x);
  }
  free(values);
}

/** The same of a data gradient over patches. */
static void large_data_gradient(void **state) {
  (void)state;
  const fn_shape x = {4, {3, 16, 420, 424}}, y = {4, {3, 8, 105, 106}}, w = {4, {8, 16, 4, 4}};
  const fn_conv_attrs attrs = {
      .geometry = {.stride = {4, 4}, .dilation = {1, 1}, .groups = 1}, .extent = x, .slope = 1};
  call b;
  require(call_infer(&b, &fn_op_conv_data, &attrs, 2, (fn_shape[]){y, w}, 1));
  const int64_t count = fn_shape_count(&y);
  float *values = malloc((size_t)count * sizeof *values);
  float weight[8 * 16 * 4 * 4];
  for (int64_t i = 0; i < count; i++)
    values[i] = (float)(i * 7919 % 1009) / 500 - 1;
  for (int i = 0; i < 8 * 16 * 4 * 4; i++)
    weight[i] = (float)(i * 31 % 101) / 50 - 1;
  fn_tensor input[CALL_PORTS] = {{0}};
  input[0] = (fn_tensor){.data = values, .shape = y, .block = 8, .batch_stride = count / 3};
  input[1] = (fn_tensor){.data = weight, .shape = w, .block = 1, .batch_stride = 16 * 4 * 4};
  expect_same_apart(&b, input, &x);
  free(values);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(batch_norm),
      cmocka_unit_test(batch_norm_gradient),
      cmocka_unit_test(batch_norm_lines),
      cmocka_unit_test(large_batch_norm),
      cmocka_unit_test(large_data_gradient),
      cmocka_unit_test(large_mean),
      cmocka_unit_test(threads_do_not_matter),
      cmocka_unit_test(synchronised),
      cmocka_unit_test(running),
      cmocka_unit_test(unary),
      cmocka_unit_test(leaky_gradient),
      cmocka_unit_test(binary),
      cmocka_unit_test(fill_and_broadcast),
      cmocka_unit_test(windows),
      cmocka_unit_test(concat),
      cmocka_unit_test(periodic),
      cmocka_unit_test(reshape_and_permute),
      cmocka_unit_test(sums),
      cmocka_unit_test(pooling),
      cmocka_unit_test(resampling),
      cmocka_unit_test(products),
      cmocka_unit_test(random_values),
      cmocka_unit_test(reorders),
      cmocka_unit_test(backends_by_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
