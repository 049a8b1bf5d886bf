#include "run/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "run/epoch.h"
#include "run/loss_scale.h"
#include "run/read_again.h"
#include "run/session_arrays.h"
#include "run/signals.h"

/** What the ranks tell each other after the backward pass of a step. */
typedef struct step_sums {
  double loss, samples; /**< sum of loss times samples; samples */
  double bad_rank;      /**< 1 + lowest rank with a loss that is not finite; 0: none */
  double stop, save;    /**< requests */
  double failed;        /**< ranks whose kernels failed */
} step_sums;

/** Steps that are done or on their way. */
static int64_t steps_begun(const fn_session *s) {
  return s->progress.step + s->flight.active;
}

void fn_step_enter(const fn_session *s, fn_phase phase) {
  fn_watchdog_enter(s->watchdog, phase, steps_begun(s) + 1);
}

/* ---- gradients
 * ------------------------------------------------------------------------------------ */

static fn_run_context step_context(const fn_session *s, const fn_batch *batch) {
  return (fn_run_context){.seed = s->run->seed,
                          .epoch = s->progress.epoch,
                          .sample = batch->sample,
                          .collectives = s->dist->size > 1 ? &s->dist->collectives : NULL};
}

/** The scale that the judgement of the step on its way leaves to this one. */
static fn_status make_loss_scale(void *judge, fn_device *device, const fn_tensor *to) {
  return device->copy(device, FN_STREAM_COMPUTE, to->data, &fn_judge_place(judge)->next_scale,
                      sizeof(float), FN_COPY_WITHIN);
}

static fn_status feed_loss_scale(fn_session *s, fn_program *program) {
  if (!fn_program_input_shape(program, "loss_scale")) return FN_OK;
  if (s->flight.active)
    return fn_program_make_input(program, "loss_scale", make_loss_scale, s->judge);
  *(float *)fn_program_input(program, "loss_scale") = (float)fn_loss_scale(&s->progress);
  return FN_OK;
}

/** *loss is this batch's on the host; a device is not waited for here. */
static fn_status run_batch(fn_session *s, const fn_batch *batch, bool reduce, double *loss) {
  fn_program *program;
  FN_TRY(fn_engine_program(s->engine, true, true, batch->count, &program));
  FN_TRY(fn_engine_feed(program, batch));
  FN_TRY(feed_loss_scale(s, program));
  fn_program_on_gradient(program, reduce ? fn_reducer_ready : NULL, s->reducer);
  const fn_run_context context = step_context(s, batch);
  FN_TRY(fn_program_run(program, &context));
  s->last_program = program;
  if (!fn_program_device(program))
    *loss = (double)*(const float *)fn_program_output_data(program, "loss");
  return FN_OK;
}

static fn_status next_batch(fn_loader *loader, const fn_batch **batch) {
  FN_TRY(fn_loader_next(loader, batch));
  FN_CHECK(*batch, FN_ERR_INTERNAL, "the epoch ended early");
  return FN_OK;
}

/** Should the step turn out bad, it is asked which samples it had. Without memory for them, that
 *  cannot be said. */
static void keep_samples(fn_sample_list *list, const fn_batch *batch) {
  const int64_t wanted = list->count + batch->count;
  int64_t *room = list->sample;
  if (wanted > list->capacity) {
    room = realloc(room, (size_t)wanted * sizeof *room);
    list->last = 0;
    if (!room) return;
    list->sample = room;
    list->capacity = wanted;
  }
  memcpy(room + list->count, batch->sample, (size_t)batch->count * sizeof *room);
  list->count = wanted;
  list->last = batch->count;
}

/** Gradients of one optimizer step of `micro` batches, averaged over samples and ranks. *failed is
 *  this rank's failure between the collective calls, to be agreed with the step's reduction. */
static fn_status gradients(fn_session *s, fn_loader *loader, int64_t micro, step_sums *sums,
                           fn_status *failed) {
  fn_parameters *p = s->parameters;
  for (int64_t m = 0; m < micro; m++) {
    double loss = 0;
    fn_step_enter(s, FN_PHASE_INPUT);
    // A rank that cannot read must not leave the others waiting for its gradients.
    const fn_batch *batch = NULL;
    FN_TRY(fn_dist_agree(s->dist, *failed != FN_OK ? *failed : next_batch(loader, &batch)));
    keep_samples(&s->coming, batch);
    if (micro == 1) FN_TRY(fn_reducer_begin(s->reducer, batch->count));
    fn_step_enter(s, FN_PHASE_COMPUTE);
    *failed = run_batch(s, batch, micro == 1, &loss);
    // While the device computes, what it computes next is on its way.
    if (*failed == FN_OK) *failed = fn_loader_send_ahead(loader);
    // With synchronised batch norm the others wait inside their programs: nothing can be agreed.
    if (*failed != FN_OK && s->run->train.sync_batch_norm) fn_dist_abort(s->dist, *failed);
    sums->loss += loss * (double)batch->count;
    sums->samples += (double)batch->count;
    if (micro > 1 && *failed == FN_OK)
      *failed = fn_session_accumulate(s, s->last_program, m, batch->count);
    fn_epoch_advance(&s->progress, s->dist->size, s->run->train.batch);
  }
  if (micro > 1) {
    if (*failed == FN_OK) *failed = fn_session_take_accumulated(s, sums->samples);
    FN_TRY(fn_reducer_begin(s->reducer, (int64_t)sums->samples));
    for (int e = 0; e < p->entry_count; e++)
      if (!p->entry[e].is_buffer) fn_reducer_ready(s->reducer, e);
  }
  fn_step_enter(s, FN_PHASE_GRADIENTS);
  const fn_status reduced = fn_reducer_finish(s->reducer);
  if (reduced == FN_OK || !p->device) return reduced;
  if (*failed == FN_OK) *failed = reduced; // a device is this rank's own: to be agreed
  return FN_OK;
}

/* ---- agreement
 * ------------------------------------------------------------------------------------ */

/** Whether the host has the step's loss before it is judged: from its own programs, or because the
 *  ranks sum it. */
static bool is_loss_known(const fn_session *s) {
  return !s->parameters->device || s->dist->size > 1;
}

/** What ranks with devices sum beside the gradients they have waited for: the loss, and the running
 *  statistics. */
static fn_status fetch_shared(fn_session *s, int64_t micro, step_sums *sums) {
  if (!s->parameters->device || s->dist->size == 1) return FN_OK;
  FN_TRY(fn_parameters_buffers_to_host(s->parameters));
  if (micro > 1) return fn_session_loss_sum(s, &sums->loss);
  FN_TRY(fn_program_wait(s->last_program));
  sums->loss =
      (double)*(const float *)fn_program_output_data(s->last_program, "loss") * sums->samples;
  return FN_OK;
}

/** What every step ends with: loss and requests summed over ranks, running statistics of batch norm
 *  averaged, so that all ranks hold the same state after every step. */
static fn_status agree_on_step(fn_session *s, step_sums *sums) {
  double v[] = {isfinite(sums->loss) ? sums->loss : 0, sums->samples, sums->stop, sums->save,
                sums->failed};
  const int bad = isfinite(sums->loss) ? 0 : s->dist->size - s->dist->rank;
  FN_TRY(fn_dist_sum(s->dist, v, (int64_t)(sizeof v / sizeof v[0])));
  const int worst = fn_dist_max(s->dist, bad);
  *sums = (step_sums){.loss = v[0],
                      .samples = v[1],
                      .stop = v[2],
                      .save = v[3],
                      .failed = v[4],
                      .bad_rank = worst ? s->dist->size - worst + 1 : 0};
  if (sums->failed > 0) return FN_OK; // a device that has failed has no statistics to average
  return fn_dist_average_buffers(s->dist, s->parameters);
}

bool fn_step_wants_stop(fn_session *s) {
  if (fn_stop_requested()) return true;
  if (s->dist->rank != 0) return false;
  if (s->options->stop && s->options->stop(s->options->self)) return true;
  const bool epoch_ends = s->progress.epoch_step + s->flight.active + 2 >= s->epoch_steps;
  return fn_limits_reached(&s->limits, s->longest_step + fn_saver_foretell(s->saver) +
                                           (epoch_ends ? s->longest_validation : 0));
}

/* ---- steps that are not finite
 * -------------------------------------------------------------------- */

/** What running a batch again overwrites, on the host: gradients, then buffers. */
static fn_status keep_arrays(fn_parameters *p, float **kept) {
  *kept = malloc((size_t)(p->count + p->buffer_count + 1) * sizeof **kept);
  FN_CHECK(*kept, FN_ERR_MEMORY, "out of memory for gradients");
  FN_TRY(fn_parameters_gradients_to_host(p));
  FN_TRY(fn_parameters_buffers_to_host(p));
  memcpy(*kept, p->gradients, (size_t)p->count * sizeof **kept);
  memcpy(*kept + p->count, p->buffers, (size_t)p->buffer_count * sizeof **kept);
  return FN_OK;
}

static void put_back(fn_parameters *p, const float *kept) {
  memcpy(p->gradients, kept, (size_t)p->count * sizeof *kept);
  memcpy(p->buffers, kept + p->count, (size_t)p->buffer_count * sizeof *kept);
  fn_mirror_changed(fn_parameters_mirror(p, FN_MIRROR_GRADIENTS));
  fn_parameters_buffers_changed(p);
}

/** Whose gradient it was cannot be seen after the sum over ranks and batches: each rank runs the
 *  step's last batch once more by itself. 1 + lowest rank with a gradient that is not finite; 0:
 *  none, an earlier batch of the step was bad, or there is no room to find out. Collective. */
static fn_status find_bad_gradient(fn_session *s, int *found) {
  const fn_dist *dist = s->dist;
  fn_parameters *p = s->parameters;
  *found = 1;
  if (dist->size == 1 && s->flight.micro == 1) return FN_OK; // there is no other
  *found = 0;
  fn_batch batch = {0};
  float *kept = NULL;
  double loss;
  fn_status status = fn_read_again(s, &batch);
  if (status == FN_OK) status = keep_arrays(p, &kept);
  if (fn_dist_max(dist, status != FN_OK) == 0) {
    status = run_batch(s, &batch, false, &loss);
    if (status == FN_OK) status = fn_parameters_gradients_to_host(p);
    const bool bad = status == FN_OK && fn_gradient_not_finite(p) >= 0;
    if (status == FN_OK) put_back(p, kept);
    const int worst = fn_dist_max(dist, bad ? dist->size - dist->rank : 0);
    *found = worst ? dist->size - worst + 1 : 0;
  } else if (status != FN_ERR_DEVICE) {
    fn_error_clear();
    status = FN_OK;
  }
  free(kept);
  fn_read_again_free(&batch);
  return fn_dist_agree(dist, status);
}

/** The first cell of this step's samples that is not finite, if there is one, with what ends a
 *  message: of the lowest rank that read one. Collective. */
static fn_status find_bad_cell(fn_session *s, char *text, size_t size) {
  const fn_sample_list *all = &s->flight.list;
  fn_status status = FN_OK;
  for (int64_t n = 0; n < all->count && status == FN_OK; n++)
    status = fn_dataset_check_finite(s->train, s->progress.epoch, all->sample[n]);
  if (status != FN_OK && status != FN_ERR_DIVERGED) { // to be met again by whoever reads it next
    fn_error_clear();
    status = FN_OK;
  }
  text[0] = '\0';
  status = fn_dist_agree(s->dist, status);
  if (status != FN_ERR_DIVERGED) return status;
  snprintf(text, size, "; %s", fn_error_message());
  fn_error_clear();
  return FN_OK;
}

/** Not finite: stop, or go on with the weights as they are. */
static fn_status diverged(fn_session *s, int bad_rank, const char *tensor) {
  char what[512], cell[1024];
  int rank = bad_rank;
  FN_TRY(find_bad_cell(s, cell, sizeof cell));
  const bool loss = rank > 0;
  if (!loss) FN_TRY(find_bad_gradient(s, &rank));
  if (rank > 0)
    snprintf(what, sizeof what, "the %s of rank %d is not finite%s", loss ? "loss" : "gradient",
             rank - 1, loss ? "" : ", though its loss is");
  else
    snprintf(what, sizeof what, "the gradients summed over ranks and batches are not finite");
  char first[300] = "";
  if (tensor) snprintf(first, sizeof first, "; first bad gradient: %s", tensor);
  if (strcmp(s->run->train.on_nan, "skip") == 0) {
    fn_log(FN_WARN, "step %lld: %s%s%s; step skipped", (long long)s->progress.step + 1, what, first,
           cell);
    return FN_OK;
  }
  FN_FAIL(
      FN_ERR_DIVERGED, "step %lld (epoch %lld): %s%s%s. %s", (long long)s->progress.step + 1,
      (long long)s->progress.epoch + 1, what, first, cell,
      cell[0]
          ? "Mend the file (fieldnet data inspect counts such cells) or leave it out; or go "
            "on without such steps: train.on_nan: skip"
          : "No such cell was found in its samples: lower optimizer.lr, set train.clip_norm, or "
            "train.on_nan: skip");
}

/* ---- the account of a step
 * ------------------------------------------------------------------------ */

void fn_step_tell_progress(const fn_session *s) {
  if (!s->observer || !s->observer->progress) return;
  const fn_progress *p = &s->progress;
  s->observer->progress(s->observer->self,
                        &(fn_progress_event){p->step, p->epoch, p->epoch_step, s->epoch_steps});
}

static void report_step(fn_session *s, const fn_judgement *judgement, double loss, double samples,
                        double loss_scale) {
  const fn_flight *f = &s->flight;
  const double now = fn_clock(), wait = fn_loader_waited(f->loader);
  double busy, exposed;
  fn_reducer_times(s->reducer, &busy, &exposed);
  s->since_samples += (int64_t)samples;
  fn_step_tell_progress(s);
  if (!f->due) return;
  if (s->observer && s->observer->step) {
    const fn_step_event event = {
        .step = s->progress.step,
        .epoch = s->progress.epoch + 1,
        .epoch_step = s->progress.epoch_step,
        .epoch_steps = s->epoch_steps,
        .epochs = s->run->train.epochs,
        .loss = samples > 0 ? loss / samples : (double)NAN,
        .lr = f->lr,
        .gradient_norm = judgement->norm,
        .gradient_first = sqrt(judgement->squares[1]) / loss_scale,
        .gradient_last = sqrt(judgement->squares[2]) / loss_scale,
        .seconds = now - s->since_clock,
        .samples = s->since_samples,
        .input_wait = wait - s->since_wait,
        .exposed_communication = exposed - s->since_exposed,
        .memory_peak = fn_memory_peak(),
    };
    s->observer->step(s->observer->self, &event);
  }
  s->since_clock = now;
  s->since_wait = wait;
  s->since_exposed = exposed;
  s->since_samples = 0;
}

/** What the judgement of the step on its way means. Collective. */
static fn_status account(fn_session *s, const fn_judgement *judgement) {
  fn_flight *f = &s->flight;
  f->active = false;
  double loss = f->loss, samples = f->samples;
  int bad_rank = f->bad_rank;
  if (!f->loss_known) {
    // The sum over micro-batches has the samples in it.
    loss = judgement->loss * (f->micro > 1 ? 1 : samples);
    bad_rank = isfinite(judgement->loss) ? 0 : 1;
  }
  const double loss_scale = fn_loss_scale(&s->progress);
  if (judgement->verdict != FN_STEP_TAKEN) fn_optimizer_undo(s->optimizer);
  if (judgement->verdict == FN_STEP_BAD) {
    FN_TRY(diverged(s, bad_rank, fn_gradient_name(s->parameters, judgement->bad)));
    loss = samples = 0; // does not count in the epoch's mean
  } else if (fn_loss_scale_update(&s->progress, judgement->verdict == FN_STEP_TAKEN)) {
    fn_log(FN_DETAIL, "step %lld: gradients exceed f16; step left out, loss scale lowered to %g",
           (long long)s->progress.step + 1, s->progress.loss_scale);
  }
  s->progress.step++;
  s->progress.epoch_step++;
  s->progress.samples += (int64_t)samples;
  s->progress.loss_sum += loss;
  s->progress.loss_count += samples;
  report_step(s, judgement, loss, samples, loss_scale);
  s->longest_step = fmax(s->longest_step, fn_clock() - f->start);
  return FN_OK;
}

fn_status fn_step_settle(fn_session *s) {
  if (!s->flight.active) return FN_OK;
  fn_judgement judgement;
  fn_status status = fn_session_noted(s);
  if (status == FN_OK) status = fn_judge_read(s->judge, &judgement);
  FN_TRY(fn_dist_agree(s->dist, status));
  return account(s, &judgement);
}

/* ---- one step
 * ------------------------------------------------------------------------------------- */

/** First and last weight, whose gradients are reported; false: there is none. */
static bool find_watched(const fn_parameters *p, const fn_tensor_entry *watched[2]) {
  watched[0] = watched[1] = NULL;
  for (int e = 0; e < p->entry_count; e++) {
    if (p->entry[e].is_buffer || !strstr(p->entry[e].name, "weight")) continue;
    if (!watched[0]) watched[0] = &p->entry[e];
    watched[1] = &p->entry[e];
  }
  return watched[0] != NULL;
}

/** The loss where it was computed: of the last batch, or summed over micro-batches. */
static const float *loss_place(const fn_session *s) {
  if (s->flight.micro > 1) return s->loss_sum.memory;
  return fn_program_output_place(s->last_program, "loss");
}

/** The judge and what obeys it. */
static fn_status apply(fn_session *s) {
  const fn_flight *f = &s->flight;
  fn_progress taken = s->progress, left_out = s->progress;
  fn_loss_scale_update(&taken, true);
  const bool lowers = fn_loss_scale_update(&left_out, false);
  const fn_step_facts facts = {.loss = f->loss_known ? NULL : loss_place(s),
                               .bad = f->bad_rank > 0,
                               .lowers = lowers,
                               .clip = s->run->train.clip_norm,
                               .loss_scale = fn_loss_scale(&s->progress),
                               .next_scale = {[FN_STEP_TAKEN] = (float)fn_loss_scale(&taken),
                                              [FN_STEP_LEFT_OUT] = (float)fn_loss_scale(&left_out),
                                              [FN_STEP_BAD] = (float)fn_loss_scale(&s->progress)}};
  const fn_tensor_entry *watched[2];
  const bool watches = f->due && s->observer && find_watched(s->parameters, watched);
  return fn_session_apply(s, &facts, watches ? watched : NULL);
}

fn_status fn_step_take(fn_session *s, fn_loader *loader, int64_t micro, bool *save) {
  const fn_run *run = s->run;
  const double start = fn_clock();
  step_sums sums = {0};
  fn_flight *f = &s->flight;
  fn_judgement before;
  fn_status failed = fn_session_noted(s);
  if (failed == FN_OK) failed = fn_session_keep_buffers(s);
  s->coming.count = 0;
  FN_TRY(gradients(s, loader, micro, &sums, &failed));
  // The device has all of this step's kernels to run while the host hears of the last one.
  if (failed == FN_OK && f->active) failed = fn_judge_read(s->judge, &before);
  if (failed == FN_OK) failed = fetch_shared(s, micro, &sums);
  fn_step_enter(s, FN_PHASE_AGREE);
  sums.failed = failed != FN_OK;
  sums.stop = fn_step_wants_stop(s);
  sums.save = fn_save_requested() || (s->saver && fn_saver_retry_due(s->saver));
  FN_TRY(agree_on_step(s, &sums));
  if (sums.failed > 0) return fn_dist_agree(s->dist, failed);
  if (f->active) FN_TRY(account(s, &before));
  s->stopping = sums.stop > 0;
  *save = sums.save > 0;
  const int64_t total = run->train.epochs * s->epoch_steps;
  const fn_progress *p = &s->progress;
  f->active = true;
  f->micro = micro;
  f->samples = sums.samples;
  f->loss = sums.loss;
  f->bad_rank = (int)sums.bad_rank;
  f->loss_known = is_loss_known(s);
  f->lr = fn_schedule_rate(run, &s->schedule, p->step, p->epoch, total);
  f->due = (p->step + 1) % run->train.log_interval == 0 || s->stopping;
  f->start = start;
  f->loader = loader;
  const fn_sample_list done = f->list;
  f->list = s->coming;
  s->coming = done;
  fn_session_note(s, apply(s));
  if (fn_judge_defers(s->judge)) return FN_OK;
  FN_TRY(fn_judge_read(s->judge, &before)); // is there already: nothing to agree on
  return account(s, &before);
}
