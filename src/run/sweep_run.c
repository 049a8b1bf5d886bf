#include "run/sweep_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "dist/mpi_status.h"
#include "models/models.h"
#include "run/folder_lock.h"
#include "run/limits.h"
#include "run/run_loop.h"
#include "run/signals.h"
#include "run/sweep_queue.h"

/** A rank and its group. */
typedef struct worker {
  const fn_sweep *sweep;
  const fn_sweep_work *work;
  fn_sweep_queue *queue;
  fn_dist group;
  fn_limits limits; /**< of the job */
  // of the trial in hand
  fn_sweep_task task;
  bool told_over;   /**< the store's answer to a report ended it */
  fn_status broken; /**< the queue failed while it was trained */
} worker;

static bool leads(const worker *w) {
  return w->group.rank == 0;
}

/* ---- what training asks ------------------------------------------------------------------------
 */

static bool on_stop(void *self) {
  worker *w = self;
  return fn_sweep_queue_stopping(w->queue);
}

static fn_status on_epoch(void *self, const fn_epoch_event *event, bool *enough) {
  worker *w = self;
  fn_report_answer answer = FN_REPORT_GO;
  w->broken = fn_sweep_queue_report(w->queue, &w->task.claim, event->epoch,
                                    fn_sweep_metric_value(w->sweep, event), &answer);
  FN_TRY(w->broken);
  w->told_over = answer != FN_REPORT_GO;
  *enough = answer == FN_REPORT_STOP;
  FN_CHECK(answer != FN_REPORT_LOST, FN_ERR_LOST, // nothing may be written any more
           "another job has taken trial %lld over", (long long)w->task.claim.trial);
  return FN_OK;
}

/* ---- one trial ----------------------------------------------------------------------------------
 */

static fn_status make_trial(const worker *w, fn_arena *arena, fn_trial *trial) {
  const fn_sweep_task *task = &w->task;
  if (task->set_count == 0) return fn_sweep_trial_make(w->sweep, task->claim.trial, arena, trial);
  const char **set = fn_arena_take(arena, (size_t)task->set_count * sizeof *set);
  const char *text = task->set;
  for (int i = 0; i < task->set_count; i++) {
    set[i] = text;
    text += strlen(text) + 1;
  }
  return fn_sweep_trial_from(w->sweep, task->claim.trial, set, task->set_count, arena, trial);
}

/** Append to trial.log in the trial's folder, and be sure that nobody else writes there. */
static fn_status open_log(const worker *w, const fn_trial *trial, FILE **log) {
  fn_folder_lock *lock;
  const fn_status status = fn_folder_lock_take(trial->folder, &lock);
  if (status == FN_ERR_CONFIG) return FN_ERR_LOST; // a worker given up for dead lives: no failure
  FN_TRY(status);
  char path[4096], date[64];
  snprintf(path, sizeof path, "%s/trial.log", trial->folder);
  *log = fopen(path, "ae");
  fn_folder_lock_give(lock);
  FN_CHECK(*log, FN_ERR_CHECKPOINT, "cannot write %s", path);
  const time_t now = time(NULL);
  struct tm local;
  strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", localtime_r(&now, &local));
  fprintf(*log, "---- %s, attempt %lld on %s, process %ld\n", date,
          (long long)w->task.claim.attempt, fn_host_name(), (long)getpid());
  for (int i = 0; i < trial->set_count; i++)
    fprintf(*log, "%s\n", trial->set[i]);
  fflush(*log);
  return FN_OK;
}

/** The run of a trial; a mistake in it is told with its place in the first line of all errors. */
static fn_status load_run(const worker *w, const fn_trial *trial, FILE *log, fn_run **run) {
  char *errors = NULL;
  fn_status status = fn_sweep_trial_load(w->sweep, trial, FN_COMMAND_TRAIN, run, &errors);
  if (errors && log) fprintf(log, "%s", errors);
  if (errors) fn_error_set(status, __FILE__, __LINE__, "%.*s", (int)strcspn(errors, "\n"), errors);
  free(errors);
  if (status == FN_OK && (*run)->plugin) status = fn_plugin_load((*run)->plugin);
  return status;
}

/** Train a run whose messages go to `log` (NULL but on the leader). */
static fn_status train(worker *w, const fn_run *run, FILE *log, fn_train_result *result) {
  const fn_train_options options = {
      .self = w, .deadline = w->limits.deadline, .stop = on_stop, .epoch = on_epoch};
  fn_observer observer = {0};
  if (log && w->work->observe) {
    const fn_status status = w->work->observe(run, &observer);
    if (status != FN_OK) fn_log(FN_WARN, "no report of this trial: %s", fn_error_message());
  }
  const fn_status status =
      fn_train_with(run, &w->group, observer.self ? &observer : NULL, &options, result);
  if (observer.self) w->work->unobserve(&observer);
  return status;
}

/** The trial in hand, all but telling of its end. Collective over the group. */
static fn_status work_on(worker *w, fn_arena *arena, fn_train_result *result, FILE **log) {
  fn_trial trial = {0};
  fn_run *run = NULL;
  fn_status status = make_trial(w, arena, &trial);
  if (status == FN_OK && leads(w)) status = open_log(w, &trial, log);
  FN_TRY(fn_dist_agree(&w->group, status));
  const fn_level before = fn_log_get_level();
  fn_log_to(*log);
  status = fn_dist_agree(&w->group, load_run(w, &trial, *log, &run));
  if (status == FN_OK) {
    fn_log_set_level(fn_run_verbosity(run));
    status = train(w, run, *log, result);
  }
  if (status != FN_OK && !fn_is_stop(status) && *log)
    fprintf(*log, "%s: %s\n", fn_status_name(status), fn_error_message());
  fn_run_destroy(run);
  fn_log_set_level(before);
  fn_log_to(NULL);
  return status;
}

/** *status of the queue, on all ranks of the group. */
static fn_status do_trial(worker *w) {
  fn_train_result result = {.best_metric = NAN};
  FILE *log = NULL;
  w->told_over = false;
  w->broken = FN_OK;
  const double start = fn_clock();
  fn_arena *arena = fn_arena_create();
  fn_status status =
      arena ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  status = fn_dist_agree(&w->group, status);
  if (status == FN_OK) status = work_on(w, arena, &result, &log);
  fn_arena_destroy(arena);
  if (log) fclose(log);
  fn_status told = w->broken;
  if (leads(w) && told == FN_OK && !w->told_over)
    told = fn_sweep_queue_end(w->queue, &w->task.claim, status, &result, fn_clock() - start);
  if (told == FN_OK) fn_error_clear(); // what the trial suffered is recorded
  return fn_dist_agree(&w->group, told);
}

/* ---- the job ------------------------------------------------------------------------------------
 */

/** Wait for the leader's word without keeping the core busy: it may be long in coming. */
static fn_status share_task(worker *w) {
  MPI_Request pending;
  int done = 0;
  FN_TRY_MPI(MPI_Ibcast(&w->task, sizeof w->task, MPI_BYTE, 0, w->group.comm, &pending),
             "sharing a trial");
  while (!done) {
    FN_TRY_MPI(MPI_Test(&pending, &done, MPI_STATUS_IGNORE), "sharing a trial");
    const struct timespec moment = {.tv_nsec = 1000000};
    if (!done) nanosleep(&moment, NULL);
  }
  return FN_OK;
}

/** The group's trials, one after another. Collective over the group. */
static fn_status do_trials(worker *w) {
  for (;;) {
    const bool late = fn_clock() + w->limits.margin > w->limits.deadline;
    const bool stop = fn_dist_max(&w->group, late || fn_stop_requested());
    fn_status status = leads(w) ? fn_sweep_queue_take(w->queue, stop, &w->task) : FN_OK;
    FN_TRY(fn_dist_agree(&w->group, status));
    if (w->group.size > 1) FN_TRY(share_task(w));
    if (w->task.order == FN_SWEEP_LEAVE) return FN_OK;
    if (w->task.order == FN_SWEEP_WORK) FN_TRY(do_trial(w));
  }
}

static fn_status start(worker *w, const fn_sweep *sweep, const fn_dist *dist, fn_run **run) {
  const int64_t group = w->work->group;
  FN_CHECK(group >= 1 && dist->size % group == 0, FN_ERR_CONFIG,
           "--group: %d ranks are no multiple of %lld", dist->size, (long long)group);
  char *errors = NULL;
  const fn_status status = fn_run_load(sweep->run_path, sweep->set.text, sweep->set.count,
                                       FN_COMMAND_OTHER, run, &errors);
  if (errors && dist->rank == 0) fputs(errors, stderr);
  free(errors);
  FN_TRY(status);
  return fn_limits_start(*run, &w->limits);
}

fn_status fn_sweep_train(const fn_sweep *sweep, const fn_dist *dist, const fn_sweep_work *work) {
  fn_run *run = NULL;
  worker *w = calloc(1, sizeof *w);
  fn_status status = w ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  FN_TRY(fn_dist_agree(dist, status));
  *w = (worker){.sweep = sweep, .work = work, .group = {.comm = MPI_COMM_NULL}};
  fn_signals_install();
  status = fn_dist_agree(dist, start(w, sweep, dist, &run));
  char halt[4096];
  const fn_sweep_queue_options options = {.group = (int)work->group,
                                          .trials = work->trials,
                                          .trial_count = work->trial_count,
                                          .halt = halt,
                                          .quiet = run && fn_run_verbosity(run) < FN_INFO};
  if (status == FN_OK) snprintf(halt, sizeof halt, "%s/%s", sweep->folder, run->run.halt_file);
  if (status == FN_OK) status = fn_sweep_queue_create(sweep, dist, &options, &w->queue);
  if (status == FN_OK) {
    status = fn_dist_split(dist, dist->rank / options.group, dist->rank, &w->group);
    fn_log_identify(w->group.rank, w->group.size);
    if (status == FN_OK) status = do_trials(w);
    fn_log_identify(dist->rank, dist->size);
    if (leads(w)) fn_sweep_queue_leave(w->queue);
  }
  fn_sweep_queue_destroy(w->queue, &status);
  fn_dist_release(&w->group);
  fn_run_destroy(run);
  free(w);
  return status;
}
