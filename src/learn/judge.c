#include "learn/judge.h"

#include <math.h>
#include <stdlib.h>

#include "backend/judge.h"
#include "learn/learn.h"

/** What the host gives for a step. */
typedef struct orders {
  fn_step_facts facts;
  fn_update_factors factors;
} orders;

/** What goes between host and device for a step. */
typedef struct exchange {
  orders orders;
  fn_judgement judgement;
} exchange;

struct fn_judge {
  fn_parameters *parameters;
  fn_device *device; /**< NULL: the host's gradients */
  fn_judgement own;  /**< of the host */
  exchange *there;   /**< the device's memory */
  exchange *pinned;
  fn_event *judged, *told; /**< compute; FN_STREAM_OUT */
  fn_put obey;
  void *user;
  fn_tape tape;
};

static fn_status create(fn_judge *j) {
  fn_device *d = j->device;
  void *memory;
  if (!d) return FN_OK;
  FN_TRY(d->allocate(d, sizeof *j->there, &memory));
  j->there = memory;
  FN_TRY(d->clear(d, FN_STREAM_COMPUTE, memory, sizeof *j->there)); // squares nobody asks for
  FN_TRY(d->allocate_pinned(d, sizeof *j->pinned, &memory));
  j->pinned = memory;
  FN_TRY(d->event_create(d, &j->judged));
  return d->event_create(d, &j->told);
}

fn_status fn_judge_create(fn_parameters *parameters, fn_put obey, void *user, bool replay,
                          fn_judge **judge) {
  fn_judge *j = *judge = calloc(1, sizeof *j);
  FN_CHECK(j, FN_ERR_MEMORY, "out of memory");
  j->parameters = parameters;
  j->device = parameters->device;
  j->obey = obey;
  j->user = user;
  j->tape.cannot = !replay;
  const fn_status status = create(j);
  if (status == FN_OK) return FN_OK;
  fn_judge_destroy(j);
  *judge = NULL;
  return status;
}

void fn_judge_destroy(fn_judge *j) {
  if (!j) return;
  fn_device *d = j->device;
  if (d) {
    // What is on its way needs the memory; a device that has failed does nothing any more.
    (void)d->synchronize(d, FN_STREAM_COMPUTE);
    (void)d->synchronize(d, FN_STREAM_OUT);
    fn_tape_destroy(&j->tape, d);
    if (j->judged) d->event_destroy(d, j->judged);
    if (j->told) d->event_destroy(d, j->told);
    if (j->there) d->release(d, j->there);
    if (j->pinned) d->release_pinned(d, j->pinned);
  }
  free(j);
}

static void judge_on_host(fn_judge *j, const fn_step_facts *facts,
                          const fn_tensor_entry *const watched[2]) {
  fn_parameters *p = j->parameters;
  fn_judgement *result = &j->own;
  *result = (fn_judgement){.squares = {fn_gradient_squares(p)}, .bad = -1};
  for (int w = 0; watched && w < 2; w++)
    result->squares[1 + w] = fn_gradient_squares_of(p, watched[w]);
  const double norm = sqrt(result->squares[0]);
  fn_judge_decide(facts, norm, result);
  if (result->verdict == FN_STEP_BAD && !isfinite(norm)) result->bad = fn_gradient_not_finite(p);
}

/** The same at every step, so that it can be replayed. */
static fn_status put(void *judge) {
  fn_judge *j = judge;
  fn_device *d = j->device;
  const int64_t count = j->parameters->count;
  const float *gradient = fn_parameters_mirror(j->parameters, FN_MIRROR_GRADIENTS)->memory;
  fn_judgement *result = &j->there->judgement;
  FN_TRY(d->copy(d, FN_STREAM_COMPUTE, &j->there->orders, &j->pinned->orders, sizeof(orders),
                 FN_COPY_TO_DEVICE));
  FN_TRY(d->sum_squares(d, FN_STREAM_COMPUTE, gradient, count, &result->squares[0]));
  FN_TRY(d->judge(d, FN_STREAM_COMPUTE, &j->there->orders.facts, gradient, count, result));
  return j->obey(j->user);
}

static fn_status judge_on_device(fn_judge *j, const fn_step_facts *facts,
                                 const fn_update_factors *factors,
                                 const fn_tensor_entry *const watched[2]) {
  fn_device *d = j->device;
  fn_judgement *result = &j->there->judgement;
  FN_TRY(fn_parameters_to_device(j->parameters));
  // The judgement before must have left.
  FN_TRY(d->wait(d, FN_STREAM_COMPUTE, j->told));
  for (int w = 0; watched && w < 2; w++)
    FN_TRY(d->sum_squares(d, FN_STREAM_COMPUTE,
                          fn_parameters_gradient_place(j->parameters, watched[w]),
                          watched[w]->count, &result->squares[1 + w]));
  j->pinned->orders = (orders){*facts, *factors};
  FN_TRY(fn_tape_play(&j->tape, d, put, j));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, j->judged));
  FN_TRY(d->wait(d, FN_STREAM_OUT, j->judged));
  FN_TRY(d->copy(d, FN_STREAM_OUT, &j->pinned->judgement, result, sizeof *result, FN_COPY_TO_HOST));
  return d->record(d, FN_STREAM_OUT, j->told);
}

fn_status fn_judge_put(fn_judge *j, const fn_step_facts *facts, const fn_update_factors *factors,
                       const fn_tensor_entry *const watched[2]) {
  if (j->device) return judge_on_device(j, facts, factors, watched);
  judge_on_host(j, facts, watched);
  return j->obey(j->user);
}

bool fn_judge_defers(const fn_judge *judge) {
  return judge->device != NULL;
}

fn_status fn_judge_read(fn_judge *j, fn_judgement *judgement) {
  if (j->device) FN_TRY(j->device->synchronize_event(j->device, j->told));
  *judgement = j->device ? j->pinned->judgement : j->own;
  return FN_OK;
}

const fn_judgement *fn_judge_place(const fn_judge *judge) {
  return judge->device ? &judge->there->judgement : &judge->own;
}

const fn_update_factors *fn_judge_factors(const fn_judge *judge) {
  return judge->device ? &judge->there->orders.factors : NULL;
}
