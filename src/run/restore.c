/* Saving and restoring a training session. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "run/epoch.h"
#include "run/session.h"
#include "run/session_arrays.h"
#include "run/starts.h"

/* ---- restore
 * -------------------------------------------------------------------------------------- */

/** How a changed key is met on resume. */
typedef struct change_rule {
  const char *prefix;
  enum { REFUSE, REFUSE_INSIDE_EPOCH } kind;
} change_rule;

static const change_rule rules[] = {
    {"model.", REFUSE},
    {"optimizer.name", REFUSE},
    {"optimizer.amsgrad", REFUSE},
    {"optimizer.centered", REFUSE},
    {"seed", REFUSE_INSIDE_EPOCH},
    {"data.train", REFUSE_INSIDE_EPOCH},
    {"data.crop", REFUSE_INSIDE_EPOCH},
    {"data.divide", REFUSE_INSIDE_EPOCH},
    {"data.shuffle", REFUSE_INSIDE_EPOCH},
    {"train.accumulate", REFUSE_INSIDE_EPOCH},
};

typedef struct changes {
  bool inside_epoch;
  bool lenient; /**< what fits of another run's state is wanted: nothing that it tells is binding */
  bool other_best; /**< checkpoint.best changed: what the state found best was something else */
  fn_text refused;
} changes;

static void on_change(void *user, const char *key, const char *before, const char *after) {
  changes *c = user;
  if (strcmp(key, "checkpoint.best") == 0) c->other_best = true;
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
    if (!fn_text_starts(key, rules[i].prefix)) continue;
    if (rules[i].kind == REFUSE_INSIDE_EPOCH ? !c->inside_epoch : c->lenient) continue;
    fn_text_add(&c->refused, "%s  %s: %s -> %s%s", c->refused.length ? "\n" : "", key, before,
                after, rules[i].kind == REFUSE ? "" : " (possible between epochs)");
    return;
  }
  fn_log(FN_INFO, "changed since the state was written: %s: %s -> %s", key, before, after);
}

/** The settings that the state at `path` was written with against those of this run; before
 * anything is loaded, so that a setting is named rather than the tensors that it changes. */
static fn_status check_changes(const fn_run *run, const char *path, bool lenient,
                               bool *other_best) {
  char *old = NULL;
  fn_progress progress;
  fn_state state = {.progress = &progress};
  FN_TRY(fn_checkpoint_load(path, true, &state, &old));
  changes c = {.inside_epoch = progress.stretches > 0, .lenient = lenient};
  fn_status status = old ? fn_run_compare(old, run, on_change, &c) : FN_OK;
  if (status == FN_OK && c.refused.length > 0)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "%s was written with settings that cannot change on resume:\n%s\nSet "
                          "them back, or start in another folder",
                          path, c.refused.data);
  fn_text_free(&c.refused);
  *other_best = c.other_best;
  free(old);
  return status;
}

/** Rank 0: which state to start from; *path NULL for none. malloc'ed. *foreign: it is not one of
 *  this folder. */
static fn_status choose_state(const fn_run *run, char **path, bool *foreign) {
  *path = NULL;
  *foreign = false;
  FN_TRY(fn_checkpoint_find(run->folder, path));
  if (*path && run->train.fresh) {
    const fn_status status = fn_error_set(
        FN_ERR_CONFIG, __FILE__, __LINE__,
        "train.fresh is set, but %s exists; nothing is overwritten: choose another folder", *path);
    free(*path);
    *path = NULL;
    return status;
  }
  if (*path) {
    const fn_status status = fn_starts_choose(run, path);
    if (status == FN_OK && run->train.load_state && run->train.load_state[0])
      fn_log(FN_INFO, "train.load_state was for the beginning: this run goes on from its own %s",
             *path);
    if (status == FN_OK) return FN_OK;
    free(*path);
    *path = NULL;
    return status;
  }
  // Going on with this folder's own run comes before a foreign starting point.
  if (!run->train.load_state || !run->train.load_state[0]) return FN_OK;
  FN_CHECK(fn_file_exists(run->train.load_state), FN_ERR_CHECKPOINT, "%s: state %s does not exist",
           fn_run_where(run, "train.load_state"), run->train.load_state);
  *foreign = true;
  *path = strdup(run->train.load_state);
  FN_CHECK(*path, FN_ERR_MEMORY, "out of memory");
  return FN_OK;
}

fn_status fn_start_check(const fn_run *run, fn_parameters *parameters, char **path) {
  bool foreign, other_best;
  FN_TRY(choose_state(run, path, &foreign));
  if (!*path) return FN_OK;
  const bool strict = run->train.load_strict;
  fn_state state = {.parameters = parameters};
  fn_status status = check_changes(run, *path, foreign && !strict, &other_best);
  if (status == FN_OK && parameters) status = fn_checkpoint_load(*path, strict, &state, NULL);
  if (status == FN_OK) return FN_OK;
  free(*path);
  *path = NULL;
  return status;
}

/** A count that cannot be written is no reason not to train. */
static void note_start(fn_session *s, char *path) {
  s->start = path;
  if (fn_starts_note(s->run->folder, path) != FN_OK) fn_log(FN_WARN, "%s", fn_error_message());
  fn_error_clear();
}

static fn_status load_on_root(fn_session *s, bool *resumed) {
  char *path = NULL;
  bool foreign, other_best = false;
  *resumed = false;
  FN_TRY(choose_state(s->run, &path, &foreign));
  if (!path) return FN_OK;
  fn_state state = {.parameters = s->parameters,
                    .optimizer = s->optimizer,
                    .ema = s->ema,
                    .schedule = &s->schedule,
                    .progress = &s->progress};
  const double rate = s->schedule.base_lr;
  const bool strict = s->run->train.load_strict;
  fn_status status = check_changes(s->run, path, foreign && !strict, &other_best);
  if (status == FN_OK) status = fn_checkpoint_load(path, strict, &state, NULL);
  if (status == FN_OK) {
    // A new optimizer.lr takes effect: what plateaus took off is kept as a factor.
    if (s->schedule.base_lr > 0) s->schedule.current *= rate / s->schedule.base_lr;
    s->schedule.base_lr = rate;
    *resumed = true;
    if (other_best) { // judged anew from here
      s->progress.best_metric = NAN;
      s->progress.best_epoch = s->progress.epoch;
    }
    fn_log(FN_INFO, "going on from %s: %lld epoch%s and %lld step%s done", path,
           (long long)s->progress.epoch, s->progress.epoch == 1 ? "" : "s",
           (long long)s->progress.step, s->progress.step == 1 ? "" : "s");
  }
  if (*resumed && !foreign) {
    note_start(s, path);
  } else {
    free(path);
  }
  return status;
}

static fn_status share(fn_session *s, bool *resumed) {
  const fn_dist *dist = s->dist;
  fn_parameters *p = s->parameters;
  FN_TRY(fn_dist_broadcast(dist, resumed, sizeof *resumed));
  fn_session_changed(s);
  FN_TRY(fn_dist_broadcast(dist, p->values, p->count * (int64_t)sizeof(float)));
  FN_TRY(fn_dist_broadcast(dist, p->buffers, p->buffer_count * (int64_t)sizeof(float)));
  FN_TRY(fn_dist_broadcast(dist, &s->progress, sizeof s->progress));
  FN_TRY(fn_dist_broadcast(dist, &s->schedule, sizeof s->schedule));
  for (int i = 0; i < fn_optimizer_state_count(s->optimizer); i++)
    FN_TRY(fn_dist_broadcast(dist, fn_optimizer_state(s->optimizer, i),
                             p->count * (int64_t)sizeof(float)));
  for (int i = 0; i < fn_optimizer_scalar_count(s->optimizer); i++) {
    const char *name;
    FN_TRY(fn_dist_broadcast(dist, fn_optimizer_scalar(s->optimizer, i, &name), sizeof(double)));
  }
  int64_t steps = fn_optimizer_steps(s->optimizer);
  FN_TRY(fn_dist_broadcast(dist, &steps, sizeof steps));
  fn_optimizer_set_steps(s->optimizer, steps);
  if (s->ema) FN_TRY(fn_dist_broadcast(dist, s->ema, p->count * (int64_t)sizeof(float)));
  return FN_OK;
}

fn_status fn_session_lock(fn_session *session) {
  const fn_status status =
      session->dist->rank == 0 ? fn_folder_lock_take(session->run->folder, &session->lock) : FN_OK;
  return fn_dist_agree(session->dist, status);
}

fn_status fn_session_restore(fn_session *session, bool *resumed) {
  *resumed = false;
  fn_status status = session->dist->rank == 0 ? load_on_root(session, resumed) : FN_OK;
  FN_TRY(fn_dist_agree(session->dist, status));
  return share(session, resumed);
}

/* ---- save
 * ------------------------------------------------------------------------------------------- */

static int64_t state_index(const fn_progress *progress) {
  // The state of an unfinished epoch has that epoch's number and is replaced when it ends.
  return progress->epoch + (progress->stretches > 0);
}

static fn_state state_of(fn_session *s) {
  return (fn_state){.parameters = s->parameters,
                    .optimizer = s->optimizer,
                    .ema = s->ema,
                    .schedule = &s->schedule,
                    .progress = &s->progress,
                    .configuration = s->run->resolved};
}

static void on_result(void *user, const fn_save_result *result) {
  const fn_session *s = user;
  if (result->status == FN_OK) {
    fn_log(FN_DETAIL, "%s: %.3f s copied, %.3f s written, the save before waited for %.3f s",
           result->path, result->snapshot, result->seconds, result->waited);
    if (s->observer && s->observer->saved)
      s->observer->saved(s->observer->self, result->path, result->seconds);
  } else if (s->last_saving) {
    return; // the error that the run ends with
  } else if (s->over) {
    fn_log(FN_WARN, "%s; training has ended without that state", result->message);
  } else if (s->stopping || s->finished) {
    fn_log(FN_WARN, "%s; the last state is written next", result->message);
  } else {
    fn_log(FN_WARN, "%s; training goes on, the next try is in %.3g s or with the next state",
           result->message, result->retry_in);
  }
}

fn_status fn_session_prepare_saves(fn_session *session) {
  if (session->dist->rank != 0) return FN_OK;
  const fn_state state = state_of(session);
  return fn_saver_create(session->run, &state, session->run->checkpoint.background, on_result,
                         session, &session->saver);
}

static fn_status save_on_root(fn_session *s, bool is_best) {
  FN_TRY(fn_session_to_host(s));
  const fn_state state = state_of(s);
  // Losing a save is not losing the run, but the last one must succeed.
  const bool last = s->stopping || s->finished;
  if (last) fn_saver_wait(s->saver); // one before that failed is told as such
  fn_error_clear();                  // and is no reason for what comes
  s->last_saving = last;
  fn_saver_save(s->saver, &state, state_index(&s->progress), is_best);
  return last ? fn_saver_wait(s->saver) : FN_OK;
}

fn_status fn_session_save(fn_session *session, bool is_best) {
  fn_watchdog_enter(session->watchdog, FN_PHASE_SAVE, session->progress.step);
  const fn_status status = session->dist->rank == 0 ? save_on_root(session, is_best) : FN_OK;
  session->last_save = fn_clock();
  return fn_dist_agree(session->dist, status);
}

void fn_session_end(fn_session *session, fn_status status) {
  char message[4096]; // why the run ends, whatever happens here
  snprintf(message, sizeof message, "%s", fn_error_message());
  session->over = true;
  fn_saver_destroy(session->saver); // nothing is written behind the end
  session->saver = NULL;
  const char *folder = session->run->folder;
  const bool crash = status == FN_ERR_INTERNAL || status == FN_ERR_MEMORY ||
                     status == FN_ERR_LOST || status == FN_ERR_DEVICE;
  if (session->start && (status == FN_OK || status == FN_INTERRUPTED)) {
    fn_starts_forget(folder);
  } else if (session->start && !crash) {
    fn_starts_settle(folder, session->start); // another try will not mend it, nor an older state
  }
  fn_error_clear();
  if (message[0]) fn_error_set(FN_OK, __FILE__, __LINE__, "%s", message);
}
