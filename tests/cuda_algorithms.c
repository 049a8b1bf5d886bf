/* The file of chosen algorithms: shared by processes, proof against lines that were cut short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/cuda/algorithms.h"

enum { PROCESSES = 4, KEYS = 50 };

static char folder[] = "/tmp/fieldnet_XXXXXX";
static char path[sizeof folder + 32];

static int make_folder(void **state) {
  (void)state;
  if (!mkdtemp(folder)) return -1;
  snprintf(path, sizeof path, "%s/algorithms.txt", folder);
  return 0;
}

static int remove_folder(void **state) {
  (void)state;
  unlink(path);
  return rmdir(folder);
}

static fn_algorithm sample(int64_t engine) {
  return (fn_algorithm){.engine = engine, .knobs = 2, .type = {3, 40}, .value = {engine * 7, -1}};
}

/** Every process finds another engine for the same keys. */
static int add_all(int process) {
  fn_algorithms *a;
  if (fn_algorithms_open(folder, &a) != FN_OK) return 1;
  for (int k = 0; k < KEYS; k++) {
    char key[32];
    snprintf(key, sizeof key, "conv %d, a key", k);
    fn_algorithm mine = sample(100 * process + k);
    if (fn_algorithms_add(a, key, &mine) != FN_OK) return 2;
  }
  fn_algorithms_close(a);
  return 0;
}

/** Whoever is first decides: one line per key, and every process goes by it. */
static void test_processes(void **state) {
  (void)state;
  for (int p = 0; p < PROCESSES; p++)
    if (fork() == 0) _exit(add_all(p));
  for (int p = 0; p < PROCESSES; p++) {
    int status;
    assert_true(wait(&status) > 0);
    assert_int_equal(status, 0);
  }
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  int lines = 0;
  for (int c = getc(file); c != EOF; c = getc(file))
    lines += c == '\n';
  fclose(file);
  assert_int_equal(lines, KEYS);
  fn_algorithms *a;
  assert_int_equal(fn_algorithms_open(folder, &a), FN_OK);
  fn_algorithm found, late = sample(9999);
  assert_true(fn_algorithms_find(a, "conv 7, a key", &found));
  assert_int_equal(found.engine % 100, 7);
  assert_int_equal(found.knobs, 2);
  assert_int_equal(found.type[1], 40);
  assert_int_equal(found.value[0], found.engine * 7);
  assert_int_equal(found.value[1], -1);
  assert_int_equal(fn_algorithms_add(a, "conv 7, a key", &late), FN_OK);
  assert_int_equal(late.engine, found.engine);
  fn_algorithms_close(a);
}

static void test_damage(void **state) {
  (void)state;
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs("whole\t5\t1=2 .\nno engine\nknobs\t5\t1= .\nmany\t5", file);
  for (int k = 0; k < FN_ALGORITHM_KNOBS + 1; k++)
    fprintf(file, "%s1=1 ", k ? "" : "\t");
  fputs(".\ncut\t5\t1=2", file);
  fclose(file);
  fn_algorithms *a;
  fn_algorithm found;
  assert_int_equal(fn_algorithms_open(folder, &a), FN_OK);
  assert_true(fn_algorithms_find(a, "whole", &found));
  assert_int_equal(found.engine, 5);
  static const char *const bad[] = {"no engine", "knobs", "many", "cut"};
  for (int i = 0; i < 4; i++)
    assert_false(fn_algorithms_find(a, bad[i], &found));
  fn_algorithms_close(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_processes),
                                     cmocka_unit_test(test_damage)};
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
