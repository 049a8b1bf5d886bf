/* loader: order, short last batch, any number of readers, failures, early destruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <time.h>

#include "data_files.h"

enum { FILES = 6, CROPS = 4, SAMPLES = FILES * CROPS, VALUES = 16 };

static fn_run *training_run(void) {
  for (int i = 0; i < FILES; i++)
    write_field(i, 3, cube(2, 1, 8), "load/%d.npy", i);
  return run_of("{seed: 11, data: {train: {input: 'load/*.npy', target: 'load/*.npy'}, crop: 4, "
                "augment: true, shift: 8, add_std: 1}}");
}

static void shuffled(int64_t *list) {
  assert_int_equal(fn_epoch_order(11, 2, FILES, CROPS, true, true, 2, list), FN_OK);
}

/* The same batches whatever the readers, the ring and the place of entry; the last one is short. */
static void batches_in_order(void **state) {
  (void)state;
  enum { BATCH = 5, BATCHES = 5 };
  const int64_t readers[] = {1, 2, 7, 1, 3, 64}, prefetch[] = {1, 2, 3, 9, 1, 100};
  fn_run *run = training_run();
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  int64_t list[SAMPLES];
  shuffled(list);
  float input[VALUES], target[VALUES];
  for (int trial = 0; trial < 6; trial++) {
    for (int64_t first = 0; first <= BATCHES; first++) {
      fn_loader *loader;
      const fn_batch *batch;
      assert_int_equal(fn_loader_create(dataset, 2, list, SAMPLES, BATCH, first, prefetch[trial],
                                        readers[trial], &loader),
                       FN_OK);
      for (int64_t b = first; b < BATCHES; b++) {
        assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
        assert_non_null(batch);
        assert_int_equal(batch->count, b < BATCHES - 1 ? BATCH : SAMPLES % BATCH);
        for (int64_t i = 0; i < batch->count; i++) {
          assert_int_equal(batch->sample[i], list[b * BATCH + i]);
          assert_int_equal(fn_dataset_sample(dataset, 2, batch->sample[i], input, target), FN_OK);
          assert_memory_equal(batch->input + i * VALUES, input, sizeof input);
          assert_memory_equal(batch->target + i * VALUES, target, sizeof target);
        }
      }
      for (int again = 0; again < 2; again++) {
        assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
        assert_null(batch);
      }
      fn_loader_destroy(loader);
    }
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Room is made for the samples that there are, whatever the batch; where that is too much, the
 * bytes are told and nothing is touched. */
static void absurd_batches(void **state) {
  (void)state;
  fn_run *run = training_run();
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  int64_t list[SAMPLES];
  shuffled(list);
  fn_loader *loader;
  const fn_batch *batch;
  assert_int_equal(fn_loader_create(dataset, 2, list, SAMPLES, INT64_MAX, 0, 2, 2, &loader), FN_OK);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  assert_int_equal(batch->count, SAMPLES);
  assert_memory_equal(batch->sample, list, sizeof list);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  assert_null(batch);
  fn_loader_destroy(loader);
  assert_int_equal(fn_loader_create(dataset, 2, list, SAMPLES, INT64_MAX, 1, 2, 2, &loader), FN_OK);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  assert_null(batch);
  fn_loader_destroy(loader);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);

  const char *pads[] = {"1000000", "1000000000"}; // 16 TB a sample; 1.6e19 bytes
  for (int i = 0; i < 2; i++) {
    char text[256];
    snprintf(text, sizeof text,
             "data: {train: {input: 'load/*.npy', target: 'load/*.npy'}, crop: 4, input_pad: %s}",
             pads[i]);
    run = run_of(text);
    dataset = dataset_of(run, FN_STAGE_TRAIN);
    assert_int_equal(fn_loader_create(dataset, 0, list, SAMPLES, INT64_MAX, 0, 2, 2, &loader),
                     FN_ERR_MEMORY);
    assert_null(loader);
    assert_non_null(strstr(fn_error_message(), i == 0 ? " bytes (384" : "any memory"));
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

static void empty_list(void **state) {
  (void)state;
  fn_run *run = training_run();
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  fn_loader *loader;
  const fn_batch *batch;
  assert_int_equal(fn_loader_create(dataset, 0, NULL, 0, 3, 0, 2, 2, &loader), FN_OK);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  assert_null(batch);
  fn_loader_destroy(loader);
  assert_int_equal(fn_loader_create(dataset, 0, NULL, 0, 0, 0, 2, 2, &loader), FN_ERR_INTERNAL);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

static void no_target(void **state) {
  (void)state;
  write_field(0, 3, cube(2, 1, 8), "load/0.npy");
  fn_run *run = run_of("data: {test: {input: load/0.npy}, crop: 4}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_PREDICT);
  const int64_t list[] = {3, 1};
  fn_loader *loader;
  const fn_batch *batch;
  assert_int_equal(fn_loader_create(dataset, 0, list, 2, 2, 0, 2, 2, &loader), FN_OK);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  assert_null(batch->target);
  assert_true(batch->input[0] == value_at(0, 4 * 8 + 4)); // NOLINT: exact
  assert_true(batch->input[VALUES] == value_at(0, 4));    // NOLINT: exact
  fn_loader_destroy(loader);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* A file that breaks after the check: batches before it arrive, then its own error, again and
 * again, whatever the readers. */
static void failures_arrive_in_order(void **state) {
  (void)state;
  // Many rounds: good samples of the bad batch must sometimes end after the bad one.
  for (int64_t round = 0; round < 100; round++) {
    const int64_t readers = 1 + round % 5;
    fn_run *run = training_run();
    fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
    assert_int_equal(truncate("load/2.npy", 140), 0);
    assert_int_equal(truncate("load/4.npy", 140), 0);
    int64_t list[SAMPLES];
    for (int i = 0; i < SAMPLES; i++)
      list[i] = i;
    fn_loader *loader;
    const fn_batch *batch;
    assert_int_equal(fn_loader_create(dataset, 0, list, SAMPLES, 3, 0, 4, readers, &loader), FN_OK);
    for (int b = 0; b < 2; b++) { // samples 0 to 5 are of files 0 and 1, 8 is the first bad one
      assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
      assert_int_equal(batch->sample[0], 3 * b);
    }
    for (int again = 0; again < 3; again++) {
      fn_error_clear();
      assert_int_equal(fn_loader_next(loader, &batch), FN_ERR_DATA);
      assert_null(batch);
      assert_non_null(strstr(fn_error_message(), "load/2.npy"));
      assert_null(strstr(fn_error_message(), "load/4.npy"));
    }
    fn_loader_destroy(loader);
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

static void early_destruction(void **state) {
  (void)state;
  fn_run *run = training_run();
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  int64_t list[SAMPLES];
  shuffled(list);
  for (int n = 0; n < 200; n++) {
    fn_loader *loader;
    const fn_batch *batch;
    assert_int_equal(
        fn_loader_create(dataset, n, list, SAMPLES, 2, 0, 1 + n % 3, 1 + n % 5, &loader), FN_OK);
    for (int b = 0; b < n % 8; b++)
      assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
    fn_loader_destroy(loader);
  }
  fn_loader_destroy(NULL);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* A norm that takes 20 ms: what the caller waits for is measured, and what was read ahead while it
 * worked is not waited for. */
static fn_status slow(float *values, int64_t channels, int64_t cells, bool undo,
                      const fn_options *options) {
  (void)values, (void)channels, (void)undo, (void)options;
  if (cells > 0) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  return FN_OK;
}

/** Whether the first batch was waited for, and two that were read meanwhile were not. On a busy
 *  machine either thread may stand still for a while. */
static bool waits_for_the_first_only(fn_dataset *dataset, int64_t rest) {
  const int64_t list[] = {0, 1, 2, 3};
  fn_loader *loader;
  const fn_batch *batch;
  assert_int_equal(fn_loader_create(dataset, 0, list, 4, 1, 0, 2, 1, &loader), FN_OK);
  assert_true(fn_loader_waited(loader) == 0); // NOLINT: exact
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  const double first = fn_loader_waited(loader);
  nanosleep(&(struct timespec){.tv_sec = rest / 1000, .tv_nsec = rest % 1000 * 1000000}, NULL);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  assert_int_equal(fn_loader_next(loader, &batch), FN_OK);
  const double others = fn_loader_waited(loader) - first;
  fn_loader_destroy(loader);
  return first > 0.01 && others < 0.005;
}

static void waiting_is_measured(void **state) {
  (void)state;
  assert_int_equal(fn_register_norm(&(fn_norm){"slow", "", slow}), FN_OK);
  write_field(0, 3, cube(2, 1, 8), "load/0.npy");
  fn_run *run = run_of("data: {test: {input: load/0.npy}, crop: 4, input_norms: slow}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_PREDICT);
  bool measured = false;
  for (int64_t rest = 200; rest <= 6400 && !measured; rest *= 2)
    measured = waits_for_the_first_only(dataset, rest);
  assert_true(measured);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Two loaders, as of training and validation, on one data set at once. */
static void *drain(void *argument) {
  fn_dataset *dataset = argument;
  int64_t list[SAMPLES], count = 0;
  for (int i = 0; i < SAMPLES; i++)
    list[i] = SAMPLES - 1 - i;
  fn_loader *loader;
  const fn_batch *batch = NULL;
  if (fn_loader_create(dataset, 1, list, SAMPLES, 4, 0, 2, 3, &loader) != FN_OK) return NULL;
  while (fn_loader_next(loader, &batch) == FN_OK && batch)
    count += batch->count;
  fn_loader_destroy(loader);
  return (void *)(intptr_t)count;
}

static void loaders_share_a_dataset(void **state) {
  (void)state;
  fn_run *run = training_run();
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  pthread_t thread[3];
  for (int i = 0; i < 3; i++)
    assert_int_equal(pthread_create(&thread[i], NULL, drain, dataset), 0);
  for (int i = 0; i < 3; i++) {
    void *count;
    pthread_join(thread[i], &count);
    assert_int_equal((intptr_t)count, SAMPLES);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(batches_in_order),
      cmocka_unit_test(absurd_batches),
      cmocka_unit_test(empty_list),
      cmocka_unit_test(no_target),
      cmocka_unit_test(failures_arrive_in_order),
      cmocka_unit_test(early_destruction),
      cmocka_unit_test(waiting_is_measured),
      cmocka_unit_test(loaders_share_a_dataset),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
