/* Numbers as they travel between ranks: rounding to bfloat16 and sums of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/bf16.h"
#include "dist/wire.h"

/* bfloat16 has 8 bits: 1, 1 + 2^-7, 1 + 2^-6, ... Halfway between two it is the even one. */
static void rounds_to_nearest_even(void **state) {
  (void)state;
  const float from[] = {1,
                        1 + 0x1p-8f,
                        1 + 0x1.8p-8f,
                        1 + 0x1.8p-7f,
                        -1 - 0x1p-8f,
                        1 + 0x1.01p-8f,
                        0x1p-133f,
                        3.4e38f,
                        3.39e38f,
                        0,
                        -INFINITY};
  const float to[] = {1,         1,        1 + 0x1p-7f, 1 + 0x1p-6f, -1,       1 + 0x1p-7f,
                      0x1p-133f, INFINITY, 0x1.fep127f, 0,           -INFINITY};
  enum { COUNT = sizeof from / sizeof *from };
  uint16_t narrow[COUNT];
  float back[COUNT];
  fn_wire_write(narrow, FN_BF16, from, FN_F32, COUNT, 1);
  fn_wire_write(back, FN_F32, narrow, FN_BF16, COUNT, 1);
  for (int i = 0; i < COUNT; i++)
    if (back[i] != to[i])
      fail_msg("%a became %a, not %a", (double)from[i], (double)back[i], (double)to[i]);
  const float nan = NAN;
  fn_wire_write(narrow, FN_BF16, &nan, FN_F32, 1, 0.25);
  fn_wire_write(back, FN_F32, narrow, FN_BF16, 1, 1);
  assert_true(isnan(back[0]));
}

static void weight_zero_makes_zero(void **state) {
  (void)state;
  float x[4] = {NAN, INFINITY, -1, 2};
  double d[2] = {NAN, 3};
  uint16_t narrow[4] = {1, 2, 3, 4};
  fn_wire_write(narrow, FN_BF16, x, FN_F32, 4, 0);
  assert_true(narrow[0] == 0 && narrow[1] == 0 && narrow[2] == 0 && narrow[3] == 0);
  fn_wire_write(x, FN_F32, x, FN_F32, 4, 0);
  fn_wire_write(d, FN_F64, d, FN_F64, 2, 0);
  assert_true(x[0] == 0 && x[1] == 0 && x[2] == 0 && x[3] == 0 && d[0] == 0 && d[1] == 0);
}

/* 1 + 8 x 2^-9 is 1 when every sum is rounded to bfloat16, and 1 + 2^-6 when only the last is. */
static void sums_are_made_in_float32(void **state) {
  (void)state;
  enum { TERMS = 9, COUNT = 2500 };
  static uint16_t x[TERMS][COUNT], sum[COUNT];
  const void *term[TERMS];
  for (int t = 0; t < TERMS; t++) {
    term[t] = x[t];
    for (int i = 0; i < COUNT; i++)
      x[t][i] = fn_bf16_from_f32(t == 0 ? 1 : 0x1p-9f);
  }
  fn_wire_sum(sum, term, TERMS, FN_BF16, COUNT);
  for (int i = 0; i < COUNT; i++)
    assert_true(fn_bf16_to_f32(sum[i]) == 1 + 0x1p-6f);
}

/* Left to right, also into one of the terms: 1e8 + 1 - 1e8 is 0 in float32, 1e8 - 1e8 + 1 is 1. */
static void order_is_that_of_the_terms(void **state) {
  (void)state;
  enum { COUNT = 1500 };
  static float big[COUNT], one[COUNT], minus[COUNT];
  for (int turn = 0; turn < 2; turn++) {
    for (int i = 0; i < COUNT; i++) {
      big[i] = 1e8f;
      one[i] = 1;
      minus[i] = -1e8f;
    }
    const void *first[3] = {big, one, minus}, *second[3] = {big, minus, one};
    fn_wire_sum(one, turn ? second : first, 3, FN_F32, COUNT);
    for (int i = 0; i < COUNT; i++)
      assert_true(one[i] == (float)turn);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rounds_to_nearest_even),
      cmocka_unit_test(weight_zero_makes_zero),
      cmocka_unit_test(sums_are_made_in_float32),
      cmocka_unit_test(order_is_that_of_the_terms),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
