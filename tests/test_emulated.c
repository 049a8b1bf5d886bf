/* The emulated device: late, in any order that events allow, and strict about memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backends.h"

enum { COUNT = 64, BYTES = COUNT * sizeof(float) };

static fn_device *device;

static void must(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/* Expect a refusal that says `word`; nothing was put on a stream. */
static void refused(fn_status status, const char *word) {
  assert_int_equal(status, FN_ERR_INTERNAL);
  if (!strstr(fn_error_message(), word)) fail_msg("'%s' not in: %s", word, fn_error_message());
  fn_error_clear();
}

static int setup(void **state) {
  (void)state;
  const fn_device_choice choice = {.node_size = 1};
  must(fn_backend_emulated.device(&fn_backend_emulated, &choice, &device));
  return 0;
}

/* A block of the device and a pinned one. */
typedef struct pair {
  float *there, *here;
} pair;

static pair make_pair(float value) {
  pair p;
  must(device->allocate(device, BYTES, (void **)&p.there));
  must(device->allocate_pinned(device, BYTES, (void **)&p.here));
  for (int i = 0; i < COUNT; i++)
    p.here[i] = value;
  return p;
}
static void free_pair(pair *p) {
  device->release(device, p->there);
  device->release_pinned(device, p->here);
}

static void copies_stay_in_bounds(void **state) {
  (void)state;
  pair p = make_pair(1);
  float stack[COUNT];
  const fn_stream s = FN_STREAM_IN;
  refused(device->copy(device, s, p.there, stack, BYTES, FN_COPY_TO_DEVICE), "nor pinned");
  refused(device->copy(device, s, p.there, p.here + 1, BYTES, FN_COPY_TO_DEVICE), "from byte 4");
  refused(device->copy(device, s, p.there + 1, p.here, BYTES, FN_COPY_TO_DEVICE), "from byte 4");
  refused(device->copy(device, s, p.here, p.here, BYTES, FN_COPY_TO_DEVICE), "found pinned memory");
  refused(device->copy(device, s, p.here, p.there, BYTES, FN_COPY_WITHIN), "found pinned memory");
  refused(device->clear(device, s, p.here, BYTES), "found pinned memory");
  refused(device->add_scaled(device, s, p.there, p.here, 1, 1, COUNT), "found pinned memory");
  float *freed = p.there;
  device->release(device, freed);
  refused(device->copy(device, s, freed, p.here, BYTES, FN_COPY_TO_DEVICE), "released");
  device->release_pinned(device, p.here);
}

static void nothing_runs_before_somebody_waits(void **state) {
  (void)state;
  pair p = make_pair(3);
  float *back;
  must(device->allocate_pinned(device, BYTES, (void **)&back));
  memset(back, 0, BYTES);
  must(device->copy(device, FN_STREAM_IN, p.there, p.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->copy(device, FN_STREAM_IN, back, p.there, BYTES, FN_COPY_TO_HOST));
  assert_true(back[0] == 0);
  p.here[0] = 4; // pinned memory is read when the copy runs, not when it was asked for
  must(device->synchronize(device, FN_STREAM_IN));
  assert_true(back[0] == 4 && back[COUNT - 1] == 3);
  device->release_pinned(device, back);
  free_pair(&p);
}

/* Two streams write the same value: which comes last must depend on chance without an event, and on
 * nothing with one. */
static int last_writer(bool ordered) {
  pair a = make_pair(1), b = make_pair(2);
  fn_event *event;
  must(device->event_create(device, &event));
  must(device->copy(device, FN_STREAM_IN, a.there, a.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->record(device, FN_STREAM_IN, event));
  if (ordered) must(device->wait(device, FN_STREAM_COMM, event));
  must(device->copy(device, FN_STREAM_COMM, a.there, b.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->synchronize(device, FN_STREAM_COMM));
  must(device->synchronize(device, FN_STREAM_IN));
  must(device->copy(device, FN_STREAM_OUT, b.here, a.there, BYTES, FN_COPY_TO_HOST));
  must(device->synchronize(device, FN_STREAM_OUT));
  const int last = (int)b.here[0];
  device->event_destroy(device, event);
  free_pair(&a);
  free_pair(&b);
  return last;
}

static void only_events_order_streams(void **state) {
  (void)state;
  int found[3] = {0};
  for (int i = 0; i < 50; i++) {
    assert_int_equal(last_writer(true), 2);
    found[last_writer(false)]++;
  }
  assert_true(found[1] > 0 && found[2] > 0);
}

static void a_wait_is_for_the_last_record_before_it(void **state) {
  (void)state;
  fn_event *event, *never;
  bool yes;
  must(device->event_create(device, &event));
  must(device->event_create(device, &never));
  must(device->wait(device, FN_STREAM_COMPUTE, never)); // no record: at once
  must(device->synchronize(device, FN_STREAM_COMPUTE));
  must(device->passed(device, never, &yes));
  assert_true(yes);
  must(device->record(device, FN_STREAM_IN, event));
  must(device->wait(device, FN_STREAM_COMPUTE, event));
  must(device->wait(device, FN_STREAM_IN, event));
  must(device->record(device, FN_STREAM_COMPUTE, event)); // the waits above are not for this one
  must(device->synchronize_event(device, event));
  must(device->synchronize(device, FN_STREAM_IN));
  int asked = 0;
  must(device->record(device, FN_STREAM_COMM, event));
  do { // time goes by while somebody asks
    must(device->passed(device, event, &yes));
  } while (!yes && ++asked < 1000);
  assert_true(yes);
  device->event_destroy(device, event);
  device->event_destroy(device, never);
}

static void arithmetic_on_flat_arrays(void **state) {
  (void)state;
  pair x = make_pair(2), y = make_pair(5);
  double *sum;
  float *host;
  must(device->allocate(device, sizeof *sum, (void **)&sum));
  must(device->allocate_pinned(device, sizeof *sum, (void **)&host));
  must(device->copy(device, FN_STREAM_COMPUTE, x.there, x.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->copy(device, FN_STREAM_COMPUTE, y.there, y.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->add_scaled(device, FN_STREAM_COMPUTE, y.there, x.there, 0.5f, -2, COUNT - 1));
  must(device->sum_squares(device, FN_STREAM_COMPUTE, y.there, COUNT, sum));
  must(device->copy(device, FN_STREAM_COMPUTE, host, sum, sizeof *sum, FN_COPY_TO_HOST));
  must(device->copy(device, FN_STREAM_COMPUTE, y.here, y.there, BYTES, FN_COPY_TO_HOST));
  must(device->synchronize(device, FN_STREAM_COMPUTE));
  assert_true(y.here[0] == -1.5f && y.here[COUNT - 2] == -1.5f && y.here[COUNT - 1] == 5);
  double squares;
  memcpy(&squares, host, sizeof squares);
  assert_true(squares == (COUNT - 1) * 2.25 + 25);
  device->release(device, sum);
  device->release_pinned(device, host);
  free_pair(&x);
  free_pair(&y);
}

static void rounding_on_the_device(void **state) {
  (void)state;
  pair x = make_pair(2.01f);
  uint16_t *narrow, *host;
  const fn_stream s = FN_STREAM_COMM;
  must(device->allocate(device, COUNT * sizeof *narrow, (void **)&narrow));
  must(device->allocate_pinned(device, COUNT * sizeof *host, (void **)&host));
  refused(device->to_bf16(device, s, host, x.there, 1, COUNT), "found pinned memory");
  refused(device->to_bf16(device, s, narrow + 1, x.there, 1, COUNT), "rounded numbers");
  refused(device->from_bf16(device, s, x.there + 1, narrow, COUNT), "float32 numbers");
  must(device->copy(device, s, x.there, x.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->to_bf16(device, s, narrow, x.there, 0.5f, COUNT));
  must(device->from_bf16(device, s, x.there, narrow, COUNT - 1));
  must(device->copy(device, s, host, narrow, COUNT * sizeof *host, FN_COPY_TO_HOST));
  must(device->copy(device, s, x.here, x.there, BYTES, FN_COPY_TO_HOST));
  must(device->synchronize(device, s));
  assert_true(host[0] == 0x3f81 && host[COUNT - 1] == 0x3f81); // 1.005 becomes 1 + 2^-7
  assert_true(x.here[0] == 1 + 0x1p-7f && x.here[COUNT - 2] == 1 + 0x1p-7f);
  assert_true(x.here[COUNT - 1] == 2.01f);
  device->release(device, narrow);
  device->release_pinned(device, host);
  free_pair(&x);
}

/* What is recorded runs at each replay with what memory holds then, not when it was recorded. */
static void recordings_are_replayed(void **state) {
  (void)state;
  pair sum = make_pair(0), x = make_pair(1);
  void *recording;
  const fn_stream s = FN_STREAM_COMPUTE;
  must(device->copy(device, s, sum.there, sum.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->copy(device, s, x.there, x.here, BYTES, FN_COPY_TO_DEVICE));
  must(device->capture_begin(device));
  must(device->add_scaled(device, s, sum.there, x.there, 1, 1, COUNT));
  assert_int_equal(device->synchronize(device, s), FN_ERR_INTERNAL); // nobody would run it
  fn_error_clear();
  must(device->capture_end(device, &recording));
  must(device->replay(device, recording));
  must(device->add_scaled(device, s, x.there, x.there, 1, 1, COUNT)); // 2
  must(device->replay(device, recording));
  must(device->copy(device, s, sum.here, sum.there, BYTES, FN_COPY_TO_HOST));
  must(device->synchronize(device, s));
  assert_true(sum.here[0] == 3 && sum.here[COUNT - 1] == 3);
  device->recording_destroy(device, recording);
  free_pair(&sum);
  free_pair(&x);
}

/* Last, for a device that has failed stays so. */
static void writes_beyond_a_block_are_seen(void **state) {
  (void)state;
  pair p = make_pair(1);
  p.here[COUNT] = 7; // as a kernel would
  assert_int_equal(device->synchronize(device, FN_STREAM_COMPUTE), FN_ERR_INTERNAL);
  assert_non_null(strstr(fn_error_message(), "beyond the end"));
  fn_event *event = NULL;
  must(device->event_create(device, &event));
  assert_int_equal(device->record(device, FN_STREAM_IN, event), FN_ERR_INTERNAL);
  assert_non_null(strstr(fn_error_message(), "beyond the end"));
  device->event_destroy(device, event);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(copies_stay_in_bounds),
      cmocka_unit_test(nothing_runs_before_somebody_waits),
      cmocka_unit_test(only_events_order_streams),
      cmocka_unit_test(a_wait_is_for_the_last_record_before_it),
      cmocka_unit_test(arithmetic_on_flat_arrays),
      cmocka_unit_test(rounding_on_the_device),
      cmocka_unit_test(recordings_are_replayed),
      cmocka_unit_test(writes_beyond_a_block_are_seen),
  };
  return cmocka_run_group_tests(tests, setup, NULL);
}
