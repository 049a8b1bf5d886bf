/* The way of batches to a device: slots are refilled when they were read and not before, stages
 * when they were used; what a loader sends is what a data set's samples are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/backends.h"
#include "data/raw.h"
#include "data_files.h"
#include "graph/recorder.h"

static void must(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/* ---- order, written down -----------------------------------------------------------------------
 */

enum { SLOTS = 3, BATCHES = 12, BYTES = 4096, NUMBERS = BYTES / 4 - 16 };

/* Batches through the ring by a caller that waits for nothing else; every slot is reclaimed before
 * it is filled, but for the one of `careless`. What a sample has of its own is the end of its row.
 */
static void drive(fn_recorder *recorder, int careless) {
  fn_device *device = fn_recorder_device(recorder);
  fn_ring *ring;
  void *made;
  must(device->allocate(device, BYTES, &made));
  must(fn_ring_create(device, SLOTS, BYTES, &ring));
  const fn_raw_field field = {.type = FN_RAW_F32, .channels = NUMBERS, .factor = 1, .shift = -0.0};
  const fn_tensor to = {.data = made,
                        .dtype = FN_F32,
                        .shape = {2, {1, NUMBERS}},
                        .block = 1,
                        .batch_stride = NUMBERS};
  for (int b = 0; b < BATCHES; b++) {
    const int slot = b % SLOTS;
    if (b != careless) must(fn_ring_reclaim(ring, slot));
    must(fn_recorder_host(recorder, "reading", fn_ring_slot(ring, slot), BYTES, true));
    // Sent while the one before is used.
    must(fn_ring_send(ring, slot, BYTES));
    if (b == 0) continue;
    const int before = (b - 1) % SLOTS;
    fn_raw_field moved = field;
    must(fn_ring_use(ring, before, &moved.data));
    moved.own = (const void *)((const float *)moved.data + NUMBERS);
    must(device->convert(device, &moved, &to, 0, 0));
    must(fn_ring_used(ring, before));
  }
  fn_ring_destroy(ring);
  device->release(device, made);
}

static void every_event_of_the_ring_is_needed(void **state) {
  (void)state;
  fn_recorder *recorder;
  fn_recorder_counts counts;
  must(fn_recorder_create("assumed", 9, 0, &recorder));
  drive(recorder, -1);
  must(fn_recorder_check(recorder, -1));
  fn_recorder_count(recorder, &counts);
  assert_int_equal(counts.events, SLOTS + 2);
  for (int e = 0; e < counts.events; e++) {
    if (fn_recorder_check(recorder, e) == FN_OK) fail_msg("event %d orders nothing", e);
    assert_non_null(strstr(fn_error_message(), "race: nothing orders"));
    fn_error_clear();
  }
  fn_recorder_destroy(recorder);
}

static void a_slot_refilled_early_is_a_race(void **state) {
  (void)state;
  fn_recorder *recorder;
  must(fn_recorder_create("assumed", 9, 0, &recorder));
  drive(recorder, SLOTS + 1);
  assert_int_equal(fn_recorder_check(recorder, -1), FN_ERR_INTERNAL);
  assert_non_null(strstr(fn_error_message(), "before reading"));
  fn_error_clear();
  fn_recorder_destroy(recorder);
}

/* ---- numbers, on the emulated device -----------------------------------------------------------
 */

static fn_device *emulated(void) {
  fn_device *device;
  must(fn_backend_emulated.device(&fn_backend_emulated, &(fn_device_choice){.node_size = 1},
                                  &device));
  return device;
}

/* What a slot holds when it is refilled too early is what arrives: the device is late. */
static void a_slot_refilled_early_shows(void **state) {
  (void)state;
  fn_device *device = emulated();
  for (int reclaims = 0; reclaims < 2; reclaims++) {
    fn_ring *ring;
    const void *stage;
    char *result;
    must(fn_ring_create(device, 2, 1, &ring));
    must(device->allocate_pinned(device, 1, (void **)&result));
    char *slot = fn_ring_slot(ring, 0);
    *slot = 'a';
    must(fn_ring_send(ring, 0, 1));
    must(fn_ring_use(ring, 0, &stage));
    must(device->copy(device, FN_STREAM_COMPUTE, result, stage, 1, FN_COPY_TO_HOST));
    must(fn_ring_used(ring, 0));
    if (reclaims) must(fn_ring_reclaim(ring, 0));
    *slot = 'b';
    must(device->synchronize(device, FN_STREAM_COMPUTE));
    assert_int_equal(*result, reclaims ? 'a' : 'b');
    device->release_pinned(device, result);
    fn_ring_destroy(ring);
  }
}

enum { FILES = 4, CROPS = 8, SAMPLES = FILES * CROPS, BATCH = 3 };
enum { INPUT = 2 * 6 * 6 * 6, TARGET = 2 * 4 * 4 * 4, ALL = SAMPLES * (INPUT + TARGET) };

/* Batches of an epoch from `first` on, made on the device and copied to `result` [SAMPLES, INPUT +
 * TARGET]. The host waits for nothing between them. */
static void take_epoch(fn_device *device, fn_loader *loader, int64_t first, float *made,
                       float *result) {
  const fn_batch *batch;
  int64_t row = first * BATCH;
  for (;;) {
    must(fn_loader_next(loader, &batch));
    if (!batch) break;
    assert_null(batch->input);
    assert_non_null(batch->raw);
    assert_int_equal(batch->sample_bytes, (INPUT + TARGET) * sizeof(float));
    must(fn_batch_send(batch));
    float *target = made + BATCH * INPUT;
    const fn_tensor to[] = {
        {made, FN_F32, {5, {batch->count, 2, 6, 6, 6}}, 1, INPUT, 1},
        {target, FN_F32, {5, {batch->count, 2, 4, 4, 4}}, 1, TARGET, 1},
    };
    must(fn_batch_convert(batch, false, device, &to[0]));
    must(fn_batch_convert(batch, true, device, &to[1]));
    must(fn_loader_send_ahead(loader));
    for (int64_t n = 0; n < batch->count; n++, row++) {
      float *out = result + row * (INPUT + TARGET);
      must(device->copy(device, FN_STREAM_COMPUTE, out, made + n * INPUT, INPUT * sizeof(float),
                        FN_COPY_TO_HOST));
      must(device->copy(device, FN_STREAM_COMPUTE, out + INPUT, target + n * TARGET,
                        TARGET * sizeof(float), FN_COPY_TO_HOST));
    }
  }
  assert_int_equal(row, SAMPLES);
}

/* Only the ring's events keep readers from slots that are still to be read; the next loader takes
 * over the ring while the device is behind. */
static void batches_arrive(void **state) {
  (void)state;
  const int64_t readers[] = {1, 3, 8, 2}, prefetch[] = {1, 2, 1, 100}, first[] = {0, 0, 4, 2};
  fn_device *device = emulated();
  for (int i = 0; i < FILES; i++)
    write_field(i, 4, (int64_t[]){2, 8, 8, 8}, "ring/%d.npy", i);
  fn_run *run = run_of("{seed: 5, data: {train: {input: 'ring/*.npy', target: 'ring/*.npy'}, crop: "
                       "4, input_pad: 1, augment: true, shift: 8, add_std: 1, mul_std: 0.5, "
                       "input_norms: dis}}");
  fn_dataset *host = dataset_of(run, FN_STAGE_TRAIN), *dataset = dataset_of(run, FN_STAGE_TRAIN);
  fn_dataset_set_device(dataset, device);
  int64_t list[SAMPLES];
  float *made, *result[4], input[INPUT], target[TARGET];
  must(device->allocate(device, BATCH * (INPUT + TARGET) * sizeof(float), (void **)&made));
  for (int trial = 0; trial < 4; trial++) {
    fn_loader *loader;
    must(fn_epoch_order(5, trial, FILES, CROPS, true, true, 2, list));
    must(device->allocate_pinned(device, ALL * sizeof(float), (void **)&result[trial]));
    must(fn_loader_create(dataset, trial, list, SAMPLES, BATCH, first[trial], prefetch[trial],
                          readers[trial], &loader));
    take_epoch(device, loader, first[trial], made, result[trial]);
    fn_loader_destroy(loader);
  }
  must(device->synchronize(device, FN_STREAM_COMPUTE));
  for (int trial = 0; trial < 4; trial++) {
    must(fn_epoch_order(5, trial, FILES, CROPS, true, true, 2, list));
    for (int64_t i = first[trial] * BATCH; i < SAMPLES; i++) {
      const float *found = result[trial] + i * (INPUT + TARGET);
      must(fn_dataset_sample(host, trial, list[i], input, target));
      assert_memory_equal(found, input, sizeof input);
      assert_memory_equal(found + INPUT, target, sizeof target);
    }
    device->release_pinned(device, result[trial]);
  }
  device->release(device, made);
  fn_dataset_destroy(dataset);
  fn_dataset_destroy(host);
  fn_run_destroy(run);
}

/* A sample that cannot be read is told of in its turn, and whoever has the ring gives it back. */
static void a_failure_is_in_order(void **state) {
  (void)state;
  fn_device *device = emulated();
  for (int i = 0; i < 3; i++)
    write_field(i, 3, (int64_t[]){1, 4, 4}, "bad/%d.npy", i);
  fn_run *run = run_of("{data: {train: {input: 'bad/*.npy', target: 'bad/*.npy'}}}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  fn_dataset_set_device(dataset, device);
  const int64_t list[] = {0, 2, 1};
  for (int trial = 0; trial < 2; trial++) {
    fn_loader *loader;
    const fn_batch *batch;
    if (trial == 0) assert_int_equal(truncate("bad/1.npy", 100), 0);
    must(fn_loader_create(dataset, 0, list, 3, 1, 0, 2, 2, &loader));
    for (int b = 0; b < 2; b++) {
      must(fn_loader_next(loader, &batch));
      assert_int_equal(batch->sample[0], list[b]);
    }
    assert_int_equal(fn_loader_next(loader, &batch), FN_ERR_DATA);
    assert_non_null(strstr(fn_error_message(), "bad/1.npy"));
    must(fn_loader_send_ahead(loader));
    fn_loader_destroy(loader);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_event_of_the_ring_is_needed),
      cmocka_unit_test(a_slot_refilled_early_is_a_race),
      cmocka_unit_test(a_slot_refilled_early_shows),
      cmocka_unit_test(batches_arrive),
      cmocka_unit_test(a_failure_is_in_order),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
