/* However often an epoch is stopped and gone on with by other numbers of ranks and other batches,
 * each sample is used at most once, and all but fewer samples than ranks are used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "run/epoch.h"

enum { SAMPLES_MOST = 400 };

typedef struct stretch {
  int ranks;
  int64_t batch, steps; // steps < 0: until the epoch is over
} stretch;

/** What a job of this size does: every rank's next batches into `used`. Returns whether the epoch
 *  ended. */
static bool run_stretch(fn_progress *progress, const int64_t *order, int64_t samples,
                        const stretch *s, int *used) {
  assert_true(fn_epoch_has_room(progress, s->ranks, s->batch));
  int64_t batches = -1, start = -1, done = 0;
  for (int rank = 0; rank < s->ranks; rank++) {
    int64_t *list, count, first;
    assert_int_equal(
        fn_epoch_list(progress, order, samples, rank, s->ranks, s->batch, &list, &count, &first),
        FN_OK);
    // All ranks take the same number of batches from the same place, or they would wait for ever.
    const int64_t mine = (count + s->batch - 1) / s->batch;
    if (rank > 0) assert_true(mine == batches && first == start);
    batches = mine;
    start = first;
    const int64_t last = s->steps < 0 || first + s->steps > mine ? mine : first + s->steps;
    done = last - first;
    for (int64_t i = first * s->batch; i < count && i < last * s->batch; i++)
      used[list[i]]++;
    free(list);
  }
  for (int64_t i = 0; i < done; i++)
    fn_epoch_advance(progress, s->ranks, s->batch);
  return start + done >= batches;
}

static void check_epoch(int64_t samples, const stretch *stretches, int count) {
  int64_t order[SAMPLES_MOST];
  int used[SAMPLES_MOST] = {0};
  for (int64_t i = 0; i < samples; i++)
    order[i] = (i * 7 + 3) % samples;
  if (samples % 7 == 0)
    for (int64_t i = 0; i < samples; i++)
      order[i] = samples - 1 - i;
  fn_progress progress = {0};
  bool over = false;
  int ranks = 1;
  for (int i = 0; i < count && !over; i++) {
    over = run_stretch(&progress, order, samples, &stretches[i], used);
    ranks = stretches[i].ranks;
  }
  assert_true(over);
  int64_t left = 0;
  for (int64_t i = 0; i < samples; i++) {
    assert_in_range(used[i], 0, 1);
    left += !used[i];
  }
  assert_true(left < ranks);
  // Unstopped, what is left out is the tail: samples modulo ranks.
  if (count == 1) assert_int_equal(left, samples % ranks);
}

static void test_known(void **state) {
  (void)state;
  const stretch whole[] = {{3, 2, -1}}, other[] = {{2, 1, 3}, {3, 1, -1}},
                back[] = {{4, 2, 1}, {1, 3, 2}, {4, 2, 1}, {2, 1, -1}},
                again[] = {{2, 3, 1}, {2, 3, 1}, {2, 3, -1}}, batch[] = {{2, 3, 1}, {2, 2, -1}},
                tail[] = {{3, 1, 3}, {1, 1, -1}};
  check_epoch(10, whole, 1);
  check_epoch(24, other, 2);
  check_epoch(24, back, 4);
  check_epoch(23, again, 3);
  check_epoch(23, batch, 2);
  check_epoch(11, tail, 2); // two samples that belonged to no rank are used after all
}

/** The tail that three ranks leave out is not lost when one rank goes on. */
static void test_tail_is_used(void **state) {
  (void)state;
  const int64_t order[11] = {10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
  int used[11] = {0};
  fn_progress progress = {0};
  assert_false(run_stretch(&progress, order, 11, &(stretch){3, 1, 2}, used));
  assert_true(run_stretch(&progress, order, 11, &(stretch){1, 2, -1}, used));
  for (int i = 0; i < 11; i++)
    assert_int_equal(used[i], 1);
}

static void test_random(void **state) {
  (void)state;
  fn_random random = fn_random_stream(5, FN_RANDOM_ORDER, 0, 0);
  for (int test = 0; test < 3000; test++) {
    const int64_t samples = 1 + (int64_t)(fn_random_uniform(&random) * (SAMPLES_MOST - 1));
    stretch stretches[FN_STRETCHES_MOST];
    const int count = 1 + (int)(fn_random_uniform(&random) * (FN_STRETCHES_MOST - 1));
    for (int i = 0; i < count; i++)
      stretches[i] = (stretch){1 + (int)(fn_random_uniform(&random) * 9),
                               1 + (int64_t)(fn_random_uniform(&random) * 6),
                               (int64_t)(fn_random_uniform(&random) * 5)};
    stretches[count - 1].steps = -1;
    check_epoch(samples, stretches, count);
  }
}

/** Same job size, stopped anywhere: the list and the place in it are those of the whole epoch. */
static void test_same_size(void **state) {
  (void)state;
  int64_t order[50];
  for (int i = 0; i < 50; i++)
    order[i] = (i * 13) % 50;
  for (int rank = 0; rank < 3; rank++) {
    fn_progress progress = {0};
    int64_t *whole, *list, whole_count, count, first;
    assert_int_equal(fn_epoch_list(&progress, order, 50, rank, 3, 3, &whole, &whole_count, &first),
                     FN_OK);
    assert_int_equal(first, 0);
    for (int done = 1; done <= 6; done++) {
      fn_epoch_advance(&progress, 3, 3);
      assert_int_equal(fn_epoch_list(&progress, order, 50, rank, 3, 3, &list, &count, &first),
                       FN_OK);
      assert_int_equal(first, done);
      assert_int_equal(count, whole_count);
      assert_memory_equal(list, whole, (size_t)count * sizeof *list);
      free(list);
    }
    free(whole);
  }
}

static void test_room(void **state) {
  (void)state;
  fn_progress progress = {0};
  for (int i = 0; i < FN_STRETCHES_MOST; i++) {
    assert_true(fn_epoch_has_room(&progress, 1 + i % 2, 1));
    fn_epoch_advance(&progress, 1 + i % 2, 1);
  }
  assert_int_equal(progress.stretches, FN_STRETCHES_MOST);
  assert_true(fn_epoch_has_room(&progress, 2, 1));
  assert_false(fn_epoch_has_room(&progress, 1, 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known),  cmocka_unit_test(test_tail_is_used),
      cmocka_unit_test(test_random), cmocka_unit_test(test_same_size),
      cmocka_unit_test(test_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
