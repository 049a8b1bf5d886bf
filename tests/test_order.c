/* order: permutation, division by files, slices of ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "data/dataset.h"

enum { FILES = 30, CROPS = 12, SAMPLES = FILES * CROPS };

static void make(uint64_t seed, int64_t epoch, bool shuffle, bool divide, double distance,
                 int64_t *order) {
  assert_int_equal(fn_epoch_order(seed, epoch, FILES, CROPS, shuffle, divide, distance, order),
                   FN_OK);
  int seen[SAMPLES] = {0};
  for (int i = 0; i < SAMPLES; i++) {
    assert_in_range(order[i], 0, SAMPLES - 1);
    assert_int_equal(seen[order[i]]++, 0);
  }
}

/* Number of places where the file changes. */
static int changes(const int64_t *order) {
  int count = 0;
  for (int i = 1; i < SAMPLES; i++)
    count += order[i] / CROPS != order[i - 1] / CROPS;
  return count;
}

static void unshuffled_is_sequential(void **state) {
  (void)state;
  int64_t order[SAMPLES];
  for (int divide = 0; divide < 2; divide++) {
    make(1, 2, false, divide, 3, order);
    for (int i = 0; i < SAMPLES; i++)
      assert_int_equal(order[i], i);
  }
}

static void shuffled_mixes_files(void **state) {
  (void)state;
  int64_t order[SAMPLES];
  make(1, 0, true, false, 1, order);
  // A random neighbour is of another file with probability 1 - 11/359; the mean is 348, sigma 3.3.
  assert_true(changes(order) > 328);
}

static void seed_and_epoch_matter(void **state) {
  (void)state;
  int64_t a[SAMPLES], b[SAMPLES];
  for (int divide = 0; divide < 2; divide++) {
    make(1, 5, true, divide, 1, a);
    make(1, 5, true, divide, 1, b);
    assert_memory_equal(a, b, sizeof a);
    make(2, 5, true, divide, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    make(1, 6, true, divide, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
  }
}

static void short_distances_keep_files_whole(void **state) {
  (void)state;
  const double distance[] = {0, 0.3, 1};
  int64_t order[SAMPLES];
  for (int d = 0; d < 3; d++) {
    for (int64_t epoch = 0; epoch < 20; epoch++) {
      make(7, epoch, true, true, distance[d], order);
      assert_int_equal(changes(order), FILES - 1);
      bool sorted = true;
      for (int i = 1; i < SAMPLES; i++)
        if (order[i] / CROPS == order[i - 1] / CROPS) sorted &= order[i] > order[i - 1];
      assert_true(sorted == (d == 0)); // distance 0: ties keep the order inside the file
    }
  }
}

/* A crop moves forward by less than `distance` files, evenly, around the end. */
static void long_distances_interleave(void **state) {
  (void)state;
  int64_t order[SAMPLES], first[SAMPLES];
  make(7, 3, true, true, 0, first);
  int slot_of_file[FILES];
  for (int i = 0; i < FILES; i++)
    slot_of_file[first[i * CROPS] / CROPS] = i;
  make(7, 3, true, true, 4, order);
  double sum = 0;
  for (int i = 0; i < SAMPLES; i++) {
    // Expected occupancy is CROPS per slot with deviations; a place is i / CROPS + a few.
    double moved = (double)i / CROPS - slot_of_file[order[i] / CROPS];
    while (moved < -2)
      moved += FILES;
    while (moved >= FILES - 2)
      moved -= FILES;
    assert_true(moved > -2 && moved < 6.5);
    sum += moved;
  }
  assert_true(fabs(sum / SAMPLES - 2) < 1); // mean displacement distance / 2
  assert_true(changes(order) > 200);
  // Full shuffle: crops of the first file are spread over the whole epoch.
  make(7, 3, true, true, FILES, order);
  double mean = 0;
  for (int i = 0; i < SAMPLES; i++)
    if (slot_of_file[order[i] / CROPS] == 0) mean += i / (double)CROPS;
  assert_true(fabs(mean / SAMPLES - 0.5) < 0.3);
}

static void impossible_distance(void **state) {
  (void)state;
  int64_t order[SAMPLES];
  assert_int_equal(fn_epoch_order(1, 0, FILES, CROPS, true, true, -1, order), FN_ERR_CONFIG);
  assert_int_equal(fn_epoch_order(1, 0, FILES, CROPS, true, true, (double)NAN, order),
                   FN_ERR_CONFIG);
}

static void slices_of_ranks(void **state) {
  (void)state;
  for (int64_t samples = 0; samples < 40; samples++) {
    for (int size = 1; size < 9; size++) {
      for (int drop = 0; drop < 2; drop++) {
        int64_t next = 0;
        for (int rank = 0; rank < size; rank++) {
          int64_t begin, count;
          fn_rank_slice(samples, rank, size, drop, &begin, &count);
          assert_int_equal(begin, next); // contiguous and disjoint
          assert_int_equal(count, samples / size + (!drop && rank < samples % size));
          next = begin + count;
        }
        assert_int_equal(next, drop ? size * (samples / size) : samples);
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(unshuffled_is_sequential),
      cmocka_unit_test(shuffled_mixes_files),
      cmocka_unit_test(seed_and_epoch_matter),
      cmocka_unit_test(short_distances_keep_files_whole),
      cmocka_unit_test(long_distances_interleave),
      cmocka_unit_test(impossible_distance),
      cmocka_unit_test(slices_of_ranks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
