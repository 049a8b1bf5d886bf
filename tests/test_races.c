/* Streams and events of training steps, written down by a device that does nothing else: accesses
 * are ordered, and every event is needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "dist/device_gradients.h"
#include "graph/program.h"
#include "learn/learn.h"
#include "models/builtin.h"

enum { STEPS = 5, BUCKETS = 3, EDGE = 108 };

typedef struct fixture {
  fn_recorder *recorder;
  fn_graph *graph;
  fn_parameters *parameters;
  fn_program *program, *evaluation;
  fn_optimizer *optimizer;
  fn_judge *judge;
  fn_device_gradients *gradients;
  int64_t pending[BUCKETS]; /* elements of gradients that are not final */
} fixture;

static void must(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/* A VNet of full width, its loss, all gradients; and its output alone on the same memory. */
static void make_programs(fixture *f) {
  const fn_shape in = {.ndim = 5, .dim = {1, 3, EDGE, EDGE, EDGE}};
  must(fn_graph_create(&(fn_graph_options){.training = true}, &f->graph));
  fn_value *x = fn_input(f->graph, "input", &in);
  fn_value *y = fn_network_vnet.build(f->graph, x, 3, NULL);
  fn_value *target = fn_input(f->graph, "target", fn_value_shape(y));
  fn_value *loss = fn_loss_mse.build(f->graph, y, target, NULL);
  must(fn_graph_status(f->graph));
  must(fn_parameters_create(f->graph, FN_F32, &f->parameters));
  fn_value *wrt[256], *gradient[256];
  int count = 0;
  for (int l = 0; l < fn_graph_leaf_count(f->graph); l++)
    if (fn_value_leaf(fn_graph_leaf(f->graph, l))->kind == FN_LEAF_PARAMETER)
      wrt[count++] = fn_graph_leaf(f->graph, l);
  must(fn_differentiate(f->graph, loss, wrt, count, gradient));
  fn_program_options options = {
      .backend = "emulated", .precision = FN_F32, .recorder = f->recorder};
  const fn_program_output outputs[] = {{"loss", loss}, {"output", y}};
  must(fn_program_create(f->graph, f->parameters, &options, outputs, 2, wrt, gradient, count,
                         &f->program));
  options.donor = f->program;
  must(fn_program_create(f->graph, f->parameters, &options, outputs, 2, NULL, NULL, 0,
                         &f->evaluation));
}

static void feed(fn_program *program) {
  assert_non_null(fn_program_input(program, "input"));
  assert_non_null(fn_program_input(program, "target"));
}

static fn_dtype type_of_gradients; /**< on their way to the host and back */

static int64_t bucket_start(const fixture *f, int k) {
  return k * f->parameters->count / BUCKETS;
}

/* A bucket goes when the last of its gradients is final. */
static bool ready(void *user, int entry) {
  fixture *f = user;
  const fn_tensor_entry *e = &f->parameters->entry[entry];
  bool sent = false;
  for (int k = 0; k < BUCKETS; k++) {
    const int64_t start = bucket_start(f, k), end = bucket_start(f, k + 1);
    const int64_t from = e->offset > start ? e->offset : start;
    const int64_t to = e->offset + e->count < end ? e->offset + e->count : end;
    if (to <= from) continue;
    f->pending[k] -= to - from;
    if (f->pending[k] > 0) continue;
    fn_device_gradients_send(f->gradients, k, start, end - start, 0.5);
    sent = true;
  }
  return sent;
}

static void begin(fixture *f) {
  memset(f->pending, 0, sizeof f->pending);
  for (int i = 0; i < f->parameters->entry_count; i++) {
    const fn_tensor_entry *e = &f->parameters->entry[i];
    for (int k = 0; k < BUCKETS && !e->is_buffer; k++) {
      const int64_t start = bucket_start(f, k), end = bucket_start(f, k + 1);
      const int64_t from = e->offset > start ? e->offset : start;
      const int64_t to = e->offset + e->count < end ? e->offset + e->count : end;
      if (to > from) f->pending[k] += to - from;
    }
  }
}

/* What the reducer does with buckets, one thread in the place of its two. */
static void reduce(const fixture *f) {
  char *memory = fn_device_gradients_memory(f->gradients);
  const size_t size = fn_dtype_size(type_of_gradients);
  for (int k = 0; k < BUCKETS; k++) {
    const int64_t start = bucket_start(f, k), count = bucket_start(f, k + 1) - start;
    assert_true(fn_device_gradients_arrived(f->gradients, k, false));
    must(fn_recorder_host(f->recorder, "sum over ranks", memory + (size_t)start * size,
                          (size_t)count * size, true));
    fn_device_gradients_return(f->gradients, start, count);
  }
  must(fn_device_gradients_join(f->gradients));
}

/* Steps that the host waits for nowhere, for its waits stand in for events; then steps of a job;
 * and two with no evaluation between them, which waits for the copy of the judgement, too. */
static void train(fixture *f) {
  fn_judgement judgement;
  for (int s = 0; s < 2 * STEPS + 2; s++) {
    feed(f->program);
    begin(f);
    fn_program_on_gradient(f->program, s >= STEPS ? ready : NULL, f);
    must(fn_program_run(f->program, NULL));
    if (s >= STEPS) reduce(f);
    const fn_step_facts facts = {.loss = fn_program_output_place(f->program, "loss"),
                                 .loss_scale = 1};
    must(fn_optimizer_step_judged(f->optimizer, 1e-3, f->judge, &facts));
    if (s >= 2 * STEPS) continue;
    feed(f->evaluation);
    must(fn_program_run(f->evaluation, NULL));
  }
  must(fn_judge_read(f->judge, &judgement));
  fn_program_output_data(f->evaluation, "output");
}

static int setup(void **state) {
  static fixture f;
  static fn_run run;
  memset(&f, 0, sizeof f);
  run.optimizer.name = "adam";
  run.optimizer.eps = 1e-8;
  run.optimizer.betas[0] = 0.9;
  run.optimizer.betas[1] = 0.999;
  must(fn_recorder_create("assumed", 9, 0, &f.recorder));
  make_programs(&f);
  must(fn_optimizer_create(&run, f.parameters, &f.optimizer));
  must(fn_judge_create(f.parameters, fn_optimizer_obey, f.optimizer, false, &f.judge));
  must(fn_device_gradients_create(f.parameters, BUCKETS, false, type_of_gradients, &f.gradients));
  train(&f);
  *state = &f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  fn_device_gradients_destroy(f->gradients);
  fn_judge_destroy(f->judge);
  fn_optimizer_destroy(f->optimizer);
  fn_program_destroy(f->evaluation);
  fn_program_destroy(f->program);
  fn_parameters_destroy(f->parameters);
  fn_graph_destroy(f->graph);
  fn_recorder_destroy(f->recorder);
  return 0;
}

static void accesses_are_ordered(void **state) {
  const fixture *f = *state;
  must(fn_recorder_check(f->recorder, -1));
  must(fn_program_check_plan(f->program));
  must(fn_program_check_plan(f->evaluation));
}

static void every_event_is_needed(void **state) {
  const fixture *f = *state;
  fn_recorder_counts counts;
  fn_recorder_count(f->recorder, &counts);
  int needed = 0;
  for (int e = 0; e < counts.events; e++) {
    if (!fn_recorder_orders(f->recorder, e)) continue; // the host alone waits for it
    if (fn_recorder_check(f->recorder, e) == FN_OK) fail_msg("event %d orders nothing", e);
    assert_non_null(strstr(fn_error_message(), "race: nothing orders"));
    fn_error_clear();
    needed++;
  }
  // Two inputs and the context of two programs through two pairs of buffers, what the host reads,
  // what was read of the arena, buckets there and back, the judgement and its copy.
  assert_in_range(needed, 12 + BUCKETS + 1 + 2, counts.events);
}

/* Two kernels that a plan without order would let meet. */
static void finds_a_planted_race(void **state) {
  (void)state;
  fn_recorder *r;
  must(fn_recorder_create("assumed", 9, 0, &r));
  fn_device *d = fn_recorder_device(r);
  void *memory, *pinned;
  fn_event *event;
  must(d->allocate(d, 100, &memory));
  must(d->allocate_pinned(d, 100, &pinned));
  must(d->event_create(d, &event));
  must(d->copy(d, FN_STREAM_IN, memory, pinned, 50, FN_COPY_TO_DEVICE));
  must(fn_recorder_kernel(r, "next to it", &(fn_access){(char *)memory + 50, 50, false}, 1));
  must(fn_recorder_check(r, -1));
  must(d->wait(d, FN_STREAM_COMPUTE, event)); // before the record: orders nothing
  must(d->record(d, FN_STREAM_IN, event));
  must(fn_recorder_kernel(r, "on it", &(fn_access){(char *)memory + 49, 1, false}, 1));
  assert_int_equal(fn_recorder_check(r, -1), FN_ERR_INTERNAL);
  assert_non_null(strstr(fn_error_message(), "on it"));
  d->event_destroy(d, event);
  d->release(d, memory);
  d->release_pinned(d, pinned);
  fn_recorder_destroy(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(accesses_are_ordered),
      cmocka_unit_test(every_event_is_needed),
      cmocka_unit_test(finds_a_planted_race),
  };
  type_of_gradients = FN_F32;
  const int failed = cmocka_run_group_tests(tests, setup, teardown);
  type_of_gradients = FN_BF16;
  return failed + cmocka_run_group_tests(tests, setup, teardown);
}
