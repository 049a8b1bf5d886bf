/** @file sinks.h
 *  Where the events of a run go. Inside the report room only; rank 0 only.
 *
 *  All files survive a resume: what was logged after the step that the run goes on from is set
 *  aside, so that no step and no epoch appears twice.
 */
#ifndef FN_REPORT_SINKS_H
#define FN_REPORT_SINKS_H

#include <stdio.h>

#include "base/text.h"
#include "run/observer.h"

/** Fewest digits that read back as the same double; "" when not finite. Returns buffer. */
char *fn_report_number(double value, char *buffer, size_t size);
/** Local time "2026-03-01 12:00:00" by strftime's format. Returns buffer. */
char *fn_report_time(const char *format, char *buffer, size_t size);

/** A line that belongs to no step: it stays. */
#define FN_NO_STEP INT64_MIN
/** A line that is damaged: it goes. */
#define FN_NO_LINE INT64_MAX

/** Keep the lines of a text file whose step is at most resumed_step. Later ones wait in a hidden
 *  file beside it until fn_report_forget(), and come back when before that a start goes on from a
 *  later state without having logged those steps again. A last line without its end (torn by a
 *  kill) goes. The file is replaced only if something changes. A missing file is fine. */
fn_status fn_report_trim(const char *path, int64_t resumed_step,
                         int64_t (*step)(void *user, const char *line), void *user);
/** Lines that wait beside `path` are of a past that is over: the run wrote a state since it went
 *  back, or is done. `path` may be "". */
void fn_report_forget(const char *path);
/** Open for appending, one line at a time. */
fn_status fn_report_append(const char *path, FILE **file);
/** Write text and hand it to the system; FN_ERR_DATA naming `path` on failure, FN_ERR_MEMORY and
 *  nothing written when the text is incomplete. */
fn_status fn_report_put(FILE *file, const char *path, const fn_text *text);

/* ---- tables: steps.csv, a row per logged step; metrics.csv, a row per epoch
 * ------------------------ */

typedef struct fn_csv {
  FILE *steps, *metrics;
  char steps_path[4096], metrics_path[4096];
  int64_t epochs; /**< last epoch already in metrics.csv; 0: none */
  bool classes;   /**< metrics.csv has columns for metrics of two classes */
} fn_csv;

fn_status fn_csv_open(const char *folder, int64_t resumed_step, bool classes, fn_csv *csv);
fn_status fn_csv_step(fn_csv *csv, const fn_step_event *event);
fn_status fn_csv_epoch(fn_csv *csv, const fn_epoch_event *event);
void fn_csv_close(fn_csv *csv);
/** Columns epoch, train_loss and validation_loss of metrics.csv, malloc'ed as one block
 *  [3][count] with the epochs first. */
fn_status fn_csv_history(const fn_csv *csv, double **values, int64_t *count);

/* ---- metrics.jsonl: one object per event
 * ------------------------------------------------------------- */

typedef struct fn_jsonl {
  FILE *file;
  char path[4096];
} fn_jsonl;

fn_status fn_jsonl_open(const char *folder, int64_t resumed_step, fn_jsonl *jsonl);
/** `placement`: where the ranks are; NULL when nobody told. */
fn_status fn_jsonl_start(fn_jsonl *jsonl, const char *summary, int64_t resumed_step, int ranks,
                         const char *placement);
fn_status fn_jsonl_warning(fn_jsonl *jsonl, const char *text);
fn_status fn_jsonl_step(fn_jsonl *jsonl, const fn_step_event *event);
fn_status fn_jsonl_epoch(fn_jsonl *jsonl, const fn_epoch_event *event);
fn_status fn_jsonl_saved(fn_jsonl *jsonl, const char *path, double seconds);
fn_status fn_jsonl_finish(fn_jsonl *jsonl, fn_status status);
void fn_jsonl_close(fn_jsonl *jsonl);

/* ---- tensorboard/<start>/events.out.tfevents.*
 * --------------------------------------------------------- */

typedef struct fn_tensorboard fn_tensorboard;

typedef struct fn_scalar {
  const char *tag;
  double value; /**< left out when NaN */
} fn_scalar;

/** A new event file; those of earlier starts lose what is beyond resumed_step, or, for tags that
 *  count epochs (.../epoch/..., fig/...), beyond `epochs`. */
fn_status fn_tensorboard_open(const char *folder, int64_t resumed_step, int64_t epochs,
                              fn_tensorboard **board);
fn_status fn_tensorboard_scalars(fn_tensorboard *board, int64_t step, const fn_scalar *scalars,
                                 int count);
fn_status fn_tensorboard_image(fn_tensorboard *board, const char *tag, int64_t step, int width,
                               int height, const unsigned char *png, size_t count);
void fn_tensorboard_close(fn_tensorboard *board);

/** CRC-32C (Castagnoli) of bytes. */
uint32_t fn_crc32c(const void *bytes, size_t count);

/* ---- console
 * ------------------------------------------------------------------------------------------- */

typedef struct fn_console {
  bool terminal;      /**< progress line redrawn in place */
  double started;     /**< fn_clock at the start */
  double drawn;       /**< fn_clock of the last progress line */
  int64_t first_step; /**< steps done before this start */
} fn_console;

void fn_console_start(fn_console *console, const char *summary, int64_t resumed_step);
void fn_console_step(fn_console *console, const fn_step_event *event);
void fn_console_epoch(fn_console *console, const fn_epoch_event *event);
void fn_console_saved(fn_console *console, const char *path, double seconds);
void fn_console_finish(fn_console *console, const char *folder, fn_status status);
/** Text of one progress line, without bar. */
void fn_console_line(const fn_console *console, const fn_step_event *event, double now,
                     fn_text *line);

#endif
