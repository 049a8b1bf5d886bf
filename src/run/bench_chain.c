/* Steps on a device as the training loop takes them (step.c): each is put on the streams while the
 * one before still runs, and what became of that is read behind its program. */
#include <string.h>

#include "base/system.h"
#include "run/bench_internal.h"

enum { BEHIND = 2 }; // steps on their way at once

typedef struct chain {
  bench *b;
  bench_reader *reader; /**< NULL: batches are made up */
  bool active;          /**< the judgement of a step was not read yet */
  int64_t put;          /**< steps so far */
  fn_event *end[BEHIND];
  double input_wait, host; /**< seconds since the counted steps began: see bench_chain */
} chain;

/* ---- one step
 * ------------------------------------------------------------------------------------- */

static fn_status next_batch(chain *c, const fn_batch **batch) {
  *batch = &c->b->random;
  if (!c->reader) return FN_OK;
  const double start = fn_clock();
  const fn_status status = fn_bench_reader_next(c->reader, batch);
  c->input_wait += fn_clock() - start;
  return fn_dist_agree(c->b->dist, status);
}

static fn_status put_program(chain *c, const fn_batch *batch) {
  bench *b = c->b;
  const double start = fn_clock();
  if (c->reader) FN_TRY(fn_engine_feed(b->program, batch));
  FN_TRY(fn_bench_put_program(b, batch));
  if (c->reader) FN_TRY(fn_loader_send_ahead(c->reader->loader));
  c->host += fn_clock() - start;
  return FN_OK;
}

static fn_status put_update(chain *c) {
  const double start = fn_clock();
  FN_TRY(fn_bench_put_update(c->b));
  c->active = true;
  c->host += fn_clock() - start;
  return FN_OK;
}

/** What became of the step before. */
static fn_status settle(chain *c) {
  if (!c->active) return FN_OK;
  c->active = false;
  return fn_bench_settle(c->b);
}

/** What goes through MPI beside the gradients is waited for. */
static fn_status fetch_shared(const bench *b) {
  FN_TRY(fn_parameters_buffers_to_host(b->parameters));
  return fn_program_wait(b->program);
}

static fn_status put_training_step(chain *c) {
  bench *b = c->b;
  const bool many = b->dist->size > 1;
  const fn_batch *batch;
  FN_TRY(next_batch(c, &batch));
  FN_TRY(fn_reducer_begin(b->reducer, batch->count));
  fn_status failed = put_program(c, batch);
  if (failed != FN_OK && b->run->train.sync_batch_norm) fn_dist_abort(b->dist, failed);
  const fn_status reduced = fn_reducer_finish(b->reducer);
  if (failed == FN_OK) failed = reduced;
  if (failed == FN_OK) failed = settle(c);
  if (failed == FN_OK && many) failed = fetch_shared(b);
  FN_TRY(fn_dist_agree(b->dist, failed));
  if (many) FN_TRY(fn_bench_agree(b));
  return put_update(c);
}

/** The network alone leaves no judgement: the end of the step before is waited for. */
static fn_status put_inference(chain *c) {
  fn_device *d = c->b->device;
  FN_TRY(put_program(c, &c->b->random));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, c->end[c->put % BEHIND]));
  return c->put > 0 ? d->synchronize_event(d, c->end[(c->put - 1) % BEHIND]) : FN_OK;
}

static fn_status put_steps(chain *c, int64_t count) {
  for (int64_t i = 0; i < count; i++, c->put++)
    FN_TRY(c->b->options->inference ? put_inference(c) : put_training_step(c));
  return FN_OK;
}

/* ---- a chain
 * -------------------------------------------------------------------------------------- */

static fn_status drain(chain *c, fn_event *last) {
  FN_TRY(c->b->device->synchronize_event(c->b->device, last));
  return fn_dist_agree(c->b->dist, settle(c));
}

/** The slowest rank's. */
static fn_status over_ranks(const bench *b, double *value) {
  bench_spread spread;
  FN_TRY(fn_bench_over_ranks(b->dist, *value, &spread));
  *value = spread.most;
  return FN_OK;
}

/** Counted are `steps` steps behind `lead` others. With those, both ends are points at which the
 *  host has put a step and the device works on it; without, points at which both rest. */
static fn_status take(chain *c, int64_t lead, int64_t steps, bench_chain *result) {
  bench *b = c->b;
  fn_device *d = b->device;
  fn_event *first = b->timer[0], *last = b->timer[1];
  double device;
  FN_TRY(fn_bench_feed_random(b, c->reader));
  fn_dist_max(b->dist, 0); // all ranks begin together
  FN_TRY(put_steps(c, lead));
  c->host = c->input_wait = 0;
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, first));
  const double start = fn_clock();
  FN_TRY(put_steps(c, steps));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, last));
  double end = fn_clock();
  FN_TRY(drain(c, last));
  if (lead == 0) end = fn_clock();
  FN_TRY(d->elapsed(d, first, last, &device));
  if (!b->beside) b->peak = fn_memory_peak();
  const double part = 1.0 / (double)steps;
  *result = (bench_chain){.steps = steps,
                          .step = part * (end - start),
                          .device = part * device,
                          .host = part * c->host,
                          .input_wait = part * c->input_wait};
  FN_TRY(over_ranks(b, &result->step));
  FN_TRY(over_ranks(b, &result->device));
  FN_TRY(over_ranks(b, &result->host));
  return over_ranks(b, &result->input_wait);
}

int64_t fn_bench_chain_lead(const bench *b, bool reads) {
  return BEHIND + (reads ? b->run->data.prefetch : 0);
}

fn_status fn_bench_chain(bench *b, bench_reader *reader, int64_t lead, int64_t steps,
                         bench_chain *result) {
  fn_device *d = b->device;
  chain c = {.b = b, .reader = reader};
  fn_status status = FN_OK;
  for (int i = 0; i < BEHIND && status == FN_OK; i++)
    status = d->event_create(d, &c.end[i]);
  status = fn_dist_agree(b->dist, status);
  if (status == FN_OK) status = take(&c, lead, steps, result);
  for (int i = 0; i < BEHIND; i++)
    if (c.end[i]) d->event_destroy(d, c.end[i]);
  return status;
}
