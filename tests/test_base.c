/* base: the generator against its published vectors, names, text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/random.h"
#include "base/system.h"
#include "base/text.h"

/* Known answers of Philox4x32-10 from the Random123 distribution (kat_vectors). */
static void philox_known_answers(void **state) {
  (void)state;
  uint32_t out[4];
  fn_philox((uint32_t[4]){0, 0, 0, 0}, (uint32_t[2]){0, 0}, out);
  assert_int_equal(out[0], 0x6627e8d5u);
  assert_int_equal(out[3], 0x9b00dbd8u);
  fn_philox((uint32_t[4]){0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
            (uint32_t[2]){0xa4093822u, 0x299f31d0u}, out);
  assert_int_equal(out[0], 0xd16cfe09u);
  assert_int_equal(out[1], 0x94fdccebu);
}

static void normal_moments(void **state) {
  (void)state;
  fn_random random = fn_random_stream(1, FN_RANDOM_TEST, 0, 0);
  double m1 = 0, m2 = 0, m4 = 0;
  const int n = 200000;
  for (int i = 0; i < n; i++) {
    const double x = fn_random_normal(&random);
    m1 += x;
    m2 += x * x;
    m4 += x * x * x * x;
  }
  assert_true(fabs(m1 / n) < 5 / sqrt(n));
  assert_true(fabs(m2 / n - 1) < 5 * sqrt(2.0 / n));
  assert_true(fabs(m4 / n - 3) < 5 * sqrt(96.0 / n));
}

static void shuffle_is_a_permutation(void **state) {
  (void)state;
  int64_t index[1000];
  for (int i = 0; i < 1000; i++)
    index[i] = i;
  fn_random random = fn_random_stream(2, FN_RANDOM_TEST, 0, 0);
  fn_random_shuffle(&random, index, 1000);
  int seen[1000] = {0}, fixed = 0;
  for (int i = 0; i < 1000; i++) {
    seen[index[i]]++;
    fixed += index[i] == i;
  }
  for (int i = 0; i < 1000; i++)
    assert_int_equal(seen[i], 1);
  assert_true(fixed < 10); // expectation 1
}

static void closest_name(void **state) {
  (void)state;
  const char *names[] = {"optimizer.rate", "data.crop", "data.shuffle"};
  assert_string_equal(fn_text_closest("data.corp", names, 3), "data.crop");
  assert_null(fn_text_closest("network", names, 3));
  const char *commands[] = {"train", "test", "predict", "report", "sweep"};
  assert_string_equal(fn_text_closest("tain", commands, 5), "train");
  assert_string_equal(fn_text_closest("trian", commands, 5), "train");
  assert_string_equal(fn_text_closest("perdict", commands, 5), "predict");
  assert_string_equal(fn_text_closest("tset", commands, 5), "test");
  assert_null(fn_text_closest("export", commands, 5)); // two letters from "report"
  assert_null(fn_text_closest("import", commands, 5));
  assert_int_equal(fn_text_distance("abcd", "acbd"), 1);
}

/** The definition, bit by bit: reflected polynomial 0xedb88320, begun and ended with all ones. */
static uint32_t crc32_bitwise(uint32_t crc, const unsigned char *bytes, size_t count) {
  crc = ~crc;
  for (size_t i = 0; i < count; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++)
      crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

/* Short and long buffers, any alignment, whole or in two pieces. */
static void crc32_is_that_of_zlib(void **state) {
  (void)state;
  assert_int_equal(fn_crc32(0, "123456789", 9), 0xcbf43926u); // check value of CRC-32/ISO-HDLC
  enum { BYTES = 4096 };
  unsigned char bytes[BYTES + 16];
  fn_random random = fn_random_stream(5, FN_RANDOM_TEST, 0, 0);
  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = (unsigned char)fn_random_below(&random, 256);
  uint32_t crc = 0;
  for (size_t count = 0; count <= BYTES; count += count < 300 ? 1 : 61) {
    const unsigned char *at = bytes + count % 16;
    const uint32_t before = crc;
    crc = fn_crc32(before, at, count);
    assert_int_equal(crc, crc32_bitwise(before, at, count));
    const size_t part = (size_t)fn_random_below(&random, count + 1);
    assert_int_equal(fn_crc32(fn_crc32(before, at, part), at + part, count - part), crc);
  }
}

/* Well-formed UTF-8 (Unicode 15, table 3-7) stays, all else becomes U+FFFD, byte by byte. */
static void text_becomes_utf8(void **state) {
  (void)state;
#define BAD "\xef\xbf\xbd"
  static const char *const cases[][2] = {
      {"a\tb\nc", "a\tb\nc"},
      {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x8c", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x8c\x8c"},
      {"\x01\x1b\x7f", BAD BAD BAD},
      {"\xc0\xaf", BAD BAD},                 // overlong
      {"\xe0\x80\x80", BAD BAD BAD},         // overlong
      {"\xed\xa0\x80", BAD BAD BAD},         // surrogate
      {"\xf4\x90\x80\x80", BAD BAD BAD BAD}, // beyond U+10FFFF
      {"\xc2\x85", BAD BAD},                 // a control character
      {"\xef\xbf\xbe", BAD BAD BAD},         // no character
      {"\xe2\x82", BAD BAD},                 // cut off
  };
#undef BAD
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    fn_text text = {0};
    fn_text_add_utf8(&text, cases[i][0]);
    assert_string_equal(text.data, cases[i][1]);
    fn_text_free(&text);
  }
}

/* Without memory a text stays what it was and says so: a file is not replaced by half of it. */
static void text_without_memory_is_incomplete(void **state) {
  (void)state;
  char path[64], *bytes;
  snprintf(path, sizeof path, "/tmp/fieldnet-base-%ld", (long)getpid());
  fn_text text = {0};
  fn_text_cut(&text, 0);
  fn_text_add(&text, "whole");
  assert_int_equal(fn_file_replace_text(path, &text), FN_OK);
  fn_text_add_bytes(&text, "x", SIZE_MAX / 2);
  assert_true(text.incomplete);
  fn_text_add(&text, "more");
  assert_string_equal(text.data, "whole");
  assert_int_equal(fn_file_replace_text(path, &text), FN_ERR_MEMORY);
  assert_int_equal(fn_file_read(path, &bytes, NULL), FN_OK);
  assert_string_equal(bytes, "whole");
  free(bytes);
  fn_text_cut(&text, 2);
  fn_text_cut(&text, 9);
  assert_string_equal(text.data, "wh");
  fn_text_free(&text);
  assert_false(text.incomplete);
  unlink(path);
}

static void json_is_valid_utf8(void **state) {
  (void)state;
  fn_text text = {0};
  fn_text_add_json_utf8(&text, "a\"\\\n\xff");
  assert_string_equal(text.data, "\"a\\\"\\\\\\u000a\xef\xbf\xbd\"");
  fn_text_free(&text);
}

/* A clock that is set does not matter: waits end by fn_clock(), whose seconds are those since the
 * machine was started, a time long past for the clock on the wall. */
static void conditions_wait_by_the_monotonic_clock(void **state) {
  (void)state;
  pthread_cond_t condition;
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  fn_cond_init(&condition);
  pthread_mutex_lock(&lock);
  int waits = 0;
  const double end = fn_clock() + 0.1;
  for (; fn_clock() < end; waits++)
    fn_cond_wait_until(&condition, &lock, end);
  assert_in_range(waits, 1, 9); // a wait may end for no reason, but not each
  assert_true(fn_clock() < end + 60);
  pthread_mutex_unlock(&lock);
  pthread_cond_destroy(&condition);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(philox_known_answers),
      cmocka_unit_test(normal_moments),
      cmocka_unit_test(shuffle_is_a_permutation),
      cmocka_unit_test(closest_name),
      cmocka_unit_test(crc32_is_that_of_zlib),
      cmocka_unit_test(text_becomes_utf8),
      cmocka_unit_test(text_without_memory_is_incomplete),
      cmocka_unit_test(json_is_valid_utf8),
      cmocka_unit_test(conditions_wait_by_the_monotonic_clock),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
