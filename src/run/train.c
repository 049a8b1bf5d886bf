/* The training loop. Every decision that changes control flow is made from reduced numbers, so that
 * all ranks make the same one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "dist/placement.h"
#include "run/best.h"
#include "run/epoch.h"
#include "run/loss_scale.h"
#include "run/open_data.h"
#include "run/run_loop.h"
#include "run/session.h"
#include "run/session_arrays.h"
#include "run/signals.h"
#include "run/sizes.h"
#include "run/step.h"
#include "run/validate.h"

/* ---- one epoch
 * ------------------------------------------------------------------------------------- */

/** Between steps: save when asked or due; true in *stop when the run is to end here. */
static fn_status after_step(fn_session *s, bool asked, int64_t steps_this_start, bool last_of_epoch,
                            bool *stop) {
  const fn_run *run = s->run;
  if (s->saver) fn_saver_poll(s->saver);
  if (run->train.stop_after_steps > 0 && steps_this_start >= run->train.stop_after_steps)
    s->stopping = true;
  *stop = s->stopping;
  if (last_of_epoch) return FN_OK; // the end of the epoch asks again, and saves
  int due = asked;
  if (run->checkpoint.every_minutes > 0)
    due |= fn_clock() - s->last_save > 60 * run->checkpoint.every_minutes;
  if (run->checkpoint.every_minutes > 0) due = fn_dist_max(s->dist, due); // clocks differ
  if (!due && !s->stopping) return FN_OK;
  FN_TRY(fn_step_settle(s));
  fn_save_done();
  return fn_session_save(s, false);
}

typedef struct epoch_plan {
  int64_t *list;
  int64_t count;          /**< samples of this rank */
  int64_t first, batches; /**< done, all */
} epoch_plan;

/** Of values that may be as large as the type allows. */
static int64_t ceil_divide(int64_t a, int64_t b) {
  return a / b + (a % b > 0);
}

static fn_status plan_epoch(fn_session *s, epoch_plan *plan) {
  const fn_run *run = s->run;
  const int64_t samples = fn_dataset_epoch_samples(s->train);
  FN_CHECK(fn_epoch_has_room(&s->progress, s->dist->size, run->train.batch), FN_ERR_CHECKPOINT,
           "this epoch was run on %d different job sizes already; go on with the last one",
           FN_STRETCHES_MOST);
  int64_t *order = malloc((size_t)samples * sizeof *order);
  FN_CHECK(order, FN_ERR_MEMORY, "out of memory for the order of %lld samples", (long long)samples);
  fn_status status = fn_dataset_order(s->train, s->progress.epoch, order);
  if (status == FN_OK)
    status = fn_epoch_list(&s->progress, order, samples, s->dist->rank, s->dist->size,
                           run->train.batch, &plan->list, &plan->count, &plan->first);
  free(order);
  plan->batches = ceil_divide(plan->count, run->train.batch);
  // What another number of ranks left of this epoch may have another last batch.
  return status == FN_OK ? fn_engine_plan_batches(s->engine, plan->count, false) : status;
}

static fn_status run_steps(fn_session *s, const epoch_plan *plan, fn_loader *loader,
                           int64_t *steps_this_start, bool *stopped, bool *complete) {
  const int64_t accumulate = s->run->train.accumulate;
  int64_t batch = plan->first;
  while (batch < plan->batches && !*stopped) {
    int64_t micro = plan->batches - batch < accumulate ? plan->batches - batch : accumulate;
    bool save;
    FN_TRY(fn_step_take(s, loader, micro, &save));
    batch += micro;
    (*steps_this_start)++;
    FN_TRY(after_step(s, save, *steps_this_start, batch >= plan->batches, stopped));
  }
  FN_TRY(fn_step_settle(s));
  *complete = batch >= plan->batches;
  return FN_OK;
}

/** Requests up to now, those during validation and in the epoch's last step included. Collective.
 */
static fn_status agree_on_requests(fn_session *s, bool *save) {
  double asked[] = {fn_step_wants_stop(s), fn_save_requested()};
  FN_TRY(fn_dist_sum(s->dist, asked, 2));
  s->stopping |= asked[0] > 0;
  *save = asked[1] > 0;
  return FN_OK;
}

/** After an epoch or, `resumed`, before the first: all epochs done, or enough of them. */
static void find_end(fn_session *s, bool resumed) {
  char why[256];
  const bool all = s->progress.epoch >= s->run->train.epochs;
  const bool enough = !all && fn_best_suffices(s->run, &s->progress, why, sizeof why);
  s->finished |= all || enough;
  if (s->end == FN_TRAIN_UNFINISHED && s->finished)
    s->end = all ? FN_TRAIN_EPOCHS : FN_TRAIN_ENOUGH;
  if (enough)
    fn_log(FN_INFO, "%s early after epoch %lld: %s", resumed ? "this run was stopped" : "stopped",
           (long long)s->progress.epoch, why);
}

/** Tell whoever started the run of the epoch just done, and hear whether that is enough.
 * Collective.
 */
static fn_status tell_caller(fn_session *s, const fn_epoch_event *event) {
  const fn_train_options *o = s->options;
  if (!o->epoch) return FN_OK;
  bool enough = false;
  FN_TRY(fn_dist_agree(s->dist, s->dist->rank == 0 ? o->epoch(o->self, event, &enough) : FN_OK));
  if (!fn_dist_max(s->dist, enough) || event->epoch >= event->epochs) return FN_OK;
  s->finished = true;
  s->end = FN_TRAIN_TOLD;
  return FN_OK;
}

static fn_status end_of_epoch(fn_session *s, double seconds) {
  fn_progress *progress = &s->progress;
  const fn_run *run = s->run;
  progress->train_loss =
      progress->loss_count > 0 ? progress->loss_sum / progress->loss_count : (double)NAN;
  fn_draw_training(s);
  const double start = fn_clock();
  if (s->validation) fn_step_enter(s, FN_PHASE_VALIDATE);
  fn_validation validation = {.loss = NAN, .accuracy = NAN, .auc = NAN, .f1 = NAN};
  if (s->validation) FN_TRY(fn_validate(s, &validation));
  progress->validation_loss = validation.loss;
  s->longest_validation = fmax(s->longest_validation, fn_clock() - start);
  progress->epoch++;
  progress->stretches = 0;
  progress->epoch_step = 0;
  progress->loss_sum = progress->loss_count = 0;
  const bool by_validation = strcmp(run->schedule.metric, "validation") == 0 && s->validation;
  const double rate = s->schedule.current;
  const double watched = by_validation ? progress->validation_loss : progress->train_loss;
  // A validation that does not count is neither better nor worse.
  const bool counts = !by_validation || isfinite(watched);
  if (counts && fn_schedule_epoch(run, &s->schedule, watched))
    fn_log(FN_INFO, "learning rate lowered from %g to %g", rate, s->schedule.current);
  const bool best = fn_best_update(run, fn_best_value(run, progress, &validation), progress);
  const fn_epoch_event event = {
      .epoch = progress->epoch,
      .epochs = run->train.epochs,
      .step = progress->step,
      .train_loss = progress->train_loss,
      .validation_loss = progress->validation_loss,
      .validation_accuracy = validation.accuracy,
      .validation_auc = validation.auc,
      .validation_f1 = validation.f1,
      .lr = fn_schedule_rate(run, &s->schedule, progress->step, progress->epoch,
                             run->train.epochs * s->epoch_steps),
      .seconds = seconds,
      .best = best,
  };
  if (s->observer && s->observer->epoch) s->observer->epoch(s->observer->self, &event);
  FN_TRY(tell_caller(s, &event));
  bool asked;
  FN_TRY(agree_on_requests(s, &asked));
  const bool due = progress->epoch % run->checkpoint.every_epochs == 0;
  find_end(s, false);
  if (!due && !best && !asked && !s->stopping && !s->finished) return FN_OK;
  fn_save_done(); // before the save: a request from now on is for another one
  return fn_session_save(s, best);
}

static fn_status run_epoch(fn_session *s, int64_t *steps_this_start, bool *stopped) {
  const fn_run *run = s->run;
  const double start = fn_clock();
  epoch_plan plan = {0};
  fn_loader *loader = NULL;
  fn_status status = fn_dist_agree(s->dist, plan_epoch(s, &plan));
  if (status == FN_OK)
    status =
        fn_dist_agree(s->dist, fn_loader_create(s->train, s->progress.epoch, plan.list, plan.count,
                                                run->train.batch, plan.first, run->data.prefetch,
                                                run->data.readers, &loader));
  s->since_clock = start;
  s->since_wait = 0;
  bool complete = false;
  if (status == FN_OK) status = run_steps(s, &plan, loader, steps_this_start, stopped, &complete);
  fn_loader_destroy(loader);
  free(plan.list);
  if (status == FN_OK && complete) status = end_of_epoch(s, fn_clock() - start);
  *stopped |= s->stopping;
  return status;
}

static const fn_progress nothing_done = {
    .best_metric = NAN, .train_loss = NAN, .validation_loss = NAN};

/* ---- the run
 * ------------------------------------------------------------------------------------------ */

static fn_status check_samples(const fn_session *s) {
  const fn_dataset_info *info = fn_dataset_get_info(s->train);
  const int64_t samples = fn_dataset_epoch_samples(s->train);
  FN_CHECK(samples >= s->dist->size, FN_ERR_CONFIG,
           "%s: %lld samples (%lld %s of %lld %s) are fewer than %d ranks; start fewer ranks",
           fn_run_where(s->run, info->cubes ? "data.cubes.train_seeds" : "data.train.input"),
           (long long)samples, (long long)info->files, info->cubes ? "cubes" : "files",
           (long long)info->crops, info->cubes ? "samples" : "crops", s->dist->size);
  return FN_OK;
}

static fn_status check_data(const fn_session *s) {
  const fn_run *run = s->run;
  if (s->validation)
    FN_TRY(fn_sizes_agree(run, fn_dataset_get_info(s->train), fn_dataset_get_info(s->validation),
                          "data.validation.input", true));
  const int fields = fn_dataset_get_info(s->train)->target_fields;
  FN_CHECK(fields <= FN_TARGET_FIELDS_MOST, FN_ERR_CONFIG, "%s: %d target fields; at most %d",
           fn_run_where(run, "data.train.target"), fields, FN_TARGET_FIELDS_MOST);
  return check_samples(s);
}

static fn_status open_data(fn_session *s) {
  FN_TRY(fn_data_open(s->run, FN_STAGE_TRAIN, s->dist, NULL, &s->train));
  if (fn_run_has_data(s->run, "validation", false))
    FN_TRY(fn_data_open(s->run, FN_STAGE_VALIDATION, s->dist, s->train, &s->validation));
  return fn_dist_agree(s->dist, check_data(s));
}

/** How the output channels divide into fields goes into the state, for `predict`. */
static void note_target_fields(fn_progress *progress, const fn_dataset_info *info) {
  progress->target_fields = info->target_fields;
  for (int f = 0; f < info->target_fields; f++)
    progress->target_field_channels[f] = info->field_channels[info->input_fields + f];
}

static fn_status prepare(fn_session *s) {
  const fn_run *run = s->run;
  const fn_dataset_info *info = fn_dataset_get_info(s->train);
  FN_TRY(fn_engine_create(run, s->dist, info, &s->engine));
  s->parameters = fn_engine_parameters(s->engine);
  FN_TRY(fn_engine_take_raw(s->engine, s->train));
  if (s->validation) FN_TRY(fn_engine_take_raw(s->engine, s->validation));
  int64_t begin, count;
  fn_rank_slice(fn_dataset_epoch_samples(s->train), s->dist->rank, s->dist->size, true, &begin,
                &count);
  // Also the short last batch: made now, where a failure can still be agreed on.
  FN_TRY(fn_engine_plan_batches(s->engine, count, false));
  FN_TRY(fn_engine_warn_narrow(s->engine));
  FN_TRY(fn_optimizer_create(run, s->parameters, &s->optimizer));
  FN_TRY(fn_session_arrays_create(s));
  fn_schedule_init(run, &s->schedule);
  s->progress = nothing_done;
  note_target_fields(&s->progress, info);
  FN_TRY(fn_session_prepare_saves(s));
  s->epoch_steps = ceil_divide(ceil_divide(count, run->train.batch), run->train.accumulate);
  return FN_OK;
}

static fn_status write_configuration(const fn_session *s) {
  if (s->dist->rank != 0) return FN_OK;
  char path[4096];
  snprintf(path, sizeof path, "%s/resolved.yaml", s->run->folder);
  FN_TRY(fn_make_directories(s->run->folder));
  // Like a state that cannot be written, and unlike fields that cannot be read, worth another try.
  FN_CHECK(fn_file_replace(path, s->run->resolved, strlen(s->run->resolved)) == FN_OK,
           FN_ERR_CHECKPOINT, "%s", fn_error_message());
  return FN_OK;
}

static void announce(const fn_session *s, bool resumed) {
  if (!s->observer || !s->observer->start) return;
  const fn_dataset_info *info = fn_dataset_get_info(s->train);
  char summary[512], bytes[32];
  snprintf(summary, sizeof summary,
           "%s: %lld parameters, %lld samples (%s), %d rank%s of %d thread%s, %lld steps per epoch",
           s->run->model.layers ? "layers" : s->run->model.name,
           (long long)s->parameters->parameter_total, (long long)fn_dataset_epoch_samples(s->train),
           fn_text_bytes((double)info->bytes, bytes, sizeof bytes), s->dist->size,
           s->dist->size > 1 ? "s" : "", fn_threads_get(), fn_threads_get() > 1 ? "s" : "",
           (long long)s->epoch_steps);
  s->observer->start(s->observer->self, s->run, summary, resumed ? s->progress.step : 0);
  fn_step_tell_progress(s);
}

/** Where the ranks are, once, before anything takes long. Collective. */
static fn_status show_placement(const fn_session *s) {
  fn_text table = {0};
  char device[64];
  const fn_device *taken = s->parameters->device;
  snprintf(device, sizeof device, taken ? "%s %d" : "%s", s->run->compute.backend,
           taken ? taken->info.index : 0);
  fn_launch_doubt(s->dist->size);
  const fn_status status = fn_placement_table(s->dist, device, &table);
  if (table.data) table.data[table.length - 1] = '\0'; // the log ends its lines itself
  if (table.data) fn_log(s->dist->size > 1 ? FN_INFO : FN_DETAIL, "%s", table.data);
  if (s->observer && s->observer->placement)
    s->observer->placement(s->observer->self, s->dist->size, table.data ? table.data : "");
  fn_text_free(&table);
  return status;
}

static void show_reduction(const fn_session *s) {
  char text[400];
  fn_reducer_describe(s->reducer, text, sizeof text);
  if (text[0]) fn_log(FN_INFO, "%s", text);
}

/** How the fields of a sample get to the device, on rank 0. */
static fn_status show_ways(const fn_session *s) {
  if (s->dist->rank != 0) return FN_OK;
  fn_text text = {0};
  const fn_status status = fn_dataset_say_ways(s->train, &text);
  if (status == FN_OK && text.length > 0) fn_log(FN_INFO, "%s", text.data);
  fn_text_free(&text);
  return status;
}

static fn_status train(fn_session *s) {
  FN_TRY(fn_dist_agree(s->dist, fn_limits_start(s->run, &s->limits)));
  s->limits.deadline = fmin(s->limits.deadline, s->options->deadline);
  FN_TRY(open_data(s));
  FN_TRY(fn_dist_agree(s->dist, prepare(s)));
  FN_TRY(fn_dist_agree(
      s->dist, fn_reducer_create(s->dist, s->parameters, s->run->train.first_bucket_bytes,
                                 fn_reducer_bucket_bytes(s->parameters, s->run->train.bucket_bytes),
                                 fn_reduction_of(s->run), &s->reducer)));
  bool resumed, stopped = false;
  FN_TRY(fn_session_lock(s));
  FN_TRY(fn_session_restore(s, &resumed));
  fn_loss_scale_start(s->run, &s->progress);
  // After the last thing that may refuse the run: what is refused leaves the folder as it was.
  FN_TRY(fn_dist_agree(s->dist, write_configuration(s)));
  FN_TRY(show_placement(s));
  show_reduction(s);
  FN_TRY(fn_dist_agree(s->dist, show_ways(s)));
  announce(s, resumed);
  s->last_save = fn_clock();
  FN_TRY(fn_watchdog_start(s->dist, s->run->run.hang_timeout, &s->watchdog));
  int64_t steps = 0;
  find_end(s, true);
  // A job that was queued before, or the next one of a chain, must not go on either.
  stopped = fn_dist_max(s->dist, s->dist->rank == 0 && fn_limits_halted(&s->limits)) != 0;
  while (!s->finished && !stopped)
    FN_TRY(run_epoch(s, &steps, &stopped));
  const bool halted = s->dist->rank == 0 && s->limits.halted;
  return s->finished ? FN_OK : fn_dist_max(s->dist, halted) ? FN_HALTED : FN_INTERRUPTED;
}

static void release(fn_session *s) {
  free(s->start);
  fn_session_arrays_destroy(s);
  fn_watchdog_stop(s->watchdog);
  fn_reducer_destroy(s->reducer);
  fn_optimizer_destroy(s->optimizer);
  fn_engine_destroy(s->engine);
  fn_dataset_destroy(s->train);
  fn_dataset_destroy(s->validation);
  fn_folder_lock_give(s->lock);
}

static void tell_result(const fn_session *s, fn_status status, fn_train_result *result) {
  const fn_progress *p = &s->progress;
  *result = (fn_train_result){.end = status == FN_OK ? s->end : FN_TRAIN_UNFINISHED,
                              .best_metric = p->best_metric,
                              .best_epoch = p->best_epoch,
                              .epochs = p->epoch,
                              .steps = p->step,
                              .train_loss = p->train_loss,
                              .validation_loss = p->validation_loss};
}

fn_status fn_train_with(const fn_run *run, fn_dist *dist, const fn_observer *observer,
                        const fn_train_options *options, fn_train_result *result) {
  const fn_train_options none = {.deadline = INFINITY};
  fn_session session = {.run = run,
                        .dist = dist,
                        .observer = dist->rank == 0 ? observer : NULL,
                        .options = options ? options : &none,
                        .progress = nothing_done};
  fn_signals_install();
  const fn_status status = train(&session);
  fn_session_end(&session, status);
  tell_result(&session, status, result);
  if (session.observer && observer->finish) observer->finish(observer->self, status);
  release(&session);
  return status;
}

fn_status fn_train(const fn_run *run, fn_dist *dist, const fn_observer *observer) {
  fn_train_result result;
  return fn_train_with(run, dist, observer, NULL, &result);
}
