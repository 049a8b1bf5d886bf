#include "report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>

#include "base/log.h"
#include "base/system.h"
#include "report/beat.h"
#include "report/plot.h"
#include "report/sinks.h"

typedef struct report {
  const fn_run *run;
  fn_console console;
  fn_csv csv;
  fn_jsonl jsonl;
  fn_tensorboard *board;
  fn_beat *beat;
  int ranks;
  char *placement;
  bool tables, lines, events, plots; // still in order
  bool tables_begun, lines_begun;    // opened since the start: later steps of earlier ones are gone
  int64_t resumed;                   // step that this start goes on from
  pthread_mutex_t lock;              // of what other threads add
  fn_text warnings;                  // not yet written; each ends with NUL
  int64_t warned;                    // how many there were
} report;

/** A kind of output that fails is left out with one warning; the run is worth more than its log. */
static void check(fn_status status, bool *working, const char *what) {
  if (status == FN_OK) return;
  *working = false;
  fn_log(FN_WARN, "no more %s for now: %s", what, fn_error_message());
  fn_error_clear();
}

static void check_tables(report *r, fn_status status) {
  check(status, &r->tables, "rows in metrics.csv and steps.csv");
}
static void check_lines(report *r, fn_status status) {
  check(status, &r->lines, "lines in metrics.jsonl");
}
static void check_events(report *r, fn_status status) {
  check(status, &r->events, "TensorBoard events");
}
static void check_plots(report *r, fn_status status) {
  check(status, &r->plots, "plots");
}

static void forget_rows(const report *r) {
  fn_report_forget(r->csv.steps_path);
  fn_report_forget(r->csv.metrics_path);
}

/** Once per epoch: a disk that was full may have room again. What was written in part is taken
 * away, rows of the time between are lost: those of an earlier start must not take their place. A
 * failure was told when it began. */
static void try_again(report *r, const fn_epoch_event *e) {
  if (!r->tables) {
    fn_csv_close(&r->csv);
    if (r->tables_begun) forget_rows(r);
    r->tables = fn_csv_open(r->run->folder, r->tables_begun ? e->step - 1 : r->resumed,
                            fn_run_has_cubes(r->run), &r->csv) == FN_OK;
    r->tables_begun |= r->tables;
    if (r->tables) fn_log(FN_INFO, "rows are written to metrics.csv and steps.csv again");
  }
  if (!r->lines) {
    fn_jsonl_close(&r->jsonl);
    if (r->lines_begun) fn_report_forget(r->jsonl.path);
    r->lines = fn_jsonl_open(r->run->folder, r->lines_begun ? e->step - 1 : r->resumed,
                             &r->jsonl) == FN_OK;
    r->lines_begun |= r->lines;
    if (r->lines) fn_log(FN_INFO, "lines are written to metrics.jsonl again");
  }
  fn_error_clear();
}

/** Called by whoever logs, on any thread, inside the log: takes notes, and tells the beat, which of
 *  an error that ends the process writes at once. */
static void on_warning(void *self, fn_level level, const char *line) {
  report *r = self;
  enum { MOST = 1 << 16 };
  fn_beat_message(r->beat, line, level == FN_ERROR);
  pthread_mutex_lock(&r->lock);
  r->warned++;
  if (r->warnings.length < MOST) fn_text_add_bytes(&r->warnings, line, strlen(line) + 1);
  pthread_mutex_unlock(&r->lock);
}

/** What was noted, into metrics.jsonl. */
static void put_warnings(report *r) {
  if (!r->lines) return;
  pthread_mutex_lock(&r->lock);
  fn_text noted = r->warnings;
  r->warnings = (fn_text){0};
  pthread_mutex_unlock(&r->lock);
  for (size_t i = 0; i < noted.length && r->lines; i += strlen(noted.data + i) + 1)
    check_lines(r, fn_jsonl_warning(&r->jsonl, noted.data + i));
  fn_text_free(&noted);
}

static void on_placement(void *self, int ranks, const char *table) {
  report *r = self;
  r->ranks = ranks;
  free(r->placement);
  r->placement = strdup(table);
}

/** The listener calls into the beat: it must not hear while the beat comes or goes. */
static void set_beat(report *r, fn_beat *beat) {
  fn_log_listen(NULL, NULL);
  r->beat = beat;
  fn_log_listen(on_warning, r);
}

static void start_beat(report *r, int64_t resumed_step) {
  fn_beat *beat = NULL;
  if (fn_beat_start(r->run, r->run->report.status_interval, r->ranks, resumed_step, r->warned,
                    &beat) != FN_OK) {
    fn_log(FN_WARN, "the run cannot be watched: %s", fn_error_message());
    fn_error_clear();
  }
  set_beat(r, beat);
}

static void stop_beat(report *r, bool ended, fn_status status, const char *message) {
  fn_beat *beat = r->beat;
  set_beat(r, NULL);
  fn_beat_stop(beat, ended, status, message);
}

static void on_start(void *self, const fn_run *run, const char *summary, int64_t resumed_step) {
  report *r = self;
  r->run = run;
  fn_console_start(&r->console, summary, resumed_step);
  fn_csv_close(&r->csv);
  fn_jsonl_close(&r->jsonl);
  fn_tensorboard_close(r->board);
  r->board = NULL;
  r->tables = r->lines = true;
  r->events = run->report.tensorboard;
  r->plots = run->report.plots;
  const fn_status status = fn_make_directories(run->folder);
  check_tables(r, status == FN_OK
                      ? fn_csv_open(run->folder, resumed_step, fn_run_has_cubes(run), &r->csv)
                      : status);
  check_lines(r, fn_jsonl_open(run->folder, resumed_step, &r->jsonl));
  r->resumed = resumed_step;
  r->tables_begun = r->tables;
  r->lines_begun = r->lines;
  if (r->lines)
    check_lines(r, fn_jsonl_start(&r->jsonl, summary, resumed_step, r->ranks, r->placement));
  stop_beat(r, false, FN_OK, NULL);
  start_beat(r, resumed_step);
  put_warnings(r);
  if (r->events) {
    // without a readable table nobody knows which epochs are complete: keep them all
    const int64_t epochs = r->tables ? r->csv.epochs : INT64_MAX;
    check_events(r, fn_tensorboard_open(run->folder, resumed_step, epochs, &r->board));
  }
  if (r->plots) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/plots", run->folder);
    check_plots(r, fn_make_directories(folder));
  }
}

static void on_progress(void *self, const fn_progress_event *e) {
  fn_beat_progress(((report *)self)->beat, e);
}

static void on_step(void *self, const fn_step_event *e) {
  report *r = self;
  fn_beat_step(r->beat, e);
  put_warnings(r);
  fn_console_step(&r->console, e);
  if (r->tables) check_tables(r, fn_csv_step(&r->csv, e));
  if (r->lines) check_lines(r, fn_jsonl_step(&r->jsonl, e));
  if (!r->events) return;
  const double seconds = e->seconds > 0 ? e->seconds : (double)NAN;
  const fn_scalar scalars[] = {
      {"loss/batch/train", e->loss},
      {"grad/first", e->gradient_first},
      {"grad/last", e->gradient_last},
      {"grad/norm", e->gradient_norm},
      {"lr", e->lr},
      {"throughput/samples_per_second", (double)e->samples / seconds},
      {"throughput/input_wait_fraction", e->input_wait / seconds},
      {"throughput/exposed_communication_fraction", e->exposed_communication / seconds},
      {"memory/peak_bytes", (double)e->memory_peak}};
  check_events(
      r, fn_tensorboard_scalars(r->board, e->step, scalars, sizeof scalars / sizeof scalars[0]));
}

/** Save as plots/NAME.png and, for line drawings, .svg. */
static fn_status save_plot(const report *r, const fn_picture *picture, const char *name, bool svg) {
  char path[4096];
  snprintf(path, sizeof path, "%s/plots/%s.png", r->run->folder, name);
  FN_TRY(fn_picture_save(picture, path));
  if (!svg) return FN_OK;
  snprintf(path, sizeof path, "%s/plots/%s.svg", r->run->folder, name);
  return fn_picture_save(picture, path);
}

/** Redrawn from metrics.csv, so that the curve goes back to before a resume. */
static fn_status draw_losses(const report *r) {
  double *values;
  int64_t count;
  FN_TRY(fn_csv_history(&r->csv, &values, &count));
  fn_picture *picture = NULL;
  fn_status status = FN_OK;
  if (count > 0) {
    status = fn_plot_losses(values, values + count, values + 2 * count, count, &picture);
    if (status == FN_OK) status = save_plot(r, picture, "loss", true);
  }
  fn_picture_destroy(picture);
  free(values);
  return status;
}

/** A state saved at the last step of an epoch, then a kill after the epoch was logged: the resumed
 * run ends that epoch once more. */
static bool logged_before(const report *r, int64_t epoch) {
  return epoch <= r->csv.epochs;
}

static void on_epoch(void *self, const fn_epoch_event *e) {
  report *r = self;
  fn_beat_epoch(r->beat, e);
  if (!r->tables || !r->lines) try_again(r, e);
  put_warnings(r);
  fn_console_epoch(&r->console, e);
  if (logged_before(r, e->epoch)) return;
  if (r->tables) check_tables(r, fn_csv_epoch(&r->csv, e));
  if (r->lines) check_lines(r, fn_jsonl_epoch(&r->jsonl, e));
  if (r->events) {
    const fn_scalar scalars[] = {{"loss/epoch/train", e->train_loss},
                                 {"loss/epoch/val", e->validation_loss},
                                 {"accuracy/epoch/val", e->validation_accuracy},
                                 {"auc/epoch/val", e->validation_auc},
                                 {"f1/epoch/val", e->validation_f1}};
    check_events(
        r, fn_tensorboard_scalars(r->board, e->epoch, scalars, sizeof scalars / sizeof scalars[0]));
  }
  if (r->plots && r->tables) check_plots(r, draw_losses(r));
}

static fn_status put_image(fn_tensorboard *board, const char *tag, int64_t step,
                           const fn_picture *picture) {
  unsigned char *bytes;
  size_t count;
  int width, height;
  FN_TRY(fn_picture_png(picture, &bytes, &count, &width, &height));
  const fn_status status = fn_tensorboard_image(board, tag, step, width, height, bytes, count);
  free(bytes);
  return status;
}

/** One picture of a batch to events and plots; status is that of drawing it. */
static void put_figure(report *r, const fn_figure_event *e, fn_status status, fn_picture *picture,
                       const char *tag, const char *name, bool svg) {
  if (status != FN_OK) {
    fn_log_once(FN_WARN, "cannot draw a figure: %s", fn_error_message());
    fn_error_clear();
  } else if (picture) {
    char text[64];
    snprintf(text, sizeof text, tag, e->stage);
    if (r->events && !logged_before(r, e->epoch))
      check_events(r, put_image(r->board, text, e->epoch, picture));
    snprintf(text, sizeof text, name, e->stage);
    if (r->plots) check_plots(r, save_plot(r, picture, text, svg));
  }
  fn_picture_destroy(picture);
}

static void on_figure(void *self, const fn_figure_event *e) {
  report *r = self;
  if (!r->events && !r->plots) return;
  fn_picture *picture = NULL;
  fn_status status = fn_plot_figure_slices(e, &picture);
  put_figure(r, e, status, picture, "fig/%s", "%s_slices", e->spatial == 1);
  picture = NULL;
  status = fn_plot_figure_spectra(e, &picture);
  put_figure(r, e, status, picture, "fig/%s/power/lag", "%s_power", true);
}

/** The run has a state beyond the one that it started from, or is done: what went on from there
 * before is not taken after all. */
static void forget_aside(const report *r) {
  forget_rows(r);
  fn_report_forget(r->jsonl.path);
}

static void on_saved(void *self, const char *path, double seconds) {
  report *r = self;
  fn_console_saved(&r->console, path, seconds);
  if (r->lines) check_lines(r, fn_jsonl_saved(&r->jsonl, path, seconds));
  forget_aside(r);
}

static void on_finish(void *self, fn_status status) {
  report *r = self;
  // the message of a failed run belongs to whoever ended it: trouble here must not replace it
  char message[4096];
  snprintf(message, sizeof message, "%s", fn_error_message());
  put_warnings(r);
  if (r->lines) check_lines(r, fn_jsonl_finish(&r->jsonl, status));
  if (status == FN_OK) forget_aside(r);
  stop_beat(r, true, status, message);
  fn_console_finish(&r->console, r->run->folder, status);
  if (strcmp(message, fn_error_message()) != 0) {
    fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s", message);
  }
}

fn_status fn_report_create(const fn_run *run, fn_observer *observer) {
  report *r = calloc(1, sizeof *r);
  FN_CHECK(r, FN_ERR_MEMORY, "no memory for the report of a run");
  r->run = run;
  r->ranks = 1;
  pthread_mutex_init(&r->lock, NULL);
  fn_log_listen(on_warning, r);
  *observer = (fn_observer){.self = r,
                            .placement = on_placement,
                            .start = on_start,
                            .progress = on_progress,
                            .step = on_step,
                            .epoch = on_epoch,
                            .figure = on_figure,
                            .saved = on_saved,
                            .finish = on_finish};
  return FN_OK;
}

void fn_report_destroy(fn_observer *observer) {
  report *r = observer->self;
  if (!r) return;
  stop_beat(r, false, FN_OK, NULL);
  fn_log_listen(NULL, NULL);
  fn_csv_close(&r->csv);
  fn_jsonl_close(&r->jsonl);
  fn_tensorboard_close(r->board);
  fn_text_free(&r->warnings);
  pthread_mutex_destroy(&r->lock);
  free(r->placement);
  free(r);
  *observer = (fn_observer){0};
}
