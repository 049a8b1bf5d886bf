/* sets of numbers: text to set and back, what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/ranges.h"

static void reads_numbers_and_ranges(void **state) {
  (void)state;
  fn_ranges set = {0};
  assert_int_equal(fn_ranges_add(&set, " 7, 0-3 ,5"), FN_OK);
  assert_int_equal(fn_ranges_add(&set, "1600"), FN_OK);
  const int64_t expected[] = {0, 1, 2, 3, 5, 7, 1600};
  assert_int_equal(set.count, 7);
  assert_memory_equal(set.value, expected, sizeof expected);
  fn_text text = {0};
  fn_ranges_write(set.value, set.count, &text);
  assert_string_equal(text.data, "0-3,5,7,1600");
  fn_text_free(&text);
  fn_ranges_free(&set);
}

static void refuses_what_is_no_set(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    "a",
                                    "1-",
                                    "-1",
                                    "1,,2",
                                    "3-1",
                                    "1,2,1",
                                    "0-3,2",
                                    "1 2",
                                    "1.5",
                                    "0x10",
                                    "1-2-3",
                                    ",1",
                                    "99999999999999999999",
                                    "0-9223372036854775807"};
  fn_ranges set = {0};
  assert_int_equal(fn_ranges_add(&set, "4"), FN_OK);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    if (fn_ranges_add(&set, bad[i]) != FN_ERR_CONFIG) fail_msg("'%s' was taken", bad[i]);
    assert_int_equal(set.count, 1);
  }
  assert_int_equal(fn_ranges_add(&set, "2-4"), FN_ERR_CONFIG); // 4 from an earlier call
  assert_non_null(strstr(fn_error_message(), "4 is there twice"));
  assert_int_equal(set.count, 1);
  fn_ranges_free(&set);
}

static void parses_one_text(void **state) {
  (void)state;
  int64_t *numbers, count;
  assert_int_equal(fn_ranges_parse("--seeds", "3,0-1", 3, &numbers, &count), FN_OK);
  const int64_t expected[] = {0, 1, 3};
  assert_int_equal(count, 3);
  assert_memory_equal(numbers, expected, sizeof expected);
  free(numbers);
  assert_int_equal(fn_ranges_parse("--seeds", "3,0-1", 2, &numbers, &count), FN_ERR_CONFIG);
  assert_null(numbers);
  assert_non_null(strstr(fn_error_message(), "--seeds: expected numbers from 0 to 2, found 3"));
}

static void finds_common_numbers(void **state) {
  (void)state;
  fn_ranges a = {0}, b = {0}, none = {0};
  assert_int_equal(fn_ranges_add(&a, "0-3,10-12"), FN_OK);
  assert_int_equal(fn_ranges_add(&b, "4-9,11"), FN_OK);
  assert_int_equal(fn_ranges_common(&a, &b), 11);
  assert_int_equal(fn_ranges_common(&b, &a), 11);
  assert_int_equal(fn_ranges_common(&a, &none), -1);
  fn_ranges_free(&b);
  assert_int_equal(fn_ranges_add(&b, "4-9"), FN_OK);
  assert_int_equal(fn_ranges_common(&a, &b), -1);
  fn_ranges_free(&a);
  fn_ranges_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_numbers_and_ranges),
      cmocka_unit_test(refuses_what_is_no_set),
      cmocka_unit_test(parses_one_text),
      cmocka_unit_test(finds_common_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
