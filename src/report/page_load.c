/* What a page shows of a run, from its folder. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "config/options.h"
#include "report/page.h"

enum { PATH_SIZE = 4096 };

/** What cannot be read is told on the page, not an error: the rest is worth showing. */
static void note(fn_page_run *run, fn_status status) {
  if (status == FN_OK) return;
  fn_text_add(&run->trouble, "%s%s", run->trouble.length ? "\n" : "", fn_error_message());
  fn_error_clear();
}

static const char *words(fn_arena *arena, const fn_options *node, const char *key) {
  return fn_arena_text(arena, fn_option_text(node, key, ""));
}

/* ---- settings -------------------------------------------------------------------------------- */

/** A value on one line, in YAML's flow style. */
static void add_value(const fn_options *node, fn_text *text) {
  const char *scalar = fn_options_scalar(node);
  const bool list = fn_options_get_kind(node) == FN_OPTIONS_LIST;
  if (fn_options_get_kind(node) == FN_OPTIONS_SCALAR) {
    fn_text_add(text, "%s", scalar && scalar[0] ? scalar : "null");
    return;
  }
  fn_text_add(text, list ? "[" : "{");
  for (int i = 0; i < fn_options_count(node); i++) {
    if (i) fn_text_add(text, ", ");
    if (!list) fn_text_add(text, "%s: ", fn_options_key_at(node, i));
    add_value(fn_options_at(node, i), text);
  }
  fn_text_add(text, list ? "]" : "}");
}

static int count_leaves(const fn_options *node) {
  if (fn_options_get_kind(node) != FN_OPTIONS_MAPPING || fn_options_count(node) == 0) return 1;
  int leaves = 0;
  for (int i = 0; i < fn_options_count(node); i++)
    leaves += count_leaves(fn_options_at(node, i));
  return leaves;
}

static void flatten(fn_arena *arena, const fn_options *node, const char *path, fn_page_run *run) {
  if (fn_options_get_kind(node) == FN_OPTIONS_MAPPING && fn_options_count(node) > 0) {
    for (int i = 0; i < fn_options_count(node); i++)
      flatten(
          arena, fn_options_at(node, i),
          fn_arena_format(arena, "%s%s%s", path, path[0] ? "." : "", fn_options_key_at(node, i)),
          run);
    return;
  }
  fn_text value = {0};
  add_value(node, &value);
  run->setting[run->settings++] =
      (fn_page_setting){path, fn_arena_text(arena, value.data ? value.data : "")};
  fn_text_free(&value);
}

static fn_status load_settings(fn_arena *arena, fn_page_run *run) {
  char path[PATH_SIZE], *text;
  snprintf(path, sizeof path, "%s/resolved.yaml", run->folder);
  if (!fn_file_exists(path)) return FN_OK;
  FN_TRY(fn_file_read(path, &text, NULL));
  fn_options *root = NULL;
  const fn_status status = fn_options_from_text(text, path, &root);
  if (status == FN_OK && root && fn_options_get_kind(root) == FN_OPTIONS_MAPPING) {
    run->setting = fn_arena_take(arena, sizeof *run->setting * (size_t)count_leaves(root));
    flatten(arena, root, "", run);
  }
  fn_options_destroy(root);
  free(text);
  return status;
}

const char *fn_page_value(const fn_page_run *run, const char *key) {
  for (int i = 0; i < run->settings; i++)
    if (strcmp(run->setting[i].key, key) == 0) return run->setting[i].value;
  return NULL;
}

/* ---- events ---------------------------------------------------------------------------------- */

static void add_event(fn_arena *arena, const fn_options *line, fn_page_run *run) {
  const char *kind = words(arena, line, "event");
  if (strcmp(kind, "saved") == 0) {
    run->save_seconds += fn_option_real(line, "seconds", NAN);
    run->saves++;
    return;
  }
  fn_page_event *e = &run->event[run->events];
  e->time = words(arena, line, "time");
  e->host = words(arena, line, "host");
  e->version = words(arena, line, "version");
  e->summary = words(arena, line, "summary");
  e->placement = words(arena, line, "placement");
  const double step = fn_option_real(line, "resumed_step", NAN),
               ranks = fn_option_real(line, "ranks", NAN);
  e->step = isfinite(step) ? (int64_t)step : -1;
  e->ranks = isfinite(ranks) ? (int64_t)ranks : -1;
  if (strcmp(kind, "start") == 0) {
    e->kind = FN_PAGE_START;
  } else if (strcmp(kind, "finish") == 0) {
    e->kind = FN_PAGE_FINISH;
    const char *message = words(arena, line, "message"), *meaning = words(arena, line, "meaning");
    e->text = message[0] ? fn_arena_format(arena, "%s: %s", meaning, message) : meaning;
  } else if (strcmp(kind, "warning") == 0) {
    e->kind = FN_PAGE_WARNING;
    e->text = words(arena, line, "text");
  } else {
    return;
  }
  run->events++;
}

static bool is_counted(const char *line) {
  return fn_text_starts(line, "{\"event\":\"step\"") ||
         fn_text_starts(line, "{\"event\":\"epoch\"");
}

/** A line that cannot be read is as if it were not there: most likely torn by a kill. */
static void read_event(fn_arena *arena, const char *line, fn_page_run *run) {
  fn_options *root = NULL;
  if (fn_options_from_text(line, "metrics.jsonl", &root) == FN_OK && root &&
      fn_options_get_kind(root) == FN_OPTIONS_MAPPING)
    add_event(arena, root, run);
  else
    fn_error_clear();
  fn_options_destroy(root);
}

static fn_status load_events(fn_arena *arena, fn_page_run *run) {
  char path[PATH_SIZE], *text, *rest = NULL;
  snprintf(path, sizeof path, "%s/metrics.jsonl", run->folder);
  if (!fn_file_exists(path)) return FN_OK;
  FN_TRY(fn_file_read(path, &text, NULL));
  int lines = 0;
  for (const char *line = text; line; line = strchr(line, '\n')) {
    line += *line == '\n';
    lines += *line && !is_counted(line);
  }
  run->event = fn_arena_take(arena, sizeof *run->event * (size_t)(lines + 1));
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
    if (!is_counted(line) && run->events < lines) read_event(arena, line, run);
  if (run->saves > 0) run->save_seconds /= (double)run->saves;
  free(text);
  return FN_OK;
}

/* ---- all ------------------------------------------------------------------------------------- */

static fn_status load_table(const fn_page_run *run, const char *name, fn_table *table) {
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "%s/%s", run->folder, name);
  return fn_table_read(path, table);
}

/** The part of the folders' paths from the first directory in which they differ. */
static void name_runs(fn_page *page) {
  const char *first = page->run[0].folder;
  size_t common = 0;
  for (size_t i = 0; page->count > 1 && first[i]; i++) {
    for (int r = 1; r < page->count; r++)
      if (page->run[r].folder[i] != first[i]) goto differ;
    if (first[i] == '/') common = i + 1;
  }
differ:
  for (int r = 0; r < page->count; r++) {
    const char *rest = page->run[r].folder + common;
    page->run[r].name = rest[0] ? rest : page->run[r].folder;
  }
}

fn_status fn_page_load(const char *const *folder, int count, fn_page *page) {
  *page = (fn_page){.arena = fn_arena_create(), .count = count, .now = fn_time_now()};
  FN_CHECK(page->arena, FN_ERR_MEMORY, "out of memory");
  page->run = fn_arena_take(page->arena, sizeof *page->run * (size_t)(count > 0 ? count : 1));
  for (int i = 0; i < count; i++) {
    fn_page_run *run = &page->run[i];
    run->folder = folder[i];
    run->colour = i;
    note(run, fn_run_status_read(folder[i], page->now, &run->status));
    note(run, load_table(run, "steps.csv", &run->steps));
    note(run, load_table(run, "metrics.csv", &run->metrics));
    note(run, load_table(run, "test_spectra.csv", &run->spectra));
    note(run, load_settings(page->arena, run));
    note(run, load_events(page->arena, run));
  }
  if (count > 0) name_runs(page);
  return FN_OK;
}

void fn_page_unload(fn_page *page) {
  for (int i = 0; i < page->count; i++) {
    fn_table_free(&page->run[i].steps);
    fn_table_free(&page->run[i].metrics);
    fn_table_free(&page->run[i].spectra);
    fn_text_free(&page->run[i].trouble);
  }
  fn_arena_destroy(page->arena);
}
