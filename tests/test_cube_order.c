/* order of samples of cubes: permutations, windows, draws, slices of ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "data/cubes.h"

enum { CUBES = 40, SLICES = 24, MOST = CUBES * SLICES * 8 };

static int64_t make(fn_cube_order_options options, int64_t *order) {
  const int64_t count = fn_cube_order_count(&options);
  assert_in_range(count, 0, MOST);
  assert_int_equal(fn_cube_order(&options, order), FN_OK);
  return count;
}

static const fn_cube_order_options usual = {.seed = 5,
                                            .epoch = 1,
                                            .cubes = CUBES,
                                            .slices = SLICES,
                                            .transforms = 1,
                                            .window = 8,
                                            .shuffle = true};

static void every_sample_once(void **state) {
  (void)state;
  static int64_t order[MOST];
  for (int variant = 0; variant < 4; variant++) {
    fn_cube_order_options options = usual;
    options.transforms = variant & 1 ? 8 : 1;
    options.shuffle = variant < 2;
    const int64_t count = make(options, order);
    assert_int_equal(count, CUBES * SLICES * options.transforms);
    char seen[MOST] = {0};
    for (int64_t i = 0; i < count; i++) {
      assert_in_range(order[i], 0, count - 1);
      assert_int_equal(seen[order[i]]++, 0);
      if (!options.shuffle) assert_int_equal(order[i], i);
    }
  }
}

static void seed_and_epoch_matter(void **state) {
  (void)state;
  static int64_t a[MOST], b[MOST];
  const size_t bytes = (size_t)make(usual, a) * sizeof *a;
  make(usual, b);
  assert_memory_equal(a, b, bytes);
  fn_cube_order_options other = usual;
  other.epoch++;
  make(other, b);
  assert_memory_not_equal(a, b, bytes);
  other = usual;
  other.seed++;
  make(other, b);
  assert_memory_not_equal(a, b, bytes);
}

/* Windows are disjoint sets of cubes, closed under GR <-> Newton, of the size asked for at most, as
 * few as there can be and equal but for one pair. */
static void check_windows(int64_t cubes, int64_t window) {
  static int64_t order[MOST];
  fn_cube_order_options options = usual;
  options.cubes = cubes;
  options.window = window;
  const int64_t count = make(options, order);
  const int64_t windows = (cubes + window - 1) / window;
  int64_t found = 0, smallest = cubes, largest = 0;
  char used[CUBES] = {0};
  for (int64_t at = 0; at < count; found++) {
    // A window ends where as many samples are through as its cubes have.
    char here[CUBES] = {0};
    int64_t size = 0, end = at;
    do {
      const int64_t cube = order[end++] / SLICES;
      assert_false(used[cube]);
      size += !here[cube];
      here[cube] = 1;
    } while (end - at < size * SLICES);
    for (int64_t cube = 0; cube < cubes; cube++) {
      assert_int_equal(here[cube], here[cube ^ 1]);
      used[cube] |= here[cube];
    }
    if (size < smallest) smallest = size;
    if (size > largest) largest = size;
    at = end;
  }
  assert_int_equal(found, windows);
  assert_true(largest <= window);
  assert_true(largest - smallest <= 2);
}

static void windows_are_balanced(void **state) {
  (void)state;
  check_windows(CUBES, 8);
  check_windows(CUBES, 6);
  check_windows(26, 8);
  check_windows(10, 8);
  check_windows(10, 64);
  check_windows(2, 2);
  check_windows(CUBES, 2);
}

/* W-5 and W-6: a batch of 32 of a window of 8 cubes holds both classes and most cubes. With 192
 * samples in a window, 32 drawn without repetition miss a given cube with probability 0.01 and have
 * fewer than 6 of one class with probability 4e-5. */
static void batches_mix_cubes_and_classes(void **state) {
  (void)state;
  enum { BATCH = 32 };
  static int64_t order[MOST];
  const int64_t count = make(usual, order);
  int64_t cubes_seen = 0, batches = 0;
  for (int64_t at = 0; at < count; at += BATCH, batches++) {
    char here[CUBES] = {0};
    int newton = 0;
    for (int64_t i = at; i < at + BATCH; i++) {
      const int64_t cube = order[i] / SLICES;
      cubes_seen += !here[cube];
      here[cube] = 1;
      newton += cube % 2;
    }
    assert_in_range(newton, 6, BATCH - 6);
  }
  assert_true(cubes_seen > batches * 15 / 2);
}

static void few_slices_of_each_cube(void **state) {
  (void)state;
  enum { KEPT = 5, EPOCHS = 200 };
  static int64_t order[MOST];
  int64_t drawn[SLICES] = {0}, same = 0;
  char before[CUBES][SLICES] = {{0}};
  fn_cube_order_options options = usual;
  options.per_cube = KEPT;
  for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
    options.epoch = epoch;
    const int64_t count = make(options, order);
    assert_int_equal(count, CUBES * KEPT);
    char seen[CUBES][SLICES] = {{0}};
    int64_t of_cube[CUBES] = {0};
    for (int64_t i = 0; i < count; i++) {
      const int64_t cube = order[i] / SLICES, slice = order[i] % SLICES;
      assert_int_equal(seen[cube][slice]++, 0);
      of_cube[cube]++;
      drawn[slice]++;
    }
    for (int64_t cube = 0; cube < CUBES; cube++)
      assert_int_equal(of_cube[cube], KEPT);
    for (int64_t cube = 0; cube < CUBES; cube++)
      for (int64_t slice = 0; slice < SLICES; slice++)
        same += seen[cube][slice] && before[cube][slice];
    memcpy(before, seen, sizeof seen);
  }
  // Each slice is drawn with probability 5/24: 1667 of 8000, sigma 36; twice running 5/24 of times.
  for (int64_t slice = 0; slice < SLICES; slice++)
    assert_in_range(drawn[slice], 1480, 1850);
  assert_in_range(same, 7800, 8800); // 8292 expected, sigma 80
  options.per_cube = SLICES + 1;
  assert_int_equal(fn_cube_order_count(&options), CUBES * SLICES);
  // With all symmetries the eight of a drawn slice come together into the window.
  options.per_cube = KEPT;
  options.transforms = 8;
  const int64_t count = make(options, order);
  assert_int_equal(count, CUBES * KEPT * 8);
  char turns[CUBES * SLICES] = {0};
  for (int64_t i = 0; i < count; i++)
    turns[order[i] / 8]++;
  for (int64_t i = 0; i < CUBES * SLICES; i++)
    assert_true(turns[i] == 0 || turns[i] == 8);
}

/* What the ranks take together is the same order whatever their number. */
static void ranks_divide_one_order(void **state) {
  (void)state;
  static int64_t order[MOST], joined[MOST];
  const int64_t count = make(usual, order);
  for (int size = 1; size <= 7; size++) {
    int64_t at = 0;
    for (int rank = 0; rank < size; rank++) {
      int64_t begin, part;
      fn_rank_slice(count, rank, size, false, &begin, &part);
      memcpy(joined + at, order + begin, (size_t)part * sizeof *order);
      at += part;
    }
    assert_int_equal(at, count);
    assert_memory_equal(order, joined, (size_t)count * sizeof *order);
  }
}

/* Cubes between the oldest that any rank needs and the newest that any needs, at each batch:
 * counted from the order itself, in the order in which each rank needs cubes first. */
static int64_t held_in(const int64_t *order, int64_t samples, int ranks, int64_t batch) {
  static int64_t position[MOST];
  int64_t newest[MOST], oldest[MOST], held = 0;
  const int64_t count = samples / ranks;
  for (int64_t t = 0; t * batch < count; t++) {
    newest[t] = 0;
    oldest[t] = CUBES;
  }
  for (int rank = 0; rank < ranks; rank++) {
    int64_t begin, length, place[CUBES], cubes = 0;
    fn_rank_slice(samples, rank, ranks, true, &begin, &length);
    memset(place, -1, sizeof place);
    for (int64_t i = 0; i < length; i++) {
      const int64_t cube = order[begin + i] / SLICES;
      if (place[cube] < 0) place[cube] = cubes++;
      position[i] = place[cube];
    }
    int64_t high = 0, low = CUBES;
    for (int64_t i = 0; i < length; i++) {
      if (position[i] > high) high = position[i];
      if (high > newest[i / batch]) newest[i / batch] = high;
    }
    for (int64_t i = length - 1; i >= 0; i--) {
      if (position[i] < low) low = position[i];
      if (low < oldest[i / batch]) oldest[i / batch] = low;
    }
  }
  for (int64_t t = 0; t * batch < count; t++)
    if (newest[t] - oldest[t] + 1 > held) held = newest[t] - oldest[t] + 1;
  return held;
}

static void memory_bound_holds_in_every_epoch(void **state) {
  (void)state;
  static int64_t order[MOST];
  const int64_t batches[] = {1, 4, 32, 500};
  for (int64_t cubes = 2; cubes <= CUBES; cubes += 6)
    for (int64_t window = 2; window <= 12; window += 2)
      for (int ranks = 1; ranks <= 5; ranks++)
        for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++) {
          fn_cube_order_options options = usual;
          options.cubes = cubes;
          options.window = window;
          options.per_cube = 10;
          const int64_t bound = fn_cube_order_held(&options, ranks, batches[b]);
          for (options.epoch = 0; options.epoch < 3; options.epoch++) {
            const int64_t samples = make(options, order);
            const int64_t held = held_in(order, samples, ranks, batches[b]);
            if (held > bound)
              fail_msg("%lld cubes, window %lld, %d ranks, batch %lld: %lld held, bound %lld",
                       (long long)cubes, (long long)window, ranks, (long long)batches[b],
                       (long long)held, (long long)bound);
          }
        }
}

/* What docs/cubes.md promises: with equal windows and small batches two of them; never three. */
static void two_windows_are_enough(void **state) {
  (void)state;
  fn_cube_order_options options = usual;
  for (int ranks = 1; ranks <= 7; ranks++) {
    assert_int_equal(fn_cube_order_held(&options, ranks, 1) <= 16, true);
    options.cubes = 26; // windows of 8, 6, 6 and 6
    assert_int_equal(fn_cube_order_held(&options, ranks, 1) < 24, true);
    options.cubes = CUBES;
  }
  assert_int_equal(fn_cube_order_held(&options, 1, 1), 8);
  assert_int_equal(fn_cube_order_held(&options, 1, 2 * 8 * SLICES), 16);
  assert_int_equal(fn_cube_order_held(&options, 1, 1000000), CUBES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_sample_once),
      cmocka_unit_test(seed_and_epoch_matter),
      cmocka_unit_test(windows_are_balanced),
      cmocka_unit_test(batches_mix_cubes_and_classes),
      cmocka_unit_test(few_slices_of_each_cube),
      cmocka_unit_test(ranks_divide_one_order),
      cmocka_unit_test(memory_bound_holds_in_every_epoch),
      cmocka_unit_test(two_windows_are_enough),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
