/* The emulated device: the programs, kernels, grids, streams and copies of the cuda backend on the
 * host, as late and in as bad an order as a device may run them. See emulated.h. */
#include "backend/gpu/emulated.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backends.h"
#include "backend/gpu/emulated_library.h"
#include "backend/gpu/flat.h"
#include "base/random.h"

static struct {
  pthread_mutex_t lock; // `passed` comes from other threads
  fn_emulated_queue stream[FN_STREAM_COUNT];
  fn_emulated_queue *capture; /**< where the compute stream's operations go; NULL: run */
  fn_random order;
  int64_t performed, lost_after; /**< operations; 0: never lost */
  fn_status status;              /**< first failure: sticks */
  char message[1024];
  bool opened;
  bool replays;    /**< a recording's operations are being put */
  FILE *trace;     /**< of FIELDNET_EMULATED_TRACE; NULL: none */
  double *partial; /**< scratch of sum_squares, allocated at its first call */
} e = {.lock = PTHREAD_MUTEX_INITIALIZER};

/** What every call returns from the first failure on. */
static fn_status state(void) {
  return e.status == FN_OK ? FN_OK : fn_error_set(e.status, __FILE__, __LINE__, "%s", e.message);
}

static fn_status stick(fn_status status) {
  if (status == FN_OK || e.status != FN_OK) return status;
  e.status = status;
  strncpy(e.message, fn_error_message(), sizeof e.message - 1);
  return status;
}

/* ---- running what is queued --------------------------------------------------------------------
 */

static bool may_run(const fn_emulated_queue *queue) {
  if (queue->first == queue->count) return false;
  const fn_emulated_operation *next = &queue->operation[queue->first];
  return next->kind != FN_EMULATED_WAIT || next->event->passed >= next->record;
}

static fn_status perform_next(fn_emulated_queue *queue) {
  fn_emulated_operation *o = &queue->operation[queue->first++];
  e.performed++;
  FN_CHECK(e.lost_after == 0 || e.performed <= e.lost_after, FN_ERR_DEVICE,
           "the device does not answer any more (emulated, at operation %lld); look at the log of "
           "the node, then start again: the run goes on from its last state",
           (long long)e.performed);
  const fn_status status = fn_emulated_perform(&fn_emulated_platform, o);
  free(o->args);
  o->args = NULL;
  return status;
}

/** One operation of a stream drawn among those that can go on; *any false when none can. */
static fn_status step(bool *any) {
  int ready[FN_STREAM_COUNT], count = 0;
  for (int s = 0; s < FN_STREAM_COUNT; s++)
    if (may_run(&e.stream[s])) ready[count++] = s;
  *any = count > 0;
  if (count == 0) return FN_OK;
  return stick(perform_next(&e.stream[ready[fn_random_below(&e.order, (uint64_t)count)]]));
}

/** Run until *done says so. */
static fn_status run_until(bool (*done)(const void *what), const void *what) {
  FN_TRY(state());
  FN_CHECK(!e.capture, FN_ERR_INTERNAL, "the host waits while a run is being recorded");
  const fn_emulated_queue *compute = &e.stream[FN_STREAM_COMPUTE];
  const int64_t before = e.performed;
  while (!done(what)) {
    bool any;
    FN_TRY(step(&any));
    if (!any)
      return stick(fn_error_set(FN_ERR_INTERNAL, __FILE__, __LINE__,
                                "streams wait for each other for ever"));
  }
  if (e.trace && e.performed > before)
    fprintf(e.trace, "wait %lld %lld\n", (long long)(e.performed - before),
            (long long)(compute->count - compute->first));
  return stick(fn_emulated_guards());
}

static bool is_empty(const void *queue) {
  const fn_emulated_queue *q = queue;
  return q->first == q->count;
}

static bool is_passed(const void *event) {
  return ((const fn_event *)event)->passed >= ((const fn_event *)event)->recorded;
}

/* ---- the interface -----------------------------------------------------------------------------
 */

static fn_status locked(fn_status (*work)(void *), void *what) {
  pthread_mutex_lock(&e.lock);
  const fn_status status = work(what);
  pthread_mutex_unlock(&e.lock);
  return status;
}

/** An operation on its way into a stream. */
typedef struct order {
  fn_stream stream;
  fn_emulated_operation operation;
} order;

static void trace(const fn_emulated_operation *o) {
  if (o->kind == FN_EMULATED_KERNEL && !e.replays) fprintf(e.trace, "launch %s\n", o->kernel->name);
  if (o->kind == FN_EMULATED_CALL && !e.replays) fprintf(e.trace, "launch a library call\n");
  if (o->kind == FN_EMULATED_KERNEL && o->kernel->id == FN_GPU_update) fprintf(e.trace, "update\n");
}

static fn_status enqueue(void *what) {
  order *o = what;
  FN_TRY(state());
  const bool captured = e.capture && o->stream == FN_STREAM_COMPUTE;
  fn_emulated_operation *operation = &o->operation;
  // What is recorded happens at its replays: events count then.
  if (operation->kind == FN_EMULATED_RECORD && !captured)
    operation->record = ++operation->event->recorded;
  if (operation->kind == FN_EMULATED_WAIT) operation->record = operation->event->recorded;
  if (e.trace && !captured) trace(operation);
  return fn_emulated_put(captured ? e.capture : &e.stream[o->stream], operation);
}

static fn_status put(fn_stream stream, const fn_emulated_operation *operation) {
  order o = {stream, *operation};
  return locked(enqueue, &o);
}

typedef struct request {
  fn_emulated_space space;
  size_t bytes;
  void *memory;
} request;

static fn_status do_allocate(void *what) {
  request *r = what;
  FN_TRY(state());
  return fn_emulated_allocate(r->space, r->bytes, &r->memory);
}

/** A device waits for all its work before memory is released. */
static fn_status do_release(void *what) {
  request *r = what;
  for (int s = 0; s < FN_STREAM_COUNT && e.status == FN_OK; s++)
    (void)run_until(is_empty, &e.stream[s]);
  return stick(fn_emulated_release(r->space, r->memory));
}

static fn_status allocate_in(fn_emulated_space space, size_t bytes, void **memory) {
  request r = {space, bytes, NULL};
  const fn_status status = locked(do_allocate, &r);
  *memory = r.memory;
  return status;
}

static fn_status allocate(fn_device *device, size_t bytes, void **memory) {
  (void)device;
  return allocate_in(FN_EMULATED_DEVICE, bytes, memory);
}
static void release(fn_device *device, void *memory) {
  (void)device;
  (void)locked(do_release, &(request){FN_EMULATED_DEVICE, 0, memory});
}
static fn_status allocate_pinned(fn_device *device, size_t bytes, void **memory) {
  (void)device;
  return allocate_in(FN_EMULATED_PINNED, bytes, memory);
}
static void release_pinned(fn_device *device, void *memory) {
  (void)device;
  (void)locked(do_release, &(request){FN_EMULATED_PINNED, 0, memory});
}

static fn_status copy(fn_device *device, fn_stream stream, void *to, const void *from, size_t bytes,
                      fn_copy direction) {
  (void)device;
  const bool to_host = direction == FN_COPY_TO_HOST, to_device = direction == FN_COPY_TO_DEVICE;
  FN_TRY(fn_emulated_inside(to_host ? FN_EMULATED_PINNED : FN_EMULATED_DEVICE, to, bytes,
                            "target of a copy"));
  FN_TRY(fn_emulated_inside(to_device ? FN_EMULATED_PINNED : FN_EMULATED_DEVICE, from, bytes,
                            "source of a copy"));
  return put(stream,
             &(fn_emulated_operation){
                 .kind = FN_EMULATED_COPY, .to = to, .from = from, .count = (int64_t)bytes});
}

static fn_status clear(fn_device *device, fn_stream stream, void *memory, size_t bytes) {
  (void)device;
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, memory, bytes, "memory to be cleared"));
  return put(stream, &(fn_emulated_operation){
                         .kind = FN_EMULATED_CLEAR, .to = memory, .count = (int64_t)bytes});
}

static fn_status event_create(fn_device *device, fn_event **event) {
  (void)device;
  *event = calloc(1, sizeof **event);
  FN_CHECK(*event, FN_ERR_MEMORY, "out of memory");
  return FN_OK;
}

/** The host is the device: its time is the host's. */
static fn_status elapsed(fn_device *device, fn_event *from, fn_event *to, double *seconds) {
  (void)device;
  FN_CHECK(from->passed > 0 && to->passed > 0 && is_passed(from) && is_passed(to), FN_ERR_INTERNAL,
           "the time of an event that was not passed");
  *seconds = to->time - from->time;
  return FN_OK;
}

static fn_status do_destroy_event(void *event) {
  // Operations that are still queued may name it.
  for (int s = 0; s < FN_STREAM_COUNT && e.status == FN_OK; s++)
    (void)run_until(is_empty, &e.stream[s]);
  free(event);
  return FN_OK;
}
static void event_destroy(fn_device *device, fn_event *event) {
  (void)device;
  (void)locked(do_destroy_event, event);
}

static fn_status record(fn_device *device, fn_stream stream, fn_event *event) {
  (void)device;
  return put(stream, &(fn_emulated_operation){.kind = FN_EMULATED_RECORD, .event = event});
}
static fn_status wait(fn_device *device, fn_stream stream, fn_event *event) {
  (void)device;
  return put(stream, &(fn_emulated_operation){.kind = FN_EMULATED_WAIT, .event = event});
}

/** Time goes by while somebody asks: a few operations are run. */
static fn_status do_ask(void *event) {
  bool any = true;
  FN_TRY(state());
  for (uint64_t n = fn_random_below(&e.order, 16); n > 0 && any && !e.capture; n--)
    FN_TRY(step(&any));
  (void)event;
  return FN_OK;
}
static fn_status passed(fn_device *device, fn_event *event, bool *yes) {
  (void)device;
  *yes = false;
  FN_TRY(locked(do_ask, event));
  pthread_mutex_lock(&e.lock);
  *yes = is_passed(event);
  pthread_mutex_unlock(&e.lock);
  return FN_OK;
}

static fn_status do_synchronize_event(void *event) {
  return run_until(is_passed, event);
}
static fn_status synchronize_event(fn_device *device, fn_event *event) {
  (void)device;
  return locked(do_synchronize_event, event);
}
static fn_status do_synchronize(void *queue) {
  return run_until(is_empty, queue);
}
static fn_status synchronize(fn_device *device, fn_stream stream) {
  (void)device;
  return locked(do_synchronize, &e.stream[stream]);
}

/* ---- kernels outside of programs ---------------------------------------------------------------
 */

static fn_status put_kernel(fn_stream stream, int id, int64_t blocks, const void *args) {
  return put(stream, &(fn_emulated_operation){.kind = FN_EMULATED_KERNEL,
                                              .kernel = fn_gpu_kernel_at(id),
                                              .count = blocks,
                                              .threads = FN_GPU_THREADS,
                                              .args = (void *)args});
}

static fn_status inside(const void *memory, int64_t count, const char *what) {
  return fn_emulated_inside(FN_EMULATED_DEVICE, memory, (size_t)count * sizeof(float), what);
}

static fn_status add_scaled(fn_device *device, fn_stream stream, float *sum, const float *x,
                            float keep, float factor, int64_t count) {
  (void)device;
  FN_TRY(inside(sum, count, "sum"));
  FN_TRY(inside(x, count, "what is added"));
  const fn_add_scaled_args args = fn_gpu_add_scaled_args(sum, x, keep, factor, count);
  return put_kernel(stream, FN_GPU_add_scaled, fn_gpu_flat_blocks(count), &args);
}

static fn_status judged(const fn_judgement *judgement) {
  return fn_emulated_inside(FN_EMULATED_DEVICE, judgement, sizeof *judgement, "judgement");
}

static fn_status add_scaled_if(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                               fn_step_verdict verdict, float *sum, const float *x, float keep,
                               float factor, int64_t count) {
  (void)device;
  FN_TRY(judged(judgement));
  FN_TRY(inside(sum, count, "sum"));
  FN_TRY(inside(x, count, "what is added"));
  fn_add_scaled_args args = fn_gpu_add_scaled_args(sum, x, keep, factor, count);
  args.judgement = judgement;
  args.verdict = verdict;
  return put_kernel(stream, FN_GPU_add_scaled, fn_gpu_flat_blocks(count), &args);
}

static fn_status copy_if(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                         fn_step_verdict verdict, float *y, const float *x, int64_t count) {
  (void)device;
  FN_TRY(judged(judgement));
  FN_TRY(inside(y, count, "copy"));
  FN_TRY(inside(x, count, "what is copied"));
  fn_scale_args args = fn_gpu_scale_args(y, FN_F32, x, FN_F32, 1, count);
  args.judgement = judgement;
  args.verdict = verdict;
  return put_kernel(stream, FN_GPU_scale, fn_gpu_flat_blocks(count), &args);
}

static fn_status judge(fn_device *device, fn_stream stream, const fn_step_facts *facts,
                       const float *gradient, int64_t count, fn_judgement *judgement) {
  (void)device;
  FN_TRY(judged(judgement));
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, facts, sizeof *facts, "facts"));
  FN_TRY(inside(gradient, count, "gradients"));
  return put_kernel(stream, FN_GPU_judge, 1, &(fn_judge_args){facts, gradient, count, judgement});
}

static fn_status to_bf16(fn_device *device, fn_stream stream, uint16_t *y, const float *x,
                         float factor, int64_t count) {
  (void)device;
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, y, (size_t)count * sizeof *y, "rounded numbers"));
  FN_TRY(inside(x, count, "what is rounded"));
  const fn_scale_args args = fn_gpu_scale_args(y, FN_BF16, x, FN_F32, factor, count);
  return put_kernel(stream, FN_GPU_scale, fn_gpu_flat_blocks(count), &args);
}

static fn_status from_bf16(fn_device *device, fn_stream stream, float *y, const uint16_t *x,
                           int64_t count) {
  (void)device;
  FN_TRY(inside(y, count, "float32 numbers"));
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, x, (size_t)count * sizeof *x, "rounded numbers"));
  const fn_scale_args args = fn_gpu_scale_args(y, FN_F32, x, FN_BF16, 1, count);
  return put_kernel(stream, FN_GPU_scale, fn_gpu_flat_blocks(count), &args);
}

static fn_status sum_squares(fn_device *device, fn_stream stream, const float *x, int64_t count,
                             double *result) {
  FN_TRY(inside(x, count, "squares"));
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, result, sizeof *result, "sum of squares"));
  if (!e.partial)
    FN_TRY(device->allocate(device, FN_SQUARES_BLOCKS * sizeof(double), (void **)&e.partial));
  const fn_sum_squares_args args = fn_gpu_sum_squares_args(x, count, e.partial);
  FN_TRY(put_kernel(stream, FN_GPU_sum_squares, fn_gpu_squares_blocks(count), &args));
  const fn_sum_squares_finish_args end = fn_gpu_sum_squares_finish_args(count, e.partial, result);
  return put_kernel(stream, FN_GPU_sum_squares_finish, 1, &end);
}

static fn_status update(fn_device *device, fn_stream stream, const fn_update *u) {
  (void)device;
  FN_TRY(inside(u->weight, u->count, "weights"));
  FN_TRY(inside(u->gradient, u->count, "gradients"));
  if (u->judgement) FN_TRY(judged(u->judgement));
  if (u->factors)
    FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, u->factors, sizeof *u->factors, "factors"));
  for (int s = 0; s < 3; s++)
    if (u->state[s]) FN_TRY(inside(u->state[s], u->count, "state of the optimizer"));
  return put_kernel(stream, FN_GPU_update, fn_gpu_flat_blocks(u->count), u);
}

static fn_status convert(fn_device *device, const fn_raw_field *field, const fn_tensor *y,
                         int64_t n, int64_t at) {
  (void)device;
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, field->data, fn_raw_field_bytes(field),
                            "numbers of a file"));
  if (field->own)
    FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, field->own, fn_raw_own_bytes(field),
                              "what samples have of their own"));
  FN_TRY(fn_emulated_inside(FN_EMULATED_DEVICE, y->data, 1, "input of a network"));
  fn_convert_args args;
  for (int64_t first = 0; first < field->channels; first += FN_CONVERT_CHANNELS) {
    FN_TRY(fn_gpu_convert_args(field, first, y, n, at, &args));
    FN_TRY(put_kernel(FN_STREAM_COMPUTE, FN_GPU_convert, fn_gpu_flat_blocks(args.count), &args));
  }
  return FN_OK;
}

/* ---- recordings --------------------------------------------------------------------------------
 */

static fn_status do_capture_begin(void *queue) {
  FN_TRY(state());
  FN_CHECK(!e.capture, FN_ERR_INTERNAL, "a run is being recorded already");
  e.capture = queue;
  return FN_OK;
}
static fn_status capture_begin(fn_device *device) {
  (void)device;
  fn_emulated_queue *queue = calloc(1, sizeof *queue);
  FN_CHECK(queue, FN_ERR_MEMORY, "out of memory");
  const fn_status status = locked(do_capture_begin, queue);
  if (status != FN_OK) free(queue);
  return status;
}

static fn_status capture_end(fn_device *device, void **recording) {
  (void)device;
  pthread_mutex_lock(&e.lock);
  *recording = e.capture;
  e.capture = NULL;
  const fn_status status = state();
  pthread_mutex_unlock(&e.lock);
  return status;
}

/** A replay makes records of its own; what was waited for inside is what was recorded inside
 * before, or the last record outside. */
static fn_status do_replay(void *recording) {
  const fn_emulated_queue *queue = recording;
  fn_status status = FN_OK;
  if (e.trace) fprintf(e.trace, "replay %lld\n", (long long)queue->count);
  e.replays = true;
  for (int64_t i = 0; i < queue->count && status == FN_OK; i++) {
    order o = {FN_STREAM_COMPUTE, queue->operation[i]};
    status = enqueue(&o);
  }
  e.replays = false;
  return status;
}
static fn_status replay(fn_device *device, void *recording) {
  (void)device;
  return locked(do_replay, recording);
}

static void recording_destroy(fn_device *device, void *recording) {
  (void)device;
  fn_emulated_queue_clear(recording);
  free(recording);
}

/* ---- kernels and calls -------------------------------------------------------------------------
 */

static fn_status launch(fn_gpu_platform *platform, const fn_gpu_kernel *kernel, int64_t blocks,
                        int threads, const void *args) {
  (void)platform;
  return put(FN_STREAM_COMPUTE, &(fn_emulated_operation){.kind = FN_EMULATED_KERNEL,
                                                         .kernel = kernel,
                                                         .count = blocks,
                                                         .threads = threads,
                                                         .args = (void *)args});
}

static fn_status call(fn_gpu_platform *platform, const fn_gpu_call *what,
                      const fn_gpu_addresses *at) {
  (void)platform;
  return put(FN_STREAM_COMPUTE,
             &(fn_emulated_operation){.kind = FN_EMULATED_CALL, .call = what, .at = *at});
}

fn_gpu_platform fn_emulated_platform = {
    .device = {.info = {.name = "emulated device", .index = -1},
               .allocate = allocate,
               .release = release,
               .allocate_pinned = allocate_pinned,
               .release_pinned = release_pinned,
               .copy = copy,
               .clear = clear,
               .event_create = event_create,
               .event_destroy = event_destroy,
               .record = record,
               .wait = wait,
               .passed = passed,
               .synchronize_event = synchronize_event,
               .synchronize = synchronize,
               .timer_create = event_create,
               .elapsed = elapsed,
               .add_scaled = add_scaled,
               .to_bf16 = to_bf16,
               .from_bf16 = from_bf16,
               .sum_squares = sum_squares,
               .update = update,
               .judge = judge,
               .add_scaled_if = add_scaled_if,
               .copy_if = copy_if,
               .convert = convert,
               .capture_begin = capture_begin,
               .capture_end = capture_end,
               .replay = replay,
               .recording_destroy = recording_destroy},
    .launch = launch,
    .prepare = fn_emulated_call_prepare,
    .run = call,
    .release = fn_emulated_call_release,
};

/* ---- the backend -------------------------------------------------------------------------------
 */

static fn_status prepare(const fn_backend *backend, fn_kernel *kernel) {
  return fn_gpu_prepare(&fn_emulated_platform, backend, kernel);
}

static fn_status prepare_reorder(const fn_backend *backend, fn_kernel *kernel) {
  kernel->backend = backend->name;
  return fn_gpu_prepare_reorder(&fn_emulated_platform, kernel);
}

static fn_status number(const char *variable, long long fallback, long long *value) {
  const char *text = getenv(variable);
  *value = fallback;
  if (!text || !*text) return FN_OK;
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  FN_CHECK(errno == 0 && *end == '\0' && *value >= 0, FN_ERR_CONFIG,
           "environment variable %s: expected a number from 0 on, found '%s'", variable, text);
  return FN_OK;
}

static fn_status open_device(const fn_backend *backend, const fn_device_choice *choice,
                             fn_device **device) {
  (void)backend;
  *device = &fn_emulated_platform.device;
  if (e.opened) return FN_OK;
  long long seed, memory, devices, lost;
  FN_TRY(number("FIELDNET_EMULATED_ORDER", 0, &seed));
  FN_TRY(number("FIELDNET_EMULATED_MEMORY", 0, &memory));
  FN_TRY(number("FIELDNET_EMULATED_LOST", 0, &lost));
  FN_TRY(number("FIELDNET_EMULATED_DEVICES", choice->node_size, &devices));
  int index;
  FN_TRY(fn_gpu_choose_device(choice, (int)devices, &index));
  const char *trace = getenv("FIELDNET_EMULATED_TRACE");
  if (trace && *trace) {
    e.trace = fopen(trace, "w");
    FN_CHECK(e.trace, FN_ERR_CONFIG, "%s: cannot be written: %s", trace, strerror(errno));
    setvbuf(e.trace, NULL, _IOLBF, 0);
  }
  fn_gpu_executor_shuffle((uint64_t)seed);
  e.order = fn_random_stream((uint64_t)seed, FN_RANDOM_TEST, 0, 0);
  e.lost_after = lost;
  fn_emulated_limit((size_t)memory);
  (*device)->info.index = index;
  (*device)->info.memory = (size_t)memory;
  e.opened = true;
  return FN_OK;
}

const fn_backend fn_backend_emulated = {
    .name = "emulated",
    .supports = fn_gpu_supports,
    .plan = fn_gpu_plan,
    .prepare = prepare,
    .prepare_reorder = prepare_reorder,
    .channels_last = true,
    .device = open_device,
};
