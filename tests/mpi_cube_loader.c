/* batches of cubes that the ranks read together: the right samples, in order, without a circle of
 * ranks that wait for each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "cube_files.h"
#include "mpi_test.h"

enum { N = 8, SEEDS = 7, BATCH = 5 };

/* A folder that all ranks (of one machine) see, with a file of cubes; rank 0 makes it. */
static int set_up(void **state) {
  int failed = 0;
  if (dist.rank == 0) {
    failed = make_folder(state);
    if (!failed) write_cubes("cubes.h5", SEEDS, (const hsize_t[]){N, N, N});
  }
  if (fn_dist_broadcast(&dist, folder, sizeof folder) != FN_OK || failed) return -1;
  return dist.rank == 0 ? 0 : chdir(folder);
}

static int tear_down(void **state) {
  fn_dist_max(&dist, 0); // nobody needs it any more
  return dist.rank == 0 ? remove_folder(state) : 0;
}

/* A set that reads with the others, and one that reads by itself. */
typedef struct pair {
  fn_run *run;
  fn_dataset *joined, *alone;
} pair;

static fn_run *run_with(const char *settings, int64_t memory) {
  char budget[64] = "null";
  if (memory > 0) snprintf(budget, sizeof budget, "%lld", (long long)memory);
  return run_of("seed: 9\ntrain: {batch: %d}\ndata: {kind: cubes, prefetch: 2, read_memory: %s, "
                "cubes: {file: cubes.h5, train_seeds: 0-4, test_seeds: 5-6, window: 4, %s}}",
                BATCH, budget, settings);
}

/* In training with as little memory as will do. */
static pair open_pair(fn_stage stage, const char *settings) {
  pair p = {.run = run_with(settings, 0)};
  if (stage == FN_STAGE_TRAIN) {
    p.alone = dataset_of(p.run, stage);
    const int64_t memory = fn_dataset_held_bytes(p.alone, dist.size);
    assert_in_range(memory, 4 * N * N * N * 4, 10 * N * N * N * 4);
    fn_dataset_destroy(p.alone);
    fn_run_destroy(p.run);
    p.run = run_with(settings, memory);
  }
  p.joined = dataset_of(p.run, stage);
  p.alone = dataset_of(p.run, stage);
  assert_int_equal(fn_dataset_join(p.joined, dist.comm), FN_OK);
  return p;
}

static void close_pair(pair *p) {
  fn_dataset_destroy(p->joined);
  fn_dataset_destroy(p->alone);
  fn_run_destroy(p->run);
}

static void compare_batch(const pair *p, int64_t epoch, const int64_t *list, const fn_batch *b) {
  float input[N * N], target;
  assert_int_equal(b->input_values, N * N);
  assert_int_equal(b->target_values, 1);
  for (int64_t i = 0; i < b->count; i++) {
    assert_int_equal(b->sample[i], list[i]);
    assert_int_equal(fn_dataset_sample(p->alone, epoch, list[i], input, &target), FN_OK);
    assert_memory_equal(b->input + i * N * N, input, sizeof input);
    assert_float_equal(b->target[i], target, 0);
  }
}

/* Batches from `first` on, `most` of them at most; in step with the other ranks, or not. */
static void read_list(const pair *p, int64_t epoch, const int64_t *list, int64_t count,
                      int64_t first, int64_t most, bool in_step) {
  fn_loader *loader;
  if (fn_loader_create(p->joined, epoch, list, count, BATCH, first, 2, 2, &loader) != FN_OK)
    fail_msg("%s", fn_error_message());
  int64_t at = first * BATCH;
  for (int64_t b = 0; b < most; b++) {
    const fn_batch *batch;
    if (fn_loader_next(loader, &batch) != FN_OK) fail_msg("%s", fn_error_message());
    const int more = batch != NULL;
    if (in_step && !fn_dist_max(&dist, more)) break;
    if (!in_step && !more) break;
    if (!more) continue;
    compare_batch(p, epoch, list + at, batch);
    at += batch->count;
  }
  if (most > count) assert_int_equal(at, first * BATCH > count ? first * BATCH : count);
  fn_loader_destroy(loader);
}

static void read_epochs(const char *settings, int64_t first, int64_t most) {
  pair p = open_pair(FN_STAGE_TRAIN, settings);
  const int64_t samples = fn_dataset_epoch_samples(p.joined);
  int64_t *order = malloc((size_t)samples * sizeof *order), begin, count;
  for (int64_t epoch = 0; epoch < 3; epoch++) {
    assert_int_equal(fn_dataset_order(p.joined, epoch, order), FN_OK);
    fn_rank_slice(samples, dist.rank, dist.size, true, &begin, &count);
    read_list(&p, epoch, order + begin, count, first, most, true);
  }
  free(order);
  close_pair(&p);
}

static void training_in_step(void **state) {
  (void)state;
  read_epochs("symmetry: random", 0, INT64_MAX);
  read_epochs("symmetry: all, slices_per_cube: 3", 0, INT64_MAX);
  read_epochs("slices_per_cube: 1, remove_mean: true", 0, INT64_MAX);
}

static void restart_inside_an_epoch(void **state) {
  (void)state;
  read_epochs("slices_per_cube: 11", 3, INT64_MAX);
}

/* Leaving early, as on a signal: ranks that are full must not keep others from ending. */
static void stop_inside_an_epoch(void **state) {
  (void)state;
  for (int64_t most = 0; most < 6; most++)
    read_epochs("symmetry: none", 0, most);
}

/* Every sample once, in the order of numbers, each rank at its own pace; with more ranks than
 * samples some have none. */
static void evaluation_at_will(void **state) {
  (void)state;
  pair p = open_pair(FN_STAGE_TEST, "newton_augmentation: 0.5");
  int64_t list[4 * 3 * N], begin, count;
  for (int64_t i = 0; i < 4 * 3 * N; i++)
    list[i] = i;
  assert_int_equal(fn_dataset_get_info(p.joined)->samples, 4 * 3 * N);
  for (int64_t samples = 4 * 3 * N; samples > 0; samples /= 7) {
    fn_rank_slice(samples, dist.rank, dist.size, false, &begin, &count);
    read_list(&p, 0, list + begin, count, 0, INT64_MAX, false);
  }
  close_pair(&p);
}

/* Ranks whose slices of a list are far from equal. */
static void uneven_ranks(void **state) {
  (void)state;
  fn_run *run = run_with("symmetry: none", 0);
  pair p = {.run = run,
            .joined = dataset_of(run, FN_STAGE_TRAIN),
            .alone = dataset_of(run, FN_STAGE_TRAIN)};
  assert_int_equal(fn_dataset_join(p.joined, dist.comm), FN_OK);
  const int64_t samples = fn_dataset_epoch_samples(p.joined);
  int64_t *order = malloc((size_t)samples * sizeof *order);
  assert_int_equal(fn_dataset_order(p.joined, 1, order), FN_OK);
  const int64_t count = samples * dist.rank / dist.size; // rank 0 has none
  read_list(&p, 1, order, count, 0, INT64_MAX, true);
  read_list(&p, 1, order, count, 0, INT64_MAX, false);
  free(order);
  close_pair(&p);
}

/* One byte less than the least: refused on every rank, with the least. */
static void too_little_memory_is_refused(void **state) {
  (void)state;
  fn_run *run = run_with("symmetry: none", 0);
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const int64_t least = fn_dataset_held_bytes(dataset, dist.size);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
  run = run_with("symmetry: none", least - 1);
  dataset = dataset_of(run, FN_STAGE_TRAIN);
  assert_int_equal(fn_dataset_join(dataset, dist.comm), FN_ERR_CONFIG);
  char text[64];
  snprintf(text, sizeof text, "at least %lld bytes", (long long)least);
  assert_non_null(strstr(fn_error_message(), text));
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(training_in_step),     cmocka_unit_test(restart_inside_an_epoch),
      cmocka_unit_test(stop_inside_an_epoch), cmocka_unit_test(evaluation_at_will),
      cmocka_unit_test(uneven_ranks),         cmocka_unit_test(too_little_memory_is_refused),
  };
  const int failed = cmocka_run_group_tests(tests, set_up, tear_down);
  fn_dist_finalize(&dist);
  return failed;
}
