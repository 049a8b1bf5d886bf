#include "graph/recorder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HOST = FN_STREAM_COUNT, ACTORS = FN_STREAM_COUNT + 1 };

typedef enum kind { WORK, RECORD, WAIT, JOIN } kind;

typedef struct operation {
  kind kind;
  int actor;        /**< stream or HOST */
  int event;        /**< of RECORD and WAIT; stream of JOIN */
  int first, count; /**< in the list of accesses */
  char name[40];
} operation;

struct fn_event {
  int number;
};

typedef struct block {
  void *memory;
  size_t bytes;
} block;

struct fn_recorder {
  fn_device device; // first member
  operation *operation;
  int operations, operation_capacity;
  fn_access *access;
  int accesses, access_capacity;
  block *block;
  int blocks, block_capacity;
  int events;
  size_t device_bytes, pinned_bytes, device_most, pinned_most;
};

static fn_recorder *recorder_of(fn_device *device) {
  return (fn_recorder *)device;
}

/* ---- writing down ------------------------------------------------------------------------------
 */

static fn_status grow(void **array, int count, int *capacity, size_t item) {
  if (count < *capacity) return FN_OK;
  const int wanted = *capacity > 0 ? 2 * *capacity : 256;
  void *more = realloc(*array, (size_t)wanted * item);
  FN_CHECK(more, FN_ERR_MEMORY, "out of memory");
  *array = more;
  *capacity = wanted;
  return FN_OK;
}

static fn_status add(fn_recorder *r, kind what, int actor, int event, const char *name,
                     const fn_access *access, int count) {
  FN_TRY(grow((void **)&r->operation, r->operations, &r->operation_capacity, sizeof(operation)));
  operation *o = &r->operation[r->operations++];
  *o = (operation){.kind = what, .actor = actor, .event = event, .first = r->accesses};
  snprintf(o->name, sizeof o->name, "%s", name);
  for (int i = 0; i < count; i++) {
    if (!access[i].start || access[i].bytes == 0) continue;
    FN_TRY(grow((void **)&r->access, r->accesses, &r->access_capacity, sizeof(fn_access)));
    r->access[r->accesses++] = access[i];
    o->count++;
  }
  return FN_OK;
}

fn_status fn_recorder_kernel(fn_recorder *recorder, const char *name, const fn_access *access,
                             int count) {
  return add(recorder, WORK, FN_STREAM_COMPUTE, -1, name, access, count);
}

fn_status fn_recorder_host(fn_recorder *recorder, const char *name, const void *start, size_t bytes,
                           bool writes) {
  return add(recorder, WORK, HOST, -1, name, &(fn_access){start, bytes, writes}, 1);
}

/* ---- the device --------------------------------------------------------------------------------
 */

static fn_status allocate(fn_device *device, size_t bytes, void **memory) {
  fn_recorder *r = recorder_of(device);
  FN_TRY(grow((void **)&r->block, r->blocks, &r->block_capacity, sizeof(block)));
  // Addresses without memory behind them: whoever touches them is stopped.
  void *place = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  FN_CHECK(place != MAP_FAILED, FN_ERR_MEMORY, "no addresses for %zu bytes", bytes);
  r->block[r->blocks++] = (block){place, bytes};
  r->device_bytes += bytes;
  if (r->device_bytes > r->device_most) r->device_most = r->device_bytes;
  *memory = place;
  return FN_OK;
}

static void forget(fn_recorder *r, int b) {
  munmap(r->block[b].memory, r->block[b].bytes);
  r->device_bytes -= r->block[b].bytes;
  r->block[b] = r->block[--r->blocks];
}

static void release(fn_device *device, void *memory) {
  fn_recorder *r = recorder_of(device);
  for (int b = 0; b < r->blocks; b++)
    if (r->block[b].memory == memory) {
      forget(r, b);
      return;
    }
}

static fn_status allocate_pinned(fn_device *device, size_t bytes, void **memory) {
  fn_recorder *r = recorder_of(device);
  *memory = calloc(1, bytes + 1);
  FN_CHECK(*memory, FN_ERR_MEMORY, "no memory for %zu bytes", bytes);
  r->pinned_bytes += bytes;
  if (r->pinned_bytes > r->pinned_most) r->pinned_most = r->pinned_bytes;
  return FN_OK;
}
static void release_pinned(fn_device *device, void *memory) {
  (void)device;
  free(memory);
}

static fn_status copy(fn_device *device, fn_stream stream, void *to, const void *from, size_t bytes,
                      fn_copy direction) {
  static const char *const names[] = {"copy to the device", "copy to the host", "copy within"};
  return add(recorder_of(device), WORK, (int)stream, -1, names[direction],
             (fn_access[]){{to, bytes, true}, {from, bytes, false}}, 2);
}
static fn_status clear(fn_device *device, fn_stream stream, void *memory, size_t bytes) {
  return add(recorder_of(device), WORK, (int)stream, -1, "clear", &(fn_access){memory, bytes, true},
             1);
}

static fn_status event_create(fn_device *device, fn_event **event) {
  *event = calloc(1, sizeof **event);
  FN_CHECK(*event, FN_ERR_MEMORY, "out of memory");
  (*event)->number = recorder_of(device)->events++;
  return FN_OK;
}
static void event_destroy(fn_device *device, fn_event *event) {
  (void)device;
  free(event);
}
static fn_status record(fn_device *device, fn_stream stream, fn_event *event) {
  return add(recorder_of(device), RECORD, (int)stream, event->number, "record", NULL, 0);
}
static fn_status wait(fn_device *device, fn_stream stream, fn_event *event) {
  return add(recorder_of(device), WAIT, (int)stream, event->number, "wait", NULL, 0);
}
static fn_status synchronize_event(fn_device *device, fn_event *event) {
  return add(recorder_of(device), WAIT, HOST, event->number, "wait", NULL, 0);
}
static fn_status passed(fn_device *device, fn_event *event, bool *yes) {
  *yes = true;
  return synchronize_event(device, event);
}
static fn_status synchronize(fn_device *device, fn_stream stream) {
  return add(recorder_of(device), JOIN, HOST, (int)stream, "join", NULL, 0);
}

static fn_status add_scaled(fn_device *device, fn_stream stream, float *sum, const float *x,
                            float keep, float factor, int64_t count) {
  (void)keep;
  (void)factor;
  const size_t bytes = (size_t)count * sizeof(float);
  return add(recorder_of(device), WORK, (int)stream, -1, "add_scaled",
             (fn_access[]){{sum, bytes, true}, {x, bytes, false}}, 2);
}
static fn_status to_bf16(fn_device *device, fn_stream stream, uint16_t *y, const float *x,
                         float factor, int64_t count) {
  (void)factor;
  return add(
      recorder_of(device), WORK, (int)stream, -1, "to_bf16",
      (fn_access[]){{y, (size_t)count * sizeof *y, true}, {x, (size_t)count * sizeof *x, false}},
      2);
}
static fn_status from_bf16(fn_device *device, fn_stream stream, float *y, const uint16_t *x,
                           int64_t count) {
  return add(
      recorder_of(device), WORK, (int)stream, -1, "from_bf16",
      (fn_access[]){{y, (size_t)count * sizeof *y, true}, {x, (size_t)count * sizeof *x, false}},
      2);
}
static fn_status sum_squares(fn_device *device, fn_stream stream, const float *x, int64_t count,
                             double *result) {
  return add(recorder_of(device), WORK, (int)stream, -1, "sum_squares",
             (fn_access[]){{result, sizeof *result, true}, {x, (size_t)count * sizeof *x, false}},
             2);
}
static fn_status judge(fn_device *device, fn_stream stream, const fn_step_facts *facts,
                       const float *gradient, int64_t count, fn_judgement *judgement) {
  return add(recorder_of(device), WORK, (int)stream, -1, "judge",
             (fn_access[]){{judgement, sizeof *judgement, true},
                           {facts, sizeof *facts, false},
                           {gradient, (size_t)count * sizeof(float), false}},
             3);
}
static fn_status add_scaled_if(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                               fn_step_verdict verdict, float *sum, const float *x, float keep,
                               float factor, int64_t count) {
  (void)verdict;
  (void)keep;
  (void)factor;
  const size_t bytes = (size_t)count * sizeof(float);
  return add(
      recorder_of(device), WORK, (int)stream, -1, "add_scaled_if",
      (fn_access[]){{sum, bytes, true}, {x, bytes, false}, {judgement, sizeof *judgement, false}},
      3);
}
static fn_status copy_if(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                         fn_step_verdict verdict, float *y, const float *x, int64_t count) {
  return add_scaled_if(device, stream, judgement, verdict, y, x, 0, 1, count);
}
static fn_status update(fn_device *device, fn_stream stream, const fn_update *u) {
  const size_t bytes = (size_t)u->count * sizeof(float);
  return add(recorder_of(device), WORK, (int)stream, -1, "update",
             (fn_access[]){{u->weight, bytes, true},
                           {u->gradient, bytes, false},
                           {u->state[0], bytes, true},
                           {u->state[1], bytes, true},
                           {u->state[2], bytes, true},
                           {u->judgement, sizeof *u->judgement, false},
                           {u->factors, sizeof *u->factors, false}},
             7);
}

static fn_status convert(fn_device *device, const fn_raw_field *field, const fn_tensor *y,
                         int64_t n, int64_t at) {
  int64_t cells = 1;
  for (int d = 0; d < field->spatial; d++)
    cells *= field->extent[d];
  // Where channels lie next to each other, all of the rows.
  const bool plain = y->block <= 1;
  const int64_t first = n * y->batch_stride + (plain ? at * cells : 0),
                more = field->samples > 1 ? field->samples - 1 : 0,
                count =
                    more * y->batch_stride + (plain ? field->channels * cells : y->batch_stride);
  const size_t item = fn_dtype_size(y->dtype);
  return fn_recorder_kernel(
      recorder_of(device), "convert",
      (fn_access[]){{(char *)y->data + (size_t)first * item, (size_t)count * item, true},
                    {field->data, fn_raw_field_bytes(field), false},
                    {field->own, fn_raw_own_bytes(field), false}},
      3);
}

fn_status fn_recorder_create(const char *name, int major, int minor, fn_recorder **recorder) {
  fn_recorder *r = *recorder = calloc(1, sizeof *r);
  FN_CHECK(r, FN_ERR_MEMORY, "out of memory");
  r->device = (fn_device){
      .info = {.index = -1, .compute_major = major, .compute_minor = minor},
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
      .add_scaled = add_scaled,
      .to_bf16 = to_bf16,
      .from_bf16 = from_bf16,
      .sum_squares = sum_squares,
      .update = update,
      .judge = judge,
      .add_scaled_if = add_scaled_if,
      .copy_if = copy_if,
      .convert = convert,
  };
  snprintf(r->device.info.name, sizeof r->device.info.name, "%s", name);
  return FN_OK;
}

void fn_recorder_destroy(fn_recorder *r) {
  if (!r) return;
  while (r->blocks > 0)
    forget(r, r->blocks - 1);
  free(r->operation);
  free(r->access);
  free(r->block);
  free(r);
}

fn_device *fn_recorder_device(fn_recorder *recorder) {
  return &recorder->device;
}

void fn_recorder_count(const fn_recorder *r, fn_recorder_counts *counts) {
  *counts = (fn_recorder_counts){
      .events = r->events, .device_bytes = r->device_most, .pinned_bytes = r->pinned_most};
  for (int i = 0; i < r->operations; i++) {
    const operation *o = &r->operation[i];
    if (o->kind == WORK && o->actor != HOST) counts->operations[o->actor]++;
    if (o->kind == RECORD) counts->records++;
    if (o->kind == WAIT && o->actor != HOST) counts->waits++;
    if ((o->kind == WAIT || o->kind == JOIN) && o->actor == HOST) counts->host_waits++;
  }
}

bool fn_recorder_orders(const fn_recorder *r, int event) {
  for (int i = 0; i < r->operations; i++)
    if (r->operation[i].kind == WAIT && r->operation[i].actor != HOST &&
        r->operation[i].event == event)
      return true;
  return false;
}

/* ---- races -------------------------------------------------------------------------------------
 * Lamport 1978; Mattern 1989: an operation happens after another if it knows of it, that is if its
 * clock is not behind in the other's component. */

typedef struct clocks {
  int64_t of[ACTORS];
} clocks;

static void join(clocks *into, const clocks *from) {
  for (int a = 0; a < ACTORS; a++)
    if (from->of[a] > into->of[a]) into->of[a] = from->of[a];
}

static bool overlap(const fn_access *a, const fn_access *b) {
  const char *x = a->start, *y = b->start;
  return (a->writes || b->writes) && x < y + b->bytes && y < x + a->bytes;
}

static bool conflict(const fn_recorder *r, const operation *a, const operation *b) {
  for (int i = 0; i < a->count; i++)
    for (int j = 0; j < b->count; j++)
      if (overlap(&r->access[a->first + i], &r->access[b->first + j])) return true;
  return false;
}

static const char *const actors[] = {"compute", "in", "out", "comm", "host"};

/** Every operation against all earlier ones of other actors; when[i] is the clock of operation i.
 */
static fn_status compare(const fn_recorder *r, const clocks *when, int index) {
  const operation *b = &r->operation[index];
  for (int i = 0; i < index; i++) {
    const operation *a = &r->operation[i];
    if (a->kind != WORK || a->actor == b->actor) continue;
    if (when[index].of[a->actor] >= when[i].of[a->actor] || !conflict(r, a, b)) continue;
    FN_FAIL(
        FN_ERR_INTERNAL,
        "race: nothing orders %s (operation %d, stream %s) before %s (operation %d, stream %s), "
        "which touches the same memory",
        a->name, i, actors[a->actor], b->name, index, actors[b->actor]);
  }
  return FN_OK;
}

static fn_status walk(const fn_recorder *r, int without, clocks *when, clocks *event) {
  clocks now[ACTORS] = {0};
  for (int i = 0; i < r->operations; i++) {
    const operation *o = &r->operation[i];
    const bool of_event = o->kind == RECORD || o->kind == WAIT;
    if (of_event && o->event == without) continue;
    clocks *mine = &now[o->actor];
    join(mine, &now[HOST]); // the host put it there
    if (o->kind == RECORD) event[o->event] = *mine;
    if (o->kind == WAIT) join(mine, &event[o->event]);
    if (o->kind == JOIN) join(mine, &now[o->event]);
    mine->of[o->actor]++;
    when[i] = *mine;
    if (o->kind == WORK) FN_TRY(compare(r, when, i));
  }
  return FN_OK;
}

fn_status fn_recorder_check(const fn_recorder *r, int without) {
  clocks *when = calloc((size_t)r->operations + 1, sizeof *when);
  clocks *event = calloc((size_t)r->events + 1, sizeof *event);
  const fn_status status = when && event
                               ? walk(r, without, when, event)
                               : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  free(when);
  free(event);
  return status;
}
