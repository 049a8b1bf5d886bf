/* How a run gets on, from its folder: status.json, the lock, metrics.csv, the newest state. */
#include "report/run_status.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/system.h"
#include "config/options.h"
#include "report/beat.h"
#include "report/table.h"
#include "run/folder_lock.h"

enum { PATH_SIZE = 4096 };

const char *fn_run_state_name(fn_run_state state) {
  static const char *const names[FN_RUN_STATES] = {"never started", "running", "finished",
                                                   "stopped",       "failed",  "dead"};
  return names[state];
}

/* ---- status.json ----------------------------------------------------------------------------- */

typedef struct told {
  fn_run_state state;
  bool here; // written by a process of this machine
  double interval;
  double ahead; // seconds by which the file's clock, which is ours or the file server's, is ahead
                // of the clock of the machine that runs: the file's time is that of its last word
} told;

static int64_t count(const fn_options *file, const char *key) {
  const double value = fn_option_real(file, key, NAN);
  return isfinite(value) && fabs(value) < 9e15 ? (int64_t)value : -1;
}

static void words(const fn_options *file, const char *key, char *text, size_t size) {
  snprintf(text, size, "%s", fn_option_text(file, key, ""));
}

static fn_run_state state_told(const fn_options *file) {
  const char *text = fn_option_text(file, "state", "");
  for (int s = 0; s < FN_RUN_STATES; s++)
    if (strcmp(text, fn_run_state_name((fn_run_state)s)) == 0) return (fn_run_state)s;
  return FN_RUN_NEVER;
}

static void read_file(const fn_options *file, fn_run_status *s, told *t) {
  char boot[64];
  fn_boot_id(boot, sizeof boot);
  t->state = state_told(file);
  t->here = boot[0] && strcmp(boot, fn_option_text(file, "machine", "")) == 0;
  t->interval = fn_option_real(file, "interval", NAN);
  words(file, "host", s->host, sizeof s->host);
  words(file, "job", s->job, sizeof s->job);
  words(file, "version", s->version, sizeof s->version);
  words(file, "message", s->message, sizeof s->message);
  s->pid = count(file, "pid");
  s->ranks = count(file, "ranks");
  s->epochs = count(file, "epochs");
  s->epochs_done = count(file, "epochs_done");
  s->step = count(file, "step");
  s->epoch_step = count(file, "epoch_step");
  s->epoch_steps = count(file, "epoch_steps");
  s->warnings = count(file, "warnings");
  s->exit_code = count(file, "exit_code");
  s->loss = fn_option_real(file, "loss", NAN);
  s->train_loss = fn_option_real(file, "train_loss", NAN);
  s->validation_loss = fn_option_real(file, "validation_loss", NAN);
  s->lr = fn_option_real(file, "lr", NAN);
  s->samples_per_second = fn_option_real(file, "samples_per_second", NAN);
  s->started = fn_option_real(file, "started", NAN);
  s->updated = fn_option_real(file, "updated", NAN);
  s->stepped = fn_option_real(file, "stepped", NAN);
  const double left = (double)(s->epochs * s->epoch_steps - s->step);
  const double taken = (double)(s->step - count(file, "resumed_step"));
  // Steps with everything between them - validation, saves - at the pace of this start.
  if (taken > 0 && left >= 0 && s->epoch_steps > 0)
    s->eta = left * (s->stepped - s->started) / taken;
}

static fn_status read_status_file(const char *folder, fn_run_status *s, told *t) {
  char path[PATH_SIZE], *text;
  snprintf(path, sizeof path, "%s/" FN_BEAT_FILE, folder);
  if (!fn_file_exists(path)) return FN_OK;
  FN_TRY(fn_file_read(path, &text, NULL));
  fn_options *file = NULL;
  const fn_status status = fn_options_from_text(text, path, &file);
  if (status == FN_OK && file) read_file(file, s, t);
  struct stat info;
  if (isfinite(s->updated) && stat(path, &info) == 0)
    t->ahead = (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec - s->updated;
  fn_options_destroy(file);
  free(text);
  return status == FN_OK ? FN_OK : FN_ERR_DATA;
}

/* ---- other files ----------------------------------------------------------------------------- */

/** The last lines of metrics.jsonl about start and end, for folders without status.json. */
static fn_status read_events(const char *folder, told *t) {
  char path[PATH_SIZE], *text;
  snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
  if (!fn_file_exists(path)) return FN_OK;
  FN_TRY(fn_file_read(path, &text, NULL));
  for (const char *line = text; line && *line; line = strchr(line, '\n')) {
    line += *line == '\n';
    if (fn_text_starts(line, "{\"event\":\"start\"")) t->state = FN_RUN_RUNNING;
    if (!fn_text_starts(line, "{\"event\":\"finish\"")) continue;
    const char *status = strstr(line, "\"status\":");
    const int code = status ? atoi(status + 9) : FN_ERR_INTERNAL;
    t->state = code == FN_OK                 ? FN_RUN_FINISHED
               : fn_is_stop((fn_status)code) ? FN_RUN_STOPPED
                                             : FN_RUN_FAILED;
  }
  free(text);
  return FN_OK;
}

static void find_best(const fn_table *table, fn_run_status *s) {
  const double *epoch = fn_table_column(table, "epoch");
  const double *loss = fn_table_column(table, "validation_loss");
  s->best_is_validation = false;
  for (int64_t i = 0; loss && i < table->rows; i++)
    s->best_is_validation |= isfinite(loss[i]);
  if (!s->best_is_validation) loss = fn_table_column(table, "train_loss");
  for (int64_t i = 0; loss && epoch && i < table->rows; i++) {
    if (!isfinite(loss[i]) || loss[i] >= s->best_loss) continue;
    s->best_loss = loss[i];
    s->best_epoch = (int64_t)epoch[i];
  }
}

static double last(const fn_table *table, const char *name, double otherwise) {
  const double *column = fn_table_column(table, name);
  return column && table->rows > 0 ? column[table->rows - 1] : otherwise;
}

static fn_status read_tables(const char *folder, fn_run_status *s) {
  char path[PATH_SIZE];
  fn_table table;
  snprintf(path, sizeof path, "%s/metrics.csv", folder);
  FN_TRY(fn_table_read(path, &table));
  s->best_loss = INFINITY;
  find_best(&table, s);
  if (!isfinite(s->best_loss)) s->best_loss = (double)NAN;
  s->train_loss = last(&table, "train_loss", s->train_loss);
  s->validation_loss = last(&table, "validation_loss", s->validation_loss);
  // A killed run's table may be some seconds ahead of its status.json.
  const int64_t step = (int64_t)last(&table, "step", -1);
  if (step > s->step) {
    s->step = step;
    s->epochs_done = (int64_t)last(&table, "epoch", -1);
    s->epoch_step = 0;
  }
  fn_table_free(&table);
  return FN_OK;
}

static void read_state_time(const char *folder, fn_run_status *s) {
  char path[PATH_SIZE];
  struct stat info;
  snprintf(path, sizeof path, "%s/checkpoint.h5", folder);
  if (stat(path, &info) == 0)
    s->saved = (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec;
}

/* ---- what it means --------------------------------------------------------------------------- */

/** How long a run may be silent before it counts as dead where nothing better is known. */
static double patience(const told *t) {
  return t->interval > 0 ? fmax(60, 6 * t->interval) : 60;
}

static bool process_exists(int64_t pid) {
  return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

/** Whether a run that did not say that it ended is still there. */
static bool is_alive(const fn_run_status *s, const told *t, fn_lock_state lock, double now) {
  if (lock == FN_LOCK_HELD) return true;
  if (t->here && lock == FN_LOCK_FREE) return false;
  if (t->here) return process_exists(s->pid);
  return now - t->ahead - s->updated < patience(t); // false without status.json
}

/** Running, but does it get on? */
static void look_for_trouble(fn_run_status *s, const told *t, double now) {
  char since[32];
  const double there = now - t->ahead; // by the clock of the machine that runs
  const double silent = there - s->updated, still = there - fmax(s->stepped, s->started);
  const double taken = s->stepped - s->started;
  if (isfinite(silent) && silent > patience(t)) {
    snprintf(s->note, sizeof s->note, "no sign of life for %s",
             fn_text_duration(silent, since, sizeof since));
    return;
  }
  // Of the order of the whole start so far: more than a validation or a save should take.
  if (isfinite(still) && isfinite(taken) && still > fmax(600, taken / 2))
    snprintf(s->note, sizeof s->note, "no step for %s",
             fn_text_duration(still, since, sizeof since));
}

static void conclude(const char *folder, fn_run_status *s, const told *t, double now) {
  const fn_lock_state lock = fn_folder_lock_look(folder);
  s->state = t->state;
  if (t->state == FN_RUN_RUNNING && !is_alive(s, t, lock, now)) s->state = FN_RUN_DEAD;
  if (t->state != FN_RUN_RUNNING && lock == FN_LOCK_HELD) {
    s->state = FN_RUN_RUNNING;
    snprintf(s->note, sizeof s->note, "starting");
  }
  if (s->state == FN_RUN_NEVER && isfinite(s->saved)) s->state = FN_RUN_STOPPED;
  if (s->state == FN_RUN_STOPPED && s->exit_code == FN_HALTED)
    snprintf(s->note, sizeof s->note, "by a halt file");
  if (s->state == FN_RUN_RUNNING && !s->note[0]) look_for_trouble(s, t, now);
  if (s->state != FN_RUN_RUNNING) s->eta = (double)NAN;
}

/** Keep the first complaint: what else there is can be told all the same. */
static void note_trouble(fn_status status, char *trouble, size_t size) {
  if (status == FN_OK) return;
  if (!trouble[0]) snprintf(trouble, size, "%s", fn_error_message());
  fn_error_clear();
}

fn_status fn_run_status_read(const char *folder, double now, fn_run_status *s) {
  const double none = (double)NAN;
  *s = (fn_run_status){.folder = folder,
                       .pid = -1,
                       .ranks = -1,
                       .epochs = -1,
                       .epochs_done = -1,
                       .step = -1,
                       .epoch_step = -1,
                       .epoch_steps = -1,
                       .best_epoch = -1,
                       .warnings = -1,
                       .exit_code = -1};
  s->loss = s->train_loss = s->validation_loss = s->best_loss = none;
  s->lr = s->samples_per_second = none;
  s->started = s->updated = s->stepped = s->saved = s->eta = none;
  told t = {.state = FN_RUN_NEVER, .interval = none};
  char trouble[1024] = "";
  note_trouble(read_status_file(folder, s, &t), trouble, sizeof trouble);
  if (!isfinite(s->updated)) note_trouble(read_events(folder, &t), trouble, sizeof trouble);
  note_trouble(read_tables(folder, s), trouble, sizeof trouble);
  read_state_time(folder, s);
  conclude(folder, s, &t, now);
  FN_CHECK(!trouble[0], FN_ERR_DATA, "%s", trouble);
  return FN_OK;
}

bool fn_run_status_fine(const fn_run_status *status, int runs) {
  for (int i = 0; i < runs; i++)
    if (status[i].state == FN_RUN_FAILED || status[i].state == FN_RUN_DEAD) return false;
  return true;
}
