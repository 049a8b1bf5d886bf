/* Threads on cores of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>

#include "base/system.h"

/** Cores that the calling thread may run on, and the lowest of them. */
static int cores_of_thread(int *lowest) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return -1;
  for (*lowest = 0; *lowest < CPU_SETSIZE && !CPU_ISSET((size_t)*lowest, &set);)
    ++*lowest;
  return CPU_COUNT(&set);
}

typedef struct cores {
  int inherited, free, lowest;
} cores;

static void *look(void *found) {
  cores *c = found;
  c->inherited = cores_of_thread(&c->lowest);
  fn_thread_unpin();
  c->free = cores_of_thread(&c->lowest);
  return NULL;
}

static void pinned(void **state) {
  (void)state;
  unsigned char allowed[FN_CORES_MOST];
  int core[FN_CORES_MOST], count = 0, found[FN_CORES_MOST], lowest[FN_CORES_MOST];
  fn_cores_allowed(allowed, FN_CORES_MOST);
  for (int c = 0; c < FN_CORES_MOST; c++)
    if (allowed[c]) core[count++] = c;
  assert_in_range(count, 1, fn_cores_online());
  fn_threads_set(count);
  fn_threads_pin(core, count, count);
#pragma omp parallel num_threads(count)
  {
    const int i = omp_get_thread_num();
    found[i] = cores_of_thread(&lowest[i]);
  }
  for (int i = 0; i < count; i++) {
    assert_int_equal(found[i], 1);
    assert_int_equal(lowest[i], core[i]);
  }
  // A thread for reading files starts on one core and frees itself.
  pthread_t thread;
  cores other = {0};
  assert_int_equal(pthread_create(&thread, NULL, look, &other), 0);
  pthread_join(thread, NULL);
  assert_int_equal(other.inherited, 1);
  assert_int_equal(other.free, count);
  // More threads than cores: nothing is pinned anew.
  fn_thread_unpin();
  fn_threads_pin(core, count, count + 1);
  assert_int_equal(cores_of_thread(&lowest[0]), count);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(pinned)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
