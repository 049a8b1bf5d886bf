/* The cpu backend's vector kernels against the reference kernels. */
#include "backend_suite.h"

#include "backend/cpu/cpu.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(batch_norm),
      cmocka_unit_test(batch_norm_gradient),
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
