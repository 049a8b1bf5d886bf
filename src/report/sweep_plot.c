/* A sweep as a picture: the metric against each parameter, and learning curves. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/plot.h"
#include "report/sweep_table.h"

enum { GROUPS = 3, MOST_PANELS = 24, CATEGORIES = 12, TITLE = 160 };

/** Finished trials, those stopped by the rule, and all others with a result. */
static const struct {
  const char *name;
  int colour;
} looks[GROUPS] = {{"finished", 0}, {"stopped", 4}, {"not finished", 6}};
static const int best_colour = 1;

static const char *metric_label(const fn_sweep *sweep) {
  if (strcmp(sweep->metric, "train") == 0) return "training loss";
  if (strcmp(sweep->metric, "validation") == 0) return "validation loss";
  return strcmp(sweep->metric, "accuracy") == 0 ? "validation accuracy"
         : strcmp(sweep->metric, "auc") == 0    ? "validation AUC"
                                                : "validation F1";
}

static int look_of(const fn_trial_record *r) {
  return r->state == FN_TRIAL_FINISHED ? 0 : r->state == FN_TRIAL_STOPPED ? 1 : 2;
}

/** What all panels are drawn from. */
typedef struct picture {
  fn_sweep_store *store;
  const fn_sweep *sweep;
  fn_arena *arena;
  int64_t count;
  fn_trial *trial; // [count]
  int64_t best;    // < 0: none
  bool log_metric;
} picture;

/** Whether a logarithmic axis shows more: all positive, over more than a decade. */
static bool wants_log(double low, double high) {
  return low > 0 && isfinite(high) && high > 10 * low;
}

static fn_status gather(picture *p) {
  p->count = fn_sweep_store_count(p->store);
  p->trial = fn_arena_take(p->arena, sizeof *p->trial * (size_t)(p->count + 1));
  double low = INFINITY, high = -INFINITY;
  for (int64_t id = 0; id < p->count; id++) {
    FN_TRY(fn_sweep_store_trial_make(p->store, id, p->arena, &p->trial[id]));
    const fn_trial_record *r = fn_sweep_store_trial(p->store, id);
    if (!isfinite(r->best)) continue;
    low = fmin(low, r->best);
    high = fmax(high, r->best);
  }
  p->best = fn_sweep_best_trial(p->store);
  FN_CHECK(p->best >= 0, FN_ERR_DATA, "%s: no trial has a result yet", p->sweep->folder);
  p->log_metric = wants_log(low, high);
  return FN_OK;
}

/* ---- metric against one parameter --------------------------------------------------------------
 */

/** Whether every value of the parameter is a number. */
static bool is_numeric(const picture *p, const char *path) {
  for (int64_t id = 0; id < p->count; id++) {
    const char *text = fn_trial_value(&p->trial[id], path);
    char *end = NULL;
    if (text && (strtod(text, &end), end == text || *end)) return false;
  }
  return true;
}

/** Number of a word among those seen so far, from 1; 0: too many. */
static int category_of(const char **words, int *count, const char *word) {
  for (int i = 0; i < *count; i++)
    if (strcmp(words[i], word) == 0) return i + 1;
  if (*count == CATEGORIES) return 0;
  words[(*count)++] = word;
  return *count;
}

/** "1 adam, 2 sgd" under the axis of a parameter with words. */
static const char *categories_label(const picture *p, const char *name, const char **words,
                                    int count) {
  const char *text = fn_arena_format(p->arena, "%s:", name);
  for (int i = 0; i < count; i++)
    text = fn_arena_format(p->arena, "%s%s %d %s", text, i > 0 ? "," : "", i + 1, words[i]);
  return text;
}

static void draw_parameter(picture *p, int parameter, fn_panel *panel) {
  const char *path = p->sweep->parameter[parameter].path,
             *name = fn_sweep_short_name(p->sweep, parameter), *words[CATEGORIES];
  const bool numeric = is_numeric(p, path);
  double low = INFINITY, high = -INFINITY;
  int word_count = 0;
  fn_series *series = fn_arena_take(p->arena, sizeof *series * (GROUPS + 1));
  double *x[GROUPS + 1], *y[GROUPS + 1];
  for (int g = 0; g <= GROUPS; g++) {
    x[g] = fn_arena_take(p->arena, sizeof(double) * (size_t)(p->count + 1));
    y[g] = fn_arena_take(p->arena, sizeof(double) * (size_t)(p->count + 1));
  }
  for (int64_t id = 0; id < p->count; id++) {
    const fn_trial_record *r = fn_sweep_store_trial(p->store, id);
    const char *text = fn_trial_value(&p->trial[id], path);
    if (!text || !isfinite(r->best)) continue;
    const double at = numeric ? strtod(text, NULL) : category_of(words, &word_count, text);
    const int g = id == p->best ? GROUPS : look_of(r);
    x[g][series[g].count] = at;
    y[g][series[g].count++] = r->best;
    low = fmin(low, at);
    high = fmax(high, at);
  }
  for (int g = 0; g <= GROUPS; g++) {
    series[g].x = x[g];
    series[g].y = y[g];
    series[g].scatter = true;
    series[g].colour = g < GROUPS ? looks[g].colour : best_colour;
  }
  *panel = (fn_panel){.title = name,
                      .x_label = numeric ? path : categories_label(p, name, words, word_count),
                      .y_label = metric_label(p->sweep),
                      .log_x = numeric && wants_log(low, high),
                      .log_y = p->log_metric,
                      .series = series,
                      .count = GROUPS + 1};
}

/* ---- learning curves ---------------------------------------------------------------------------
 */

static void draw_curves(picture *p, fn_panel *panel) {
  fn_series *series = fn_arena_take(p->arena, sizeof *series * (size_t)(p->count + 1));
  bool named[GROUPS] = {false};
  double low = INFINITY, high = -INFINITY;
  int count = 0;
  // The best is drawn last, over the others.
  for (int64_t i = 0; i <= p->count; i++) {
    const int64_t id = i == p->count ? p->best : i;
    const fn_trial_record *r = fn_sweep_store_trial(p->store, id);
    if ((i < p->count && id == p->best) || r->epochs == 0) continue;
    double *epoch = fn_arena_take(p->arena, sizeof *epoch * (size_t)r->epochs);
    for (int64_t e = 0; e < r->epochs; e++) {
      epoch[e] = (double)e + 1;
      if (!isfinite(r->values[e])) continue;
      low = fmin(low, r->values[e]);
      high = fmax(high, r->values[e]);
    }
    const int g = look_of(r);
    const bool best = id == p->best;
    series[count++] =
        (fn_series){.label = best ? fn_arena_format(p->arena, "best: trial %lld", (long long)id)
                                  : (named[g] ? NULL : looks[g].name),
                    .x = epoch,
                    .y = r->values,
                    .count = r->epochs,
                    .colour = best ? best_colour : looks[g].colour};
    if (!best) named[g] = true;
  }
  *panel = (fn_panel){.title = "learning curves",
                      .x_label = "epoch",
                      .y_label = metric_label(p->sweep),
                      .log_y = wants_log(low, high),
                      .series = series,
                      .count = count};
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static fn_status draw(picture *p, const char *path) {
  FN_TRY(gather(p));
  fn_panel panels[MOST_PANELS];
  int count = 0;
  draw_curves(p, &panels[count++]);
  for (int i = 0; i < p->sweep->parameter_count && count < MOST_PANELS; i++)
    draw_parameter(p, i, &panels[count++]);
  const fn_trial_record *best = fn_sweep_store_trial(p->store, p->best);
  char title[TITLE];
  snprintf(title, sizeof title, "%.80s: best %s %.5g, trial %lld", p->sweep->folder,
           p->sweep->metric, best->best, (long long)p->best);
  fn_picture *drawn = NULL;
  FN_TRY(fn_plot_panels(title, panels, count, count < 3 ? count : 3, 420, 320, &drawn));
  const fn_status status = fn_picture_save(drawn, path);
  fn_picture_destroy(drawn);
  return status;
}

fn_status fn_sweep_plot(fn_sweep_store *store, const char *path) {
  picture p = {.store = store, .sweep = fn_sweep_store_sweep(store), .arena = fn_arena_create()};
  FN_CHECK(p.arena, FN_ERR_MEMORY, "out of memory");
  const fn_status status = draw(&p, path);
  fn_arena_destroy(p.arena);
  return status;
}
