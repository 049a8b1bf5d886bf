/** @file page.h
 *  Runs as one HTML page: what a page holds of a run, and its sections. `fn_page_write` is for the
 *  outside, the rest for the page's own files.
 */
#ifndef FN_REPORT_PAGE_H
#define FN_REPORT_PAGE_H

#include "base/arena.h"
#include "report/html.h"
#include "report/run_status.h"
#include "report/table.h"

/** The page of the runs in `folder`, shape [count]. What cannot be read is left out and named on
 *  the page. */
fn_status fn_page_write(const char *const *folder, int count, const char *title, fn_text *html);
/** Whether a file begins like a page of this program. */
bool fn_page_is_ours(const char *path);

/* ---- inside ---------------------------------------------------------------------------------- */

typedef struct fn_page_setting {
  const char *key, *value; /**< "train.batch", "4" */
} fn_page_setting;

typedef enum fn_page_event_kind {
  FN_PAGE_START,
  FN_PAGE_FINISH,
  FN_PAGE_WARNING
} fn_page_event_kind;

/** A line of metrics.jsonl that is not about a step, an epoch or a saved state. Texts may be "". */
typedef struct fn_page_event {
  fn_page_event_kind kind;
  const char *time, *host, *version, *summary, *placement, *text;
  int64_t step, ranks; /**< start: resumed from; -1: nobody told */
} fn_page_event;

typedef struct fn_page_run {
  const char *folder, *name; /**< name: what tells the runs of the page apart */
  int colour;
  fn_run_status status;
  fn_table steps, metrics, spectra;
  fn_page_setting *setting;
  int settings;
  fn_page_event *event;
  int events;
  int64_t saves;
  double save_seconds; /**< mean */
  fn_text trouble;     /**< files that could not be read */
} fn_page_run;

typedef struct fn_page {
  fn_arena *arena;
  fn_page_run *run;
  int count;
  double now;
} fn_page;

/** Read everything of all runs; fn_page_unload frees. */
fn_status fn_page_load(const char *const *folder, int count, fn_page *page);
void fn_page_unload(fn_page *page);
/** NULL when the run has no such key. */
const char *fn_page_value(const fn_page_run *run, const char *key);

/* Each appends one section. */
void fn_page_overview(const fn_page *page, fn_text *html);
void fn_page_curves(const fn_page *page, fn_text *html);
/** Keys that differ, then all keys of each run. */
void fn_page_settings(const fn_page *page, fn_text *html);
/** Power spectra of tests, if there are any. */
void fn_page_spectra(const fn_page *page, fn_text *html);
void fn_page_tests(const fn_page *page, fn_text *html);
void fn_page_figures(const fn_page *page, fn_text *html);
/** Where the ranks were, starts and ends, states, warnings. */
void fn_page_history(const fn_page *page, fn_text *html);

#endif
