/* Tables of a page: overview, settings, history. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "report/page.h"
#include "run/checkpoint_folder.h"

enum { PATH_SIZE = 4096 };

static void begin_table(fn_text *html, const char *const *heads, int count, int numbers_from) {
  fn_text_add(html, "<div class=\"scroll\"><table>\n<thead><tr>");
  for (int i = 0; i < count; i++) {
    if (i >= numbers_from)
      fn_html_head_number(html, heads[i]);
    else
      fn_html_head(html, heads[i]);
  }
  fn_text_add(html, "</tr></thead>\n<tbody>\n");
}

static void end_table(fn_text *html) {
  fn_text_add(html, "</tbody></table></div>\n");
}

/* ---- overview -------------------------------------------------------------------------------- */

static void add_state(fn_text *html, const fn_run_status *s) {
  static const char *const classes[FN_RUN_STATES] = {
      [FN_RUN_NEVER] = "quiet",  [FN_RUN_RUNNING] = "good", [FN_RUN_FINISHED] = "good",
      [FN_RUN_STOPPED] = "warn", [FN_RUN_FAILED] = "bad",   [FN_RUN_DEAD] = "bad"};
  fn_text_add(html, "<td><span class=\"state %s\">%s</span>", classes[s->state],
              fn_run_state_name(s->state));
  if (s->note[0]) {
    fn_text_add(html, "<br/>");
    fn_html_words(html, s->note);
  }
  fn_text_add(html, "</td>");
}

static void add_of(fn_text *html, int64_t done, int64_t all) {
  fn_text_add(html, "<td class=\"n\">");
  if (done >= 0) fn_text_add(html, "%" PRId64, done);
  if (done >= 0 && all > 0) fn_text_add(html, " of %" PRId64, all);
  if (done < 0) fn_text_add(html, "–");
  fn_text_add(html, "</td>");
}

static void add_duration(fn_text *html, double seconds, const char *after) {
  char text[32];
  if (isfinite(seconds)) fn_text_duration(fmax(0, seconds), text, sizeof text);
  fn_text_add(html, "<td class=\"n\">%s%s</td>", isfinite(seconds) ? text : "–",
              isfinite(seconds) ? after : "");
}

static double sum(const double *column, int64_t count) {
  double total = 0;
  for (int64_t i = 0; column && i < count; i++)
    if (isfinite(column[i])) total += column[i];
  return column ? total : (double)NAN;
}

static void add_run(const fn_page *page, const fn_page_run *run, double best, fn_text *html) {
  const fn_run_status *s = &run->status;
  const bool is_best = page->count > 1 && s->best_loss == best;
  fn_text_add(html, is_best ? "<tr class=\"best\"><td class=\"best\">" : "<tr><td>");
  if (page->count > 1) fn_html_swatch(html, run->colour, run->colour >= 2 * FN_HTML_COLOURS);
  fn_html_words(html, run->name);
  fn_text_add(html, "</td>");
  add_state(html, s);
  add_of(html, s->epochs_done, s->epochs);
  add_of(html, s->step, s->epoch_steps > 0 ? s->epochs * s->epoch_steps : -1);
  fn_html_cell_number(html, s->train_loss, 5);
  fn_html_cell_number(html, s->validation_loss, 5);
  fn_text_add(html, "<td class=\"n best\">");
  fn_html_number(html, s->best_loss, 5);
  if (s->best_epoch > 0) fn_text_add(html, " (epoch %" PRId64 ")", s->best_epoch);
  fn_text_add(html, "</td>");
  fn_html_cell_number(html, s->samples_per_second, 4);
  add_duration(html, sum(fn_table_column(&run->metrics, "seconds"), run->metrics.rows), "");
  add_duration(html, s->eta, "");
  add_duration(html, page->now - s->saved, " ago");
  fn_html_cell_count(html, s->ranks);
  fn_html_cell(html, s->host);
  fn_text_add(html, "</tr>\n");
}

void fn_page_overview(const fn_page *page, fn_text *html) {
  static const char *const heads[] = {
      "run",       "state",       "epochs", "steps",      "training", "validation", "best loss",
      "samples/s", "epochs took", "ETA",    "last state", "ranks",    "host"};
  double best = INFINITY;
  for (int i = 0; i < page->count; i++)
    best = fmin(best, page->run[i].status.best_loss); // fmin passes over NaN
  fn_text_add(html, "<h2 id=\"overview\">Overview</h2>\n");
  begin_table(html, heads, (int)(sizeof heads / sizeof heads[0]), 2);
  for (int i = 0; i < page->count; i++)
    add_run(page, &page->run[i], best, html);
  end_table(html);
  for (int i = 0; i < page->count; i++) {
    const fn_page_run *run = &page->run[i];
    const bool bad = run->status.state == FN_RUN_FAILED || run->status.state == FN_RUN_DEAD;
    const char *text[] = {bad ? run->status.message : "", run->trouble.data};
    for (int t = 0; t < 2; t++) {
      if (!text[t] || !text[t][0]) continue;
      fn_text_add(html, "<pre class=\"bad\">");
      fn_html_words(html, run->name);
      fn_text_add(html, ": ");
      fn_html_words(html, text[t]);
      fn_text_add(html, "</pre>\n");
    }
  }
}

/* ---- settings -------------------------------------------------------------------------------- */

static bool differs(const fn_page *page, const char *key) {
  const char *first = NULL;
  bool told = false;
  for (int i = 0; i < page->count; i++) {
    if (page->run[i].settings == 0) continue; // never started: nothing to compare with
    const char *value = fn_page_value(&page->run[i], key);
    const bool same = first && value ? strcmp(first, value) == 0 : first == value;
    if (told && !same) return true;
    first = value;
    told = true;
  }
  return false;
}

static void add_difference(const fn_page *page, const char *key, fn_text *html) {
  fn_text_add(html, "<tr><td class=\"key\">");
  fn_html_words(html, key);
  fn_text_add(html, "</td>");
  for (int i = 0; i < page->count; i++) {
    const char *value = fn_page_value(&page->run[i], key);
    fn_html_cell(html, value ? value : "–");
  }
  fn_text_add(html, "</tr>\n");
}

/** Keys in the order of the first run that has them; the folders differ of course. */
static int add_differences(const fn_page *page, fn_text *html) {
  int found = 0;
  for (int r = 0; r < page->count; r++)
    for (int i = 0; i < page->run[r].settings; i++) {
      const char *key = page->run[r].setting[i].key;
      bool shown = strcmp(key, "folder") == 0;
      for (int before = 0; before < r && !shown; before++)
        shown = fn_page_value(&page->run[before], key) != NULL;
      if (shown || !differs(page, key)) continue;
      add_difference(page, key, html);
      found++;
    }
  return found;
}

static void compare_settings(const fn_page *page, fn_text *html) {
  const char **heads = fn_arena_take(page->arena, sizeof *heads * (size_t)(page->count + 1));
  heads[0] = "key";
  for (int i = 0; i < page->count; i++)
    heads[i + 1] = page->run[i].name;
  fn_text_add(html, "<h3>Keys that differ</h3>\n");
  const size_t start = html->length;
  begin_table(html, heads, page->count + 1, page->count + 1);
  if (add_differences(page, html) > 0) {
    end_table(html);
    return;
  }
  fn_text_cut(html, start);
  fn_text_add(html, "<p class=\"about\">None.</p>\n");
}

void fn_page_settings(const fn_page *page, fn_text *html) {
  fn_text_add(html, "<h2 id=\"configuration\">Configuration</h2>\n");
  if (page->count > 1) compare_settings(page, html);
  for (int r = 0; r < page->count; r++) {
    const fn_page_run *run = &page->run[r];
    fn_text_add(html, "<details><summary>All keys of ");
    fn_html_words(html, run->name);
    fn_text_add(html, " (%d)</summary>\n<div class=\"scroll\"><table><tbody>\n", run->settings);
    for (int i = 0; i < run->settings; i++) {
      fn_text_add(html, "<tr><td class=\"key\">");
      fn_html_words(html, run->setting[i].key);
      fn_text_add(html, "</td><td class=\"value\">");
      fn_html_words(html, run->setting[i].value);
      fn_text_add(html, "</td></tr>\n");
    }
    if (run->settings == 0) fn_text_add(html, "<tr><td>not written yet</td></tr>\n");
    fn_text_add(html, "</tbody></table></div></details>\n");
  }
}

/* ---- history --------------------------------------------------------------------------------- */

static void add_placement(const fn_page_run *run, fn_text *html) {
  const fn_page_event *last = NULL;
  for (int i = 0; i < run->events; i++)
    if (run->event[i].kind == FN_PAGE_START && run->event[i].placement[0]) last = &run->event[i];
  if (!last) return;
  fn_text_add(html, "<h3>Where the ranks are</h3>\n<pre>");
  fn_html_words(html, last->placement);
  fn_text_add(html, "</pre>\n");
}

static void add_starts(const fn_page_run *run, fn_text *html) {
  static const char *const heads[] = {"", "time", "host", "ranks", "version", "what"};
  fn_text_add(html, "<h3>Starts and ends</h3>\n");
  begin_table(html, heads, 6, 6);
  for (int i = 0; i < run->events; i++) {
    const fn_page_event *e = &run->event[i];
    if (e->kind == FN_PAGE_WARNING) continue;
    const bool start = e->kind == FN_PAGE_START;
    fn_text_add(html, "<tr>");
    fn_html_cell(html, !start ? "end" : e->step > 0 ? "resumed" : "start");
    fn_html_cell(html, e->time);
    fn_html_cell(html, e->host);
    if (start)
      fn_html_cell_count(html, e->ranks);
    else
      fn_html_cell(html, "");
    fn_html_cell(html, e->version);
    fn_text_add(html, "<td>");
    if (start && e->step > 0) fn_text_add(html, "from step %" PRId64 "; ", e->step);
    fn_html_words(html, start ? e->summary : e->text);
    fn_text_add(html, "</td></tr>\n");
  }
  end_table(html);
}

static int newest_first(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

/** Indices of the states in the folder, newest first, at most `most`; returns how many. */
static int find_states(const char *folder, int64_t *index, int most) {
  int count = 0;
  DIR *dir = opendir(folder);
  for (struct dirent *entry; dir && (entry = readdir(dir));) {
    const int64_t found = fn_state_index(entry->d_name);
    if (found >= 0 && count < most) index[count++] = found;
  }
  if (dir) closedir(dir);
  qsort(index, (size_t)count, sizeof *index, newest_first);
  return count;
}

static bool is_target(const char *folder, const char *link, const char *name) {
  char path[PATH_SIZE], target[PATH_SIZE];
  snprintf(path, sizeof path, "%s/%s", folder, link);
  const ssize_t length = readlink(path, target, sizeof target - 1);
  if (length < 0) return false;
  target[length] = '\0';
  return strcmp(target, name) == 0;
}

static void add_state_file(const fn_page_run *run, int64_t index, fn_text *html) {
  char name[64], path[PATH_SIZE], bytes[32], when[64] = "";
  struct stat info;
  snprintf(name, sizeof name, "state_%" PRId64 ".h5", index);
  snprintf(path, sizeof path, "%s/%s", run->folder, name);
  if (stat(path, &info) != 0) return; // removed since
  struct tm local;
  if (localtime_r(&info.st_mtime, &local)) strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
  fn_text_add(html,
              "<tr><td class=\"key\">%s</td><td>%s</td><td class=\"n\">%s</td><td>%s%s</td></tr>\n",
              name, when, fn_text_bytes((double)info.st_size, bytes, sizeof bytes),
              is_target(run->folder, "checkpoint.h5", name) ? "newest " : "",
              is_target(run->folder, "best.h5", name) ? "best" : "");
}

static void add_states(const fn_page_run *run, fn_text *html) {
  static const char *const heads[] = {"state", "written", "size", ""};
  enum { MOST = 4096, SHOWN = 40 };
  int64_t index[MOST];
  const int count = find_states(run->folder, index, MOST);
  if (count == 0) return;
  fn_text_add(html, "<h3>States</h3>\n");
  begin_table(html, heads, 4, 4);
  for (int i = 0; i < count && i < SHOWN; i++)
    add_state_file(run, index[i], html);
  end_table(html);
  if (count > SHOWN) fn_text_add(html, "<p class=\"about\">and %d older ones</p>\n", count - SHOWN);
  if (run->saves > 0)
    fn_text_add(html, "<p class=\"about\">%" PRId64 " saves of %.3g s on average.</p>\n",
                run->saves, run->save_seconds);
}

static void add_warnings(const fn_page_run *run, fn_text *html) {
  int warnings = 0;
  for (int i = 0; i < run->events; i++)
    warnings += run->event[i].kind == FN_PAGE_WARNING;
  fn_text_add(html, "<h3>Warnings (%d)</h3>\n", warnings);
  if (warnings == 0) return;
  fn_text_add(html, "<pre>");
  for (int i = 0; i < run->events; i++) {
    if (run->event[i].kind != FN_PAGE_WARNING) continue;
    fn_html_words(html, run->event[i].time);
    fn_text_add(html, "  ");
    fn_html_words(html, run->event[i].text);
    fn_text_add(html, "\n");
  }
  fn_text_add(html, "</pre>\n");
}

void fn_page_history(const fn_page *page, fn_text *html) {
  fn_text_add(html, "<h2 id=\"history\">History</h2>\n");
  for (int i = 0; i < page->count; i++) {
    const fn_page_run *run = &page->run[i];
    fn_text_add(html, "<details%s><summary>", page->count == 1 ? " open=\"open\"" : "");
    fn_html_words(html, run->name);
    fn_text_add(html, "</summary>\n");
    add_placement(run, html);
    add_starts(run, html);
    add_states(run, html);
    add_warnings(run, html);
    fn_text_add(html, "</details>\n");
  }
}
