#include "learn/judge.h"

#include <math.h>
#include <stdlib.h>

#include "backend/judge.h"
#include "learn/learn.h"

struct fn_judge {
  fn_parameters *parameters;
  fn_device *device;   /**< NULL: the host's gradients */
  fn_judgement *place; /**< the device's memory, or `own` */
  fn_judgement own;
  fn_judgement *pinned;    /**< what the device tells */
  fn_event *judged, *told; /**< compute; FN_STREAM_OUT */
};

static fn_status create(fn_judge *j) {
  fn_device *d = j->device;
  void *memory;
  if (!d) return FN_OK;
  FN_TRY(d->allocate(d, sizeof *j->place, &memory));
  j->place = memory;
  FN_TRY(d->clear(d, FN_STREAM_COMPUTE, memory, sizeof *j->place)); // squares nobody asks for
  FN_TRY(d->allocate_pinned(d, sizeof *j->pinned, &memory));
  j->pinned = memory;
  FN_TRY(d->event_create(d, &j->judged));
  return d->event_create(d, &j->told);
}

fn_status fn_judge_create(fn_parameters *parameters, fn_judge **judge) {
  fn_judge *j = *judge = calloc(1, sizeof *j);
  FN_CHECK(j, FN_ERR_MEMORY, "out of memory");
  j->parameters = parameters;
  j->device = parameters->device;
  if (!j->device) j->place = &j->own;
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
    if (j->judged) d->event_destroy(d, j->judged);
    if (j->told) d->event_destroy(d, j->told);
    if (j->place) d->release(d, j->place);
    if (j->pinned) d->release_pinned(d, j->pinned);
  }
  free(j);
}

static void judge_on_host(fn_judge *j, const fn_step_facts *facts,
                          const fn_tensor_entry *const watched[2]) {
  fn_parameters *p = j->parameters;
  fn_judgement *result = j->place;
  *result = (fn_judgement){.squares = {fn_gradient_squares(p)}, .bad = -1};
  for (int w = 0; watched && w < 2; w++)
    result->squares[1 + w] = fn_gradient_squares_of(p, watched[w]);
  const double norm = sqrt(result->squares[0]);
  fn_judge_decide(facts, norm, result);
  if (result->verdict == FN_STEP_BAD && !isfinite(norm)) result->bad = fn_gradient_not_finite(p);
}

static fn_status judge_on_device(fn_judge *j, const fn_step_facts *facts,
                                 const fn_tensor_entry *const watched[2]) {
  fn_device *d = j->device;
  fn_judgement *result = j->place;
  // The judgement before must have left.
  FN_TRY(d->wait(d, FN_STREAM_COMPUTE, j->told));
  FN_TRY(d->sum_squares(d, FN_STREAM_COMPUTE, facts->gradient, facts->count, &result->squares[0]));
  for (int w = 0; watched && w < 2; w++)
    FN_TRY(d->sum_squares(d, FN_STREAM_COMPUTE,
                          fn_parameters_gradient_place(j->parameters, watched[w]),
                          watched[w]->count, &result->squares[1 + w]));
  FN_TRY(d->judge(d, FN_STREAM_COMPUTE, facts));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, j->judged));
  FN_TRY(d->wait(d, FN_STREAM_OUT, j->judged));
  FN_TRY(d->copy(d, FN_STREAM_OUT, j->pinned, result, sizeof *result, FN_COPY_TO_HOST));
  return d->record(d, FN_STREAM_OUT, j->told);
}

fn_status fn_judge_put(fn_judge *j, fn_step_facts facts, const fn_tensor_entry *const watched[2]) {
  fn_parameters *p = j->parameters;
  facts.judgement = j->place;
  facts.count = p->count;
  if (!j->device) {
    judge_on_host(j, &facts, watched);
    return FN_OK;
  }
  FN_TRY(fn_parameters_to_device(p));
  facts.gradient = fn_parameters_mirror(p, FN_MIRROR_GRADIENTS)->memory;
  return judge_on_device(j, &facts, watched);
}

bool fn_judge_defers(const fn_judge *judge) {
  return judge->device != NULL;
}

fn_status fn_judge_read(fn_judge *j, fn_judgement *judgement) {
  if (j->device) FN_TRY(j->device->synchronize_event(j->device, j->told));
  *judgement = j->device ? *j->pinned : *j->place;
  return FN_OK;
}

const fn_judgement *fn_judge_place(const fn_judge *judge) {
  return judge->place;
}
