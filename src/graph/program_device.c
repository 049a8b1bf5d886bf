/* A program whose values live on a device.
 *
 * A run puts everything on streams and returns. What the host gives (inputs, and the small buffer
 * of seed, epoch and samples) is written to one of two pinned buffers, copied on FN_STREAM_IN to
 * one of two staging buffers, and from there on the compute stream to the one address that kernels
 * know: while one run computes, the inputs of the next are on their way. An input may also be made
 * there by whoever has it (fn_program_make_input), which takes none of these. What the host wants
 * is copied on FN_STREAM_OUT; the next run of any program on the same arena starts after that copy.
 *
 * The first run puts kernel after kernel; the second is recorded, in parts that end where somebody
 * waits for a gradient, and later ones replay the parts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/system.h"
#include "graph/program_internal.h"
#include "graph/tape.h"

/** From host to device, in turn through two pairs of buffers. */
typedef struct transfer {
  size_t bytes;
  void *pinned[2], *staging[2], *target;
  fn_event *arrived[2];  /**< FN_STREAM_IN: pinned may be written again */
  fn_event *consumed[2]; /**< compute: staging may be */
  int slot;
  bool used;  /**< a run has taken what is in the slot */
  bool ready; /**< buffers and events are there */
  fn_input_make
      make; /**< who writes `target` in the next run; NULL: a copy of what is in the slot */
  void *user;
  bool made;     /**< the last run's was made: what is in the slot is older */
  bool converts; /**< `to`, at target, is of 16 bits or channels-last; what comes from the host is
                      plain float32 */
  fn_tensor to;
} transfer;

/** From device to host. */
typedef struct fetch {
  size_t bytes;
  const void *source;
  void *pinned;
  uint64_t run; /**< whose value is there or on its way */
} fetch;

/** Kernels up to a step, recorded. */
typedef struct segment {
  void *recording;
  int last; /**< step */
} segment;

struct device_part {
  transfer *input; /**< [input_count] */
  transfer context;
  int64_t rows;  /**< of samples in the context */
  fetch *output; /**< [output_count] */
  fn_event *computed, *fetched;
  fn_event *arena_read; /**< last copy out of the arena, of all programs that share it */
  bool arena_read_borrowed;
  uint64_t runs;
  segment *segment;
  int segment_count, segment_capacity;
  bool recorded, cannot_record;
  fn_event **timer; /**< [step_count + 1], before every kernel and after the last; NULL: not yet */
};

/** Outputs up to this size are copied after every run; inputs are always ready for the host. */
enum { SMALL_OUTPUT = 1 << 16 };

fn_status fn_program_allocate(const fn_program *p, size_t bytes, void **memory) {
  if (!p->device) return fn_pages_allocate(bytes, memory);
  if (bytes == 0) return FN_OK;
  return fn_error_context(p->device->allocate(p->device, bytes, memory),
                          "values of the network on the device; a smaller train.batch, "
                          "compute.recompute or compute.memory_budget takes less");
}

void fn_program_release(const fn_program *p, void *memory, size_t bytes) {
  if (!memory) return;
  if (p->device) {
    p->device->release(p->device, memory);
  } else {
    fn_pages_free(memory, bytes);
  }
}

/* ---- create and destroy ------------------------------------------------------------------------
 */

/** What a call before had no memory for, this one makes. */
static fn_status create_buffers(fn_device *d, transfer *t) {
  const size_t bytes = t->bytes;
  for (int i = 0; i < 2; i++) {
    if (!t->pinned[i]) FN_TRY(d->allocate_pinned(d, bytes, &t->pinned[i]));
    if (!t->staging[i]) FN_TRY(d->allocate(d, bytes, &t->staging[i]));
    if (!t->arrived[i]) FN_TRY(d->event_create(d, &t->arrived[i]));
    if (!t->consumed[i]) FN_TRY(d->event_create(d, &t->consumed[i]));
    memset(t->pinned[i], 0, bytes);
  }
  t->ready = true;
  return FN_OK;
}

static fn_status create_transfer(fn_device *d, size_t bytes, void *target, bool later,
                                 transfer *t) {
  t->bytes = bytes;
  t->target = target;
  return later ? FN_OK : create_buffers(d, t);
}

static void destroy_event(fn_device *d, fn_event *event) {
  if (event) d->event_destroy(d, event);
}

static void destroy_transfer(fn_device *d, transfer *t) {
  for (int i = 0; i < 2; i++) {
    if (t->pinned[i]) d->release_pinned(d, t->pinned[i]);
    if (t->staging[i]) d->release(d, t->staging[i]);
    destroy_event(d, t->arrived[i]);
    destroy_event(d, t->consumed[i]);
  }
}

/** Rows of random nodes: they ask which sample a row is. */
static int64_t random_rows(const fn_program *p) {
  int64_t rows = 0;
  for (int s = 0; s < p->step_count; s++) {
    const fn_node *node = p->step[s].node;
    if (!(node->op->flags & FN_OP_RANDOM)) continue;
    const fn_shape *shape = &node->output[0]->shape;
    if (shape->ndim > 0 && shape->dim[0] > rows) rows = shape->dim[0];
  }
  return rows;
}

static fn_status create_context(fn_program *p, device_part *part) {
  part->rows = random_rows(p);
  const size_t bytes = sizeof(fn_gpu_context) + (size_t)part->rows * sizeof(int64_t);
  void *target;
  FN_TRY(p->device->allocate(p->device, bytes, &target));
  part->context.target = target;
  return create_transfer(p->device, bytes, target, false, &part->context);
}

static fn_status create_outputs(fn_program *p, device_part *part) {
  fn_device *d = p->device;
  for (int o = 0; o < p->output_count; o++) {
    fetch *f = &part->output[o];
    f->bytes = fn_place_bytes(&p->place[p->output[o].place]);
    f->source = fn_place_data(p, p->output[o].place);
    FN_TRY(d->allocate_pinned(d, f->bytes, &f->pinned));
    memset(f->pinned, 0xFF, f->bytes); // NaN until the first run
  }
  FN_TRY(d->event_create(d, &part->computed));
  FN_TRY(d->event_create(d, &part->fetched));
  const fn_program *donor = p->options.donor;
  part->arena_read_borrowed = donor && donor->part;
  if (part->arena_read_borrowed) part->arena_read = donor->part->arena_read;
  return part->arena_read ? FN_OK : d->event_create(d, &part->arena_read);
}

fn_status fn_device_part_create(fn_program *p) {
  device_part *part = p->part = calloc(1, sizeof *part);
  FN_CHECK(part, FN_ERR_MEMORY, "out of memory");
  part->input = fn_arena_take(p->tables, (size_t)(p->input_count + 1) * sizeof *part->input);
  part->output = fn_arena_take(p->tables, (size_t)(p->output_count + 1) * sizeof *part->output);
  for (int i = 0; i < p->input_count; i++) {
    const fn_tensor to = fn_place_tensor(p, p->input[i].place);
    const size_t bytes = (size_t)fn_shape_count(&to.shape) * sizeof(float);
    part->input[i].converts = to.dtype != FN_F32 || to.block > 1;
    part->input[i].to = to;
    FN_TRY(create_transfer(p->device, bytes, to.data,
                           p->options.made_inputs && bytes > SMALL_OUTPUT, &part->input[i]));
  }
  FN_TRY(create_context(p, part));
  return create_outputs(p, part);
}

static void forget_recordings(fn_program *p) {
  device_part *part = p->part;
  for (int s = 0; s < part->segment_count; s++)
    p->device->recording_destroy(p->device, part->segment[s].recording);
  part->segment_count = 0;
  part->recorded = false;
}

void fn_device_part_destroy(fn_program *p) {
  device_part *part = p->part;
  if (!part) return;
  fn_device *d = p->device;
  // What is on its way needs the memory; a device that has failed does nothing any more.
  for (int s = 0; s < FN_STREAM_COUNT; s++)
    (void)d->synchronize(d, (fn_stream)s);
  forget_recordings(p);
  for (int i = 0; i < p->input_count; i++)
    destroy_transfer(d, &part->input[i]);
  destroy_transfer(d, &part->context);
  if (part->context.target) d->release(d, part->context.target);
  for (int o = 0; o < p->output_count; o++)
    if (part->output[o].pinned) d->release_pinned(d, part->output[o].pinned);
  destroy_event(d, part->computed);
  destroy_event(d, part->fetched);
  if (!part->arena_read_borrowed) destroy_event(d, part->arena_read);
  for (int s = 0; part->timer && s <= p->step_count; s++)
    destroy_event(d, part->timer[s]);
  free(part->timer);
  free(part->segment);
  free(part);
  p->part = NULL;
}

/* ---- inputs and outputs ------------------------------------------------------------------------
 */

/** The pinned buffer to be written for the next run. */
static void *slot_to_write(fn_device *d, transfer *t) {
  if (t->used) t->slot = !t->slot;
  t->used = false;
  // A failure is the device's, and the run's to report.
  (void)d->synchronize_event(d, t->arrived[t->slot]);
  return t->pinned[t->slot];
}

void *fn_device_input(fn_program *p, int index) {
  transfer *t = &p->part->input[index];
  if (!t->ready && create_buffers(p->device, t) != FN_OK) return NULL;
  t->make = NULL;
  t->made = false;
  void *memory = slot_to_write(p->device, t);
  if (p->options.recorder)
    (void)fn_recorder_host(p->options.recorder, "input", memory, t->bytes, true);
  return memory;
}

void fn_device_make_input(fn_program *p, int index, fn_input_make make, void *user) {
  p->part->input[index].make = make;
  p->part->input[index].user = user;
}

/** From staging, plain float32, to a target of another type or layout. */
static fn_status convert(fn_device *d, const transfer *t, const void *staging) {
  const fn_shape *shape = &t->to.shape;
  fn_raw_field field = {.data = staging,
                        .type = FN_RAW_F32,
                        .spatial = shape->ndim - 2,
                        .channels = shape->dim[1],
                        .permutation = {0, 1, 2},
                        .factor = 1,
                        .shift = -0.0,
                        .samples = shape->dim[0],
                        .step = shape->dim[1]};
  for (int a = 0; a < field.spatial; a++) {
    field.extent[a] = shape->dim[2 + a];
    field.step *= field.extent[a];
  }
  return d->convert(d, &field, &t->to, 0, 0);
}

/** What the last run had and nobody wrote since is there already. */
static fn_status send(fn_device *d, transfer *t) {
  const int s = t->slot;
  if (!t->used) {
    FN_TRY(d->wait(d, FN_STREAM_IN, t->consumed[s]));
    FN_TRY(d->copy(d, FN_STREAM_IN, t->staging[s], t->pinned[s], t->bytes, FN_COPY_TO_DEVICE));
    FN_TRY(d->record(d, FN_STREAM_IN, t->arrived[s]));
  }
  FN_TRY(d->wait(d, FN_STREAM_COMPUTE, t->arrived[s]));
  if (t->converts)
    FN_TRY(convert(d, t, t->staging[s]));
  else
    FN_TRY(d->copy(d, FN_STREAM_COMPUTE, t->target, t->staging[s], t->bytes, FN_COPY_WITHIN));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, t->consumed[s]));
  t->used = true;
  return FN_OK;
}

static fn_status send_input(fn_program *p, int index) {
  transfer *t = &p->part->input[index];
  const fn_input_make make = t->make;
  FN_CHECK(make || (t->ready && !t->made), FN_ERR_INTERNAL, "a run without its input \"%s\"",
           p->input[index].name);
  if (!make) return send(p->device, t);
  const fn_tensor to = fn_place_tensor(p, p->input[index].place);
  t->make = NULL;
  t->made = true;
  return make(t->user, p->device, &to);
}

static void write_context(fn_program *p, const fn_run_context *context) {
  fn_gpu_context *c = slot_to_write(p->device, &p->part->context);
  if (p->options.recorder)
    (void)fn_recorder_host(p->options.recorder, "context", c, p->part->context.bytes, true);
  c->seed = context->seed;
  c->epoch = context->epoch;
  for (int64_t n = 0; n < p->part->rows; n++)
    c->sample[n] = context->sample ? context->sample[n] : n;
}

static fn_status send_inputs(fn_program *p, fn_run_context *context) {
  fn_device *d = p->device;
  // What the last run left in the arena may still be on its way to the host.
  FN_TRY(d->wait(d, FN_STREAM_COMPUTE, p->part->arena_read));
  write_context(p, context);
  FN_TRY(send(d, &p->part->context));
  for (int i = 0; i < p->input_count; i++)
    FN_TRY(send_input(p, i));
  context->device = p->part->context.target;
  return FN_OK;
}

static fn_status fetch_output(fn_program *p, fetch *f) {
  fn_device *d = p->device;
  f->run = p->part->runs;
  FN_TRY(d->copy(d, FN_STREAM_OUT, f->pinned, f->source, f->bytes, FN_COPY_TO_HOST));
  FN_TRY(d->record(d, FN_STREAM_OUT, p->part->fetched));
  return d->record(d, FN_STREAM_OUT, p->part->arena_read);
}

static fn_status fetch_small_outputs(fn_program *p) {
  fn_device *d = p->device;
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, p->part->computed));
  FN_TRY(d->wait(d, FN_STREAM_OUT, p->part->computed));
  for (int o = 0; o < p->output_count; o++)
    if (p->part->output[o].bytes <= SMALL_OUTPUT) FN_TRY(fetch_output(p, &p->part->output[o]));
  return FN_OK;
}

const void *fn_device_output(fn_program *p, int index) {
  fetch *f = &p->part->output[index];
  fn_status status = f->run == p->part->runs ? FN_OK : fetch_output(p, f);
  if (status == FN_OK) status = p->device->synchronize_event(p->device, p->part->fetched);
  if (p->options.recorder)
    (void)fn_recorder_host(p->options.recorder, "output", f->pinned, f->bytes, false);
  if (status != FN_OK) memset(f->pinned, 0xFF, f->bytes);
  return f->pinned;
}

fn_status fn_device_wait(fn_program *p) {
  FN_TRY(p->device->synchronize_event(p->device, p->part->computed));
  return p->device->synchronize_event(p->device, p->part->fetched);
}

/* ---- run ----------------------------------------------------------------------------------------
 */

static fn_status run_constants(fn_program *p, const fn_run_context *context) {
  if (!p->constants || p->constants_version == p->parameters->version) return FN_OK;
  for (int s = 0; s < p->step_count; s++)
    if (p->step[s].is_constant) FN_TRY(fn_program_step(p, s, context));
  return FN_OK;
}

/** All of a value in memory, gaps of a window included. */
static fn_access access_of(const fn_program *p, int index, bool writes) {
  if (index < 0) return (fn_access){0};
  return (fn_access){fn_place_data(p, index), fn_place_bytes(&p->place[index]), writes};
}

fn_status fn_device_record_step(fn_program *p, int index) {
  const step *s = &p->step[index];
  fn_access access[2 * FN_MAX_PORTS + 1];
  int count = 0;
  for (int i = 0; i < s->node->input_count; i++)
    access[count++] = access_of(p, s->input[i], false);
  for (int o = 0; o < s->node->output_count; o++)
    access[count++] = access_of(p, s->output[o], true);
  if (s->node->op->flags & FN_OP_RANDOM)
    access[count++] = (fn_access){p->part->context.target, p->part->context.bytes, false};
  return fn_recorder_kernel(p->options.recorder, s->is_reorder ? "reorder" : s->node->op->name,
                            access, count);
}

/** Kernel after kernel, from step `first` on. */
static fn_status run_plainly(fn_program *p, const fn_run_context *context, int first, int *landed) {
  for (int s = first; s < p->step_count; s++) {
    if (!p->step[s].is_constant) FN_TRY(fn_program_step(p, s, context));
    fn_program_land(p, s, landed);
  }
  return FN_OK;
}

/** What a call before could not create, this one does. */
static fn_status create_timers(fn_program *p) {
  fn_device *d = p->device;
  device_part *part = p->part;
  FN_CHECK(d->timer_create, FN_ERR_UNSUPPORTED, "%s has no clock to time kernels by", d->info.name);
  if (!part->timer) part->timer = calloc((size_t)p->step_count + 1, sizeof *part->timer);
  FN_CHECK(part->timer, FN_ERR_MEMORY, "out of memory");
  for (int s = 0; s <= p->step_count; s++)
    if (!part->timer[s]) FN_TRY(d->timer_create(d, &part->timer[s]));
  return FN_OK;
}

/** Times of the run that was just put on the stream. The host's clock at its end is that at which
 *  the last event was passed, as near as can be said. */
static fn_status read_timers(fn_program *p) {
  fn_device *d = p->device;
  fn_event **timer = p->part->timer;
  FN_TRY(d->synchronize_event(d, timer[p->step_count]));
  double all, before = 0;
  FN_TRY(d->elapsed(d, timer[0], timer[p->step_count], &all));
  const double start = fn_clock() - all;
  for (int s = 0; s < p->step_count; s++) {
    double after;
    FN_TRY(d->elapsed(d, timer[0], timer[s + 1], &after));
    if (!p->step[s].is_constant) fn_program_note_time(p, s, start + before, start + after);
    before = after;
  }
  return FN_OK;
}

/** Kernel after kernel, with an event in between; nobody waits before the end. */
static fn_status run_timed(fn_program *p, const fn_run_context *context, int *landed) {
  fn_device *d = p->device;
  FN_TRY(create_timers(p));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, p->part->timer[0]));
  for (int s = 0; s < p->step_count; s++) {
    if (!p->step[s].is_constant) FN_TRY(fn_program_step(p, s, context));
    FN_TRY(d->record(d, FN_STREAM_COMPUTE, p->part->timer[s + 1]));
    fn_program_land(p, s, landed);
  }
  return read_timers(p);
}

/** Last step of the part that begins at `first`: where somebody waits for a gradient, or the end.
 */
static int last_of_part(const fn_program *p, int first) {
  for (int l = 0; l < p->landing_count; l++)
    if (p->landing[l].awaited && p->landing[l].step >= first) return p->landing[l].step;
  return p->step_count - 1;
}

/** Steps to be recorded together. */
typedef struct steps {
  fn_program *program;
  const fn_run_context *context;
  int first, last;
} steps;

static fn_status put_steps(void *user) {
  const steps *all = user;
  for (int s = all->first; s <= all->last; s++)
    if (!all->program->step[s].is_constant) FN_TRY(fn_program_step(all->program, s, all->context));
  return FN_OK;
}

static fn_status record_part(fn_program *p, const fn_run_context *context, int first, int last) {
  device_part *part = p->part;
  FN_TRY(fn_grow((void **)&part->segment, part->segment_count, &part->segment_capacity,
                 sizeof *part->segment));
  steps all = {p, context, first, last};
  void *recording;
  FN_TRY(fn_tape_record(p->device, put_steps, &all, &recording));
  part->segment[part->segment_count++] = (segment){recording, last};
  return FN_OK;
}

/** Record and replay part after part; what cannot be recorded runs plainly, now and from then on.
 */
static fn_status record(fn_program *p, const fn_run_context *context, int *landed) {
  fn_device *d = p->device;
  for (int first = 0; first < p->step_count;) {
    const int last = last_of_part(p, first);
    const fn_status status = record_part(p, context, first, last);
    if (status == FN_ERR_DEVICE) return status;
    if (status != FN_OK) {
      fn_log(FN_DETAIL, "steps are not recorded for replay: %s", fn_error_message());
      fn_error_clear();
      p->part->cannot_record = true;
      FN_TRY(run_plainly(p, context, first, landed));
      forget_recordings(p);
      return FN_OK;
    }
    FN_TRY(d->replay(d, p->part->segment[p->part->segment_count - 1].recording));
    for (int s = first; s <= last; s++)
      fn_program_land(p, s, landed);
    first = last + 1;
  }
  p->part->recorded = true;
  return FN_OK;
}

static fn_status replay(fn_program *p, int *landed) {
  for (int i = 0; i < p->part->segment_count; i++) {
    const segment *s = &p->part->segment[i];
    FN_TRY(p->device->replay(p->device, s->recording));
    fn_program_land(p, s->last, landed);
  }
  return FN_OK;
}

/** Whether this run may be recorded or replayed. Kernels that meet other ranks need the host. */
static bool may_replay(const fn_program *p, const fn_run_context *context) {
  return p->options.replay && p->device->capture_begin && !p->options.check &&
         !p->part->cannot_record && p->part->runs > 0 &&
         !(p->graph->options.sync_batch_norm && context->collectives);
}

fn_status fn_device_run(fn_program *p, const fn_run_context *context) {
  fn_run_context mine = *context;
  int landed = 0;
  if (p->parameters) FN_TRY(fn_parameters_to_device(p->parameters));
  FN_TRY(send_inputs(p, &mine));
  FN_TRY(run_constants(p, &mine));
  if (fn_program_is_timed(p)) {
    FN_TRY(run_timed(p, &mine, &landed));
  } else if (!may_replay(p, &mine)) {
    FN_TRY(run_plainly(p, &mine, 0, &landed));
  } else if (p->part->recorded) {
    FN_TRY(replay(p, &landed));
  } else {
    FN_TRY(record(p, &mine, &landed));
  }
  p->part->runs++;
  if (p->landing_count > 0) fn_parameters_changed_on_device(p->parameters, FN_MIRROR_GRADIENTS);
  if (p->constants) p->constants_version = p->parameters->version;
  if (fn_graph_assignment_count(p->graph) > 0)
    fn_parameters_changed_on_device(p->parameters, FN_MIRROR_BUFFERS);
  return fetch_small_outputs(p);
}
