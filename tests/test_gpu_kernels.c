/* The kernels of the backends with a device against the plain ones: the suite of the cpu backend's
 * kernels on the host executor with several grids and orders of threads, which must not change a
 * bit, and on a GPU where there is one; the arithmetic of half types, divisions, random numbers.
 */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "backend_suite.h"
#include "gpu_host.h"

#include "backend/gpu/strides.h"
#include "graph/graph.h"
#include "ops/random.h"

/* ---- a backend of these kernels
 * ---------------------------------------------------------------------------------- */

static fn_status prepare(const fn_backend *backend, fn_kernel *kernel) {
  return fn_gpu_prepare(&platform, backend, kernel);
}
static fn_status prepare_reorder(const fn_backend *backend, fn_kernel *kernel) {
  kernel->backend = backend->name;
  return fn_gpu_prepare_reorder(&platform, kernel);
}

static const fn_backend host_backend = {.name = "host executor",
                                        .supports = fn_gpu_supports,
                                        .plan = fn_gpu_plan,
                                        .prepare = prepare,
                                        .prepare_reorder = prepare_reorder,
                                        .channels_last = true};

/* ---- the suite
 * ------------------------------------------------------------------------------------ */

/** Four neighbouring channels at once, whole and with an odd one beside. */
static void vectors(void **state) {
  (void)state;
  const fn_shape shapes[] = {
      {5, {2, 128, 3, 4, 5}}, {4, {3, 36, 9, 7}}, {3, {2, 4, 1031}}, {2, {5, 12}}};
  for (int i = 0; i < 4; i++) {
    const fn_shape x = shapes[i], c = per_channel(&x);
    const fn_batch_norm_attrs norm = {.eps = 1e-5, .slope = 0.1};
    const fn_unary_attrs affine = {.kind = FN_AFFINE, .a = 0.3, .b = 1};
    check_all(&fn_op_batch_norm, &norm, 6, (fn_shape[]){x, c, c, x, absent, absent}, 3,
              &(manner){.full_in = 0x36, .full_out = 6});
    check_all(&fn_op_unary, &affine, 1, &x, 1, &(manner){0});
    check_all(&fn_op_sum, &(fn_reduce_attrs){~2u & ((1u << x.ndim) - 1), true}, 1, &x, 1,
              &(manner){.full_out = 1});
  }
}

/** Long sums: several chunks per block and many blocks. */
static void long_sums(void **state) {
  (void)state;
  const fn_shape shapes[] = {{3, {2, 3, 40000}}, {4, {1, 32, 101, 97}}, {3, {1, 1, 70001}}};
  for (int i = 0; i < 3; i++) {
    const fn_shape x = shapes[i], c = per_channel(&x);
    const fn_batch_norm_attrs norm = {.eps = 1e-5, .slope = 1};
    call b;
    call_make(&b, &fn_op_batch_norm, &norm, 6, (fn_shape[]){x, c, c, absent, absent, absent}, 3);
    fill_inputs(&b, 41);
    b.in[0][0] = 4000; // a value far from all others, where the pivot looks
    check_call(&b, &(manner){.block = 8, .tolerance = 2e-6});
    call_free(&b);
    for (unsigned axes = 1; axes < 1u << x.ndim; axes++) {
      const fn_reduce_attrs attrs = {axes, false};
      call s;
      call_make(&s, &fn_op_sum, &attrs, 1, &x, 1);
      fill_inputs(&s, 42 + axes);
      check_call(&s, &(manner){.block = axes & 1 ? 8 : 1, .tolerance = 1e-6});
      call_free(&s);
    }
  }
}

static const struct CMUnitTest suite[] = {
    cmocka_unit_test(batch_norm),    cmocka_unit_test(batch_norm_gradient),
    cmocka_unit_test(large_mean),    cmocka_unit_test(running),
    cmocka_unit_test(unary),         cmocka_unit_test(leaky_gradient),
    cmocka_unit_test(binary),        cmocka_unit_test(fill_and_broadcast),
    cmocka_unit_test(windows),       cmocka_unit_test(concat),
    cmocka_unit_test(periodic),      cmocka_unit_test(reshape_and_permute),
    cmocka_unit_test(sums),          cmocka_unit_test(pooling),
    cmocka_unit_test(resampling),    cmocka_unit_test(products),
    cmocka_unit_test(random_values), cmocka_unit_test(reorders),
    cmocka_unit_test(vectors),       cmocka_unit_test(long_sums),
};

static uint64_t run_suite(int64_t blocks, uint64_t shuffle, fn_dtype half) {
  forced_blocks = blocks;
  fn_gpu_executor_shuffle(shuffle);
  tested_half = half;
  tested_sum = 14695981039346656037u;
  void *none = NULL;
  for (size_t i = 0; i < sizeof suite / sizeof *suite; i++)
    suite[i].test_func(&none);
  forced_blocks = 0;
  fn_gpu_executor_shuffle(0);
  return tested_sum;
}

/** Neither the order of threads nor that of blocks nor, in kernels of one phase, the grid changes a
 *  bit of any result. */
static void grids_and_orders(void **state) {
  (void)state;
  const uint64_t first = run_suite(0, 0, FN_BF16);
  print_message("%lld launches\n", (long long)launches);
  assert_true(run_suite(1, 17, FN_BF16) == first);
  run_suite(3, 5081, FN_F16);
}

/** The order is really another one: a kernel whose threads write one place tells who came last. */
static void orders_differ(void **state) {
  (void)state;
  float y = 0, x[1024];
  for (int i = 0; i < 1024; i++)
    x[i] = (float)i;
  fn_map_args args = {.y = &y, .x = x, .kind = FN_CAST};
  args.loop = (fn_loop){.count = 1024, .axes = 1, .width = 1, .size = {fn_gpu_divider(1024)}};
  args.loop.stride[1][0] = 1; // operand 0 stays where it is
  int changes = 0;
  for (uint64_t seed = 0; seed < 4; seed++) {
    fn_gpu_executor_shuffle(seed);
    fn_gpu_kernel_at(FN_GPU_map)->host(&args, 4, FN_GPU_THREADS);
    if (seed == 0) assert_true(y == 1023);
    changes += y != 1023;
  }
  fn_gpu_executor_shuffle(0);
  assert_in_range(changes, 2, 3);
}

/** Strides and windows beyond 32 bits are refused, not cut off. */
static void huge_windows(void **state) {
  (void)state;
  const int64_t edge = 2048, pair[3] = {1, 1, 2}, whole[3] = {edge, edge, edge};
  const fn_shape cells = {5, {1, 1, edge, edge, edge}};
  const fn_conv_geometry far = {.stride = {1, 1, INT64_C(1) << 32}};
  for (int k = 0; k < 3; k++) {
    fn_graph *graph = NULL;
    require(fn_graph_create(&(fn_graph_options){0}, &graph));
    fn_value *x = fn_input(graph, "x", &cells);
    const fn_value *y = k == 0   ? fn_max_pool(graph, x, pair, &far)
                        : k == 1 ? fn_average_pool(graph, x, whole, NULL)
                                 : fn_average_pool(graph, x, pair, NULL);
    require(fn_graph_status(graph));
    fn_tensor in = {.shape = x->shape, .block = 1}, out = {.shape = y->shape, .block = 1};
    fn_kernel kernel = {.node = y->node, .input = &in, .output = &out};
    assert_int_equal(prepare(&host_backend, &kernel), k < 2 ? FN_ERR_UNSUPPORTED : FN_OK);
    if (k < 2) assert_non_null(strstr(fn_error_message(), "2^31"));
    kernel.destroy(&kernel);
    fn_error_clear();
    fn_graph_destroy(graph);
  }
}

/** No kernel of the list is without a test here, in test_gpu_arrays or in test_gpu_library. */
static void all_kernels_ran(void **state) {
  (void)state;
  static const char *const elsewhere[] = {"swap_axes",   "finish", "cell_sums",
                                          "column_sums", "conv_",  "fold_norm"};
  for (int k = 0; k < fn_gpu_kernel_count(); k++) {
    const char *name = fn_gpu_kernel_at(k)->name;
    bool known = launched[k] || is_array_kernel(name);
    for (size_t e = 0; e < sizeof elsewhere / sizeof *elsewhere; e++)
      known |= strncmp(name, elsewhere[e], strlen(elsewhere[e])) == 0;
    if (!known) fail_msg("kernel %s has no test", name);
  }
}

/* ---- arithmetic
 * ------------------------------------------------------------------------------------- */

/** All binary16 numbers there and back, and rounding between every two of them. */
static void binary16(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 0x7c00; h++) {
    const uint16_t low = (uint16_t)h, high = (uint16_t)(h + 1);
    const float a = fn_from_f16(low);
    const float b = high == 0x7c00 ? 65536.0f : fn_from_f16(high); // what infinity stands for
    const int exponent = (int)(h >> 10);
    assert_true((double)a == ldexp((double)((h & 0x3ff) + (exponent ? 1024 : 0)),
                                   (exponent ? exponent : 1) - 25));
    assert_int_equal(fn_to_f16(a), low);
    assert_int_equal(fn_to_f16(-a), low | 0x8000);
    const float middle = 0.5f * (a + b);
    assert_int_equal(fn_to_f16(middle), low & 1 ? high : low); // ties to even
    assert_int_equal(fn_to_f16(nextafterf(middle, 0)), low);
    assert_int_equal(fn_to_f16(nextafterf(middle, INFINITY)), high);
  }
  assert_true(isinf(fn_from_f16(0x7c00)) && isnan(fn_from_f16(0x7e01)));
  assert_int_equal(fn_to_f16(INFINITY), 0x7c00);
  assert_true(isnan(fn_from_f16(fn_to_f16(NAN))));
  assert_true(isnan(fn_bf16_to_f32(fn_bf16_from_f32(NAN))));
}

static void divisions(void **state) {
  (void)state;
  const int64_t by[] = {1, 2, 3, 7, 64, 641, 768, 1000003, 0x7fffffff, 0x80000000, 12345678901};
  fn_random random = fn_random_stream(8, FN_RANDOM_TEST, 0, 0);
  for (size_t i = 0; i < sizeof by / sizeof *by; i++) {
    const fn_divider d = fn_gpu_divider(by[i]);
    for (int k = 0; k < 2000; k++) {
      const int64_t n = (int64_t)(fn_random_word(&random) >> (k % 3));
      const int64_t near = n / by[i] * by[i];
      for (int64_t e = near > 0 ? -1 : 0; e < 2; e++)
        assert_int_equal(fn_divide(&d, near + e), (near + e) / by[i]);
      assert_int_equal(fn_divide(&d, n), n / by[i]);
      assert_int_equal(fn_divide(&d, n << 20), (n << 20) / by[i]);
    }
  }
}

/** The same bits as the plain kernel's, rounded once. */
static void random_bits(void **state) {
  (void)state;
  const int64_t sample[] = {7, 123456789, 2};
  const fn_run_context context = {.seed = 99, .epoch = 3, .sample = sample};
  const fn_shape shapes[] = {{5, {3, 5, 3, 4, 6}}, {5, {3, 8, 3, 5, 7}}, {2, {3, 11}}, {1, {3}}};
  for (int i = 0; i < 4; i++)
    for (int kind = 0; kind < 2; kind++) {
      const fn_random_attrs attrs = {shapes[i], 0.3, 2};
      call c;
      call_make(&c, kind ? &fn_op_normal : &fn_op_dropout_mask, &attrs, 0, NULL, 1);
      call_run_in(&c, &context);
      for (int64_t e = 0; e < call_out_count(&c, 0); e++)
        c.out[0][e] = (double)(float)c.out[0][e];
      held y;
      held_make(&y, &shapes[i], FN_F32, shapes[i].ndim < 3 ? 1 : shapes[i].dim[1], true);
      fn_kernel kernel = {.node = &c.node, .output = &y.tensor};
      require(host_backend.prepare(&host_backend, &kernel));
      require(kernel.run(&kernel, &context));
      const fn_tensor *t = &y.tensor;
      for (int64_t e = 0; e < call_out_count(&c, 0); e++) {
        const int64_t channels = t->shape.ndim > 1 ? t->shape.dim[1] : 1, cells = held_cells(t);
        const int64_t at = held_offset(t, e / (channels * cells), e / cells % channels, e % cells);
        assert_true(held_get(t, t->shape.ndim > 1 ? at : e) == c.out[0][e]);
      }
      kernel.destroy(&kernel);
      free(y.tensor.data);
      call_free(&c);
    }
}

/* ---- on a GPU
 * -------------------------------------------------------------------------------------- */

static void suite_on_gpu(void **state) {
  (void)state;
  const fn_backend *cuda = NULL;
  const fn_device_choice choice = {.node_size = 1, .deterministic = true};
  require(fn_backend_find("cuda", &cuda));
  if (cuda->missing || cuda->device(cuda, &choice, &tested_device) != FN_OK) {
    print_message("no GPU: %s\n", cuda->missing ? cuda->missing : fn_error_message());
    tested_device = NULL;
    skip();
  }
  tested_backend = cuda;
  run_suite(0, 0, FN_BF16);
  const uint64_t first = run_suite(0, 0, FN_F16);
  assert_true(run_suite(0, 0, FN_F16) == first); // the same bits again
  tested_backend = &host_backend;
  tested_device = NULL;
}

int main(void) {
  tested_backend = &host_backend;
  fn_threads_set(1); // the plain kernels lose more to threads than they win on small shapes
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(grids_and_orders), cmocka_unit_test(synchronised),
      cmocka_unit_test(orders_differ),    cmocka_unit_test(huge_windows),
      cmocka_unit_test(binary16),         cmocka_unit_test(divisions),
      cmocka_unit_test(random_bits),      cmocka_unit_test(all_kernels_ran),
      cmocka_unit_test(suite_on_gpu),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
